"""Error broadcast and decorrelation: units unlearn what correlates with the error."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from keras_gevb.rules import feedback
from keras_gevb.rules.base import LocalRule, register
from keras_gevb.rules.checks import check_rate
from keras_gevb.types import Record, Step, Tensor


@register
class EBD(LocalRule):
    """Error broadcast and decorrelation: an error that is least has no correlation with any unit.

        signal = R e + share (power (diag C - level) h - entropy (C + epsilon I)^-1 h)
        R <- memory R + (1 - memory) sum_batch h e^T        C <- memory C + (1 - memory) mean_batch h h^T

    The first term descends |E[h e^T]|^2 / 2, the second (E[h_i^2] - level)^2 / 4 of each unit, the third
    raises the entropy log det(C + epsilon I) / 2 of a layer; h is what the layer returns, of all units in R,
    and C is that of its units (channels, with the mean over positions too). e = dLoss/dLogits of any loss,
    which makes it the step of score broadcast and decorrelation. C starts at level I. The readout receives e.

    R starts at random, and that is what a network learns from: with memory near 1 it stays, and the rule is
    `DFA` whose feedback turns slowly. What R gathers points the other way. A readout descends by
    dW = -rate sum h e^T, so backpropagation's W e grows against R e (`DKP` learns -R); the first term has e
    held while h moves. From start = 0 networks do not learn, and with entropy = power = 0 fall silent.

    Args:
        entropy: Weight of the entropy term, at least 0.
        power: Weight of the power term, at least 0.
        level: The mean square at which the power term rests.
        memory: Of R and C, between 0 and 1.
        epsilon: Keeps C invertible; positive.
        start: R is drawn as the B of `DFA`, times this; at least 0.
        seed: Integer, of R at the start. Drawn when not given.

    Raises:
        ValueError: if an argument is out of its range, or the size of a layer is not known; in training, if
            the network has vector units, or no hidden layer.

    Example:

    >>> model = keras_gevb.zoo.build("digits", "fc", vectorized=False, learning_rule="ebd")

    Reference: Erdogan, Erdogan and Pehlevan 2025 (arXiv 2504.11558); constant factors are in the weights.
    """

    vectorized = False

    search_space: ClassVar = {"entropy": (1e-5, 1e-2), "power": (1e-4, 1e-1)}

    def __init__(
        self,
        entropy: float = 1e-3,
        power: float = 1e-2,
        level: float = 1.0,
        memory: float = 0.99999,
        epsilon: float = 1e-2,
        start: float = 1.0,
        seed: int | None = None,
    ):
        super().__init__()
        self.entropy = check_rate("EBD", "entropy", entropy)
        self.power = check_rate("EBD", "power", power)
        self.level = check_rate("EBD", "level", level)
        self.memory = check_rate("EBD", "memory", memory, most=1)
        self.epsilon = check_rate("EBD", "epsilon", epsilon)
        if not self.epsilon:
            raise ValueError(f"EBD: epsilon must be positive. Received: epsilon={epsilon!r}")
        self.start = check_rate("EBD", "start", start)
        self.seed = feedback.seeded(seed)

    def build(self, layers: Sequence[Any], add_weight: Callable[..., Any]) -> None:
        self.correlations = {}
        for n, layer in enumerate(feedback.hidden(layers)):
            shape = feedback.size(layer), feedback.outputs(layers)
            drawn = feedback.uniform(layers, None, self.seed + n, self.start)
            with_error = add_weight(
                name=f"feedback_{n}", shape=shape, initializer=drawn, trainable=False, of=layer
            )
            among = add_weight(
                name=f"covariance_{n}",
                shape=(layer.units, layer.units),
                initializer=keras.initializers.Identity(self.level),
                trainable=False,
                of=layer,
            )
            self.correlations[layer] = with_error, among

    def check(self, records: Sequence[Record]) -> None:
        super().check(records)
        if len(records) < 2:
            raise ValueError(
                "EBD decorrelates hidden units from the error, but the network has no hidden layer. "
                f"Received: one weight layer, '{records[0].layer.name}'. Add one, or use another rule."
            )

    def signal(self, record: Record, step: Step) -> Tensor:
        if record.is_readout:
            return step.readout_signal(record)
        with_error, among = self.correlations[record.place]
        signal = feedback.projected(step.error, ops.transpose(with_error), record)
        if not self.entropy and not self.power:
            return signal
        h = ops.reshape(record.outputs, (-1, record.gate.shape[-1]))
        covariance = ops.cast(among, keras.backend.result_type(h.dtype, "float32"))
        h = ops.cast(h, covariance.dtype)
        wanted = self.power * (ops.diag(covariance) - self.level) * h
        wanted = wanted - self.entropy * _solve(covariance, self.epsilon, h)
        wanted = ops.reshape(ops.cast(wanted, signal.dtype), ops.shape(record.gate))
        return signal + ops.reshape(step.share(), (-1, *[1] * (len(wanted.shape) - 1))) * wanted

    def remember(self, step: Step, change: Callable[[Any], Tensor]) -> Iterable[tuple[Any, Tensor]]:
        error = step.own_error()
        samples = ops.shape(error)[0]
        uses: dict[Any, list[Any]] = {}
        for record in step.hidden:
            h = ops.cast(record.activity, error.dtype)
            units = math.prod(h.shape[1:])
            each = ops.reshape(h, (-1, h.shape[-1]))
            mean = ops.matmul(ops.transpose(each), each) / ops.cast(ops.shape(each)[0], each.dtype)
            with_error = ops.matmul(ops.transpose(ops.reshape(h, (samples, units))), error)
            uses.setdefault(record.place, []).append((with_error, mean))
        for key, (with_error, among) in self.correlations.items():
            missing = with_error.shape[0]
            seen = [ops.pad(w, [(0, missing - w.shape[0]), (0, 0)]) for w, _ in uses[key]]
            yield with_error, self._moved(with_error, sum(seen))
            yield among, self._moved(among, sum(mean for _, mean in uses[key]) / len(uses[key]))

    def _moved(self, variable, seen):
        return self.memory * variable + (1 - self.memory) * ops.cast(seen, variable.dtype)

    def get_config(self) -> dict[str, Any]:
        names = "entropy", "power", "level", "memory", "epsilon", "start", "seed"
        return {name: getattr(self, name) for name in names}


def _solve(covariance, epsilon, h):
    """(C + epsilon I)^-1 h for each row h."""
    lower = ops.cholesky(covariance + epsilon * ops.eye(covariance.shape[0], dtype=covariance.dtype))
    half = ops.solve_triangular(lower, ops.transpose(h), lower=True)
    return ops.transpose(ops.solve_triangular(ops.transpose(lower), half))
