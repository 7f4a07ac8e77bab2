"""A code of many classes in few numbers."""

import math
import random
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gevb.layers.weights import positive_integer
from keras_gevb.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_gevb")
class OutputCode(keras.layers.Layer):
    """Logits of C classes from the K < C numbers of a readout, by a fixed random code.

        logits = y P        P P^T = C / K

    A column of P is a class's code word, of mean squared length 1; the rows are orthogonal. Behind a readout
    of vector units the error vector is e = P dLoss/dlogits, so K numbers are broadcast, and all layers cost
    K instead of C. Accuracy is traded for that: K numbers keep fewer classes apart. P is drawn once, saved
    with the model, and never trained.

    Args:
        classes: C, at least the number K of inputs.
        seed: Integer, from which P follows. Drawn when not given.

    Input shape: `(..., K)`.
    Output shape: `(..., classes)`.
    Weights: `code` `(K, classes)`, not trained.

    Raises:
        ValueError: if there are fewer classes than inputs.

    Example:

    >>> model = keras_gevb.Sequential([
    ...     keras.Input((64,)),
    ...     keras_gevb.layers.VectorDense(32, vector_dim=8),
    ...     keras_gevb.layers.VectorReadout(),
    ...     keras_gevb.layers.OutputCode(100),
    ... ])
    >>> model.output_shape
    (None, 100)

    Reference: Dietterich and Bakiri 1995, error-correcting output codes.
    """

    def __init__(self, classes: int, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.classes = positive_integer("classes", classes, self.name)
        self.seed = random.randint(1, 10**9) if seed is None else seed
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        numbers = input_shape[-1]
        if numbers > self.classes:
            raise ValueError(
                f"Layer '{self.name}' makes logits of more classes than it is given numbers. Received: "
                f"classes={self.classes}, an input of {numbers} numbers. Take vector_dim={self.classes} "
                "without a code, or a smaller vector_dim."
            )
        self.code = self.add_weight(
            name="code", shape=(numbers, self.classes), initializer=self._drawn, trainable=False
        )

    def _drawn(self, shape, dtype=None):
        numbers, classes = shape
        z = np.random.default_rng(self.seed).standard_normal((classes, numbers))
        orthogonal, upper = np.linalg.qr(z)
        orthogonal = orthogonal * np.sign(np.diag(upper))
        return ops.convert_to_tensor(math.sqrt(classes / numbers) * orthogonal.T, dtype)

    def call(self, inputs: Tensor) -> Tensor:
        return ops.matmul(inputs, self.code)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.classes)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "classes": self.classes, "seed": self.seed}
