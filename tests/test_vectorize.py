"""The vector network of a stock model's shape."""

import random

import keras
import numpy as np
import pytest
from keras import layers as stock
from networks import array
from test_gevb import opposed_terms

import keras_gevb
from keras_gevb import layers, private

CLASSES = 4


def dense():
    return keras.Sequential(
        [
            *(keras.Input((6, 6, 2)), stock.Rescaling(2.0, offset=-1.0), stock.Flatten()),
            *(stock.Dense(8, activation="relu", name="lower"), stock.Dropout(0.25)),
            *(stock.Dense(6, use_bias=False), stock.ReLU(), stock.Dense(4), stock.Dense(CLASSES)),
        ]
    )


def residual():
    inputs = keras.Input((6, 6, 2))
    x = stock.Conv2D(4, 3, padding="same", activation="relu", name="stem")(inputs)
    y = stock.Conv2D(4, 3, padding="same", groups=2)(x)
    y = stock.Activation("relu")(y)
    x = stock.Concatenate(axis=3)([stock.Add()([x, y]), x + y])
    x = stock.SeparableConv2D(4, 3, activation="relu")(stock.AveragePooling2D(2)(x))
    x = stock.Concatenate(axis=1)([x, x])
    x = stock.DepthwiseConv2D(1, depth_multiplier=2, activation="relu")(x)
    logits = stock.Dense(CLASSES, activation="softmax", name="last")(stock.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, logits, name="residual")


def nested():
    """A chain within a graph within a chain, the readout inside."""
    space = keras.Input((3, 3, 4))
    x = keras.Sequential(
        [keras.Input((3, 3, 4)), stock.Conv2D(4, 2, activation="relu", name="deep"), stock.Flatten()]
    )(space)
    graph = keras.Model(space, stock.Dense(CLASSES, name="last")(stock.Dense(4, activation="relu")(x)))
    first = stock.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="first")
    return keras.Sequential([keras.Input((6, 6, 2)), first, graph, stock.Softmax()])


def words():
    inputs = keras.Input((8,), dtype="int32")
    x = stock.Embedding(5, 6, name="words")(inputs)
    x = stock.Dense(6, activation="relu", name="everywhere")(x)
    x = stock.Conv1D(4, 2, padding="causal", dilation_rate=2, activation="relu")(x)
    x = stock.Reshape((4, 2, 4))(x)
    x = stock.Conv2D(4, 2, activation="relu")(x)
    x = stock.Dense(4, activation="relu")(stock.Flatten()(x))
    return keras.Model(inputs, stock.Dense(CLASSES)(x))


def gated_sums():
    """Blocks whose sum goes through a ReLU, over space and of units alone."""
    inputs = keras.Input((6, 6, 2))
    x = stock.Conv2D(4, 3, padding="same", activation="relu", name="stem")(inputs)
    for _ in range(2):
        y = stock.Conv2D(4, 3, padding="same", activation="relu")(x)
        x = stock.ReLU()(stock.Add()([x, stock.Conv2D(4, 3, padding="same")(y)]))
    x = stock.Dense(6, activation="relu")(stock.GlobalAveragePooling2D()(x))
    x = stock.Activation("relu")(stock.Add()([x, stock.Dense(6)(x)]))
    return keras.Model(inputs, stock.Dense(CLASSES)(x), name="gated_sums")


def volume():
    return keras.Sequential(
        [
            *(
                keras.Input((3, 4, 3, 1)),
                stock.Conv3D(4, 2, activation="relu"),
                stock.AveragePooling3D((2, 1, 1)),
            ),
            *(stock.Flatten(), stock.Dense(8), stock.Reshape((4, 2))),
            *(layers.LocallyConnected1D(4, 2), stock.GlobalAveragePooling1D(), stock.Dense(CLASSES)),
            stock.Softmax(),
        ]
    )


MODELS = {
    **{"dense": dense, "residual": residual, "nested": nested, "words": words, "volume": volume},
    "gated sums": gated_sums,
}
every_model = pytest.mark.parametrize("name", MODELS)


