"""Learning rules, by name and by class."""

import keras

from keras_gevb.rules.backprop import FA, Backprop
from keras_gevb.rules.base import LearningRule, LocalRule
from keras_gevb.rules.decorrelation import EBD
from keras_gevb.rules.dfa import DFA, DRTP, SDFA
from keras_gevb.rules.gevb import GEVB
from keras_gevb.rules.kolen_pollack import KP
from keras_gevb.rules.learned import DKP, FDFA
from keras_gevb.rules.local_error import LocalError
from keras_gevb.rules.perturbation import NodePerturbation
from keras_gevb.rules.signs import BRSF, FRSF, USF
from keras_gevb.types import Rule

_BY_NAME = {
    "gevb": GEVB,
    "backprop": Backprop,
    "dfa": DFA,
    "fa": FA,
    "usf": USF,
    "brsf": BRSF,
    "frsf": FRSF,
    "kp": KP,
    "dkp": DKP,
    "sdfa": SDFA,
    "drtp": DRTP,
    "node_perturbation": NodePerturbation,
    "fdfa": FDFA,
    "ebd": EBD,
    "local_error": LocalError,
}

__all__ = [
    "BRSF",
    "DFA",
    "DKP",
    "DRTP",
    "EBD",
    "FA",
    "FDFA",
    "FRSF",
    "GEVB",
    "KP",
    "SDFA",
    "USF",
    "Backprop",
    "LearningRule",
    "LocalError",
    "LocalRule",
    "NodePerturbation",
    "get",
]


def get(identifier: Rule) -> LearningRule:
    """The learning rule for a name, a config, or a rule itself.

    Args:
        identifier: A name ("gevb", "backprop", "dfa", "fa", "usf", "brsf", "frsf", "kp", "dkp", "sdfa",
            "drtp", "node_perturbation", "fdfa", "ebd", "local_error"); a `LearningRule`; its serialized
            config.

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
