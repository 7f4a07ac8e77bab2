"""Models of several outputs: their losses, labels and weights of samples, beside stock Keras."""

import keras
import numpy as np
import pytest
from workflows import assert_same_weights

import keras_gevb

SAMPLES = 12
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def data(samples=SAMPLES):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, 6)).astype("float32")
    return x, {"few": np.arange(samples) % 2, "many": np.arange(samples) % 5, "number": x[:, :1]}


def stock(form):
    """Two and five classes, and a number: a dict, a list or a tuple."""
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(8, "relu")(inputs)
    ends = {
        name: keras.layers.Dense(units, name=name)(hidden)
        for name, units in {"number": 1, "few": 2, "many": 5}.items()
    }
    return keras.Model(inputs, ends if form is dict else form(ends.values()))


def as_given(form, parts):
    """By name, or in the order of the outputs."""
    return parts if form is dict else form(parts.get(name) for name in ("number", "few", "many"))


LOSSES = {"number": "mse", "few": SPARSE, "many": SPARSE}
# name: (the outputs' form, loss, targets, of which outputs there are labels)
FORMS = {
    "dicts": (dict, LOSSES, dict),
    "lists": (list, as_given(list, LOSSES), list),
    "tuples": (tuple, as_given(list, LOSSES), tuple),
    "a list by names": (list, LOSSES, dict),
    "losses by names": (list, LOSSES, list),
    "a loss is None": (dict, {**LOSSES, "number": None}, dict),
    "targets where there is a loss": (list, [None, SPARSE, SPARSE], lambda parts: list(parts)[1:]),
}
every_form = pytest.mark.parametrize("name", FORMS)


def fitted(model, name, **targets):
    """Compiled with a form of losses and fitted on one of targets, some of them others."""
    _, loss, form = FORMS[name]
    x, y = data()
    # Traced once: what is given in which form does not depend on that.
    model.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=name != "dicts")
    return model.fit(x, as_given(form, {**y, **targets}), batch_size=8, shuffle=False, epochs=2, verbose=0)


@every_form
@pytest.mark.sampled(2)
def test_several_outputs_learn_and_log_as_in_keras_and_the_last_batch_is_smaller(name):
    theirs = stock(FORMS[name][0])
    ours = keras_gevb.convert(theirs)
    expected, history = fitted(theirs, name).history, fitted(ours, name).history
    assert history.keys() == expected.keys()
    for key in expected:
        np.testing.assert_allclose(history[key], expected[key], rtol=1e-5)  # float32
    assert_same_weights(ours, theirs, atol=1e-6)  # float32


@pytest.mark.parametrize(("output", "classes"), [("few", 2), ("many", 5)])
@every_form
def test_a_bad_label_of_any_output_is_named_before_any_weight_changes(name, output, classes):
    model = keras_gevb.convert(stock(FORMS[name][0]))
    labels = data()[1][output]
    labels[3] = 5
    before = model.get_weights()
    with pytest.raises(
        Exception, match=rf"(?s)from 0 to {classes - 1}.*output {output} has K={classes}.*5"
    ) as raised:
        fitted(model, name, **{output: labels})
    assert type(raised.value) is ValueError
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


# What a sample counts where a rule forgets the size of its error: as in the mean that the loss is.


def shares_of(model, x, y, weights):
    return np.array(model.compute_step(x, y, weights).shares())


def test_each_output_counts_by_its_own_weights():
    """1 / batch, times the weights of its samples and of its loss, in the columns of each output."""
    x, y = data()
    rng = np.random.default_rng(2)
    given = {name: rng.uniform(0.5, 2, SAMPLES) for name in ("few", "many")} | {"number": np.ones(SAMPLES)}
    loss_weights = {"few": 0.5, "many": 3.0, "number": 1.0}
    for form in (dict, list):
        model = keras_gevb.convert(stock(form), "sdfa")
        parts = (as_given(form, part) for part in (LOSSES, loss_weights, y, given))
        loss, of_losses, targets, weights = parts
        model.compile("sgd", loss, loss_weights=of_losses, run_eagerly=True)
        step = model.compute_step(x, targets, weights)
        order = [{1: "number", 2: "few", 5: "many"}[readout.outputs.shape[-1]] for readout in step.readouts]
        columns = [
            np.repeat((given[name] * loss_weights[name])[:, None], units, axis=1)
            for name, units in ((name, {"number": 1, "few": 2, "many": 5}[name]) for name in order)
        ]
        expected = np.concatenate(columns, axis=1) / SAMPLES
        np.testing.assert_allclose(step.shares(), expected, rtol=1e-6)  # float32


