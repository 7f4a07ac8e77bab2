"""Layers without weights that shape vector tensors."""

import keras
from keras import ops

from keras_gevb import backend


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorFlatten(keras.layers.Layer):
    """Flatten the space of a vector tensor, channels innermost.

    Input shape: `(batch, *space, K, channels)`.
    Output shape: `(batch, K, prod(space) * channels)`.

    Example:

    >>> tuple(VectorFlatten()(keras.ops.ones((2, 7, 7, 10, 32))).shape)
    (2, 10, 1568)
    """

    def call(self, inputs):
        *space, components, channels = inputs.shape[1:]
        # Fused, what is transposed would be computed one number at a time.
        with backend.uncompiled():
            vectors_first = ops.moveaxis(inputs, -2, 1)
        size = None if None in space else channels
        for extent in space:
            size = size and size * extent
        return ops.reshape(vectors_first, (-1, components, size))


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorAveragePooling2D(keras.layers.AveragePooling2D):
    """Average pooling over the space of a vector tensor, component by component.

    The same as `keras.layers.AveragePooling3D((*pool_size, 1))`, but in two dimensions,
    which exist in half precision on CPU too and are faster.

    Args:
        pool_size, strides, padding: As in `keras.layers.AveragePooling2D`.

    Input shape: `(batch, height, width, K, channels)`.
    Output shape: `(batch, height', width', K, channels)`.

    Example:

    >>> tuple(VectorAveragePooling2D(2)(keras.ops.ones((2, 28, 28, 10, 64))).shape)
    (2, 14, 14, 10, 64)
    """

    def __init__(self, pool_size, strides=None, padding="valid", **kwargs):
        super().__init__(pool_size, strides=strides, padding=padding, **kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=5)

    def call(self, inputs):
        height, width, components, channels = inputs.shape[1:]
        if backend.fusing() and self._tiles(height, width):
            rows, columns = self.pool_size
            # Slices fuse with the gate of the layer before; a pooling operation would not.
            slices = [inputs[:, i::rows, j::columns] for i in range(rows) for j in range(columns)]
            return backend.add_up(slices) / len(slices)
        pooled = super().call(ops.reshape(inputs, (*ops.shape(inputs)[:3], components * channels)))
        return ops.reshape(pooled, (*ops.shape(pooled)[:3], components, channels))

    def _tiles(self, height, width):
        rows, columns = self.pool_size
        known = None not in (height, width)
        return known and tuple(self.strides) == (rows, columns) and height % rows == width % columns == 0

    def compute_output_shape(self, input_shape):
        *flat, components, channels = input_shape
        pooled = super().compute_output_shape((*flat, components * channels))
        return (*pooled[:-1], components, channels)
