"""Weight layers on vector units, their conventional twins, and shaping."""

from keras_gevb.layers.base import WeightLayer
from keras_gevb.layers.convolutional import (
    Conv2D,
    LocallyConnected2D,
    VectorConv2D,
    VectorLocallyConnected2D,
)
from keras_gevb.layers.dense import Dense, VectorDense, VectorReadout
from keras_gevb.layers.local import Local
from keras_gevb.layers.shaping import VectorAveragePooling2D, VectorFlatten

__all__ = [
    "Conv2D",
    "Dense",
    "Local",
    "LocallyConnected2D",
    "VectorAveragePooling2D",
    "VectorConv2D",
    "VectorDense",
    "VectorFlatten",
    "VectorLocallyConnected2D",
    "VectorReadout",
    "WeightLayer",
]
