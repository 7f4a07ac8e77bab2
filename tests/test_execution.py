"""However a step is run and fed, it makes the same updates."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from graphs import compiled as compiled_as
from graphs import operations, step_graph, waiting_updates
from networks import rows
from workflows import assert_same_weights, build, chain, data, outputs, start_python, traced

import keras_gevb

# Variables are made eagerly before a step is traced; tf.data stays compiled, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:Even though the")

BATCH = 8
SAMPLES = 20  # the last batch is ragged: 8, 8, 4

ROWS = [
    ("sequential", "gevb"),
    ("graph", "gevb"),
    ("graph", "backprop"),
    ("nested", "fa"),
    ("conventional", "dfa"),
]


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return -(-SAMPLES // BATCH)

    def __getitem__(self, index):
        x, y = data(SAMPLES)
        part = slice(index * BATCH, (index + 1) * BATCH)
        return x[part], y[part]


def batches():
    sequence = Batches()
    return (sequence[i] for i in range(len(sequence)))


def dataset():
    return tf.data.Dataset.from_tensor_slices(data(SAMPLES)).batch(BATCH)


def fit(model, *fed, **settings):
    model.fit(*fed, shuffle=False, verbose=0, **settings)


def fit_arrays(model):
    fit(model, *data(SAMPLES), batch_size=BATCH)


def on_batches(model):
    for x, y in batches():
        model.train_on_batch(x, y)


# How the model is compiled.
RUNS = {
    "graph": {},
    "eager": {"run_eagerly": True},
    "xla": {"jit_compile": True},
    "no-xla": {"jit_compile": False},
    "two-steps-per-execution": {"steps_per_execution": 2},
    "xla-three-steps-per-execution": {"steps_per_execution": 3, "jit_compile": True},
}
# How it is fed.
FEEDS = {
    "train-on-batch": on_batches,
    "generator": lambda model: fit(model, batches(), steps_per_epoch=3),
    "dataset": lambda model: fit(model, dataset()),
    "pydataset": lambda model: fit(model, Batches()),
    "tensors": lambda model: fit(model, *map(tf.constant, data(SAMPLES)), batch_size=BATCH),
}
WAYS = [
    *((*row, "graph", "arrays") for row in ROWS),
    *((*row, run, "arrays") for row in ROWS[:2] for run in RUNS if run != "graph"),
    *((*ROWS[0], "graph", feed) for feed in FEEDS),
]


@functools.cache
def reference(name, rule):
    """Weights before, and after plain gradient descent along `compute_updates`, batch by batch."""
    keras.utils.set_random_seed(20211)
    model = traced(build(name, rule), run_eagerly=True)
    before = model.get_weights()
    for x, y in batches():
        updates = model.compute_updates(x, y)
        for variable, update in zip(model.trainable_variables, updates, strict=True):
            value = variable - 0.1 * update
            variable.assign(variable.constraint(value) if variable.constraint else value)
    return before, model


@pytest.mark.parametrize(("name", "rule", "run", "feed"), WAYS, ids=["-".join(way) for way in WAYS])
@pytest.mark.sampled(3)
def test_every_way_to_run_and_to_feed_a_step_makes_the_same_updates(name, rule, run, feed):
    before, expected = reference(name, rule)
    model = traced(build(name, rule), **RUNS[run])
    model.set_weights(before)
    FEEDS.get(feed, fit_arrays)(model)
    # Three float32 steps with weights of order 1.
    assert_same_weights(model, expected, atol=1e-6)


@pytest.mark.parametrize(
    "settings", [{"metrics": ["accuracy"]}, RUNS["xla"], {"jit_compile": False}], ids=str
)
@pytest.mark.parametrize(("name", "rule"), [*ROWS, ("conventional", "ebd")])
@pytest.mark.sampled(2)
def test_the_first_fit_traces_a_step_once(name, rule, settings, monkeypatch):
    """TensorFlow traces a function that makes variables twice, as stock Keras lets it."""
    traces = []
    start = keras_gevb.step.Step.__init__

    def started(step, *args):
        traces.append(step)
        start(step, *args)

    monkeypatch.setattr(keras_gevb.step.Step, "__init__", started)
    model = traced(build(name, rule), keras.optimizers.Adam(), **settings)
    model.fit(*data(BATCH), batch_size=BATCH, verbose=0)
    assert len(traces) == 1


def test_a_model_without_input_shape_is_built_by_its_first_batch():
    deferred = traced(keras_gevb.Sequential(chain()[1:]))
    deferred.fit(*data(), verbose=0)
    before = deferred.get_weights()
    deferred.fit(*data(), verbose=0)
    assert deferred.built
    assert any(np.any(a != b) for a, b in zip(before, deferred.get_weights(), strict=True))


@pytest.mark.parametrize("settings", [RUNS["graph"], RUNS["xla"]], ids=str)
@pytest.mark.sampled(1)
def test_reported_loss_and_accuracy_are_those_of_the_model_over_the_epoch(settings):
    """At learning rate 0 the epoch's logs are the evaluation of the unchanged model."""
    model = traced(build("graph", "gevb"), keras.optimizers.SGD(0.0), metrics=["accuracy"], **settings)
    x, y = data(SAMPLES)
    history = model.fit(x, y, batch_size=BATCH, verbose=0, validation_data=(x, y)).history
    logits = model.predict(x, verbose=0).astype("float64")
    surplus = logits - logits.max(axis=1, keepdims=True)
    likelihood = surplus - np.log(np.exp(surplus).sum(axis=1, keepdims=True))
    expected = {"loss": -likelihood[np.arange(SAMPLES), y].mean(), "accuracy": (logits.argmax(1) == y).mean()}
    for name, value in expected.items():
        np.testing.assert_allclose([history[name][0], history[f"val_{name}"][0]], value, rtol=1e-5)


