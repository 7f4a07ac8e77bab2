"""Exports compute the model's function where there is no keras_gevb."""

import functools
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import OF_EVERY_RANK, array
from workflows import CLASSES, MODELS, build, compiled, data, graph, outputs, start_python

import keras_gevb
from keras_gevb import export, layers, passes, zoo

SCRIPT = pathlib.Path(__file__).parent / "processes" / "served.py"
every_model = pytest.mark.parametrize("name", MODELS)


def trained(name):
    model = compiled(build(name, MODELS[name][1][0]))
    model.fit(*data(), verbose=0)
    return model


def hidden_units(model, x):
    with passes.Recording().in_force() as recording:
        model(x)
    return {r.layer.name: np.asarray(r.outputs) for r in recording.records if not r.layer.is_readout}


def test_a_process_without_keras_serves_raw_pixels_in_any_batch_size(tmp_path):
    model = trained("graph")
    folder, pixels = tmp_path / "model" / "1", data(7, seed=3)[0]
    export.to_saved_model(model, folder, input_dtype="uint8")
    np.save(tmp_path / "pixels.npy", pixels)
    outputs(start_python(SCRIPT, folder, tmp_path / "pixels.npy", tmp_path / "answers.npz"))
    answers = np.load(tmp_path / "answers.npz")
    expected = {"logits": model.predict(pixels, verbose=0), **hidden_units(model, pixels)}
    assert set(expected) == {"logits", "stem", "left", "right", "hidden"}
    assert set(answers) == {f"{name}/{size}" for name in expected for size in (1, 3, 7)}
    for name, values in expected.items():
        for size in (1, 3, 7):
            np.testing.assert_allclose(
                answers[f"{name}/{size}"], values[:size], rtol=0, atol=1e-6, err_msg=name
            )


@every_model
@pytest.mark.sampled(1)
def test_both_signatures_return_what_the_model_computes(name, tmp_path):
    model, (x, _) = trained(name), data(5, seed=3)
    export.to_saved_model(model, tmp_path, input_dtype="uint8")
    signatures = tf.saved_model.load(tmp_path).signatures
    (argument,) = signatures["serving_default"].structured_input_signature[1]
    request = {argument: tf.constant(x)}
    (logits,) = signatures["serving_default"](**request).values()
    np.testing.assert_allclose(logits, model.predict(x, verbose=0), rtol=0, atol=1e-6)
    units, expected = signatures["hidden_units"](**request), hidden_units(model, x)
    assert set(units) == set(expected)
    for layer, activity in expected.items():
        np.testing.assert_allclose(units[layer], activity, rtol=0, atol=1e-6)


def test_hidden_units_of_a_layer_called_twice_have_two_names(tmp_path):
    inputs = keras.Input((3,))
    again = layers.VectorDense(4, name="again")
    hidden = again(again(layers.VectorDense(4, vector_dim=2, name="first")(inputs)))
    model = keras_gevb.Model(inputs, layers.VectorReadout()(hidden))
    export.to_saved_model(model, tmp_path)
    outputs = tf.saved_model.load(tmp_path).signatures["hidden_units"].structured_outputs
    assert set(outputs) == {"first", "again", "again_1"}


@every_model
@pytest.mark.sampled(1)
def test_keras_export_writes_a_saved_model(name, tmp_path):
    model, (x, _) = trained(name), data(5, seed=3)
    model.export(tmp_path, verbose=False)
    served = tf.saved_model.load(tmp_path)
    logits = served.serve(x.astype("float32"))
    np.testing.assert_allclose(logits, model.predict(x, verbose=0), rtol=0, atol=1e-6)


@every_model
@pytest.mark.sampled(1)
def test_onnx_runtime_computes_the_same(name, tmp_path):
    pytest.importorskip("tf2onnx")
    runtime = pytest.importorskip("onnxruntime")
    model, (x, _) = trained(name), data(5, seed=3)
    model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (argument,) = session.get_inputs()
    for size in (1, 5):
        (logits,) = session.run(None, {argument.name: x[:size].astype("float32")})
        # Another runtime sums in another order.
        np.testing.assert_allclose(logits, model.predict(x[:size], verbose=0), rtol=0, atol=1e-5)


