"""GEVB is the published rule, never opposes the gradient, and is local."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import EXACT, array, arrays, rows, step_of
from reference import softmax_cross_entropy_error
from translation import translate

from keras_gevb import rules, zoo

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("fusing", [False, True], ids=["", "fusing"])
@rows(sequential=True, nonnegative=False, large=False)
@pytest.mark.sampled(26)
def test_updates_are_the_equations(network, fusing, monkeypatch):
    # Layers write some operations otherwise where XLA compiles them.
    monkeypatch.setattr("keras_gevb.backend.fusing", lambda: fusing)
    model = network.build()
    x, y, weight = network.batch(model, size=2)
    reference, logits = translate(model, x)
    np.testing.assert_allclose(array(model(x)), logits, **EXACT)
    error = softmax_cross_entropy_error(logits, y, weight)
    expected = {"backprop": reference.exact(error)}
    if network.vectorized:
        expected["gevb"] = reference.gevb(error)
    for rule, wanted in expected.items():
        updates = arrays(model.compute_updates(x, y, weight, learning_rule=rule))
        for update, value, variable in zip(updates, wanted, model.trainable_variables, strict=True):
            message = f"{rule}, {variable.path}"
            np.testing.assert_allclose(update, value.reshape(update.shape), **EXACT, err_msg=message)


def opposed_terms(model, x):
    """How many terms of GEVB's updates oppose the gradient's, over samples, positions and uses.

    Both rules change a weight by a sum of terms credit_i (e . a_j), and differ in the credit:
    so a term opposes the gradient exactly where their credits have opposite signs.
    """
    steps = [step_of(model, x, rule) for rule in ("gevb", "backprop")]
    gates = arrays(record.gate for record in steps[0].records)
    ours, exact = (arrays(step.signals()) for step in steps)
    return sum(
        np.sum((gate * one) * (gate * other) < 0) for gate, one, other in zip(gates, ours, exact, strict=True)
    )


def opposed_weights(model, x, y):
    """How many weights GEVB's update moves against the gradient, over samples one by one."""
    count = 0
    for i in range(len(x)):
        ours, exact = (
            arrays(model.compute_updates(x[i : i + 1], y[i : i + 1], learning_rule=rule))
            for rule in ("gevb", "backprop")
        )
        count += sum(np.sum(update * gradient < 0) for update, gradient in zip(ours, exact, strict=True))
    return count


def drawn(network, seed, strength):
    """The network with other weights, of the signs it allows, and a batch."""
    model = network.build()
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        value = strength * rng.standard_normal(variable.shape)
        variable.assign(variable.constraint(value) if variable.constraint else value)
    x, y, _ = network.batch(model, seed=seed)
    return model, x, y


any_weights = given(seed=st.integers(0, 10**6), strength=st.sampled_from([0.01, 0.3, 3.0]))
few = settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@any_weights
@few
@rows(vectorized=True, nonnegative=True, large=False)
@pytest.mark.sampled(4)
def test_no_term_opposes_the_gradient(network, seed, strength):
    model, x, _ = drawn(network, seed, strength)
    assert opposed_terms(model, x) == 0


# Where a weight is used at several positions, or twice, its terms add up with different g: each
# follows the gradient, but their sum need not.
@any_weights
@few
@rows(vectorized=True, nonnegative=True, unshared=True, large=False)
@pytest.mark.sampled(2)
def test_no_weight_opposes_the_gradient(network, seed, strength):
    model, x, y = drawn(network, seed, strength)
    assert opposed_weights(model, x, y) == 0


@rows(vectorized=True, nonnegative=True, large=False)
@pytest.mark.sampled(2)
def test_no_update_opposes_the_gradient_before_and_after_training(network):
    model = network.build()
    model.run_eagerly = True  # quicker than to compile six steps
    x, y, _ = network.batch(model)
    for _ in range(2):
        assert opposed_terms(model, x) == 0
        assert network.large or not network.unshared or opposed_weights(model, x, y) == 0
        before = model.get_weights()
        model.fit(x, y, epochs=3, verbose=0)
        assert not all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@rows(vectorized=True, nonnegative=False, large=False)
@pytest.mark.sampled(3)
def test_updates_oppose_the_gradient_in_mixed_sign_networks(network):
    model = network.build()
    x, y, _ = network.batch(model)
    assert opposed_terms(model, x) > 0
    assert opposed_weights(model, x, y) > 0


def updates_with_error_held(model, x, rule, error):
    """The updates of every weight use, in order, given the error vector."""
    step = step_of(model, x, rule, error)
    return [
        [array(update) for _, update in record.updates(signal, step.error)]
        for record, signal in zip(step.records, step.signals(), strict=True)
    ]


def later_layers(model, x):
    """(number of records before its first use, layer) for every layer but the first."""
    order = [record.layer for record in step_of(model, x).records]
    return [(place, layer) for place, layer in enumerate(order) if place and order.index(layer) == place]


def perturb(layer):
    rng = np.random.default_rng(3)
    for variable in layer.trainable_variables:
        variable.assign(variable + rng.uniform(0.5, 1.0, variable.shape))


def changed(before, after):
    return [
        any(not np.array_equal(u, v) for u, v in zip(b, a, strict=True))
        for b, a in zip(before, after, strict=True)
    ]


@rows(vectorized=True, large=False)
@pytest.mark.sampled(6)
def test_gevb_given_the_error_depends_on_no_later_weight(network):
    model = network.build()
    x, _, _ = network.batch(model)
    error = np.random.default_rng(4).standard_normal((len(x), model.output_shape[-1]))
    for place, layer in later_layers(model, x):
        before = updates_with_error_held(model, x, "gevb", error)
        perturb(layer)
        after = updates_with_error_held(model, x, "gevb", error)
        assert not any(changed(before[:place], after[:place])), layer.name


@rows(vectorized=True, sequential=True, large=False)
@pytest.mark.sampled(5)
def test_backprop_given_the_error_depends_on_every_later_weight(network):
    model = network.build()
    x, _, _ = network.batch(model)
    error = np.random.default_rng(4).standard_normal((len(x), model.output_shape[-1]))
    for place, layer in later_layers(model, x):
        before = updates_with_error_held(model, x, "backprop", error)
        perturb(layer)
        after = updates_with_error_held(model, x, "backprop", error)
        assert all(changed(before[:place], after[:place])), layer.name


def test_with_little_memory_no_activity_is_kept():
    model = zoo.build("digits", "fc", width=0.1, learning_rule=rules.GEVB(low_memory=True))
    step = step_of(model, np.ones((2, *model.input_shape[1:]), "float32"))
    assert all(record.inputs is None and record.gate is None for record in step.records)