def test_any_batch_size_is_served_by_one_model():
    model = traced(build("graph", "gevb"))
    x, _ = data(SAMPLES)
    whole = model.predict(x, verbose=0)
    for size in (1, 3, SAMPLES):
        np.testing.assert_allclose(model.predict(x, batch_size=size, verbose=0), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "rule"), ROWS)
@pytest.mark.sampled(3)
def test_the_updates_of_a_batch_are_the_mean_of_those_of_its_samples(name, rule):
    model = traced(build(name, rule), run_eagerly=True)
    x, y = data(6)
    one_by_one = [model.compute_updates(x[i : i + 1], y[i : i + 1]) for i in range(6)]
    together = model.compute_updates(x, y)
    for whole, *parts in zip(together, *one_by_one, strict=True):
        # The same sums in float32, in another order.
        np.testing.assert_allclose(whole, np.mean(parts, axis=0), rtol=1e-4, atol=1e-6)


def test_a_batch_of_one_sample_trains():
    before, _ = reference("graph", "gevb")
    model, stepped = (traced(build("graph", "gevb"), run_eagerly=eager) for eager in (False, True))
    for each in (model, stepped):
        each.set_weights(before)
    x, y = data(1)
    loss = float(stepped.compute_loss(x, y, stepped(x)))
    for variable, update in zip(stepped.trainable_variables, stepped.compute_updates(x, y), strict=True):
        value = variable - 0.1 * update
        variable.assign(variable.constraint(value) if variable.constraint else value)
    np.testing.assert_allclose(model.train_on_batch(x, y), loss, rtol=1e-5)
    assert_same_weights(model, stepped, atol=1e-6)  # one float32 step


DETERMINISM = """
import keras, numpy as np, tensorflow as tf
from workflows import build, data, traced

tf.config.experimental.enable_op_determinism()
for name, rule in (("graph", "gevb"), ("graph", "backprop"), ("scalar_graph", "dfa")):
    runs = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        model = traced(build(name, rule), keras.optimizers.Adam(0.01))
        model.fit(*data(), batch_size=8, epochs=2, verbose=0)
        runs.append(model.get_weights())
    print(name, rule, all(np.array_equal(a, b) for a, b in zip(*runs)))
"""


