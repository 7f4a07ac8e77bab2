"""What a rule remembers, under whatever Keras makes of a step."""

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from workflows import NOISY, OTHER_RULES, assert_same_weights, build, compiled, conventional, data, sequential

import keras_gevb
from keras_gevb import rules

every_rule = pytest.mark.parametrize("name", OTHER_RULES)
REMEMBERING = [name for name in OTHER_RULES if rules.get(name).remembers()]
every_memory = pytest.mark.parametrize("name", REMEMBERING)
SETTINGS = {"batch_size": 8, "shuffle": False, "verbose": 0}

# Those that need a trace or a compilation: a few of each kind in every run, all in the long one.
SOME = "kp", "dkp", "node_perturbation", "ebd", "local_error"
TRACES = {n: pytest.param(n, marks=[] if n in SOME else [pytest.mark.long]) for n in OTHER_RULES}
every_trace = pytest.mark.parametrize("name", TRACES.values())
# XLA draws other random numbers than TensorFlow does without it.
every_trace_without_draws = pytest.mark.parametrize(
    "name", [trace for name, trace in TRACES.items() if name not in (*NOISY, "brsf")]
)


def twins(name, **settings):
    """Two models with the same weights, those of the rule too."""
    models = [compiled(build("conventional", name), **settings) for _ in range(2)]
    config = models[0].get_config()
    models[1] = compiled(type(models[0]).from_config(config), **settings)
    models[1].set_weights(models[0].get_weights())
    return models


def test_rules_that_remember_are_these():
    assert REMEMBERING == ["brsf", "kp", "dkp", "node_perturbation", "fdfa", "ebd"]
    assert not any(rules.get(name).remembers() for name in ("gevb", "backprop", "dfa", "fa"))


@every_trace
@pytest.mark.sampled(1)
def test_three_steps_per_execution_are_three_steps(name):
    one, three = twins(name)
    one.compile(keras.optimizers.SGD(0.1), one.loss, jit_compile=False)
    three.compile(keras.optimizers.SGD(0.1), one.loss, jit_compile=False, steps_per_execution=3)
    for model in (one, three):
        model.fit(*data(24), **SETTINGS)
    # Float32, the same operations in another graph.
    assert_same_weights(three, one, atol=1e-6)


@every_trace_without_draws
@pytest.mark.sampled(1)
def test_a_compiled_step_is_the_step(name):
    eager, xla = twins(name)
    xla.compile(keras.optimizers.SGD(0.1), xla.loss, jit_compile=True)
    for model in (eager, xla):
        model.fit(*data(16), **SETTINGS)
    assert_same_weights(xla, eager, atol=1e-6)


@pytest.mark.parametrize("name", [*REMEMBERING, "local_error"])
@pytest.mark.sampled(4)
def test_the_step_as_a_pure_function_carries_the_memory(name):
    pure, model = twins(name, optimizer=None)
    for each in (pure, model):
        each.compile(keras.optimizers.SGD(0.1), each.loss, run_eagerly=True)
    x, y = map(tf.constant, data(8))
    state, before = pure.training_state(), pure.get_weights()
    for _ in range(2):
        _, state = pure.stateless_train_step(state, x, y)
        model.train_on_batch(x, y)
    for one, other in zip(pure.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    for variables, values in zip((model.trainable_variables, model.non_trainable_variables), state):
        for variable, value in zip(variables, values, strict=True):
            np.testing.assert_allclose(value, variable, rtol=0, atol=1e-6, err_msg=variable.path)


@every_memory
@pytest.mark.sampled(3)
def test_adding_up_gradients_of_a_batch_twice_is_one_step(name):
    """The memory moves once, with the weights: after the second of two equal batches."""
    once, twice = twins(name)
    twice.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), twice.loss, run_eagerly=True)
    start = twice.get_weights()
    x, y = data(8)
    once.train_on_batch(x, y)
    twice.train_on_batch(x, y)
    for one, other in zip(twice.get_weights(), start, strict=True):
        np.testing.assert_array_equal(one, other)
    twice.train_on_batch(x, y)
    assert_same_weights(twice, once, atol=1e-6)


@pytest.fixture
def half():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


@every_rule
def test_a_step_that_overflows_changes_nothing(name, half):
    model = compiled(build("conventional", name))
    x, y = data()
    model.train_on_batch(x, y)
    before, scale = model.get_weights(), float(model.optimizer.dynamic_scale)
    model.train_on_batch(x, y, sample_weight=np.full(len(x), 1e6, "float32"))
    assert float(model.optimizer.dynamic_scale) == scale / 2
    for mine, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@every_rule