def data(model, samples=5):
    rng = np.random.default_rng(0)
    shape = (samples, *model.input_shape[1:])
    x = rng.integers(0, 5, shape) if "words" in [x.name for x in model.layers] else rng.uniform(0, 1, shape)
    return x.astype(model.inputs[0].dtype), np.arange(samples) % CLASSES


def compiled(model):
    probabilities = "softmax" in str([layer.get_config().get("activation") for layer in model.layers[-2:]])
    probabilities = probabilities or isinstance(model.layers[-1], stock.Softmax)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not probabilities)
    model.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
    return model


@every_model
def test_layer_by_layer_shapes_are_those_of_the_stock_model_with_vectors(name):
    model = MODELS[name]()
    vectorized = keras_gevb.vectorize(model)
    # A graph within a chain makes it a graph.
    assert isinstance(vectorized, keras.Sequential) == (
        isinstance(model, keras.Sequential) and name != "nested"
    )
    assert vectorized.name == model.name
    assert vectorized.output_shape == model.output_shape
    weighty = 0
    for layer in private.flat_layers(model):
        if layer.weights and not isinstance(layer, keras.Model):
            ours = vectorized.get_layer(layer.name)
            weighty += 1
            *before, units = layer.output.shape
            if type(ours) is not layers.VectorReadout:
                assert ours.output.shape == (*before, CLASSES, units)
    assert weighty > 2


@every_model
@pytest.mark.sampled(2)
def test_it_learns_and_gevb_opposes_no_gradient(name):
    vectorized = compiled(keras_gevb.vectorize(MODELS[name](), seed=1))
    x, y = data(vectorized)
    assert opposed_terms(vectorized, x) == 0
    before = vectorized.get_weights()
    vectorized.fit(x, y, epochs=2, verbose=0)
    assert not all(np.array_equal(a, b) for a, b in zip(before, vectorized.get_weights(), strict=True))


@every_model
@pytest.mark.sampled(3)
def test_a_seed_makes_the_same_network_and_the_original_stays(name):
    model = MODELS[name]()
    kept = model.get_weights()
    first, second, third = (keras_gevb.vectorize(model, vector_dim=2, seed=seed) for seed in (1, 1, 2))
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(np.any(a != b) for a, b in zip(first.get_weights(), third.get_weights(), strict=True))
    for a, b in zip(kept, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["dense", "residual"])
def test_fewer_numbers_than_classes_put_a_code_behind_the_readout(name, tmp_path):
    vectorized = compiled(keras_gevb.vectorize(MODELS[name](), vector_dim=3, learning_rule="backprop"))
    kinds = [type(layer) for layer in vectorized.layers]
    assert kinds[kinds.index(layers.VectorReadout) + 1] is layers.OutputCode
    x, y = data(vectorized)
    vectorized.fit(x, y, verbose=0)
    vectorized.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(array(loaded(x)), array(vectorized(x)))


def test_gates_stand_for_relus_and_settings_are_kept():
    model = dense()
    model.get_layer("lower").kernel_regularizer = keras.regularizers.L2(0.1)
    vectorized = keras_gevb.vectorize(model)
    lower, drop, upper, linear, last = [x for x in vectorized.layers if type(x).__name__.startswith("Vector")]
    assert (lower.gated, upper.gated, linear.gated) == (True, True, False)
    assert (lower.constrained, upper.constrained, last.constrained) == (False, True, True)
    assert (lower.use_bias, upper.use_bias) == (True, False)
    assert float(lower.kernel_regularizer.l2) == pytest.approx(0.1)
    assert (type(drop), drop.rate) == (layers.VectorDropout, 0.25)
    assert not any(isinstance(layer, stock.ReLU) for layer in vectorized.layers)


