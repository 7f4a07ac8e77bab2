"""The networks on which every rule is tested: a new one joins all tests by one row."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import pytest

import keras_gevb
from keras_gevb import datasets, initializers, layers, rules, zoo
from keras_gevb.step import Step

CLASSES = 4
IMAGE = (6, 6, 2)


@dataclasses.dataclass(frozen=True)
class Network:
    """One row: how to build a network, and what holds of it.

    Attributes:
        name: The test's name.
        make: A function of `vectorized` and `nonnegative` that returns a model.
        brightest: Inputs are drawn from 0 to this.
        unshared: Every weight is used once per sample, at one position.
        sequential: The layers form a chain, so each acts on all later ones.
        large: Too large for a test that runs it many times, or position by position.
        tokens: Inputs are integers below this, if it is not 0.
    """

    name: str
    make: Callable
    vectorized: bool = True
    nonnegative: bool = True
    brightest: float = 1.0
    unshared: bool = True
    sequential: bool = True
    large: bool = False
    tokens: int = 0

    def build(self, loss=None, learning_rule=None):
        """The network, compiled, with biases that are not zero, so that no term vanishes."""
        model = self.make(self.vectorized, self.nonnegative)
        if learning_rule is not None:
            model._set_learning_rule(learning_rule)  # quicker than a constructor's argument in each `make`
        rng = np.random.default_rng(1)
        for variable in model.trainable_variables:
            if variable.name == "bias":
                variable.assign(0.3 * rng.standard_normal(variable.shape))
        loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
        return model

    def batch(self, model, size=3, seed=2):
        """Inputs, labels and sample weights."""
        rng = np.random.default_rng(seed)
        shape = (size, *model.input_shape[1:])
        x = rng.integers(0, self.tokens, shape) if self.tokens else rng.uniform(0, self.brightest, shape)
        y = rng.integers(0, model.output_shape[-1], size)
        return x.astype("int32" if self.tokens else keras.config.floatx()), y, rng.uniform(0.2, 2.0, size)


def _kinds(vectorized, nonnegative):
    """Layer classes and their settings for the first and the later layers."""
    if vectorized:
        first = {"vector_dim": CLASSES, "nonnegative": None if nonnegative else False}
        prefix, pool, flatten = "Vector", layers.VectorAveragePooling2D, layers.VectorFlatten
        last = layers.VectorReadout(nonnegative=nonnegative)
    else:
        first = {"kernel_initializer": initializers.MirroredNormal()} if nonnegative else {}
        prefix, pool, flatten = "", keras.layers.AveragePooling2D, keras.layers.Flatten
        last = layers.Dense(CLASSES, gated=False, nonnegative=nonnegative)
    dense, conv, local = (
        getattr(layers, prefix + name) for name in ("Dense", "Conv2D", "LocallyConnected2D")
    )
    return dense, conv, local, pool, flatten, first, {"nonnegative": nonnegative}, last


def _branching(vectorized, nonnegative):
    """Add, Concatenate, two poolings, and branches of all three kinds of layer."""
    dense, conv, local, pool, flatten, first, later, last = _kinds(vectorized, nonnegative)
    inputs = keras.Input(IMAGE)
    pixels = keras.layers.Rescaling(2, offset=-1)(inputs)
    stem = conv(4, 3, padding="same", **first)(pixels)
    left = conv(4, 3, padding="same", **later)(stem)
    right = pool(2)(local(2, 3, padding="same", **later)(stem))
    joined = keras.layers.Add()([stem, left])
    joined = keras.layers.Concatenate()([pool(2)(joined), right])
    hidden = dense(6, **later)(flatten()(joined))
    hidden = keras.layers.Add()([hidden, dense(6, **later)(hidden)])
    return keras_gevb.Model(inputs, last(hidden), learning_rule=_rule(vectorized))


def _nested(vectorized, nonnegative):
    """Models within a model, one of which holds the readout."""
    dense, conv, _, pool, flatten, first, later, last = _kinds(vectorized, nonnegative)
    space = (*IMAGE[:2], CLASSES, 4) if vectorized else (*IMAGE[:2], 4)
    body = keras.Sequential([keras.Input(space), conv(4, 2, **later), pool(2), flatten()])
    head = keras.Sequential([keras.Input(body.output_shape[1:]), dense(6, **later), last])
    return keras_gevb.Sequential(
        [
            keras.Input(IMAGE),
            keras.layers.Rescaling(2, offset=-1),
            conv(4, 3, padding="same", **first),
            body,
            head,
        ],
        learning_rule=_rule(vectorized),
    )


def _reused(vectorized, nonnegative):
    """One layer used twice, the second time on its own outputs."""
    dense, _, _, _, _, first, later, last = _kinds(vectorized, nonnegative)
    inputs = keras.Input((7,))
    again = dense(6, **later)
    hidden = dense(6, **first)(keras.layers.Rescaling(2, offset=-1)(inputs))
    return keras_gevb.Model(inputs, last(again(again(hidden))), learning_rule=_rule(vectorized))


def windows(kind, strides, padding, kernel_size=3):
    """A layer on windows, twice, so on scalar and on vector inputs."""

    def make(vectorized, nonnegative):
        _, conv, local, _, flatten, first, later, last = _kinds(vectorized, nonnegative)
        layer = {"conv": conv, "lc": local}[kind]
        settings = {"strides": strides, "padding": padding}
        chain = [
            layer(4, kernel_size, **settings, **first),
            layer(4, 2, **settings, **later),
            flatten(),
            last,
        ]
        scaled = [keras.Input((7, 6, 2)), keras.layers.Rescaling(2, offset=-1)]
        return keras_gevb.Sequential(scaled + chain, learning_rule=_rule(vectorized))

    return make


def _chain(shape, *rows):
    """Layers by name, settings of the first and of the later ones as in all networks."""

    def make(vectorized, nonnegative):
        *_, first, later, last = _kinds(vectorized, nonnegative)
        chain, prefix = [keras.Input(shape), keras.layers.Rescaling(2, offset=-1)], "Vector" * vectorized
        settings = first
        for name, *arguments, given in rows:
            kind = getattr(layers, prefix + name, None) or getattr(keras.layers, name)
            weighty = not name.endswith(("Flatten", "Pooling1D", "Pooling2D", "Pooling3D"))
            chain.append(kind(*arguments, **given, **(settings if weighty else {})))
            settings = later
        return keras_gevb.Sequential([*chain, last], learning_rule=_rule(vectorized))

    return make


_SEQUENCE = _chain(
    (8, 2),
    ("Conv1D", 4, 3, {"padding": "causal", "dilation_rate": 2}),
    ("Conv1D", 4, 3, {"groups": 2, "padding": "same", "strides": 2}),
    ("AveragePooling1D", 2, {}),
    ("LocallyConnected1D", 6, 2, {"padding": "same"}),
    ("Flatten", {}),
)
_VOLUME = _chain(
    (3, 4, 2, 4),
    ("Conv3D", 4, 2, {"groups": 2, "padding": "same"}),
    ("Conv3D", 4, (2, 1, 2), {"strides": (1, 2, 1)}),
    ("GlobalAveragePooling3D", {}),
)
_DEPTHWISE = _chain(
    (5, 4, 2),
    ("DepthwiseConv2D", 2, 1, "same", 2, {}),
    ("SeparableConv2D", 8, 2, {"dilation_rate": (2, 1)}),
    ("DepthwiseConv2D", 2, (2, 1), "same", {"dilation_rate": 1}),
    ("GlobalAveragePooling2D", {}),
)
TOKENS = 5


def _tokens(vectorized, nonnegative):
    """Words, of which each is looked up at all positions."""
    *_, first, later, last = _kinds(vectorized, nonnegative)
    chain = [
        keras.Input((6,), dtype="int32"),
        layers.VectorEmbedding(TOKENS, 4, gated=True, use_bias=True, **first),
        layers.VectorConv1D(4, 2, **later),
        layers.VectorGlobalAveragePooling1D(),
    ]
    return keras_gevb.Sequential([*chain, last])


def _rule(vectorized):
    return "gevb" if vectorized else "backprop"


def _zoo(dataset, architecture):
    width = {"fc": 0.02, "conv": 0.06, "lc": 0.07}[architecture] * (8 if dataset == "digits" else 1)

    def make(vectorized, nonnegative):
        return zoo.build(dataset, architecture, vectorized, nonnegative, width=width)

    return make


# name, make, options
_ROWS = [
    *(
        (
            f"{dataset}-{architecture}",
            _zoo(dataset, architecture),
            {
                "brightest": datasets.IMAGES[dataset][1],
                "unshared": architecture != "conv",
                "large": dataset != "digits" and architecture != "fc",
            },
        )
        for dataset in ("digits", "mnist", "cifar10")
        for architecture in zoo.ARCHITECTURES
    ),
    *(
        (f"{kind}-stride-{strides}-{padding}", windows(kind, strides, padding), {"unshared": kind != "conv"})
        for kind in ("conv", "lc")
        for strides in (1, 2, (2, 1))
        for padding in ("same", "valid")
        if (strides, padding) != ((2, 1), "valid")
    ),
    ("branching", _branching, {"unshared": False, "sequential": False}),
    ("nested", _nested, {"unshared": False, "sequential": False}),
    ("reused", _reused, {"unshared": False, "sequential": False}),
    *(
        (name, make, {"unshared": False})
        for name, make in (("sequence", _SEQUENCE), ("volume", _VOLUME), ("depthwise", _DEPTHWISE))
    ),
]
_EMBEDDED = ("tokens", _tokens, {"unshared": False, "tokens": TOKENS})  # has no conventional twin

NETWORKS = [
    Network(
        f"{name}-{units}-{'nonnegative' if nonnegative else 'mixed'}",
        make,
        units == "vectorized",
        nonnegative,
        **options,
    )
    for name, make, options in [*_ROWS, _EMBEDDED]
    for units in ("vectorized", "conventional")[: 1 if name == "tokens" else 2]
    for nonnegative in (True, False)
]


# Sequences, volumes, words; groups, dilation and one channel at a time.
OF_EVERY_RANK = [
    n
    for n in NETWORKS
    if n.name.startswith(("sequence", "volume", "depthwise", "tokens")) and not n.nonnegative
]


def rows(**conditions):
    """`pytest.mark.parametrize` over the networks for which the conditions hold."""
    chosen = [n for n in NETWORKS if all(getattr(n, k) == v for k, v in conditions.items())]
    return pytest.mark.parametrize("network", chosen, ids=[n.name for n in chosen])


def step_of(model, x, rule=None, error=None):
    """A training step of a rule, the model's own by default, without targets: e is given, or all ones."""
    x = keras.tree.map_structure(keras.ops.convert_to_tensor, x)
    step = Step(model, x, rules.get(rule or model.learning_rule))
    ones = keras.ops.ones_like(step.outputs)
    step.error = ones if error is None else keras.ops.convert_to_tensor(error, ones.dtype)
    return step


# Two orders of summation, in float64 under TensorFlow. Elsewhere Keras computes in float32.
EXACT = {t: 1e-10 if keras.backend.backend() == "tensorflow" else 1e-5 for t in ("rtol", "atol")}


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def arrays(tensors):
    return [array(tensor) for tensor in tensors]
