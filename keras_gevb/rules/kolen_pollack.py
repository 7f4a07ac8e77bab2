"""Feedback that learns by changing as the weights change."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from keras_gevb.rules.base import LearningRule, register
from keras_gevb.rules.checks import check_rate
from keras_gevb.rules.feedback import feedback_kernels, seeded
from keras_gevb.types import Step, Tensor


@register
class KP(LearningRule):
    """Kolen-Pollack: feedback kernels receive every change that the weights receive, and both decay.

        g_j = sum_i V_ij m_i g_i
        after a step that added dW to W:        V <- (1 - decay) (V + dW)        W <- (1 - decay) W

    So W - V = (1 - decay)^t (W - V at the start), whatever the optimizer: feedback becomes the weights though
    neither reads the other. dW is the whole change, of momentum, constraints and averages too. The decay acts
    on the weights as weight decay does: with a large one they forget, with a small one feedback comes late.
    With 0 the difference stays.

    Args:
        decay: Of both, a step, between 0 and 1.
        seed: Integer, of V at the start, drawn as W is. Drawn when not given.

    Raises:
        ValueError: if `decay` is not between 0 and 1.

    Example:

    >>> model = keras_gevb.Sequential(network, learning_rule=keras_gevb.rules.KP(decay=1e-3))

    Reference: Kolen and Pollack 1994; Akrout et al. 2019.
    """

    search_space: ClassVar = {"decay": (1e-5, 1e-2)}

    def __init__(self, decay: float = 1e-3, seed: int | None = None):
        self.decay = check_rate("KP", "decay", decay, most=1)
        self.seed = seeded(seed)

    def build(self, layers: Sequence[Any], add_weight: Callable[..., Any]) -> None:
        self.feedback = feedback_kernels(layers, add_weight, self.seed)

    def signals(self, step: Step) -> list[Tensor]:
        return step.backward(feedback=self.feedback)

    def remember(self, step: Step, change: Callable[[Any], Tensor]) -> Iterable[tuple[Any, Tensor]]:
        for kernel, feedback in self.feedback:
            if kernel.trainable:
                yield feedback, (1 - self.decay) * (feedback + change(kernel))
                yield kernel, (1 - self.decay) * kernel

    def get_config(self) -> dict[str, Any]:
        return {"decay": self.decay, "seed": self.seed}
