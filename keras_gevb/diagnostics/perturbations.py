"""Other activity and other weights, at random, in place of those of a step."""

import contextlib
import dataclasses
import functools

import keras
import numpy as np
from keras import ops

from keras_gevb import backend


def another(record, random):
    """A record of other activity."""
    if record.call is not None:
        return record.on(_mapped(functools.partial(redrawn, random=random), record.inputs))
    parts = {name: redrawn(getattr(record, name), random) for name in ("inputs", "outputs")}
    gate = random.uniform(0.0, 1.0, tuple(record.gate.shape)) > 0.5
    return dataclasses.replace(record, gate=ops.cast(ops.convert_to_tensor(gate), record.gate.dtype), **parts)


def joined(record, other, first):
    """The first samples of a record, and the rest of another one."""
    if record.call is not None:
        return record.on(
            _mapped(
                lambda part, rest: ops.concatenate([part[:first], rest[first:]]),
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


def redrawn(tensor, random):
    """Random numbers in a tensor's shape."""
    return ops.cast(ops.convert_to_tensor(random.standard_normal(tuple(tensor.shape))), tensor.dtype)


@contextlib.contextmanager
def moved(variables, random):
    """Weights changed at random within the scope; nonnegative ones stay so."""
    before = [(v, ops.convert_to_numpy(v)) for v in variables]
    try:
        for variable, value in before:
            size = float(np.sqrt(np.mean(np.square(value, dtype="float64")))) or 1.0
            variable.assign(value + size * random.uniform(0.5, 1.5, value.shape) * np.where(value < 0, -1, 1))
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


def relative_change(before, after):
    """|after - before| / |before|."""
    before, after = np.asarray(before, "float64"), np.asarray(after, "float64")
    return float(np.linalg.norm(after - before) / (np.linalg.norm(before) or 1.0))
