"""Every rule's signals, state and steps are its equations, written again in NumPy loops."""

import keras
import numpy as np
import pytest
import reference_rules as written
from networks import EXACT, NETWORKS, array, arrays
from reference import softmax_cross_entropy_error
from translation import stored, translate

from keras_gevb import rules

pytestmark = pytest.mark.usefixtures("float64")

# rule: the rule by its equations, whether it serves vector units too
RULES = {
    "usf": (lambda: rules.USF(), written.USF, True),
    "frsf": (lambda: rules.FRSF(seed=3), written.FRSF, True),
    "brsf": (lambda: rules.BRSF(seed=3), written.FRSF, True),
    "kp": (lambda: rules.KP(decay=0.1, seed=3), written.KP, True),
    "dkp": (lambda: rules.DKP(rate=0.2, decay=0.1, seed=3), written.DKP, True),
    "sdfa": (lambda: rules.SDFA(seed=3), written.SDFA, False),
    "drtp": (lambda: rules.DRTP(seed=3), written.DRTP, False),
    "node_perturbation": (lambda: rules.NodePerturbation(seed=3), written.NodePerturbation, True),
    "fdfa": (lambda: rules.FDFA(rate=0.2, seed=3), written.FDFA, True),
    "ebd": (lambda: rules.EBD(entropy=0.2, power=0.3, level=0.5, memory=0.7, seed=3), written.EBD, False),
    "local_error": (lambda: rules.LocalError(seed=3), written.LocalError, False),
}
# Keras takes them through float32, so numbers that it has exactly.
RATE, MOMENTUM, BETAS = 2**-4, 1 - 2**-3, (1 - 2**-3, 1 - 2**-7)
OPTIMIZERS = {
    "momentum": (
        lambda: keras.optimizers.SGD(RATE, momentum=MOMENTUM),
        lambda: written.SGD(RATE, MOMENTUM),
    ),
    "adam": (lambda: keras.optimizers.Adam(RATE / 8, *BETAS), lambda: written.Adam(RATE / 8, *BETAS)),
}
SHAPES = {"fc": "digits-fc", "conv": "conv-stride-1-same"}
CROSSED = ("fc", "adam"), ("conv", "momentum")
ROWS = [
    pytest.param(
        *(rule, shape, optimizer, vectorized),
        marks=[pytest.mark.long] if (shape, optimizer) in CROSSED and not vectorized else [],
    )
    for rule, (_, _, both) in RULES.items()
    for shape, optimizer in (("fc", "momentum"), ("conv", "adam"), ("conv", "momentum"), ("fc", "adam"))
    for vectorized in ([False, True] if both else [False])
    # Vector units take the same way, once for each shape.
    if not vectorized or (shape, optimizer) in CROSSED
]
STEPS = 5


def network(rule, shape="fc", vectorized=False):
    units = "vectorized" if vectorized else "conventional"
    row = next(n for n in NETWORKS if n.name == f"{SHAPES[shape]}-{units}-mixed")
    return row, row.build(learning_rule=rule)


def weights_named(rule, name):
    return [v for v in rule.variables if v.name.startswith(name)]


def state_of(rule, layers):
    """The rule's weights as arrays: feedback kernels in the reference's shape."""
    feedback = weights_named(rule, "feedback")
    as_kernels = len(feedback) == len(layers) and all(
        tuple(f.shape) == tuple(layer.kernel.shape) for f, layer in zip(feedback, layers)
    )
    state = {
        "feedback": [stored(f, layer) for f, layer in zip(feedback, layers)]
        if as_kernels
        else arrays(feedback)
    }
    for name in ("covariance", "classifier"):
        state[name] = arrays(weights_named(rule, name))
    return state


def noise_of(rule, hidden):
    """What the rule draws next, as the reference has it; its distribution is tested below."""
    shapes = [layer.gate.shape for layer in hidden]
    return [array(rule.noise.normal(shape, n, "float64")) for n, shape in enumerate(shapes)]


