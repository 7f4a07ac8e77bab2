"""Conventional layers with an activation of Keras in place of the gate, whose part its derivative has."""

import functools

import keras
import numpy as np
import pytest
from networks import EXACT, array, arrays
from test_backprop import gradients

import keras_gevb
from keras_gevb import export, layers, rules

pytestmark = pytest.mark.usefixtures("float64")

K = 3


@keras.saving.register_keras_serializable(package="tests")
def squared(h):
    return h * keras.ops.abs(h)


NAMES = "relu", "tanh", "sigmoid", "gelu", "silu", "softplus", "elu", "leaky_relu", "linear"
ACTIVATIONS = {
    **{name: name for name in NAMES},
    "a function": keras.activations.selu,
    "one of the user's": squared,
}
every_activation = pytest.mark.parametrize("name", ACTIVATIONS)


def build(activation, learning_rule="backprop", make=keras_gevb.Sequential):
    """Windows, a pool that bends, a separable convolution, and words' worth of everything else."""
    model = make(
        [
            *(keras.Input((6, 6, 2)), layers.Conv2D(4, 3, padding="same", activation=activation)),
            keras.layers.MaxPooling2D(2),
            layers.SeparableConv2D(6, 2, activation=activation),
            *(keras.layers.Flatten(), layers.Dense(6, activation=activation)),
            *(keras.layers.Activation("tanh"), layers.Dense(6)),
            layers.Dense(K, gated=False),
        ],
        learning_rule=learning_rule,
    )
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        if variable.name == "bias":
            variable.assign(0.3 * rng.standard_normal(variable.shape))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
    return model, rng.standard_normal((5, 6, 6, 2)), np.array([0, 1, 2, 0, 1])


@every_activation
@pytest.mark.sampled(3)
def test_backprop_equals_automatic_differentiation(name):
    model, x, y = build(ACTIVATIONS[name])
    weight = np.array([1.0, 0.5, 2.0, 1.0, 0.0])
    exact = gradients(model, x, y, weight)
    for update, gradient in zip(arrays(model.compute_updates(x, y, weight)), exact, strict=True):
        np.testing.assert_allclose(update, gradient, **EXACT)
        assert np.any(gradient)


TWINS = [
    (layers.Dense(4), keras.layers.Dense(4), (5,)),
    (layers.Conv1D(4, 3), keras.layers.Conv1D(4, 3), (6, 2)),
    (layers.Conv2D(4, 3), keras.layers.Conv2D(4, 3), (6, 6, 2)),
    (layers.Conv3D(4, 2), keras.layers.Conv3D(4, 2), (3, 4, 3, 2)),
    (layers.DepthwiseConv2D(3), keras.layers.DepthwiseConv2D(3), (6, 6, 2)),
]


@pytest.mark.parametrize(("ours", "stock", "shape"), TWINS, ids=[type(row[0]).__name__ for row in TWINS])
def test_the_layer_is_that_of_keras(ours, stock, shape):
    ours, stock = (
        type(layer).from_config({**layer.get_config(), "activation": "gelu", "dtype": None})
        for layer in (ours, stock)
    )
    x = np.random.default_rng(0).standard_normal((2, *shape))
    ours.build(x.shape)
    stock.build(x.shape)
    stock.set_weights(ours.get_weights())
    assert [v.name for v in ours.weights] == ["kernel", "bias"]
    np.testing.assert_allclose(ours(x), stock(x), **EXACT)


