"""Direct feedback alignment."""

import math
import random

import keras
from keras import ops

from keras_gevb.rules.base import LocalRule, register


@register
class DFA(LocalRule):
    """Direct feedback alignment: every unit receives its own random projection of the error.

        credit_i = m_i (e B_l)_i        dW_ij = sum_batch credit_i a_j

    One fixed random matrix B has a row for each output; layer l uses its leading
    columns, one for each of its units (for every position, in a convolution). The
    readout receives the error itself.

    Args:
        nonnegative: Draw B from (0, 1) rather than (-1, 1). By default so where the
            network has nonnegative kernels.
        seed: Integer. Drawn when not given.
        low_memory: As in `GEVB`.

    Raises:
        ValueError: if the size of a layer is not known; in training, if the network has vector units.

    Example:

    >>> model = keras_gevb.zoo.build("digits", "fc", vectorized=False, learning_rule="dfa")

    Reference: Nokland 2016; the paper's appendix for the range of B.
    """

    vectorized = False

    def __init__(self, nonnegative=None, seed=None, low_memory=False):
        super().__init__(low_memory)
        self.nonnegative = nonnegative
        self.seed = random.randint(1, 10**9) if seed is None else seed

    def build(self, layers, add_weight):
        nonnegative = self.nonnegative
        if nonnegative is None:
            nonnegative = any(layer.constrained for layer in layers)
        outputs = max((layer.units for layer in layers if layer.is_readout), default=1)
        sizes = [0]
        for layer in layers:
            if not layer.is_readout:
                sizes += layer.sizes()
            if None in sizes:
                raise ValueError(
                    "DFA needs the size of every layer, to draw a feedback weight for each unit. Received: "
                    f"layer '{layer.name}' with outputs of unknown size. Give keras.Input its full shape."
                )
        self.feedback = add_weight(
            name="feedback",
            shape=(outputs, max(sizes)),
            initializer=keras.initializers.RandomUniform(0.0 if nonnegative else -1.0, 1.0, seed=self.seed),
            trainable=False,
        )

    def signal(self, record, step):
        if record.number == len(step.records) - 1:
            return step.error
        feedback = ops.cast(self.feedback, step.error.dtype)
        units = math.prod(record.gate.shape[1:])
        return ops.reshape(ops.matmul(step.error, feedback[:, :units]), ops.shape(record.gate))

    def get_config(self):
        return {**super().get_config(), "nonnegative": self.nonnegative, "seed": self.seed}
