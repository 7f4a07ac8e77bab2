"""Deep networks that learn without backpropagation, as ordinary Keras models."""

from keras_gevb import datasets, diagnostics, initializers, layers, rules, trace, zoo
from keras_gevb.model import Model, Sequential
from keras_gevb.version import __version__

__all__ = [
    "Model",
    "Sequential",
    "__version__",
    "datasets",
    "diagnostics",
    "initializers",
    "layers",
    "rules",
    "trace",
    "zoo",
]
