"""FA and DFA equal closed forms written in NumPy, on dense, convolutional and locally connected layers."""

import keras
import numpy as np
import pytest
from networks import EXACT, NETWORKS, array, arrays, rows, step_of
from reference import softmax_cross_entropy_error
from translation import stored, translate

from keras_gevb import Model, places
from keras_gevb.layers import Conv2D, Dense
from keras_gevb.rules import DFA, DRTP, FA

pytestmark = pytest.mark.usefixtures("float64")


def weight_layers(model):
    return places.of(model)


def feedback_of(model):
    return [array(v) for v in model.non_trainable_variables if v.name.startswith("feedback")]


# FA serves vector units too.
@rows(sequential=True, nonnegative=False, large=False)
def test_feedback_alignment_is_its_closed_form(network):
    model = network.build(learning_rule=FA(seed=7))
    x, y, weight = network.batch(model, size=2)
    reference, logits = translate(model, x)
    error = softmax_cross_entropy_error(logits, y, weight)
    kernels = [
        stored(kernel, layer) for kernel, layer in zip(feedback_of(model), weight_layers(model), strict=True)
    ]
    assert_equal(model, model.compute_updates(x, y, weight), reference.feedback_alignment(error, kernels))


@rows(sequential=True, vectorized=False, nonnegative=False, large=False)
def test_direct_feedback_alignment_is_its_closed_form(network):
    model = network.build(learning_rule=DFA(seed=7))
    x, y, weight = network.batch(model, size=2)
    reference, logits = translate(model, x)
    error = softmax_cross_entropy_error(logits, y, weight)
    (feedback,) = feedback_of(model)
    updates = model.compute_updates(x, y, weight)
    assert_equal(model, updates, reference.direct_feedback_alignment(error, feedback))


def assert_equal(model, updates, expected):
    for update, wanted, variable in zip(arrays(updates), expected, model.trainable_variables, strict=True):
        np.testing.assert_allclose(update, wanted.reshape(update.shape), **EXACT, err_msg=variable.path)


@rows(vectorized=False, sequential=False)
def test_direct_feedback_reaches_every_layer_of_a_graph(network):
    model = network.build(learning_rule=DFA(seed=7))
    x, y, weight = network.batch(model, size=2)
    step = step_of(model, x)
    *hidden, readout = step.records
    error = softmax_cross_entropy_error(array(step.outputs), y, weight)
    (feedback,) = feedback_of(model)
    # A bias sees the sum of its layer's credit (e B) m, over samples, positions and uses.
    expected = {id(readout.layer.bias): error.sum(axis=0)}
    for record in hidden:
        gate, bias = array(record.gate), record.layer.bias
        credit = gate * (error @ feedback[:, : gate[0].size]).reshape(gate.shape)
        summed = credit.sum(axis=tuple(range(gate.ndim - len(bias.shape))))
        expected[id(bias)] = expected.get(id(bias), 0) + summed
    updates = dict(zip(map(id, model.trainable_variables), model.compute_updates(x, y, weight), strict=True))
    for key, wanted in expected.items():
        np.testing.assert_allclose(array(updates[key]), wanted, **EXACT)


@pytest.mark.parametrize("rule", [DFA(seed=7), FA(seed=7)], ids=["dfa", "fa"])
@rows(vectorized=False, brightest=16, nonnegative=True)
@pytest.mark.sampled(3)
def test_feedback_is_seeded_fixed_and_not_the_weights(network, rule):
    config = keras.saving.serialize_keras_object(rule)
    model, again = (
        network.build(learning_rule=keras.saving.deserialize_keras_object(config)) for _ in range(2)
    )
    feedback = feedback_of(model)
    assert feedback
    np.testing.assert_equal(feedback, feedback_of(again))
    kernels = [array(layer.kernel) for layer in weight_layers(model)]
    assert not any(np.array_equal(f, kernel) for f in feedback for kernel in kernels)
    x, y, _ = network.batch(model, size=4)
    model.fit(x, y, epochs=2, verbose=0)
    np.testing.assert_equal(feedback_of(model), feedback)


@pytest.mark.parametrize(("weights", "low"), [("nonnegative", 0.0), ("mixed", -1.0)])
def test_direct_feedback_is_uniform_and_takes_the_sign_of_the_network(weights, low):
    network = next(n for n in NETWORKS if n.name == f"mnist-conv-conventional-{weights}")
    (feedback,) = feedback_of(network.build(learning_rule=DFA(seed=1)))
    # Kolmogorov: the distance of n draws exceeds 1.63 / sqrt(n) once in a hundred seeds.
    uniform = np.linspace(low, 1, feedback.size)
    tolerance = 1.63 * (1 - low) / np.sqrt(feedback.size)
    np.testing.assert_allclose(np.sort(feedback, axis=None), uniform, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("weights", "high"), [("nonnegative", 0.0), ("mixed", 1.0)])
