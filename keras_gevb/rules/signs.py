"""Sign symmetry: backpropagation through kernels that share no more than their signs with the weights."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
from keras import ops

from keras_gevb.rules.base import LearningRule, register
from keras_gevb.rules.feedback import seeded
from keras_gevb.rules.noise import Noise
from keras_gevb.types import Pairs, Step, Tensor


def magnitude(layer, kernel):
    """c = sqrt(2 / (fan-in + fan-out)), Glorot's standard deviation, of one position's kernel."""
    *window, inputs, outputs = kernel.shape[layer.positions_rank :]
    return math.sqrt(2 / (math.prod(window) * (inputs + outputs)))


class SignSymmetry(LearningRule):
    """Backwards through V = magnitude x sign(W), with magnitudes that are not those of W.

    g_j = sum_i V_ij m_i g_i
    """

    def build(self, layers: Sequence[Any], add_weight: Callable[..., Any]) -> None:
        self.kernels = [(kernel, magnitude(layer, kernel)) for layer in layers for kernel in layer.kernels]

    def magnitudes(self) -> list[Tensor]:
        """What stands before the sign, for each kernel: a number or a tensor."""
        raise NotImplementedError(f"{type(self).__name__} must implement `magnitudes`.")

    def feedback(self) -> Pairs:
        """Pairs (kernel, what stands for it on the way back)."""
        pairs = zip(self.kernels, self.magnitudes(), strict=True)
        return [(w, m * ops.sign(w.value)) for (w, _), m in pairs]

    def signals(self, step: Step) -> list[Tensor]:
        return step.backward(feedback=self.feedback())


@register
class USF(SignSymmetry):
    """Uniform sign-concordant feedback: the sign of each weight, and one magnitude for all of a layer.

        g_j = sum_i V_ij m_i g_i        V = c sign(W)        c = sqrt(2 / (fan-in + fan-out))

    Weights of exactly 0, half of those of a nonnegative network at the start, feed nothing back.

    Example:

    >>> model = keras_gevb.Sequential(network, learning_rule="usf")

    Reference: Liao, Leibo and Poggio 2016; c as in Xiao et al. 2019.
    """

    def magnitudes(self) -> list[Tensor]:
        return [c for _, c in self.kernels]


class _Drawn(SignSymmetry):
    """Magnitudes of their own, |M|, from a uniform distribution of standard deviation c."""

    def __init__(self, seed: int | None = None):
        self.seed = seeded(seed)

    def build(self, layers: Sequence[Any], add_weight: Callable[..., Any]) -> None:
        super().build(layers, add_weight)
        self.drawn = [
            add_weight(
                name=f"feedback_{n}",
                shape=kernel.shape,
                initializer=keras.initializers.RandomUniform(-(3**0.5) * c, 3**0.5 * c, seed=self.seed + n),
                trainable=False,
                of=kernel,
            )
            for n, (kernel, c) in enumerate(self.kernels)
        ]

    def magnitudes(self) -> list[Tensor]:
        return [ops.cast(ops.abs(m), w.dtype) for m, (w, _) in zip(self.drawn, self.kernels, strict=True)]

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}


@register
class FRSF(_Drawn):
    """Fixed random-magnitude sign-concordant feedback: the sign of each weight, a fixed magnitude.

        g_j = sum_i V_ij m_i g_i        V = |M| sign(W)

    M is drawn once, uniform as Glorot's, and never changes. Weights of exactly 0 feed nothing back.

    Args:
        seed: Integer, of M. Drawn when not given.

    Example:

    >>> model = keras_gevb.Sequential(network, learning_rule=keras_gevb.rules.FRSF(seed=0))

    Reference: Liao, Leibo and Poggio 2016; Moskovitz, Litwin-Kumar and Abbott 2018.
    """


@register
class BRSF(_Drawn):
    """Batchwise random-magnitude sign-concordant feedback: as `FRSF`, with magnitudes drawn anew each batch.

        g_j = sum_i V_ij m_i g_i        V = |M| sign(W)        after each step: M drawn anew

    Args:
        seed: Integer, of the draws. Drawn when not given.

    Example:

    >>> model = keras_gevb.Sequential(network, learning_rule=keras_gevb.rules.BRSF(seed=0))

    Reference: Liao, Leibo and Poggio 2016.
    """

    def build(self, layers: Sequence[Any], add_weight: Callable[..., Any]) -> None:
        super().build(layers, add_weight)
        self.noise = Noise(self.seed, add_weight)

    def remember(self, step: Step, change: Callable[[Any], Tensor]) -> Iterable[tuple[Any, Tensor]]:
        for n, (m, (_, c)) in enumerate(zip(self.drawn, self.kernels, strict=True)):
            yield m, 3**0.5 * c * (2 * self.noise.uniform(m.shape, n, m.dtype) - 1)
        yield self.noise.counted()
