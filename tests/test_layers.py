"""Layers have the published shapes, and each component of a vector layer is the layer of Keras."""

import inspect
import math

import keras
import numpy as np
import pytest
from networks import EXACT

from keras_gevb import initializers, layers, passes

K = 3

# layer, input shape (no batch); then the shapes of kernel, bias, gates (None: no weight) and output
SHAPES = [
    (layers.VectorDense(4, vector_dim=K), (7,), (7, K, 4), (K, 4), (K, 4), (K, 4)),
    (layers.VectorDense(4), (K, 6), (6, 4), (K, 4), (K, 4), (K, 4)),
    (layers.VectorDense(4, gated=False), (K, 6), (6, 4), (K, 4), None, (K, 4)),
    (layers.VectorDense(4, use_bias=False), (K, 6), (6, 4), None, (K, 4), (K, 4)),
    (layers.VectorReadout(), (K, 6), (6, 1), (K, 1), None, (K,)),
    (layers.VectorConv2D(4, 3, vector_dim=K), (9, 8, 2), (3, 3, 2, K, 4), (K, 4), (K, 4), (7, 6, K, 4)),
    (layers.VectorConv2D(4, (2, 3)), (9, 8, K, 2), (2, 3, 2, 4), (K, 4), (K, 4), (8, 6, K, 4)),
    (
        layers.VectorConv2D(4, 3, strides=2, padding="same"),
        (9, 8, K, 2),
        (3, 3, 2, 4),
        (K, 4),
        (K, 4),
        (5, 4, K, 4),
    ),
    (
        layers.VectorConv2D(4, 2, strides=(1, 2), padding="valid", vector_dim=K),
        (9, 8, 2),
        (2, 2, 2, K, 4),
        (K, 4),
        (K, 4),
        (8, 4, K, 4),
    ),
    (
        layers.VectorLocallyConnected2D(4, 3, vector_dim=K),
        (9, 8, 2),
        (7, 6, 3, 3, 2, K, 4),
        (7, 6, K, 4),
        (K, 4),
        (7, 6, K, 4),
    ),
    (
        layers.VectorLocallyConnected2D(4, 3, padding="same"),
        (9, 8, K, 2),
        (9, 8, 3, 3, 2, 4),
        (9, 8, K, 4),
        (K, 4),
        (9, 8, K, 4),
    ),
    (
        layers.VectorLocallyConnected2D(4, (3, 2), strides=(2, 3), padding="same"),
        (9, 8, K, 2),
        (5, 3, 3, 2, 2, 4),
        (5, 3, K, 4),
        (K, 4),
        (5, 3, K, 4),
    ),
    (
        layers.VectorLocallyConnected2D(4, 2, strides=2),
        (9, 8, K, 2),
        (4, 4, 2, 2, 2, 4),
        (4, 4, K, 4),
        (K, 4),
        (4, 4, K, 4),
    ),
    (layers.VectorConv1D(4, 3, vector_dim=K), (9, 2), (3, 2, K, 4), (K, 4), (K, 4), (7, K, 4)),
    (
        layers.VectorConv1D(4, 3, padding="causal", dilation_rate=2, groups=2),
        (9, K, 8),
        (3, 4, 4),
        (K, 4),
        (K, 4),
        (9, K, 4),
    ),
    (
        layers.VectorConv2D(4, 3, dilation_rate=(2, 1), groups=2, vector_dim=K),
        (9, 8, 6),
        (3, 3, 3, K, 4),
        (K, 4),
        (K, 4),
        (5, 6, K, 4),
    ),
    (
        layers.VectorConv3D(4, (1, 2, 3), vector_dim=K),
        (5, 4, 6, 2),
        (1, 2, 3, 2, K, 4),
        (K, 4),
        (K, 4),
        (5, 3, 4, K, 4),
    ),
    (layers.VectorConv3D(4, 2, 2), (5, 4, 6, K, 2), (2, 2, 2, 2, 4), (K, 4), (K, 4), (2, 2, 3, K, 4)),
    (
        layers.VectorDepthwiseConv2D(3, depth_multiplier=2, vector_dim=K),
        (9, 8, 4),
        (3, 3, 4, K, 2),
        (K, 8),
        (K, 8),
        (7, 6, K, 8),
    ),
    (
        layers.VectorDepthwiseConv2D((3, 2), 2, "same"),
        (9, 8, K, 4),
        (3, 2, 4, 1),
        (K, 4),
        (K, 4),
        (5, 4, K, 4),
    ),
    (
        layers.VectorLocallyConnected1D(4, 3, vector_dim=K),
        (9, 2),
        (7, 3, 2, K, 4),
        (7, K, 4),
        (K, 4),
        (7, K, 4),
    ),
    (layers.VectorLocallyConnected1D(4, 3, 2, "same"), (9, K, 2), (5, 3, 2, 4), (5, K, 4), (K, 4), (5, K, 4)),
    (layers.VectorEmbedding(9, 4, K), (7,), (9, K, 4), None, None, (7, K, 4)),
    (
        layers.VectorEmbedding(9, 4, K, gated=True, use_bias=True),
        (2, 7),
        (9, K, 4),
        (K, 4),
        (K, 4),
        (2, 7, K, 4),
    ),
    (layers.Dense(4), (7,), (7, 4), (4,), None, (4,)),
    (layers.Conv1D(4, 3), (9, 2), (3, 2, 4), (4,), None, (7, 4)),
    (layers.Conv3D(4, 2), (5, 4, 6, 2), (2, 2, 2, 2, 4), (4,), None, (4, 3, 5, 4)),
    (layers.DepthwiseConv2D(3, depth_multiplier=2), (9, 8, 4), (3, 3, 4, 2), (8,), None, (7, 6, 8)),
    (layers.LocallyConnected1D(4, 3), (9, 2), (7, 3, 2, 4), (7, 4), None, (7, 4)),
    (layers.Conv2D(4, 3), (9, 8, 2), (3, 3, 2, 4), (4,), None, (7, 6, 4)),
    (layers.Conv2D(4, 3, strides=2, padding="same"), (9, 8, 2), (3, 3, 2, 4), (4,), None, (5, 4, 4)),
    (layers.LocallyConnected2D(4, 3), (9, 8, 2), (7, 6, 3, 3, 2, 4), (7, 6, 4), None, (7, 6, 4)),
    (
        layers.LocallyConnected2D(4, 3, strides=(2, 1), padding="same"),
        (9, 8, 2),
        (5, 8, 3, 3, 2, 4),
        (5, 8, 4),
        None,
        (5, 8, 4),
    ),
]


