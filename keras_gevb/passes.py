"""A model's forward pass, as its weight layers run it: plain, recorded, run again, or updating as it goes.

A weight layer hands its call to the pass in force. An ordinary `Pass` computes the activity; a
`Recording` also keeps each layer's input and gate; `Again` runs the network as the linear map that it is
while its gates are held; `Updating` changes every layer as it is called. The pass in force is local
to its thread, because distribution strategies run each replica in a thread.
"""

import contextlib
import dataclasses
import threading
from typing import Any

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
        number: Its place among the records of the pass, from 0.
        inputs: What it received.
        gate: 1 where a unit is open and 0 where closed, `(batch, *space, units)`.
        outputs: What it returned.
    """

    layer: Any
    number: int = 0
    inputs: Any = None
    gate: Any = None
    outputs: Any = None

    def updates(self, signal, error):
        """Pairs (variable, update): the layer's, for the credit gate x signal."""
        return self.layer.updates(self.inputs, self.gate * signal, error)

    def of(self, examples):
        """The record of some of the examples, a slice of the batch."""
        parts = {name: getattr(self, name)[examples] for name in ("inputs", "gate", "outputs")}
        return dataclasses.replace(self, **parts)


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
        number = len(self.records)
        if self._activity:
            self.records.append(Record(layer, number, inputs, gate, outputs))
        else:
            self.records = [Record(record.layer, record.number) for record in self.records]
            self.records.append(Record(layer, number, outputs=outputs))
        return outputs


class Again(Pass):
    """A recorded pass once more, on one component, with its gates held.

    Args:
        records: The records of that pass.
        perturbations: A tensor added to each layer's gated output, shaped as its gate.
    """

    def __init__(self, records, perturbations):
        self._steps = zip(records, perturbations, strict=True)

    def run(self, layer, inputs):
        record, perturbation = next(self._steps)
        return layer.activate_again(inputs, record.gate, perturbation)


class Updating(Pass):
    """A recorded pass once more, which updates every layer as it is called.

    A layer waits for the updates of the one before it, so the activity of one is held at a time.

    Args:
        records: The records of that pass.
        signal: A function from a record to the signal of a local rule.
        error: The error vector.

    Attributes:
        updates: Pairs (variable, update), one for each use of a variable.
    """

    def __init__(self, records, signal, error):
        self.updates = []
        self._records = iter(records)
        self._signal, self._error = signal, error
        self._done = [error]

    def run(self, layer, inputs):
        (inputs,) = backend.after([inputs], self._done)
        outputs, gate = layer.activate(inputs)
        record = Record(layer, next(self._records).number, inputs, gate, outputs)
        updates = record.updates(self._signal(record), self._error)
        self._done = [update for _, update in updates] or self._done
        self.updates += updates
        return outputs