@pytest.mark.long
def test_seeds_and_op_determinism_give_bit_identical_weights_twice():
    lines = outputs(start_python("-c", DETERMINISM)).splitlines()
    assert lines == ["graph gevb True", "graph backprop True", "scalar_graph dfa True"]


@pytest.mark.long
def test_whether_tensorflow_runs_with_onednn_is_left_to_tensorflow(monkeypatch):
    """Where TensorFlow leaves it off, with it gradients of some strided convolutions are wrong."""
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    found = "print(sorted(name for name in os.environ if 'ONEDNN' in name))"
    code = f"import os, tensorflow; {found}; import keras_gevb; {found}"
    before, after = outputs(start_python("-c", code)).splitlines()[-2:]
    assert before == after


@pytest.mark.parametrize("channels", [3, 4, 8])
def test_a_strided_convolution_of_few_channels_learns_what_it_should(channels):
    """A window of 1 and strides of 2: dW = sum a^T dL/dy over every second position."""
    stock = keras.Sequential(
        [keras.Input((8, 8, channels)), keras.layers.Conv2D(5, 1, strides=2, use_bias=False)]
    )
    model = keras_gevb.convert(stock)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 8, 8, channels)), rng.normal(size=(8, 4, 4, 5))
    model.compile("sgd", keras.losses.MeanSquaredError(reduction="sum"), run_eagerly=True)
    seen, (kernel,) = x[:, ::2, ::2], model.get_weights()
    error = 2 * (seen @ kernel[0, 0] - y) / 5  # squares are averaged over the last axis
    exact = np.einsum("bijc,biju->cu", seen, error)
    for _ in range(3):
        (update,) = model.compute_updates(x.astype("float32"), y.astype("float32"))
        np.testing.assert_allclose(np.array(update)[0, 0], exact, rtol=1e-4, atol=1e-4)  # float32


# What is compiled: a "whole" step, "part" of one, or nothing (None). By products: of dense layers, of
# locally connected ones (batches of them), of convolutions; and by the optimizer's writing.
COMPILED = [
    ("sequential", "gevb", "auto", {"MatMul": "whole", "AssignSub": "whole"}),
    ("sequential", "backprop", "auto", {"MatMul": "whole", "AssignSub": "whole"}),
    ("conventional", "dfa", "auto", {"MatMul": "whole", "AssignSub": "whole"}),
    ("graph", "gevb", "auto", {"Conv": None, "BatchMatMul": None, "MatMul": "part", "AssignSub": "whole"}),
    ("local", "gevb", "auto", {"BatchMatMul": None, "MatMul": "part", "AssignSub": "whole"}),
    ("convolution", "gevb", "auto", {"Conv": None, "MatMul": "part", "AssignSub": "whole"}),
    ("scalar_graph", "dfa", "auto", {"Conv": None, "BatchMatMul": None, "AssignSub": "whole"}),
    *(
        (name, "gevb", jit, dict.fromkeys(["Conv", "BatchMatMul", "MatMul", "AssignSub"], how))
        for jit, how in ((True, "whole"), (False, None))
        for name in ("sequential", "graph")
    ),
]


def one_kind(layer, learning_rule):
    hidden = [layer(4, 3, padding="same", vector_dim=4), layer(4, 3), keras_gevb.layers.VectorFlatten()]
    return keras_gevb.Sequential(
        [keras.Input((6, 6, 2)), *hidden, keras_gevb.layers.VectorReadout()], learning_rule=learning_rule
    )


KINDS = {
    "local": keras_gevb.layers.VectorLocallyConnected2D,
    "convolution": keras_gevb.layers.VectorConv2D,
}


def made(name, rule):
    return one_kind(KINDS[name], rule) if name in KINDS else build(name, rule)


