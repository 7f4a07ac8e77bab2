"""A certificate of what each weight's update depends on, and does not, once the error vector is known."""

import contextlib
import copy
import dataclasses
import functools
import json
import pathlib

import keras
import numpy as np
from keras import ops

from keras_gevb import backend, places, scopes
from keras_gevb.learning import Learner
from keras_gevb.rules.base import LearningRule
from keras_gevb.step import Step
from keras_gevb.types import Array
from keras_gevb.version import __version__

SCHEMA = "keras_gevb.certificate/1"

# What a probe changes, and the rule that shows that the probe sees it.
PROBES = {
    "forward weights": "weights of the other layers + noise of 0.5 to 1.5 times their root mean square",
    "feedback weights": "weights of the rule + the same noise",
    "later activity": "inputs, gates, outputs of all later layers, the logits and the loss: new random ones",
    "other samples": "activity, e, targets of half of the samples: other ones; what the others are told",
    "targets": "targets exchanged between samples, e held",
}


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What the update of each weight was seen to depend on, given the error vector.

    Attributes:
        entries: A list of dicts: "weight", "layer", "on" (one of `PROBES`), "perturbation", "change"
            (the largest relative change found, exactly 0 for none), "control" (that of a rule that has the
            dependence, on this network by the same perturbation) and "allowed".
        model, rule, seed, samples, versions: What was measured, and how to repeat it.

    Prints as a table.
    """

    entries: list[dict]
    model: str
    rule: str
    seed: int
    samples: int
    versions: dict

    @property
    def is_local(self) -> bool:
        """Whether no weight's update depends on what a local rule may not know."""
        return not self.violations

    @property
    def violations(self) -> list[dict]:
        """The entries that a local rule has not."""
        return [entry for entry in self.entries if entry["change"] > 0 and not entry["allowed"]]

    def to_json(self) -> str:
        """The certificate as a string; `schema` is its version."""
        return json.dumps({"schema": SCHEMA, "is_local": self.is_local, **dataclasses.asdict(self)}, indent=1)

    def write(self, path: str | pathlib.Path) -> None:
        """Write the JSON into a file."""
        pathlib.Path(path).write_text(self.to_json())

    def __str__(self):
        weights = list(dict.fromkeys(entry["weight"] for entry in self.entries))
        found = {(entry["weight"], entry["on"]): entry for entry in self.entries}
        lines = [
            f"{self.rule} on '{self.model}', {self.samples} samples, seed {self.seed}: relative change",
            "",
            f"| update of | {' | '.join(PROBES)} |",
            "|:--" * (1 + len(PROBES)) + "|",
        ]
        for weight in weights:
            cells = [_cell(found.get((weight, on))) for on in PROBES]
            lines.append(f"| {weight} | {' | '.join(cells)} |")
        controls = [f"{max(e['control'] for e in self.entries if e['on'] == on):.2g}" for on in PROBES]
        lines.append(f"| control, which depends | {' | '.join(controls)} |")
        verdict = "Local" if self.is_local else "Not local"
        verdict += ", given the error vector. (!) marks what a local rule may not know."
        return "\n".join([*lines, "", verdict])


def _cell(entry):
    if entry is None or entry["change"] == 0:
        return "-"
    return f"{entry['change']:.2g}{'' if entry['allowed'] else ' (!)'}"


class _Knowing(LearningRule):
    """The control: g through feedback of its own, times the batch's mean, times the mean target."""

    def __init__(self, on):
        self.on = on

    def signals(self, step):
        signals = step.backward()
        if self.on == "feedback weights":
            return [ops.cast(self.factor, s.dtype) * s for s in signals]
        if self.on == "other samples":
            return [s + ops.mean(s, axis=0, keepdims=True) for s in signals]
        if self.on == "targets":
            y = ops.cast(keras.tree.flatten(step.targets)[0], "float32")
            y = ops.reshape(y, (ops.shape(step.error)[0], -1))
            y = 1 + y @ ops.expand_dims(ops.arange(1, y.shape[-1] + 1, dtype="float32"), -1)
            return [s * ops.cast(ops.reshape(y, (-1, *[1] * (len(s.shape) - 1))), s.dtype) for s in signals]
        return signals


