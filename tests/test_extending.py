"""The guide's rules and layer work without a change of the core, and its drawing is the step as it runs."""

import functools
import inspect
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_gevb
from keras_gevb import datasets, layers, zoo

GUIDE = pathlib.Path(__file__).parent.parent / "docs" / "extending.md"
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@functools.cache
def guide():
    """The names that the guide's blocks define."""
    names = {"__name__": "guide"}
    for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL):
        exec(compile(block, str(GUIDE), "exec"), names)
    return names


def digits(samples=64):
    (x, y), _ = datasets.load("digits")
    return x[:samples], y[:samples]


def built(rule, vectorized, **settings):
    keras.utils.set_random_seed(1)  # whether or not the guide has just been run
    model = zoo.build("digits", "fc", vectorized, learning_rule=rule, width=0.25)
    model.compile(keras.optimizers.SGD(0.05), CROSS_ENTROPY, run_eagerly=True, **settings)
    return model


@pytest.mark.parametrize("name", ["TargetProjection", "KolenPollack", "Scaled", "Weaker"])
@pytest.mark.sampled(2)
def test_a_rule_of_the_guide_is_short_learns_and_is_saved(name, tmp_path):
    rule = guide()[name]
    model = built(rule(), rule.vectorized)
    model.compile("adam", CROSS_ENTROPY)
    x, y = digits()
    losses = model.fit(x, y, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for mine, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    # Another rule's updates beside the weights of this one.
    for update, variable in zip(
        model.compute_updates(x, y, learning_rule="backprop"), model.trainable_variables
    ):
        if "factor" in variable.path:
            np.testing.assert_array_equal(update, 0)


@pytest.mark.parametrize(
    "name", ["TargetProjection", "KolenPollack", "Scaled", "Weaker", "RadialBasis", "VectorSparseDense"]
)
def test_what_the_guide_adds_is_short(name):
    source = GUIDE.read_text().split(f"class {name}(")[1].split("```")[0].split("\nnet =")[0]
    assert len([line for line in source.splitlines() if line.strip()]) < 25


def test_kolen_pollack_feedback_draws_together_with_the_weights():
    """After each step W - V = (1 - decay) (W - V)."""
    model = built(guide()["KolenPollack"](), vectorized=False)
    pairs = model.learning_rule.feedback
    before = [np.array(w) - np.array(v) for w, v in pairs]
    for steps in (1, 2):
        model.train_on_batch(*digits(16))
        for (w, v), apart in zip(pairs, before, strict=True):
            if w.constraint is None:
                # float32, numbers of order 1
                np.testing.assert_allclose(
                    np.array(w) - np.array(v), 0.9**steps * apart, rtol=1e-5, atol=1e-6
                )


def test_target_projection_reads_labels_and_no_error_in_hidden_layers():
    model = built(guide()["TargetProjection"](), vectorized=False)
    x, y = digits(8)
    step = model.compute_step(x, y)
    *hidden, readout = step.signals()
    projection = np.array(model.learning_rule.projection)
    for signal in hidden:
        # float32 against float64
        np.testing.assert_allclose(signal, -projection[y][:, : signal.shape[1]] / len(y), rtol=1e-6)
    np.testing.assert_array_equal(readout, step.error)


def test_the_guides_layer_of_keras_learns_by_its_own_derivative():
    own = guide()["RadialBasis"](8)
    model = keras_gevb.Sequential([keras.Input((6,)), own, keras.layers.Dense(3)], learning_rule="backprop")
    model.compile("sgd", CROSS_ENTROPY)
    x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    y = np.arange(8) % 3
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True))
    exact = tape.gradient(loss, [v.value for v in model.trainable_variables])
    for update, gradient in zip(model.compute_updates(x, y), exact, strict=True):
        np.testing.assert_allclose(update, gradient, rtol=1e-5, atol=1e-7)  # float32
    before = model.get_weights()
    model.fit(x, y, verbose=0)
    assert all(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))


def test_the_guides_layer_of_vector_units_updates_what_it_sees_alone():
    chain = [keras.Input((6,)), layers.VectorDense(4, vector_dim=3), guide()["VectorSparseDense"](6)]
    model = keras_gevb.Sequential([*chain, layers.VectorReadout()], learning_rule="gevb")
    model.compile("sgd", CROSS_ENTROPY)
    x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    _, _, update, *_ = model.compute_updates(x, np.arange(8) % 3)
    sees = np.indices(update.shape).sum(axis=0) % 2 == 0
    assert np.all(np.array(update)[~sees] == 0)
    assert np.any(np.array(update)[sees] != 0)


OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "schedule": lambda: keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)),
}


COMPILED = [("gevb", "adam"), ("dfa", "momentum")]  # two are enough


