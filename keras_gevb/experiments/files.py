"""Files that are whole or not there: atomic writes, checked reads, one process per run."""

import contextlib
import errno
import json
import os
import pathlib
import secrets

try:
    import fcntl
except ImportError:  # Windows has no flock: there, start each run once.
    fcntl = None  # type: ignore[assignment]

# Counts up when a file of an older version can no longer be read.
SCHEMA = 1
MARKER = "experiments.json"

# What to do about a corrupt file.
ANEW = "Delete it, or put a whole copy in its place; `run` then does what is missing."
WITHOUT = "Put a whole copy in its place, or delete it: the report then does without."


class ExperimentError(Exception):
    """What a user can mend: a name, a file, a full disk. Says how."""


class WrongName(ExperimentError):
    """A cell or a folder that is not what its name should be: nothing was done."""


def open_folder(out, create=False):
    """The output folder, if it is of this version.

    Args:
        out: Its path.
        create: Whether to make it where there is none.

    Raises:
        ExperimentError: if there is none, or another version of the package wrote it.
    """
    folder = pathlib.Path(out)
    if folder.is_file():
        raise WrongName(f"'{folder}' is a file. Give --out a folder, or the name of a new one.")
    marker = folder / MARKER
    if create:
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if not marker.exists():
            write_json(marker, {"schema": SCHEMA})
    if not marker.exists():
        raise WrongName(
            f"There are no experiments in '{folder}': it has no {MARKER}. Give --out the folder that "
            "`run` wrote into."
        )
    read_json(marker)
    return folder


def write_json(path, content):
    """Write JSON atomically."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read_json(path, advice=ANEW):
    """The content of a JSON file of this version.

    Args:
        path: Its path.
        advice: What to do where it is corrupt.

    Raises:
        ExperimentError: if it is corrupt, half-written or of another version.
    """
    try:
        return checked(json.loads(path.read_bytes()), path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise corrupt(path, error, advice) from error


def checked(content, path):
    """The content of a file, if it is of this version."""
    if content["schema"] != SCHEMA:
        raise ExperimentError(
            f"'{path}' was written by another version of the package (schema {content['schema']}; this "
            f"one reads {SCHEMA}). Use that version, or another --out folder. The file is left as it is."
        )
    return content


def corrupt(path, reason, advice=ANEW):
    """The error for a file that cannot be read."""
    return ExperimentError(
        f"'{path}' is corrupt or half-written ({type(reason).__name__}: {reason}). {advice} "
        "No other result is affected."
    )


def write_atomically(path, write):
    """Write a file so that a reader, or a crash, sees the old one or the whole new one.

    Args:
        path: Where it shall stand.
        write: A function that writes into an open binary file.

    Raises:
        ExperimentError: if the disk is full or not writable; the old file is then untouched.
    """
    # Processes of other machines may have the same number.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.writing")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def explained(path):
    """A scope whose file system errors say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = "No space is left on the device. Free some"
        else:
            what = f"{error.strerror or error}. Mend that"
        raise ExperimentError(
            f"Cannot write '{path}'. {what}, then give the same command again: it continues where "
            "this one stopped, and what was finished is kept."
        ) from error


@contextlib.contextmanager
def locked(path):
    """A scope that one process at a time can be in; the lock dies with its process.

    What a killed one was writing to files of the lock's name is deleted.

    Args:
        path: Of the lock, such as `seed-0.lock`.

    Yields:
        Whether this process is the one.
    """
    if fcntl is None:
        yield True
        return
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")  # noqa: SIM115 (held for the whole scope)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The file may have been deleted by its last owner since it was opened: then it locks no one out.
            ours = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        except (BlockingIOError, FileNotFoundError):
            ours = False
        if ours:
            for left in path.parent.glob(f".{path.stem}.*.writing"):
                left.unlink()
        yield ours
        if ours:
            path.unlink(missing_ok=True)
