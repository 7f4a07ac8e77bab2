"""Error broadcast and decorrelation: units unlearn what correlates with the error."""

import math

import keras
from keras import ops

from keras_gevb.rules import feedback
from keras_gevb.rules.base import LocalRule, register
from keras_gevb.rules.checks import check_rate


@register
class EBD(LocalRule):
    """Error broadcast and decorrelation: an error that is least has no correlation with any unit.

        signal = R e + share (power (diag C - level) h - entropy (C + epsilon I)^-1 h)
        R <- memory R + (1 - memory) sum_batch h e^T        C <- memory C + (1 - memory) mean_batch h h^T

    The first term descends |E[h e^T]|^2 / 2, the second (E[h_i^2] - level)^2 / 4 of each unit, the third
    raises the entropy log det(C + epsilon I) / 2 of a layer; h is what the layer returns, of all units in R,
    and C is that of its units (channels, with the mean over positions too). The first alone is at rest in
    silence, to which it runs: entropy = power = 0 collapses. e = dLoss/dLogits of any loss, which makes it
    the step of score broadcast and decorrelation. R starts at 0, C at level I. The readout receives e.

    Args:
        entropy: Weight of the entropy term, at least 0.
        power: Weight of the power term, at least 0.
        level: The mean square at which the power term rests.
        memory: Of R and C, between 0 and 1.
        epsilon: Keeps C invertible; positive.

    Raises:
        ValueError: if an argument is out of its range, or the size of a layer is not known; in training, if
            the network has vector units, or no hidden layer.

    Example:

    >>> model = keras_gevb.zoo.build("digits", "fc", vectorized=False, learning_rule="ebd")

    Reference: Erdogan, Erdogan and Pehlevan 2025 (arXiv 2504.11558); constant factors are in the weights.
    """

    vectorized = False

    def __init__(self, entropy=1e-3, power=1e-2, level=1.0, memory=0.99, epsilon=1e-2):
        super().__init__()
        self.entropy = check_rate("EBD", "entropy", entropy)
        self.power = check_rate("EBD", "power", power)
        self.level = check_rate("EBD", "level", level)
        self.memory = check_rate("EBD", "memory", memory, most=1)
        self.epsilon = check_rate("EBD", "epsilon", epsilon)
        if not self.epsilon:
            raise ValueError(f"EBD: epsilon must be positive. Received: epsilon={epsilon!r}")

    def build(self, layers, add_weight):
        self.correlations = {}
        for n, layer in enumerate(feedback.hidden(layers)):
            shape = feedback.size(layer), feedback.outputs(layers)
            with_error = add_weight(name=f"feedback_{n}", shape=shape, initializer="zeros", trainable=False)
            among = add_weight(
                name=f"covariance_{n}",
                shape=(layer.units, layer.units),
                initializer=keras.initializers.Identity(self.level),
                trainable=False,
            )
            self.correlations[layer] = with_error, among

    def check(self, records):
        super().check(records)
        if len(records) < 2:
            raise ValueError(
                "EBD decorrelates hidden units from the error, but the network has no hidden layer. "
                f"Received: one weight layer, '{records[0].layer.name}'. Add one, or use another rule."
            )

    def signal(self, record, step):
        if record.is_readout:
            return step.readout_signal(record)
        with_error, among = self.correlations[record.place]
        signal = feedback.projected(step.error, ops.transpose(with_error), record)
        h = ops.reshape(record.outputs, (-1, record.gate.shape[-1]))
        covariance = ops.cast(among, keras.backend.result_type(h.dtype, "float32"))
        h = ops.cast(h, covariance.dtype)
        wanted = self.power * (ops.diag(covariance) - self.level) * h
        wanted = wanted - self.entropy * _solve(covariance, self.epsilon, h)
        wanted = ops.reshape(ops.cast(wanted, signal.dtype), ops.shape(record.gate))
        return signal + ops.reshape(step.share(), (-1, *[1] * (len(wanted.shape) - 1))) * wanted

    def remember(self, step, change):
        error = step.own_error()
        samples = ops.shape(error)[0]
        uses = {}
        for record in step.hidden:
            h = ops.cast(record.outputs, error.dtype)
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

    def get_config(self):
        names = "entropy", "power", "level", "memory", "epsilon"
        return {name: getattr(self, name) for name in names}


def _solve(covariance, epsilon, h):
    """(C + epsilon I)^-1 h for each row h."""
    lower = ops.cholesky(covariance + epsilon * ops.eye(covariance.shape[0], dtype=covariance.dtype))
    half = ops.solve_triangular(lower, ops.transpose(h), lower=True)
    return ops.transpose(ops.solve_triangular(ops.transpose(lower), half))