@pytest.mark.parametrize(
    ("rule", "optimizer", "compiled"),
    [
        *((rule, optimizer, False) for rule in ("gevb", "backprop", "fa", "dfa") for optimizer in OPTIMIZERS),
        *((*pair, True) for pair in COMPILED),
    ],
)
@pytest.mark.sampled(3)
def test_the_step_as_a_pure_function_is_a_step_of_training(rule, optimizer, compiled):
    model = built(rule, vectorized=rule != "dfa")
    settings = {"metrics": ["accuracy"], "weighted_metrics": ["sparse_categorical_accuracy"]}
    model.compile(OPTIMIZERS[optimizer](), CROSS_ENTROPY, run_eagerly=True, **settings)
    x, y = map(tf.constant, digits(16))
    weights = tf.constant(np.random.default_rng(0).uniform(0.2, 2.0, 16), "float32")
    model.test_on_batch(x, y)  # builds the metrics, which have no state before
    model.reset_metrics()
    state, before = model.training_state(), [np.array(v) for v in model.variables]
    step = (
        tf.function(model.stateless_train_step, jit_compile=True) if compiled else model.stateless_train_step
    )
    for _ in range(2):
        logs, state = step(state, x, y, weights)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    expected = []
    for _ in range(2):
        model.reset_metrics()  # as newer `train_on_batch`es do
        expected.append(model.train_on_batch(x, y, weights, return_dict=True))
    parts = (model.trainable_variables, model.non_trainable_variables, model.optimizer.variables)
    for variables, values in zip(parts, state):
        for variable, value in zip(variables, values, strict=True):
            # Two float32 steps, compiled and not.
            np.testing.assert_allclose(value, variable, rtol=0, atol=1e-6, err_msg=variable.path)
    assert set(logs) == set(expected[0])
    for name, value in logs.items():
        # Means over two batches of one weight, in float32.
        np.testing.assert_allclose(value, np.mean([e[name] for e in expected]), rtol=1e-5, err_msg=name)


def test_the_drawing_names_what_a_step_calls_in_its_order():
    drawing = GUIDE.read_text().split("<!-- flow -->")[1].split("<!-- end of flow -->")[0]
    drawn = [name.split(".")[-1] for name in re.findall(r"^ *\w+: (\S+)", drawing, flags=re.MULTILINE)]
    called = []

    def watch(owner, name):
        method = inspect.getattr_static(owner, name)

        @functools.wraps(method)
        def watched(*args, **kwargs):
            called.append(owner.__name__ if name == "__init__" else name)
            return method(*args, **kwargs)

        patches.setattr(owner, name, watched)

    from keras_gevb import backend, step

    with pytest.MonkeyPatch.context() as patches:
        model = built(guide()["KolenPollack"](), vectorized=False)
        for cls in type(model).__mro__:
            for name in ("train_step", "_prepare", "_check_labels", "_learn", "_log"):
                if name in vars(cls) and cls.__module__.startswith("keras_gevb"):
                    watch(cls, name)
        for name in ("__init__", "assess", "updates"):
            watch(step.Step, name)
        watch(type(model.learning_rule), "remember")
        apply = backend.apply
        patches.setattr(backend, "apply", lambda *args: (called.append("apply"), apply(*args))[1])
        model.train_on_batch(*digits(8))
    assert called == drawn


def test_a_model_that_is_not_built_or_not_compiled_has_no_state_of_training():
    with pytest.raises(ValueError, match="compiled=False"):
        zoo.build("digits", "fc", width=0.25).training_state()
    late = keras_gevb.Sequential([layers.VectorDense(4, vector_dim=3), layers.VectorReadout()])
    late.compile("sgd", CROSS_ENTROPY)
    with pytest.raises(ValueError, match="built=False"):
        late.training_state()


def test_a_signal_of_another_shape_is_named():
    @keras.saving.register_keras_serializable(package="tests")
    class Wide(keras_gevb.rules.LocalRule):
        vectorized = False

        def signal(self, record, step):
            return keras.ops.ones((4, 7))

    net = keras_gevb.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, name="units"), keras.layers.Dense(3)], learning_rule=Wide()
    )
    net.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"\(4, 5\) of 'units'.*signal of shape \(4, 7\)"):
        net.compute_updates(np.ones((4, 6), "float32"), np.ones((4, 3), "float32"))


def test_an_argument_of_a_rule_comes_back(tmp_path):
    rule = guide()["Weaker"](strength=0.25, low_memory=True)
    model = built(rule, vectorized=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").learning_rule
    assert loaded.get_config() == {"strength": 0.25, "low_memory": True}


@pytest.mark.parametrize("units", [1, 3, 9])
def test_a_signal_of_another_size_than_the_layer_is_named(units):
    class Short(keras_gevb.rules.LearningRule):
        def signals(self, step):
            return [keras.ops.ones((record.gate.shape[0], units)) for record in step.records]

    network = keras.Input((6,)), layers.VectorDense(6, vector_dim=4), layers.VectorReadout()
    model = keras_gevb.Sequential(network, learning_rule=Short())
    model.compile("sgd", CROSS_ENTROPY)
    batch = np.ones((4, 6), "float32"), np.arange(4)
    if units == 1:  # one number for all units
        model.compute_updates(*batch)
        return
    with pytest.raises(ValueError, match="one number"):
        model.compute_updates(*batch)