def test_a_relu_of_a_sum_is_a_layer_of_gates():
    """m (a + b), with m = 1 where t . (a + b) >= 0: no weight of it learns."""
    vectorized = keras_gevb.vectorize(gated_sums(), seed=0)
    gates = [
        layer for layer in vectorized.layers if isinstance(layer, layers.WeightLayer) and not layer.trainable
    ]
    assert [type(layer) for layer in gates] == 2 * [layers.VectorDepthwiseConv2D] + [layers.VectorDense]
    x, _ = data(vectorized)
    for layer in gates:
        ends = keras.Model(vectorized.input, [layer.input, layer.output])
        a, found = map(array, ends(x))
        is_open = np.einsum("...ki,ki->...i", a, array(layer.gates)) >= 0
        assert 0 < is_open.mean() < 1
        np.testing.assert_allclose(found, a * is_open[..., None, :], rtol=0, atol=1e-6)


def test_windows_and_penalties_are_those_of_the_stock_layers():
    inputs = keras.Input((12,), dtype="int32")
    x = stock.Embedding(5, 6, embeddings_regularizer="l2", name="words")(inputs)
    x = stock.Conv1D(4, 3, strides=2, activation="relu", name="strides")(x)
    x = stock.Conv1D(4, 2, dilation_rate=2, activation="relu", name="gaps")(x)
    vectorized = keras_gevb.vectorize(keras.Model(inputs, stock.Dense(CLASSES)(stock.Flatten()(x))), seed=1)
    assert isinstance(vectorized.get_layer("words").kernel_regularizer, keras.regularizers.L2)
    assert vectorized.get_layer("strides").strides == (2,)
    assert vectorized.get_layer("gaps").dilation_rate == (2,)


def test_a_seed_leaves_pythons_generator_as_it_was():
    model = dense()
    state = random.getstate()
    keras_gevb.vectorize(model, seed=1)
    assert random.getstate() == state


def test_mixed_signs_are_asked_for():
    vectorized = keras_gevb.vectorize(residual(), nonnegative=False)
    places = keras_gevb.places.of(vectorized)
    assert not any(place.constrained for place in places)


def test_max_pooling_becomes_average_pooling_with_a_warning():
    model = keras.Sequential(
        [
            *(
                keras.Input((6, 6, 1)),
                stock.Conv2D(4, 3, activation="relu"),
                stock.MaxPooling2D(2, name="pool"),
            ),
            *(stock.GlobalMaxPooling2D(), stock.Dense(CLASSES)),
        ]
    )
    with pytest.warns(UserWarning, match=r"'pool' becomes average pooling. Received: MaxPooling2D"):
        vectorized = keras_gevb.vectorize(model)
    kinds = [type(layer) for layer in vectorized.layers]
    assert kinds[1:3] == [layers.VectorAveragePooling2D, layers.VectorGlobalAveragePooling2D]


def between(*hidden):
    return keras.Sequential(
        [
            *(keras.Input((8, 2)), stock.Conv1D(4, 3, activation="relu"), *hidden),
            *(stock.Flatten(), stock.Dense(CLASSES)),
        ]
    )


@pytest.mark.parametrize("form", ["functional", "chain"])
@pytest.mark.parametrize("between", [[], [stock.Dense(8, "relu")]], ids=["pooled", "of each word"])
def test_padding_changes_nothing_where_it_changes_nothing_in_the_stock_model(form, between):
    parts = [stock.Embedding(20, 6, mask_zero=True), *(type(p).from_config(p.get_config()) for p in between)]
    parts += [stock.GlobalAveragePooling1D(), stock.Dense(8, "relu"), stock.Dense(CLASSES)]
    inputs = keras.Input((None,), dtype="int32")
    model = keras.Sequential([inputs, *parts])
    if form == "functional":
        model = keras.Model(inputs, model(inputs))
    words = np.random.default_rng(0).integers(1, 20, (4, 7))
    words[:, 4:] = 0
    vectorized = keras_gevb.vectorize(model, seed=0)
    # float32: a mean over four words
    np.testing.assert_allclose(vectorized(words), vectorized(words[:, :4]), atol=1e-6)


