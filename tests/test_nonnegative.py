"""Kernels past the first layer stay nonnegative, whichever way the optimizer moves them."""

import keras
import numpy as np
import pytest

import keras_gevb
from keras_gevb import layers

# name: a function that makes the optimizer, with steps so large that weights meet zero
OPTIMIZERS = {
    "Adam": lambda: keras.optimizers.Adam(0.05),
    "SGD with momentum": lambda: keras.optimizers.SGD(0.5, momentum=0.9, nesterov=True),
    "accumulated updates": lambda: keras.optimizers.Adam(0.05, gradient_accumulation_steps=3),
    "averaged weights": lambda: keras.optimizers.SGD(0.5, momentum=0.9, use_ema=True, ema_momentum=0.5),
    "averaged weights, written back": lambda: keras.optimizers.SGD(
        0.5, momentum=0.9, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2
    ),
    "scaled loss": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.05)),
}


def network(rule):
    vectorized = rule == "gevb"
    if vectorized:
        chain = [
            layers.VectorConv2D(4, 3, vector_dim=4),
            layers.VectorLocallyConnected2D(4, 2),
            layers.VectorFlatten(),
            layers.VectorDense(6, kernel_constraint=keras.constraints.MaxNorm(1.0)),
            layers.VectorReadout(),
        ]
    else:
        chain = [
            layers.Conv2D(4, 3),
            layers.LocallyConnected2D(4, 2, nonnegative=True),
            keras.layers.Flatten(),
            layers.Dense(6, nonnegative=True, kernel_constraint=keras.constraints.MaxNorm(1.0)),
            layers.Dense(4, gated=False, nonnegative=True),
        ]
    return keras_gevb.Sequential([keras.Input((5, 5, 2)), *chain], learning_rule=rule)


def lowest_after_fit(model, optimizer):
    """The smallest kernel entry past the first layer."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=False)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((24, 5, 5, 2)).astype("float32"), rng.integers(0, 4, 24)
    before = model.get_weights()
    model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    assert not all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    return min(layer.kernel.numpy().min() for layer in weight_layers(model)[1:])


def weight_layers(model):
    return [layer for layer in model.layers if isinstance(layer, layers.WeightLayer)]


@pytest.mark.parametrize("rule", ["gevb", "dfa"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.sampled(2)
def test_kernels_are_nonnegative_after_fit(optimizer, rule):
    assert lowest_after_fit(network(rule), OPTIMIZERS[optimizer]()) >= 0


@pytest.mark.parametrize("optimizer", ["Adam", "SGD with momentum"])
@pytest.mark.sampled(1)
def test_without_the_constraint_they_would_not_be(optimizer):
    model = network("gevb")
    for layer in weight_layers(model):
        layer.kernel.constraint = None
    assert lowest_after_fit(model, OPTIMIZERS[optimizer]()) < 0


def test_a_constraint_of_the_user_holds_too():
    model = network("gevb")
    lowest_after_fit(model, OPTIMIZERS["Adam"]())
    dense = weight_layers(model)[2]
    norms = np.linalg.norm(dense.kernel.numpy(), axis=0)
    assert norms.max() <= 1.0 + 1e-6  # float32


def test_the_first_layer_has_mixed_signs():
    model = network("gevb")
    lowest_after_fit(model, OPTIMIZERS["Adam"]())
    assert weight_layers(model)[0].kernel.numpy().min() < 0


def test_mixed_sign_layers_are_not_constrained():
    model = keras_gevb.Sequential(
        [
            keras.Input((5, 5, 2)),
            layers.VectorConv2D(4, 3, vector_dim=4),
            layers.VectorFlatten(),
            layers.VectorReadout(nonnegative=False),
        ]
    )
    assert lowest_after_fit(model, OPTIMIZERS["Adam"]()) < 0
