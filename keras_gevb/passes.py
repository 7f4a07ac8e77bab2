"""A model's forward pass, as its weight layers run it: plain, recorded, run again, or updating as it goes.

A place that learns hands its call to the pass in force. An ordinary `Pass` computes the activity; a
`Recording` also keeps what each place needs to learn; `Again` runs the network as the recorded pass saw it,
a linear map while its gates are held; `Behind` runs what follows its readouts alone; `Updating` changes
every place as it is called. The pass in force is local to its thread, because distribution strategies
run each replica in a thread.
"""

import contextlib
import dataclasses
import math
import threading
from typing import Any

import keras

from keras_gevb import backend, private, scopes


class Pass:
    """An ordinary forward pass."""

    def run(self, place, inputs):
        """The outputs of one call of a place."""
        return place.activate(inputs)[0]

    @contextlib.contextmanager
    def in_force(self):
        """The scope in which places run by this pass."""
        previous, _thread.current = current(), self
        self.began_in = backend.graph()
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
class Use:
    """How a model calls a place.

    Attributes:
        shape: That of its units for one sample; None in it where it is not known.
        is_readout: Whether its outputs become the model's without another place.
        rows: How many rows of its outputs a sample has: more than 1 where time is folded into the batch.
    """

    shape: tuple
    is_readout: bool
    rows: float = 1

    @property
    def size(self):
        """The number of units at all positions, or None."""
        return None if None in self.shape else math.prod(self.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """One call of one place.

    Attributes:
        place: The weight layer, or a `LayerPlace` of another layer.
        number: Its place among the records of the pass, from 0.
        inputs: What it received: a tensor, or `(args, kwargs)` of another layer.
        gate: 1 where a unit is open and 0 where closed, `(batch, *space, units)`.
        outputs: What it returned, as one tensor; of a readout, what its own activation receives.
        call: What a `LayerPlace` holds besides.
        is_readout: Whether its outputs become the model's without another place. Then a
            layer's own activation counts as what follows it.
        began, ended: The moments of the call, by which random numbers are drawn again.
    """

    place: Any
    number: int = 0
    inputs: Any = None
    gate: Any = None
    outputs: Any = None
    call: Any = None
    is_readout: bool = False
    began: Any = None
    ended: Any = None

    @property
    def layer(self):
        """The Keras layer."""
        return self.place.as_layer()

    @property
    def activity(self):
        """Its outputs, 0 at padding."""
        return self._without_padding(self.outputs, self.outputs.shape)

    def without_padding(self, signal):
        """The signal, 0 where a mask leaves the outputs out, as Keras's layers do that take one."""
        return self._without_padding(signal, self.gate.shape)

    def _without_padding(self, tensor, shape):
        args, settings = ((self.inputs,), {}) if self.call is None else self.inputs
        first, mask = [*args, *settings.values()][0], settings.get("mask")
        mask = keras.tree.map_structure(private.mask, first) if mask is None else mask
        mask = self.layer.compute_mask(first, mask) if self.layer.supports_masking else None
        # None, or one for each of several outputs, or that of inputs which have other positions.
        positions = tuple(getattr(mask, "shape", shape))
        if len(positions) >= len(shape) or any(
            None not in pair and pair[0] != pair[1] for pair in zip(positions, shape)
        ):
            return tensor
        counts = keras.ops.reshape(mask, (*keras.ops.shape(mask), *[1] * (len(shape) - len(positions))))
        return tensor * keras.ops.cast(counts, tensor.dtype)

    def updates(self, signal, error):
        """Pairs (variable, update): the place's, for the credit gate x signal; of an embedding, some rows.

        Raises:
            ValueError: if the signal is not shaped as the gate, nor one number for some of its axes.
        """
        given, needed = tuple(signal.shape), tuple(self.gate.shape)
        if len(given) > len(needed) or any(
            None not in pair and pair[0] not in (1, pair[1]) for pair in zip(given[::-1], needed[::-1])
        ):
            raise ValueError(
                f"A rule tells every unit of a layer one number, so a signal is shaped as the layer's gate, "
                f"{needed} of '{self.layer.name}'. Received: a signal of shape {given}."
            )
        return self.place.updates(self, self.gate * signal, error)

    def finish(self, outputs):
        """What the layer returns where its record has `outputs`."""
        return outputs if self.call is None else self.call.finish(outputs, self.is_readout)

    def pass_by(self):
        """Go on behind the call: with the random numbers and the states that followed it."""
        self.ended.bring_back()
        for variable, value in () if self.call is None else self.call.after:
            variable.assign(value)

    def of_readout(self):
        """The record, as that of a readout."""
        outputs = self.outputs if self.call is None else self.call.h
        return dataclasses.replace(self, outputs=outputs, is_readout=True)

    def without_activity(self):
        """The record, with its outputs alone."""
        call = None if self.call is None else self.call.without_derivative()
        return dataclasses.replace(self, inputs=None, gate=None, call=call)

    def on(self, inputs):
        """The record of the same call on other inputs."""
        with scopes.holding(() if self.call is None else self.call.before), self.began.again():
            record = recorded(self.place.record, self.number, inputs)
        return record.of_readout() if self.is_readout else record

    def of(self, examples):
        """The record of some of the examples, a slice of the batch."""
        if self.call is not None:
            return self.on(
                keras.tree.map_structure(
                    lambda part: part[examples] if keras.ops.is_tensor(part) else part, self.inputs
                )
            )
        parts = {name: getattr(self, name)[examples] for name in ("inputs", "gate", "outputs")}
        return dataclasses.replace(self, **parts)


def recorded(record, *args):
    """The record of a call, made by `record`, with its moments."""
    began = backend.Moment()
    record = record(*args)
    return dataclasses.replace(record, began=began, ended=backend.Moment())


class Recording(Pass):
    """A forward pass that keeps a `Record` of every call, in order.

    Args:
        activity: Keep what the places received. Otherwise a record has its place and outputs alone.
    """

    def __init__(self, activity=True):
        self.records = []
        self._activity = activity

    def run(self, place, inputs):
        if backend.graph() != self.began_in:
            raise ValueError(
                f"Layer '{place.name}' ({type(place.as_layer()).__name__}) is called within a loop, a branch "
                "or a function of its own, such as ops.while_loop, ops.scan, ops.cond or tf.function, where "
                "its calls cannot be told apart. Make what is inside one layer (a subclass of "
                "keras.layers.Layer that holds it), which learns as a whole."
            )
        return self.keep(recorded(place.record, len(self.records), inputs))

    def keep(self, record):
        """The outputs of a call, of which the record is kept."""
        self.records.append(record if self._activity else record.without_activity())
        return record.finish(record.outputs)


class Again(Pass):
    """A recorded pass once more, with its gates held; of vector units, on one component.

    Args:
        records: The records of that pass.
        perturbations: A tensor added to each place's outputs, shaped as its gate.
        changed: The ids of variables that have other values than they had.

    Attributes:
        outputs: Those of every place.
    """

    def __init__(self, records, perturbations, changed=()):
        self.outputs, self.changed = [], frozenset(changed)
        self._steps = zip(records, perturbations, strict=True)

    def run(self, place, inputs):
        record, perturbation = next(self._steps)
        outputs = place.activate_again(record, inputs, perturbation)
        record.pass_by()
        self.outputs.append(outputs)
        # What follows a readout of vector units takes all components.
        return record.finish(record.outputs if place.vectorized and place.is_readout else outputs)


class Behind(Pass):
    """What follows the readouts of a recorded pass: all other places return what they returned.

    Args:
        records: The records of that pass.
        outputs: A dict from the number of a record to outputs in place of its own.
    """

    def __init__(self, records, outputs):
        self._records, self._outputs = iter(records), outputs

    def run(self, place, inputs):
        record = next(self._records)
        record.pass_by()
        return record.finish(self._outputs.get(record.number, record.outputs))


class Updating(Pass):
    """A recorded pass once more, which updates every place as it is called.

    A place waits for the updates of the one before it, so the activity of one is held at a time.

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

    def run(self, place, inputs):
        inputs = keras.tree.map_structure(self._after, inputs)
        before = next(self._records)
        record = recorded(place.record, before.number, inputs)
        record = record.of_readout() if before.is_readout else record
        updates = record.updates(self._signal(record), self._error)
        self._done = [update for _, update in updates] or self._done
        self.updates += updates
        return record.finish(record.outputs)

    def _after(self, part):
        """A part of a place's inputs, which waits, with its mask."""
        if not backend.is_numbers(part):
            return part
        (waiting,) = backend.after([part], self._done)
        return private.masked(waiting, private.mask(part))