def shared(layer):
    inputs = keras.Input((6,))
    return keras.Model(inputs, stock.Dense(CLASSES)(layer(layer(inputs))))


def subclassed():
    class Net(keras.Model):
        def call(self, x):
            return x

    return Net()


REFUSED = {
    "normalization": (lambda: between(stock.LayerNormalization(name="mine")), ["mine", "LayerN", "convert"]),
    "another activation": (
        lambda: between(stock.Conv1D(4, 1, activation="tanh", name="mine")),
        ["mine", "relu"],
    ),
    "an activation of its own": (
        lambda: between(stock.LeakyReLU(name="mine")),
        ["mine", "LeakyReLU", "relu"],
    ),
    "a ReLU of what was dropped, over one axis": (
        lambda: between(stock.Dropout(0.1), stock.ReLU(name="mine")),
        ["mine", "right behind"],
    ),
    "dropout of channels": (
        lambda: between(stock.SpatialDropout1D(0.1, name="mine")),
        ["mine", "VectorDropout"],
    ),
    "recurrence": (lambda: between(stock.LSTM(4, return_sequences=True, name="mine")), ["mine", "LSTM"]),
    "a layer of inputs and of units": (
        lambda: shared(stock.Dense(6, "relu", name="mine")),
        ["mine", "shared"],
    ),
    "no hidden layer": (
        lambda: keras.Sequential([keras.Input((4,)), stock.Dense(CLASSES, name="mine")]),
        ["mine", "hidden"],
    ),
    "another end": (lambda: keras.Sequential([keras.Input((8, 2)), stock.Conv1D(4, 3)]), ["Dense", "Conv1D"]),
    "a subclassed model": (subclassed, ["subclassed", "Net"]),
    "no weights yet": (lambda: keras.Sequential([stock.Dense(4)]), ["not built"]),
    "an odd number of units": (
        lambda: between(stock.Conv1D(3, 1, activation="relu", name="mine")),
        ["mine", "even"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_vector_network_can_have_is_refused_by_name(case):
    make, named = REFUSED[case]
    with pytest.raises(ValueError) as raised:  # noqa: PT011, the words are checked below
        keras_gevb.vectorize(make())
    for word in named:
        assert word in str(raised.value)


def test_more_numbers_than_classes_are_refused():
    with pytest.raises(ValueError, match="vector_dim=5, a model of 4 outputs"):
        keras_gevb.vectorize(dense(), vector_dim=5)


def test_a_rule_of_conventional_units_is_refused():
    with pytest.raises(ValueError, match="DFA"):
        keras_gevb.vectorize(dense(), learning_rule="dfa")


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="Keras model"):
        keras_gevb.vectorize("resnet")


def hidden(*between, **settings):
    return keras.Sequential([keras.Input((6,)), *between, stock.Dense(4, **settings)])


def test_a_slope_below_zero_has_no_vector_units():
    with pytest.raises(ValueError, match="leaky"):
        keras_gevb.vectorize(hidden(stock.Dense(8), stock.ReLU(negative_slope=0.1, name="leaky")))


def test_what_is_said_of_a_layer_goes_to_its_counterpart():
    units = stock.Dense(8, "relu", name="units", trainable=False)
    vectors = keras_gevb.vectorize(hidden(units, stock.Dropout(0.5, seed=7, name="dropped")))
    assert not vectors.get_layer("units").trainable
    assert vectors.get_layer("dropped").seed == 7


def test_the_precision_is_that_of_the_stock_model_and_of_each_layer():
    model = hidden(stock.Dense(8, "relu", dtype="mixed_float16"), dtype="mixed_float16")
    model.dtype_policy = keras.DTypePolicy("mixed_float16")
    vectors = keras_gevb.vectorize(model, vector_dim=2)
    assert vectors.dtype_policy.name == "mixed_float16"
    assert {layer.dtype_policy.name for layer in vectors.layers if layer.weights} == {"mixed_float16"}