@every_model
@pytest.mark.sampled(1)
def test_litert_computes_the_same(name, tmp_path):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    model, (x, _) = trained(name), data(5, seed=3)
    model.export(tmp_path / "model.tflite", format="litert", verbose=False)
    runner = litert.Interpreter(str(tmp_path / "model.tflite")).get_signature_runner()
    (argument,) = runner.get_input_details()
    for size in (1, 5):
        (logits,) = runner(**{argument: x[:size].astype("float32")}).values()
        np.testing.assert_allclose(logits, model.predict(x[:size], verbose=0), rtol=0, atol=1e-5)


of_every_rank = pytest.mark.parametrize("network", OF_EVERY_RANK, ids=[n.name for n in OF_EVERY_RANK])


def outputs_here(stock, x):
    """A list of the outputs; none where TensorFlow, without oneDNN, has no depthwise strides that differ."""
    try:
        return [stock(x)]
    except tf.errors.InvalidArgumentError as error:
        if "equal length strides" not in str(error):
            raise
        return []


@of_every_rank
@pytest.mark.sampled(2)
def test_windows_of_every_rank_are_the_same_in_every_runtime(network, tmp_path):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    pytest.importorskip("tf2onnx")
    runtime = pytest.importorskip("onnxruntime")
    model = network.build()
    x, _, _ = network.batch(model)
    expected = array(model(x))
    stock = export.to_keras(model)
    assert "keras_gevb" not in stock.to_json()
    model.export(tmp_path / "model.tflite", format="litert", verbose=False)
    runner = litert.Interpreter(str(tmp_path / "model.tflite")).get_signature_runner()
    model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (name,), (given,) = runner.get_input_details(), session.get_inputs()
    for logits in (
        *outputs_here(stock, x),
        *runner(**{name: x}).values(),
        *session.run(None, {given.name: x}),
    ):
        # Sums in another order: rounding, relative to the largest logit.
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


ZOO = {
    f"{dataset}-{architecture}-{'vector' if vectorized else 'scalar'}": (dataset, architecture, vectorized)
    for dataset in ("digits", "cifar10")
    for architecture in zoo.ARCHITECTURES
    for vectorized in (True, False)
}


@pytest.mark.parametrize("row", [*MODELS, *ZOO])
@pytest.mark.sampled(4)
def test_the_stock_model_is_the_same_function(row):
    if row in MODELS:
        model = trained(row)
    else:
        dataset, architecture, vectorized = ZOO[row]
        model = zoo.build(dataset, architecture, vectorized, width=0.07)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        if variable.name == "bias":
            variable.assign(0.3 * rng.standard_normal(variable.shape))
    x = rng.uniform(0, 255, (5, *model.input_shape[1:])).astype("float32")
    stock = export.to_keras(model)
    expected = model.predict(x, verbose=0)
    # Sums in another order: rounding, relative to the largest logit.
    tolerance = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(stock.predict(x, verbose=0), expected, rtol=0, atol=tolerance)


