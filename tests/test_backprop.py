"""The Backprop rule is the exact gradient, though it never differentiates the vectors."""

import keras
import networks
import numpy as np
import pytest
import tensorflow as tf
from networks import EXACT, arrays, rows

import keras_gevb
from keras_gevb import layers

pytestmark = pytest.mark.usefixtures("float64")


def gradients(model, x, y, sample_weight=None):
    """Automatic differentiation of the compiled loss."""
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True), sample_weight, training=True)
    return arrays(tape.gradient(loss, model.trainable_variables))


@rows()
@pytest.mark.sampled(52)
def test_backprop_equals_automatic_differentiation(network):
    model = network.build()
    x, y, weight = network.batch(model)
    exact = gradients(model, x, y, weight)
    updates = arrays(model.compute_updates(x, y, weight, learning_rule="backprop"))
    for update, gradient, variable in zip(updates, exact, model.trainable_variables, strict=True):
        np.testing.assert_allclose(update, gradient, **EXACT, err_msg=variable.path)
        assert np.any(gradient), f"nothing was tested on {variable.path}"


# name: (loss, whether labels are one-hot)
LOSSES = {
    "smoothed labels": (keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1), True),
    "squared error": (keras.losses.MeanSquaredError(), True),
    "a sum over samples": (
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"),
        False,
    ),
}


@pytest.mark.parametrize("name", LOSSES)
@rows(brightest=16)
@pytest.mark.sampled(12)
def test_backprop_is_exact_for_any_loss(network, name):
    loss, one_hot = LOSSES[name]
    model = network.build(loss)
    x, y, weight = network.batch(model)
    y = np.eye(model.output_shape[-1])[y] if one_hot else y
    exact = gradients(model, x, y, weight)
    for update, gradient in zip(
        model.compute_updates(x, y, weight, learning_rule="backprop"), exact, strict=True
    ):
        np.testing.assert_allclose(update, gradient, **EXACT)


def _regularized():
    # Not "l1" alone, which is float32 before Keras 3.14, in a stock model too.
    return [
        layers.VectorDense(8, vector_dim=4, kernel_regularizer="l2", bias_regularizer="l1l2"),
        layers.VectorDense(6, kernel_regularizer="l1l2"),
    ]


def _without_bias():
    return [layers.VectorDense(8, vector_dim=4, use_bias=False), layers.VectorDense(6, use_bias=False)]


def _frozen_layer():
    return [layers.VectorDense(8, vector_dim=4, trainable=False), layers.VectorDense(6)]


def _ungated_conventional():
    return [layers.Dense(8), layers.Dense(4, gated=False)]


def _conventional_with_nonlinear_layers():
    # Only vector units need a linear network.
    bent = [keras.layers.ReLU(negative_slope=0.5), keras.layers.Activation("tanh"), keras.layers.Dropout(0.5)]
    return [layers.Dense(8), *bent, layers.Dense(6), layers.Dense(4, gated=False)]


def _unit_dropout():
    # A unit is dropped as a whole: the same for each of its K components.
    return [
        layers.VectorDense(8, vector_dim=4),
        keras.layers.Dropout(0.5, noise_shape=(None, 1, 8), seed=3),
        layers.VectorDense(6),
    ]


@pytest.mark.parametrize(
    "make",
    [
        _regularized,
        _without_bias,
        _frozen_layer,
        _ungated_conventional,
        _conventional_with_nonlinear_layers,
        _unit_dropout,
    ],
)
def test_backprop_is_exact_with_the_settings_of_keras(make):
    chain = make()
    readout = [layers.VectorReadout()] if type(chain[0]) is layers.VectorDense else []
    model = keras_gevb.Sequential([keras.Input((5,)), *chain, *readout], learning_rule="backprop")
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign_add(rng.uniform(0, 0.1, variable.shape))
    x, y = rng.standard_normal((6, 5)), np.array([0, 1, 2, 3, 0, 1])
    state = [v.numpy() for v in model.variables]
    exact = gradients(model, x, y)
    for variable, value in zip(model.variables, state, strict=True):
        variable.assign(value)  # random layers draw the same numbers again
    for update, gradient in zip(model.compute_updates(x, y), exact, strict=True):
        np.testing.assert_allclose(update, gradient, **EXACT)


STOCK = [
    n
    for n in networks.NETWORKS
    if not n.vectorized
    and n.sequential
    and n.name.startswith(("digits-fc", "digits-conv", "mnist-fc", "conv"))
]


@pytest.mark.parametrize("network", STOCK, ids=[n.name for n in STOCK])
@pytest.mark.sampled(8)
def test_a_conventional_network_is_stock_keras_with_a_gate(network):
    model = network.build()
    x, y, weight = network.batch(model)
    stock = stock_twin(model)
    np.testing.assert_allclose(model(x), stock(x), **EXACT)
    exact = gradients(stock, x, y, weight)
    updates = model.compute_updates(x, y, weight, learning_rule="backprop")
    for update, gradient in zip(updates, exact, strict=True):
        np.testing.assert_allclose(update, gradient, **EXACT)


def stock_twin(model):
    """The same network of Keras's own layers, with the same weights."""
    outputs = inputs = keras.Input(model.input_shape[1:])
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            stock = keras.layers.Conv2D(layer.filters, layer.kernel_size, layer.strides, layer.padding)
        elif isinstance(layer, layers.Dense):
            stock = keras.layers.Dense(layer.units)
        else:
            outputs = layer(outputs)
            continue
        outputs = stock(outputs)
        stock.set_weights([layer.kernel, layer.bias])
        if layer.gated:
            outputs = keras.layers.Lambda(on_off)(outputs)
    twin = keras.Model(inputs, outputs)
    twin.compile(loss=model.loss)
    return twin


def on_off(h):
    """Even units pass h where h <= 0, odd units where h >= 0."""
    even = keras.ops.arange(h.shape[-1]) % 2 == 0
    return keras.ops.where(even, -keras.ops.relu(-h), keras.ops.relu(h))


COMPILED = [
    n
    for n in networks.NETWORKS
    if n.name.startswith(("digits-conv", "digits-lc", "branching", "reused")) and n.nonnegative
]


@pytest.mark.parametrize("network", COMPILED, ids=[n.name for n in COMPILED])
@pytest.mark.sampled(2)
def test_fit_takes_the_step_of_the_exact_gradient(network):
    model = network.build(learning_rule=keras_gevb.rules.Backprop())
    # Unconstrained, and compiled: the step is then the gradient itself.
    for layer in model._flatten_layers():
        if isinstance(layer, layers.WeightLayer):
            layer.kernel.constraint = None
    model.compile(keras.optimizers.SGD(1.0), model.loss)
    x, y, weight = network.batch(model, size=4)
    exact = gradients(model, x, y, weight)
    before = arrays(model.trainable_variables)
    model.fit(x, y, sample_weight=weight, batch_size=4, verbose=0)
    for start, variable, gradient in zip(before, model.trainable_variables, exact, strict=True):
        np.testing.assert_allclose(start - variable.numpy(), gradient, **EXACT, err_msg=variable.path)
