"""Weight layers on vector units, their conventional twins, and shaping."""

from keras_gevb.layers.base import WeightLayer
from keras_gevb.layers.coding import OutputCode
from keras_gevb.layers.convolutional import Conv1D, Conv2D, Conv3D, VectorConv1D, VectorConv2D, VectorConv3D
from keras_gevb.layers.dense import Dense, VectorDense, VectorReadout
from keras_gevb.layers.embedding import VectorEmbedding
from keras_gevb.layers.local import Local
from keras_gevb.layers.locally_connected import (
    LocallyConnected1D,
    LocallyConnected2D,
    VectorLocallyConnected1D,
    VectorLocallyConnected2D,
)
from keras_gevb.layers.separable import (
    DepthwiseConv2D,
    SeparableConv2D,
    VectorDepthwiseConv2D,
    VectorSeparableConv2D,
)
from keras_gevb.layers.shaping import (
    VectorAveragePooling1D,
    VectorAveragePooling2D,
    VectorAveragePooling3D,
    VectorDropout,
    VectorFlatten,
    VectorGlobalAveragePooling1D,
    VectorGlobalAveragePooling2D,
    VectorGlobalAveragePooling3D,
    VectorReshape,
)

__all__ = [
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "Dense",
    "DepthwiseConv2D",
    "Local",
    "LocallyConnected1D",
    "LocallyConnected2D",
    "OutputCode",
    "SeparableConv2D",
    "VectorAveragePooling1D",
    "VectorAveragePooling2D",
    "VectorAveragePooling3D",
    "VectorConv1D",
    "VectorConv2D",
    "VectorConv3D",
    "VectorDense",
    "VectorDepthwiseConv2D",
    "VectorDropout",
    "VectorEmbedding",
    "VectorFlatten",
    "VectorGlobalAveragePooling1D",
    "VectorGlobalAveragePooling2D",
    "VectorGlobalAveragePooling3D",
    "VectorLocallyConnected1D",
    "VectorLocallyConnected2D",
    "VectorReadout",
    "VectorReshape",
    "VectorSeparableConv2D",
    "WeightLayer",
]
