"""Models for programs that have no keras_gevb: those that answer, and those that learn.

Keras's own `model.export(path)` works too, also with `format="onnx"` and `format="litert"`; here is
what it does not do.
"""

from keras_gevb.export.litert import to_trainable_litert
from keras_gevb.export.onnx import to_trainable_onnx
from keras_gevb.export.saved_model import to_trainable_saved_model
from keras_gevb.export.serving import to_saved_model
from keras_gevb.export.stock import to_keras
from keras_gevb.export.trainable import load_state

__all__ = [
    "load_state",
    "to_keras",
    "to_saved_model",
    "to_trainable_litert",
    "to_trainable_onnx",
    "to_trainable_saved_model",
]
