"""However a step is run and fed, it makes the same updates."""

import functools
import platform

import keras
import numpy as np
import pytest
import tensorflow as tf
from workflows import assert_same_weights, build, chain, data, outputs, start_python, traced

import keras_gevb

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
def test_every_way_to_run_and_to_feed_a_step_makes_the_same_updates(name, rule, run, feed):
    before, expected = reference(name, rule)
    model = traced(build(name, rule), **RUNS[run])
    model.set_weights(before)
    FEEDS.get(feed, fit_arrays)(model)
    # Three float32 steps with weights of order 1.
    assert_same_weights(model, expected, atol=1e-6)


def test_a_model_without_input_shape_is_built_by_its_first_batch():
    deferred = traced(keras_gevb.Sequential(chain()[1:]))
    deferred.fit(*data(), verbose=0)
    before = deferred.get_weights()
    deferred.fit(*data(), verbose=0)
    assert deferred.built
    assert any(np.any(a != b) for a, b in zip(before, deferred.get_weights(), strict=True))


@pytest.mark.parametrize("settings", [RUNS["graph"], RUNS["xla"]], ids=str)
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


def test_a_batch_of_one_sample_trains():
    model = traced(build("graph", "gevb"))
    x, y = data(1)
    assert np.isfinite(model.train_on_batch(x, y))


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


def test_seeds_and_op_determinism_give_bit_identical_weights_twice():
    lines = outputs(start_python("-c", DETERMINISM)).splitlines()
    assert lines == ["graph gevb True", "graph backprop True", "scalar_graph dfa True"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="TensorFlow's packages have oneDNN on x86")
@pytest.mark.parametrize(("given", "on"), [({}, True), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, False)])
def test_tensorflow_starts_with_onednn_unless_told_otherwise(given, on, monkeypatch):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    process = start_python("-c", "import keras_gevb", TF_CPP_MIN_LOG_LEVEL="0", **given)
    _, log = process.communicate(timeout=600)
    assert process.returncode == 0
    assert ("oneDNN custom operations are on" in log) == on


def test_parts_that_xla_compiles_leave_variables_alone():
    """Between such parts nothing orders the reading and the writing of a variable."""
    model = traced(build("graph", "gevb"))
    x, y = data(BATCH)
    model.fit(x, y, batch_size=BATCH, verbose=0)
    step = tf.function(lambda x, y: model._compiled(model._learn, x, y, None), autograph=False)
    graph = step.get_concrete_function(*map(tf.convert_to_tensor, (x, y))).graph
    operations = graph.get_operations()
    compiled = {operation.type for operation in operations if operation.node_def.attr["_XlaCompile"].b}
    assert "Mul" in compiled
    outside = "Conv", "ReadVariable", "Assign", "StatefulPartitionedCall"
    assert not {kind for kind in compiled if kind.startswith(outside)}
    # The weights are written by the optimizer alone, which is compiled as one.
    (optimizer,) = (operation for operation in operations if operation.type == "StatefulPartitionedCall")
    assert optimizer.node_def.attr["_XlaMustCompile"].b
    handles = {id(variable.value.handle) for variable in model.trainable_variables}
    weights = {inside.name for outside, inside in graph.captures if id(outside) in handles}
    written = {op.inputs[0].name for op in operations if op.type.startswith("Assign")}
    assert len(weights) == len(handles)
    assert weights <= {tensor.name for tensor in optimizer.inputs}
    assert not weights & written
