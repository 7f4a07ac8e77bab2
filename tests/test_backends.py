"""Fit, files and errors on every backend: `KERAS_BACKEND=jax pytest tests/test_backends.py`."""

import functools

import keras
import numpy as np
import pytest
from networks import OF_EVERY_RANK, array, arrays, rows
from workflows import OTHER_RULES

from keras_gevb import Model, Sequential, backend, datasets, layers, rules, zoo

small = pytest.mark.parametrize(
    ("architecture", "rule", "vectorized"),
    [
        *((a, r, True) for a in zoo.ARCHITECTURES for r in ("gevb", "backprop")),
        ("conv", "fa", True),
        ("conv", "dfa", False),
        *(("fc", r, False) for r in OTHER_RULES if not rules.get(r).remembers()),
    ],
)

REMEMBERING = [(r, False) for r in OTHER_RULES if rules.get(r).remembers()]


@pytest.mark.parametrize(("rule", "vectorized"), [*REMEMBERING, ("dkp", True), ("fdfa", True)])
@pytest.mark.sampled(1)
def test_a_compiled_memory_is_that_of_steps_one_by_one(rule, vectorized):
    models = []
    for eager in (True, False):
        keras.utils.set_random_seed(1)
        model = zoo.build("digits", "fc", vectorized, learning_rule=rule, width=0.1)
        compiled(model, keras.optimizers.SGD(0.1), run_eagerly=eager, jit_compile=False)
        before = model.get_weights()
        model.fit(*digits(16), batch_size=8, shuffle=False, verbose=0)
        models.append(model)
    own = {id(v) for v in model.learning_rule.variables}
    moved = [np.any(a != array(v)) for a, v in zip(before, model.weights, strict=True) if id(v) in own]
    assert any(moved)
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-5)


def compiled(model, optimizer, **settings):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **settings)
    return model


def digits(samples):
    (x, y), _ = datasets.load("digits")
    return x[:samples], y[:samples]


@small
@pytest.mark.sampled(2)
def test_fit_takes_the_steps_of_compute_updates(architecture, rule, vectorized):
    # A nonnegative weight of 0 has a sign by rounding.
    settings = {"nonnegative": rule not in ("usf", "brsf", "frsf"), "width": 0.25}
    model = zoo.build("digits", architecture, vectorized, learning_rule=rule, **settings)
    compiled(model, keras.optimizers.SGD(0.1))
    x, y = digits(16)
    start = model.get_weights()
    for part in (slice(0, 8), slice(8, 16)):
        updates = arrays(model.compute_updates(x[part], y[part]))
        for variable, update in zip(model.trainable_variables, updates, strict=True):
            value = array(variable) - 0.1 * update
            variable.assign(array(variable.constraint(value)) if variable.constraint else value)
    expected = model.get_weights()
    model.set_weights(start)
    logs = model.fit(x, y, batch_size=8, shuffle=False, verbose=0).history
    for weight, wanted in zip(model.get_weights(), expected, strict=True):
        # Two float32 steps with weights of order 1, updates summed over up to 64 positions.
        np.testing.assert_allclose(weight, wanted, rtol=0, atol=1e-5)
    assert set(logs) == {"loss", "accuracy"}
    assert np.isfinite(logs["loss"][0])


def test_a_fit_learns_and_its_kernels_stay_nonnegative():
    model = compiled(zoo.build("digits", "fc"), keras.optimizers.Adam(1e-3))
    (x, y), test = datasets.load("digits")
    model.fit(x, y, batch_size=64, epochs=2, verbose=0)
    assert model.evaluate(*test, verbose=0, return_dict=True)["accuracy"] > 0.8
    for layer in model.layers:
        if getattr(layer, "constrained", False):
            assert array(layer.kernel).min() >= 0


