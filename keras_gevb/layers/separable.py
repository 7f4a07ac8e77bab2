"""Convolutions that see the channels one by one: depthwise, and with a sum over channels behind it."""

from typing import Any

import keras

from keras_gevb.layers.convolutional import Conv2D, VectorConv2D
from keras_gevb.layers.windows import DepthwiseConv
from keras_gevb.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorDepthwiseConv2D(DepthwiseConv):
    """Convolution of each channel by itself, whose units are vectors of K numbers.

        h_x(jm) = sum_d W_djm a_(x+d)j + b_jm        h, a, b in R^K
        output_x(jm) = h_x(jm) if t_jm . h_x(jm) >= 0 else 0

    for unit m = 1..M of channel j. A nonnegative kernel starts as |Z|, Z ~ N(0, 1 / window), the same
    for the two channels of an ON/OFF pair, so that their units mirror each other where M = 1.

    Args:
        kernel_size: Height and width of the window: an integer or a pair.
        strides: An integer or a pair.
        padding: "valid" or "same", as in Keras.
        depth_multiplier: M, the number of units for each channel.
        dilation_rate: As in `VectorConv2D`.
        vector_dim, nonnegative, gated, and the other arguments: As in `VectorDense`.

    Input shape: `(batch, height, width, C)` with `vector_dim`, else `(batch, height, width, K, C)`; height
    and width must be known.
    Output shape: `(batch, height', width', K, C M)`.
    Weights: `kernel` `(kh, kw, C, K, M)` with `vector_dim`, else `(kh, kw, C, M)`; `bias` and `gates`
    `(K, C M)`.

    Raises:
        ValueError: as `VectorConv2D`, and if height or width is not known.

    Example:

    >>> images = keras.ops.ones((2, 8, 8, 10, 4))
    >>> tuple(VectorDepthwiseConv2D(3)(images).shape)
    (2, 6, 6, 10, 4)

    Reference: paper, appendix on convolutional networks.
    """

    space_rank = 2


@keras.saving.register_keras_serializable(package="keras_gevb")
class DepthwiseConv2D(DepthwiseConv):
    """Convolution of each channel by itself, of conventional units: the twin of `VectorDepthwiseConv2D`.

        h_x(jm) = sum_d W_djm a_(x+d)j + b_jm
        output_x(jm) = h_x(jm) if t_jm h_x(jm) >= 0 else 0        t = -1, 1, -1, 1, ...

    Args:
        kernel_size, strides, padding, depth_multiplier, dilation_rate: As in
            `keras.layers.DepthwiseConv2D`.
        nonnegative, gated, and the other arguments: As in `Dense`.

    Input shape: `(batch, height, width, C)`; height and width must be known.
    Output shape: `(batch, height', width', C M)`.
    Weights: `kernel` `(kh, kw, C, M)`, `bias` `(C M,)`.

    Raises:
        ValueError: as `VectorDepthwiseConv2D`.

    Example:

    >>> tuple(DepthwiseConv2D(3, depth_multiplier=2)(keras.ops.ones((2, 8, 8, 3))).shape)
    (2, 6, 6, 6)

    Reference: paper, appendix on conventional networks.
    """

    vectorized = False
    space_rank = 2


