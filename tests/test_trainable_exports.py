"""An exported step is the step of training, in TensorFlow without Keras, in LiteRT and in ONNX Runtime."""

import itertools
import pathlib
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from processes.learner import RUNTIMES
from workflows import CLASSES, IMAGE, compiled, data, graph, outputs, sequential, start_python

import keras_gevb
from keras_gevb import datasets, export, layers, zoo

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

SCRIPT = pathlib.Path(__file__).parent / "processes" / "learner.py"
BATCH = 6
every_runtime = pytest.mark.parametrize("kind", RUNTIMES)


def written(kind, model, folder, **settings):
    """The exported model's file, which has operations of the standard only."""
    if kind == "saved_model":
        export.to_trainable_saved_model(model, folder / kind)
        return folder / kind
    file = folder / f"step.{kind}"
    function = {"litert": export.to_trainable_litert, "onnx": export.to_trainable_onnx}[kind]
    function(model, file, settings.pop("batch_size", BATCH), **settings)
    {"litert": assert_litert, "onnx": assert_onnx}[kind](file)
    return file


def assert_onnx(file):
    proto = onnx.load(file)
    assert [opset.domain for opset in proto.opset_import] == [""]
    nodes = list(proto.graph.node)
    for node in nodes:  # which grows
        nodes += itertools.chain.from_iterable(a.g.node for a in node.attribute)
    assert len(nodes) > 50
    assert {node.domain for node in nodes} == {""}


def assert_litert(file):
    from tensorflow.lite.python import schema_py_generated as schema

    codes = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(file.read_bytes(), 0)).operatorCodes
    assert len(codes) > 10
    assert schema.BuiltinOperator.CUSTOM not in {code.builtinCode for code in codes}
    assert all(code.customCode is None for code in codes)


def batches(steps, seed=0, classes=CLASSES):
    """Batches of x, y and weights of samples."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 255, (steps, BATCH, *IMAGE)).astype("float32")
    y = rng.integers(0, classes, (steps, BATCH)).astype("int32")
    return x, y, rng.uniform(0.3, 2, (steps, BATCH)).astype("float32")


def weights(model):
    return {name: np.asarray(v.value).copy() for name, v in export.trainable.named_variables(model).items()}


def assert_same_change(state, model, before, tolerance=1e-5):
    """The state is the model's up to a part of the largest change of a weight."""
    after = weights(model)
    assert set(state) == set(after)
    names = [name for name in after if not name.startswith("optimizer")]
    largest = max(np.abs(after[name] - before[name]).max() for name in names)
    assert largest > 1e-3
    for name in names:
        np.testing.assert_allclose(state[name], after[name], rtol=0, atol=tolerance * largest, err_msg=name)


def small(depth=2, learning_rule="gevb"):
    first, *hidden = (layers.VectorDense(4, vector_dim=None if n else CLASSES) for n in range(depth))
    return keras_gevb.Sequential(
        [keras.Input((3,)), first, *hidden, layers.VectorReadout()], learning_rule=learning_rule
    )


def off_the_edge(model):
    """Give no unit gates of one sign.

    The components of e sum to 0, and so do changes of biases and of first kernels: where t = 1, t . h = 0 is
    decided by rounding, and two right runs part.
    """
    for layer in model.layers:
        if getattr(layer, "vectorized", False) and layer.gated:
            components, units = layer.gates.shape
            one = np.arange(components)[:, None] == np.arange(units) % components
            layer.gates.assign(np.where(one, 1.0, -1.0))


def conv(learning_rule="gevb"):
    inputs = keras.Input(IMAGE)
    pixels = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    units = layers.VectorConv2D(4, 3, strides=2, padding="same", vector_dim=CLASSES)(pixels)
    units = layers.VectorConv2D(4, 2)(units)
    return keras_gevb.Model(
        inputs, layers.VectorReadout()(layers.VectorFlatten()(units)), learning_rule=learning_rule
    )


