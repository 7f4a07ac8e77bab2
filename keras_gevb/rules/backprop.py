"""Exact backpropagation, and feedback alignment: the same way back with other kernels."""

import functools
import random

from keras_gevb.rules.base import LearningRule, register


@register
class Backprop(LearningRule):
    """The exact gradient, by its unvectorized signal.

        g_readout = 1        g_j = sum_i W_ij m_i g_i
        dW_ij = sum_batch m_i g_i (e . a_j)        db_i = sum_batch m_i g_i e

    Equal to automatic differentiation, at 1/K of its cost on the way back.

    Example:

    >>> model = keras_gevb.Sequential(network, learning_rule="backprop")

    Reference: paper, section 3, equation (3).
    """

    def signals(self, trace, error):
        return trace.backward(error)


@register
class FA(LearningRule):
    """Feedback alignment: backpropagation through fixed random kernels.

        g_j = sum_i V_ij m_i g_i

    where V has the shape of W, is drawn once as W is, and never changes. So in a
    nonnegative network it is nonnegative.

    Args:
        seed: Integer. Drawn when not given.

    Reference: Lillicrap et al. 2016.
    """

    def __init__(self, seed=None):
        self.seed = random.randint(1, 10**9) if seed is None else seed

    def build(self, layers, add_weight):
        self.kernels = {}
        for number, layer in enumerate(layers):
            self.kernels[id(layer)] = add_weight(
                name=f"feedback_{number}",
                shape=layer.kernel.shape,
                initializer=functools.partial(layer.initial_kernel, seed=self.seed + number),
                trainable=False,
            )

    def signals(self, trace, error):
        return trace.backward(error, kernels=self.kernels)

    def get_config(self):
        return {"seed": self.seed}