def fresh(layer):
    return type(layer).from_config(layer.get_config())


def weights(layer):
    """Shapes by name, of weights only."""
    return {variable.name: tuple(variable.shape) for variable in layer.weights}


@pytest.mark.parametrize(("layer", "inputs", "kernel", "bias", "gates", "outputs"), SHAPES)
def test_shapes_are_the_published_ones(layer, inputs, kernel, bias, gates, outputs):
    layer = fresh(layer)
    symbolic = layer(keras.Input(inputs))
    expected = {"kernel": kernel, "bias": bias, "gates": gates}
    assert weights(layer) == {name: shape for name, shape in expected.items() if shape is not None}
    assert [v.name for v in layer.trainable_variables] == [n for n in ("kernel", "bias") if expected[n]]
    assert tuple(layer.kernel.shape) == kernel
    assert symbolic.shape == (None, *outputs)
    assert layer(np.zeros((2, *inputs), "float32")).shape == (2, *outputs)


# vector layer, the layer of Keras that each component is, input space
TWINS = [
    (layers.VectorDense, keras.layers.Dense, (), {}),
    *(
        (
            layers.VectorConv2D,
            keras.layers.Conv2D,
            (9, 8),
            {"kernel_size": size, "strides": strides, "padding": padding},
        )
        for size in (3, (2, 3))
        for strides in (1, 2)
        for padding in ("same", "valid")
    ),
    (
        layers.VectorConv1D,
        keras.layers.Conv1D,
        (9,),
        {"kernel_size": 3, "dilation_rate": 2, "padding": "causal"},
    ),
    (layers.VectorConv1D, keras.layers.Conv1D, (9,), {"kernel_size": 4, "strides": 2, "padding": "same"}),
    (
        layers.VectorConv2D,
        keras.layers.Conv2D,
        (9, 8),
        {"kernel_size": (2, 3), "dilation_rate": (2, 1), "groups": 2},
    ),
    (layers.VectorConv3D, keras.layers.Conv3D, (5, 4, 6), {"kernel_size": 2, "strides": (1, 2, 2)}),
    (layers.VectorConv3D, keras.layers.Conv3D, (5, 4, 6), {"kernel_size": (2, 1, 2), "padding": "same"}),
    (layers.VectorConv3D, keras.layers.Conv3D, (5, 4, 6), {"kernel_size": 2, "dilation_rate": (1, 2, 3)}),
    *(
        (
            layers.VectorDepthwiseConv2D,  # of windows 4 x 4
            keras.layers.DepthwiseConv2D,
            (9, 8),
            {"depth_multiplier": 2, **window},
        )
        for window in ({"strides": 2, "padding": "same"}, {"dilation_rate": 2})
    ),
]
TWIN_TABLE = pytest.mark.parametrize(("vector", "twin", "space", "settings"), TWINS)