def conventional(learning_rule="dfa"):
    inputs = keras.Input(IMAGE)
    units = layers.Conv2D(4, 3, padding="same")(
        keras.layers.Normalization(mean=128.0, variance=5000.0)(inputs)
    )
    units = layers.LocallyConnected2D(4, 3)(keras.layers.MaxPooling2D(2)(units))
    return keras_gevb.Model(
        inputs,
        layers.Dense(CLASSES, gated=False)(keras.layers.Flatten()(units)),
        learning_rule=learning_rule,
    )


def residual(learning_rule="gevb"):
    """A convolution and a local connection around each of which their inputs pass."""
    inputs = keras.Input(IMAGE)
    pixels = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    stem = layers.VectorConv2D(2, 3, strides=2, padding="same", vector_dim=CLASSES)(pixels)
    units = keras.layers.Add()([stem, layers.VectorConv2D(2, 3, padding="same")(stem)])
    units = keras.layers.Add()([units, layers.VectorLocallyConnected2D(2, 3, padding="same")(units)])
    units = layers.VectorFlatten()(layers.VectorAveragePooling2D(3)(units))
    return keras_gevb.Model(inputs, layers.VectorReadout()(units), learning_rule=learning_rule)


ROWS = {
    "fc-adam": (sequential, lambda: keras.optimizers.Adam(0.01)),
    "conv-momentum": (conv, lambda: keras.optimizers.SGD(0.1, momentum=0.9)),
    "residual-sgd": (residual, lambda: keras.optimizers.SGD(0.1)),
    "residual-backprop": (lambda: residual("backprop"), lambda: keras.optimizers.SGD(0.1)),
    "dfa-schedule": (
        conventional,
        lambda: keras.optimizers.AdamW(keras.optimizers.schedules.ExponentialDecay(0.01, 3, 0.5)),
    ),
    "low-memory": (
        lambda: sequential(keras_gevb.rules.GEVB(low_memory=True)),
        lambda: keras.optimizers.RMSprop(0.01),
    ),
}
PAIRS = [
    *(("saved_model", row) for row in ("fc-adam", "conv-momentum", "residual-sgd")),
    *(("onnx", row) for row in ROWS),
    *(("litert", row) for row in ROWS if row != "residual-backprop"),
]


@pytest.mark.parametrize(("kind", "row"), PAIRS)
@pytest.mark.sampled(4)
def test_ten_steps_of_weighted_samples_are_ten_steps_of_training(row, kind, tmp_path):
    make, optimizer = ROWS[row]
    assert_ten_steps(kind, compiled(make(), optimizer()), tmp_path)


@pytest.mark.long
def test_a_step_whose_large_tensors_go_row_by_row_is_a_step_of_training(tmp_path, monkeypatch):
    monkeypatch.setattr(export.rows, "LARGE", 1)
    monkeypatch.setattr(export.rows, "ROW", 1)
    model = compiled(sequential(), keras.optimizers.AdamW(0.01, global_clipnorm=1.0))
    assert_ten_steps("onnx", model, tmp_path)
    graph = onnx.load(tmp_path / "step.onnx").graph
    (step,) = (a.g for node in graph.node for a in node.attribute if a.name == "then_branch")
    assert "Scan" in {node.op_type for node in step.node}


def assert_ten_steps(kind, model, tmp_path):
    off_the_edge(model)
    learner = RUNTIMES[kind](written(kind, model, tmp_path))
    before = weights(model)
    for x, y, sample_weight in zip(*batches(10)):
        found = learner.train(x, y, sample_weight)
        loss = model.train_on_batch(x, y, sample_weight)
        np.testing.assert_allclose(found["loss"], loss, rtol=1e-5)  # float32, summed in another order
    assert_same_change(learner.get_state(), model, before)


