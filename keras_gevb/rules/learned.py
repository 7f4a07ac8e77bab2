"""Direct feedback that learns: by correlation, or from how noise in a unit moves the outputs."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from keras import ops

from keras_gevb.rules import feedback
from keras_gevb.rules.base import LocalRule, register
from keras_gevb.rules.checks import check_rate
from keras_gevb.rules.noise import Noise
from keras_gevb.rules.perturbation import directions
from keras_gevb.types import Record, Step, Tensor


class LearnedFeedback(LocalRule):
    """Every unit is told the error through weights of its own, which change after each step.

        signal = e B_l        in vector units: signal_i = b_i, one number a unit

    B starts as that of `DFA`, b at 1, so that a rate of 0 is DFA, or GEVB.
    """

    def __init__(self, nonnegative: bool | None = None, seed: int | None = None):
        super().__init__()
        self.nonnegative = nonnegative
        self.seed = feedback.seeded(seed)

    def build(self, layers: Sequence[Any], add_weight: Callable[..., Any]) -> None:
        outputs = feedback.outputs(layers)
        self.feedback = {}
        for n, layer in enumerate(feedback.hidden(layers)):
            drawn = feedback.uniform(layers, self.nonnegative, self.seed + n)
            units = feedback.size(layer)
            self.feedback[layer] = add_weight(
                name=f"feedback_{n}",
                shape=(units,) if layer.vectorized else (outputs, units),
                initializer="ones" if layer.vectorized else drawn,
                trainable=False,
                of=layer,
            )

    def signal(self, record: Record, step: Step) -> Tensor:
        if record.is_readout:
            return step.readout_signal(record)
        weights = self.feedback[record.place]
        if not record.place.vectorized:
            return feedback.projected(step.error, weights, record)
        units = math.prod(record.gate.shape[1:])
        weights = ops.reshape(ops.cast(weights, record.gate.dtype)[:units], (1, *record.gate.shape[1:]))
        return weights * ops.ones_like(record.gate)

    def remember(self, step: Step, change: Callable[[Any], Tensor]) -> Iterable[tuple[Any, Tensor]]:
        observed = {key: 0.0 for key in self.feedback}
        for record, seen in self.observe(step):
            # A layer's uses at several sizes share its leading feedback weights.
            missing = self.feedback[record.place].shape[-1] - math.prod(record.gate.shape[1:])
            seen = ops.pad(seen, [(0, 0)] * (len(seen.shape) - 1) + [(0, missing)])
            observed[record.place] = observed[record.place] + seen
        for key, weights in self.feedback.items():
            yield weights, self.learned(weights, observed[key])

    def observe(self, step: Step) -> Iterable[tuple[Record, Tensor]]:
        """Pairs (record, what its feedback learns from), of hidden records; shaped as the feedback."""
        raise NotImplementedError(f"{type(self).__name__} must implement `observe`.")

    def learned(self, weights: Tensor, observed: Tensor) -> Tensor:
        """What the feedback becomes."""
        raise NotImplementedError(f"{type(self).__name__} must implement `learned`.")

    def get_config(self) -> dict[str, Any]:
        return {"nonnegative": self.nonnegative, "seed": self.seed}


@register
class DKP(LearnedFeedback):
    """Direct Kolen-Pollack: each unit's feedback learns from the correlation of its output with the error.

        signal = e B        B <- B - rate sum_batch e^T h - decay B        h the units' outputs

    The readout's own change has that form, so the feedback of the last hidden layer draws towards the
    readout's weights; that of earlier ones has no such target. In vector units it is learned GEVB:

        signal_i = b_i        b_i <- b_i - rate sum_batch (e . h_i) - decay b_i        b = 1 at first

    and rate = decay = 0 is GEVB itself. e is the derivative of the loss, without the scale of an optimizer.

    Args:
        rate: Of the feedback, at least 0.
        decay: Of the feedback, a step, between 0 and 1.
        nonnegative, seed: Of B at the start, as in `DFA`.

    Raises:
        ValueError: if `rate` or `decay` is out of its range, or the size of a layer is not known.

    Example:

    >>> model = keras_gevb.Sequential(network, learning_rule=keras_gevb.rules.DKP(rate=0.01))

    Reference: Webster, Choi and Ahn 2021; the code of Bacho and Chu 2022.
    """

    search_space: ClassVar = {"rate": (1e-3, 1.0)}

    def __init__(
        self, rate: float = 0.1, decay: float = 1e-4, nonnegative: bool | None = None, seed: int | None = None
    ):
        super().__init__(nonnegative, seed)
        self.rate = check_rate("DKP", "rate", rate)
        self.decay = check_rate("DKP", "decay", decay, most=1)

    def observe(self, step: Step) -> Iterable[tuple[Record, Tensor]]:
        error = step.own_error()
        samples = ops.shape(error)[0]
        for record in step.hidden:
            h, units = ops.cast(record.activity, error.dtype), math.prod(record.gate.shape[1:])
            if record.place.vectorized:
                h = ops.reshape(h, (samples, units // h.shape[-1], *h.shape[-2:]))
                yield record, ops.reshape(ops.einsum("nk,npku->pu", error, h), (units,))
            else:
                yield record, ops.matmul(ops.transpose(error), ops.reshape(h, (samples, units)))

    def learned(self, weights: Tensor, observed: Tensor) -> Tensor:
        return (1 - self.decay) * weights - ops.cast(self.rate * observed, weights.dtype)

    def get_config(self) -> dict[str, Any]:
        return {"rate": self.rate, "decay": self.decay, **super().get_config()}


@register
class FDFA(LearnedFeedback):
    """Forward direct feedback alignment: feedback learns the derivative of the outputs, from noise.

        signal = e B        B <- B - rate (B - mean_batch (J u)^T u)        u ~ N(0, 1) at every hidden unit

    J u is the derivative of the logits along u, taken forward. So B follows the mean over samples of J,
    which backpropagation has sample by sample. Its noise grows with the number of hidden units and falls with
    the rate. In vector units, b_i <- b_i - rate (b_i - mean_batch (N u) u_i), with N the map of one
    component: b follows the mean of backpropagation's g.

    Args:
        rate: Of the feedback, between 0 and 1.
        nonnegative, seed: Of B at the start, as in `DFA`; the noise has the same seed.

    Raises:
        ValueError: if `rate` is out of its range, or the size of a layer is not known.

    Example:

    >>> model = keras_gevb.Sequential(network, learning_rule=keras_gevb.rules.FDFA(rate=1e-3))

    Reference: Bacho and Chu 2022.
    """

    search_space: ClassVar = {"rate": (1e-4, 1e-1)}

    def __init__(self, rate: float = 1e-3, nonnegative: bool | None = None, seed: int | None = None):
        super().__init__(nonnegative, seed)
        self.rate = check_rate("FDFA", "rate", rate, most=1)

    def build(self, layers: Sequence[Any], add_weight: Callable[..., Any]) -> None:
        super().build(layers, add_weight)
        self.noise = Noise(self.seed, add_weight)

    def observe(self, step: Step) -> Iterable[tuple[Record, Tensor]]:
        drawn = directions(step, self.noise)
        effect = step.along(drawn)
        samples = ops.shape(effect)[0]
        for record, u in ((r, u) for r, u in zip(step.records, drawn, strict=True) if not r.is_readout):
            u = ops.reshape(u, (samples, math.prod(record.gate.shape[1:])))
            seen = ops.matmul(ops.transpose(effect), u) / ops.cast(samples, u.dtype)
            yield record, seen[0] if record.place.vectorized else seen

    def remember(self, step: Step, change: Callable[[Any], Tensor]) -> Iterable[tuple[Any, Tensor]]:
        yield from super().remember(step, change)
        yield self.noise.counted()

    def learned(self, weights: Tensor, observed: Tensor) -> Tensor:
        return weights - self.rate * (weights - ops.cast(observed, weights.dtype))

    def get_config(self) -> dict[str, Any]:
        return {"rate": self.rate, **super().get_config()}