def test_updates_and_memory_do_not_know_the_scale_of_a_loss(name):
    """A scale of 2^10 changes no bit that matters: the optimizer divides updates, the rule its own e."""
    plain, scaled = twins(name)
    factor = 2.0**10
    plain.compile(keras.optimizers.SGD(0.1), plain.loss, run_eagerly=True)
    scaled.compile(keras.optimizers.SGD(0.1, loss_scale_factor=factor), plain.loss, run_eagerly=True)
    x, y = data(8)
    weight = np.linspace(0.5, 2, 8)
    for model in (plain, scaled):
        model.train_on_batch(x, y, sample_weight=weight)
    assert_same_weights(scaled, plain, atol=1e-6)


@every_memory
@pytest.mark.sampled(2)
def test_averages_of_weights_leave_the_memory_alone(name):
    plain, averaged = twins(name)
    averaged.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), plain.loss, run_eagerly=True)
    for model in (plain, averaged):
        model.fit(*data(16), **SETTINGS)
    for one, other in zip(plain.learning_rule.variables, averaged.learning_rule.variables, strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), rtol=0, atol=1e-6)


@every_rule
def test_weights_of_a_rule_do_not_train_and_feedback_is_named_so(name):
    rule = conventional(name).learning_rule
    own = {"classifier"} if name == "local_error" else set()
    for variable in rule.variables:
        kind = variable.name.split("_")[0]
        assert variable.trainable == (kind in own)
        assert kind in {"feedback", "noise", "covariance"} | own
        assert name not in ("frsf", "brsf", "kp", "dkp", "sdfa", "drtp", "fdfa", "ebd") or any(
            "feedback" in v.path for v in rule.variables
        )


BAD = {
    "a negative decay": (lambda: rules.KP(decay=-0.1), ["KP", "decay", "-0.1"]),
    "a decay above 1": (lambda: rules.DKP(decay=1.5), ["DKP", "decay", "1.5", "between 0 and 1"]),
    "a negative rate": (lambda: rules.DKP(rate=-1), ["DKP", "rate", "-1"]),
    "a rate that is no number": (lambda: rules.FDFA(rate="0.1"), ["FDFA", "rate", "'0.1'"]),
    "a rate that is not finite": (lambda: rules.DKP(rate=float("inf")), ["DKP", "rate", "inf"]),
    "a rate that is NaN": (lambda: rules.FDFA(rate=float("nan")), ["FDFA", "rate", "nan"]),
    "no samples": (lambda: rules.NodePerturbation(samples=0), ["samples", "positive", "0"]),
    "a negative term": (lambda: rules.EBD(entropy=-1), ["EBD", "entropy", "-1"]),
    "memory above 1": (lambda: rules.EBD(memory=2), ["EBD", "memory", "2"]),
    "a negative start": (lambda: rules.EBD(start=-1), ["EBD", "start", "-1"]),
    "no epsilon": (lambda: rules.EBD(epsilon=0), ["EBD", "epsilon", "positive", "0"]),
}


@pytest.mark.parametrize("case", BAD)
def test_an_argument_that_cannot_be_meant_is_named(case):
    make, words = BAD[case]
    with pytest.raises(ValueError) as raised:  # noqa: PT011, the words are checked below
        make()
    for word in words:
        assert word in str(raised.value)


def untouched(model, fit, words):
    """`fit` is refused in these words, and leaves every weight as it was."""
    before = model.get_weights()
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        fit()
    for word in words:
        assert word in str(raised.value)
    for mine, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", ["sdfa", "drtp", "ebd", "local_error"])
@pytest.mark.sampled(2)
def test_a_rule_refuses_units_that_it_does_not_serve(name):
    model = compiled(sequential(name))
    untouched(model, lambda: model.fit(*data(8), verbose=0), ["conventional", "lower", "vector"])


@pytest.mark.parametrize("name", ["drtp", "local_error"])
def test_rules_of_classes_refuse_regression(name):
    model = compiled(conventional(name), loss="mse")
    targets = np.zeros((8, 4), "float32")
    untouched(model, lambda: model.fit(data(8)[0], targets, verbose=0), ["classes", "mse", "DFA"])


@pytest.mark.parametrize("name", ["drtp", "local_error"])
def test_one_hot_targets_are_the_labels(name):
    sparse, onehot = twins(name)
    onehot.compile(
        keras.optimizers.SGD(0.1), keras.losses.CategoricalCrossentropy(from_logits=True), run_eagerly=True
    )
    x, y = data(8)
    sparse.train_on_batch(x, y)
    onehot.train_on_batch(x, np.eye(4, dtype="float32")[y])
    assert_same_weights(onehot, sparse, atol=1e-6)


