"""What may stand behind a readout: all that has no weights that learn. Exactness and signs hold."""

import functools

import keras
import numpy as np
import pytest
from networks import EXACT, arrays
from test_backprop import gradients
from test_gevb import opposed_terms, opposed_weights
from workflows import assert_same_weights

import keras_gevb
from keras_gevb import export, layers

pytestmark = pytest.mark.usefixtures("float64")

K, CLASSES = 3, 5
SPARSE = keras.losses.SparseCategoricalCrossentropy
LOGITS = functools.partial(SPARSE, from_logits=True)


def one_hot(labels, classes=K):
    return np.eye(classes)[labels]


# name: (the head, a kind of loss, targets of six samples from labels below K)
HEADS = {
    "probabilities": (lambda: [keras.layers.Softmax()], SPARSE, np.asarray),
    "probabilities of one-hot targets": (
        lambda: [keras.layers.Activation("softmax")],
        keras.losses.CategoricalCrossentropy,
        one_hot,
    ),
    "numbers of another scale": (
        lambda: [keras.layers.Rescaling(10.0, offset=1.0)],
        keras.losses.MeanSquaredError,
        one_hot,
    ),
    "chances of each": (
        lambda: [keras.layers.Activation("sigmoid")],
        keras.losses.BinaryCrossentropy,
        one_hot,
    ),
    "another shape": (
        lambda: [keras.layers.Reshape((K, 1)), keras.layers.ZeroPadding1D(1), keras.layers.Flatten()],
        keras.losses.MeanSquaredError,
        lambda y: np.pad(one_hot(y), ((0, 0), (1, 1))),
    ),
    "a code": (lambda: [layers.OutputCode(CLASSES, seed=1)], LOGITS, lambda y: y + 2),
    "a code's probabilities": (
        lambda: [layers.OutputCode(CLASSES, seed=1), keras.layers.Softmax()],
        SPARSE,
        lambda y: y + 2,
    ),
}
every_head = pytest.mark.parametrize("name", HEADS)


def network(head, vectorized=True, learning_rule="gevb"):
    hidden = (
        [layers.VectorDense(8, vector_dim=K), layers.VectorDense(6), layers.VectorReadout()]
        if vectorized
        else [layers.Dense(8), layers.Dense(6), layers.Dense(K, gated=False)]
    )
    model = keras_gevb.Sequential([keras.Input((4,)), *hidden, *head], learning_rule=learning_rule)
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        if variable.name == "bias":
            variable.assign(0.3 * rng.standard_normal(variable.shape))
    return model


def compiled(name, **settings):
    head, loss, targets = HEADS[name]
    model = network(head(), **settings)
    model.compile(keras.optimizers.SGD(0.1), loss(), run_eagerly=True)
    return model, np.random.default_rng(0).standard_normal((6, 4)), targets(np.array([0, 1, 2, 2, 1, 0]))


@pytest.mark.parametrize("vectorized", [True, False], ids=["vectorized", "conventional"])
@every_head
def test_backprop_equals_automatic_differentiation_behind(name, vectorized):
    model, x, y = compiled(name, vectorized=vectorized, learning_rule="backprop")
    weight = np.array([1.0, 2.0, 0.5, 1.0, 0.0, 3.0])
    exact = gradients(model, x, y, weight)
    for update, gradient in zip(arrays(model.compute_updates(x, y, weight)), exact, strict=True):
        np.testing.assert_allclose(update, gradient, **EXACT)
        assert np.any(gradient)


@every_head
@pytest.mark.sampled(1)
def test_no_update_opposes_the_gradient_behind(name):
    model, x, y = compiled(name)
    assert opposed_terms(model, x) == 0
    assert opposed_weights(model, x, y) == 0
    before = model.get_weights()
    model.fit(x, y, epochs=3, verbose=0)
    assert not all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert opposed_weights(model, x, y) == 0


@every_head
@pytest.mark.sampled(2)
def test_a_model_with_a_head_is_evaluated_saved_and_exported(name, tmp_path):
    model, x, y = compiled(name)
    assert np.isfinite(model.evaluate(x, y, verbose=0))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    # Sums in another order, in float64.
    np.testing.assert_allclose(export.to_keras(model)(x), model(x), rtol=1e-10, atol=1e-10)
    for each in (model, loaded):
        each.train_on_batch(x, y)
    # A file holds the learning rate as float32.
    assert_same_weights(loaded, model, atol=1e-6)


def test_the_error_vector_is_that_of_the_logits_through_the_code():
    """e = P (softmax(y P) - onehot) / batch."""
    model, x, y = compiled("a code")
    step = model.compute_step(x, y)
    code = np.asarray(model.layers[-1].code)
    logits = np.asarray(step.readouts[0].outputs) @ code
    np.testing.assert_allclose(model(x), logits, **EXACT)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(step.error, (softmax - one_hot(y, CLASSES)) @ code.T / 6, **EXACT)