def certify(model: Learner, x: Array, y: Array, seed: int = 0) -> Certificate:
    """Which of five things the update of each weight depends on, once the error vector is known.

    Each is changed at random while e, and what a layer itself received and returned, are held:

        forward weights of other layers, weights of the rule, later activity, other samples, targets

    A local rule may know its own activity, e, and feedback weights; one that declares
    `reads_targets`, the targets too. What a rule remembers is asked alike, in a row for each of its weights:
    so one that copies weights in `remember` is seen. Every entry has the change of a control on the same
    network, which has that dependence: backpropagation; with a factor of its own; plus the batch's mean;
    times the target.

    Not seen: what a rule was told outside of the step, such as labels in a list of its own. Updates by
    `own_updates` are sums over samples, so for them other samples are not asked.

    Args:
        model: A compiled `keras_gevb.Model` or `Sequential`. It is left as it was.
        x: A batch of inputs, of at least 2 samples.
        y: Its targets, not all the same.
        seed: Integer, of the changes: the same seed gives the same certificate.

    Returns:
        A `Certificate`, which prints as a table.

    Raises:
        ValueError: if the model is not compiled, its rule cannot serve it, or an update is not finite; if its
            updates differ from one look to the next.

    Example:

    >>> certificate = keras_gevb.diagnostics.certify(model, x[:16], y[:16])
    >>> certificate.is_local
    True
    """
    rule = model.learning_rule
    found = _Probing(model, x, y, rule, seed).found()
    entries = []
    for on, perturbation in PROBES.items():
        # A control of other layers: seen anywhere is enough.
        control = max(_Probing(model, x, y, _Knowing(on), seed).changes(on).values(), default=0.0)
        allowed = on == "feedback weights" or (on == "targets" and rule.reads_targets)
        for (weight, layer), change in found[on].items():
            entries.append(
                {
                    "weight": weight,
                    "layer": layer,
                    "on": on,
                    "perturbation": perturbation,
                    "change": change,
                    "control": control,
                    "allowed": allowed,
                }
            )
    return Certificate(entries, model.name, repr(rule), seed, len(keras.tree.flatten(x)[0]), _versions())


def _versions():
    return {"keras_gevb": __version__, "keras": keras.__version__, "backend": keras.backend.backend()}


class _Probing:
    """One rule under the probes."""

    def __init__(self, model, x, y, rule, seed):
        self.model, self.seed = model, seed
        self.step = _step_of(model, x, y, rule)
        self.rule = self.step.rule
        self.before = self.updates(self.step)
        for key, update in self.before.items():
            if not np.isfinite(update).all():
                raise ValueError(
                    f"The update of '{key[0]}' is not finite, so nothing shows what it depends on. Received: "
                    "a model whose weights or loss have become NaN or infinite. Certify it before they do."
                )
        if any(self._differ(self.before, self.updates(self.step)).values()):
            raise ValueError(
                "The updates differ from one look to the next, so nothing shows what they depend on. "
                f"Received: {rule!r}. Draw random numbers by keras_gevb.rules.noise.Noise."
            )

    def found(self):
        return {on: self.changes(on) for on in PROBES}

    def changes(self, on):
        return {
            "forward weights": self._of_weights,
            "feedback weights": self._of_feedback,
            "later activity": self._of_activity,
            "other samples": self._of_samples,
            "targets": self._of_targets,
        }[on]()

    # What is compared: (weight, layer) to an array.

    def _signals(self, step):
        """The rule's signals, by the way that training takes."""
        if self.model.learning_rule.low_memory and not isinstance(self.rule, _Knowing):
            return [self.rule.signal(record, step) for record in step.records]
        return self.rule.signals(step)

    def updates(self, step, signals=None):
        signals = self._signals(step) if signals is None else signals
        totals = {}
        for record, signal in zip(step.records, signals, strict=True):
            for variable, update in record.updates(signal, step.error):
                self._add(totals, variable, record.layer.name, update)
        owners = {id(v): place.name for place in places.of(self.model) for v in place.as_layer().variables}
        for variable, update in self.rule.own_updates(step):
            self._add(totals, variable, owners.get(id(variable), "(rule)"), update)
        if self.rule.remembers():
            for variable, value in self.rule.remember(step, lambda v: 1e-3 * ops.ones_like(v.value)):
                if id(variable) in owners:  # a decay of the weights: of themselves
                    value = value - variable.value
                    totals[f"{variable.path} (memory)", owners[id(variable)]] = _array(value)
                else:
                    totals[f"{variable.path} (memory)", "(rule)"] = _array(value - variable.value)
        return totals

    @staticmethod
    def _add(totals, variable, layer, update):
        key = variable.path, layer
        totals[key] = totals.get(key, 0) + _array(update)

    @staticmethod
    def _differ(before, after):
        return {key: _relative(value, after[key]) for key, value in before.items()}

    # The probes.

    def _of_weights(self):
        changes = dict.fromkeys(self.before, 0.0)
        for other in places.of(self.model):
            with _moved(other.trainable_variables, self._random()):
                after = self.updates(self.step.at_present_weights())
            for key, change in self._differ(self.before, after).items():
                if key[1] != other.name:
                    changes[key] = max(changes[key], change)
        return changes

    def _of_feedback(self):
        # Not the state of a rule's noise, which is no weight.
        variables = [v for v in self.rule.variables if v.name != "noise"]
        with _moved(variables, self._random()):
            after = self.updates(self.step.at_present_weights())
        keys = {key for key in self.before if key[1] != "(rule)"}
        return {k: c for k, c in self._differ(self.before, after).items() if k in keys}

    def _of_activity(self):
        changes = {}
        names = list(dict.fromkeys(r.layer.name for r in self.step.records))
        for name in names:
            random, last = self._random(), max(r.number for r in self.step.records if r.layer.name == name)
            step = copy.copy(self.step)
            if not step.records[last].is_readout:
                step.outputs = keras.tree.map_structure(
                    functools.partial(_redrawn, random=random), step.outputs
                )
                step.loss = None if step.loss is None else step.loss + 1.0
            step.records = [_other(r, random) if r.number > last else r for r in self.step.records]
            step.readouts = [record for record in step.records if record.is_readout]
            after = self.updates(step)
            for key, change in self._differ(self.before, after).items():
                if key[1] == name:
                    changes[key] = change
        return changes

    def _of_samples(self):
        """What the first half of the samples are told, while the second half is another."""
        samples, random = int(self.step.error.shape[0]), self._random()
        first, order = samples // 2, np.arange(samples)
        order[first:] = np.roll(order[first:], 1)
        step = self._rearranged(order)
        step.records = [_joined(r, _other(r, random), first) for r in step.records]
        step.readouts = [record for record in step.records if record.is_readout]
        scale = np.where(np.arange(samples) < first, 1.0, random.uniform(1.5, 2.0, samples))
        step.error = step.error * ops.cast(scale[:, None], step.error.dtype)
        told = [[signal[:first] for signal in self._signals(each)] for each in (self.step, step)]
        before, after = (self._parts(self.step, signals, first) for signals in told)
        return self._differ(before, after)

    def _parts(self, step, signals, first):
        totals = {}
        for record, signal in zip(step.records, signals, strict=True):
            for variable, update in record.of(slice(0, first)).updates(signal, step.error[:first]):
                self._add(totals, variable, record.layer.name, update)
        return totals

    def _of_targets(self):
        samples = int(self.step.error.shape[0])
        step = copy.copy(self.step)
        step.targets = self._rearranged(np.roll(np.arange(samples), 1)).targets
        return self._differ(self.before, self.updates(step))

    def _rearranged(self, order):
        """The step with its errors, outputs and targets in another order of the samples."""
        step = copy.copy(self.step)

        def taken(tensor):
            return ops.take(tensor, ops.convert_to_tensor(order), axis=0)

        step.error = taken(step.error)
        step.outputs, step.targets = keras.tree.map_structure(taken, (step.outputs, step.targets))
        return step

    def _random(self):
        return np.random.default_rng(self.seed)


