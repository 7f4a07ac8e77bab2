"""Image data sets as arrays of raw pixels.

Digits come with scikit-learn. The others come through TensorFlow Datasets, downloaded
once or read from a folder where they lie prepared, or from a file NAME.npz, which needs
neither TensorFlow nor TensorFlow Datasets.
"""

import os
import pathlib

import numpy as np

from keras_gevb.types import Images, Path

# name: (image shape, brightest pixel)
IMAGES = {
    "digits": ((8, 8, 1), 16),
    "mnist": ((28, 28, 1), 255),
    "fashion_mnist": ((28, 28, 1), 255),
    "cifar10": ((32, 32, 3), 255),
}


def load(name: str, data_dir: Path | None = None) -> tuple[Images, Images]:
    """Load a data set.

    Args:
        name: "digits" (1,797 images of 8 x 8, pixels 0 to 16, needs no network),
            "mnist", "fashion_mnist" or "cifar10" (pixels 0 to 255).
        data_dir: A folder with NAME.npz, of arrays `x_train`, `y_train`, `x_test` and
            `y_test` (as `keras.datasets.mnist` leaves one in `~/.keras/datasets`), or
            with the data set prepared by TensorFlow Datasets, or where to prepare it.
            Defaults to the environment variable TFDS_DATA_DIR, then to
            `~/tensorflow_datasets`.

    Returns:
        `(x_train, y_train), (x_test, y_test)`: uint8 images `(n, height, width,
        channels)` and int64 labels `(n,)`. Of the digits, every fifth is a test image.

    Raises:
        ValueError: if the name is unknown.
        RuntimeError: if the data set is neither in the folder nor can be downloaded, or
            cannot be read.

    Example:

    >>> (x, y), (x_test, y_test) = datasets.load("digits")
    >>> x.shape, x_test.shape
    ((1438, 8, 8, 1), (359, 8, 8, 1))
    """
    if name not in IMAGES:
        raise ValueError(f"Unknown data set. Choose one of {sorted(IMAGES)}. Received: {name!r}")
    if name == "digits":
        return _digits()
    folder = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    file = pathlib.Path(folder, f"{name}.npz").expanduser()
    if file.is_file():
        return _archived(file, IMAGES[name][0])
    train, test = (_prepared(name, folder, split) for split in ("train", "test"))
    return (train["image"], train["label"]), (test["image"], test["label"])


def _digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.astype("uint8").reshape(-1, 8, 8, 1)
    labels = labels.astype("int64")
    test = np.arange(len(images)) % 5 == 4
    # Copies, whose memory is contiguous, in the order of the file.
    return (images[~test], labels[~test]), (images[test], labels[test])


def _archived(file, shape):
    try:
        with np.load(file) as arrays:
            return tuple(
                (arrays[f"x_{part}"].reshape(-1, *shape), arrays[f"y_{part}"].reshape(-1).astype(np.int64))
                for part in ("train", "test")
            )
    except Exception as error:
        raise RuntimeError(
            f"'{file}' could not be read ({type(error).__name__}: {error}). It must hold x_train, y_train, "
            f"x_test and y_test, images of shape {shape}: write it anew, or delete it to have TensorFlow "
            "Datasets used."
        ) from error


def _prepared(name, folder, split):
    import tensorflow_datasets as tfds

    folder = tfds.core.Path(folder).expanduser()  # a bucket too
    # An interrupted preparation leaves a folder too, without a version.
    lies_prepared = any((folder / name).glob("[0-9]*"))
    try:
        return tfds.as_numpy(
            tfds.load(name, split=split, data_dir=folder, batch_size=-1, download=not lies_prepared)
        )
    except Exception as error:
        what_failed = f"is not prepared in '{folder}', and could not be downloaded"
        advice = "Connect to the network once"
        if lies_prepared:
            what_failed = f"lies in '{folder}', but could not be read"
            advice = f"Delete '{folder / name}', to have it downloaded anew"
        raise RuntimeError(
            f"The data set '{name}' {what_failed} "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}). "
            f"{advice}, or set TFDS_DATA_DIR (or data_dir) to a folder that holds it prepared by "
            "TensorFlow Datasets."
        ) from error
