"""Before training, backpropagation's signal is nearly the one that GEVB sends, as published."""

import numpy as np
import pytest
from networks import arrays, step_of

from keras_gevb import datasets, zoo

# g of the last hidden layer is the readout's kernel, half-normal or zero with equal chance.
LAST = np.degrees(np.arccos(1 / np.sqrt(np.pi)))


def angles(model, x):
    """Per hidden layer, the mean angle in degrees between g and the all-ones vector."""
    *hidden, _ = arrays(step_of(model, x).backward())
    return [angle(g.reshape(len(x), -1)) for g in hidden]


def angle(g):
    cosine = g.sum(axis=1) / (np.linalg.norm(g, axis=1) * np.sqrt(g.shape[1]))
    return np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean()


@pytest.mark.long
def test_mnist_starts_at_the_published_angles(mnist_folder):
    (x, _), _ = datasets.load("mnist", data_dir=mnist_folder)
    found = angles(zoo.build("mnist", "fc"), x[:128])
    # The paper's means over 5 runs; single runs spread by about half a degree.
    np.testing.assert_allclose(found, [9.2, 55.7], atol=1.5)


@pytest.mark.parametrize("width", [2, 8])
def test_the_last_hidden_layer_starts_at_one_angle_whatever_its_width(width):
    (x, _), _ = datasets.load("digits")
    # The spread over seeds falls with the square root of the width.
    np.testing.assert_allclose(
        angles(zoo.build("digits", "fc", width=width), x[:32])[-1], LAST, atol=6 / width**0.5
    )


def test_lower_layers_start_nearer_with_width():
    (x, _), _ = datasets.load("digits")
    narrow, wide = (angles(zoo.build("digits", "fc", width=width), x[:32])[0] for width in (1, 16))
    # The spread of a mean over n units: a fourth at 16 times the width.
    np.testing.assert_allclose(wide, narrow / 4, rtol=0.35)


@pytest.mark.parametrize("architecture", zoo.ARCHITECTURES)
def test_mixed_sign_networks_start_at_a_right_angle(architecture):
    (x, _), _ = datasets.load("digits")
    model = zoo.build("digits", architecture, nonnegative=False, width=4)
    np.testing.assert_allclose(angles(model, x[:32]), 90, atol=8)
