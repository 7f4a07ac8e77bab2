"""Dense layers: every unit sees every input."""

from typing import Any

import keras
from keras import ops

from keras_gevb.layers.base import WeightLayer
from keras_gevb.types import Shape, Tensor


class _Dense(WeightLayer):
    """h_i = sum_j W_ij a_j + b_i."""

    def kernel_axes(self, input_shape: Shape) -> tuple[Shape, Shape]:
        return (), ()

    def project(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return ops.matmul(inputs, kernel)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorDense(_Dense):
    """Densely connected units, each a vector of K numbers.

        h_i = sum_j W_ij a_j + b_i        h, a, b in R^K
        output_i = h_i if t_i . h_i >= 0 else 0

    One scalar weight W_ij is shared by all K components, so the layer is nonnegative
    weight by weight: past the first layer `kernel` is kept >= 0 by a constraint. The
    gates t are fixed random signs. On scalar input (`vector_dim` given) each number
    counts as K vector units, copy k holding it in component k: K linear maps, of mixed
    sign, and the expanded input is never built.

    Args:
        units: Number of vector units; even, for ON/OFF initialization.
        vector_dim: K, the number of outputs of the model; on scalar input only.
        nonnegative: Keep the kernel >= 0. By default so on vector input. False also
            starts from mixed signs; on scalar input, from independent units.
        gated: Whether units are gated.
        use_bias: Whether units have a bias.
        kernel_initializer: Defaults to `MirroredNormal` on scalar input, `OnOffNormal`
            where nonnegative, else N(0, 2 / fan-in) (N(0, 1 / fan-in) on scalar input).
        bias_initializer, gates_initializer: Default to zeros and `GateSigns`.
        kernel_regularizer, bias_regularizer, kernel_constraint, bias_constraint: As in
            Keras. A kernel constraint applies before nonnegativity.

    Input shape: `(batch, n)` with `vector_dim`, else `(batch, K, n)`.
    Output shape: `(batch, K, units)`.
    Weights: `kernel` `(n, K, units)` with `vector_dim`, else `(n, units)`; `bias`
    `(K, units)`; `gates` `(K, units)`, not trained.

    Raises:
        ValueError: if the input is scalar and `vector_dim` missing, or the reverse; if
            ON/OFF pairs do not come out even.

    Example:

    >>> pixels = keras.ops.ones((2, 64))
    >>> units = VectorDense(32, vector_dim=10)(pixels)
    >>> tuple(VectorDense(16)(units).shape)
    (2, 10, 16)

    Reference: paper, section 3 (vectorized nonnegative networks).
    """


@keras.saving.register_keras_serializable(package="keras_gevb")
class Dense(_Dense):
    """Densely connected conventional units: the twin of `VectorDense` on scalars.

        h_i = sum_j W_ij a_j + b_i
        output_i = h_i if t_i h_i >= 0 else 0        t = -1, 1, -1, 1, ...

    An ON/OFF pair of rectifiers: even units pass h where h <= 0, odd units where h >= 0.

    Args:
        units: Number of units.
        nonnegative: Keep the kernel >= 0. Defaults to False.
        gated: False for the last layer, whose outputs are the logits.
        activation: One of Keras, by name, or a function of each unit by itself, in place of the gate, whose
            part its derivative then has.
        use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
            bias_regularizer, kernel_constraint, bias_constraint: As in `keras.layers.Dense`,
            but that kernels start as `OnOffNormal` where nonnegative, else N(0, 2 / fan-in).

    Input shape: `(batch, n)`.
    Output shape: `(batch, units)`.
    Weights: `kernel` `(n, units)`, `bias` `(units,)`. `gates` is a constant.

    Raises:
        ValueError: if the input has another rank, or ON/OFF pairs do not come out even.

    Example:

    >>> tuple(Dense(10, gated=False)(keras.ops.ones((2, 64))).shape)
    (2, 10)

    Reference: paper, appendix on conventional networks.
    """

    vectorized = False

    @property
    def is_readout(self) -> bool:
        return not self.gated


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorReadout(_Dense):
    """One ungated vector unit, whose K components are the logits.

        y = sum_j w_j a_j + b

    Args:
        nonnegative, use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
            bias_regularizer, kernel_constraint, bias_constraint: As in `VectorDense`.

    Input shape: `(batch, K, n)`.
    Output shape: `(batch, K)`.
    Weights: `kernel` `(n, 1)`, `bias` `(K, 1)`.

    Raises:
        ValueError: if the input is not a vector tensor.

    Example:

    >>> units = VectorDense(32, vector_dim=10)(keras.ops.ones((2, 64)))
    >>> tuple(VectorReadout()(units).shape)
    (2, 10)

    Reference: paper, section 3 (the output unit).
    """

    is_readout = True

    def __init__(self, **kwargs: Any):
        super().__init__(1, gated=False, **kwargs)

    def finish(self, activity: Tensor) -> Tensor:
        return ops.squeeze(activity, axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return super().compute_output_shape(input_shape)[:-1]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in ("units", "gated", "vector_dim", "gates_initializer"):
            del config[name]
        return config
