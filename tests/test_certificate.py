"""The certificate sees planted cheats, and finds nothing in honest rules."""

import json

import keras
import numpy as np
import pytest
from workflows import compiled, data, sequential

from keras_gevb import diagnostics, rules

ops = keras.ops


def certified(rule, vectorized=False):
    return diagnostics.certify(compiled(sequential(rule, vectorized=vectorized)), *data(8))


@pytest.mark.parametrize(
    ("rule", "vectorized"),
    [
        *((r, False) for r in ("drtp", "dfa", "sdfa", "dkp", "ebd", "local_error")),
        *[("gevb", True), (rules.GEVB(low_memory=True), True), ("dkp", True)],
    ],
    ids=str,
)
@pytest.mark.sampled(3)
def test_an_honest_rule_is_local(rule, vectorized):
    certificate = certified(rule, vectorized)
    assert certificate.is_local, str(certificate)
    # Every probe was seen to see.
    assert all(entry["control"] > 0 for entry in certificate.entries)
    if rule in ("drtp", "local_error"):
        assert max(e["change"] for e in certificate.entries if e["on"] == "targets") > 0


@pytest.mark.parametrize("kind", ["one sample", "one target"])
def test_a_batch_that_shows_nothing_certifies_nothing(kind):
    x, y = data(8)
    x, y = (x[:1], y[:1]) if kind == "one sample" else (x, 0 * y)
    with pytest.raises(ValueError, match="at least 2, with targets that differ"):
        diagnostics.certify(compiled(sequential("dfa", vectorized=False)), x, y)


@pytest.mark.parametrize("rule", ["backprop", "fa", "usf", "kp", "node_perturbation", "fdfa"])
@pytest.mark.sampled(2)
def test_a_rule_that_knows_more_is_not(rule):
    assert not certified(rule).is_local


class Cheat(rules.LocalRule):
    """Called local: DFA with something more in its signal."""

    vectorized = False

    def build(self, layers, add_weight):
        self.layers = layers
        self.kept = add_weight(name="feedback_kept", shape=(6, 4), initializer="ones", trainable=False)

    def signal(self, record, step):
        last = record.number == len(step.records) - 1
        honest = ops.ones_like(record.gate) * ops.sum(step.error, axis=-1, keepdims=True)
        return step.error if last else honest * (1 + self.peek(record, step))

    def peek(self, record, step):
        return 0.0


class LaterWeights(Cheat):
    def peek(self, record, step):
        return ops.mean(ops.abs(self.layers[-1].kernel.value))


class LaterGate(Cheat):
    def peek(self, record, step):
        return ops.mean(step.records[record.number + 1].gate, axis=-1, keepdims=True)


class Logits(Cheat):
    def peek(self, record, step):
        return ops.mean(ops.abs(step.outputs), axis=-1, keepdims=True)


class Mixing(Cheat):
    def peek(self, record, step):
        return ops.mean(ops.abs(record.outputs))


class Labels(Cheat):
    def peek(self, record, step):
        return ops.cast(ops.reshape(step.targets, (-1, 1)), "float32")


class Backwards(Cheat):
    def peek(self, record, step):
        return step.backward()[record.number]


class Transport(Cheat):
    """Copies the readout's weights into its feedback, after the step."""

    def remember(self, step, change):
        yield self.kept, self.layers[-1].kernel.value


class Smuggled(Cheat):
    """Honest signals, and the gradient by another door."""

    def own_updates(self, step):
        first, g = step.records[0], step.backward()[0]
        return first.updates(g, step.error)


@pytest.mark.parametrize(
    ("cheat", "on"),
    [
        (LaterWeights, "forward weights"),
        (LaterGate, "later activity"),
        (Logits, "later activity"),
        (Mixing, "other samples"),
        (Labels, "targets"),
        (Backwards, "forward weights"),
        (Transport, "forward weights"),
        (Smuggled, "forward weights"),
    ],
)
def test_a_planted_cheat_is_caught(cheat, on):
    certificate = certified(cheat())
    assert not certificate.is_local
    assert on in {entry["on"] for entry in certificate.violations}


def test_what_the_cheats_are_made_of_is_honest():
    assert certified(Cheat()).is_local


def test_a_certificate_can_be_repeated_and_leaves_the_model_alone():
    model = compiled(sequential("fa", vectorized=False))
    before = [np.array(v) for v in model.variables]
    one, other = (diagnostics.certify(model, *data(8), seed=3) for _ in range(2))
    assert one == other
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_the_certificate_is_written_with_its_schema(tmp_path):
    certificate = certified("backprop")
    certificate.write(tmp_path / "c.json")
    written = json.loads((tmp_path / "c.json").read_text())
    assert written["schema"] == "keras_gevb.certificate/1"
    assert not written["is_local"]
    assert set(written["entries"][0]) == {
        *("weight", "layer", "on", "perturbation", "change", "control", "allowed")
    }


def test_a_certificate_of_a_model_that_learns_nothing_prints():
    model = compiled(sequential("dfa", vectorized=False))
    model.trainable = False
    certificate = diagnostics.certify(model, *data(8))
    assert certificate.is_local
    table = [line for line in str(certificate).splitlines() if line.startswith("|")]
    assert "control" in table[-1]
    assert {line.count("|") for line in table} == {table[0].count("|")}  # Markdown shows no other tables


class Reads(rules.LearningRule):
    """What none of these may know, told to all."""

    def __init__(self, read):
        self.read = read

    def signals(self, step):
        told = 1 + self.read(step)
        return [told * keras.ops.ones_like(record.gate) for record in step.records]


READ = {
    "biases, which are zero": lambda step: keras.ops.sum(step.records[-1].layer.bias),
    "the loss": lambda step: step.loss,
}


@pytest.mark.parametrize("name", READ)
def test_what_is_zero_or_one_number_is_seen_too(name):
    model = compiled(sequential(Reads(READ[name])))
    assert not diagnostics.certify(model, *data()).is_local
