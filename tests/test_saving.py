"""Models survive files, copies and clones: their function, their rule, their optimizer's state."""

import copy
import inspect
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from workflows import ROWS, assert_same_weights, build, chain, compiled, data, graph, sequential, twin

import keras_gevb
from keras_gevb import rules

rows = pytest.mark.parametrize(("name", "rule"), ROWS, ids=["-".join(row) for row in ROWS])


def trained(name, rule):
    model = compiled(build(name, rule), keras.optimizers.Adam(0.01))
    model.train_on_batch(*data())
    return model


def assert_goes_on_alike(model, other):
    """One more step moves both to the same weights: the same rule, feedback and optimizer state."""
    assert repr(other.learning_rule) == repr(model.learning_rule)
    x, y = data(seed=1)
    before = [w.copy() for w in model.get_weights()]
    model.train_on_batch(x, y)
    other.train_on_batch(x, y)
    # The same operations on the same numbers: only the order of threads' sums may differ.
    assert_same_weights(model, other, atol=1e-6)
    assert any(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))


@rows
@pytest.mark.sampled(3)
def test_a_loaded_model_computes_the_same_and_goes_on_training_alike(name, rule, tmp_path):
    model = trained(name, rule)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)  # safe mode, no custom_objects
    assert type(loaded) is type(model)
    x, _ = data(seed=2)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    for mine, theirs in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    assert_goes_on_alike(model, loaded)


