"""Styles of models x kinds of inputs x rules x what follows: as stock Keras, or refused by name."""

import functools
import itertools
import pickle

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

import keras_gevb
from keras_gevb import layers

K, SAMPLES, BATCH, FEATURES = 3, 8, 4, 6
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
NUMBERS = np.random.default_rng(0).normal(size=(SAMPLES, FEATURES)).astype("float32")
LABELS = np.arange(SAMPLES) % K
WORDS = np.array(["red", "green", "blue", "grey"] * 2)[:, None]


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return SAMPLES // BATCH

    def __getitem__(self, index):
        part = slice(index * BATCH, (index + 1) * BATCH)
        return NUMBERS[part], LABELS[part]


def pairs():
    for part in (slice(0, BATCH), slice(BATCH, SAMPLES)):
        yield NUMBERS[part], LABELS[part]


def twice(batches):
    for _ in range(2):
        yield from batches()


def dataset(x):
    return tf.data.Dataset.from_tensor_slices((x, LABELS)).batch(BATCH)


def numbers():
    return keras.Input((FEATURES,))


# name: (its Input, the layers in front, what fit is given, a batch to predict)
INPUTS = {
    "array": (numbers, list, lambda: {"x": NUMBERS, "y": LABELS, "batch_size": BATCH}, NUMBERS),
    "tf.data": (numbers, list, lambda: {"x": dataset(NUMBERS)}, NUMBERS),
    "generator": (
        numbers,
        list,
        lambda: {"x": twice(pairs), "steps_per_epoch": 2},
        NUMBERS,
    ),
    "PyDataset": (numbers, list, lambda: {"x": Batches()}, NUMBERS),
    "dict": (
        lambda: {"b": keras.Input((2,), name="b"), "a": keras.Input((4,), name="a")},
        list,
        lambda: {"x": {"b": NUMBERS[:, :2], "a": NUMBERS[:, 2:]}, "y": LABELS, "batch_size": BATCH},
        {"b": NUMBERS[:, :2], "a": NUMBERS[:, 2:]},
    ),
    "text": (
        lambda: keras.Input((1,), dtype="string"),
        lambda: [keras.layers.StringLookup(vocabulary=["red", "green"], output_mode="one_hot")],
        lambda: {"x": dataset(WORDS)},
        tf.constant(WORDS),
    ),
    "integers": (
        lambda: keras.Input((1,), dtype="int64"),
        lambda: [keras.layers.IntegerLookup(vocabulary=[1, 2], output_mode="one_hot")],
        lambda: {"x": LABELS[:, None], "y": LABELS, "batch_size": BATCH},
        LABELS[:, None],
    ),
    "sparse": (
        lambda: keras.Input((FEATURES,), sparse=True),
        list,
        lambda: {"x": scipy.sparse.csr_matrix(NUMBERS), "y": LABELS, "batch_size": BATCH},
        scipy.sparse.csr_matrix(NUMBERS),
    ),
}


def body(vectorized=True):
    if not vectorized:
        return [layers.Dense(8), layers.Dense(4), layers.Dense(K, gated=False)]
    return [layers.VectorDense(8, vector_dim=K), layers.VectorDense(4), layers.VectorReadout()]


def joined(inputs):
    return keras.layers.Concatenate()(list(inputs.values())) if isinstance(inputs, dict) else inputs


def functional(kind, stack, model):
    start = INPUTS[kind][0]()
    units = joined(start)
    for layer in stack:
        units = layer(units)
    return model.Model(start, units)


def sequential(kind, stack, model):
    return model.Sequential([INPUTS[kind][0](), *stack])


def deferred(kind, stack, model):
    return model.Sequential(stack)


def nested(kind, stack, model):
    *first, last = stack
    return functional(kind, [*first[:-1], keras.Sequential([first[-1], last])], model)


def subclassed(kind, stack, model):
    if model is keras:
        return StockChain(stack)
    return OurChain(stack, learning_rule=model.rule)


class Chain:
    """A model of one's own: a list of layers, called in turn."""

    def __init__(self, stack, **kwargs):
        super().__init__(**kwargs)
        self.stack = stack

    def call(self, inputs, training=None):
        units = joined(inputs)
        for layer in self.stack:
            units = layer(units)
        return units

    def get_config(self):
        stack = [keras.saving.serialize_keras_object(layer) for layer in self.stack]
        return {**super().get_config(), "stack": stack}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        stack = [keras.saving.deserialize_keras_object(layer) for layer in config["stack"]]
        return super().from_config({**config, "stack": stack}, custom_objects)


@keras.saving.register_keras_serializable(package="tests")
class OurChain(Chain, keras_gevb.Model):
    pass


@keras.saving.register_keras_serializable(package="tests")
class StockChain(Chain, keras.Model):
    pass


