"""Direct feedback alignment."""

import math
import random

import keras
from keras import ops

from keras_gevb.rules.base import LearningRule, register


@register
class DFA(LearningRule):
    """Direct feedback alignment: every unit receives its own random projection of the error.

        credit_i = m_i (e B_l)_i        dW_ij = sum_batch credit_i a_j

    One fixed random matrix B has a row for each output; layer l uses its leading
    columns, one for each of its units (for every position, in a convolution). The
    readout receives the error itself.

    Args:
        nonnegative: Draw B from (0, 1) rather than (-1, 1). By default so where the
            network has nonnegative kernels.
        seed: Integer. Drawn when not given.

    Raises:
        ValueError: if the size of a layer is not known; in training, if the network has vector units.

    Reference: Nokland 2016; the paper's appendix for the range of B.
    """

    vectorized = False

    def __init__(self, nonnegative=None, seed=None):
        self.nonnegative = nonnegative
        self.seed = random.randint(1, 10**9) if seed is None else seed

    def build(self, layers, add_weight):
        nonnegative = self.nonnegative
        if nonnegative is None:
            nonnegative = any(layer.constrained for layer in layers)
        outputs = max((layer.units for layer in layers if layer.is_readout), default=1)
        widths = [width for layer in layers if not layer.is_readout for width in _widths(layer)]
        self.feedback = add_weight(
            name="feedback",
            shape=(outputs, max(widths, default=0)),
            initializer=keras.initializers.RandomUniform(0.0 if nonnegative else -1.0, 1.0, seed=self.seed),
            trainable=False,
        )

    def signals(self, trace, error):
        feedback = ops.cast(self.feedback, error.dtype)
        signals = []
        for record in trace.records[:-1]:
            units = math.prod(record.gate.shape[1:])
            signals.append(ops.reshape(ops.matmul(error, feedback[:, :units]), ops.shape(record.gate)))
        return [*signals, error]

    def get_config(self):
        return {"nonnegative": self.nonnegative, "seed": self.seed}


def _widths(layer):
    """The number of units, at all positions, in each use of a layer."""
    for node in layer._inbound_nodes:
        for output in node.output_tensors:
            if None in output.shape[1:]:
                raise ValueError(
                    f"DFA needs the size of every layer, to draw a feedback weight for each unit. Received: "
                    f"layer '{layer.name}' with an output of {output.shape}. Give keras.Input its full shape."
                )
            yield math.prod(output.shape[1:])
