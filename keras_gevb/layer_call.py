"""One call of a Keras layer, and its derivative."""

import contextlib
import copy
import math

import keras
from keras import ops

from keras_gevb import backend, private, scopes


class Call:
    """One call of a layer, linearized: h = f(inputs, W), outputs = activation(h) where it has one of its own.

    Attributes:
        h, outputs: One tensor each.
        given: Which of the flattened inputs are numbers, through which signals pass.
        changed: Pairs (variable, value): moving averages, seeds and states after the call.
        before, after: The same before it, so that it can be repeated, and after it; no weights that learn.
        weights_before: Those of them that a call changes, as a normalization of kernels does.
        losses: What it added to the losses.
    """

    def __init__(self, place, inputs):
        self._place, self._inputs = place, inputs
        flat = keras.tree.flatten(inputs)
        self.given = [n for n, part in enumerate(flat) if backend.is_numbers(part)]
        variables = place.trainable_variables
        weights = [ops.convert_to_tensor(v.value) for v in variables]

        def function(*primals):
            state = place.layer.variables
            parts = list(flat)
            for n, part in zip(self.given, primals):
                parts[n] = private.masked(part, private.mask(flat[n]))
            args, kwargs = keras.tree.pack_sequence_as(inputs, parts)
            with scopes.holding(zip(variables, primals[len(self.given) :])) as scope:
                known, scope.primals = len(scope.losses), frozenset(map(id, variables))
                before, beforehand = [scope.get_current_value(v) for v in state], _copies(state)
                with _watched_activation(place.layer) as activations:
                    outputs = place.call(*args, **kwargs)
                # Some no layer lists, such as the states of a recurrent one.
                unlisted = [v for v in scope.written if not any(v is other for other in state)]
                state = [*state, *{id(v): v for v in unlisted}.values()]
                values = [scope.get_current_value(v) for v in state]
                losses = scope.losses[known:]
            before += [None] * (len(state) - len(before))
            beforehand += _copies(state[len(beforehand) :])
            self._activation = None
            if len(activations) == 1 and activations[0][2] is outputs:
                self._activation, outputs, _ = activations[0]
            changed = [n for n in range(len(state)) if values[n] is not before[n]]
            self._changed = [state[n] for n in changed]
            found = [(state[n], beforehand[n]) for n in changed]
            self.before = [pair for pair in found if id(pair[0]) not in scope.primals]
            self.weights_before = [pair for pair in found if id(pair[0]) in scope.primals]
            self._outputs = _Parts(outputs, flat)
            return self._outputs.numbers(), (self._outputs.others(), [values[n] for n in changed], losses)

        primals = [*(flat[n] for n in self.given), *weights]
        self.h, rest, self._pull_h = backend.linearized(function, primals)
        self._others, values, self.losses = rest
        self.changed = list(zip(self._changed, values))
        weights = set(map(id, variables))
        self.after = [(v, value) for v, value in self.changed if id(v) not in weights]
        self.outputs, self._pull_activation = self.h, None
        if self.has_activation:
            activation = self._activation
            self.outputs, _, self._pull_activation = backend.linearized(
                lambda h: (activation(h), ()), [self.h]
            )

    @property
    def has_activation(self):
        return self._activation is not None

    def finish(self, outputs, is_readout):
        """What the layer returns, from its outputs, or from h of a readout."""
        if self.has_activation:
            return self._activation(outputs) if is_readout else outputs
        return self._outputs.restored(outputs, self._others)

    def pull(self, signal, is_readout):
        """The signals to given inputs and to weights, from one at the outputs, or at h of a readout."""
        signal = ops.cast(signal, self.h.dtype)
        if self.has_activation and not is_readout:
            (signal,) = self._pull_activation(signal)
        return self._pull_h(signal)

    def at_weights_in_force(self):
        """The derivative of h at other weights; that of the activation as it was."""
        call = copy.copy(self)
        with scopes.holding(self.before):
            call._pull_h = Call(self._place, self._inputs)._pull_h
        return call

    def without_derivative(self):
        call = copy.copy(self)
        call._pull_h = call._pull_activation = call._inputs = None
        return call


def _copies(variables):
    """What variables are now, also where they hold it themselves and change in place."""
    return [ops.cast(ops.copy(v.value), v.dtype) for v in variables]


class _Parts:
    """The parts of a layer's outputs: numbers, which are joined to one tensor of all samples, and others.

    Args:
        outputs: What the layer returned.
        inputs: What it received, flat.
    """

    def __init__(self, outputs, inputs):
        self._parts = keras.tree.flatten(outputs)
        self._structure = keras.tree.map_structure(lambda _: 0, outputs)
        self._are_numbers = list(map(backend.is_numbers, self._parts))
        self._numbers = [part for part, is_one in zip(self._parts, self._are_numbers) if is_one]
        tensors = [part for part in inputs if ops.is_tensor(part) and len(part.shape)]
        self._samples = ops.shape(tensors[0])[0] if tensors else 1
        self._known_samples = tensors[0].shape[0] if tensors else 1

    def numbers(self):
        if len(self._numbers) == 1 and len(self._numbers[0].shape):
            return self._numbers[0]
        dtype = keras.backend.result_type(*(part.dtype for part in self._numbers), float)
        flat = [ops.cast(self._by_sample(part), dtype) for part in self._numbers]
        return ops.concatenate(flat, axis=-1) if flat else ops.zeros((self._samples, 0), dtype)

    def others(self):
        return [part for part, is_one in zip(self._parts, self._are_numbers) if not is_one]

    def restored(self, numbers, others):
        if len(self._numbers) == 1 and len(self._numbers[0].shape):
            found = iter([numbers])
        else:
            found = self._split(numbers)
        others = iter(others)
        parts = [next(found) if is_one else next(others) for is_one in self._are_numbers]
        return keras.tree.pack_sequence_as(self._structure, parts)

    def _split(self, numbers):
        start = 0
        for part in self._numbers:
            size = 1
            for extent in ops.shape(part)[1 if self._is_of_samples(part) else 0 :]:
                size = size * extent
            flat = numbers[:, start : start + size]
            start = start + size
            if not self._is_of_samples(part):
                flat = ops.sum(flat, axis=0)
            yield ops.cast(ops.reshape(flat, ops.shape(part)), part.dtype)

    def _is_of_samples(self, part):
        return len(part.shape) > 0 and part.shape[0] == self._known_samples

    def _by_sample(self, part):
        """`(batch, n)`: of what is no sample's, such as a layer's own loss, each has its share."""
        if self._is_of_samples(part):
            size = -1 if None in part.shape[1:] else math.prod(part.shape[1:])
            return ops.reshape(part, (ops.shape(part)[0], size))
        part = ops.reshape(part, (1, -1)) / ops.cast(self._samples, part.dtype)
        return part * ops.ones((self._samples, 1), part.dtype)


@contextlib.contextmanager
def _watched_activation(layer):
    """What the layer's activation, if it has one, is called with: triples (activation, inputs, outputs)."""
    activation, calls = vars(layer).get("activation"), []
    if (
        not callable(activation)
        or getattr(activation, "weights", ())
        or activation is keras.activations.linear
    ):
        yield calls
        return

    def watched(h):
        outputs = activation(h)
        calls.append((activation, h, outputs))
        return outputs

    vars(layer)["activation"] = watched
    try:
        yield calls
    finally:
        vars(layer)["activation"] = activation
