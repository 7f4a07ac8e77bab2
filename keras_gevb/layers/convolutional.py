"""Layers whose units see a window of the space: convolution and local connection."""

import keras
from keras import ops

from keras_gevb.layers.base import WeightLayer


class _Windowed(WeightLayer):
    space_rank = 2

    def __init__(self, filters, kernel_size, *, strides=1, padding="valid", **kwargs):
        super().__init__(filters, **kwargs)
        self.filters = self.units
        self.kernel_size = _pair("kernel_size", kernel_size, self.name)
        self.strides = _pair("strides", strides, self.name)
        if padding not in ("valid", "same"):
            raise ValueError(f"Layer '{self.name}': padding must be 'valid' or 'same'. Received: {padding!r}")
        self.padding = padding

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
        }


class _Conv2D(_Windowed):
    def kernel_axes(self, input_shape):
        return (), self.kernel_size

    def project(self, inputs, kernel):
        strides = self.strides
        if len(inputs.shape) == 5:
            # The vector axis is a third spatial axis that the window does not extend over.
            kernel, strides = ops.expand_dims(kernel, 2), (*strides, 1)
        return ops.conv(inputs, kernel, strides=strides, padding=self.padding)


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorConv2D(_Conv2D):
    """Convolution of vector units."""


@keras.saving.register_keras_serializable(package="keras_gevb")
class Conv2D(_Conv2D):
    """Convolution of conventional units."""

    vectorized = False


class _LocallyConnected2D(_Windowed):
    positions_rank = 2

    def kernel_axes(self, input_shape):
        positions = tuple(
            -(-size // stride) if self.padding == "same" else (size - window) // stride + 1
            for size, window, stride in zip(input_shape[1:3], self.kernel_size, self.strides)
        )
        return positions, self.kernel_size

    def project(self, inputs, kernel):
        height, width, *window, channels, units = kernel.shape
        patches = self._patches(inputs, (height, width))
        kernel = ops.reshape(kernel, (height, width, -1, units))
        if len(inputs.shape) == 5:
            return ops.einsum("bhwkp,hwpu->bhwku", patches, kernel)
        return ops.einsum("bhwp,hwpu->bhwu", patches, kernel)

    def _patches(self, inputs, positions):
        sizes = inputs.shape[1:3]
        extents = [(n - 1) * s + k for n, s, k in zip(positions, self.strides, self.kernel_size)]
        pads = [max(extent - size, 0) for extent, size in zip(extents, sizes)]
        widths = [(0, 0)] + [(pad // 2, pad - pad // 2) for pad in pads]
        widths += [(0, 0)] * (len(inputs.shape) - 3)
        inputs = ops.pad(inputs, widths)
        (h, w), (sh, sw) = positions, self.strides
        return ops.concatenate(
            [
                inputs[:, i : i + (h - 1) * sh + 1 : sh, j : j + (w - 1) * sw + 1 : sw]
                for i in range(self.kernel_size[0])
                for j in range(self.kernel_size[1])
            ],
            axis=-1,
        )


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorLocallyConnected2D(_LocallyConnected2D):
    """Locally connected vector units."""


@keras.saving.register_keras_serializable(package="keras_gevb")
class LocallyConnected2D(_LocallyConnected2D):
    """Locally connected conventional units."""

    vectorized = False


def _pair(name, value, layer):
    pair = (value, value) if isinstance(value, int) else value
    try:
        pair = tuple(int(v) for v in pair)
        valid = len(pair) == 2 and min(pair) >= 1
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(
            f"Layer '{layer}': {name} must be a positive integer or a pair of them. Received: {value!r}"
        )
    return pair
