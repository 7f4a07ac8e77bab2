"""Learning rules, by name and by class."""

from typing import Any

import keras

from keras_gevb.rules.backprop import FA, Backprop
from keras_gevb.rules.base import LearningRule, LocalRule
from keras_gevb.rules.dfa import DFA
from keras_gevb.rules.gevb import GEVB

_BY_NAME = {"gevb": GEVB, "backprop": Backprop, "dfa": DFA, "fa": FA}

__all__ = ["DFA", "FA", "GEVB", "Backprop", "LearningRule", "LocalRule", "get"]


def get(identifier: str | dict[str, Any] | LearningRule) -> LearningRule:
    """The learning rule for a name, a config, or a rule itself.

    Args:
        identifier: "gevb", "backprop", "dfa", "fa"; a `LearningRule`, or its serialized config.

    Raises:
        ValueError: if the name is unknown.

    Example:

    >>> keras_gevb.rules.get("gevb")
    GEVB(...)
    """
    if isinstance(identifier, str) and identifier in _BY_NAME:
        return _BY_NAME[identifier]()
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, LearningRule):
        return identifier
    raise ValueError(
        f"Unknown learning rule. Choose one of {sorted(_BY_NAME)}, or pass a LearningRule. "
        f"Received: {identifier!r}"
    )
