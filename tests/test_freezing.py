"""Layers are frozen, freed, added, removed, given adapters: a rule's weights for the others stay."""

import keras
import numpy as np
import pytest
from networks import array, arrays
from workflows import OTHER_RULES

import keras_gevb

pytestmark = pytest.mark.usefixtures("float64")

CLASSES = 4
NAMES = "lower", "middle", "upper", "logits"
every_rule = pytest.mark.parametrize("rule", ["backprop", "fa", "dfa", *OTHER_RULES])
every_layer = pytest.mark.parametrize("name", NAMES)


def stock(*frozen):
    sizes = 9, 5, 8, CLASSES
    chain = [
        keras.layers.Dense(
            units, "tanh" if name != "logits" else None, name=name, trainable=name not in frozen
        )
        for name, units in zip(NAMES, sizes)
    ]
    return keras.Sequential([keras.Input((6,)), *chain])


def data(samples=8):
    rng = np.random.default_rng(0)
    return rng.standard_normal((samples, 6)), np.arange(samples) % CLASSES


def compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
    return model


def trained(rule, *frozen):
    """A network that has learned for two steps, so that what a rule learns is not as it was drawn."""
    model = compiled(keras_gevb.convert(stock(*frozen), rule))
    model.fit(*data(), batch_size=4, verbose=0)
    return model


def updates(model):
    return {v.path: array(u) for v, u in zip(model.trainable_variables, model.compute_updates(*data()))}


def freeze(model, name, trainable=False):
    model.get_layer(name).trainable = trainable
    return compiled(model)


@every_layer
@every_rule
@pytest.mark.sampled(4)
def test_freezing_a_layer_changes_no_more_than_that_it_is_not_updated(rule, name):
    model = trained(rule)
    before, weights = updates(model), arrays(model.learning_rule.variables)
    after = updates(freeze(model, name))
    assert before.keys() - after.keys() == {v.path for v in model.get_layer(name).weights}
    for path, update in after.items():
        np.testing.assert_array_equal(update, before[path], err_msg=path)
    again = updates(freeze(model, name, trainable=True))
    assert again.keys() == before.keys()
    for mine, old in zip(model.learning_rule.variables, weights, strict=True):
        np.testing.assert_array_equal(array(mine), old)


@pytest.mark.parametrize("kind", ["keras", "weights"])
@every_rule
@pytest.mark.sampled(2)
def test_a_file_says_which_layers_the_rule_has_weights_for(rule, kind, tmp_path):
    model = freeze(trained(rule), "lower")
    if kind == "keras":
        model.save(tmp_path / "model.keras")
        other = keras.saving.load_model(tmp_path / "model.keras")
    else:
        model.save_weights(tmp_path / "model.weights.h5")
        other = compiled(keras_gevb.convert(stock("lower"), model.learning_rule))
        other.load_weights(tmp_path / "model.weights.h5")
    expected, found = updates(model), updates(other)
    for mine, theirs in zip(found.values(), expected.values(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@every_rule
@pytest.mark.sampled(2)
def test_a_file_of_a_frozen_network_goes_into_one_that_learns(rule, tmp_path):
    model = trained(rule, "lower")
    model.save_weights(tmp_path / "model.weights.h5")
    other = compiled(keras_gevb.convert(stock(), model.learning_rule))
    other.load_weights(tmp_path / "model.weights.h5")
    kept = [
        v
        for v in other.learning_rule.variables
        if any(_begins_with(v, w) for w in model.learning_rule.variables)
    ]
    assert len(kept) == len(model.learning_rule.variables)


def _begins_with(variable, other):
    """Whether the values of one begin with those of the other, in every extent."""
    if len(variable.shape) != len(other.shape):
        return False
    corner = array(variable)[tuple(slice(extent) for extent in other.shape)]
    return np.array_equal(corner, array(other))


@every_rule
@pytest.mark.sampled(3)
def test_what_is_freed_joins_and_the_rule_keeps_its_weights_for_the_others(rule):
    model = trained(rule, "lower")
    weights = list(model.learning_rule.variables)
    found = updates(freeze(model, "lower", trainable=True))
    assert any("lower" in path for path in found)
    for old in weights:
        assert any(_begins_with(v, old) for v in model.learning_rule.variables), old.path


@every_rule
@pytest.mark.sampled(3)
def test_layers_that_are_added_and_removed_leave_the_others_their_feedback(rule):
    model = trained(rule)
    weights = list(model.learning_rule.variables)
    model.pop()
    model.add(keras.layers.Dense(7, "tanh", name="more"))
    model.add(keras.layers.Dense(CLASSES, name="others"))
    updates(compiled(model))
    for old in weights:
        if old.shape[:1] != (8,):  # that of the last layer's kernel, which has other inputs
            assert any(_begins_with(v, old) for v in model.learning_rule.variables), old.path


@pytest.mark.parametrize("rule", ["fa", "kp"])
def test_adapters_get_feedback_and_the_kernel_keeps_its_own(rule, tmp_path):
    """Of W + A B the signal passes V + V_A V_B."""
    model = trained(rule)
    model.get_layer("upper").enable_lora(2)
    before = {kernel.path: array(v) for kernel, v in model.learning_rule.feedback}
    compiled(model).fit(*data(), verbose=0)
    feedback = {kernel.path: array(v) for kernel, v in model.learning_rule.feedback}
    added = feedback.keys() - before.keys()
    assert sorted(path.split("/")[-1] for path in added) == ["lora_kernel_a", "lora_kernel_b"]
    model.save(tmp_path / "model.keras")
    other = keras.saving.load_model(tmp_path / "model.keras")
    for mine, theirs in zip(other.learning_rule.variables, model.learning_rule.variables, strict=True):
        np.testing.assert_array_equal(array(mine), array(theirs))
    if rule == "fa":
        for path, value in before.items():
            np.testing.assert_array_equal(feedback[path], value)
        step = model.compute_step(*data())
        upper = next(path for path in feedback if path.endswith("upper/kernel"))
        root = upper.removesuffix("kernel")
        on_the_way_back = (
            feedback[upper] + feedback[f"{root}lora_kernel_a"] @ feedback[f"{root}lora_kernel_b"]
        )
        middle, last = step.backward(feedback=model.learning_rule.feedback)[1:3]
        slope = 1 - array(step.records[2].outputs) ** 2
        expected = (array(last) * slope) @ on_the_way_back.T
        np.testing.assert_allclose(array(middle), expected, rtol=0, atol=1e-6)  # Keras's adapters are float32


@pytest.mark.parametrize("rule", ["backprop", "dfa"])
def test_what_learns_is_asked_anew_between_two_fits(rule):
    """As in Keras: `trainable` counts from the next `compile` on."""
    x, y = np.random.default_rng(0).normal(size=(16, 6)).astype("float32"), np.arange(16) % 3
    middle = keras.layers.Dense(5, "tanh", trainable=False)
    model = keras_gevb.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, "tanh"), middle, keras.layers.Dense(3)], learning_rule=rule
    )
    for learns in (False, True, False):
        middle.trainable = learns
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, run_eagerly=True)
        before = [np.array(layer.kernel) for layer in model.layers]
        model.fit(x, y, verbose=0)
        moved = [bool(np.any(layer.kernel != old)) for layer, old in zip(model.layers, before)]
        assert moved == [True, learns, True]