@TWIN_TABLE
@pytest.mark.usefixtures("float64")
def test_each_component_is_the_layer_of_keras(vector, twin, space, settings):
    layer, stock = vector(4, gated=False, nonnegative=False, **settings), twin(4, **settings)
    x = np.random.default_rng(0).standard_normal((2, *space, K, 2))
    layer.build(x.shape)
    stock.build((*x.shape[:-2], 2))
    biases = np.random.default_rng(1).standard_normal((K, 4))
    layer.bias.assign(biases)
    outputs = layer(x)
    for k in range(K):
        stock.set_weights([layer.kernel.numpy(), biases[k]])
        np.testing.assert_allclose(outputs[..., k, :], stock(x[..., k, :]), **EXACT)


@TWIN_TABLE
@pytest.mark.usefixtures("float64")
def test_on_scalar_input_each_component_has_its_own_kernel(vector, twin, space, settings):
    layer, stock = vector(4, vector_dim=K, gated=False, **settings), twin(4, **settings)
    x = np.random.default_rng(0).standard_normal((2, *space, 2))
    biases = np.random.default_rng(1).standard_normal((K, 4))
    layer.build(x.shape)
    stock.build(x.shape)
    layer.bias.assign(biases)
    outputs = layer(x)
    for k in range(K):
        stock.set_weights([layer.kernel.numpy()[..., k, :], biases[k]])
        np.testing.assert_allclose(outputs[..., k, :], stock(x), **EXACT)


# locally connected layer, the convolution that it is with one kernel at all positions, input shape
UNTIED = [
    (layers.LocallyConnected2D, layers.Conv2D, (9, 8, 2), {}),
    (layers.VectorLocallyConnected2D, layers.VectorConv2D, (9, 8, 2), {"vector_dim": K}),
    (layers.VectorLocallyConnected2D, layers.VectorConv2D, (9, 8, K, 2), {}),
    (layers.LocallyConnected1D, layers.Conv1D, (9, 2), {}),
    (layers.VectorLocallyConnected1D, layers.VectorConv1D, (9, 2), {"vector_dim": K}),
    (layers.VectorLocallyConnected1D, layers.VectorConv1D, (9, K, 2), {}),
]


@pytest.mark.parametrize(
    "window", [{"padding": "same"}, {"strides": 2, "padding": "same"}, {"strides": (1, 2)}]
)
@pytest.mark.parametrize(("local", "conv", "inputs", "settings"), UNTIED)
@pytest.mark.usefixtures("float64")
def test_a_locally_connected_layer_with_equal_kernels_is_a_convolution(local, conv, inputs, settings, window):
    if "1D" in local.__name__:
        window = {**window, "strides": np.max(window.get("strides", 1))}
    local, conv = local(4, 3, **settings, **window), conv(4, 3, **settings, **window)
    x = np.random.default_rng(0).standard_normal((2, *inputs))
    local.build(x.shape)
    conv.build(x.shape)
    local.kernel.assign(np.broadcast_to(conv.kernel, local.kernel.shape))
    if conv.gates is not None and hasattr(conv.gates, "assign"):
        local.gates.assign(conv.gates)
    np.testing.assert_allclose(local(x), conv(x), **EXACT)


def test_a_vector_unit_is_open_where_it_aligns_with_its_gate():
    layer = layers.VectorDense(2, kernel_initializer="ones")
    layer.build((None, 2, 1))
    layer.gates.assign([[1, -1], [1, -1]])
    # h is (3, -2), (-3, 2), (1, -1) and (0, 0): t . h is 1, -1, 0 and 0 for the first unit.
    h = np.array([[[3], [-2]], [[-3], [2]], [[1], [-1]], [[0], [0]]], "float32")
    expected = np.concatenate([h, h], axis=-1)
    expected[1, :, 0] = 0
    expected[0, :, 1] = 0
    np.testing.assert_array_equal(layer(h), expected)


@pytest.mark.parametrize(
    ("layer", "rank"),
    [(layers.Dense(2), 2), (layers.Conv2D(2, 1), 4), (layers.LocallyConnected2D(2, 1), 4)],
)
def test_conventional_units_come_as_off_and_on(layer, rank):
    layer = fresh(layer)
    x = np.array([[-2.0], [0.0], [3.0]], "float32")
    layer.kernel_initializer = keras.initializers.Ones()
    outputs = layer(x.reshape(3, *(1,) * (rank - 1)))
    np.testing.assert_array_equal(np.reshape(outputs, (3, 2)), [[-2, 0], [0, 0], [0, 3]])


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (layers.VectorDense(2, vector_dim=K), (1, 2)),
        (layers.VectorDense(2), (1, K, 2)),
        (layers.Dense(2), (1, 2)),
    ],
)
def test_a_unit_at_zero_is_open(layer, inputs):
    # Seen in learning only: its activity is 0, but its bias receives the error.
    with passes.Recording().in_force() as recording:
        fresh(layer)(np.zeros(inputs, "float32"))
    np.testing.assert_array_equal(recording.records[0].gate, [[1, 1]])


