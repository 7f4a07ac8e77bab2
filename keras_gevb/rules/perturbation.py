"""Learning from what a random change of activity does to the outputs."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from keras import ops

from keras_gevb.rules.base import LearningRule, register
from keras_gevb.rules.checks import check_count
from keras_gevb.rules.feedback import seeded
from keras_gevb.rules.noise import Noise
from keras_gevb.types import Step, Tensor


def directions(step, noise, first_place=0):
    """N(0, 1) at every hidden unit of every sample, 0 at readouts, for each record."""
    return [
        ops.zeros_like(r.gate)
        if r.is_readout
        else noise.normal(ops.shape(r.gate), first_place + r.number, r.gate.dtype)
        for r in step.records
    ]


@register
class NodePerturbation(LearningRule):
    """Activity perturbation: a unit's own noise, by how the loss would change under all units' noise.

        signal = (e . J u) u        u ~ N(0, 1), one number for each sample and hidden unit

    J u is the derivative of the logits along u, gates held, taken forward: nothing comes back but one number
    a sample. The mean over u is backpropagation's signal J^T e; the variance grows with the number of hidden
    units, so wide networks learn slowly. The readout receives e. In vector units signal = (N u) u, where
    N is the map of one component, and the mean is g.

    Args:
        samples: Draws, averaged, a positive integer; a step costs so many forward passes more.
        seed: Integer, of the noise. Drawn when not given.

    Raises:
        ValueError: if `samples` is no positive integer.

    Example:

    >>> rule = keras_gevb.rules.NodePerturbation(samples=4, seed=0)
    >>> model = keras_gevb.Sequential(network, learning_rule=rule)

    Reference: Werfel, Xie and Seung 2005; Baydin et al. 2022 (the directional derivative).
    """

    search_space: ClassVar = {"samples": [1, 2, 4]}

    def __init__(self, samples: int = 1, seed: int | None = None):
        self.samples = check_count("NodePerturbation", "samples", samples)
        self.seed = seeded(seed)

    def build(self, layers: Sequence[Any], add_weight: Callable[..., Any]) -> None:
        self.noise = Noise(self.seed, add_weight)

    def signals(self, step: Step) -> list[Tensor]:
        totals = [0.0 for _ in step.records]
        for n in range(self.samples):
            drawn = directions(step, self.noise, n * len(step.records))
            effect = ops.sum(step.told() * step.along(drawn), axis=-1)
            for place, u in enumerate(drawn):
                effects = ops.reshape(effect, (-1, *[1] * (len(u.shape) - 1)))
                totals[place] = totals[place] + ops.cast(effects, u.dtype) * u / self.samples
        pairs = zip(step.records, totals, strict=True)
        return [step.readout_signal(r) if r.is_readout else total for r, total in pairs]

    def remember(self, step: Step, change: Callable[[Any], Tensor]) -> Iterable[tuple[Any, Tensor]]:
        yield self.noise.counted()

    def get_config(self) -> dict[str, Any]:
        return {"samples": self.samples, "seed": self.seed}
