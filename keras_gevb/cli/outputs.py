"""Where commands write: nothing is overwritten unless asked for, and a file is whole or not there."""

import contextlib
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
