"""Tokens as vector units."""

import math
from typing import Any

import keras
from keras import ops

from keras_gevb.layers.base import WeightLayer
from keras_gevb.layers.weights import positive_integer
from keras_gevb.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorEmbedding(WeightLayer):
    """The first layer of a network on tokens: each becomes units that are vectors of K numbers.

        h_xi = W_vi + b_i        h, W_vi, b in R^K, for the token v at position x
        output_xi = h_xi; where gated, 0 if t_i . h_xi < 0

    What `VectorDense(output_dim, vector_dim=K)` is on one-hot vectors, which are never built: outputs are
    looked up, and an update adds up what is told of each token. As in Keras there is neither gate nor
    bias unless they are asked for.

    Args:
        input_dim: Number of tokens, which are integers from 0 to `input_dim - 1`.
        output_dim: Number of vector units at each position.
        vector_dim: K, the number of outputs of the model.
        mask_zero: Whether token 0 is padding, of which layers that take a mask are told, as in Keras; it
            teaches nothing.
        gated, use_bias: Default to False.
        nonnegative, kernel_initializer, and the other arguments: As in `VectorDense` on scalar input, but
            that kernels start as `MirroredNormal` with variance 1, as the window is one token.

    Input shape: `(batch, *space)`, integers.
    Output shape: `(batch, *space, K, output_dim)`.
    Weights: `kernel` `(input_dim, K, output_dim)`; `bias` and `gates` `(K, output_dim)`.

    Raises:
        ValueError: if a size is no positive integer.

    Example:

    >>> tokens = keras.ops.array([[3, 1, 0], [2, 2, 5]])
    >>> tuple(VectorEmbedding(6, 8, vector_dim=10)(tokens).shape)
    (2, 3, 10, 8)
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        vector_dim: int,
        *,
        mask_zero: bool = False,
        gated: bool = False,
        use_bias: bool = False,
        **kwargs: Any,
    ):
        super().__init__(output_dim, vector_dim=vector_dim, gated=gated, use_bias=use_bias, **kwargs)
        self.input_dim = positive_integer("input_dim", input_dim, self.name)
        self.vector_dim = positive_integer("vector_dim", vector_dim, self.name)
        self.output_dim = self.units
        self.mask_zero = self.supports_masking = mask_zero

    def build(self, input_shape: Shape) -> None:
        self.space_rank = len(input_shape) - 1
        super().build((*input_shape, self.input_dim))
        self.input_spec = None  # of one-hot vectors

    def kernel_axes(self, input_shape: Shape) -> tuple[Shape, Shape]:
        return (), ()

    def initial_kernel(self, shape: Shape, dtype: Any = None, seed: int | None = None) -> Tensor:
        # Of one-hot vectors a unit sees one input that is not 0, so its fan-in is 1.
        return ops.reshape(self._drawn((1, math.prod(shape)), dtype, seed), shape)

    def received(self, inputs: Tensor) -> Tensor:
        return ops.cast(inputs, "int32")

    def project(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return ops.take(kernel, ops.cast(inputs, "int32"), axis=0)

    def _kernel_update(self, inputs, credit, error):
        components, units = self.vector_dim, self.units
        space = (1,) * self.space_rank
        error = ops.reshape(ops.cast(error, credit.dtype), (-1, *space, components, 1))
        told = ops.reshape(ops.expand_dims(credit, -2) * error, (-1, components * units))
        tokens = ops.reshape(ops.cast(inputs, "int32"), (-1,))
        update = ops.segment_sum(told, tokens, num_segments=self.input_dim)
        return ops.reshape(update, self.kernel.shape)

    def compute_mask(self, inputs: Tensor, mask: Any = None) -> Any:
        return ops.not_equal(inputs, 0) if self.mask_zero else None

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, self.vector_dim, self.units)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "mask_zero": self.mask_zero,
        }
