"""Layers without weights that draw random numbers: a step that runs them again draws the same ones."""

import functools
import random

import keras
import numpy as np
import pytest
from networks import array

import keras_gevb
from keras_gevb import backend

# ruff: noqa: NPY002  what layers may draw by
pytestmark = pytest.mark.filterwarnings("ignore:XLA cannot compile")  # some of these draws

layers, ops = keras.layers, keras.ops
BATCH, UNITS = 8, 5
SHAPE = (BATCH, UNITS)
DRAWS = {
    "numpy": lambda x: ops.convert_to_tensor(np.random.normal(size=SHAPE).astype("float32")),
    "python": lambda x: ops.ones(SHAPE) * random.random(),
}
if keras.backend.backend() != "jax":  # where Keras refuses it
    DRAWS["keras"] = lambda x: keras.random.normal(SHAPE)
if keras.backend.backend() == "torch":
    import torch

    DRAWS["torch"] = lambda x: torch.randn(SHAPE)
    DRAWS["dropout"] = lambda x: torch.nn.functional.dropout(torch.ones(SHAPE))
OF_TENSORFLOW = ()
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    generator = tf.random.Generator.from_seed(1)
    DRAWS |= {
        "normal": lambda x: tf.random.normal(SHAPE),
        "uniform": lambda x: tf.random.uniform(SHAPE),
        "truncated": lambda x: tf.random.truncated_normal(SHAPE),
        "gamma": lambda x: tf.random.gamma(SHAPE, 1.0),
        "integers": lambda x: tf.cast(tf.random.uniform(SHAPE, 0, 5, "int32"), "float32"),
        "classes": lambda x: tf.cast(tf.random.categorical(tf.zeros(SHAPE), UNITS), "float32"),
        "shuffled": lambda x: tf.random.shuffle(tf.reshape(tf.range(40.0), SHAPE)) / 20,
        "tensorflow's dropout": lambda x: tf.nn.dropout(tf.ones(SHAPE), 0.5),
        "generator": lambda x: generator.normal(SHAPE),
    }
    OF_TENSORFLOW = (*list(DRAWS)[list(DRAWS).index("normal") :],)


@pytest.mark.parametrize("draw", [np.random.random, random.random], ids=["numpy", "python"])
def test_what_is_drawn_again_in_part_leaves_what_comes_next(draw):
    np.random.seed(1)
    random.seed(1)
    expected = [draw() for _ in range(3)]
    np.random.seed(1)
    random.seed(1)
    moment = backend.Moment()
    drawn = [draw(), draw()]
    with moment.again():
        assert draw() == expected[0]
    assert [*drawn, draw()] == expected


class Drawing(layers.Layer):
    """A layer that keeps what it drew."""

    def __init__(self, draw, **kwargs):
        super().__init__(**kwargs)
        self.draw = draw
        self.seen = self.add_weight(shape=SHAPE, initializer="zeros", trainable=False)

    def drawn(self, inputs):
        numbers = self.draw(inputs)
        self.seen.assign(numbers)
        return numbers


class Scaled(Drawing):
    def call(self, inputs):
        return inputs * self.drawn(inputs)


class NoisyDense(Drawing):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], UNITS))

    def call(self, inputs):
        return ops.matmul(inputs, self.kernel) + self.drawn(inputs)


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(BATCH, 6)).astype("float32"), rng.normal(size=(BATCH, 1)).astype("float32")


def compiled(draw, rule="backprop", **settings):
    keras.utils.set_random_seed(1)
    first, last = (layers.Dense(units, use_bias=False) for units in (UNITS, 1))
    stack = [keras.Input((6,), batch_size=BATCH), first, Scaled(draw), NoisyDense(draw), Scaled(draw), last]
    model = keras_gevb.Sequential(stack, learning_rule=rule)
    model.compile(keras.optimizers.SGD(1.0), "mse", **settings)
    return model