def test_a_code_has_orthogonal_rows_that_follow_from_its_seed():
    codes = []
    for seed in (1, 1, 2):
        code = layers.OutputCode(20, seed=seed)
        code.build((None, 6))
        codes.append(np.asarray(code.code))
        assert not code.trainable_variables
        np.testing.assert_allclose(codes[-1] @ codes[-1].T, 20 / 6 * np.eye(6), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(codes[0], codes[1])
    assert not np.allclose(codes[0], codes[2])


def test_a_code_without_a_seed_keeps_the_one_that_it_drew():
    code = layers.OutputCode(20)
    again = layers.OutputCode.from_config(code.get_config())
    for each in (code, again):
        each.build((None, 6))
    np.testing.assert_array_equal(code.code, again.code)


def test_labels_are_those_of_the_code_not_of_the_readout():
    model, x, _ = compiled("a code")
    assert np.isfinite(model.train_on_batch(x, np.full(6, CLASSES - 1)))
    with pytest.raises(Exception, match=f"Labels must be integers from 0 to {CLASSES - 1}"):
        model.train_on_batch(x, np.full(6, CLASSES))


def test_a_code_of_fewer_classes_than_numbers_is_refused():
    with pytest.raises(ValueError, match=r"classes=2, an input of 3 numbers.*vector_dim=2"):
        network([layers.OutputCode(2)])


def test_a_rule_that_reads_classes_refuses_a_code():
    model, x, y = compiled("a code", vectorized=False, learning_rule="drtp")
    with pytest.raises(ValueError, match=r"DRTP.*Received: 5 classes, made from 3 outputs.*DFA"):
        model.train_on_batch(x, y)


@pytest.mark.parametrize("vectorized", [True, False], ids=["vectorized", "conventional"])
def test_an_output_in_a_dict_learns_alike(vectorized):
    plain = network([], vectorized, "backprop")
    named = keras_gevb.Model(plain.inputs, {"digit": plain.outputs[0]}, learning_rule="backprop")
    x, y = np.random.default_rng(0).standard_normal((6, 4)), np.array([0, 1, 2, 2, 1, 0])
    plain.compile("sgd", LOGITS())
    named.compile("sgd", {"digit": LOGITS()})
    for one, other in zip(plain.compute_updates(x, y), named.compute_updates(x, {"digit": y}), strict=True):
        np.testing.assert_allclose(other, one, **EXACT)


def per_step(vectorized):
    """A network on every step of a sequence: steps are samples, and back."""
    inputs = keras.Input((7, 4))
    steps = keras.ops.reshape(inputs, (-1, 4))
    body = network([], vectorized, "backprop")
    logits = keras.ops.reshape(body(steps), (-1, 7, K))
    return keras_gevb.Model(inputs, logits, learning_rule="gevb" if vectorized else "backprop")


@pytest.mark.parametrize("vectorized", [True, False], ids=["vectorized", "conventional"])
def test_labels_per_time_step_through_a_sequence_axis(vectorized):
    model = per_step(vectorized)
    rng = np.random.default_rng(0)
    x, y, weight = rng.standard_normal((2, 7, 4)), rng.integers(0, K, (2, 7)), rng.uniform(0.2, 2, (2, 7))
    model.compile(keras.optimizers.SGD(0.1), LOGITS(), run_eagerly=True)
    exact = gradients(model, x, y, weight)
    for update, gradient in zip(
        arrays(model.compute_updates(x, y, weight, learning_rule="backprop")), exact, strict=True
    ):
        np.testing.assert_allclose(update, gradient, **EXACT)
    if vectorized:
        ours, theirs = (model.compute_step(x, y, weight, rule) for rule in ("gevb", "backprop"))
        for record, one, other in zip(ours.records, ours.signals(), theirs.signals(), strict=True):
            assert len(record.gate) == 14
            assert np.min(record.gate * one * other) >= 0
    model.fit(x, y, sample_weight=weight, verbose=0)
    with pytest.raises(Exception, match=f"Labels must be integers from 0 to {K - 1}"):
        model.train_on_batch(x, np.full((2, 7), K))


def test_a_stock_layer_reads_every_time_step():
    model = keras_gevb.Sequential(
        [
            *(keras.Input((7, 4)), keras.layers.Conv1D(6, 3, padding="causal", activation="tanh")),
            keras.layers.Dense(K),
        ],
        learning_rule="backprop",
    )
    model.compile(keras.optimizers.SGD(0.1), LOGITS(), run_eagerly=True)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 7, 4)), rng.integers(0, K, (2, 7))
    exact = gradients(model, x, y)
    for update, gradient in zip(arrays(model.compute_updates(x, y)), exact, strict=True):
        np.testing.assert_allclose(update, gradient, **EXACT)


def test_a_frozen_model_with_a_head_is_evaluated():
    stock = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax", trainable=False)])
    x, y = np.ones((4, 6), "float32"), np.arange(4) % 3
    losses = []
    for model in (keras_gevb.convert(stock), stock):
        model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
        losses.append(model.evaluate(x, y, verbose=0))
    np.testing.assert_allclose(*losses, rtol=1e-6)  # float32


def test_a_model_whose_head_is_taken_away_is_looked_at_again():
    hidden = keras.layers.Dense(4, "relu"), keras.layers.Dense(3)
    model = keras_gevb.Sequential(
        [keras.Input((6,)), *hidden, keras.layers.Softmax()], learning_rule="backprop"
    )
    x, y = np.ones((4, 6), "float32"), np.arange(4) % 3
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    model.test_on_batch(x, y)
    model.pop()
    model.compile("sgd", LOGITS(), run_eagerly=True)
    model.train_on_batch(x, y)
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    with pytest.raises(ValueError, match="logits"):
        model.test_on_batch(x, y)
