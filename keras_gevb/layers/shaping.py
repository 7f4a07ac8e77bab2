"""Layers without weights that shape vector tensors."""

import itertools
from typing import Any

import keras
from keras import ops

from keras_gevb import backend
from keras_gevb.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorReshape(keras.layers.Reshape):
    """Give a vector tensor another space and channels, each component as `keras.layers.Reshape` does.

    K stays open, so that one component passes as all K do.

    Args:
        target_shape: Tuple, without the batch and K; one of its numbers may be -1.

    Input shape: `(batch, *space, K, channels)`.
    Output shape: `(batch, *target_shape[:-1], K, target_shape[-1])`.

    Raises:
        ValueError: by Keras, if the shape has not as many numbers as the input.

    Example:

    >>> tuple(VectorReshape((7, -1))(keras.ops.ones((2, 7, 7, 10, 32))).shape)
    (2, 7, 10, 224)
    """

    def build(self, input_shape: Shape) -> None:
        super().build((*input_shape[:-2], input_shape[-1]))

    def call(self, inputs: Tensor) -> Tensor:
        # Fused, what is transposed would be computed one number at a time.
        with backend.uncompiled():
            vectors_first = ops.moveaxis(inputs, -2, 1)
        *space, components, channels = self.compute_output_shape(inputs.shape)[1:]
        sizes = (-1 if size is None else size for size in (components, *space, channels))
        return ops.moveaxis(ops.reshape(vectors_first, (ops.shape(inputs)[0], *sizes)), 1, -2)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        *space, components, channels = input_shape
        *space, channels = super().compute_output_shape((*space, channels))
        return (*space, components, channels)


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorFlatten(VectorReshape):
    """Flatten the space of a vector tensor, channels innermost.

    Input shape: `(batch, *space, K, channels)`.
    Output shape: `(batch, K, prod(space) * channels)`.

    Example:

    >>> tuple(VectorFlatten()(keras.ops.ones((2, 7, 7, 10, 32))).shape)
    (2, 10, 1568)
    """

    def __init__(self, **kwargs: Any):
        super().__init__((-1,), **kwargs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["target_shape"]
        return config


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorDropout(keras.layers.Layer):
    """Dropout of whole units: all K components of a unit are dropped, or none, so the network stays linear.

        output_i = r_i a_i / (1 - rate)        r_i = 0 with probability `rate`, else 1

    Args:
        rate: Between 0 and 1.
        seed: Integer.

    Input shape: `(batch, *space, K, channels)`.
    Output shape: as the input's.

    Raises:
        ValueError: if the rate is out of its range.

    Example:

    >>> tuple(VectorDropout(0.5)(keras.ops.ones((2, 7, 7, 10, 32)), training=True).shape)
    (2, 7, 7, 10, 32)

    Reference: Srivastava et al. 2014, on vector units.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"Layer '{self.name}': rate must be from 0 to below 1. Received: {rate!r}")
        self.rate, self.seed = rate, seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if not training or not self.rate:
            return inputs
        *rest, _, channels = ops.shape(inputs)
        seed = self.seed_generator
        return keras.random.dropout(inputs, self.rate, noise_shape=(*rest, 1, channels), seed=seed)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


class _ComponentWise:
    """A pooling layer of Keras on vector tensors: K times the channels, for it."""

    input_spec: Any

    def __init__(self, *args: Any, **kwargs: Any):
        data_format = kwargs.pop("data_format", None)
        if data_format not in (None, "channels_last"):
            raise ValueError(
                f"{type(self).__name__}: vectors and their channels come last. Pass "
                f"data_format='channels_last', or none. Received: data_format={data_format!r}"
            )
        super().__init__(*args, data_format="channels_last", **kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=self.input_spec.ndim + 1)

    def call(self, inputs: Tensor, **arguments: Any) -> Tensor:
        *rest, components, channels = ops.shape(inputs)
        pooled = super().call(ops.reshape(inputs, (*rest, components * channels)), **arguments)
        return ops.reshape(pooled, (*ops.shape(pooled)[:-1], components, channels))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        *flat, components, channels = input_shape
        pooled = super().compute_output_shape((*flat, components * channels))
        return (*pooled[:-1], components, channels)


class _AveragePooling(_ComponentWise):
    def __init__(
        self,
        pool_size: Any,
        strides: int | tuple[int, ...] | None = None,
        padding: str = "valid",
        **kwargs: Any,
    ):
        super().__init__(pool_size, strides=strides, padding=padding, **kwargs)

    def call(self, inputs: Tensor) -> Tensor:
        space = inputs.shape[1:-2]
        if not backend.fusing() or not self._tiles(space):
            return super().call(inputs)
        # Slices fuse with the gate of the layer before; a pooling operation would not.
        starts = itertools.product(*map(range, self.pool_size))
        steps = [[slice(s, None, n) for s, n in zip(start, self.pool_size)] for start in starts]
        return backend.add_up([inputs[(slice(None), *step)] for step in steps]) / len(steps)

    def _tiles(self, space):
        sizes = tuple(self.pool_size)
        tiled = all(extent % size == 0 for extent, size in zip(space, sizes) if extent is not None)
        return None not in space and tuple(self.strides) == sizes and tiled


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorAveragePooling1D(_AveragePooling, keras.layers.AveragePooling1D):
    """Average pooling over a sequence of vectors: `VectorAveragePooling2D` of another rank.

    Args:
        pool_size, strides, padding: As in `keras.layers.AveragePooling1D`.

    Input shape: `(batch, length, K, channels)`.
    Output shape: `(batch, length', K, channels)`.

    Example:

    >>> tuple(VectorAveragePooling1D(2)(keras.ops.ones((2, 28, 10, 64))).shape)
    (2, 14, 10, 64)
    """


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorAveragePooling2D(_AveragePooling, keras.layers.AveragePooling2D):
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


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorAveragePooling3D(_AveragePooling, keras.layers.AveragePooling3D):
    """Average pooling over a volume of vectors: `VectorAveragePooling2D` of another rank.

    Args:
        pool_size, strides, padding: As in `keras.layers.AveragePooling3D`.

    Input shape: `(batch, depth, height, width, K, channels)`.
    Output shape: `(batch, depth', height', width', K, channels)`.

    Example:

    >>> tuple(VectorAveragePooling3D(2)(keras.ops.ones((2, 8, 8, 8, 10, 4))).shape)
    (2, 4, 4, 4, 10, 4)
    """


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorGlobalAveragePooling1D(_ComponentWise, keras.layers.GlobalAveragePooling1D):
    """The mean over a sequence of vectors, component by component; of what a mask leaves, if there is one.

    Args:
        keepdims: As in `keras.layers.GlobalAveragePooling1D`.

    Input shape: `(batch, length, K, channels)`.
    Output shape: `(batch, K, channels)`, with `keepdims` `(batch, 1, K, channels)`.

    Example:

    >>> tuple(VectorGlobalAveragePooling1D()(keras.ops.ones((2, 28, 10, 64))).shape)
    (2, 10, 64)
    """

    def call(self, inputs: Tensor, mask: Any = None) -> Tensor:
        return super().call(inputs, mask=mask)


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorGlobalAveragePooling2D(_ComponentWise, keras.layers.GlobalAveragePooling2D):
    """The mean over the space of a vector tensor, component by component.

    Args:
        keepdims: As in `keras.layers.GlobalAveragePooling2D`.

    Input shape: `(batch, height, width, K, channels)`.
    Output shape: `(batch, K, channels)`, with `keepdims` `(batch, 1, 1, K, channels)`.

    Example:

    >>> tuple(VectorGlobalAveragePooling2D()(keras.ops.ones((2, 28, 28, 10, 64))).shape)
    (2, 10, 64)
    """


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorGlobalAveragePooling3D(_ComponentWise, keras.layers.GlobalAveragePooling3D):
    """The mean over a volume of vectors, component by component.

    Args:
        keepdims: As in `keras.layers.GlobalAveragePooling3D`.

    Input shape: `(batch, depth, height, width, K, channels)`.
    Output shape: `(batch, K, channels)`, with `keepdims` `(batch, 1, 1, 1, K, channels)`.

    Example:

    >>> tuple(VectorGlobalAveragePooling3D()(keras.ops.ones((2, 8, 8, 8, 10, 4))).shape)
    (2, 10, 4)
    """