TIMES, CLASSES = 3, 4


def of_words(rule):
    """Classes at every time step, from the last axis alone, so that each step is a sample of its own."""
    chain = [keras.Input((TIMES, 6)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(CLASSES)]
    model = keras_gevb.convert(keras.Sequential(chain), rule)
    model.compile("sgd", SPARSE, run_eagerly=True)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((SAMPLES, TIMES, 6)).astype("float32")
    return model, x, rng.integers(0, CLASSES, (SAMPLES, TIMES)), rng.uniform(0.5, 2, (SAMPLES, TIMES))


def test_each_time_step_counts_by_its_own_weight():
    model, x, y, weights = of_words("sdfa")
    step = model.compute_step(x, y, weights)
    expected = np.repeat(weights, CLASSES, axis=1) / (SAMPLES * TIMES)
    np.testing.assert_allclose(step.shares(), expected, rtol=1e-6)  # float32
    np.testing.assert_allclose(step.share()[:, 0], weights.mean(axis=1) / SAMPLES, rtol=1e-6)
    told = np.sign(np.array(step.error)) * expected
    feedback = np.array(model.learning_rule.feedback)
    signal = (told @ feedback).reshape(SAMPLES, TIMES, 5)
    np.testing.assert_allclose(step.signals()[0], signal, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("targets", ["labels", "one-hot"])
def test_targets_of_every_time_step_are_sent(targets):
    model, x, y, weights = of_words("drtp")
    one_hot = np.eye(CLASSES, dtype="float32")[y]
    if targets == "one-hot":
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, run_eagerly=True)
        y = one_hot
    step = model.compute_step(x, y, weights)
    sent = (one_hot * weights[:, :, None]).reshape(SAMPLES, -1) / (SAMPLES * TIMES)
    signal = (sent @ np.array(model.learning_rule.feedback)).reshape(SAMPLES, TIMES, 5)
    np.testing.assert_allclose(step.signals()[0], signal, rtol=1e-4, atol=1e-6)  # float32


def test_a_local_classifier_names_the_class_of_every_time_step():
    model, x, y, weights = of_words("local_error")
    step = model.compute_step(x, y, weights)
    (classifier,) = (np.array(c) for c in model.learning_rule.classifiers.values())
    logits = (np.array(step.records[0].outputs).reshape(SAMPLES, -1) @ classifier).reshape(-1, TIMES, CLASSES)
    chances = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    error = (chances - np.eye(CLASSES)[y]) * weights[:, :, None] / (SAMPLES * TIMES)
    signal = (error.reshape(SAMPLES, -1) @ classifier.T).reshape(SAMPLES, TIMES, 5)
    np.testing.assert_allclose(step.signals()[0], signal, rtol=1e-4, atol=1e-6)  # float32


@pytest.mark.parametrize("rule", ["dfa", "sdfa", "dkp", "ebd"])
@pytest.mark.sampled(2)
def test_time_folded_into_the_batch_is_named(rule):
    inputs = keras.Input((TIMES, 6))
    hidden = keras.layers.Dense(5, "relu", name="folded")(keras.ops.reshape(inputs, (-1, 6)))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.ops.reshape(hidden, (-1, TIMES * 5))))
    with pytest.raises(ValueError, match=r"'folded', which has 3 rows for each sample.*Keep the batch"):
        keras_gevb.convert(model, rule)
    exact = keras_gevb.convert(model, "backprop")  # has no weights of its own
    exact.compile("sgd", SPARSE)
    exact.fit(np.ones((8, TIMES, 6)), np.zeros(8), verbose=0)


def test_a_sample_counts_by_the_mean_of_its_weights():
    inputs = keras.Input((6,))
    hidden = keras_gevb.layers.Dense(6)(inputs)
    ends = [keras_gevb.layers.Dense(3, gated=False, name=name)(hidden) for name in "ab"]
    model = keras_gevb.Model(inputs, ends, learning_rule="ebd")
    model.compile("sgd", [SPARSE, SPARSE])
    y, weights = np.arange(4) % 3, [np.full(4, 2.0, "float32"), np.full(4, 4.0, "float32")]
    step = model.compute_step(np.ones((4, 6), "float32"), [y, y], weights)
    np.testing.assert_allclose(step.share(), np.full((4, 1), 3 / 4), rtol=1e-6)
