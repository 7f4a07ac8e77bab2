"""Diagnostics: angles, signs, dead units, zero weights, the callback, and the audit of locality."""

import copy

import keras
import numpy as np
import pytest
from networks import rows
from reference import softmax_cross_entropy_error
from translation import stored, translate

import keras_gevb
from keras_gevb import diagnostics, layers, places, zoo

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(model):
    model.compile(keras.optimizers.SGD(0.1), CROSS_ENTROPY, run_eagerly=True)
    return model


def digits(architecture="fc", rule=None, vectorized=True, nonnegative=True, width=0.25):
    return compiled(zoo.build("digits", architecture, vectorized, nonnegative, rule, width=width))


def batch(size=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 17, (size, 8, 8, 1)).astype("uint8"), rng.integers(0, 10, size)


def degrees(cosine):
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


# Alignment


def test_alignment_is_the_angle_of_two_signals_written_out(float64):
    """One sample, two hidden layers: g by its recursion, in NumPy."""
    model = digits(nonnegative=False)
    x, y = batch(1)
    first, second, readout = (layer for layer in model.layers if isinstance(layer, layers.WeightLayer))
    pixels = x.reshape(-1) / 8.0 - 1
    h = np.einsum("j,jki->ki", pixels, np.array(first.kernel)) + np.array(first.bias)
    hidden = h * ((np.array(first.gates) * h).sum(axis=0) >= 0)
    h = hidden @ np.array(second.kernel) + np.array(second.bias)
    gate = (np.array(second.gates) * h).sum(axis=0) >= 0
    g_second = np.array(readout.kernel)[:, 0]
    g_first = np.array(second.kernel) @ (gate * g_second)
    expected = [degrees(g.sum() / np.linalg.norm(g) / np.sqrt(len(g))) for g in (g_first, g_second)]
    found = diagnostics.alignment_angles(model, x, y)
    assert list(found) == [first.name, second.name]
    # float64, and the arccosine's rounding.
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-6)


@rows(large=False, sequential=True, nonnegative=False)
@pytest.mark.sampled(5)
def test_alignment_is_that_of_the_loops_signals_on_every_network(network, float64):
    """Backpropagation's signal against ones, against random feedback, and against itself."""
    rules = [keras_gevb.rules.Backprop(), keras_gevb.rules.FA(seed=3)]
    rules.append(keras_gevb.rules.GEVB() if network.vectorized else keras_gevb.rules.DFA(seed=3))
    for rule in rules:
        model = network.build(learning_rule=rule)
        x, y, _ = network.batch(model)
        reference, logits = translate(model, x)
        error = softmax_cross_entropy_error(logits, y, np.ones(len(y)))
        exact = reference.signals(error)[:-1]
        sent = list(sent_by(model, reference, error, exact))
        found = diagnostics.alignment_angles(model, x, y)
        expected = [mean_angle(g, s) for g, s in zip(exact, sent, strict=True)]
        # Rounding of the arccosine near 0, and where Keras computes in float32.
        np.testing.assert_allclose(list(found.values()), expected, rtol=1e-4, atol=1e-3)
        assert (max(expected) < 1e-3) == (type(rule) is keras_gevb.rules.Backprop)


def sent_by(model, reference, error, exact):
    """What the rule tells the hidden units, from its equation."""
    rule = type(model.learning_rule).__name__
    feedback = [np.array(v) for v in model.non_trainable_variables if v.name.startswith("feedback")]
    weighty = places.of(model)
    if rule == "FA":
        kernels = [stored(kernel, layer) for kernel, layer in zip(feedback, weighty, strict=True)]
        yield from reference.signals(error, kernels)[:-1]
    for g in exact if rule != "FA" else ():
        size = g[0].size
        yield {
            "Backprop": lambda g=g: g,
            "GEVB": lambda g=g: np.ones_like(g),
            "DFA": lambda g=g, size=size: (error @ feedback[0][:, :size]).reshape(g.shape),
        }[rule]()


def mean_angle(g, s):
    g, s = (v.reshape(len(v), -1) for v in (g, s))
    lengths = np.linalg.norm(g, axis=1) * np.linalg.norm(s, axis=1)
    seen = lengths > 0
    return degrees((g * s).sum(axis=1)[seen] / lengths[seen]).mean()


