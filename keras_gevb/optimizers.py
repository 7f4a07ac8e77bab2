"""Adam as the paper's own code has it."""

import math
from typing import Any

import keras
from keras import ops

from keras_gevb.types import Tensor


@keras.saving.register_keras_serializable(package="keras_gevb")
class Adam(keras.optimizers.Adam):
    """Adam with its epsilon beside the corrected deviation, as in PyTorch.

        m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
        W = W - rate / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + epsilon)

    `keras.optimizers.Adam` adds its epsilon to `sqrt(v)`, before the correction: 32 times
    larger in the first step, if b2 is 0.999. It also rounds `b1` and `b2` to float32 in the
    corrections. All else is as there, `weight_decay` included, which is that of AdamW.

    Args:
        learning_rate: A float or a schedule.
        beta_1, beta_2: Floats, from 0 to below 1.
        epsilon: A float.
        amsgrad: Whether v is the largest so far, where W changes.
        **kwargs: As in `keras.optimizers.Adam`.

    Raises:
        ValueError: if `beta_1` or `beta_2` is not from 0 to below 1.

    Example:

    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> model.compile(keras_gevb.optimizers.Adam(3e-4), loss)

    Reference: Kingma and Ba 2015, algorithm 1.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        amsgrad: bool = False,
        **kwargs: Any,
    ) -> None:
        for name, beta in (("beta_1", beta_1), ("beta_2", beta_2)):
            if not 0 <= beta < 1:
                raise ValueError(f"`{name}` must be a number from 0 to below 1. Received: {name}={beta}")
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, **kwargs)

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        index = self._get_variable_index(variable)
        m, v = self._momentums[index], self._velocities[index]
        gradient = ops.cast(gradient, variable.dtype)
        # Named operations, which also take the sparse gradients of embeddings.
        self.assign_add(m, ops.multiply(ops.subtract(gradient, m), 1 - self.beta_1))
        self.assign_add(v, ops.multiply(ops.subtract(ops.square(gradient), v), 1 - self.beta_2))
        if self.amsgrad:
            largest = self._velocity_hats[index]
            self.assign(largest, ops.maximum(largest, v))
            v = largest
        rate = ops.cast(learning_rate, variable.dtype) / self._correction(self.beta_1, variable)
        deviation = ops.sqrt(v) / ops.sqrt(self._correction(self.beta_2, variable))
        self.assign_sub(variable, rate * m / (deviation + self.epsilon))

    def _correction(self, beta, variable):
        """1 - beta^t, to the last digits where beta is close to 1, or is 1 in half precision."""
        t = ops.cast(self.iterations + 1, variable.dtype)
        return -ops.expm1(t * (math.log(beta) if beta else -math.inf))