@pytest.mark.parametrize(("name", "shape", "optimizer", "vectorized"), ROWS)
def test_signals_and_state_are_the_equations_over_five_steps(name, shape, optimizer, vectorized):
    make, equations, _ = RULES[name]
    row, model = network(make(), shape, vectorized)
    theirs, ours = (build() for build in OPTIMIZERS[optimizer])
    model.compile(theirs, model.loss, run_eagerly=True)
    rule, layers = model.learning_rule, [layer for layer in model.layers if hasattr(layer, "kernel")]
    x, y, weight = row.batch(model, size=3)
    reference, logits = translate(model, x)
    by_hand = equations(reference, state_of(rule, layers), rule.get_config())
    share, onehot = weight / len(y), np.eye(logits.shape[-1])[y]
    for step in range(STEPS):
        logits = reference.forward(reference.x)
        error = softmax_cross_entropy_error(logits, y, weight)
        if hasattr(rule, "noise"):
            by_hand.state["noise"] = noise_of(rule, by_hand.hidden)
            by_hand.state["along"] = reference.along(by_hand.state["noise"])
        expected = by_hand.signals(error, onehot, share)
        for signal, wanted in zip(model.compute_step(x, y, weight).signals(), expected, strict=True):
            np.testing.assert_allclose(array(signal), wanted.reshape(signal.shape), **EXACT)
        own = by_hand.own_updates(onehot, share) if name == "local_error" else []
        # The step by hand, then the model's.
        before = [layer.kernel for layer in reference.layers]
        updates = reference._updates(expected, error)
        for n, layer in enumerate(reference.layers):
            layer.kernel = ours.step((n, "kernel"), layer.kernel, updates[2 * n])
            layer.bias = ours.step((n, "bias"), layer.bias, updates[2 * n + 1])
        for n, update in enumerate(own):
            by_hand.state["classifier"][n] = ours.step((n, "own"), by_hand.state["classifier"][n], update)
        by_hand.after(error, before)
        model.train_on_batch(x, y, sample_weight=weight)
        if name == "brsf":
            by_hand.state["feedback"] = state_of(rule, layers)["feedback"]
        if step in (0, STEPS - 1):
            assert_state(rule, layers, by_hand.state)
            for layer, wanted in zip(layers, reference.layers, strict=True):
                np.testing.assert_allclose(stored(layer.kernel, layer), wanted.kernel, **EXACT)
                np.testing.assert_allclose(array(layer.bias).ravel(), wanted.bias.ravel(), **EXACT)


def assert_state(rule, layers, expected):
    for name, values in state_of(rule, layers).items():
        for value, wanted in zip(values, expected[name], strict=True):
            np.testing.assert_allclose(value, wanted, **EXACT)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_feedback_of_kolen_pollack_becomes_the_weights_as_the_decay_says(optimizer):
    """W - V = (1 - decay)^t (W - V at the start), in nonnegative networks too."""
    row = next(n for n in NETWORKS if n.name == "digits-fc-conventional-nonnegative")
    model = row.build(learning_rule=rules.KP(decay=0.1, seed=3))
    model.compile(OPTIMIZERS[optimizer][0](), model.loss, run_eagerly=True)
    pairs = model.learning_rule.feedback
    start = [array(w) - array(v) for w, v in pairs]
    x, y, _ = row.batch(model)
    for step in range(1, 6):
        model.train_on_batch(x, y)
        for (w, v), apart in zip(pairs, start, strict=True):
            np.testing.assert_allclose(array(w) - array(v), 0.9**step * apart, rtol=0, atol=1e-10)


def test_weights_that_do_not_train_do_not_decay():
    row, model = network(rules.KP(decay=0.1, seed=3))
    frozen = next(layer for layer in model.layers if hasattr(layer, "kernel"))
    frozen.trainable = False
    model.compile("sgd", model.loss, run_eagerly=True)
    before = array(frozen.kernel)
    x, y, _ = row.batch(model)
    model.train_on_batch(x, y)
    np.testing.assert_array_equal(array(frozen.kernel), before)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["usf", "frsf", "brsf"])
@pytest.mark.sampled(3)
def test_feedback_has_the_signs_of_the_weights_and_magnitudes_as_stated(name, shape):
    row, model = network(RULES[name][0](), shape)
    rule, layers = model.learning_rule, [layer for layer in model.layers if hasattr(layer, "kernel")]
    x, y, _ = row.batch(model)
    drawn = []
    for _ in range(3):
        model.train_on_batch(x, y)
        feedback = [array(v) for _, v in rule.feedback()]
        for v, layer in zip(feedback, layers, strict=True):
            kernel = array(layer.kernel)
            np.testing.assert_array_equal(np.sign(v), np.sign(kernel))
            window, (inputs, outputs) = int(np.prod(kernel.shape[:-2])), kernel.shape[-2:]
            c = np.sqrt(2 / (window * inputs + window * outputs))
            if name == "usf":
                np.testing.assert_allclose(abs(v), c, rtol=1e-12)
            else:
                # Uniform of standard deviation c.
                assert abs(v).max() <= np.sqrt(3) * c
                assert abs((v**2).mean() / c**2 - 1) < 4 * np.sqrt(0.8 / v.size)
        drawn.append(np.abs(np.concatenate([v.ravel() for v in feedback])))
    same = [np.array_equal(drawn[0], drawn[1]), np.array_equal(drawn[1], drawn[2])]
    assert same == [name != "brsf"] * 2


