"""Exact backpropagation, and feedback alignment: the same way back with other kernels."""

from collections.abc import Callable, Sequence
from typing import Any

from keras_gevb.rules.base import LearningRule, register
from keras_gevb.rules.feedback import feedback_kernels, seeded
from keras_gevb.types import Step, Tensor


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

    is_exact = True

    def signals(self, step: Step) -> list[Tensor]:
        return step.backward()


@register
class FA(LearningRule):
    """Feedback alignment: backpropagation through fixed random kernels.

        g_j = sum_i V_ij m_i g_i

    where V has the shape of W, is drawn once as W is, and never changes. So in a
    nonnegative network it is nonnegative.

    Args:
        seed: Integer. Drawn when not given.

    Example:

    >>> model = keras_gevb.Sequential(network, learning_rule=keras_gevb.rules.FA(seed=0))

    Reference: Lillicrap et al. 2016.
    """

    def __init__(self, seed: int | None = None):
        self.seed = seeded(seed)

    def build(self, layers: Sequence[Any], add_weight: Callable[..., Any]) -> None:
        self.feedback = feedback_kernels(layers, add_weight, self.seed)

    def signals(self, step: Step) -> list[Tensor]:
        return step.backward(feedback=self.feedback)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}