@every_runtime
@pytest.mark.long
def test_processes_without_keras_go_on_from_each_others_state_and_keras_from_theirs(kind, tmp_path):
    """LiteRT and ONNX Runtime without TensorFlow too; a process that ends between steps loses nothing."""
    model = compiled(sequential(), keras.optimizers.Adam(0.01))
    file, before = written(kind, model, tmp_path), weights(model)
    x, y, weight = batches(6)
    state = ""
    for n in range(2):
        part, after = tmp_path / f"batches{n}.npz", tmp_path / f"state{n}.npz"
        np.savez(
            part, **{k: v[2 * n : 2 * n + 2] for k, v in zip(("x", "y", "sample_weight"), (x, y, weight))}
        )
        outputs(start_python(SCRIPT, kind, file, part, state, after))
        state = after
    copy = compiled(sequential(), keras.optimizers.Adam(0.01))
    found = dict(np.load(state))
    np.testing.assert_array_equal(found.pop("loss").shape, (2,))
    copy.training_state()
    # A copy has other names of layers, as one that was loaded from the file has not.
    names = dict(zip(weights(model), export.trainable.named_variables(copy), strict=True))
    export.load_state(copy, {names[name]: value for name, value in found.items()})
    for batch in zip(x[:4], y[:4], weight[:4]):
        model.train_on_batch(*batch)
    assert_same_change(found, model, before, tolerance=1e-5)
    for n in (4, 5):
        model.train_on_batch(x[n], y[n], weight[n])
        copy.train_on_batch(x[n], y[n], weight[n])
    assert_same_change(dict(zip(weights(model), weights(copy).values())), model, before)
    assert int(copy.optimizer.iterations) == 6


@pytest.mark.parametrize("kind", ["litert", "onnx"])
@pytest.mark.sampled(1)
def test_a_state_that_is_taken_out_and_put_in_goes_on_as_if_nothing_had_been(kind, tmp_path):
    model = compiled(small(), keras.optimizers.Adam(0.01))
    file = written(kind, model, tmp_path)
    whole, first, second = (RUNTIMES[kind](file) for _ in range(3))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, BATCH, 3)).astype("float32"), rng.integers(0, CLASSES, (4, BATCH), "int32")
    for n in range(4):
        whole.train(x[n], y[n])
        (first if n < 2 else second).train(x[n], y[n])
        if n == 1:
            second.set_state(first.get_state())
            for name, value in second.get_state().items():
                np.testing.assert_array_equal(value, first.get_state()[name], err_msg=name)
    expected = whole.get_state()
    for name, value in second.get_state().items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-6, err_msg=name)

    def of_another_model():
        second.set_state({**expected, "nonsense": np.zeros(3, "float32")})
        second.train(x[0], y[0])

    with pytest.raises(Exception, match=r"nonsense|number of inputs"):
        of_another_model()


@pytest.fixture(scope="module")
def fresh_digits():
    """A digits network that has not learned, and what Keras's ten epochs make of it."""
    keras.utils.set_random_seed(0)
    model = zoo.build("digits", "fc", width=0.5)
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.training_state()
    start = weights(model)
    (x, y), test = datasets.load("digits")
    x, y, batch = x[:1408].astype("float32"), y[:1408].astype("int32"), 32
    model.fit(x, y, batch_size=batch, epochs=10, shuffle=False, verbose=0)
    accuracy = model.evaluate(*test, verbose=0)[1]
    export.load_state(model, start)
    return model, (x.reshape(-1, batch, 8, 8, 1), y.reshape(-1, batch)), test, accuracy


@every_runtime
@pytest.mark.long
def test_digits_are_learned_in_each_runtime_as_in_keras(kind, fresh_digits, tmp_path):
    model, (x, y), (x_test, y_test), expected = fresh_digits
    learner = RUNTIMES[kind](written(kind, model, tmp_path, batch_size=32))
    start = weights(model)
    for _ in range(10):
        for batch in zip(x, y):
            learner.train(*batch)
    export.load_state(model, learner.get_state())
    accuracy = model.evaluate(x_test, y_test, verbose=0)[1]
    if kind != "onnx":
        answers = learner.infer(x_test.astype("float32"))
        assert np.mean(answers.argmax(axis=-1) == y_test) == pytest.approx(accuracy, abs=1e-6)
    export.load_state(model, start)
    assert expected > 0.93
    assert accuracy == pytest.approx(expected, abs=0.01)


