"""What a backend that runs the step in one way, on one device, has to say."""

import contextlib
import random

import keras
import numpy as np

uncompiled = now = contextlib.nullcontext
writes_weights = True


class Moment:
    """The random numbers that come now, of NumPy's and Python's generators: Keras's seeds are variables."""

    def __init__(self):
        self._of_numpy = np.random.get_state()  # noqa: NPY002  what layers may draw by
        self._of_python = random.getstate()

    def bring_back(self):
        """Go on as from this moment."""
        np.random.set_state(self._of_numpy)  # noqa: NPY002
        random.setstate(self._of_python)

    @contextlib.contextmanager
    def again(self):
        """A scope in which what was drawn from this moment on is drawn again."""
        end = type(self)()
        self.bring_back()
        try:
            yield
        finally:
            end.bring_back()


def build_now(optimizer, variables):
    """Build the optimizer for the variables now: there is no step being traced."""
    optimizer.build(variables)


def as_one(function):
    """The function, compiled as a whole where only parts of the step are: nowhere here."""
    return function


def add_up(terms):
    """The sum of tensors of one shape."""
    return sum(terms[1:], start=terms[0])


def apply(optimizer, updates, variables):
    """One step of the optimizer, as Keras's trainer calls it."""
    optimizer.apply(updates, variables)


def assigned(value, before=None):
    """What a variable that was assigned a value is read as: no function of what the value is made of.

    Args:
        value: A tensor.
        before: What it was, where derivatives in the variable are taken: that of reading it.
    """
    stopped = keras.ops.stop_gradient(value if before is None else value - before)
    return stopped if before is None else before + stopped


def assign(pairs):
    """Give variables their values."""
    for variable, value in pairs:
        variable.assign(value)


def creating_variables(model):
    """The scope in which weights of a built model are created."""
    return contextlib.nullcontext()


def dense(tensor):
    """The tensor with its zeros: as it is."""
    return tensor


def graph():
    """The function that is being traced: none."""


def untraced(function):
    """The function: none is traced."""
    return function


def integers(labels):
    """Labels as integers wide enough to compare."""
    return keras.ops.cast(labels, "int64")


def is_numbers(part):
    """Whether a part of a structure is a dense tensor of fractions, which has a derivative."""
    if not keras.ops.is_tensor(part) or bool(getattr(part, "sparse", False)):
        return False
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(part.dtype))


def is_sparse(tensor):
    """Whether a tensor keeps its zeros implicit."""
    return bool(getattr(tensor, "sparse", False))


def of_any_batch(tensor):
    """The tensor, its number of samples known to what is traced, as in Keras's own functions."""
    return tensor


def replicas():
    """The number of replicas whose losses add up."""
    return 1


def replica():
    """Which of the replicas this is."""
    return 0


def stand_in(tensor, samples=4):
    """Random numbers where a tensor has fractions, else zeros: valid indices of anything."""
    return None if tensor is None else keras.ops.convert_to_tensor(numbers_like(tensor, samples))


def numbers_like(tensor, samples):
    """The same, as an array; eight of what is not known."""
    shape = [samples, *(8 if n is None else n for n in tensor.shape[1:])]
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if keras.backend.is_float_dtype(dtype):
        return np.random.default_rng(0).random(shape).astype("float32")
    return np.full(shape, "") if dtype == "string" else np.zeros(shape, dtype)


def stand_ins(variables):
    """Pairs (variable, value) with which the variables can be read now: as they are."""
    return [(variable, variable.value) for variable in variables]