def test_the_stock_model_has_nothing_of_ours_and_loads_anywhere(tmp_path):
    model = trained("graph")
    stock = export.to_keras(model)
    stock.save(tmp_path / "stock.keras")
    assert "keras_gevb" not in stock.to_json()
    assert {layer.name for layer in model.layers[1:]} <= {layer.name for layer in stock.layers}
    x, _ = data(5)
    loaded = keras.models.load_model(tmp_path / "stock.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=0, atol=1e-6)


def test_a_layer_without_counterpart_is_named():
    class Doubled(layers.VectorDense):
        pass

    inputs = keras.Input((3,))
    hidden = Doubled(4, vector_dim=CLASSES, name="odd_one")(inputs)
    model = keras_gevb.Model(inputs, layers.VectorReadout()(hidden))
    with pytest.raises(ValueError, match=r"'odd_one'.*model\.export.*Received: a layer of type Doubled"):
        export.to_keras(model)


@pytest.mark.parametrize("write", [export.to_keras, lambda model: export.to_saved_model(model, "unwritten")])
def test_a_model_without_weights_is_refused(write):
    with pytest.raises(ValueError, match=r"keras\.Input.*Received"):
        write(keras_gevb.Sequential([layers.VectorDense(4, vector_dim=2), layers.VectorReadout()]))


def test_the_export_follows_later_training_only_when_written_again(tmp_path):
    model = graph()
    stock = export.to_keras(model)
    x, y = data(5)
    before = stock.predict(x, verbose=0)
    compiled(model).fit(x, y, verbose=0)
    np.testing.assert_array_equal(stock.predict(x, verbose=0), before)


def with_frozen_layers():
    """Stock layers with weights of their own, which do not learn, below and between vector units."""
    inputs = keras.Input((6, 6, 2))
    frozen = keras.layers.Conv2D(2, 3, bias_initializer="normal", trainable=False, name="frozen")(inputs)
    statistics = keras.layers.BatchNormalization(epsilon=0.5, trainable=False, name="statistics")(frozen)
    below = keras.layers.Normalization(mean=0.3, variance=2.0, name="below")(statistics)
    units = layers.VectorConv2D(4, 2, vector_dim=CLASSES)(below)
    hidden = layers.VectorDense(4)(layers.VectorFlatten()(units))
    return keras_gevb.Model(inputs, layers.VectorReadout()(hidden))


def test_frozen_stock_layers_keep_their_weights_and_settings(tmp_path):
    model = with_frozen_layers()
    rng = np.random.default_rng(0)
    for name in ("frozen", "statistics"):
        layer = model.get_layer(name)
        layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    x = rng.standard_normal((5, 6, 6, 2)).astype("float32")
    expected = np.asarray(model(x))
    assert np.ptp(expected) > 0.1
    stock = export.to_keras(model)
    stock.save(tmp_path / "stock.keras")
    export.to_saved_model(model, tmp_path / "served")
    served = tf.saved_model.load(tmp_path / "served")
    for answer in (
        stock(x),
        keras.models.load_model(tmp_path / "stock.keras")(x),
        served.serve(x),
    ):
        np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-5)  # sums in another order
    assert not stock.get_layer("frozen").trainable
    shared = {id(v) for v in model.variables} & {id(v) for v in stock.variables}
    assert not shared


@pytest.mark.parametrize("vectorized", [True, False])
@pytest.mark.parametrize("architecture", ["fc", "lc"])
def test_in_a_stock_model_as_many_numbers_learn(architecture, vectorized):
    """Gates and the copies that make windows are no weights that learn."""
    model = zoo.build("digits", architecture, vectorized, width=0.25)
    stock = export.to_keras(model)
    counts = [sum(np.prod(v.shape) for v in each.trainable_variables) for each in (model, stock)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("size", "strides"), [(2, None), (3, 1), (2, 3), ((2, 3), (1, 2)), ((3, 1), (2, 2))])
@pytest.mark.parametrize("vectorized", [True, False])
def test_pools_keep_their_sizes_strides_and_paddings(vectorized, size, strides, padding):
    if vectorized:
        first, pool = layers.VectorConv2D(2, 2, vector_dim=3), layers.VectorAveragePooling2D
        last = [layers.VectorFlatten(), layers.VectorReadout()]
    else:
        first, pool = layers.Conv2D(2, 2), keras.layers.AveragePooling2D
        last = [keras.layers.Flatten(), layers.Dense(3, gated=False)]
    model = keras_gevb.Sequential(
        [keras.Input((8, 9, 2)), first, pool(size, strides, padding), *last],
        learning_rule="gevb" if vectorized else "dfa",
    )
    x = np.random.default_rng(0).standard_normal((3, 8, 9, 2)).astype("float32")
    np.testing.assert_allclose(export.to_keras(model)(x), model(x), rtol=1e-5, atol=1e-5)