def chain(learning_rule):
    """tanh, softplus without weights, sigmoid, and a readout; and its weights."""
    model = keras_gevb.Sequential(
        [
            *(keras.Input((4,)), layers.Dense(6, activation="tanh"), keras.layers.Activation("softplus")),
            *(layers.Dense(8, activation="sigmoid"), layers.Dense(K, gated=False)),
        ],
        learning_rule=learning_rule,
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model, np.random.default_rng(0).standard_normal((5, 4)), np.array([0, 1, 2, 0, 1])


def by_hand(model, x, y):
    """Activity and the error vector, in NumPy: inputs of each layer, derivatives, e."""
    (w1, b1), (w2, b2), (w3, b3) = (
        map(array, (d.kernel, d.bias)) for d in model.layers if hasattr(d, "kernel")
    )
    a1 = np.tanh(x @ w1 + b1)
    p1 = np.log1p(np.exp(a1))
    a2 = 1 / (1 + np.exp(-(p1 @ w2 + b2)))
    logits = a2 @ w3 + b3
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = (softmax - np.eye(K)[y]) / len(y)
    return (x, p1, a2), (1 - a1**2, 1 / (1 + np.exp(-a1)), a2 * (1 - a2)), error


def assert_updates(model, x, y, inputs, signals):
    wanted = [value for a, s in zip(inputs, signals) for value in (a.T @ s, s.sum(axis=0))]
    for update, value in zip(arrays(model.compute_updates(x, y)), wanted, strict=True):
        np.testing.assert_allclose(update, value, **EXACT)


def test_feedback_alignment_is_its_closed_form():
    """Feedback in place of kernels; derivatives of all that bends where the forward pass was."""
    model, x, y = chain(rules.FA(seed=3))
    inputs, (tanh, softplus, sigmoid), error = by_hand(model, x, y)
    _, v2, v3 = (array(v) for v in model.learning_rule.variables)
    s2 = sigmoid * (error @ v3.T)
    assert_updates(model, x, y, inputs, [tanh * softplus * (s2 @ v2.T), s2, error])


def test_direct_feedback_alignment_is_its_closed_form():
    model, x, y = chain(rules.DFA(seed=3))
    inputs, (tanh, _, sigmoid), error = by_hand(model, x, y)
    (b,) = (array(v) for v in model.learning_rule.variables)
    assert_updates(model, x, y, inputs, [tanh * (error @ b[:, :6]), sigmoid * (error @ b), error])


def test_feedback_alignment_picks_the_largest_of_the_forward_pass():
    """Max pooling sends a signal to the unit that was largest, not to the one that feedback would make so."""
    model = keras_gevb.Sequential(
        [
            *(keras.Input((4, 1)), layers.Conv1D(2, 1), layers.Conv1D(2, 1, use_bias=False)),
            *(keras.layers.MaxPooling1D(4), keras.layers.Flatten(), layers.Dense(K, gated=False)),
        ],
        learning_rule=rules.FA(seed=3),
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.random.default_rng(0).standard_normal((5, 4, 1))
    step = model.compute_step(x, np.array([0, 1, 2, 0, 1]))
    second, signal = step.records[1], array(step.signals()[1])
    largest = array(second.outputs).argmax(axis=1)
    assert np.all(np.count_nonzero(signal, axis=1) == 1)
    np.testing.assert_array_equal(np.abs(signal).argmax(axis=1), largest)


@pytest.mark.parametrize("name", ["gelu", "one of the user's"])
@pytest.mark.parametrize("rule", ["dfa", "fa"])
@pytest.mark.sampled(2)
def test_a_fitted_model_survives_a_file_and_an_export(rule, name, tmp_path):
    model, x, y = build(ACTIVATIONS[name], rule)
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].get_config() == model.layers[0].get_config()
    expected = array(model(x))
    np.testing.assert_array_equal(array(loaded(x)), expected)
    np.testing.assert_allclose(array(export.to_keras(model)(x)), expected, **EXACT)


REFUSED = {
    "vector units": (lambda: layers.VectorDense(4, activation="relu", name="mine"), ["relu", "conventional"]),
    "a readout": (
        lambda: layers.Dense(4, gated=False, activation="softmax", name="mine"),
        ["softmax", "gated=False", "keras.layers.Activation"],
    ),
    "a function of all units": (
        lambda: layers.Dense(4, activation="softmax", name="mine"),
        ["softmax", "each"],
    ),
    "a function to half of the units": (
        lambda: layers.Dense(4, activation=keras.ops.glu, name="mine"),
        ["glu", "each"],
    ),
    "weights of its own": (
        lambda: layers.Dense(4, activation=keras.layers.PReLU(shared_axes=[1]), name="mine"),
        ["PReLU", "without weights"],
    ),
    "an unknown name": (functools.partial(layers.Dense, 4, activation="bent"), ["bent"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_activation_of_each_unit_is_refused(case):
    make, words = REFUSED[case]
    with pytest.raises(ValueError) as raised:  # noqa: PT011, the words are checked below
        make()
    for word in ["mine", *words] if case != "an unknown name" else words:
        assert word in str(raised.value)