@small
@pytest.mark.sampled(2)
def test_a_saved_model_goes_on_alike(architecture, rule, vectorized, tmp_path):
    model = zoo.build("digits", architecture, vectorized, learning_rule=rule, width=0.25)
    # What a file holds does not hang on what is compiled; TensorFlow's functions are slow to trace.
    compiled(model, keras.optimizers.Adam(0.01), run_eagerly=keras.backend.backend() == "tensorflow")
    x, y = digits(16)
    model.fit(x, y, batch_size=8, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert repr(loaded.learning_rule) == repr(model.learning_rule)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    for each in (model, loaded):
        each.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    for mine, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("network", OF_EVERY_RANK, ids=[n.name for n in OF_EVERY_RANK])
@pytest.mark.sampled(2)
def test_a_network_of_every_kind_of_window_survives_a_file(network, tmp_path):
    model = network.build()
    x, y, _ = network.batch(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")  # safe mode, no custom_objects
    np.testing.assert_array_equal(array(loaded(x)), array(model(x)))
    for one, other in zip(*(arrays(each.compute_updates(x, y)) for each in (model, loaded)), strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-6)


@pytest.mark.parametrize("label", [10, np.nan])
def test_a_bad_label_is_an_error_that_leaves_the_weights_as_they_were(label):
    model = compiled(zoo.build("digits", "fc", width=0.25), keras.optimizers.SGD(0.1))
    before = model.get_weights()
    x, _ = digits(8)
    with pytest.raises(Exception, match=rf"Labels must be integers from 0 to 9(.|\n)*{label}"):
        model.fit(x, np.full(8, label), verbose=0)
    for mine, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@rows(vectorized=True, nonnegative=True, large=False)
@pytest.mark.sampled(4)
def test_two_forward_passes_make_the_same_updates(network):
    model = network.build()
    x, y, weight = network.batch(model)
    plain = arrays(model.compute_updates(x, y, weight))
    again = arrays(model.compute_updates(x, y, weight, learning_rule=rules.GEVB(low_memory=True)))
    for one, other in zip(plain, again, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("architecture", zoo.ARCHITECTURES)
@pytest.mark.sampled(1)
def test_a_compiled_fit_with_two_forward_passes_is_the_same(architecture):
    models = []
    for low_memory in (False, True):
        keras.utils.set_random_seed(1)
        rule = rules.GEVB(low_memory=low_memory)
        model = zoo.build("digits", architecture, learning_rule=rule, width=0.25)
        compiled(model, keras.optimizers.SGD(0.1)).fit(*digits(16), batch_size=8, shuffle=False, verbose=0)
        models.append(model)
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-6)


def test_a_tensor_is_sparse_where_it_keeps_no_zeros():
    """Symbolic ones too, of which a layer that is built by numbers gets sparse ones."""
    for sparse in (True, False):
        symbolic = keras.KerasTensor((None, 3), "float32", sparse=sparse)
        assert backend.is_sparse(symbolic) == sparse
    assert not backend.is_sparse(keras.ops.ones((2, 3)))
    if keras.backend.backend() == "tensorflow":
        assert backend.is_sparse(backend.stand_in(keras.KerasTensor((None, 3), "float32", sparse=True)))


def test_two_forward_passes_run_every_layer_twice():
    calls = []

    class Counted(layers.VectorDense):
        def call(self, inputs):
            calls.append(self.name)
            return super().call(inputs)

    model = Sequential(
        [
            *(keras.Input((6,)), Counted(8, vector_dim=4, name="one"), Counted(6, name="two")),
            layers.VectorReadout(),
        ]
    )
    compiled(model, "sgd", run_eagerly=True)
    x, y = np.ones((3, 6), "float32"), np.array([0, 1, 2])
    model.compute_updates(x, y)  # checks the network, by passes of its own
    for low_memory, expected in ((False, ["one", "two"]), (True, ["one", "two"] * 2)):
        calls.clear()
        model.compute_updates(x, y, learning_rule=rules.GEVB(low_memory=low_memory))
        assert calls == expected


@keras.saving.register_keras_serializable(package="tests")
class Running(keras.layers.Layer):
    """A layer without weights that learn, whose outputs depend on a state that it writes and reads."""

    def build(self, shape):
        self.mean = self.add_weight(shape=shape[1:], initializer="zeros", trainable=False)

    def call(self, inputs, training=False):
        if training:
            self.mean.assign(0.5 * self.mean + 0.5 * keras.ops.mean(inputs, axis=0))
        return keras.ops.tanh(inputs - self.mean) * (1 + self.mean)


STOCK = {
    "activations": lambda: [
        *(keras.Input((6,)), keras.layers.Dense(5, activation="relu")),
        *(keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(3)),
    ],
    "recurrent": lambda: [
        *(
            keras.Input((6, 1)),
            keras.layers.LSTM(3, return_sequences=True),
            keras.layers.LayerNormalization(),
        ),
        *(keras.layers.GRU(3), keras.layers.Dense(3)),
    ],
    "a state between": lambda: [
        *(keras.Input((6,)), keras.layers.Dense(5), Running(), keras.layers.Dense(4), Running()),
        keras.layers.Dense(3),
    ],
    "a normalized kernel": lambda: [
        *(keras.Input((6,)), keras.layers.SpectralNormalization(keras.layers.Dense(5, activation="tanh"))),
        keras.layers.Dense(3),
    ],
}


def stock_data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(24, 6)).astype("float32"), rng.integers(0, 3, 24)


WAYS = [(name, {"jit_compile": False}) for name in STOCK]
# By XLA; under PyTorch by torch.compile, which takes most of a minute.
slow = [pytest.mark.long] if keras.backend.backend() == "torch" else []
WAYS += [pytest.param("activations", {"run_eagerly": False, "jit_compile": True}, marks=slow)]


@pytest.mark.parametrize(("name", "settings"), WAYS, ids=str)
def test_stock_layers_learn_as_in_stock_keras(name, settings):
    models = []
    for cls in (keras.Sequential, functools.partial(Sequential, learning_rule="backprop")):
        keras.utils.set_random_seed(1)
        model = compiled(cls(STOCK[name]()), keras.optimizers.SGD(0.1), **settings)
        x, y = stock_data()
        model.fit(x.reshape(24, *model.input_shape[1:]), y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        models.append(model.get_weights())
    for stock, ours in zip(*models, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=0, atol=1e-5)  # float32, six steps


class Held(keras.layers.Layer):
    def call(self, inputs):
        return keras.ops.stop_gradient(inputs)


def test_what_no_derivative_reaches_is_changed_no_more_than_in_stock_keras():
    """AdamW decays what has a gradient, also one of zero; what has none stays, but under JAX."""
    x, y = stock_data()
    weights = []
    for cls in (keras.Model, functools.partial(Model, learning_rule="backprop")):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((6,))
        sides = keras.layers.Dense(5)(inputs), Held()(keras.layers.Dense(5)(inputs))
        model = cls(inputs, keras.layers.Dense(3)(keras.layers.Add()(sides)))
        compiled(model, keras.optimizers.AdamW(0.01, weight_decay=0.5)).fit(x, y, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for stock, ours in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=0, atol=1e-5)  # float32, one step


@pytest.mark.parametrize("name", STOCK)
def test_the_derivative_along_directions_is_the_transpose_of_the_signal(name):
    """<e, J u> = <J^T e, u>, and so is what perturbed units are told, compiled or not."""
    keras.utils.set_random_seed(1)
    model = compiled(Sequential(STOCK[name](), learning_rule="dfa"), "sgd")
    x, y = stock_data()
    x = x.reshape(24, *model.input_shape[1:])
    step = model.compute_step(x, y, learning_rule="backprop")
    directions = [keras.random.normal(record.gate.shape, seed=3) for record in step.hidden]
    directions += [keras.ops.zeros_like(step.records[-1].gate)]
    told = keras.ops.sum(step.error * step.along(directions))
    expected = sum(keras.ops.sum(g * u) for g, u in zip(step.backward(), directions, strict=True))
    assert abs(float(expected)) > 1e-3
    np.testing.assert_allclose(float(told), float(expected), rtol=1e-4)


@pytest.mark.parametrize("rule", ["node_perturbation", "fdfa"])
@pytest.mark.sampled(1)
def test_stock_layers_are_perturbed_the_same_compiled_or_not(rule):
    x, y = stock_data()
    results = []
    for eager in (True, False):
        keras.utils.set_random_seed(1)
        made = type(rules.get(rule))(seed=3)
        model = Sequential(STOCK["activations"](), learning_rule=made)
        compiled(model, keras.optimizers.SGD(1.0), run_eagerly=eager, jit_compile=False)
        before = model.get_weights()
        model.train_on_batch(x, y)
        model.train_on_batch(x, y)
        results.append([after - was for after, was in zip(model.get_weights(), before, strict=True)])
    for variable, one, other in zip(model.weights, *results, strict=True):
        assert np.any(one != 0), variable.path
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-5)


MASKED = {
    "words": lambda: [
        *(keras.Input((5,), dtype="int32"), keras.layers.Embedding(7, 4, mask_zero=True)),
        *(keras.layers.LSTM(3, return_sequences=True), keras.layers.Dense(3)),
    ],
    "numbers": lambda: [
        *(keras.Input((5, 2)), keras.layers.Masking(0.0), keras.layers.Dense(4, activation="relu")),
        keras.layers.Dense(3),
    ],
    "a head": lambda: [
        *(keras.Input((5,), dtype="int32"), keras.layers.Embedding(7, 4, mask_zero=True)),
        *(keras.layers.Dense(3), keras.layers.Activation("linear")),
    ],
}


@pytest.mark.parametrize("settings", [{}, {"run_eagerly": True}], ids=str)
@pytest.mark.parametrize("name", MASKED)
@pytest.mark.sampled(1)
def test_padded_steps_count_in_no_loss_as_in_stock_keras(name, settings):
    x = np.random.default_rng(0).integers(0, 4, (8, 5))
    x[:, 3:] = 0
    x = np.stack([x, x], -1).astype("float32") if name == "numbers" else x
    y = np.arange(40).reshape(8, 5) % 3
    found = []
    for cls in (keras.Sequential, functools.partial(Sequential, learning_rule="backprop")):
        keras.utils.set_random_seed(1)
        model = cls(MASKED[name]())
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(1.0), loss, weighted_metrics=["accuracy"], **settings)
        logs = model.fit(x, y, epochs=2, shuffle=False, batch_size=8, verbose=0).history
        # In training under JAX stock Keras measures what the mask leaves out too.
        measured = [] if keras.backend.backend() == "jax" else logs["accuracy"]
        found.append([*logs["loss"], *measured, *model.evaluate(x, y, verbose=0)])
        if cls is not keras.Sequential and settings:
            model.compute_updates(x, y)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)  # float32


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_with_little_memory_masks_reach_layers_within_layers(dropout):
    """Attention finds the mask of its inputs at the tensors that it is given."""
    tokens = np.random.default_rng(0).integers(1, 9, (8, 5))
    tokens[:, 3:] = 0
    found = []
    for low_memory in (False, True):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((5,), dtype="int32")
        words = keras.layers.Embedding(9, 4, mask_zero=True)(inputs)
        attention = keras.layers.MultiHeadAttention(2, 2, dropout=dropout, seed=2)(words, words)
        mean = keras.layers.GlobalAveragePooling1D()(keras.layers.Add()([words, attention]))
        rule = rules.DFA(seed=7, low_memory=low_memory)
        model = Model(inputs, keras.layers.Dense(3)(mean), learning_rule=rule)
        compiled(model, "sgd", run_eagerly=True)
        found.append(arrays(model.compute_updates(tokens, np.arange(8) % 3)))
    for plain, little in zip(*found, strict=True):
        np.testing.assert_allclose(little, plain, rtol=0, atol=1e-6)  # float32
