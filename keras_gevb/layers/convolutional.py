"""Convolutions: units at all positions share a window of weights."""

import keras

from keras_gevb.layers.windows import Conv


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorConv2D(Conv):
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
        dilation_rate: Steps between the inputs of a window, an integer or a pair; 1 beside strides.
        groups: Parts of the input channels, each seen by its own part of the filters.
        vector_dim: K, the number of outputs of the model; on scalar input only.
        nonnegative, gated, use_bias, kernel_initializer, bias_initializer,
            gates_initializer, kernel_regularizer, bias_regularizer, kernel_constraint,
            bias_constraint: As in `VectorDense`.

    Input shape: `(batch, height, width, C)` with `vector_dim`, else
    `(batch, height, width, K, C)`.
    Output shape: `(batch, height', width', K, filters)`.
    Weights: `kernel` `(kh, kw, C, K, filters)` with `vector_dim`, else
    `(kh, kw, C, filters)`; `bias` and `gates` `(K, filters)`. With groups, C / groups for C.

    Raises:
        ValueError: as `VectorDense`, and if the window does not fit into the input; if filters or
            channels are no multiple of `groups`; if both strides and dilation_rate exceed 1.

    Example:

    >>> images = keras.ops.ones((2, 8, 8, 3))
    >>> tuple(VectorConv2D(16, 3, padding="same", vector_dim=10)(images).shape)
    (2, 8, 8, 10, 16)

    Reference: paper, appendix on convolutional networks.
    """

    space_rank = 2


@keras.saving.register_keras_serializable(package="keras_gevb")
class Conv2D(Conv):
    """Convolution of conventional units: the twin of `VectorConv2D` on scalars.

        h_xi = sum_dj W_dij a_(x+d)j + b_i
        output_xi = h_xi if t_i h_xi >= 0 else 0        t = -1, 1, -1, 1, ...

    Args:
        filters, kernel_size, strides, padding, dilation_rate, groups: As in `keras.layers.Conv2D`.
        nonnegative, gated, and the other arguments: As in `Dense`.

    Input shape: `(batch, height, width, C)`.
    Output shape: `(batch, height', width', filters)`.
    Weights: `kernel` `(kh, kw, C, filters)`, `bias` `(filters,)`.

    Raises:
        ValueError: as `Dense`, and as `VectorConv2D`.

    Example:

    >>> tuple(Conv2D(16, 3)(keras.ops.ones((2, 8, 8, 3))).shape)
    (2, 6, 6, 16)

    Reference: paper, appendix on conventional networks.
    """

    vectorized = False
    space_rank = 2


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorConv1D(Conv):
    """Convolution over a sequence, whose units are vectors of K numbers: `VectorConv2D` of another rank.

        h_xi = sum_dj W_dij a_(x+d)j + b_i        h, a, b in R^K
        output_xi = h_xi if t_i . h_xi >= 0 else 0

    Args:
        filters, kernel_size, strides, dilation_rate, groups, vector_dim: As in `VectorConv2D`, one number
            for an extent.
        padding: "valid", "same" or "causal" (a window ends at its position), as in Keras.
        nonnegative, gated, and the other arguments: As in `VectorDense`.

    Input shape: `(batch, length, C)` with `vector_dim`, else `(batch, length, K, C)`.
    Output shape: `(batch, length', K, filters)`.
    Weights: `kernel` `(k, C, K, filters)` with `vector_dim`, else `(k, C, filters)`; `bias` and
    `gates` `(K, filters)`. With groups, C / groups for C.

    Raises:
        ValueError: as `VectorConv2D`.

    Example:

    >>> sequences = keras.ops.ones((2, 8, 3))
    >>> tuple(VectorConv1D(16, 3, padding="same", vector_dim=10)(sequences).shape)
    (2, 8, 10, 16)

    Reference: paper, appendix on convolutional networks.
    """

    space_rank = 1
    paddings = "valid", "same", "causal"


@keras.saving.register_keras_serializable(package="keras_gevb")
class Conv1D(Conv):
    """Convolution of conventional units over a sequence: the twin of `VectorConv1D` on scalars.

        h_xi = sum_dj W_dij a_(x+d)j + b_i
        output_xi = h_xi if t_i h_xi >= 0 else 0        t = -1, 1, -1, 1, ...

    Args:
        filters, kernel_size, strides, padding, dilation_rate, groups: As in `keras.layers.Conv1D`.
        nonnegative, gated, and the other arguments: As in `Dense`.

    Input shape: `(batch, length, C)`.
    Output shape: `(batch, length', filters)`.
    Weights: `kernel` `(k, C, filters)`, `bias` `(filters,)`.

    Raises:
        ValueError: as `Dense`, and as `VectorConv2D`.

    Example:

    >>> tuple(Conv1D(16, 3)(keras.ops.ones((2, 8, 3))).shape)
    (2, 6, 16)

    Reference: paper, appendix on conventional networks.
    """

    vectorized = False
    space_rank = 1
    paddings = "valid", "same", "causal"


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorConv3D(Conv):
    """Convolution over a volume, whose units are vectors of K numbers: `VectorConv2D` of another rank.

        h_xi = sum_dj W_dij a_(x+d)j + b_i        h, a, b in R^K
        output_xi = h_xi if t_i . h_xi >= 0 else 0

    Args:
        filters, kernel_size, strides, dilation_rate, groups, vector_dim: As in `VectorConv2D`, three
            numbers for an extent.
        padding: "valid" or "same", as in Keras.
        nonnegative, gated, and the other arguments: As in `VectorDense`.

    Input shape: `(batch, depth, height, width, C)` with `vector_dim`, else
    `(batch, depth, height, width, K, C)`.
    Output shape: `(batch, depth', height', width', K, filters)`.
    Weights: `kernel` `(kd, kh, kw, C, K, filters)` with `vector_dim`, else `(kd, kh, kw, C, filters)`;
    `bias` and `gates` `(K, filters)`. With groups, C / groups for C.

    Raises:
        ValueError: as `VectorConv2D`.

    Example:

    >>> volumes = keras.ops.ones((2, 4, 8, 8, 3))
    >>> tuple(VectorConv3D(16, 3, padding="same", vector_dim=10)(volumes).shape)
    (2, 4, 8, 8, 10, 16)

    Reference: paper, appendix on convolutional networks.
    """

    space_rank = 3


@keras.saving.register_keras_serializable(package="keras_gevb")
class Conv3D(Conv):
    """Convolution of conventional units over a volume: the twin of `VectorConv3D` on scalars.

        h_xi = sum_dj W_dij a_(x+d)j + b_i
        output_xi = h_xi if t_i h_xi >= 0 else 0        t = -1, 1, -1, 1, ...

    Args:
        filters, kernel_size, strides, padding, dilation_rate, groups: As in `keras.layers.Conv3D`.
        nonnegative, gated, and the other arguments: As in `Dense`.

    Input shape: `(batch, depth, height, width, C)`.
    Output shape: `(batch, depth', height', width', filters)`.
    Weights: `kernel` `(kd, kh, kw, C, filters)`, `bias` `(filters,)`.

    Raises:
        ValueError: as `Dense`, and as `VectorConv2D`.

    Example:

    >>> tuple(Conv3D(16, 3)(keras.ops.ones((2, 4, 8, 8, 3))).shape)
    (2, 2, 6, 6, 16)

    Reference: paper, appendix on conventional networks.
    """

    vectorized = False
    space_rank = 3
