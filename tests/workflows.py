"""Small models and data for the tests of what a Keras user does with a model."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_gevb
from keras_gevb import layers

CLASSES = 4
IMAGE = (6, 6, 2)
EPOCHS = 5


def data(samples=24, seed=0):
    """Raw pixels and labels."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (samples, *IMAGE), "uint8"), rng.integers(0, CLASSES, samples)


def chain(vectorized=True, **settings):
    """The layers of a sequential network: two hidden layers and a readout."""
    dense = layers.VectorDense if vectorized else layers.Dense
    first = {"vector_dim": CLASSES} if vectorized else {}
    return [
        keras.Input(IMAGE),
        keras.layers.Rescaling(1 / 127.5, offset=-1),
        keras.layers.Flatten(),
        dense(8, name="lower", **first, **settings),
        dense(6, name="upper", **settings),
        layers.VectorReadout() if vectorized else layers.Dense(CLASSES, gated=False),
    ]


def sequential(learning_rule="gevb", **settings):
    return keras_gevb.Sequential(chain(**settings), learning_rule=learning_rule)


def conventional(learning_rule="dfa"):
    return sequential(learning_rule, vectorized=False)


def graph(learning_rule="gevb"):
    """Convolution and local connection in two branches, pooled and joined."""
    inputs = keras.Input(IMAGE)
    pixels = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    stem = layers.VectorConv2D(4, 3, padding="same", vector_dim=CLASSES, name="stem")(pixels)
    left = layers.VectorConv2D(4, 3, padding="same", name="left")(stem)
    right = layers.VectorLocallyConnected2D(2, 3, padding="same", name="right")(stem)
    joined = keras.layers.Concatenate()([keras.layers.Add()([stem, left]), right])
    pooled = layers.VectorAveragePooling2D(2)(joined)
    hidden = layers.VectorDense(6, name="hidden")(layers.VectorFlatten()(pooled))
    return keras_gevb.Model(inputs, layers.VectorReadout()(hidden), learning_rule=learning_rule)


def scalar_graph(learning_rule="backprop"):
    """The conventional twin of `graph`."""
    inputs = keras.Input(IMAGE)
    pixels = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    stem = layers.Conv2D(4, 3, padding="same", name="stem")(pixels)
    right = layers.LocallyConnected2D(4, 3, padding="same", name="right")(stem)
    pooled = keras.layers.AveragePooling2D(2)(keras.layers.Add()([stem, right]))
    hidden = layers.Dense(6, name="hidden")(keras.layers.Flatten()(pooled))
    return keras_gevb.Model(inputs, layers.Dense(CLASSES, gated=False)(hidden), learning_rule=learning_rule)


def nested(learning_rule="gevb"):
    """A stock model in a model."""
    body = keras.Sequential([keras.Input((CLASSES, 8)), layers.VectorDense(6, name="inner")], name="body")
    *below, _, readout = chain()
    return keras_gevb.Sequential([*below, body, readout], learning_rule=learning_rule)


# Rules beside the paper's and FA, which serve conventional units.
OTHER_RULES = (
    *("usf", "brsf", "frsf", "kp", "dkp", "sdfa", "drtp"),
    *("node_perturbation", "fdfa", "ebd", "local_error"),
)

# name: (function, learning rules that serve its units)
MODELS = {
    "sequential": (sequential, ("gevb", "backprop", "fa", "dkp", "node_perturbation")),
    "graph": (graph, ("gevb", "backprop", "fa")),
    "nested": (nested, ("gevb", "backprop", "fa")),
    "conventional": (conventional, ("dfa", "backprop", "fa", *OTHER_RULES)),
    "scalar_graph": (scalar_graph, ("dfa", "backprop", "fa")),
}
DISTRIBUTED = [
    ("sequential", "gevb"),
    ("graph", "gevb"),
    ("graph", "backprop"),
    ("nested", "fa"),
    ("conventional", "dfa"),
    *(("conventional", rule) for rule in OTHER_RULES),
]
# One process measures some of them, and another the rest.
SOME = "graph gevb", "conventional kp"
PARTS = {"some": SOME, "others": [row for row in map(" ".join, DISTRIBUTED) if row not in SOME]}
every_distributed = pytest.mark.parametrize(
    ("part", "row"),
    [
        pytest.param(part, row, marks=[pytest.mark.long] if part == "others" else [])
        for part, rows in PARTS.items()
        for row in rows
    ],
)
# Rules that draw other numbers on each replica.
NOISY = "node_perturbation", "fdfa"
ROWS = [(name, rule) for name, (_, rules) in MODELS.items() for rule in rules]


def build(name, learning_rule):
    return MODELS[name][0](learning_rule)


def compiled(model, optimizer=None, **settings):
    """Compiled with cross-entropy and plain SGD, unless said otherwise; eager, as small nets trace slowly."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.SGD(0.1), **{"loss": loss, "run_eagerly": True, **settings})
    return model


def traced(model, optimizer=None, **settings):
    """The same, run as Keras runs a model by default."""
    return compiled(model, optimizer, **{"run_eagerly": False, **settings})


def twin(model, make=keras.Sequential):
    """A stock Keras model with the same layers and weights, which learns by automatic differentiation."""
    stock = make([keras.Input(model.input_shape[1:]), *(_copy(layer) for layer in model.layers)])
    for mine, other in zip(stock.layers, model.layers, strict=True):
        mine.set_weights(other.get_weights())
    return stock


def _copy(layer):
    return type(layer).from_config(layer.get_config())


def assert_same_weights(model, other, atol):
    """All weights agree, name by name."""
    assert [v.path.split("/")[-1] for v in model.weights] == [v.path.split("/")[-1] for v in other.weights]
    for mine, theirs in zip(model.weights, other.weights, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=0, atol=atol, err_msg=mine.path)


def start_python(*arguments, **environment):
    """Another Python process, in this folder, without a GPU and without TensorFlow's chatter."""
    folder = pathlib.Path(__file__).parent
    settings = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(folder)}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **settings, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outputs(process, status=0):
    """What a process wrote, once it has ended with this status."""
    written, errors = process.communicate(timeout=600)
    assert process.returncode == status, errors[-3000:]
    return written


def distance(model, other):
    """The largest difference of two models' weights."""
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    return max(float(np.abs(mine - theirs).max()) for mine, theirs in pairs)
