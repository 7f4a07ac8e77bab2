"""What the probes of a certificate change, and what they find of one rule."""

import copy
import functools

import keras
import numpy as np
from keras import ops

from keras_gevb import places, scopes
from keras_gevb.diagnostics.perturbations import another, joined, moved, redrawn, relative_change
from keras_gevb.rules.base import LearningRule
from keras_gevb.step import Step

# What a probe changes, and the rule that shows that the probe sees it.
PROBES = {
    "forward weights": "weights of the other layers + noise of 0.5 to 1.5 times their root mean square",
    "feedback weights": "weights of the rule + the same noise",
    "later activity": "inputs, gates, outputs of all later layers, the logits and the loss: new random ones",
    "other samples": "activity, e, targets of half of the samples: other ones; what the others are told",
    "targets": "targets exchanged between samples, e held",
}


class Control(LearningRule):
    """A rule with one of these dependences: g, times feedback, plus the batch's mean, or times the target."""

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


class Probing:
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
                f"Received: {rule!r}. Draw random numbers by keras_gevb.rules.noise.Noise, and change "
                "variables in `remember` alone."
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
        if self.model.learning_rule.low_memory and not isinstance(self.rule, Control):
            return [self.rule.told(record, step) for record in step.records]
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
                    totals[f"{variable.path} (memory)", owners[id(variable)]] = ops.convert_to_numpy(value)
                else:
                    totals[f"{variable.path} (memory)", "(rule)"] = ops.convert_to_numpy(
                        value - variable.value
                    )
        return totals

    @staticmethod
    def _add(totals, variable, layer, update):
        key = variable.path, layer
        totals[key] = totals.get(key, 0) + ops.convert_to_numpy(update)

    @staticmethod
    def _differ(before, after):
        return {key: relative_change(value, after[key]) for key, value in before.items()}

    # The probes.

    def _of_weights(self):
        changes = dict.fromkeys(self.before, 0.0)
        for other in places.of(self.model):
            with moved(other.trainable_variables, self._random()):
                after = self.updates(self.step.at_present_weights())
            for key, change in self._differ(self.before, after).items():
                if key[1] != other.name:
                    changes[key] = max(changes[key], change)
        return changes

    def _of_feedback(self):
        # Not the state of a rule's noise, which is no weight.
        variables = [v for v in self.rule.variables if v.name != "noise"]
        with moved(variables, self._random()):
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
                    functools.partial(redrawn, random=random), step.outputs
                )
                step.loss = None if step.loss is None else step.loss + 1.0
            step.records = [another(r, random) if r.number > last else r for r in self.step.records]
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
        step.records = [joined(r, another(r, random), first) for r in step.records]
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
    if isinstance(rule, Control):
        rule.factor = keras.Variable(1.0, trainable=False, name="feedback")
        rule.variables = [rule.factor]
    with scopes.holding([(v, v.value) for v in model.variables]):
        return Step(model, x, rule).assess(y)
