"""Training follows the paper's own implementation, loss by loss."""

import hashlib
import pathlib

import keras
import numpy as np
import pytest
from test_golden import GOLDEN, build

import keras_gevb
from keras_gevb import datasets, layers

BESIDE = pathlib.Path(__file__).resolve().parents[2] / "shared" / "golden"
BATCH = 64

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow",
        reason="gates flip at float32's rounding, and Keras computes in float32 here",
    ),
]


# As many steps as take seconds.
@pytest.mark.parametrize(
    ("name", "steps"),
    [("conv_nonneg_gevb", 60), ("conventional-fc_nonneg_dfa", 300), ("fc_nonneg_gevb", 300)],
)
@pytest.mark.sampled(1)
def test_every_loss_is_that_of_the_papers_own_training(name, steps, mnist):
    trajectory, (x, y) = load(name), mnist
    assert hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest() == trajectory["train_sha256"]
    x = ((x / np.float32(255) - np.float32(0.5)) / np.float32(0.5)).astype("float64")
    if "Conv2d" not in trajectory["layers"]:
        x = x.reshape(len(x), -1)
    model = network(trajectory, x[:1])
    losses = train(model, x, y, steps)
    # Two orders of summation in float64, over all steps: 6e-14 was seen.
    np.testing.assert_allclose(losses, trajectory["loss_float64"][:steps], rtol=0, atol=1e-12)
    if steps == len(trajectory["loss_float64"]):
        weights = [v.numpy() for v in model.trainable_variables]
        for measure, of in (("norm", np.linalg.norm), ("sum", np.sum)):
            expected = [v for k, v in trajectory.items() if k.startswith(f"final_{measure}_float64/")]
            # A sum of thousands of numbers of both signs.
            np.testing.assert_allclose([of(w) for w in weights], expected, rtol=1e-11)


@pytest.fixture(scope="module")
def mnist(mnist_folder):
    (x, y), _ = datasets.load("mnist", mnist_folder)
    return x[: 300 * BATCH], y[: 300 * BATCH]


def load(name):
    files = [folder / "trajectories" / f"{name}.npz" for folder in (GOLDEN, BESIDE)]
    found = [file for file in files if file.exists()]
    if not found:
        pytest.skip(f"{files[-1]} is not there, and too large to come with the tests")
    with np.load(found[0]) as data:
        return dict(data)


def network(trajectory, x):
    """The model, from the weights that the paper's implementation started from."""
    if "DFA" in trajectory["layers"]:
        return conventional(trajectory)
    x = np.moveaxis(x, -1, 1) if x.ndim == 4 else x
    return build({**trajectory, "x": x, "nonnegative": True})[0]


def conventional(trajectory):
    kernels = [trajectory[f"param/{place}.weight"].T for place in (0, 3, 6)]
    # The odd units of the first layer start as the mirror of the even ones.
    kernels[0] = np.stack([kernels[0], -kernels[0]], axis=-1).reshape(len(kernels[0]), -1)
    model = keras_gevb.Sequential(
        [
            keras.Input(kernels[0].shape[:1]),
            layers.Dense(kernels[0].shape[1]),
            layers.Dense(kernels[1].shape[1], nonnegative=True),
            layers.Dense(kernels[2].shape[1], nonnegative=True, gated=False),
        ],
        learning_rule="dfa",
    )
    for layer, kernel in zip(model.layers, kernels, strict=True):
        layer.kernel.assign(kernel)  # biases are zero here and there
    model.learning_rule.feedback.assign(trajectory["param/7.feedback_matrix"])
    return model


def train(model, x, y, steps):
    """The loss of every step."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # What XLA makes of float64 is slower.
    model.compile(keras_gevb.optimizers.Adam(3e-4), loss, jit_compile=False)
    losses = []
    for start in range(0, steps * BATCH, BATCH):
        model.reset_metrics()
        losses.append(model.train_on_batch(x[start : start + BATCH], y[start : start + BATCH]))
    return losses
