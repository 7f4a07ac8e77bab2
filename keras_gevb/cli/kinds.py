"""Kinds of arguments that several commands take."""

import argparse
import os
import pathlib
import socket
import urllib.request

import keras

from keras_gevb import datasets, rules
from keras_gevb.cli.errors import Failed, WrongUse


def positive(text):
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but is {number}")
    return number


def positive_real(text):
    """A number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0 and finite, but is {text}")
    return number


def seed(text):
    """A whole number that is not negative."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, but is {number}")
    return number


def rule(text):
    """The name of a learning rule."""
    try:
        rules.get(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def saved(path):
    """The path of a model's file.

    Raises:
        WrongUse: if there is none.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise WrongUse(f"There is no file '{path}'. Give a model that `model.save` wrote, a .keras file.")
    return path


def read(path):
    """The model of a file.

    Raises:
        Failed: if it holds none.
    """
    try:
        return keras.models.load_model(path)
    except Exception as error:
        raise Failed(f"'{path}' could not be read as a model: {error}") from error


def add_data(parser):
    """The data set, and where it lies."""
    parser.add_argument("dataset", choices=list(datasets.IMAGES))
    parser.add_argument(
        "--data-dir", metavar="DIR", help="folder of prepared data sets (default: $TFDS_DATA_DIR)"
    )


def load(dataset, data_dir):
    """The data set, `(x, y), (x_test, y_test)`.

    Raises:
        Failed: if it is neither on this machine nor can be downloaded.
    """
    folder = pathlib.Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    prepared = dataset == "digits" or any((folder.expanduser() / dataset).glob("[0-9]*"))
    if not prepared and not _network():
        raise Failed(
            f"The data set '{dataset}' is not prepared in '{folder}', and there is no network. "
            "Connect once, or give --data-dir a folder that holds it prepared by TensorFlow Datasets."
        )
    try:
        return datasets.load(dataset, data_dir)
    except RuntimeError as error:
        raise Failed(str(error)) from error


def _network():
    """Whether a host's name can be found: TensorFlow Datasets tries for minutes before it says no."""
    if urllib.request.getproxies():
        return True
    try:
        return bool(socket.getaddrinfo("storage.googleapis.com", 443))
    except OSError:
        return False