@pytest.mark.parametrize(("rule", "angle"), [("Minus", 180.0), ("Twice", 0.0)])
def test_alignment_sees_the_direction_of_a_signal_and_not_its_size(rule, angle):
    class Scaled(keras_gevb.rules.LearningRule):
        def signals(self, step):
            return [{"Minus": -1, "Twice": 2}[rule] * g for g in step.backward()]

    angles = diagnostics.alignment_angles(digits("conv", Scaled()), *batch())
    np.testing.assert_allclose(list(angles.values()), angle, atol=1e-4)  # rounding


def test_a_sample_without_a_signal_has_no_angle():
    model = digits()
    weights = [layer for layer in model.layers if isinstance(layer, layers.WeightLayer)]
    weights[-1].kernel.assign(np.zeros(weights[-1].kernel.shape))
    assert np.isnan(list(diagnostics.alignment_angles(model, *batch()).values())).all()


def test_diagnostics_leave_the_model_as_it_was():
    model = digits()
    before = [np.array(v) for v in model.variables]
    for measure in (diagnostics.alignment_angles, diagnostics.sign_agreement, diagnostics.audit):
        measure(model, *batch())
    diagnostics.dead_units(model, batch()[0])
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(value, np.array(variable))


def test_a_model_that_is_not_compiled_is_an_error():
    with pytest.raises(ValueError, match="compile"):
        diagnostics.alignment_angles(zoo.build("digits", "fc", width=0.25), *batch())


# Signs


@rows(vectorized=True, nonnegative=True, unshared=True, large=False)
@pytest.mark.sampled(5)
def test_gevb_opposes_no_gradient_where_weights_are_nonnegative_and_not_shared(network):
    model = network.build()
    shares = diagnostics.sign_agreement(model, *network.batch(model)[:2])
    assert set(shares.values()) == {1.0}


def test_sign_agreement_counts_examples_one_by_one(float64):
    """The share from whole updates of single examples, GEVB against the gradient."""
    model = digits(nonnegative=False)
    x, y = batch(5)
    agree = []
    for example in range(5):
        one = x[example : example + 1], y[example : example + 1]
        ours, exact = (model.compute_updates(*one, learning_rule=r) for r in ("gevb", "backprop"))
        agree.append([np.sign(u) * np.sign(g) >= 0 for u, g in zip(ours, exact, strict=True)])
    kernels_and_biases = [
        np.concatenate([np.ravel(one[i]) for one in agree for i in pair]).mean()
        for pair in ((0, 1), (2, 3), (4, 5))
    ]
    found = list(diagnostics.sign_agreement(model, x, y).values())
    np.testing.assert_allclose(found, kernels_and_biases, rtol=1e-12)  # two ways to count
    assert found[0] < 1
    assert found[-1] == 1  # the readout's update is the gradient


def test_a_change_of_nothing_is_taken_whole():
    """|after - before| / |before|, or over 1 where there was nothing."""
    change = diagnostics.locality._relative_change
    assert change(np.array([3.0, 4.0]), np.array([3.0, 5.0])) == pytest.approx(1 / 5)
    assert change(np.zeros(2), np.array([3.0, 4.0])) == pytest.approx(5)


# Dead units and zero weights


def test_dead_units_are_those_closed_on_every_sample():
    model = digits("conv", vectorized=False, rule="backprop", width=1.0)
    conv = model.layers[1]
    kernel, bias = np.zeros(conv.kernel.shape), np.zeros(16)
    # Even units pass h <= 0 and odd ones h >= 0: these three are closed everywhere.
    bias[[0, 2]], bias[1] = 1.0, -1.0
    conv.kernel.assign(kernel)
    conv.bias.assign(bias)
    shares = diagnostics.dead_units(model, batch()[0])
    assert shares[conv.name] == 3 / 16


def open_units(h):
    """Of conventional units, which come as OFF and ON: even ones are open at h <= 0, odd ones at h >= 0."""
    return np.where(np.arange(h.shape[-1]) % 2, h >= 0, h <= 0)


def test_a_unit_that_is_open_on_one_sample_or_at_one_position_is_alive():
    random = np.random.default_rng(0)
    # A convolution that sees the middle of its window alone; biases, so that some units are rarely open.
    model = digits("conv", vectorized=False, rule="backprop", width=1.0)
    conv, (x, _) = model.layers[1], batch()
    kernel = np.zeros(conv.kernel.shape)
    kernel[1, 1] = random.normal(size=kernel.shape[2:])
    conv.kernel.assign(kernel)
    conv.bias.assign(random.normal(size=conv.bias.shape))
    seen = model.layers[0](x).numpy()  # scaled
    are_open = open_units(seen @ kernel[1, 1] + conv.bias.numpy())
    dead = np.mean(~are_open.any(axis=(0, 1, 2)))
    assert dead < np.mean(~are_open.any(axis=0)) < np.mean(~are_open)
    assert diagnostics.dead_units(model, x)[conv.name] == dead