class _SeparableConv2D(keras.layers.Layer):
    """Two places: a depthwise convolution without gate and bias, and a convolution of windows 1 x 1."""

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        *,
        dilation_rate: int | tuple[int, ...] = 1,
        vector_dim: int | None = None,
        nonnegative: bool | None = None,
        depthwise_initializer: Any = None,
        pointwise_initializer: Any = None,
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        depthwise_constraint: Any = None,
        pointwise_constraint: Any = None,
        **settings: Any,
    ):
        own = {k: settings.pop(k) for k in ("name", "dtype", "trainable") if k in settings}
        super().__init__(**own)
        depthwise, pointwise = self.kinds
        shared = {"nonnegative": nonnegative, "dtype": self.dtype_policy}
        first = {} if vector_dim is None else {"vector_dim": vector_dim}
        self.depthwise = depthwise(
            *(kernel_size, strides, padding, depth_multiplier),
            dilation_rate=dilation_rate,
            gated=False,
            use_bias=False,
            kernel_initializer=depthwise_initializer,
            kernel_regularizer=depthwise_regularizer,
            kernel_constraint=depthwise_constraint,
            name=f"{self.name}_depthwise",
            **first,
            **shared,
        )
        self.pointwise = pointwise(
            filters,
            1,
            kernel_initializer=pointwise_initializer,
            kernel_regularizer=pointwise_regularizer,
            kernel_constraint=pointwise_constraint,
            name=f"{self.name}_pointwise",
            **shared,
            **settings,
        )

    def build(self, input_shape: Shape) -> None:
        self.depthwise.build(input_shape)
        self.pointwise.build(self.depthwise.compute_output_shape(input_shape))

    def call(self, inputs: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(inputs))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return self.pointwise.compute_output_shape(self.depthwise.compute_output_shape(input_shape))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        depthwise, pointwise = self.depthwise.get_config(), self.pointwise.get_config()
        for kind in ("initializer", "regularizer", "constraint"):
            config[f"depthwise_{kind}"] = depthwise[f"kernel_{kind}"]
            config[f"pointwise_{kind}"] = pointwise.pop(f"kernel_{kind}")
        seen = ("kernel_size", "strides", "padding", "depth_multiplier", "dilation_rate", "vector_dim")
        config |= {name: depthwise[name] for name in seen if name in depthwise}
        ignored = {"kernel_size", "strides", "padding", "dilation_rate", "groups", "vector_dim"}
        return {**{k: v for k, v in pointwise.items() if k not in ignored}, **config}


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorSeparableConv2D(_SeparableConv2D):
    """Depthwise convolution, then a sum over channels; its units are vectors of K numbers.

        c_x(jm) = sum_d V_djm a_(x+d)j
        h_xi = sum_jm W_jmi c_x(jm) + b_i        h, c, a, b in R^K
        output_xi = h_xi if t_i . h_xi >= 0 else 0

    The units c and h learn each by itself, so the layer is two places: `depthwise`, a
    `VectorDepthwiseConv2D` without gate and bias, and `pointwise`, a `VectorConv2D` of windows 1 x 1.

    Args:
        filters, kernel_size, strides, padding, dilation_rate, vector_dim: As in `VectorConv2D`.
        depth_multiplier: M, as in `VectorDepthwiseConv2D`.
        depthwise_initializer, depthwise_regularizer, depthwise_constraint: Of the kernel V.
        pointwise_initializer, pointwise_regularizer, pointwise_constraint: Of the kernel W.
        nonnegative, gated, use_bias, bias_initializer, gates_initializer, bias_regularizer,
            bias_constraint: As in `VectorDense`.

    Input shape, raises: As `VectorDepthwiseConv2D`.
    Output shape: `(batch, height', width', K, filters)`.
    Weights: `depthwise.kernel` `(kh, kw, C, K, M)` with `vector_dim`, else `(kh, kw, C, M)`;
    `pointwise.kernel` `(1, 1, C M, filters)`, `pointwise.bias` and `pointwise.gates` `(K, filters)`.

    Example:

    >>> images = keras.ops.ones((2, 8, 8, 10, 4))
    >>> tuple(VectorSeparableConv2D(16, 3)(images).shape)
    (2, 6, 6, 10, 16)

    Reference: paper, appendix on convolutional networks.
    """

    kinds = VectorDepthwiseConv2D, VectorConv2D


@keras.saving.register_keras_serializable(package="keras_gevb")
class SeparableConv2D(_SeparableConv2D):
    """Depthwise convolution, then a sum over channels, of conventional units: `VectorSeparableConv2D`'s twin.

        c_x(jm) = sum_d V_djm a_(x+d)j
        h_xi = sum_jm W_jmi c_x(jm) + b_i
        output_xi = h_xi if t_i h_xi >= 0 else 0        t = -1, 1, -1, 1, ...

    Args:
        filters, kernel_size, strides, padding, depth_multiplier, dilation_rate, depthwise_initializer,
            pointwise_initializer, depthwise_regularizer, pointwise_regularizer, depthwise_constraint,
            pointwise_constraint: As in `keras.layers.SeparableConv2D`.
        nonnegative, gated, and the other arguments: As in `Dense`.

    Input shape, raises: As `DepthwiseConv2D`.
    Output shape: `(batch, height', width', filters)`.
    Weights: `depthwise.kernel` `(kh, kw, C, M)`, `pointwise.kernel` `(1, 1, C M, filters)`,
    `pointwise.bias` `(filters,)`.

    Example:

    >>> tuple(SeparableConv2D(16, 3)(keras.ops.ones((2, 8, 8, 3))).shape)
    (2, 6, 6, 16)

    Reference: paper, appendix on conventional networks.
    """

    kinds = DepthwiseConv2D, Conv2D
