"""One training step: what ran forward, the error vector, and what a learning rule makes of them."""

import copy
import functools
import operator
from collections.abc import Collection, Sequence
from typing import Any

import keras
from keras import ops

from keras_gevb import backend, private, scopes, structure, targets
from keras_gevb.passes import Again, Behind, Recording, Updating
from keras_gevb.places import forward
from keras_gevb.rules.base import LearningRule
from keras_gevb.types import Array, Pairs, Record, Tensor


class Step:
    """One training step on one batch, up to its updates.

    It changes nothing but what a forward pass in training changes (seeds, moving averages).

    Args:
        model: A built model.
        x: Its inputs, a batch.
        rule: A `LearningRule`.

    Attributes:
        records: One `Record` for each call of a place that learns, in order.
        readouts: Those whose outputs become the model's without another place.
        outputs: The model's outputs, in their structure.
        error: The error vector e = dLoss/dLogits, `(batch, K)`, once `assess` was called, or as assigned:
            the derivative in the outputs of the readouts, side by side.
        loss: The loss to report, once `assess` was called.
        targets, sample_weight: As `assess` was given them.

    Raises:
        ValueError: if the rule cannot serve the network.
    """

    def __init__(self, model: Any, x: Array, rule: LearningRule):
        self.model, self.x, self.rule = model, x, rule
        self.error: Tensor = None
        self.loss: Tensor = None
        self.targets: Any = None
        self.sample_weight: Any = None
        self._changed: Collection[int] = ()
        self._silences: list[Tensor] = []
        # A pass that is run again draws the same numbers and sees the same states. Weights stay what they
        # are, but under a rule that remembers, and where a layer writes a kernel that the model reads itself.
        self._between: list[Any] = getattr(model, "read_between", list)()
        moving = set(map(id, model.variables if rule.remembers() else self._between))
        kept = set(map(id, private.weights_that_learn(model))) - moving
        before = [(v, ops.copy(v.value)) for v in model.variables if id(v) not in kept]
        weights = [(v, v.value) for v in model.variables if id(v) in kept]
        self._began = backend.Moment()
        recording = Recording(activity=not rule.low_memory)
        with private.watching_unseeded() as unseeded, recording.in_force():
            self.outputs = forward(model, x, training=True)
        calls = [record.call for record in recording.records if record.call is not None]
        # What layers write in their calls, also what no list has: as the first of several found it.
        changed = [pair for call in reversed(calls) for pair in (*call.before, *call.weights_before)]
        known = (*weights, *changed, *before, *unseeded)
        self._before = list({id(v): (v, value) for v, value in known}.values())
        structure.check_records(model, recording.records)
        rule.check(recording.records)
        numbers = structure.find_readouts(recording.records, self.outputs, self._behind)
        self.records = [r.of_readout() if r.number in numbers else r for r in recording.records]
        self.readouts = [record for record in self.records if record.is_readout]

    def assess(self, y: Array, sample_weight: Array | None = None) -> "Step":
        """Compute the loss and the error vector.

        Args:
            y: The targets.
            sample_weight: Optional weights of the samples.

        Raises:
            ValueError: if the loss, the targets and the rule do not fit each other.
        """
        self.targets, self.sample_weight = y, sample_weight
        model = self.model
        if not self.has_head:
            targets.check_loss(model)
        regularized = [v for v in model.trainable_variables if v.regularizer is not None]
        added = len(model.losses) - len(regularized)
        structure.check_added_losses(model, self.rule, added)

        def scaled_loss(*outputs):
            loss = self._loss(self._finished(outputs))
            return self._scaled(loss), loss

        outputs = [record.outputs for record in self.readouts]
        self.loss, errors, direct = backend.loss_gradients(scaled_loss, outputs, model.trainable_variables)
        self.error = targets.error_vector(errors, outputs, added)
        pairs = zip(model.trainable_variables, direct, strict=True)
        self._gradients = [(v, gradient) for v, gradient in pairs if gradient is not None]
        if added:
            self._gradients += self._differentiated(
                lambda _, losses: sum(map(ops.sum, losses)) / backend.replicas()
            )
        structure.check_read_between(model, self._between, self.rule)
        between = set(map(id, self._between))
        whole = self._differentiated(lambda outputs, _: self._loss(outputs)) if between else []
        self._whole = {id(v): gradient for v, gradient in whole if id(v) in between}
        return self

    @property
    def hidden(self) -> list[Record]:
        """The records of other places than readouts."""
        return [record for record in self.records if not record.is_readout]

    @property
    def has_head(self) -> bool:
        """Whether something without weights, such as a softmax, makes the outputs from those of readouts."""
        outputs = keras.tree.flatten(self.outputs)
        return len(outputs) != len(self.readouts) or any(
            record.outputs is not output for record, output in zip(self.readouts, outputs)
        )

    def _finished(self, values):
        """The model's outputs where those of the readouts are `values`."""
        if not self.has_head:
            pairs = zip(values, keras.tree.flatten(self.outputs))
            values = [private.masked(value, private.mask(output)) for value, output in pairs]
            return keras.tree.pack_sequence_as(self.outputs, values)
        numbers = [record.number for record in self.readouts]
        # The values in force, in which the loss is differentiated too.
        weights = [(v, v.value) for v in self.model.trainable_variables]
        return self._behind(self.records, dict(zip(numbers, values)), weights)

    def _loss(self, outputs):
        return targets.compute_loss(self.model, self.x, self.targets, outputs, self.sample_weight)

    def _behind(self, records, outputs, weights=()):
        with private.keeping_losses(self.model):
            return self._run(Behind(records, outputs), self.x, weights)

    def _scaled(self, loss):
        return loss if self.model.optimizer is None else self.model.optimizer.scale_loss(loss)

    def _differentiated(self, total):
        """Gradients by automatic differentiation of the whole forward pass.

        Args:
            total: A function of the outputs and of the losses that layers add.
        """
        variables = self.model.trainable_variables

        def differentiated(*values):
            with scopes.holding([*self._before, *zip(variables, values)]) as scope, self._began.again():
                scope.primals = frozenset(map(id, variables))
                outputs = forward(self.model, self.x, training=True)
                found = total(outputs, scope.losses)
            return self._scaled(ops.cast(found, keras.config.floatx()))

        before = {id(v): value for v, value in self._before}
        values = [ops.convert_to_tensor(before[id(v)]) for v in variables]
        gradients = backend.vjp(differentiated, values, ops.ones(()))
        return [(v, g) for v, g in zip(variables, gradients, strict=True) if g is not None]

    # What a rule reads.

    def backward(self, feedback: Pairs = ()) -> list[Tensor]:
        """The backpropagated signal g at the gated output of every record.

        With the gates held a network of vector units is linear and the same map N for
        each component, so `dLoss/da_ik = g_i e_k` with `g_i = dN/da_i`: one automatic
        derivative, of one component, instead of K. In a conventional network
        `g_i = dLoss/da_i`.

        Args:
            feedback: Pairs (variable, value): values that variables have on the way back.

        Returns:
            One tensor for each record, shaped as its gate.

        Raises:
            ValueError: naming a layer that no signal reaches.
        """
        again, at = self._again(feedback)
        told = [ops.cast(self.readout_signal(record), record.outputs.dtype) for record in self.readouts]
        signals = backend.vjp(again, at, told)
        for record, signal in zip(self.records, signals, strict=True):
            if signal is None and record.call is None:
                raise ValueError(
                    f"Layer '{record.layer.name}' does not act on the model's output through "
                    "weight layers and component-wise layers, so no signal reaches it. Connect it, "
                    "or set its `trainable` to False."
                )
        pairs = zip(self.records, signals)
        return [self._silence(r) if signal is None else signal for r, signal in pairs]

    def _silence(self, record):
        """The signal to what does not act on the outputs, which is not updated, as in Keras."""
        self._silences.append(ops.zeros_like(record.gate))
        return self._silences[-1]

    def along(self, directions: Sequence[Tensor]) -> Tensor:
        """The derivative of the outputs along directions at the gated outputs of all records, gates held.

        Args:
            directions: One tensor for each record, shaped as its gate.

        Returns:
            `(batch, K)`; of vector units `(batch, 1)`, since it is the same for each component.
        """
        again, at = self._again()
        tangents = [ops.cast(d, a.dtype) for d, a in zip(directions, at, strict=True)]
        ends = backend.jvp(again, at, tangents)
        return ops.concatenate([ops.reshape(end, (ops.shape(end)[0], -1)) for end in ends], axis=-1)

    def _again(self, feedback=()):
        """The readouts' outputs in the recorded pass, as a function of perturbations, and those it had."""
        changed = [*self._changed, *(id(variable) for variable, _ in feedback)]
        # A network of vector units is linear, so its derivative is the same anywhere.
        at = [
            ops.zeros_like(record.gate) if record.place.vectorized else record.place.source(record)
            for record in self.records
        ]

        def again(*perturbations):
            a_pass = Again(self.records, perturbations, changed)
            self._run(a_pass, self.x, feedback)
            return [a_pass.outputs[record.number] for record in self.readouts]

        return again, at

    def told(self) -> Tensor:
        """What readouts are told, side by side, `(batch, K)`: e; where units are vectors 1, `(batch, 1)`."""
        return ops.ones_like(self.error[:, :1]) if self.readouts[0].place.vectorized else self.error

    def readout_signal(self, record: Record) -> Tensor:
        """What each rule of the package tells a readout: g = 1 where units are vectors, else its part of e.

        Args:
            record: That of a readout.
        """
        if record.place.vectorized:
            return self.told()
        shapes = [ops.shape(readout.outputs) for readout in self.readouts]
        place = [readout.number for readout in self.readouts].index(record.number)
        # Extents may be known when the step runs only.
        sizes = [functools.reduce(operator.mul, shape[1:], 1) for shape in shapes]
        start = sum(sizes[:place])
        return ops.reshape(self.error[:, start : start + sizes[place]], shapes[place])

    def share(self) -> Tensor:
        """What each sample counts, `(batch, 1)`: its weight / batch, scaled as e is.

        So a signal that takes more or less than e from a sample is averaged over the batch as e is. Weights
        of several outputs or of time steps are averaged.
        """
        samples = ops.shape(self.error)[0]
        weights = [w for w in keras.tree.flatten(self.sample_weight) if w is not None]
        means = [ops.mean(ops.reshape(ops.cast(w, self._exact()), (samples, -1)), axis=1) for w in weights]
        weight = sum(means) / len(means) if means else ops.ones((samples,), self._exact())
        return ops.cast(ops.reshape(weight, (samples, 1)) * self._each(), self.error.dtype)

    def shares(self) -> Tensor:
        """What each entry of e counts, `(batch, K)`: as `share`, of its own output and time step.

        Where outputs have positions, such as time steps, e is averaged over these too.
        """
        weights = targets.weights(self.model, self.outputs, self.sample_weight)
        found = {id(part): weight for part, weight in zip(keras.tree.flatten(self.outputs), weights)}
        parts = []
        for readout in self.readouts:
            shape = ops.shape(readout.outputs)
            ones = ops.ones(shape, self._exact()) / functools.reduce(operator.mul, shape[1:-1], 1)
            if id(readout.outputs) in found or len(weights) == len(self.readouts) == 1:
                of_samples, of_loss = found.get(id(readout.outputs), weights[0])
                ones = of_loss * targets.weighted(ones, of_samples) * self._each()
            else:  # a head of several outputs
                ones = ops.reshape(self.share(), (-1, *[1] * (len(shape) - 1))) * ones
            parts.append(ops.reshape(ones, (shape[0], -1)))
        return ops.cast(ops.concatenate(parts, axis=-1), self.error.dtype)

    def _each(self):
        return self._scale() / ops.cast(ops.shape(self.error)[0], self._exact())

    def own_error(self) -> Tensor:
        """The derivative of this batch's loss in the logits: e without the scale of optimizer or replicas."""
        return ops.cast(self.error, self._exact()) / self._scale()

    def _scale(self):
        """How much larger the error is than the derivative of this batch's own loss."""
        return self._scaled(ops.ones((), self._exact())) / backend.replicas()

    def _exact(self):
        return keras.backend.result_type(self.error.dtype, "float32")

    def signals(self) -> list[Tensor]:
        """The rule's signals, one for each record."""
        return self.rule.signals(self)

    # Updates.

    def updates(self) -> list[Tensor | None]:
        """The updates, in the order of `model.trainable_variables`: None of what is not told anything."""
        totals: dict[int, Tensor] = {}
        for variable, update in [*self._updates(), *self.rule.own_updates(self), *self._gradients]:
            key = id(variable)
            if key in self._whole:
                continue
            # A row of an embedding is updated where it was looked up: slices, unless there is more to add.
            totals[key] = backend.add_up([totals[key], update]) if key in totals else update
        # Learned weights of the model's rule rest where another rule's updates are asked for.
        totals |= self._whole
        return [totals.get(id(v)) for v in self.model.trainable_variables]

    def _updates(self):
        if self.rule.low_memory:
            updating = Updating(self.records, lambda record: self.rule.told(record, self), self.error)
            x = backend.after(keras.tree.flatten(self.x), [self.error])
            self._run(updating, keras.tree.pack_sequence_as(self.x, x))
            return updating.updates
        told = [
            (record, signal)
            for record, signal in zip(self.records, self.signals(), strict=True)
            if not any(signal is silence for silence in self._silences)
        ]
        return [update for record, signal in told for update in record.updates(signal, self.error)]

    def _run(self, another_pass, x, values=()):
        """The outputs of another pass, with the weights and the random numbers of the recorded one."""
        values = [*self._before, *values]
        with scopes.holding(values), self._began.again(), another_pass.in_force():
            return forward(self.model, x, training=True)

    def change(self, variable: Any) -> Tensor:
        """What was added to a variable since the step began, under a rule that remembers."""
        return variable.value - next(before for v, before in self._before if v is variable)

    def at_present_weights(self) -> "Step":
        """This step, its error vector, inputs and gates held, as the present weights see it."""
        step = copy.copy(self)
        weights = {id(v) for v in self.model.weights}
        step._before = [(v, v.value if id(v) in weights else before) for v, before in self._before]
        step._changed = weights
        return step


def record(model: Any, x: Array) -> list[Record]:
    """The records of a forward pass in training, which leaves the model as it was."""
    with scopes.holding():
        return Step(model, x, LearningRule()).records