def test_decorrelation_needs_a_hidden_layer():
    from keras_gevb import Sequential, layers

    only = [keras.Input((6,)), layers.Dense(3, gated=False, name="only")]
    model = compiled(Sequential(only, learning_rule="ebd"))
    x, y = np.ones((4, 6), "float32"), np.arange(4) % 3
    untouched(model, lambda: model.fit(x, y, verbose=0), ["EBD", "hidden layer", "only"])


@pytest.fixture(scope="module")
def files_of_rules(tmp_path_factory):
    """By a rule's name, a file of weights; "unnamed" is one of Kolen-Pollack without that name."""
    folder = tmp_path_factory.mktemp("rules")
    files = {name: folder / f"{name}.weights.h5" for name in ("dkp", "dfa", "fa", "kp", "unnamed")}
    for name, path in files.items():
        conventional("kp" if name == "unnamed" else name).save_weights(path)
    with h5py.File(files["unnamed"], "a") as file:
        del file["vars"]["learning_rule"]
    return files


@pytest.mark.parametrize(
    ("saved", "into", "words"),
    [
        ("dkp", "ebd", ["another learning rule than EBD", "DKP"]),
        ("dfa", "dkp", ["another learning rule than DKP", "DFA"]),
        ("fa", "kp", ["another learning rule than KP", "FA"]),  # of the same shapes
        ("unnamed", "node_perturbation", ["may be", "another learning rule"]),
    ],
)
def test_a_file_of_another_rule_is_refused_and_changes_nothing(saved, into, words, files_of_rules):
    model = conventional(into)
    untouched(model, lambda: model.load_weights(files_of_rules[saved]), words)


@pytest.mark.parametrize("saved", ["kp", "unnamed"])
def test_a_file_of_the_rule_is_loaded_whatever_its_seed(saved, files_of_rules):
    one, two = conventional(rules.KP(seed=1)), conventional(rules.KP(seed=2))
    for model in (one, two):
        model.load_weights(files_of_rules[saved])
    assert_same_weights(one, two, atol=0)


SEEDED = rules.FRSF, rules.BRSF, rules.DKP, rules.FDFA, rules.EBD, rules.LocalError


@pytest.mark.parametrize("rule", SEEDED, ids=lambda rule: rule.__name__)
def test_layers_of_one_size_have_feedback_of_their_own(rule):
    units = [keras_gevb.layers.Dense(6) for _ in range(3)]
    ends = keras.Input((6,)), *units, keras_gevb.layers.Dense(6, gated=False)
    made = keras_gevb.Sequential(ends, learning_rule=rule(seed=7)).learning_rule.variables
    found = [np.asarray(v) for v in made if v.name.startswith(("feedback", "classifier"))]
    assert len(found) >= 3
    for n, one in enumerate(found):
        assert not any(np.array_equal(one, other) for other in found[:n])


def test_covariances_are_averaged_over_the_uses_of_a_layer():
    inputs, shared = keras.Input((6,)), keras_gevb.layers.Dense(6)
    outputs = keras_gevb.layers.Dense(3, gated=False)(shared(shared(inputs)))
    model = compiled(
        keras_gevb.Model(inputs, outputs, learning_rule=rules.EBD(memory=0.0)), keras.optimizers.SGD(0.0)
    )
    x, y = np.random.default_rng(0).standard_normal((8, 6)).astype("float32"), np.arange(8) % 3
    activity = [np.asarray(record.outputs) for record in model.compute_step(x, y).hidden]
    model.train_on_batch(x, y)
    (covariance,) = [v for v in model.learning_rule.variables if v.name.startswith("covariance")]
    np.testing.assert_allclose(
        covariance, np.mean([h.T @ h / 8 for h in activity], axis=0), rtol=1e-4, atol=1e-5
    )


def test_one_hot_targets_of_binary_losses_are_classes_too():
    updates = []
    for loss in (keras.losses.BinaryCrossentropy, keras.losses.CategoricalCrossentropy):
        keras.utils.set_random_seed(1)
        ends = keras.Input((6,)), keras_gevb.layers.Dense(6), keras_gevb.layers.Dense(3, gated=False)
        model = keras_gevb.Sequential(ends, learning_rule=rules.DRTP(seed=1))
        model.compile("sgd", loss(from_logits=True))
        updates.append(model.compute_updates(np.ones((4, 6), "float32"), np.eye(3)[[0, 1, 2, 0]])[0])
    # Hidden units are told the target, whatever the loss.
    np.testing.assert_allclose(*updates, rtol=1e-6)