def test_a_layer_that_is_used_twice_is_alive_in_either_use():
    x = np.array([[1.0, -1.0, -2.0]])
    inputs = keras.Input((3,))
    twice = keras_gevb.layers.Dense(4, name="twice")
    both = keras.layers.Add()([twice(inputs), twice(-inputs)])
    model = keras_gevb.Model(inputs, keras_gevb.layers.Dense(2, gated=False)(both), learning_rule="backprop")
    model.compile("sgd", "mse")
    twice.kernel.assign(np.eye(3, 4))
    bias = np.array([0.5, 0.5, 0.5, -5.0])
    twice.bias.assign(bias)
    h = x @ np.eye(3, 4)
    first, second = open_units(h + bias)[0], open_units(bias - h)[0]
    assert any(first & ~second)
    assert any(second & ~first)
    assert (~first & ~second).sum() == 1
    assert diagnostics.dead_units(model, x) == {"twice": 0.25}


def test_a_locally_connected_unit_dies_at_its_own_position():
    model = digits("lc", vectorized=False, rule="backprop", width=1.0)
    local = model.layers[1]
    local.kernel.assign(np.zeros(local.kernel.shape))
    bias = np.zeros(local.bias.shape)
    bias[0, 0, 0] = 1.0
    local.bias.assign(bias)
    assert diagnostics.dead_units(model, batch()[0])[local.name] == 1 / bias.size


def test_zero_weights_are_half_of_an_on_off_kernel():
    # The first layer has mixed signs. Then max(Z, 0) and max(-Z, 0), exactly one of the two: for the
    # one unit of a readout too, from the two inputs of each pair.
    assert list(diagnostics.zero_weights(digits()).values()) == [0, 0.5, 0.5]


def test_zero_weights_are_counted_layer_by_layer():
    model = digits()
    weighty = [layer for layer in model.layers if isinstance(layer, layers.WeightLayer)]
    for layer, zeros in zip(weighty, (3, 7, 5), strict=True):
        kernel = np.full(layer.kernel.shape, 1e-30)
        kernel.reshape(-1)[:zeros] = 0
        kernel.reshape(-1)[-1] = -1.0
        layer.kernel.assign(kernel)
        layer.bias.assign(np.zeros(layer.bias.shape))
    expected = {
        layer.name: zeros / np.prod(layer.kernel.shape)
        for layer, zeros in zip(weighty, (3, 7, 5), strict=True)
    }
    assert diagnostics.zero_weights(model) == pytest.approx(expected, abs=1e-12)


# The callback


def test_monitor_writes_history_and_tensorboard(tmp_path):
    model, (x, y) = digits(), batch(16)
    monitor = diagnostics.AlignmentMonitor(x, y, every=2)
    board = keras.callbacks.TensorBoard(tmp_path)
    table = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = model.fit(x, y, epochs=4, verbose=0, callbacks=[monitor, board, table]).history
    names = [layer.name for layer in model.layers if isinstance(layer, layers.WeightLayer)]
    expected = {
        f"{measure}/{layer}"
        for measure, measured in (
            ("alignment", names[:-1]),
            ("sign_agreement", names),
            ("dead_units", names[:-1]),
            ("zero_weights", names),
        )
        for layer in measured
    }
    assert expected == set(history) - {"loss"}
    for key in expected:  # the second and the fourth epoch
        np.testing.assert_array_equal(np.isfinite(history[key]), [False, True, False, True])
    columns = np.genfromtxt(tmp_path / "log.csv", delimiter=",", names=True, deletechars="").dtype.names
    assert expected < set(columns)
    angles = diagnostics.alignment_angles(model, x, y)
    # The last measurement is that of the model as it is now.
    np.testing.assert_allclose(
        [history[f"alignment/{layer}"][-1] for layer in names[:-1]], list(angles.values()), rtol=1e-6
    )
    assert scalars(tmp_path / "train") >= {f"epoch_{key}" for key in expected}


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return set(events.Tags()["tensors"])


def test_monitor_measures_only_what_is_asked():
    model, (x, y) = digits(), batch(16)
    monitor = diagnostics.AlignmentMonitor(x, y, measures=["zero_weights"])
    history = model.fit(x, y, verbose=0, callbacks=[monitor]).history
    assert {key.split("/")[0] for key in history} == {"loss", "zero_weights"}


