"""Layers have the published shapes, and each component of a vector layer is the layer of Keras."""

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
    (layers.Dense(4), (7,), (7, 4), (4,), None, (4,)),
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
]


@pytest.mark.parametrize(
    "window", [{"padding": "same"}, {"strides": 2, "padding": "same"}, {"strides": (1, 2)}]
)
@pytest.mark.parametrize(("local", "conv", "inputs", "settings"), UNTIED)
@pytest.mark.usefixtures("float64")
def test_a_locally_connected_layer_with_equal_kernels_is_a_convolution(local, conv, inputs, settings, window):
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
    (layers.Dense(4, use_bias=False), (6,)),
    (layers.Conv2D(4, **WINDOW, use_bias=False, gated=False), (6, 6, 2)),
    (layers.LocallyConnected2D(4, **WINDOW, use_bias=False, gated=False), (6, 6, 2)),
    (layers.VectorReadout(**SETTINGS), (K, 6)),
    (layers.Dense(4, gated=False, **SETTINGS), (6,)),
    (layers.Conv2D(4, **WINDOW, **SETTINGS), (6, 6, 2)),
    (layers.LocallyConnected2D(4, **WINDOW, **SETTINGS), (6, 6, 2)),
    (layers.VectorFlatten(name="mine"), (6, 6, K, 2)),
    (layers.VectorAveragePooling2D((2, 3), strides=(1, 2), padding="same", name="mine"), (6, 6, K, 2)),
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
    assert {type(layer).__name__ for layer, _ in CONFIGURED} == {*layers.__all__} - {"WeightLayer"}


# The arguments of a layer, and what each defaults to.
DEFAULTS = {
    "nonnegative": None,
    "gated": True,
    "use_bias": True,
    "vector_dim": None,
    "kernel_initializer": None,
    "bias_initializer": keras.initializers.Zeros().get_config(),
    "gates_initializer": None,
    "kernel_regularizer": None,
    "bias_regularizer": None,
    "kernel_constraint": None,
    "bias_constraint": None,
    "trainable": True,
    "strides": (1, 1),
    "padding": "valid",
}
# What a kind of layer has no use for.
WITHOUT = {
    "VectorReadout": {"gated", "vector_dim", "gates_initializer"},
    **{name: {"vector_dim", "gates_initializer"} for name in ("Dense", "Conv2D", "LocallyConnected2D")},
}


@pytest.mark.parametrize("name", [n for n in layers.__all__ if n not in ("WeightLayer", "VectorFlatten")])
def test_every_argument_of_a_layer_is_restored_other_than_by_default(name):
    """A row of the table gives it another value, the config holds it, and the restored layer has it."""
    rows = [layer for layer, _ in CONFIGURED if type(layer).__name__ == name]
    pools = name == "VectorAveragePooling2D"
    windowed = pools or "2D" in name
    named = {"strides", "padding"} if windowed else set()
    if not pools:
        named |= DEFAULTS.keys() - {"strides", "padding"} - WITHOUT.get(name, set())
    for argument in named:
        given = []
        for layer in rows:
            restored = type(layer).from_config(layer.get_config())
            assert argument in layer.get_config()
            values = [getattr(each, argument) for each in (layer, restored)]
            one, other = (getattr(value, "get_config", lambda value=value: value)() for value in values)
            assert one == other, argument
            assert type(values[0]) is type(values[1]), argument
            given.append(one)
        assert any(value != DEFAULTS[argument] for value in given), argument


@pytest.mark.parametrize("space", [(4,), (4, 5), (2, 3, 4)])
def test_flatten_orders_each_component_as_keras_does(space):
    x = np.random.default_rng(0).standard_normal((2, *space, K, 6)).astype("float32")
    outputs = layers.VectorFlatten()(x)
    assert outputs.shape == (2, K, np.prod(space) * 6)
    for k in range(K):
        np.testing.assert_array_equal(outputs[:, k], keras.layers.Flatten()(x[..., k, :]))


POOLS = [
    (2, None, "valid"),
    ((2, 3), None, "valid"),
    ((3, 2), None, "same"),
    (3, 1, "same"),
    (2, 1, "valid"),
    ((2, 3), (1, 2), "valid"),
]


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