@rows
@pytest.mark.sampled(2)
def test_a_weight_file_carries_gates_and_feedback_to_a_model_of_other_seeds(name, rule, tmp_path):
    model = trained(name, rule)
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    keras.utils.set_random_seed(5)
    other = compiled(build(name, rule), keras.optimizers.Adam(0.01))
    other.load_weights(path)
    assert_same_weights(model, other, atol=0)
    x, y = data()
    for mine, theirs in zip(other.compute_updates(x, y), model.compute_updates(x, y), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize(
    ("name", "rule"), [("sequential", "backprop"), ("graph", "fa"), ("conventional", "dfa")]
)
@pytest.mark.sampled(1)
def test_a_copy_is_another_model_that_goes_on_training_alike(name, rule, duplicate):
    model = trained(name, rule)
    other = duplicate(model)
    assert other.learning_rule is not model.learning_rule
    assert_goes_on_alike(model, other)


@rows
def test_a_model_from_its_config_has_the_same_rule_and_layers(name, rule):
    model = build(name, rule)
    other = type(model).from_config(model.get_config())
    assert repr(other.learning_rule) == repr(model.learning_rule)
    assert [w.shape for w in other.get_weights()] == [w.shape for w in model.get_weights()]


@pytest.mark.parametrize(("name", "rule"), [row for row in ROWS if "graph" in row[0]])
@pytest.mark.sampled(3)
def test_a_clone_of_a_compiled_functional_model_keeps_the_rule(name, rule):
    model = compiled(build(name, rule))
    clone = keras.models.clone_model(model)
    assert isinstance(clone, keras_gevb.Model)
    assert repr(clone.learning_rule) == repr(model.learning_rule)
    clone.set_weights(model.get_weights())
    assert_goes_on_alike(model, clone)


def test_a_clone_has_feedback_of_its_own():
    model = compiled(graph("fa"))
    clone = keras.models.clone_model(model)
    mine, theirs = ({id(v) for v in each.learning_rule.variables} for each in (model, clone))
    assert len(mine) == len(theirs) == 5
    assert not mine & theirs


def test_a_clone_that_keras_would_make_a_stock_model_fails_instead_of_learning_by_autodiff():
    """Keras clones every Sequential as keras.Sequential, whose `compile` knows no learning rule."""
    with pytest.raises(ValueError, match=r"type\(model\)\.from_config.*learning_rule=Backprop"):
        keras.models.clone_model(compiled(sequential("backprop")))


def test_a_stock_model_of_our_layers_learns_by_autodiff_if_it_was_made_so():
    stock = compiled(twin(sequential()))
    before = stock.get_weights()
    stock.fit(*data(), verbose=0)
    assert any(np.any(a != b) for a, b in zip(before, stock.get_weights(), strict=True))


def test_one_rule_given_to_two_models_has_feedback_in_each():
    rule = keras_gevb.rules.DFA(seed=1)
    first, second = sequential(rule, vectorized=False), graph_of_width(rule, 3)
    assert first.learning_rule.feedback is not second.learning_rule.feedback
    assert first.learning_rule.feedback.shape != second.learning_rule.feedback.shape


def graph_of_width(rule, units):
    inputs = keras.Input((5,))
    hidden = keras_gevb.layers.Dense(units)(inputs)
    return keras_gevb.Model(inputs, keras_gevb.layers.Dense(2, gated=False)(hidden), learning_rule=rule)


def test_updates_by_another_rule_leave_that_rule_as_it_was():
    other = sequential("dfa", vectorized=False).learning_rule
    feedback = other.feedback
    compiled(sequential("backprop", vectorized=False)).compute_updates(*data(), learning_rule=other)
    assert other.feedback is feedback


# rule, whether its units are vectors: every argument of every rule, other than by default
RULES = [
    (rules.GEVB(low_memory=True), True),
    (rules.Backprop(), True),
    (rules.FA(seed=3), True),
    (rules.FA(seed=3), False),
    (rules.DFA(nonnegative=True, seed=3), False),
    (rules.DFA(nonnegative=False, seed=4), False),
    (rules.DFA(seed=4, low_memory=True), False),
    (rules.USF(), True),
    (rules.FRSF(seed=3), False),
    (rules.BRSF(seed=3), False),
    (rules.KP(decay=0.2, seed=3), True),
    (rules.DKP(rate=0.2, decay=0.3, nonnegative=True, seed=3), False),
    (rules.DKP(seed=3), True),
    (rules.SDFA(nonnegative=True, seed=3, low_memory=True), False),
    (rules.DRTP(nonnegative=True, seed=3, low_memory=True), False),
    (rules.NodePerturbation(samples=2, seed=3), True),
    (rules.FDFA(rate=0.2, nonnegative=True, seed=3), False),
    (rules.EBD(entropy=0.1, power=0.2, level=0.3, memory=0.4, epsilon=0.5, start=0.6, seed=3), False),
    (rules.LocalError(seed=3), False),
]
every_rule = pytest.mark.parametrize(("rule", "vectorized"), RULES, ids=lambda value: str(value))


def test_every_argument_of_every_rule_is_in_the_table():
    for name in {*rules.__all__} - {"LearningRule", "LocalRule", "get"}:
        rows = [rule for rule, _ in RULES if type(rule).__name__ == name]
        assert rows, name
        for argument, parameter in inspect.signature(getattr(rules, name)).parameters.items():
            assert any(getattr(rule, argument) != parameter.default for rule in rows), argument


@every_rule
def test_every_argument_of_a_rule_is_saved_with_the_model(rule, vectorized, tmp_path):
    model = compiled(sequential(rule, vectorized=vectorized))
    model.save(tmp_path / "model.keras")
    for restored in (
        keras.models.load_model(tmp_path / "model.keras").learning_rule,
        type(model).from_config(model.get_config()).learning_rule,
        rules.get(keras.saving.serialize_keras_object(rule)),
        pickle.loads(pickle.dumps(model)).learning_rule,
    ):
        assert type(restored) is type(rule)
        for name in inspect.signature(type(rule)).parameters:
            assert getattr(restored, name) == getattr(rule, name), name


@every_rule
@pytest.mark.sampled(2)
def test_a_model_built_by_its_first_call_is_saved_with_the_weights_of_its_rule(rule, vectorized, tmp_path):
    """No keras.Input: its layers, and so the rule's weights, are built later."""
    x, y = data()
    x = x.astype("float32")
    model = keras_gevb.Sequential(chain(vectorized)[1:], learning_rule=rule)
    model(x)
    compiled(model)
    model.save_weights(tmp_path / "model.weights.h5")  # before anything else needs the rule's weights
    model.save(tmp_path / "model.keras")
    expected = model.compute_updates(x, y)
    keras.utils.set_random_seed(5)
    other_seed = type(rule)(**{**rule.get_config(), **({"seed": 99} if "seed" in rule.get_config() else {})})
    other = keras_gevb.Sequential(chain(vectorized)[1:], learning_rule=other_seed)
    other(x)
    compiled(other).load_weights(tmp_path / "model.weights.h5")
    for loaded in (keras.models.load_model(tmp_path / "model.keras"), other):
        loaded.run_eagerly = True
        for update, wanted in zip(loaded.compute_updates(x, y), expected, strict=True):
            np.testing.assert_allclose(update, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("suffix", ["keras", "weights.h5"])
@pytest.mark.parametrize(("rule", "vectorized"), [("fa", True), ("fa", False), ("dfa", False)])
def test_feedback_that_was_changed_is_saved(rule, vectorized, suffix, tmp_path):
    """Not drawn anew from its seed."""
    model = compiled(sequential(rule, vectorized=vectorized))
    feedback = [v for v in model.non_trainable_variables if v.name.startswith("feedback")]
    assert feedback
    for number, variable in enumerate(feedback):
        variable.assign(np.full(variable.shape, number + 0.5))
    path = tmp_path / f"model.{suffix}"
    if suffix == "keras":
        model.save(path)
        loaded = keras.models.load_model(path)
    else:
        model.save_weights(path)
        loaded = compiled(sequential(rule, vectorized=vectorized))
        loaded.load_weights(path)
    found = [v for v in loaded.non_trainable_variables if v.name.startswith("feedback")]
    for number, variable in enumerate(found):
        np.testing.assert_array_equal(variable, number + 0.5)


@keras.saving.register_keras_serializable(package="tests")
class WithAnUnusedPart(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.used, self.unused = keras.layers.Dense(5), keras.layers.Dense(5)

    def build(self, shape):
        self.used.build(shape)

    def call(self, inputs):
        return keras.ops.relu(self.used(inputs))


PARTLY_BUILT = {
    "an unused part": lambda rule: keras_gevb.Sequential(
        [keras.Input((6,)), WithAnUnusedPart(), keras.layers.Dense(3)], learning_rule=rule
    ),
    "words": lambda rule: keras_gevb.Sequential(
        [
            keras.Input((1,), dtype="string"),
            keras.layers.TextVectorization(vocabulary=["a", "b", "c"], output_mode="multi_hot"),
            *(keras.layers.Dense(4), keras.layers.Dense(3)),
        ],
        learning_rule=rule,
    ),
}


@pytest.mark.parametrize("name", PARTLY_BUILT)
@pytest.mark.parametrize("rule", ["dfa", "fa", "kp", "backprop"])
@pytest.mark.sampled(2)
def test_a_model_with_a_part_that_is_never_built_comes_back(name, rule, tmp_path):
    make = PARTLY_BUILT[name]
    x, y = np.random.default_rng(0).normal(size=(8, 6)).astype("float32"), np.arange(8) % 3
    if name == "words":
        x = tf.constant([["a b"], ["c"], ["b c a"], ["a"]] * 2)
    model = make(rule)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
    model.train_on_batch(x, y)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    other = make(rule)
    other.load_weights(tmp_path / "model.weights.h5")
    others = [keras.models.load_model(tmp_path / "model.keras"), pickle.loads(pickle.dumps(model)), other]
    for other in others:
        assert_same_weights(model, other, atol=0)


@pytest.mark.parametrize("rule", ["backprop", "dfa", "fa", "kp", "ebd"])
@pytest.mark.sampled(3)
def test_a_checkpoint_of_tensorflow_holds_the_weights_of_the_rule(rule, tmp_path):
    def make(seed):
        keras.utils.set_random_seed(seed)
        hidden, readout = keras.layers.Dense(5, activation="relu"), keras.layers.Dense(3)
        model = keras_gevb.Sequential([keras.Input((6,)), hidden, readout], learning_rule=rule)
        model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
        return model

    model, other = make(1), make(2)
    x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    model.train_on_batch(x, x[:, :3])
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    assert_same_weights(model, other, atol=0)
    # Another rule in the place of the first holds its own weights, and no others.
    for another in ("fa", "backprop"):
        other._set_learning_rule(another)
        names = {name for name, _ in tf.train.list_variables(tf.train.Checkpoint(model=other).save(path))}
        held = {name.split("/")[1] for name in names if "learning_rule" in name}
        assert held == {f"learning_rule_{n}" for n in range(len(other.learning_rule.variables))}