class Ours:
    """The package's classes, under a rule."""

    def __init__(self, rule):
        self.rule = rule
        self.Model = functools.partial(keras_gevb.Model, learning_rule=rule)
        self.Sequential = functools.partial(keras_gevb.Sequential, learning_rule=rule)


def build(style, kind, model, vectorized=True):
    stack = [*INPUTS[kind][1](), *body(vectorized)]
    return style(kind, stack, model)


STYLES = [functional, sequential, deferred, subclassed, nested]
# A chain has one input, in stock Keras too.
ROWS = [
    (style, kind)
    for style in STYLES
    for kind in INPUTS
    if not (kind == "dict" and style in (sequential, deferred))
]


def names(row):
    return "-".join(getattr(part, "__name__", str(part)) for part in row)


@pytest.mark.parametrize(("style", "kind"), ROWS, ids=map(names, ROWS))
@pytest.mark.sampled(3)
def test_backpropagation_follows_stock_keras(style, kind):
    model, stock = build(style, kind, Ours("backprop")), build(style, kind, keras)
    _, _, data, batch = INPUTS[kind]
    for each in (model, stock):
        if not each.built:
            each.predict(batch, verbose=0)
        each.compile(
            keras.optimizers.SGD(0.1),
            CROSS_ENTROPY,
            metrics=["accuracy"],
            # One style shows what is compiled of each kind of inputs, and what XLA makes of it.
            run_eagerly=(each is stock or style is not functional)
            and kind not in ("text", "integers", "sparse"),
            jit_compile="auto" if style is functional else False,
        )
    stock.set_weights(model.get_weights())
    ours, theirs = (each.fit(**data(), epochs=2, shuffle=False, verbose=0).history for each in (model, stock))
    for key, values in theirs.items():
        # Four float32 steps.
        np.testing.assert_allclose(ours[key], values, rtol=1e-6, atol=1e-6)


def through_file(model, path):
    model.save(path / "model.keras")
    return keras.models.load_model(path / "model.keras")


def through_weights(model, path):
    model.save_weights(path / "all.weights.h5")
    other = type(model).from_config(model.get_config())
    other(NUMBERS[:1])  # builds a class of one's own too
    other.load_weights(path / "all.weights.h5")
    return other


def through_checkpoint(model, path):
    checkpoint = keras.callbacks.ModelCheckpoint(path / "best.keras")
    model.fit(NUMBERS, LABELS, verbose=0, callbacks=[checkpoint])
    return keras.models.load_model(path / "best.keras")


def through_pickle(model, path):
    return pickle.loads(pickle.dumps(model))


def through_clone(model, path):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


def through_export(model, path):
    model.export(path / "saved", verbose=False)
    served = tf.saved_model.load(str(path / "saved"))
    np.testing.assert_allclose(served.serve(NUMBERS), model.predict(NUMBERS, verbose=0), atol=1e-6)


ENDS = [through_file, through_weights, through_checkpoint, through_pickle, through_clone, through_export]
RULES = {"gevb": True, "backprop": True, "fa": True, "dfa": False, "dkp": True, "fdfa": False}


def pairwise(*axes):
    """Rows of the product in which every pair of entries occurs: each the one with most new pairs."""

    def pairs_of(row):
        return set(itertools.combinations(enumerate(row), 2))

    rows = list(itertools.product(*axes))
    missing = set().union(*map(pairs_of, rows))
    while missing:
        row = max(rows, key=lambda row: len(pairs_of(row) & missing))
        missing -= pairs_of(row)
        yield row


THEN = list(pairwise(STYLES, RULES, ENDS))


@pytest.mark.parametrize(("style", "rule", "end"), THEN, ids=map(names, THEN))
@pytest.mark.sampled(3)
def test_a_trained_model_goes_on_alike(style, rule, end, tmp_path):
    model = build(style, "array", Ours(rule), RULES[rule])
    model.compile(keras.optimizers.Adam(0.01), CROSS_ENTROPY, run_eagerly=end is not through_export)
    model.fit(NUMBERS, LABELS, batch_size=BATCH, verbose=0)
    if end is through_clone and isinstance(model, keras.Sequential):
        with pytest.raises(ValueError, match="from_config"):
            end(model, tmp_path)
        return
    if end is through_clone and style is subclassed:
        clone = keras.models.clone_model(model)  # as Keras makes it: not built
        assert repr(clone.learning_rule) == repr(model.learning_rule)
        return
    other = end(model, tmp_path)
    if other is None:
        return
    assert isinstance(other, keras_gevb.Model)
    assert repr(other.learning_rule) == repr(model.learning_rule)
    np.testing.assert_array_equal(other.predict(NUMBERS, verbose=0), model.predict(NUMBERS, verbose=0))
    if not other.compiled:
        other.compile("sgd", CROSS_ENTROPY)
    for mine, theirs in zip(
        other.compute_updates(NUMBERS, LABELS), model.compute_updates(NUMBERS, LABELS), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