@every_runtime
@pytest.mark.sampled(1)
def test_a_label_out_of_range_gives_nan_and_changes_nothing(kind, tmp_path):
    model = compiled(sequential(), keras.optimizers.SGD(0.1, momentum=0.9))
    learner = RUNTIMES[kind](written(kind, model, tmp_path))
    (x, _), (y, _), _ = batches(2)
    learner.train(x, y)
    before = {name: np.array(value) for name, value in learner.get_state().items()}
    for label in (-1, CLASSES):
        wrong = y.copy()
        wrong[3] = label
        assert np.isnan(learner.train(x, wrong)["loss"])
        for name, value in learner.get_state().items():
            np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert np.isfinite(learner.train(x, y)["loss"])
    assert int(learner.get_state()["optimizer_iteration"]) == 2


@pytest.mark.parametrize("kind", ["litert", "onnx"])
@pytest.mark.sampled(1)
def test_batches_of_another_size_or_type_are_refused_by_the_runtime(kind, tmp_path):
    learner = RUNTIMES[kind](written(kind, compiled(sequential()), tmp_path))
    (x,), (y,), _ = batches(1)
    with pytest.raises(Exception, match=r"(?i)dim|shape|size|broadcast|prepare|reshape"):
        learner.train(x[:4], y[:4])
    with pytest.raises(Exception, match=r"(?i)type"):
        learner.train(x.astype("float64"), y)
    assert np.isfinite(learner.train(x, y)["loss"])


@pytest.mark.long
def test_a_saved_model_takes_any_batch_size_counts_metrics_and_is_saved_again(tmp_path):
    import tensorflow as tf

    model = compiled(sequential(), keras.optimizers.Adam(0.01), metrics=["accuracy"])
    export.to_trainable_saved_model(model, tmp_path / "first")
    learner = tf.saved_model.load(str(tmp_path / "first"))
    x, y = data(24)
    x, y = x.astype("float32"), y.astype("int32")
    for size in (1, 5, 24):
        model.reset_metrics()
        expected = model.evaluate(x[:size], y[:size], verbose=0)
        found = learner.evaluate(x[:size], y[:size])
        np.testing.assert_allclose([found["loss"], found["accuracy"]], expected, rtol=1e-5)
        np.testing.assert_allclose(learner.serve(x[:size]), model.predict(x[:size], verbose=0), atol=1e-6)
        model.reset_metrics()
        expected = model.train_on_batch(x[:size], y[:size])
        found = learner.signatures["train"](x=tf.constant(x[:size]), y=tf.constant(y[:size]))
        np.testing.assert_allclose([found["loss"], found["accuracy"]], expected, rtol=1e-5)
    # By TensorFlow's checkpoints, and saved again with its signatures.
    checkpoint = tf.train.Checkpoint(learner=learner).save(str(tmp_path / "checkpoint"))
    tf.saved_model.save(learner, str(tmp_path / "second"), signatures=learner.signatures)
    again = tf.saved_model.load(str(tmp_path / "second"))
    first = tf.saved_model.load(str(tmp_path / "first"))
    tf.train.Checkpoint(learner=first).restore(checkpoint)
    for name, value in learner.get_state().items():
        np.testing.assert_array_equal(again.signatures["get_state"]()[name], value)
        np.testing.assert_array_equal(first.get_state()[name], value)


def test_targets_that_are_no_labels_have_the_shape_that_is_said(tmp_path):
    model = sequential()
    model.compile(keras.optimizers.SGD(0.01), keras.losses.MeanSquaredError(), run_eagerly=True)
    x, _, weight = batches(3)
    y = np.random.default_rng(1).standard_normal((3, BATCH, CLASSES)).astype("float32")
    learner, before = RUNTIMES["onnx"](written("onnx", model, tmp_path)), weights(model)
    for batch in zip(x, y, weight):
        learner.train(*batch)
        model.train_on_batch(*batch)
    assert_same_change(learner.get_state(), model, before)
    narrow = written("onnx", model, tmp_path, targets_spec=keras.InputSpec(shape=(None, 1), dtype="float32"))
    RUNTIMES["onnx"](narrow).train(x[0], y[0, :, :1])