@pytest.mark.parametrize("vectorized", [False, True])
def test_node_perturbation_is_unbiased(vectorized):
    """The mean over 20,000 draws is g within 4 standard errors, at every unit of every sample."""
    draws = 20_000
    row, model = network(rules.NodePerturbation(seed=3), "fc", vectorized)
    x, y, _ = row.batch(model, size=1)
    # One draw for each copy of a sample; e of a mean over the batch is 1 / draws of one sample's.
    copies = keras.ops.repeat(keras.ops.convert_to_tensor(x), draws, axis=0)
    step = model.compute_step(copies, np.repeat(y, draws))
    size = 1 if vectorized else draws
    *exact, last = (size * array(g) for g in step.backward())
    *signals, told = (size * array(s) for s in step.signals())
    np.testing.assert_array_equal(told, last)
    for signal, g in zip(signals, exact, strict=True):
        error = signal.std(axis=0) / np.sqrt(draws)
        # Of some 30 units one is beyond 4 standard errors in 1 of 500 seeds.
        assert (abs(signal.mean(axis=0) - g[0]) <= 4 * error).all()
        assert (error > 0).all()


def test_more_samples_are_the_mean_of_as_many_draws():
    row, model = network(rules.NodePerturbation(samples=3, seed=3))
    x, y, _ = row.batch(model)
    step = model.compute_step(x, y)
    *hidden, _ = step.records
    places = len(step.records)
    expected = [0.0 for _ in hidden]
    for n in range(3):
        u = [
            array(model.learning_rule.noise.normal(r.gate.shape, n * places + r.number, "float64"))
            for r in hidden
        ]
        zero = np.zeros(step.records[-1].gate.shape)
        effect = (array(step.error) * array(step.along([*u, zero]))).sum(axis=1)
        expected = [total + effect[:, None] * each / 3 for total, each in zip(expected, u, strict=True)]
    for signal, wanted in zip(step.signals(), expected):
        np.testing.assert_allclose(array(signal), wanted, **EXACT)


def test_signals_are_a_function_of_the_state_and_steps_change_it():
    for name in ("node_perturbation", "brsf", "fdfa"):
        row, model = network(RULES[name][0]())
        x, y, _ = row.batch(model)
        first, again = (arrays(model.compute_updates(x, y)) for _ in range(2))
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, other)
        steps = weights_named(model.learning_rule, "noise")[0]
        model.train_on_batch(x, y)
        np.testing.assert_array_equal(array(steps), [3, 1])
    noise = model.learning_rule.noise
    one, other_place = (array(noise.normal((20,), place, "float64")) for place in (0, 1))
    model.train_on_batch(x, y)
    for other in (other_place, array(noise.normal((20,), 0, "float64"))):
        assert not np.any(one == other)


def test_learned_feedback_without_a_rate_is_direct_feedback_and_gevb():
    for rule, vectorized in ((rules.DKP(0, 0, seed=3), False), (rules.FDFA(0, seed=3), False)):
        row, model = network(rule, "conv", vectorized)
        x, y, _ = row.batch(model)
        before = state_of(model.learning_rule, [])
        model.train_on_batch(x, y)
        for one, other in zip(before["feedback"], state_of(model.learning_rule, [])["feedback"]):
            np.testing.assert_array_equal(one, other)
    row, model = network(rules.DKP(0, 0), "conv", vectorized=True)
    x, y, _ = row.batch(model)
    for one, other in zip(
        model.compute_updates(x, y), model.compute_updates(x, y, learning_rule="gevb"), strict=True
    ):
        np.testing.assert_array_equal(array(one), array(other))


def test_what_error_broadcast_gathers_is_the_readouts_change_turned_round():
    """From R = 0, after one step of descent: R = -(1 - memory) / rate dW, dW the change of the readout."""
    row, model = network(rules.EBD(entropy=0, power=0, memory=0.5, start=0))
    model.compile(keras.optimizers.SGD(RATE), model.loss, run_eagerly=True)
    x, y, _ = row.batch(model, size=3)
    readout = [layer for layer in model.layers if hasattr(layer, "kernel")][-1].kernel
    before = array(readout)
    model.train_on_batch(x, y)
    last = array(weights_named(model.learning_rule, "feedback")[-1])
    np.testing.assert_allclose(last, -0.5 / RATE * (array(readout) - before), **EXACT)


def test_error_broadcast_starts_as_direct_feedback_times_its_start():
    whole, half = (network(rules.EBD(start=start, seed=3))[1].learning_rule for start in (1.0, 0.5))
    for one, other in zip(weights_named(whole, "feedback"), weights_named(half, "feedback"), strict=True):
        np.testing.assert_allclose(array(other), 0.5 * array(one), **EXACT)
        # Uniform in (-1, 1): variance 1/3 of n draws, whose own deviation is sqrt(4 / 45 n).
        assert abs(np.mean(array(one) ** 2) - 1 / 3) < 4 * (4 / 45 / array(one).size) ** 0.5