# Every argument of a layer, other than by default.
SETTINGS = {
    "use_bias": True,
    "kernel_initializer": initializers.OnOffNormal(scale=1.0, seed=3),
    "bias_initializer": keras.initializers.RandomNormal(seed=4),
    "kernel_regularizer": keras.regularizers.L2(0.1),
    "bias_regularizer": keras.regularizers.L1(0.2),
    "kernel_constraint": keras.constraints.MaxNorm(3.0),
    "bias_constraint": keras.constraints.NonNeg(),
    "nonnegative": True,
    "name": "mine",
    "trainable": False,
}
WINDOW = {"kernel_size": (2, 3), "strides": (2, 1), "padding": "same"}
GATES = {"gates_initializer": initializers.GateSigns(seed=5), "gated": True}
LINE = {"kernel_size": 2, "padding": "same"}
DILATED = {"dilation_rate": 2, "groups": 2}
DILATED_FIRST = {"dilation_rate": 2, "vector_dim": K, "gated": False, "use_bias": False}
CUBE = {"kernel_size": (2, 3, 1), "strides": (2, 1, 1), "padding": "same", "groups": 2}
POSITIVE = {**SETTINGS, "kernel_initializer": keras.initializers.RandomUniform(0.0, 1.0, seed=3)}
SEPARATE = {
    **{name: value for name, value in SETTINGS.items() if not name.startswith("kernel")},
    **{name.replace("kernel", "pointwise"): v for name, v in SETTINGS.items() if name.startswith("kernel")},
    **{name.replace("kernel", "depthwise"): v for name, v in POSITIVE.items() if name.startswith("kernel")},
    "depth_multiplier": 2,
}
CONFIGURED = [
    (layers.VectorDense(4, **SETTINGS, **GATES), (K, 6)),
    (layers.VectorDense(4, vector_dim=K, **SETTINGS, **GATES), (6,)),
    (layers.VectorConv2D(4, **WINDOW, **SETTINGS, **GATES), (6, 6, K, 2)),
    (layers.VectorLocallyConnected2D(4, **WINDOW, **SETTINGS, **GATES), (6, 6, K, 2)),
    (layers.VectorDense(4, gated=False, use_bias=False, nonnegative=False), (K, 6)),
    (layers.VectorDense(4, vector_dim=K, nonnegative=False, dtype="float64"), (6,)),
    (layers.VectorConv2D(4, **WINDOW, vector_dim=K, gated=False, use_bias=False), (6, 6, 2)),
    (layers.VectorLocallyConnected2D(4, **WINDOW, vector_dim=K, gated=False, use_bias=False), (6, 6, 2)),
    (layers.VectorReadout(use_bias=False, nonnegative=False), (K, 6)),
    (layers.Dense(4, use_bias=False, activation="tanh"), (6,)),
    (layers.Conv2D(4, **WINDOW, use_bias=False, gated=False), (6, 6, 2)),
    (layers.LocallyConnected2D(4, **WINDOW, use_bias=False, gated=False), (6, 6, 2)),
    (layers.VectorReadout(**SETTINGS), (K, 6)),
    (layers.Dense(4, gated=False, **SETTINGS), (6,)),
    (layers.Conv2D(4, **WINDOW, **SETTINGS), (6, 6, 2)),
    (layers.LocallyConnected2D(4, **WINDOW, **SETTINGS, activation="tanh"), (6, 6, 2)),
    (layers.VectorConv1D(4, **LINE, **DILATED, **SETTINGS, **GATES), (6, K, 4)),
    (layers.VectorConv1D(4, 2, 2, "same", vector_dim=K, gated=False, use_bias=False), (6, 2)),
    (layers.VectorConv3D(4, **CUBE, **SETTINGS, **GATES), (6, 6, 4, K, 4)),
    (layers.VectorConv3D(4, 2, dilation_rate=2, vector_dim=K, gated=False, use_bias=False), (6, 6, 4, 2)),
    (layers.VectorDepthwiseConv2D(depth_multiplier=2, **WINDOW, **POSITIVE, **GATES), (6, 6, K, 2)),
    (layers.VectorDepthwiseConv2D(3, dilation_rate=2, vector_dim=K, gated=False, use_bias=False), (6, 6, 2)),
    (layers.VectorLocallyConnected1D(4, **LINE, strides=2, **SETTINGS, **GATES), (6, K, 2)),
    (layers.VectorLocallyConnected1D(4, 2, vector_dim=K, gated=False, use_bias=False), (6, 2)),
    (layers.VectorEmbedding(7, 4, K, **POSITIVE, **GATES), (6,)),
    (layers.VectorEmbedding(7, 4, K, mask_zero=True), (6,)),
    (layers.VectorSeparableConv2D(4, **WINDOW, **SEPARATE, **GATES), (6, 6, K, 2)),
    (layers.VectorSeparableConv2D(4, 3, depth_multiplier=2, **DILATED_FIRST), (6, 6, 2)),
    (layers.VectorConv2D(4, 3, groups=2, **DILATED_FIRST), (6, 6, 2)),
    (layers.Conv2D(4, 3, **DILATED, activation="tanh"), (6, 6, 2)),
    (layers.Conv1D(4, **LINE, **DILATED, **SETTINGS, activation="tanh"), (6, 4)),
    (layers.Conv1D(4, 2, 2, gated=False, use_bias=False), (6, 4)),
    (layers.Conv3D(4, **CUBE, **SETTINGS, activation="tanh"), (6, 6, 4, 4)),
    (layers.Conv3D(4, 2, dilation_rate=2, gated=False, use_bias=False), (6, 6, 4, 2)),
    (layers.DepthwiseConv2D(depth_multiplier=2, **WINDOW, **POSITIVE, activation="tanh"), (6, 6, 2)),
    (layers.DepthwiseConv2D(3, dilation_rate=2, gated=False, use_bias=False), (6, 6, 2)),
    (layers.LocallyConnected1D(4, **LINE, strides=2, **SETTINGS, activation="tanh"), (6, 2)),
    (layers.LocallyConnected1D(4, 2, gated=False, use_bias=False), (6, 2)),
    (layers.SeparableConv2D(4, **WINDOW, **SEPARATE, activation="tanh"), (6, 6, 2)),
    (layers.SeparableConv2D(4, 3, dilation_rate=2, gated=False, use_bias=False), (6, 6, 2)),
    (layers.OutputCode(7, seed=3, name="mine"), (K,)),
    (layers.VectorFlatten(name="mine"), (6, 6, K, 2)),
    (layers.VectorReshape((3, -1, 4), name="mine"), (6, 6, K, 2)),
    (layers.VectorDropout(0.5, seed=3, name="mine"), (6, 6, K, 2)),
    (layers.VectorAveragePooling1D(3, strides=1, padding="same", name="mine"), (6, K, 2)),
    (layers.VectorAveragePooling2D((2, 3), strides=(1, 2), padding="same", name="mine"), (6, 6, K, 2)),
    (layers.VectorAveragePooling3D((2, 3, 1), strides=(1, 2, 1), padding="same"), (6, 6, 2, K, 2)),
    (layers.VectorGlobalAveragePooling1D(keepdims=True, name="mine"), (6, K, 2)),
    (layers.VectorGlobalAveragePooling2D(keepdims=True, name="mine"), (6, 6, K, 2)),
    (layers.VectorGlobalAveragePooling3D(keepdims=True, name="mine"), (6, 6, 2, K, 2)),
]


