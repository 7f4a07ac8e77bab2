"""Models of several outputs: their losses, labels and weights of samples, beside stock Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf
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
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model.fit(x, as_given(form, {**y, **targets}), batch_size=8, shuffle=False, epochs=2, verbose=0)


@every_form
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
    assert isinstance(raised.value, (ValueError, tf.errors.InvalidArgumentError))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
