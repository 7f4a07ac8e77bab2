"""Where commands write: nothing is overwritten unless asked for, and a file is whole or not there."""

import contextlib
import json
import os
import pathlib
import secrets
import shutil
import tempfile

from keras_gevb.cli.errors import WrongUse


def new_folder(path, what_next):
    """An empty folder to write into.

    Args:
        path: Its path.
        what_next: What the user can do where something lies there, a phrase.

    Raises:
        WrongUse: if something lies there already, or nothing can be written there.
    """
    folder = pathlib.Path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WrongUse(f"'{folder}' is there already. {what_next}")
    return writable(folder)


ASKED = "asked.json"


def _asked(options, free=()):
    """The arguments that a run goes on with; those that say where and how, and `free` ones, may be others."""
    left_out = {"command", "json", "debug", "out", "data_dir", *free}
    return {name: value for name, value in vars(options).items() if name not in left_out}


def keep_asked(folder, options):
    """Keep a run's arguments in its folder."""
    (folder / ASKED).write_text(json.dumps(_asked(options), indent=1))


def is_begun(folder):
    """Whether a run began in a folder, though it may have been stopped in its first epoch."""
    return (folder / ASKED).exists() or (folder / "model.keras").exists()


def check_as_asked(folder, options, free=()):
    """Raise where a run would go on by other arguments than it began with.

    Raises:
        WrongUse: naming them.
    """
    if not (folder / ASKED).exists():
        return
    asked, began = _asked(options, free), json.loads((folder / ASKED).read_text())
    changed = sorted(name for name in asked if asked[name] != began.get(name))
    if changed:
        raise WrongUse(
            f"'{folder}' holds a run by other arguments ({', '.join(changed)} changed). Give another --out."
        )


def new_file(path, overwrite):
    """The path of a file or folder that a command writes, where its folder can be written into.

    Args:
        path: Its path.
        overwrite: Whether something may lie there already.

    Raises:
        WrongUse: if something does and may not, or nothing can be written there.
    """
    path = pathlib.Path(path)
    if path.exists() and not overwrite:
        raise WrongUse(f"'{path}' is there already. Give --overwrite, or another OUT.")
    writable(path.parent)
    return path


def writable(path):
    """A folder that can be written into, made where there is none.

    Raises:
        WrongUse: if it cannot.
    """
    folder = pathlib.Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise WrongUse(
            f"'{folder}' cannot be written into ({error.strerror}). Name another folder."
        ) from error


@contextlib.contextmanager
def replacing(path):
    """A scope with a name to write to; what was written there takes the place of `path` at its end."""
    path = pathlib.Path(path)
    written = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        yield written
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(written, path)
    finally:
        if written.is_dir():
            shutil.rmtree(written)
        else:
            written.unlink(missing_ok=True)
