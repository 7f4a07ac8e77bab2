"""Data sets: every image once, in the split and with the label that it comes with."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from keras_gevb import datasets


def test_digits_are_those_of_scikit_learn_and_every_fifth_is_a_test_image():
    images, labels = load_digits(return_X_y=True)
    (x, y), (x_test, y_test) = datasets.load("digits")
    assert (len(x), len(x_test)) == (1438, 359)
    for i in range(len(images)):
        split, place = ((x_test, y_test), i // 5) if i % 5 == 4 else ((x, y), i - i // 5)
        np.testing.assert_array_equal(split[0][place].ravel(), images[i])
        assert split[1][place] == labels[i]


def test_digits_have_the_documented_types():
    for images, labels in datasets.load("digits"):
        assert (images.dtype, images.shape[1:]) == ("uint8", (8, 8, 1))
        assert (labels.dtype, labels.shape) == ("int64", (len(images),))
        assert set(labels) == set(range(10))
        assert (images.min(), images.max()) == (0, 16)


@pytest.fixture
def prepared(monkeypatch):
    """TensorFlow Datasets with ten training and four test images of any name, and what it was asked."""
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(0)
    splits = {
        split: {
            "image": rng.integers(0, 256, (samples, 2, 3, 1), "uint8"),
            "label": rng.integers(0, 10, samples),
        }
        for split, samples in (("train", 10), ("test", 4))
    }
    asked = []

    def load(name, split, data_dir, batch_size, download):
        asked.append((name, split, str(data_dir), batch_size))
        return splits[split]

    monkeypatch.setattr(tfds, "load", load)
    monkeypatch.setattr(tfds, "as_numpy", lambda structure: structure)
    return splits, asked


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_training_images_are_those_of_the_train_split_and_test_images_of_the_test_split(name, prepared):
    splits, asked = prepared
    for (images, labels), split in zip(datasets.load(name, "here"), ("train", "test"), strict=True):
        np.testing.assert_array_equal(images, splits[split]["image"])
        np.testing.assert_array_equal(labels, splits[split]["label"])
    # A batch of size -1 is the whole split.
    assert sorted(asked) == [(name, split, "here", -1) for split in ("test", "train")]


@pytest.fixture
def archive(tmp_path):
    """Arrays as `keras.datasets.mnist` leaves them: images without channels, labels of 8 bits."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, samples in (("train", 5), ("test", 3)):
        arrays[f"x_{part}"] = rng.integers(0, 256, (samples, 28, 28), "uint8")
        arrays[f"y_{part}"] = rng.integers(0, 10, samples, "uint8")
    np.savez(tmp_path / "mnist.npz", **arrays)
    return tmp_path, arrays


def test_a_file_of_arrays_is_read_before_any_prepared_data_set(archive, prepared):
    folder, arrays = archive
    for part, (images, labels) in zip(("train", "test"), datasets.load("mnist", folder), strict=True):
        np.testing.assert_array_equal(images, arrays[f"x_{part}"][..., None])
        np.testing.assert_array_equal(labels, arrays[f"y_{part}"])
        assert labels.dtype == "int64"
    assert not prepared[1]
    datasets.load("cifar10", folder)  # of which there is no such file
    assert prepared[1]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder, arrays: (folder / "mnist.npz").write_bytes(b"PK"),
        lambda folder, arrays: np.savez(folder / "mnist.npz", x=1, y=2),
        lambda folder, arrays: np.savez(folder / "mnist.npz", **arrays | {"x_test": np.zeros((3, 27, 28))}),
    ],
    ids=["broken", "other names", "other shape"],
)
def test_a_file_that_cannot_be_read_is_named_with_what_it_must_hold(spoil, archive):
    spoil(*archive)
    with pytest.raises(RuntimeError, match=r"mnist\.npz.* must hold x_train, y_train, x_test and y_test"):
        datasets.load("mnist", archive[0])


@pytest.mark.parametrize(
    ("argument", "environment", "folder"),
    [("given", "set", "given"), (None, "set", "set"), (None, None, "home/tensorflow_datasets")],
)
def test_the_folder_is_the_argument_then_the_environment_then_that_of_tensorflow_datasets(
    argument, environment, folder, prepared, monkeypatch
):
    monkeypatch.setenv("HOME", "home")
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    if environment:
        monkeypatch.setenv("TFDS_DATA_DIR", environment)
    datasets.load("mnist", argument)
    assert {asked[2] for asked in prepared[1]} == {folder}


def test_mnist_has_its_published_sizes_and_numbers_of_each_digit(mnist_folder):
    """As LeCun, Cortes and Burges count them."""
    counts = (
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    )
    for (images, labels), expected in zip(datasets.load("mnist", mnist_folder), counts, strict=True):
        np.testing.assert_array_equal(np.bincount(labels), expected)
        assert (images.dtype, images.shape) == ("uint8", (sum(expected), 28, 28, 1))
        assert (labels.dtype, images.min(), images.max()) == ("int64", 0, 255)


def test_shapes_and_brightest_pixels_are_the_published_ones():
    assert datasets.IMAGES == {
        "digits": ((8, 8, 1), 16),
        "mnist": ((28, 28, 1), 255),
        "fashion_mnist": ((28, 28, 1), 255),
        "cifar10": ((32, 32, 3), 255),
    }
