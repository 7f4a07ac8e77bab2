"""Deep networks that learn without backpropagation, as ordinary Keras models."""

import importlib
import os
import sys

# TensorFlow reads this when it is imported. By default it leaves oneDNN off on CPUs without such
# instructions as AVX-512 VNNI, and with it the allocator that keeps memory between steps: 1.3 to
# 4.9 times slower steps.
if "tensorflow" not in sys.modules:
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

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
