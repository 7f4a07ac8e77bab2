"""Deep networks that learn without backpropagation, as ordinary Keras models."""

import importlib

from keras_gevb import datasets, diagnostics, initializers, layers, optimizers, rules, step, zoo
from keras_gevb.conversion import convert
from keras_gevb.model import Model, Sequential
from keras_gevb.vectorization import vectorize
from keras_gevb.version import __version__

__all__ = [
    "Model",
    "Sequential",
    "__version__",
    "backend",
    "convert",
    "datasets",
    "diagnostics",
    "experiments",
    "export",
    "initializers",
    "layers",
    "optimizers",
    "rules",
    "scopes",
    "step",
    "tuning",
    "vectorize",
    "zoo",
]

# What most programs do without is loaded when it is first used.
_LATER = "experiments", "export", "tuning"


def __getattr__(name):
    if name in _LATER:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_LATER})