def test_vectors_are_reshaped_in_the_stock_model_too():
    windows = [
        layers.VectorConv2D(4, 3, vector_dim=3),
        layers.VectorReshape((8, -1, 4)),
        layers.VectorConv2D(2, 2),
    ]
    last = [layers.VectorReshape((2, 7)), layers.VectorFlatten(), layers.VectorReadout()]
    model = keras_gevb.Sequential([keras.Input((6, 6, 1)), *windows, *last])
    x = np.random.default_rng(0).standard_normal((3, 6, 6, 1)).astype("float32")
    np.testing.assert_allclose(export.to_keras(model)(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("strides", [1, (2, 1)])
@pytest.mark.parametrize("kind", ["Conv2D", "LocallyConnected2D"])
@pytest.mark.parametrize("vectorized", [True, False])
def test_windows_and_biases_are_kept(vectorized, kind, strides, padding, use_bias):
    layer = getattr(layers, ("Vector" if vectorized else "") + kind)
    settings = {"strides": strides, "padding": padding, "use_bias": use_bias, "bias_initializer": "normal"}
    last = layers.VectorReadout if vectorized else functools.partial(layers.Dense, 3, gated=False)
    flatten = layers.VectorFlatten if vectorized else keras.layers.Flatten
    first = {"vector_dim": 3} if vectorized else {}
    model = keras_gevb.Sequential(
        [
            *(keras.Input((6, 7, 2)), layer(4, (3, 2), **settings, **first), layer(2, 2, **settings)),
            *(flatten(), last(use_bias=use_bias, bias_initializer="normal")),
        ],
        learning_rule="backprop",
    )
    x = np.random.default_rng(0).standard_normal((3, 6, 7, 2)).astype("float32")
    np.testing.assert_allclose(export.to_keras(model)(x), model(x), rtol=1e-5, atol=1e-5)


def test_a_unit_at_its_gates_edge_is_open_in_the_stock_model_too():
    """t . h = 1 - 1 = 0: the unit passes h."""
    inputs = keras.Input((2,))
    first = layers.VectorDense(2, vector_dim=2, use_bias=False, name="first")
    model = keras_gevb.Model(inputs, layers.VectorReadout(use_bias=False)(first(inputs)))
    first.kernel.assign(np.eye(2)[..., None] * np.ones(2))  # h_ik = x_k
    first.gates.assign([[1, -1], [1, -1]])
    model.layers[-1].kernel.assign([[1.0], [0.5]])
    x = np.array([[3.0, -3.0], [2.0, -1.0], [-2.0, 1.0]], "float32")
    # The first unit is open on the first and the second, the other one on the first and the third.
    expected = [[4.5, -4.5], [2.0, -1.0], [-1.0, 0.5]]
    np.testing.assert_array_equal(model(x), expected)
    np.testing.assert_array_equal(export.to_keras(model)(x), expected)


def test_served_units_and_logits_are_those_of_inference(tmp_path):
    """Dropout drops nothing, and batches are normalized by moving statistics."""
    inputs = keras.Input((6,))
    below = keras.layers.BatchNormalization(trainable=False)(keras.layers.Dropout(0.5)(inputs))
    first = layers.VectorDense(8, vector_dim=CLASSES, name="first")(below)
    units = keras.layers.SpatialDropout1D(0.5)(first)
    hidden = layers.VectorDense(4, name="second")(units)
    model = keras_gevb.Model(inputs, layers.VectorReadout()(hidden))
    export.to_saved_model(model, tmp_path)
    served = tf.saved_model.load(tmp_path)
    x = np.random.default_rng(0).standard_normal((5, 6)).astype("float32")
    inference = keras.Model(inputs, {"first": first, "second": hidden})(x, training=False)
    for _ in range(2):
        np.testing.assert_allclose(served.serve(x), model(x, training=False), rtol=0, atol=1e-6)
        (argument,) = served.signatures["hidden_units"].structured_input_signature[1]
        units = served.signatures["hidden_units"](**{argument: tf.constant(x)})
        for name, activity in inference.items():
            np.testing.assert_allclose(units[name], activity, rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", ["float64", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ["sequential", "graph", "scalar_graph"])
@pytest.mark.sampled(3)
def test_the_stock_model_has_the_precision_of_the_model(name, precision):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        model = build(name, MODELS[name][1][0])
    finally:
        keras.config.set_dtype_policy(before)
    stock = export.to_keras(model)
    x, _ = data(5)
    expected, found = model(x), stock(x)
    assert found.dtype == expected.dtype
    assert {v.dtype for v in stock.trainable_variables} == {v.dtype for v in model.trainable_variables}
    # Sums in another order, in each precision.
    tolerance = {"float64": 1e-12, "mixed_bfloat16": 0.1}[precision]
    expected, found = (np.asarray(v).astype("float64") for v in (expected, found))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max()))


def test_a_causal_window_with_gaps_has_a_stock_model():
    """Padded by hand, since stock Keras convolves two axes where there are vectors."""
    hidden = (
        layers.VectorConv1D(4, 2, vector_dim=3),
        layers.VectorConv1D(4, 3, padding="causal", dilation_rate=2),
    )
    ends = layers.VectorFlatten(), layers.VectorReadout()
    model = keras_gevb.Sequential([keras.Input((8, 2)), *hidden, *ends])
    x = np.random.default_rng(0).standard_normal((2, 8, 2)).astype("float32")
    np.testing.assert_allclose(array(export.to_keras(model)(x)), array(model(x)), atol=1e-5)  # float32
