"""Bad input gets a clear error, early: what was received, and what to do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_gevb
from keras_gevb import datasets, layers, rules, zoo

K = 4
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def x(samples=8, features=6):
    return np.random.default_rng(0).normal(size=(samples, features)).astype("float32")


def y(samples=8):
    return np.arange(samples) % K


def network(*hidden, readout=True, **kwargs):
    first = [keras.Input((6,)), layers.VectorDense(8, vector_dim=K, name="first")]
    last = [layers.VectorReadout(name="readout")] if readout else []
    return keras_gevb.Sequential([*first, *hidden, *last], **kwargs)


def fit(model, labels=None, loss=SPARSE, inputs=None, **kwargs):
    model.compile(keras.optimizers.SGD(0.1), loss)
    labels = y() if labels is None else labels
    return model.fit(x() if inputs is None else inputs, labels, verbose=0, **kwargs)


# A layer is built on a shape: what is wrong, and words that the message must hold.
BUILDS = {
    "scalar input without vector_dim": (
        lambda: layers.VectorDense(8, name="units").build((None, 6)),
        ["units", "(None, 6)", "vector_dim", "VectorFlatten"],
    ),
    "scalar images without vector_dim": (
        lambda: layers.VectorConv2D(8, 3, name="units").build((None, 9, 9, 3)),
        ["units", "(None, 9, 9, 3)", "vector_dim"],
    ),
    "vector_dim on vector input": (
        lambda: layers.VectorDense(8, vector_dim=K, name="units").build((None, K, 6)),
        ["units", f"vector_dim={K}", "leave it out"],
    ),
    "vector images to a dense layer": (
        lambda: layers.VectorDense(8, name="units").build((None, 5, 5, K, 6)),
        ["units", "rank 5", "VectorFlatten()"],
    ),
    "scalar images to a dense layer": (
        lambda: layers.VectorDense(8, vector_dim=K, name="units").build((None, 5, 5, 2)),
        ["units", "rank 4", " Flatten()"],
    ),
    "an odd number of units in ON/OFF pairs": (
        lambda: layers.VectorDense(7, name="units").build((None, K, 6)),
        ["units", "7", "even", "8", "nonnegative=False"],
    ),
    "an odd number of mirrored units": (
        lambda: layers.VectorDense(7, vector_dim=K, name="units").build((None, 6)),
        ["units", "7", "even"],
    ),
    "an odd number of inputs to ON/OFF pairs": (
        lambda: layers.VectorConv2D(8, 3, name="units").build((None, 9, 9, K, 5)),
        ["units", "5 input channels", "even"],
    ),
    "an activity regularizer": (
        lambda: layers.VectorDense(8, activity_regularizer="l2", name="units"),
        ["units", "activity", "kernel_regularizer"],
    ),
    "no units": (lambda: layers.VectorDense(0, name="units"), ["units", "positive", "0"]),
    "a fraction of units": (lambda: layers.VectorDense(2.5, name="units"), ["positive", "2.5"]),
    "a wrong window": (lambda: layers.VectorConv2D(8, (3, 3, 3), name="units"), ["kernel_size", "(3, 3, 3)"]),
    "a wrong padding": (
        lambda: layers.VectorConv2D(8, 3, padding="full", name="units"),
        ["padding", "full", "same"],
    ),
    "causal windows in two dimensions": (
        lambda: layers.VectorConv2D(8, 3, padding="causal", name="units"),
        ["units", "padding", "causal", "same"],
    ),
    "strides and dilation": (
        lambda: layers.VectorConv1D(8, 3, strides=2, dilation_rate=2, name="units"),
        ["units", "strides=(2,)", "dilation_rate=(2,)"],
    ),
    "a fraction of a group's filters": (
        lambda: layers.VectorConv2D(8, 3, groups=3, name="units"),
        ["units", "8 filters", "groups=3"],
    ),
    "a fraction of a group's channels": (
        lambda: layers.Conv3D(8, 3, groups=2, name="units").build((None, 9, 9, 9, 3)),
        ["units", "3 input channels", "groups=2"],
    ),
    "an odd number of a group's units in ON/OFF pairs": (
        lambda: layers.VectorConv1D(6, 3, groups=2, name="units").build((None, 9, K, 8)),
        ["units of a group", "3", "even", "nonnegative=False"],
    ),
    "a space of unknown size, channel by channel": (
        lambda: layers.DepthwiseConv2D(3, name="units").build((None, None, 9, 2)),
        ["units", "None", "size"],
    ),
    "no tokens": (lambda: layers.VectorEmbedding(0, 8, K, name="units"), ["units", "input_dim", "0"]),
    "an embedding of no vectors": (
        lambda: layers.VectorEmbedding(9, 8, None, name="units"),
        ["units", "vector_dim", "None"],
    ),
    "dropout of everything": (lambda: layers.VectorDropout(1.0, name="units"), ["units", "rate", "1.0"]),
    "a window larger than the image": (
        lambda: layers.VectorLocallyConnected2D(8, 5, vector_dim=K, name="units").build((None, 3, 3, 2)),
        ["units", "kernel_size", "(5, 5)", "(3, 3)"],
    ),
    "a space of unknown size under local connection": (
        lambda: layers.VectorLocallyConnected2D(8, 3, vector_dim=K, name="units").build((None, None, 9, 2)),
        ["units", "None", "size"],
    ),
    "an unknown rule": (lambda: rules.get("hebb"), ["hebb", "backprop", "gevb", "dfa", "fa"]),
    "a rule of another kind": (lambda: network(learning_rule=3), ["3", "gevb"]),
    "an unknown data set": (lambda: datasets.load("imagenet"), ["imagenet", "cifar10"]),
    "an unknown network": (lambda: zoo.build("mnist", "transformer"), ["transformer", "conv"]),
    "a network for unknown data": (lambda: zoo.build("imagenet", "fc"), ["imagenet", "digits"]),
}


@pytest.mark.parametrize("case", BUILDS)
def test_a_wrong_argument_is_named_with_what_to_do(case):
    build, words = BUILDS[case]
    with pytest.raises(ValueError) as raised:  # noqa: PT011, the words are checked below
        build()
    for word in words:
        assert word in str(raised.value)


def conventional(rule):
    stack = [keras.Input((6,)), layers.Dense(8, name="hidden"), layers.Dense(K, gated=False)]
    return keras_gevb.Sequential(stack, learning_rule=rule)


def two_readouts():
    inputs = keras.Input((6,))
    units = layers.VectorDense(8, vector_dim=K)(inputs)
    outputs = [layers.VectorReadout(name=name)(units) for name in ("one", "two")]
    return keras_gevb.Model(inputs, keras.layers.Add()(outputs))


def mixed_units():
    inputs = keras.Input((6,))
    scalar = layers.Dense(8, name="scalar")(inputs)
    units = layers.VectorDense(8, vector_dim=K, name="vector")(scalar)
    return keras_gevb.Model(inputs, layers.VectorReadout()(units))


# Layers that bend the activity of vector units, or treat their components differently.
BETWEEN = [
    keras.layers.ReLU(name="bend"),
    keras.layers.Activation("tanh", name="bend"),
    keras.layers.Softmax(name="bend"),
    keras.layers.LayerNormalization(center=False, scale=False, name="bend"),
    keras.layers.MaxPooling1D(2, padding="same", name="bend"),
    keras.layers.Dropout(0.5, name="bend"),
]


def two_inputs(layer):
    inputs = [keras.Input((6,), name=name) for name in ("one", "two")]
    left, right = (layers.VectorDense(8, vector_dim=K)(each) for each in inputs)
    return keras_gevb.Model(inputs, layers.VectorReadout()(keras.layers.Add()([left, layer(right)])))


def image_and_vector(layer):
    image, vector = keras.Input((4, 4, 1)), keras.Input((6,))
    left = layers.VectorFlatten()(layers.VectorConv2D(2, 3, vector_dim=K)(image))
    right = layer(layers.VectorDense(8, vector_dim=K)(vector))
    return keras_gevb.Model([image, vector], layers.VectorReadout()(keras.layers.Add()([left, right])))


def in_a_nested_model(layer):
    body = keras.Sequential([keras.Input((K, 8)), layer, layers.VectorDense(4)])
    return network(body)


BRANCHES = {"two inputs": two_inputs, "an image": image_and_vector, "a nested model": in_a_nested_model}
INPUTS = {
    "two inputs": [x(), x()],
    "an image": [np.ones((8, 4, 4, 1), "float32"), x()],
    "a nested model": x(),
}


@pytest.mark.parametrize("name", BRANCHES)
@pytest.mark.sampled(1)
def test_a_linear_layer_in_a_branch_is_no_error(name):
    linear = keras.layers.Rescaling(0.5)
    assert np.isfinite(fit(BRANCHES[name](linear), inputs=INPUTS[name]).history["loss"][0])


class Scaled(keras.layers.Layer):
    """A layer with a weight beside that of its own layer."""

    def build(self, input_shape):
        self.dense = layers.VectorDense(8)
        self.dense.build(input_shape)
        self.scale = self.add_weight(name="scale", initializer="ones")

    def call(self, inputs):
        return self.scale * self.dense(inputs)


class OfItsOwn(keras_gevb.Model):
    """A model with a weight beside those of its layers."""

    def __init__(self):
        super().__init__()
        self.body = [layers.VectorDense(4, vector_dim=K), layers.VectorReadout()]
        self.scale = self.add_weight(name="scale", initializer="ones")

    def call(self, inputs):
        first, last = self.body
        return self.scale * last(first(inputs))


def decided():
    inputs = keras.Input((6,))
    logits = layers.VectorReadout()(layers.VectorDense(4, vector_dim=K)(inputs))
    return keras_gevb.Model(inputs, keras.ops.one_hot(keras.ops.argmax(logits, axis=-1), K))


# A fit is started: what is wrong, and words that the message must hold.
FITS = {
    "a trainable layer that no rule updates": (
        lambda: fit(network(keras.layers.Dense(8, name="stock"))),
        ["stock", "vector units or conventional ones", "trainable"],
    ),
    "no readout": (lambda: fit(network(readout=False)), ["VectorReadout", "first"]),
    "no readout of conventional units": (
        lambda: fit(keras_gevb.Sequential([keras.Input((6,)), layers.Dense(8)], learning_rule="backprop")),
        ["Dense(number_of_outputs, gated=False)"],
    ),
    "two readouts": (lambda: fit(two_readouts()), ["one", "two", "2 readouts"]),
    "a loss on probabilities": (
        lambda: fit(network(), loss=keras.losses.SparseCategoricalCrossentropy()),
        ["from_logits=True", "SparseCategoricalCrossentropy"],
    ),
    "a loss on probabilities, by name": (
        lambda: fit(network(), loss="sparse_categorical_crossentropy"),
        ["from_logits=True"],
    ),
    "one-hot targets of another width": (
        lambda: fit(network(), np.eye(3)[y() % 3], keras.losses.CategoricalCrossentropy(from_logits=True)),
        [f"K={K} outputs", "3 outputs, by the units of its last layer, or vector_dim"],
    ),
    "a loss of the targets alone": (
        lambda: fit(network(), loss=lambda truth, outputs: keras.ops.mean(keras.ops.cast(truth, "float32"))),
        ["error vector", "none", "model's outputs"],
    ),
    "GEVB on conventional units": (lambda: fit(conventional("gevb")), ["GEVB", "hidden", "vector units"]),
    "DFA on vector units": (
        lambda: fit(network(learning_rule="dfa")),
        ["DFA", "first", "conventional units"],
    ),
    "vector and conventional units": (lambda: fit(mixed_units()), ["scalar", "vector", "not both"]),
    "an activity regularizer on a stock layer": (
        lambda: fit(network(keras.layers.Activation("linear", activity_regularizer="l2", name="act"))),
        ["act", "activity regularizer"],
    ),
    **{
        f"{type(layer).__name__} between vector units": (
            lambda layer=layer: fit(network(layer, layers.VectorDense(4))),
            [layer.name, "linear", "VectorDropout"],
        )
        for layer in BETWEEN
    },
    **{
        f"{layer.name} in a branch, behind {name}": (
            lambda make=make, layer=layer, name=name: fit(
                make(type(layer).from_config(layer.get_config())), inputs=INPUTS[name]
            ),
            [layer.name, "linear"],
        )
        for name, make in BRANCHES.items()
        for layer in BETWEEN[:2]
    },
    "a trainable stock layer in a nested model": (
        lambda: fit(in_a_nested_model(keras.layers.Dense(8, name="stock"))),
        ["stock", "vector units or conventional ones", "trainable"],
    ),
    "outputs that no weight moves": (
        lambda: fit(decided()),
        ["error vector", "depend on none by a derivative"],
    ),
    "a layer's weight beside those of its layers": (
        lambda: fit(network(Scaled(name="scaled"))),
        ["scaled", "beside", "['scale']", "trainable=False"],
    ),
    "one in a nested model": (
        lambda: fit(in_a_nested_model(Scaled(name="scaled"))),
        ["scaled", "beside", "['scale']", "trainable=False"],
    ),
    "a model's weight beside those of its layers": (
        lambda: fit(OfItsOwn()),
        ["of_its_own", "beside", "['scale']", "trainable=False"],
    ),
    "an activity regularizer in a nested model": (
        lambda: fit(
            in_a_nested_model(keras.layers.Activation("linear", activity_regularizer="l2", name="act"))
        ),
        ["act", "activity regularizer"],
    ),
}


@pytest.mark.parametrize("case", FITS)
def test_a_network_that_no_rule_can_train_is_refused_before_training(case):
    start, words = FITS[case]
    with pytest.raises(ValueError) as raised:  # noqa: PT011, the words are checked below
        start()
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("label", [K, 97, -1])
@pytest.mark.parametrize("feed", ["arrays", "dataset"])
@pytest.mark.parametrize("jit_compile", ["auto", True])
def test_a_label_outside_the_outputs_stops_fit_before_any_weight_changes(label, feed, jit_compile):
    model = network()
    model.compile(keras.optimizers.SGD(0.1), SPARSE, jit_compile=jit_compile)
    labels = y()
    labels[5] = label
    before = [np.array(w) for w in model.weights]
    data = (
        (x(), labels) if feed == "arrays" else (tf.data.Dataset.from_tensor_slices((x(), labels)).batch(8),)
    )
    with pytest.raises(Exception, match=rf"from 0 to {K - 1}.*K={K}.*{label}") as raised:
        model.fit(*data, verbose=0)
    assert type(raised.value) is ValueError
    for old, new in zip(before, model.weights):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("ignored", [-1, 2, 255])
@pytest.mark.sampled(1)
def test_an_ignored_class_is_no_bad_label_and_teaches_nothing(ignored):
    labels = y()
    labels[3] = ignored
    counted = labels != ignored
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=ignored)
    model, other = network(), network()
    other.set_weights(model.get_weights())
    # The mean over the samples that count: of those alone.
    expected = fit(other, labels[counted], inputs=x()[counted], batch_size=8).history["loss"]
    np.testing.assert_allclose(fit(model, labels, loss, batch_size=8).history["loss"], expected, rtol=1e-5)
    for mine, theirs in zip(model.get_weights(), other.get_weights()):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)  # one float32 step


@pytest.mark.parametrize("label", [K, -2, 17])
@pytest.mark.sampled(2)
def test_a_bad_label_is_one_beside_an_ignored_class_too(label):
    labels = y() % 3
    labels[3], labels[5] = -1, label
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    with pytest.raises(Exception, match=f"Labels must be integers from 0 to {K - 1}"):
        fit(network(), labels, loss)


def test_nan_in_the_inputs_reaches_the_loss_so_that_terminate_on_nan_stops():
    inputs = x()
    inputs[2, 3] = np.nan
    history = fit(
        network(layers.VectorDense(8)),
        inputs=inputs,
        epochs=5,
        callbacks=[keras.callbacks.TerminateOnNaN()],
    )
    assert len(history.history["loss"]) == 1
    assert np.isnan(history.history["loss"][0])


def test_an_empty_dataset_is_an_error():
    with pytest.raises(ValueError, match=r"(?i)empty|no data|0 samples"):
        fit(network(), inputs=x(0), labels=y(0))


def test_weights_below_zero_loaded_into_a_nonnegative_layer_warn(tmp_path):
    mixed = network(layers.VectorDense(8, nonnegative=False, name="hidden"))
    path = str(tmp_path / "mixed.weights.h5")
    mixed.save_weights(path)
    with pytest.warns(UserWarning, match=r"hidden.*below 0.*nonnegative=False"):
        network(layers.VectorDense(8, name="hidden")).load_weights(path)


def test_updates_without_compile_say_what_to_do():
    with pytest.raises(ValueError, match=r"compile"):
        network().compute_updates(x(), y())


def test_a_data_set_that_is_nowhere_says_where_to_put_it(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def refuse(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(tfds, "load", refuse)
    with pytest.raises(RuntimeError, match=r"mnist.*TFDS_DATA_DIR") as raised:
        datasets.load("mnist", data_dir=tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert "no network" in str(raised.value)


@pytest.mark.parametrize(
    ("folder", "downloads", "advice"),
    [("incomplete.NXM7I2_3.0.1", True, "Connect to the network"), ("3.0.1", False, "Delete")],
)
def test_only_what_an_interrupted_download_left_is_downloaded_again(
    folder, downloads, advice, tmp_path, monkeypatch
):
    import tensorflow_datasets as tfds

    asked = []

    def load(*args, download, **kwargs):
        asked.append(download)
        raise OSError("no")

    (tmp_path / "mnist" / folder).mkdir(parents=True)
    monkeypatch.setattr(tfds, "load", load)
    with pytest.raises(RuntimeError, match=advice):
        datasets.load("mnist", data_dir=tmp_path)
    assert asked == [downloads]


def test_a_model_built_by_its_first_batch_takes_the_same_updates():
    stack = [layers.VectorDense(8, vector_dim=K), layers.VectorReadout()]
    late, early = keras_gevb.Sequential(stack), keras_gevb.Sequential([keras.Input((6,)), *stack])
    for model in (late, early):
        model.compile(keras.optimizers.SGD(0.1), SPARSE)
    for ours, theirs in zip(late.compute_updates(x(), y()), early.compute_updates(x(), y())):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("vectorized", [True, False])
@pytest.mark.sampled(1)
def test_an_index_beyond_an_embeddings_rows_is_an_error_as_in_stock_keras(vectorized):
    """At the defaults, by which a network without embeddings is compiled by XLA, which takes another row."""
    tokens = np.random.default_rng(0).integers(0, 10, (16, 4))
    tokens[3, 2] = 10
    if vectorized:
        stack = [layers.VectorEmbedding(10, 8, vector_dim=K), layers.VectorGlobalAveragePooling1D()]
        models = [keras_gevb.Sequential([*stack, layers.VectorReadout()])]
    else:

        def stack():
            mean = keras.layers.GlobalAveragePooling1D()
            return [keras.layers.Embedding(10, 8), mean, keras.layers.Dense(K)]

        models = [keras.Sequential(stack()), keras_gevb.Sequential(stack(), learning_rule="backprop")]
    for model in models:
        model.compile(keras.optimizers.SGD(0.1), SPARSE)
        for run in (model.fit, model.evaluate):
            with pytest.raises(tf.errors.InvalidArgumentError, match="is not in"):
                run(tokens, y(16), batch_size=8, verbose=0)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", ["VectorAveragePooling", "VectorGlobalAveragePooling"])
def test_channels_come_last(name, rank):
    make = getattr(layers, f"{name}{rank}D")
    sizes = () if "Global" in name else (2,)
    with pytest.raises(ValueError, match=f"{name}{rank}D.*data_format='channels_last'.*'channels_first'"):
        make(*sizes, data_format="channels_first")


def test_several_open_extents_have_no_stock_model():
    stack = [layers.VectorConv2D(8, 3, vector_dim=3, name="windows"), layers.VectorGlobalAveragePooling2D()]
    model = keras_gevb.Sequential([keras.Input((None, None, 1)), *stack, layers.VectorReadout()])
    with pytest.raises(ValueError, match=r"'windows'.*known size.*\(None, None, 3, 8\)"):
        keras_gevb.export.to_keras(model)


def test_diagnostics_of_a_stock_model_say_how_to_convert_it():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(K)])
    model.compile("sgd", SPARSE)
    from keras_gevb import diagnostics

    for look in (
        diagnostics.audit,
        diagnostics.certify,
        diagnostics.alignment_angles,
        diagnostics.sign_agreement,
    ):
        with pytest.raises(ValueError, match=r"keras_gevb.convert.*Received: model of type Sequential"):
            look(model, x(), y())


def test_an_eager_step_says_which_label_is_wrong():
    model = network()
    model.compile(keras.optimizers.SGD(0.1), SPARSE, run_eagerly=True)
    for label in (7, float("nan")):
        with pytest.raises(ValueError, match=f"^Labels must be integers from 0 to {K - 1}.* {label}$"):
            model.train_on_batch(x(), np.full(8, label))


def test_what_is_no_model_and_no_state_is_named(tmp_path):
    from keras_gevb import diagnostics, export

    for write in (export.to_keras, lambda m: export.to_saved_model(m, tmp_path)):
        with pytest.raises(ValueError, match="Received: None"):
            write(None)
    with pytest.raises(ValueError, match="Received: None"):
        export.load_state(network(), None)
    for look in (diagnostics.zero_weights, lambda m: diagnostics.dead_units(m, x())):
        with pytest.raises(ValueError, match="Received: model of type NoneType"):
            look(None)


def test_numbers_of_numpy_are_numbers():
    assert rules.KP(decay=np.float32(0.5)).get_config()["decay"] == 0.5
    assert type(rules.NodePerturbation(samples=np.int64(4)).samples) is int
