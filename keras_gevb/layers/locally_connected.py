"""Local connection: convolution without weight sharing."""

import keras

from keras_gevb.layers.windows import LocallyConnected


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorLocallyConnected2D(LocallyConnected):
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

    space_rank = 2


@keras.saving.register_keras_serializable(package="keras_gevb")
class LocallyConnected2D(LocallyConnected):
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
    space_rank = 2


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorLocallyConnected1D(LocallyConnected):
    """Convolution over a sequence without weight sharing: every position has a kernel of its own.

        h_xi = sum_dj W_xdij a_(x+d)j + b_xi        h, a, b in R^K
        output_xi = h_xi if t_i . h_xi >= 0 else 0

    Args: as in `VectorLocallyConnected2D`, one number for an extent.

    Input shape: `(batch, length, C)` with `vector_dim`, else `(batch, length, K, C)`; the length must be
    known.
    Output shape: `(batch, length', K, filters)`.
    Weights: `kernel` `(length', k, C, K, filters)` with `vector_dim`, else `(length', k, C, filters)`;
    `bias` `(length', K, filters)`; `gates` `(K, filters)`.

    Raises:
        ValueError: as `VectorLocallyConnected2D`.

    Example:

    >>> sequences = keras.ops.ones((2, 8, 3))
    >>> tuple(VectorLocallyConnected1D(16, 3, vector_dim=10)(sequences).shape)
    (2, 6, 10, 16)

    Reference: paper, appendix on locally connected networks.
    """

    space_rank = 1


@keras.saving.register_keras_serializable(package="keras_gevb")
class LocallyConnected1D(LocallyConnected):
    """Locally connected conventional units over a sequence; with `gated=False`, the layer that Keras 2 had.

        h_xi = sum_dj W_xdij a_(x+d)j + b_xi
        output_xi = h_xi if t_i h_xi >= 0 else 0        t = -1, 1, -1, 1, ...

    Args: as in `LocallyConnected2D`, one number for an extent.

    Input shape: `(batch, length, C)`; the length must be known.
    Output shape: `(batch, length', filters)`.
    Weights: `kernel` `(length', k, C, filters)`, `bias` `(length', filters)`.

    Raises:
        ValueError: as `LocallyConnected2D`.

    Example:

    >>> tuple(LocallyConnected1D(16, 3, padding="same")(keras.ops.ones((2, 8, 3))).shape)
    (2, 8, 16)

    Reference: paper, appendix on locally connected networks.
    """

    vectorized = False
    space_rank = 1