def _step_of(model, x, y, rule):
    """A step with all activity, whichever way its updates are made."""
    x, y = keras.tree.map_structure(ops.convert_to_tensor, (x, y))
    model.compute_step(x, y)  # checks, builds
    rule = copy.copy(rule)
    rule.low_memory = False
    if isinstance(rule, _Knowing):
        rule.factor = keras.Variable(1.0, trainable=False, name="feedback")
        rule.variables = [rule.factor]
    with scopes.holding([(v, v.value) for v in model.variables]):
        return Step(model, x, rule).assess(y)


def _other(record, random):
    if record.call is not None:
        return record.on(_mapped(functools.partial(_redrawn, random=random), record.inputs))
    parts = {name: _redrawn(getattr(record, name), random) for name in ("inputs", "outputs")}
    gate = random.uniform(0.0, 1.0, tuple(record.gate.shape)) > 0.5
    return dataclasses.replace(record, gate=ops.cast(ops.convert_to_tensor(gate), record.gate.dtype), **parts)


def _joined(record, other, first):
    """The first samples of a record, and the rest of another one."""
    if record.call is not None:
        return record.on(
            _mapped(
                lambda part, another: ops.concatenate([part[:first], another[first:]]),
                record.inputs,
                other.inputs,
            )
        )
    names = "inputs", "gate", "outputs"
    parts = {n: ops.concatenate([getattr(record, n)[:first], getattr(other, n)[first:]]) for n in names}
    return dataclasses.replace(record, **parts)


def _mapped(function, *inputs):
    """Inputs of a layer of Keras, `(args, kwargs)`, whose numbers are others."""
    return keras.tree.map_structure(
        lambda *parts: function(*parts) if backend.is_numbers(parts[0]) else parts[0], *inputs
    )


def _redrawn(tensor, random):
    return ops.cast(ops.convert_to_tensor(random.standard_normal(tuple(tensor.shape))), tensor.dtype)


@contextlib.contextmanager
def _moved(variables, random):
    """Weights changed at random within the scope; nonnegative ones stay so."""
    before = [(v, _array(v)) for v in variables]
    try:
        for variable, value in before:
            size = float(np.sqrt(np.mean(np.square(value, dtype="float64")))) or 1.0
            variable.assign(value + size * random.uniform(0.5, 1.5, value.shape) * np.where(value < 0, -1, 1))
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


def _array(tensor):
    return ops.convert_to_numpy(tensor)


def _relative(before, after):
    before, after = np.asarray(before, "float64"), np.asarray(after, "float64")
    return float(np.linalg.norm(after - before) / (np.linalg.norm(before) or 1.0))