def test_monitor_can_be_copied():
    """As keras-tuner does for every trial."""
    x, y = batch(16)
    monitor = diagnostics.AlignmentMonitor(x, y)
    copies = [copy.deepcopy(monitor) for _ in range(2)]
    one, other = (digits().fit(x, y, verbose=0, callbacks=[c]).history for c in copies)
    assert {key.split("/")[0] for key in one} == {key.split("/")[0] for key in other}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 0}, "Received: every=0"),
        ({"measures": ["angle"]}, "angle"),
        ({"measures": "alignment"}, "names"),
    ],
)
def test_monitor_refuses_what_it_cannot_measure(arguments, message):
    with pytest.raises(ValueError, match=message):
        diagnostics.AlignmentMonitor(*batch(), **arguments)


# Layers that are used twice, and what is not a number


def test_the_uses_of_a_layer_are_added_up_before_signs_are_compared():
    shared = layers.VectorDense(8)
    inputs = keras.Input((6,))
    units = shared(shared(layers.VectorDense(8, vector_dim=10)(inputs)))
    model = compiled(keras_gevb.Model(inputs, layers.VectorReadout()(units)))
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((32, 6)).astype("float32"), rng.integers(0, 10, 32)
    agrees = []
    for i in range(len(x)):
        one = x[i : i + 1], y[i : i + 1]
        pair = [model.compute_updates(*one, learning_rule=rule) for rule in ("gevb", "backprop")]
        both = [(np.array(a) * np.array(b) >= 0).ravel() for a, b in zip(*pair, strict=True)]
        names = [variable.path.split("/")[0] for variable in model.trainable_variables]
        agrees.append(np.concatenate([v for v, name in zip(both, names, strict=True) if name == shared.name]))
    expected = np.mean(agrees)
    assert expected < 1  # one use may go uphill where the sum of both goes down
    assert diagnostics.sign_agreement(model, x, y)[shared.name] == pytest.approx(expected, abs=1e-9)


def test_what_is_not_a_number_agrees_with_nothing():
    model = digits()
    readout = model.layers[-1]
    readout.kernel.assign(np.full(readout.kernel.shape, np.nan))
    assert set(diagnostics.sign_agreement(model, *batch()).values()) == {0.0}


# The audit


@rows(brightest=16, nonnegative=False)
@pytest.mark.sampled(2)
def test_audit_finds_later_layers_under_backpropagation_alone(network):
    """Backpropagation reads the weights of all later layers, the broadcast rules of none."""
    for rule in ("backprop", "fa", "gevb" if network.vectorized else "dfa"):
        model = network.build(learning_rule=keras_gevb.rules.get(rule))
        audit = diagnostics.audit(model, *network.batch(model)[:2])
        names = list(audit.dependence)
        for number, name in enumerate(names):
            assert audit.depends_on(name) == (names[number + 1 :] if rule == "backprop" else [])
        assert audit.is_local == (rule != "backprop")
        assert ("Not local" in str(audit)) == (rule == "backprop")


@pytest.mark.parametrize("weight", ["kernel", "bias"])
def test_audit_catches_a_rule_that_peeks_at_one_weight(weight):
    """Also where that is 0, as biases are at the start."""
    model = digits()
    readout = model.layers[-1]

    class Peeking(keras_gevb.rules.LearningRule):
        def signals(self, step):
            hint = 1 + keras.ops.mean(getattr(readout, weight))
            return [hint * keras.ops.ones_like(record.gate) for record in step.records]

    model = keras_gevb.Sequential(model.layers, learning_rule=Peeking())
    audit = diagnostics.audit(compiled(model), *batch())
    *hidden, last = audit.dependence
    assert [audit.depends_on(name) for name in hidden] == [[last]] * len(hidden)


def test_audit_sees_through_frozen_layers():
    """Backpropagation reads a later layer's weights whether they learn or not."""
    model = digits(rule="backprop")
    first, *later = (layer for layer in model.layers if isinstance(layer, layers.WeightLayer))
    for layer in later:
        layer.trainable = False
    audit = diagnostics.audit(compiled(model), *batch())
    assert audit.dependence.keys() == {first.name}
    assert audit.depends_on(first.name) == [layer.name for layer in later]


def test_audit_does_not_judge_what_is_not_finite():
    model = digits(rule="backprop")
    readout = model.layers[-1]
    readout.kernel.assign(np.full(readout.kernel.shape, np.nan))
    with pytest.raises(ValueError, match="not finite"):
        diagnostics.audit(model, *batch())