@pytest.mark.parametrize("training", [True, False], ids=["fit", "evaluate"])
@pytest.mark.parametrize(("name", "rule", "jit_compile", "expected"), COMPILED)
@pytest.mark.sampled(5)
def test_what_is_compiled_is_what_jit_compile_says(name, rule, jit_compile, expected, training):
    model = traced(made(name, rule), jit_compile=jit_compile)
    graph = step_graph(model, *data(BATCH), training=training)
    seen = 0
    for kind, how in expected.items():
        found = compiled_as(graph, kind)
        assert found <= {how}, kind
        seen += len(found)
    assert seen >= (2 if training else 1)
    if jit_compile is False:
        assert {how for _, how in operations(graph)} == {None}


def pooling(extents):
    hidden = [KINDS["convolution"](4, 2, vector_dim=3), keras_gevb.layers.VectorAveragePooling2D(2)]
    ends = [keras_gevb.layers.VectorGlobalAveragePooling2D(), keras_gevb.layers.VectorReadout()]
    return traced(keras_gevb.Sequential([keras.Input((*extents, 2)), *hidden, *ends]))


@pytest.mark.parametrize("extents", ["open", "known"])
@pytest.mark.parametrize(("size", "pools"), [(5, False), (6, True)])
@pytest.mark.sampled(2)
def test_pooling_is_slices_where_its_windows_tile_the_space(size, pools, extents):
    """Slices fuse with gates; they are right nowhere else. Windows of 2 make 5 pixels 4, and 6 pixels 5."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(BATCH, size, size, 2)).astype("float32"), rng.integers(0, 3, BATCH)
    model = pooling((size, size) if extents == "known" else (None, None))
    assert any("AvgPool" in name for name, _ in operations(step_graph(model, x, y))) == pools
    eager = pooling((size, size))
    eager.compile(keras.optimizers.SGD(0.1), model.loss, run_eagerly=True)
    eager.set_weights(model.get_weights())
    model.reset_metrics()  # of the step for its graph, which Keras before 3.13 averages in
    losses = [[each.train_on_batch(x, y) for _ in range(3)] for each in (model, eager)]
    np.testing.assert_allclose(*losses, rtol=1e-5)  # float32


@rows(vectorized=True, nonnegative=True, unshared=False)
@pytest.mark.sampled(2)
def test_nothing_is_compiled_for_each_batch_size(network):
    """As Keras has a convolution compiled whose channels it does not know."""
    model = traced(network.build(), jit_compile=False)
    x, y, _ = network.batch(model)
    found = operations(step_graph(model, x, y, any_size=True))
    assert {how for _, how in found} == {None}


@pytest.mark.parametrize("jit_compile", ["auto", False, True])
@pytest.mark.parametrize(("name", "layers"), [("sequential", 3), ("graph", 5), ("conventional", 3)])
def test_with_little_memory_a_layer_waits_for_the_updates_of_the_one_before(name, layers, jit_compile):
    """Else the activity of all layers could be held at once; otherwise no update waits for another."""
    rule = keras_gevb.rules.DFA if name == "conventional" else keras_gevb.rules.GEVB
    waiting = []
    for low_memory in (False, True):
        model = traced(build(name, rule(low_memory=low_memory)), jit_compile=jit_compile)
        waiting.append(waiting_updates(step_graph(model, *data(BATCH))))
    # Kernels of each layer before those of each later one, and biases, where products make them: those of
    # conventional units are sums, and the readout's needs e alone.
    made = 1 if name == "conventional" else 4
    expected = made * layers * (layers - 1) // 2 - (0 if name == "conventional" else 2 * (layers - 1))
    assert waiting == [0, expected]


def test_parts_that_xla_compiles_leave_variables_alone():
    """Between such parts nothing orders the reading and the writing of a variable."""
    model = traced(build("graph", "gevb"))
    found = operations(step_graph(model, *data(BATCH)))
    parts = {name for name, how in found if how == "part"}
    assert "Mul" in parts
    outside = "Conv", "ReadVariable", "Assign", "StatefulPartitionedCall"
    assert not {name for name in parts if name.startswith(outside)}
    # The weights are written by the optimizer alone, which is compiled as one; outside, two of a metric.
    written = [how for name, how in found if name == "AssignSubVariableOp"]
    assert written == ["whole"] * len(model.trainable_variables)
    assert sum(name.startswith("Assign") and how is None for name, how in found) == 2