@pytest.mark.parametrize(("layer", "inputs"), CONFIGURED, ids=lambda value: getattr(value, "path", None))
def test_a_layer_is_restored_from_its_config(layer, inputs):
    config = keras.saving.serialize_keras_object(layer)
    restored = keras.saving.deserialize_keras_object(config)
    assert restored.get_config() == layer.get_config()
    x = np.random.default_rng(0).standard_normal((2, *inputs)).astype("float32")
    # The initializers are seeded, or keep the seed that they drew, so even the weights are the same.
    layer.build((None, *inputs))
    restored.build((None, *inputs))
    if layer.get_config().get("kernel_initializer") is None:
        restored.set_weights(layer.get_weights())
    np.testing.assert_array_equal(restored(x), layer(x))
    assert restored.name == layer.name
    for name in ("regularizer", "constraint"):
        for variable, other in zip(layer.trainable_variables, restored.trainable_variables, strict=True):
            assert type(getattr(variable, name)) is type(getattr(other, name))


def test_every_public_layer_is_in_the_table_of_configs():
    assert {type(layer).__name__ for layer, _ in CONFIGURED} == {*layers.__all__} - {"WeightLayer", "Local"}


# What a layer must be given.
REQUIRED = {
    **{"units": 4, "filters": 4, "kernel_size": 2, "pool_size": 2, "rate": 0.1, "classes": 7},
    **{"input_dim": 7, "output_dim": 4, "vector_dim": K, "target_shape": (-1,)},
}
# What a kind of layer has no use for.
WITHOUT = {"VectorReadout": {"gated", "vector_dim", "gates_initializer"}}


