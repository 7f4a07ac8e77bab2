"""Models that learn by a learning rule: Keras's own, with another training step."""

from typing import Any

import keras

from keras_gevb import private
from keras_gevb.learning import Learner, weight_layers
from keras_gevb.types import Rule

__all__ = ["Functional", "Model", "Sequential", "weight_layers"]


@keras.saving.register_keras_serializable(package="keras_gevb")
class Model(Learner, keras.Model):
    """A Keras model that learns by a learning rule.

    Everything is `keras.Model`, but what `train_step` hands to the optimizer: the rule's
    updates in place of the gradients. It is made from inputs and outputs, or by subclassing.

    Args:
        inputs, outputs: As in `keras.Model`.
        learning_rule: A name ("gevb", "backprop", "dfa", "fa") or a `LearningRule`. It is
            an argument of the model, not of `compile`, so that tuners, which compile
            models anew, keep it. Defaults to "gevb".

    Example:

    >>> inputs = keras.Input((64,))
    >>> units = layers.VectorDense(32, vector_dim=10)(inputs)
    >>> more = layers.VectorDense(32)(units)
    >>> outputs = layers.VectorReadout()(keras.layers.Add()([units, more]))
    >>> model = keras_gevb.Model(inputs, outputs, learning_rule="gevb")
    """

    def __new__(cls, *args, **kwargs):
        if cls is Model and _are_functional(args, kwargs):
            cls = Functional
        return super().__new__(cls, *args, **kwargs)

    def __init__(self, *args: Any, learning_rule: Rule = "gevb", **kwargs: Any):
        if _are_functional(args, kwargs) and not isinstance(self, Functional):
            _make_functional(type(self))
        super().__init__(*args, **kwargs)
        self._set_learning_rule(learning_rule)


@keras.saving.register_keras_serializable(package="keras_gevb")
class Functional(Model, private.Functional):
    """What `Model(inputs, outputs)` is, as in Keras: so that `Model` itself stays free for subclasses."""


def _are_functional(args, kwargs):
    """Whether a model is made from inputs and outputs."""
    return len(args) == 2 or ("outputs" in kwargs and (len(args) == 1 or "inputs" in kwargs))


def _make_functional(cls):
    """A subclass made from inputs and outputs is a `Functional`, as in Keras; `Model` stays as it is."""
    for base in cls.__bases__:
        if issubclass(base, Model) and base is not Model:
            _make_functional(base)
    cls.__bases__ = tuple(Functional if base is Model else base for base in cls.__bases__)


@keras.saving.register_keras_serializable(package="keras_gevb")
class Sequential(Model, keras.Sequential):
    """A Keras Sequential model that learns by a learning rule.

    Args:
        layers: As in `keras.Sequential`.
        learning_rule: See `Model`.

    Example:

    >>> model = keras_gevb.Sequential([
    ...     keras.Input((64,)),
    ...     layers.VectorDense(32, vector_dim=10),
    ...     layers.VectorReadout(),
    ... ], learning_rule="gevb")
    """

    def __init__(self, layers: Any = None, *, learning_rule: Rule = "gevb", **kwargs: Any):
        super().__init__(layers, learning_rule=learning_rule, **kwargs)