def live_activity(file, batch_size, eager):
    """The most numbers of a sample alive at once: in the file's order, or each made when it can be."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(file)).graph
    (branch,) = (a.g for node in graph.node for a in node.attribute if a.name == "then_branch")
    sizes, level, last = {}, {}, {}
    for value in branch.value_info:
        shape = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        if shape and shape[0] % batch_size == 0:
            sizes[value.name] = int(np.prod(shape)) // batch_size
    for node in branch.node:
        level.update(
            dict.fromkeys(node.output, 1 + max((level.get(name, 0) for name in node.input), default=0))
        )
    order = sorted(branch.node, key=lambda node: eager and level[node.output[0]])
    for number, node in enumerate(order):
        last.update(dict.fromkeys(node.input, number))
    live, most = 0, 0
    for number, node in enumerate(order):
        live += sum(sizes.get(name, 0) for name in node.output if name in last)
        most = max(most, live)
        live -= sum(sizes.get(name, 0) for name in {*node.input} if last[name] == number)
    return most


@pytest.mark.long
def test_a_step_in_the_order_of_low_memory_holds_one_layers_activity(tmp_path):
    """In any order that a runtime may choose: between layers, one number for each of 4 units at most."""
    most = {}
    for low, depth in itertools.product((False, True), (3, 8)):
        model = compiled(small(depth, keras_gevb.rules.GEVB(low_memory=low)))
        # Of a number of samples that no other axis has.
        file = written("onnx", model, tmp_path, batch_size=101)
        most[low, depth] = np.array([live_activity(file, 101, eager) for eager in (False, True)])
    assert most[True, 8][0] <= 1.3 * most[True, 3][0]
    assert np.all(most[True, 8] - most[True, 3] <= 5 * 4)
    assert np.all(most[False, 8] - most[False, 3] >= 5 * 4 * CLASSES)


def with_dropout():
    *below, upper, readout = chain_with(keras.layers.Dropout(0.5, name="drops"))
    return keras_gevb.Sequential([*below, upper, readout])


def chain_with(layer):
    from workflows import chain

    inputs, rescaling, *rest = chain()
    return [inputs, rescaling, layer, *rest]


def poisson(y, z):
    """With the logarithm of a factorial, which no runtime has."""
    import tensorflow as tf

    return tf.reduce_sum(tf.math.lgamma(1 + tf.nn.softplus(z)) - z, axis=-1)


REFUSED = {
    "a loss": (sequential, {"loss": poisson}, r"another loss.*(Lgamma|Digamma)"),
    "random numbers": (with_dropout, {}, r"StatelessRandom.*'drops'"),
    "a way back": (lambda: conventional("backprop"), {}, r"GEVB, DFA.*MaxPoolGrad.*'max_pooling2d"),
    "an optimizer of other methods": (sequential, {"optimizer": keras.optimizers.Nadam()}, "Nadam"),
    "gathered updates": (
        sequential,
        {"optimizer": keras.optimizers.SGD(gradient_accumulation_steps=2)},
        "gradient_accumulation_steps=2",
    ),
    "averages in place of weights": (
        sequential,
        {"optimizer": keras.optimizers.SGD(use_ema=True, ema_overwrite_frequency=3)},
        "ema_overwrite_frequency=3",
    ),
}


BY_RUNTIME = "a loss", "random numbers", "a way back"


@pytest.mark.parametrize(
    ("kind", "row"),
    [(kind, row) for row in REFUSED for kind in (("litert", "onnx") if row in BY_RUNTIME else ("onnx",))],
)
@pytest.mark.sampled(3)
def test_what_a_runtime_cannot_do_is_refused_by_name(row, kind, tmp_path):
    make, settings, message = REFUSED[row]
    model = compiled(make(), **settings)
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        written(kind, model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_operation_that_litert_knows_and_fails_to_convert_is_refused_by_name(tmp_path, monkeypatch):
    class Fails:
        target_spec = types.SimpleNamespace()

        def convert(self):
            raise RuntimeError('error: loc(fused["MatMul:", "step/MatMul"]): failed')

    monkeypatch.setattr(tf.lite.TFLiteConverter, "from_saved_model", lambda *args, **kwargs: Fails())
    with pytest.raises(ValueError, match=r"LiteRT has no operation for .*MatMul"):
        written("litert", compiled(small()), tmp_path)


def converted(*parts, rule="dfa", ends=lambda x: x):
    x = inputs = parts[0]
    for part in parts[1:]:
        x = part(x)
    return keras_gevb.convert(keras.Model(inputs, ends(x)), rule)


# name: (a converted model, inputs of a batch, labels of a batch)
STOCK = {
    "words": (
        lambda: converted(
            *(keras.Input((5,), dtype="int32"), keras.layers.Embedding(9, 4), keras.layers.Flatten()),
            keras.layers.Dense(CLASSES),
        ),
        lambda rng: rng.integers(0, 9, (BATCH, 5)).astype("int32"),
        (),
    ),
    "biases": (
        lambda: converted(keras.Input((6,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(CLASSES)),
        lambda rng: rng.standard_normal((BATCH, 6)).astype("float32"),
        (),
    ),
    "labels of every step": (
        lambda: converted(keras.Input((3, 6)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(CLASSES)),
        lambda rng: rng.standard_normal((BATCH, 3, 6)).astype("float32"),
        (3,),
    ),
    "an output by its name": (
        lambda: converted(
            *(keras.Input((6,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(CLASSES)),
            ends=lambda x: {"kind": x},
        ),
        lambda rng: rng.standard_normal((BATCH, 6)).astype("float32"),
        (),
    ),
    "backpropagation through a frozen layer": (
        lambda: converted(
            *(
                keras.Input((6,)),
                keras.layers.Dense(5, "tanh"),
                keras.layers.Dense(4, "relu", trainable=False),
            ),
            keras.layers.Dense(CLASSES),
            rule="backprop",
        ),
        lambda rng: rng.standard_normal((BATCH, 6)).astype("float32"),
        (),
    ),
    "backpropagation through norms": (
        lambda: converted(
            *(keras.Input((6,)), keras.layers.Dense(5), keras.layers.BatchNormalization()),
            *(keras.layers.ReLU(), keras.layers.Dense(4), keras.layers.LayerNormalization()),
            keras.layers.Dense(CLASSES),
            rule="backprop",
        ),
        lambda rng: rng.standard_normal((BATCH, 6)).astype("float32"),
        (),
    ),
}


@every_runtime
@pytest.mark.parametrize("row", STOCK)
@pytest.mark.sampled(3)
def test_stock_layers_learn_in_each_runtime_as_in_keras(row, kind, tmp_path):
    make, inputs, positions = STOCK[row]
    model = compiled(make())
    learner = RUNTIMES[kind](written(kind, model, tmp_path))
    before, rng = weights(model), np.random.default_rng(0)
    for _ in range(4):
        x, y = inputs(rng), rng.integers(0, CLASSES, (BATCH, *positions)).astype("int32")
        found = learner.train(x, y, np.ones(y.shape, "float32"))
        loss = model.train_on_batch(x, {"kind": y} if "name" in row else y)
        np.testing.assert_allclose(found["loss"], loss, rtol=1e-5)  # float32, summed in another order
    assert_same_change(learner.get_state(), model, before)


@pytest.mark.long
def test_a_recurrent_layer_learns_by_backpropagation_in_a_saved_model(tmp_path):
    model = compiled(
        converted(*(keras.Input((5, 3)), keras.layers.LSTM(4), keras.layers.Dense(CLASSES)), rule="backprop")
    )
    learner, before = RUNTIMES["saved_model"](written("saved_model", model, tmp_path)), weights(model)
    rng = np.random.default_rng(0)
    for _ in range(3):
        x = rng.standard_normal((BATCH, 5, 3)).astype("float32")
        y = rng.integers(0, CLASSES, BATCH).astype("int32")
        found = learner.train(x, y)
        np.testing.assert_allclose(found["loss"], model.train_on_batch(x, y), rtol=1e-5)
    assert_same_change(learner.get_state(), model, before)


def test_weights_of_one_name_are_numbered():
    class Twice(keras.layers.Layer):
        def build(self, shape):
            self.first, self.second = (self.add_weight(name="kernel", shape=(2, 2)) for _ in range(2))

        def call(self, x):
            return x @ self.first @ self.second

    model = compiled(converted(keras.Input((2,)), Twice(name="twice"), keras.layers.Dense(3)))
    model.training_state()
    assert {"twice_kernel", "twice_kernel_1"} <= set(weights(model))


def test_a_state_comes_back_into_a_model_of_other_numbers(tmp_path):
    """Keras numbers generators of random numbers, so that a loaded model's has another than the first's."""
    model = compiled(
        converted(keras.Input((6,)), keras.layers.Dense(5), keras.layers.Dropout(0.3), keras.layers.Dense(2))
    )
    model.save(tmp_path / "model.keras")
    state = weights(model)
    assert any("seed_generator" in name for name in state)
    state["dense_kernel" if "dense_kernel" in state else next(iter(state))] += 1.0
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.savez(tmp_path / "state.npz", **state)
    export.load_state(loaded, np.load(tmp_path / "state.npz"))
    for name, value in weights(loaded).items():
        np.testing.assert_array_equal(value, state[name], err_msg=name)


@every_runtime
def test_a_model_of_several_outputs_is_refused_by_name(kind, tmp_path):
    inputs = keras.Input((6,))
    model = keras_gevb.convert(keras.Model(inputs, [keras.layers.Dense(2)(inputs) for _ in range(2)]))
    with pytest.raises(ValueError, match=r"one output.*2 outputs"):
        written(kind, compiled(model), tmp_path)


def test_a_format_that_onnx_has_not_everywhere_is_refused_by_name(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = sequential()
    finally:
        keras.config.set_dtype_policy("float32")
    with pytest.raises(ValueError, match=r"float32 or mixed_float16.*mixed_bfloat16"):
        written("onnx", compiled(model), tmp_path)
    assert not list(tmp_path.iterdir())


@every_runtime
def test_a_model_that_cannot_train_is_refused(kind, tmp_path):
    with pytest.raises(ValueError, match=r"keras\.Input"):
        written(kind, keras_gevb.Sequential([layers.VectorDense(4, vector_dim=2)]), tmp_path)
    with pytest.raises(ValueError, match="compiled=False"):
        written(kind, sequential(), tmp_path)


def test_the_state_of_another_model_is_refused_by_name():
    model, other = compiled(sequential()), compiled(graph())
    other.training_state()
    before = [np.asarray(v).copy() for v in model.variables]
    with pytest.raises(ValueError, match=r"missing \['lower_bias'.*unknown \['hidden_bias'"):
        export.load_state(model, weights(other))
    model.training_state()
    wrong = {**weights(model), "lower_kernel": np.zeros((3, 4, 8))}
    with pytest.raises(ValueError, match=r"lower_kernel: \(3, 4, 8\) for \(72, 4, 8\)"):
        export.load_state(model, wrong)
    for variable, value in zip(model.variables, before):
        np.testing.assert_array_equal(variable, value)


def test_the_model_is_as_it_was_after_an_export(tmp_path):
    model = compiled(sequential(), metrics=["accuracy"])
    model.train_on_batch(*data(12))
    before = [
        np.asarray(v).copy() for v in (*model.variables, *model.optimizer.variables, *model.metrics_variables)
    ]
    for kind in ("saved_model", "onnx"):
        written(kind, model, tmp_path)
    after = [
        np.asarray(v).copy() for v in (*model.variables, *model.optimizer.variables, *model.metrics_variables)
    ]
    for value, expected in zip(after, before, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_evaluation_leaves_no_unit_out(tmp_path):
    hidden = keras.layers.Dense(32, "relu"), keras.layers.Dropout(0.9)
    stock = keras.Sequential([keras.Input((6,)), *hidden, keras.layers.Dense(3)])
    model = compiled(keras_gevb.convert(stock, "dfa"))
    export.to_trainable_saved_model(model, str(tmp_path / "saved"))
    x = np.random.default_rng(0).standard_normal((8, 6)).astype("float32")
    y = (np.arange(8) % 3).astype("int32")
    saved = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(
        saved.evaluate(x, y)["loss"], model.evaluate(x, y, verbose=0), rtol=1e-5
    )  # float32