def parameters(kind):
    """The arguments of a layer, those of its bases too: pairs (name, whether it must be given)."""
    own = inspect.signature(kind.__init__).parameters
    found = {p.name: True for p in own.values() if p.default is p.empty and "VAR" not in p.kind.name}
    for base in reversed(kind.__mro__):
        if "__init__" in vars(base) and base.__module__.startswith("keras_gevb"):
            signature = inspect.signature(base.__init__).parameters.values()
            found |= {p.name: p.default is p.empty for p in signature if "VAR" not in p.kind.name}
    if hasattr(kind, "kinds"):  # a layer of two hands the rest to the second
        given = parameters(kind.kinds[1])
        found |= {n: r for n, r in given.items() if not n.startswith("kernel_") and n != "groups"}
    # What a base must be given, a class may know.
    found = {name: required for name, required in found.items() if name in own or not required}
    without = {"self", "activity_regularizer", *WITHOUT.get(kind.__name__, ())}
    if kind.__name__.startswith("Vector"):
        without.add("activation")
    else:
        without |= {"vector_dim", "gates_initializer"}
    return {name: required for name, required in found.items() if name not in without}


@pytest.mark.parametrize("name", sorted({type(layer).__name__ for layer, _ in CONFIGURED}))
def test_every_argument_of_a_layer_is_restored_other_than_by_default(name):
    """A row of the table gives it another value, the config holds it, and the restored layer has it."""
    kind = getattr(layers, name)
    named = parameters(kind)
    default = kind(**{n: REQUIRED[n] for n, required in named.items() if required}).get_config()
    rows = [layer for layer, _ in CONFIGURED if type(layer) is kind]
    for argument in (n for n, required in named.items() if not required):
        for layer in rows:
            restored = kind.from_config(layer.get_config())
            assert restored.get_config()[argument] == layer.get_config()[argument], argument
            values = [getattr(each, argument, None) for each in (layer, restored)]
            assert type(values[0]) is type(values[1]), argument
        assert any(layer.get_config()[argument] != default[argument] for layer in rows), argument


@pytest.mark.parametrize("space", [(4,), (4, 5), (2, 3, 4)])
def test_flatten_orders_each_component_as_keras_does(space):
    x = np.random.default_rng(0).standard_normal((2, *space, K, 6)).astype("float32")
    outputs = layers.VectorFlatten()(x)
    assert outputs.shape == (2, K, np.prod(space) * 6)
    for k in range(K):
        np.testing.assert_array_equal(outputs[:, k], keras.layers.Flatten()(x[..., k, :]))


