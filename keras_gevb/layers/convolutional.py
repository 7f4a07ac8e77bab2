"""Layers whose units see a window of the space: convolution and local connection."""

import itertools

import keras
from keras import ops

from keras_gevb import backend
from keras_gevb.layers.base import WeightLayer
from keras_gevb.layers.weights import is_positive_integer

# A convolution over so few inputs is summed slice by slice where XLA compiles it: it fuses with the
# gate and the pooling that follow, and the preactivation is never written to memory. Measured on
# CPU: for 3 x 3 windows of one channel a quarter of the time, for 5 x 5 of three three times as much.
_FUSED_WINDOW = 16


class _Windowed(WeightLayer):
    space_rank = 2

    def __init__(self, filters, kernel_size, strides=1, padding="valid", **kwargs):
        super().__init__(filters, **kwargs)
        self.filters = self.units
        self.kernel_size = _pair("kernel_size", kernel_size, self.name)
        self.strides = _pair("strides", strides, self.name)
        if padding not in ("valid", "same"):
            raise ValueError(f"Layer '{self.name}': padding must be 'valid' or 'same'. Received: {padding!r}")
        self.padding = padding

    def kernel_axes(self, input_shape):
        sizes = input_shape[1:3]
        if self.padding == "valid" and any(n and n < k for n, k in zip(sizes, self.kernel_size)):
            raise ValueError(
                f"Layer '{self.name}': the window does not fit into the input. Received: kernel_size="
                f"{self.kernel_size} on a space of {tuple(sizes)}. Choose a smaller one, or padding='same'."
            )
        return (), self.kernel_size

    def _pad(self, inputs, first=1):
        """The inputs with zeros around their space, whose axes begin at `first`."""
        widths, sizes = [(0, 0)] * len(inputs.shape), inputs.shape[first : first + 2]
        counts = self.positions(sizes)
        for i, (size, count, stride, window) in enumerate(zip(sizes, counts, self.strides, self.kernel_size)):
            missing = max((count - 1) * stride + window - size, 0)
            widths[first + i] = missing // 2, missing - missing // 2
        return ops.pad(inputs, widths)

    def positions(self, space):
        """The number of window positions, down and across."""
        counts = []
        for size, window, stride in zip(space, self.kernel_size, self.strides):
            starts = size if size is None or self.padding == "same" else size - window + 1
            counts.append(starts and -(-starts // stride))
        return tuple(counts)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
        }


class _Conv2D(_Windowed):
    def project(self, inputs, kernel):
        rows, columns, channels, _ = kernel.shape
        if len(inputs.shape) == 5:
            # The vector axis is a third spatial axis that the window does not extend over.
            kernel, strides = ops.expand_dims(kernel, 2), (*self.strides, 1)
            return ops.conv(inputs, kernel, strides=strides, padding=self.padding)
        known = None not in inputs.shape[1:3]
        if known and backend.fusing() and rows * columns * channels <= _FUSED_WINDOW:
            return self._sum_of_slices(inputs, kernel)
        return ops.conv(inputs, kernel, strides=self.strides, padding=self.padding)

    def _sum_of_slices(self, inputs, kernel):
        height, width = self.positions(inputs.shape[1:3])
        inputs = self._pad(inputs)
        rows, columns, channels, _ = kernel.shape
        down, across = self.strides
        terms = []
        for i, j in itertools.product(range(rows), range(columns)):
            last = i + (height - 1) * down, j + (width - 1) * across
            place = inputs[:, i : last[0] + 1 : down, j : last[1] + 1 : across]
            terms += [place[..., c : c + 1] * kernel[i, j, c] for c in range(channels)]
        return backend.add_up(terms)


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorConv2D(_Conv2D):
    """Convolution whose units are vectors of K numbers.

        h_xi = sum_dj W_dij a_(x+d)j + b_i        h, a, b in R^K
        output_xi = h_xi if t_i . h_xi >= 0 else 0

    for a unit i at position x, whose window extends over the offsets d. As in
    `VectorDense`, scalar weights are shared by the K components, and nonnegative past the
    first layer; the gates of a filter are the same at all positions.

    Args:
        filters: Number of vector units at each position.
        kernel_size: Height and width of the window: an integer or a pair.
        strides: An integer or a pair.
        padding: "valid" or "same", as in Keras.
        vector_dim: K, the number of outputs of the model; on scalar input only.
        nonnegative, gated, use_bias, kernel_initializer, bias_initializer,
            gates_initializer, kernel_regularizer, bias_regularizer, kernel_constraint,
            bias_constraint: As in `VectorDense`.

    Input shape: `(batch, height, width, C)` with `vector_dim`, else
    `(batch, height, width, K, C)`.
    Output shape: `(batch, height', width', K, filters)`.
    Weights: `kernel` `(kh, kw, C, K, filters)` with `vector_dim`, else
    `(kh, kw, C, filters)`; `bias` and `gates` `(K, filters)`.

    Raises:
        ValueError: as `VectorDense`, and if the window does not fit into the input.

    Example:

    >>> images = keras.ops.ones((2, 8, 8, 3))
    >>> tuple(VectorConv2D(16, 3, padding="same", vector_dim=10)(images).shape)
    (2, 8, 8, 10, 16)

    Reference: paper, appendix on convolutional networks.
    """


@keras.saving.register_keras_serializable(package="keras_gevb")
class Conv2D(_Conv2D):
    """Convolution of conventional units: the twin of `VectorConv2D` on scalars.

        h_xi = sum_dj W_dij a_(x+d)j + b_i
        output_xi = h_xi if t_i h_xi >= 0 else 0        t = -1, 1, -1, 1, ...

    Args:
        filters, kernel_size, strides, padding: As in `keras.layers.Conv2D`.
        nonnegative, gated, and the other arguments: As in `Dense`.

    Input shape: `(batch, height, width, C)`.
    Output shape: `(batch, height', width', filters)`.
    Weights: `kernel` `(kh, kw, C, filters)`, `bias` `(filters,)`.

    Raises:
        ValueError: as `Dense`, and if the window does not fit into the input.

    Example:

    >>> tuple(Conv2D(16, 3)(keras.ops.ones((2, 8, 8, 3))).shape)
    (2, 6, 6, 16)

    Reference: paper, appendix on conventional networks.
    """

    vectorized = False


class _LocallyConnected2D(_Windowed):
    positions_rank = 2

    def kernel_axes(self, input_shape):
        if None in input_shape[1:3]:
            raise ValueError(
                f"Layer '{self.name}' has a kernel for every position, so the size of the input must be "
                f"known. Received: a space of {tuple(input_shape[1:3])}. Give keras.Input its full shape."
            )
        _, window = super().kernel_axes(input_shape)
        return self.positions(input_shape[1:3]), window

    def project(self, inputs, kernel):
        height, width, rows, columns, channels, units = kernel.shape
        extents, (down, across) = inputs.shape[1:3], self.strides
        # Position first: at each, one matrix product over the batch and the components. Fused with
        # it, the pooling of the layer before would be computed twice.
        with backend.uncompiled():
            at_positions = ops.transpose(inputs, (1, 2, 0, *range(3, len(inputs.shape))))
            at_positions = self._pad(ops.reshape(at_positions, (*extents, -1, channels)), first=0)
        row = ops.concatenate(
            [at_positions[:, j : j + (width - 1) * across + 1 : across] for j in range(columns)], axis=-1
        )
        # Not fused, these are parts of one array; fused, each would be gathered anew.
        with backend.uncompiled():
            patches = [row[i : i + (height - 1) * down + 1 : down] for i in range(rows)]
        if rows * columns * channels <= units:
            # Whole patches are then smaller than the sums of their rows' products.
            patches = [ops.concatenate(patches, axis=-1)]
        kernel = ops.reshape(kernel, (height, width, len(patches), -1, units))
        kernels = ops.unstack(kernel, axis=2)
        outputs = backend.add_up([ops.matmul(*factors) for factors in zip(patches, kernels)])
        components = inputs.shape[3:-1]
        outputs = ops.reshape(outputs, (height, width, -1, *components, units))
        return ops.transpose(outputs, (2, 0, 1, *range(3, len(outputs.shape))))


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorLocallyConnected2D(_LocallyConnected2D):
    """Convolution without weight sharing: every position has a kernel of its own.

        h_xi = sum_dj W_xdij a_(x+d)j + b_xi        h, a, b in R^K
        output_xi = h_xi if t_i . h_xi >= 0 else 0

    Args:
        filters, kernel_size, strides, padding, vector_dim: As in `VectorConv2D`.
        nonnegative, gated, use_bias, kernel_initializer, bias_initializer,
            gates_initializer, kernel_regularizer, bias_regularizer, kernel_constraint,
            bias_constraint: As in `VectorDense`.

    Input shape: `(batch, height, width, C)` with `vector_dim`, else
    `(batch, height, width, K, C)`; height and width must be known.
    Output shape: `(batch, height', width', K, filters)`.
    Weights: `kernel` `(height', width', kh, kw, C, K, filters)` with `vector_dim`, else
    `(height', width', kh, kw, C, filters)`; `bias` `(height', width', K, filters)`;
    `gates` `(K, filters)`.

    Raises:
        ValueError: as `VectorConv2D`, and if height or width is not known.

    Example:

    >>> images = keras.ops.ones((2, 8, 8, 3))
    >>> tuple(VectorLocallyConnected2D(16, 3, vector_dim=10)(images).shape)
    (2, 6, 6, 10, 16)

    Reference: paper, appendix on locally connected networks.
    """


@keras.saving.register_keras_serializable(package="keras_gevb")
class LocallyConnected2D(_LocallyConnected2D):
    """Locally connected conventional units; with `gated=False`, the layer that Keras 2 had.

        h_xi = sum_dj W_xdij a_(x+d)j + b_xi
        output_xi = h_xi if t_i h_xi >= 0 else 0        t = -1, 1, -1, 1, ...

    It stands alone: in a stock `keras.Sequential` it learns by automatic differentiation.
    Its memory is linear in its parameters.

    Args:
        filters, kernel_size, strides, padding: As in `keras.layers.Conv2D`.
        nonnegative, gated, and the other arguments: As in `Dense`.

    Input shape: `(batch, height, width, C)`; height and width must be known.
    Output shape: `(batch, height', width', filters)`.
    Weights: `kernel` `(height', width', kh, kw, C, filters)`, `bias`
    `(height', width', filters)`.

    Raises:
        ValueError: as `Conv2D`, and if height or width is not known.

    Example:

    >>> tuple(LocallyConnected2D(16, 3, padding="same")(keras.ops.ones((2, 8, 8, 3))).shape)
    (2, 8, 8, 16)

    Reference: paper, appendix on locally connected networks.
    """

    vectorized = False


def _pair(name, value, layer):
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(is_positive_integer(v) for v in pair):
        raise ValueError(
            f"Layer '{layer}': {name} must be a positive integer or a pair of them. Received: {value!r}"
        )
    return pair
