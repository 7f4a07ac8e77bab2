"""Values that variables have for a while, in scopes within scopes."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import keras

from keras_gevb import backend
from keras_gevb.types import Pairs

_thread = threading.local()


def held() -> Any:
    """The innermost scope that `holding` opened in this thread, or None."""
    return getattr(_thread, "scope", None)


class _Scope(keras.StatelessScope):
    """Where variables have values for a while.

    Attributes:
        variables: Those that were given values.
        written: Those that were assigned to.
        read: The ids of those that were read, in no scope inside.
        primals: The ids of those in which derivatives are taken: what one of them is assigned it is from then
            on, with the derivative of itself where the backend has variables.
    """

    variables = primals = ()

    def __init__(self, **settings):
        super().__init__(**settings)
        self.written, self.read = [], set()

    def get_current_value(self, variable):
        self.read.add(id(variable))
        return super().get_current_value(variable)

    def values(self):
        """Pairs (variable, value) of those that have values, which are not read by that."""
        return [(v, super(_Scope, self).get_current_value(v)) for v in self.variables]

    def add_update(self, update):
        variable, value = update
        self.written.append(variable)
        before = self.get_current_value(variable) if id(variable) in self.primals else None
        super().add_update((variable, backend.assigned(value, before)))


@contextlib.contextmanager
def holding(pairs: Pairs = ()) -> Iterator[Any]:
    """A `keras.StatelessScope` where variables have these values, the others those of the scope around it.

    Keras's own scopes hide the one around them. What changes inside is dropped with the scope, unless it is
    read before: `variable.value`.

    Args:
        pairs: Pairs (variable, value).

    Example:

    >>> variable = keras.Variable(0.0)
    >>> with scopes.holding([(variable, 2.0)]):
    ...     with scopes.holding():
    ...         inside = float(variable.value)
    >>> inside, float(variable.value)
    (2.0, 0.0)
    """
    outer = held()
    around = [] if outer is None else outer.values()
    mapping = list({id(variable): (variable, value) for variable, value in (*around, *pairs)}.values())
    with _Scope(state_mapping=mapping, collect_losses=True) as scope:
        scope.variables = [variable for variable, _ in mapping]
        scope.losses.extend(getattr(outer, "losses", ()))
        _thread.scope = scope
        try:
            yield scope
        finally:
            _thread.scope = outer


def held_variables() -> list[Any]:
    """The variables that have a value by a scope of `holding` in this thread."""
    return list(getattr(held(), "variables", ()))