@pytest.mark.parametrize("target", [(-1,), (3, 4), (4, -1, 3), (2, 3, 1, 2)])
@pytest.mark.parametrize("space", [(), (2,), (1, 2)])
def test_reshape_shapes_each_component_as_keras_does(space, target):
    x = np.random.default_rng(0).standard_normal((2, *space, K, 12 // math.prod(space))).astype("float32")
    outputs = layers.VectorReshape(target)(x)
    for k in range(K):
        np.testing.assert_array_equal(outputs[..., k, :], keras.layers.Reshape(target)(x[..., k, :]))


POOLS = [
    (2, None, "valid"),
    ((2, 3), None, "valid"),
    ((3, 2), None, "same"),
    (3, 1, "same"),
    (2, 1, "valid"),
    ((2, 3), (1, 2), "valid"),
]


@pytest.mark.parametrize("fusing", [False, True], ids=["", "fusing"])
@pytest.mark.parametrize("rank", [1, 3])
def test_pooling_of_another_rank_is_that_of_keras(rank, fusing, monkeypatch):
    monkeypatch.setattr("keras_gevb.backend.fusing", lambda: fusing)
    ours = getattr(layers, f"VectorAveragePooling{rank}D")((2, 1, 3)[:rank])
    stock = getattr(keras.layers, f"AveragePooling{rank}D")((2, 1, 3)[:rank])
    x = np.random.default_rng(0).standard_normal((2, *(4, 5, 6)[:rank], K, 2)).astype("float32")
    outputs = ours(x)
    for k in range(K):
        np.testing.assert_allclose(outputs[..., k, :], stock(x[..., k, :]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_global_pooling_is_that_of_keras(rank, keepdims):
    ours = getattr(layers, f"VectorGlobalAveragePooling{rank}D")(keepdims=keepdims)
    stock = getattr(keras.layers, f"GlobalAveragePooling{rank}D")(keepdims=keepdims)
    x = np.random.default_rng(0).standard_normal((2, *(4, 5, 3)[:rank], K, 6)).astype("float32")
    outputs = ours(x)
    assert ours.compute_output_shape(x.shape) == outputs.shape
    for k in range(K):
        np.testing.assert_allclose(outputs[..., k, :], stock(x[..., k, :]), rtol=1e-6, atol=1e-6)


def test_a_mean_over_words_leaves_out_padding():
    embedding = layers.VectorEmbedding(5, 4, K, mask_zero=True)
    words = np.array([[3, 1, 0, 0], [2, 2, 4, 1]])
    mean = keras.Sequential(
        [keras.Input((4,), dtype="int32"), embedding, layers.VectorGlobalAveragePooling1D()]
    )
    kernel = np.asarray(embedding.kernel)
    expected = [kernel[[3, 1]].mean(axis=0), kernel[[2, 2, 4, 1]].mean(axis=0)]
    np.testing.assert_allclose(mean(words), expected, rtol=1e-6, atol=1e-6)


def test_an_embedding_is_a_dense_layer_on_one_hot_vectors():
    words = np.array([3, 0, 4])
    embedding = layers.VectorEmbedding(5, 4, K, gated=True, use_bias=True, bias_initializer="normal")
    dense = layers.VectorDense(4, vector_dim=K)
    embedding.build((None,))
    dense.build((None, 5))
    dense.set_weights(embedding.get_weights())
    np.testing.assert_allclose(embedding(words), dense(np.eye(5)[words]), rtol=1e-6, atol=1e-6)


def test_the_window_of_an_embedding_is_one_token():
    embedding = layers.VectorEmbedding(200, 20, K)
    embedding.build((None,))
    kernel = np.asarray(embedding.kernel)
    # Variance 1; half of the numbers mirror the others. 5 standard errors of 6,000 draws.
    assert abs(kernel.var() - 1) < 5 * np.sqrt(2 / 6000)


def test_dropout_drops_units_with_all_their_components():
    x = np.random.default_rng(0).uniform(1, 2, (4, 5, 6, K, 8)).astype("float32")
    dropout = layers.VectorDropout(0.25, seed=1)
    np.testing.assert_array_equal(dropout(x), x)
    kept = np.asarray(dropout(x, training=True)) / x
    for k in range(1, K):
        np.testing.assert_array_equal(kept[..., k, :] == 0, kept[..., 0, :] == 0)
    # float32 products of 1 / 0.75
    np.testing.assert_allclose(kept[kept > 0], 1 / 0.75, rtol=1e-6)
    # A fair draw of 960: 5 standard errors.
    assert abs(np.mean(kept == 0) - 0.25) < 5 * np.sqrt(0.25 * 0.75 / kept[..., 0, :].size)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_a_separable_convolution_is_that_of_keras(multiplier):
    window = {"kernel_size": (2, 3), "strides": 2, "padding": "same", "depth_multiplier": multiplier}
    ours = layers.SeparableConv2D(4, gated=False, bias_initializer="normal", **window)
    stock = keras.layers.SeparableConv2D(4, **window)
    x = np.random.default_rng(0).standard_normal((2, 7, 8, 3)).astype("float32")
    expected_shape = stock.compute_output_shape(x.shape)
    assert ours.compute_output_shape(x.shape) == expected_shape
    outputs = ours(x)
    stock.build(x.shape)
    stock.set_weights(ours.get_weights())
    np.testing.assert_allclose(outputs, stock(x), rtol=1e-5, atol=1e-5)


def test_mirrored_channels_stay_mirrored_through_a_nonnegative_depthwise_convolution():
    layer = layers.VectorDepthwiseConv2D(3, gated=False)
    x = np.random.default_rng(0).standard_normal((2, 6, 6, K, 4)).astype("float32")
    x[..., 1::2] = -x[..., ::2]
    outputs = np.asarray(layer(x))
    assert np.asarray(layer.kernel).min() >= 0
    np.testing.assert_allclose(outputs[..., 1::2], -outputs[..., ::2], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("fusing", [False, True], ids=["", "fusing"])
@pytest.mark.parametrize("space", [(6, 6), (7, 6), (6, 7), (8, 9)])
@pytest.mark.parametrize(("size", "strides", "padding"), POOLS)
def test_pooling_is_that_of_keras_over_space(size, strides, padding, space, fusing, monkeypatch):
    # Written otherwise where XLA compiles it.
    monkeypatch.setattr("keras_gevb.backend.fusing", lambda: fusing)

    def pair(value):
        return value if value is None or isinstance(value, tuple) else (value, value)

    x = np.random.default_rng(0).standard_normal((2, *space, K, 4)).astype("float32")
    ours = layers.VectorAveragePooling2D(size, strides, padding)
    steps = None if strides is None else (*pair(strides), 1)
    stock = keras.layers.AveragePooling3D((*pair(size), 1), steps, padding)
    # float32: TensorFlow has no AveragePooling3D in float64 on CPU.
    np.testing.assert_allclose(ours(x), stock(x), rtol=1e-6, atol=1e-6)
    assert ours.compute_output_shape(x.shape) == stock.compute_output_shape(x.shape)


@pytest.mark.parametrize("fusing", [False, True], ids=["", "fusing"])
@pytest.mark.parametrize(
    "window", [{"padding": "same"}, {"strides": (2, 1), "padding": "same"}, {"strides": 2}]
)
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.usefixtures("float64")
def test_a_small_convolution_is_that_of_keras_where_it_is_fused(channels, window, fusing, monkeypatch):
    monkeypatch.setattr("keras_gevb.backend.fusing", lambda: fusing)
    ours = layers.Conv2D(4, (3, 2), gated=False, **window)
    stock = keras.layers.Conv2D(4, (3, 2), **window)
    x = np.random.default_rng(0).standard_normal((2, 7, 8, channels))
    ours.build(x.shape)
    stock.build(x.shape)
    stock.set_weights([ours.kernel, ours.bias])
    np.testing.assert_allclose(ours(x), stock(x), **EXACT)


@pytest.mark.parametrize("row", SHAPES, ids=lambda row: f"{type(row[0]).__name__}{row[1]}")
def test_the_shape_of_an_output_is_known_without_it(row):
    layer, shape, output = row[0], row[1], row[-1]
    assert layer.compute_output_shape((None, *shape)) == (None, *output)


@pytest.mark.parametrize("layer", [layers.Conv2D, layers.LocallyConnected2D])
def test_a_layer_of_windows_stands_where_that_of_keras_stands(layer):
    """Strides and padding by position, and a wrapper that asks for the shape of the output."""
    x = np.ones((2, 3, 9, 8, 2), "float32")
    wrapped = keras.layers.TimeDistributed(layer(4, 3, 2, "same"))
    assert wrapped(x).shape == (2, 3, 5, 4, 4)
    assert wrapped.compute_output_shape(x.shape) == (2, 3, 5, 4, 4)


def test_a_convolution_over_a_space_of_any_size_keeps_it_open():
    inputs = keras.Input((None, 9, 2))
    assert layers.VectorConv2D(4, 3, 2, vector_dim=K)(inputs).shape == (None, None, 4, K, 4)


@pytest.fixture
def channels_first():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.VectorConv2D(4, 3, vector_dim=2),
        lambda: layers.Conv2D(4, 3),
        lambda: layers.VectorDepthwiseConv2D(3, vector_dim=2),
        lambda: layers.VectorLocallyConnected2D(4, 3, vector_dim=2),
    ],
)
def test_keras_default_of_where_channels_are_changes_nothing(make, channels_first):
    x = np.random.default_rng(0).standard_normal((2, 6, 6, 6)).astype("float32")
    keras.utils.set_random_seed(0)
    outputs = keras.ops.convert_to_numpy(make()(x))
    keras.utils.set_random_seed(0)
    keras.config.set_image_data_format("channels_last")
    np.testing.assert_array_equal(outputs, keras.ops.convert_to_numpy(make()(x)))


def test_pooling_keeps_to_the_last_axes_whatever_keras_default_is(channels_first):
    x = np.random.default_rng(0).standard_normal((2, 6, 6, 2, 3)).astype("float32")
    for layer in (layers.VectorAveragePooling2D(2), layers.VectorGlobalAveragePooling2D()):
        blocks = x.reshape(2, 3, 2, 3, 2, 2, 3).mean(axis=(2, 4))
        expected = blocks if len(layer(x).shape) == 5 else x.mean(axis=(1, 2))
        np.testing.assert_allclose(layer(x), expected, rtol=0, atol=1e-6)  # float32


@pytest.mark.parametrize("kind", [layers.SeparableConv2D, layers.VectorSeparableConv2D])
def test_parts_of_a_layer_compute_in_its_precision(kind):
    layer = kind(4, 3, dtype="mixed_bfloat16")
    assert layer.depthwise.dtype_policy.name == layer.pointwise.dtype_policy.name == "mixed_bfloat16"


def test_a_bias_is_constrained():
    layer = layers.Dense(4, bias_constraint="non_neg")
    layer.build((None, 3))
    layer.bias.assign(keras.ops.convert_to_tensor([-1.0, 1.0, -2.0, 2.0]))
    np.testing.assert_array_equal(layer.bias.constraint(layer.bias), [0.0, 1.0, 0.0, 2.0])


MASKED = {
    "dropout": (lambda: layers.VectorDropout(0.1), True),
    "a code of outputs": (lambda: layers.OutputCode(7), True),
    "windows of one position": (lambda: layers.Conv1D(4, 1), True),
    "of every second position": (lambda: layers.Conv1D(4, 1, strides=2), False),
    "of two positions": (lambda: layers.Conv1D(4, 2), False),
}


@pytest.mark.parametrize("name", MASKED)
def test_what_acts_at_each_position_alone_passes_masks_on(name):
    make, passes_on = MASKED[name]
    assert make().supports_masking is passes_on