def test_feedback_of_targets_has_the_sign_against_that_of_errors(weights, high):
    """At the target e is negative, which a one-hot y is not."""
    network = next(n for n in NETWORKS if n.name == f"digits-fc-conventional-{weights}")
    (feedback,) = feedback_of(network.build(learning_rule=DRTP(seed=1)))
    assert -1 <= feedback.min() < -0.9
    assert high - 0.1 < feedback.max() <= high


@rows(brightest=16)
def test_feedback_kernels_are_nonnegative_where_the_kernels_are(network):
    model = network.build(learning_rule=FA(seed=7))
    lowest = min(kernel.min() for kernel in feedback_of(model)[1:])
    assert (lowest >= 0) == network.nonnegative


def test_direct_feedback_has_a_column_for_every_unit_of_every_use_of_a_layer():
    """One convolution at two sizes: the larger use has more units, and is told of all of them."""
    inputs = keras.Input((8, 8, 2))
    shared = Conv2D(2, 3, padding="same")
    small = shared(keras.layers.AveragePooling2D(2)(inputs))
    joined = keras.layers.Concatenate()([keras.layers.Flatten()(units) for units in (small, shared(inputs))])
    model = Model(inputs, Dense(3, gated=False)(joined), learning_rule=DFA(seed=7))
    (feedback,) = feedback_of(model)
    assert feedback.shape == (3, 8 * 8 * 2)
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 2))
    error = np.array([[1.0, 2.0, 3.0], [0.0, -1.0, 1.0]])
    signals = step_of(model, x, error=error).signals()
    uses = sorted((array(signal).reshape(2, -1) for signal in signals[:-1]), key=np.size)
    assert [units.shape[1] for units in uses] == [32, 128]
    for units in uses:
        np.testing.assert_allclose(units, error @ feedback[:, : units.shape[1]], **EXACT)


def test_direct_feedback_needs_the_size_of_every_layer():
    inputs = keras.Input((None, None, 2))
    pooled = keras.layers.GlobalAveragePooling2D()(Conv2D(2, 3)(inputs))
    with pytest.raises(ValueError, match=r"conv2d.*full shape"):
        Model(inputs, Dense(3, gated=False)(pooled), learning_rule="dfa")


def alike(units=6, depth=3, rule=None):
    """A network whose layers all have one shape."""
    inputs = outputs = keras.Input((units,))
    for _ in range(depth):
        outputs = Dense(units)(outputs)
    return Model(inputs, Dense(units, gated=False)(outputs), learning_rule=rule)


def test_layers_of_one_shape_have_feedback_of_their_own():
    feedback = feedback_of(alike(rule=FA(seed=7)))
    assert len(feedback) == 4
    for i, one in enumerate(feedback):
        for other in feedback[:i]:
            assert one.shape == other.shape
            # As unlike as two draws: the correlation of 36 pairs is below 5 / sqrt(36).
            assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 / 6


@pytest.mark.parametrize("rule", [DFA, FA])
def test_the_seed_of_feedback_is_drawn_where_none_is_given(rule):
    def drawn(seed):
        keras.utils.set_random_seed(seed)
        return [feedback_of(alike(rule=rule())) for _ in range(2)]

    one, two = drawn(1)
    assert not np.array_equal(one[0], two[0])
    np.testing.assert_equal(drawn(1), [one, two])
    assert not np.array_equal(drawn(2)[0][0], one[0])


@pytest.mark.parametrize("rule", [DFA, FA])
def test_another_seed_is_other_feedback(rule):
    one, other = (feedback_of(alike(rule=rule(seed=seed))) for seed in (1, 2))
    assert not any(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("nonnegative", "low"), [(True, 0.0), (False, -1.0)])
@pytest.mark.parametrize("network", ["nonnegative", "mixed"])
def test_the_range_of_direct_feedback_may_be_chosen(nonnegative, low, network):
    network = next(n for n in NETWORKS if n.name == f"digits-fc-conventional-{network}")
    (feedback,) = feedback_of(network.build(learning_rule=DFA(nonnegative=nonnegative, seed=1)))
    # Of n draws the lowest lies within 10 / n of the range's end, but once in e^10.
    assert low <= feedback.min() < low + (1 - low) * 10 / feedback.size
    assert feedback.max() <= 1
