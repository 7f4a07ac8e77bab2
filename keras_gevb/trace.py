"""What a learning rule sees of a model's forward pass, and how that pass is run again.

A weight layer hands its call to the pass in force. An ordinary `Pass` computes the
activity; a `Recording` also keeps each layer's input and gate; a `Replay` runs the
network as the linear map that it is while its gates are held. The pass in force is
local to its thread, because distribution strategies run each replica in a thread.
"""

import contextlib
import dataclasses
import threading
from typing import Any

import keras
from keras import ops

from keras_gevb import backend


class Pass:
    """An ordinary forward pass."""

    def run(self, layer, inputs):
        """The outputs of one call of a weight layer."""
        return layer.activate(inputs)[0]

    @contextlib.contextmanager
    def in_force(self):
        """The scope in which weight layers run by this pass."""
        previous, _thread.current = current(), self
        try:
            yield self
        finally:
            _thread.current = previous


_thread = threading.local()
_ordinary = Pass()


def current():
    """The pass in force in this thread."""
    return getattr(_thread, "current", _ordinary)


@dataclasses.dataclass(frozen=True)
class Record:
    """One call of one weight layer.

    Attributes:
        layer: The weight layer.
        inputs: What it received.
        gate: 1 where a unit is open and 0 where closed, `(batch, *space, units)`.
        outputs: What it returned.
    """

    layer: Any
    inputs: Any = None
    gate: Any = None
    outputs: Any = None


class Recording(Pass):
    """A forward pass that keeps a `Record` of every call, in order.

    Args:
        activity: Keep what the layers received and returned. Otherwise a record has its layer
            alone, but for the last one, which has its outputs.
    """

    def __init__(self, activity=True):
        self.records = []
        self._activity = activity

    def run(self, layer, inputs):
        outputs, gate = layer.activate(inputs)
        if self._activity:
            self.records.append(Record(layer, inputs, gate, outputs))
        else:
            self.records = [Record(record.layer) for record in self.records]
            self.records.append(Record(layer, outputs=outputs))
        return outputs


class Learning(Pass):
    """A forward pass that updates every layer as it is called, by its gates and the error vector.

    A layer waits for the updates of the one before it, so the activity of one is held at a time.

    Attributes:
        updates: Pairs (variable, update), one for each use of a variable.
    """

    def __init__(self, error):
        self.updates = []
        self._error = error
        self._done = [error]

    def run(self, layer, inputs):
        (inputs,) = backend.after([inputs], self._done)
        outputs, gate = layer.activate(inputs)
        updates = layer.updates(inputs, gate, self._error)
        self._done = [update for _, update in updates]
        self.updates += updates
        return outputs


class Replay(Pass):
    """A recorded pass once more, on one component, with its gates held.

    Args:
        records: The records of that pass.
        perturbations: A tensor added to each layer's gated output, shaped as its gate.
        kernels: Kernels that replace the layers' own, by `id(layer)`.
    """

    def __init__(self, records, perturbations, kernels):
        self._steps = zip(records, perturbations, strict=True)
        self._kernels = kernels

    def run(self, layer, inputs):
        record, perturbation = next(self._steps)
        kernel = self._kernels.get(id(layer), layer.kernel)
        kernel = ops.cast(kernel, layer.compute_dtype)
        return layer.replay(inputs, kernel, record.gate, perturbation)


class Trace:
    """A recorded forward pass of a model.

    Args:
        model: The model.
        x: Its inputs, a batch.
        activity: See `Recording`.

    Attributes:
        records: One `Record` for each call of a weight layer, in order.
        outputs: The model's outputs.
    """

    def __init__(self, model, x, activity=True):
        self._model, self._x = model, x
        if not model.built:
            model(x)  # building runs the layers too, which must not be recorded
        # Random layers must draw the same numbers when the pass is replayed.
        weights = {id(v) for v in model.weights}
        self._state = [(v, v.value if id(v) in weights else ops.copy(v)) for v in model.variables]
        with Recording(activity).in_force() as recording:
            self.outputs = model(x, training=True)
        self.records = recording.records

    def backward(self, error, kernels=None):
        """The backpropagated signal g at the gated output of every record.

        With the gates held a network of vector units is linear and the same map N for
        each component, so `dLoss/da_ik = g_i e_k` with `g_i = dN/da_i`: one automatic
        derivative, of one component, instead of K. In a conventional network
        `g_i = dLoss/da_i`.

        Args:
            error: The error vector, `(batch, K)`.
            kernels: Kernels that replace the layers' own on the way back, by `id(layer)`.

        Returns:
            One tensor for each record, shaped as its gate.
        """

        def replay(*perturbations):
            return self.replay(perturbations, kernels)

        last = self.records[-1].layer
        cotangent = ops.ones_like(error[:, :1]) if last.vectorized else error
        # A network of vector units is linear, so its derivative is the same anywhere.
        at = [
            ops.zeros_like(record.gate) if last.vectorized else record.layer.source(record)
            for record in self.records
        ]
        signals = backend.vjp(replay, at, ops.cast(cotangent, last.compute_dtype))
        for record, signal in zip(self.records, signals, strict=True):
            if signal is None:
                raise ValueError(
                    f"Layer '{record.layer.name}' does not act on the model's output through "
                    "weight layers and component-wise layers, so no signal reaches it. Connect it, "
                    "or set its `trainable` to False."
                )
        return signals

    def replay(self, perturbations, kernels=None):
        """The outputs of a `Replay`."""
        return self._again(Replay(self.records, perturbations, kernels or {}), self._x)

    def learn(self, error):
        """The updates of a `Learning` pass, a list of pairs (variable, update)."""
        learning = Learning(error)
        x = keras.tree.flatten(self._x)
        self._again(learning, keras.tree.pack_sequence_as(self._x, backend.after(x, [error])))
        return learning.updates

    def _again(self, another_pass, x):
        """The outputs of another pass, with the random numbers of the recorded one."""
        with keras.StatelessScope(state_mapping=self._state), another_pass.in_force():
            return self._model(x, training=True)