def step_taken(model):
    """A step of SGD(1): kernels before, what each lost, h and the last inputs, e, and both scales."""
    (x, y), before = data(), [array(v).copy() for v in model.trainable_variables]
    model.train_on_batch(x, y)
    one, added, two = (array(layer.seen) for layer in model.layers if isinstance(layer, Drawing))
    a, b, c = before
    h = x @ a * one
    last = (h @ b + added) * two
    deltas = [value - array(v) for value, v in zip(before, model.trainable_variables)]
    return before, deltas, (h, last), 2 * (last @ c - y) / BATCH, (one, two)


def assert_equal(deltas, expected):
    for delta, other in zip(deltas, expected, strict=True):
        np.testing.assert_allclose(delta, other, rtol=1e-4, atol=1e-4)  # float32, gradients of order 1


WAYS = {"eager": {"run_eagerly": True}, "traced": {"jit_compile": False}, "default": {}}
# TensorFlow's own draws are refused in eager steps: below.
PAIRS = [(kind, way) for kind in DRAWS for way in WAYS if way != "eager" or kind not in OF_TENSORFLOW]


@pytest.mark.parametrize(("kind", "way"), PAIRS)
@pytest.mark.sampled(5)
def test_the_derivative_is_that_at_the_numbers_that_were_drawn(kind, way):
    model, (x, _) = compiled(DRAWS[kind], **WAYS[way]), data()
    for _ in range(2):
        (_, b, c), deltas, (h, last), e, (one, two) = step_taken(model)
        g = e @ c.T * two
        assert_equal(deltas, (x.T @ (g @ b.T * one), h.T @ g, last.T @ e))


def test_dropout_without_a_seed_drops_the_same_as_in_stock_keras():
    x, y = data()
    results = []
    for cls in (keras.Sequential, functools.partial(keras_gevb.Sequential, learning_rule="backprop")):
        keras.utils.set_random_seed(1)
        hidden = [
            part for _ in range(2) for part in (layers.Dense(8, activation="tanh"), layers.Dropout(0.5))
        ]
        model = cls([keras.Input((6,)), *hidden, layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        keras.utils.set_random_seed(2)
        model.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0)
        results.append([array(v) for v in model.trainable_variables])
    for stock, ours in zip(*results, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=1e-4, atol=1e-6)  # float32, six steps


def test_generators_go_on_behind_a_step_as_behind_one_pass():
    """What is drawn next does not depend on how often a step runs a layer."""
    drawn = []
    for rule in ("dfa", "backprop"):
        model = compiled(DRAWS["numpy"], rule, run_eagerly=True)
        np.random.seed(3)
        model.train_on_batch(*data())
        drawn.append(np.random.normal())
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.sampled(2)
def test_a_second_pass_that_updates_as_it_goes_draws_the_same(kind):
    model = compiled(DRAWS[kind], keras_gevb.rules.DFA(seed=1, low_memory=True))
    feedback = array(model.learning_rule.variables[0]).reshape(-1)
    _, deltas, (h, last), e, _ = step_taken(model)
    assert_equal(deltas[1:], (h.T @ (e @ feedback[None, :UNITS]), last.T @ e))


@pytest.mark.skipif(not OF_TENSORFLOW, reason="of TensorFlow's generators")
@pytest.mark.parametrize("where", ["an eager step", "a branch"])
def test_what_cannot_be_drawn_again_is_refused(where):
    def branch(x):
        return tf.cond(tf.reduce_sum(x) > -1e9, lambda: tf.random.normal(SHAPE), lambda: tf.zeros(SHAPE))

    draw = branch if where == "a branch" else DRAWS["normal"]
    model = compiled(draw, run_eagerly=where == "an eager step")
    before = [array(v).copy() for v in model.trainable_variables]
    with pytest.raises(ValueError, match=r"(?s)RandomStandardNormal.*keras.random.SeedGenerator"):
        model.train_on_batch(*data())
    for value, variable in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(value, array(variable))
    # Rules that do not run the layers again take it.
    compiled(draw, "dfa", run_eagerly=where == "an eager step").train_on_batch(*data())
