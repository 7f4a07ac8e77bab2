"""Errors of one's own: each layer has a classifier of its outputs."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
from keras import ops

from keras_gevb import targets
from keras_gevb.rules import feedback
from keras_gevb.rules.base import LocalRule, register
from keras_gevb.types import Record, Step, Tensor


@register
class LocalError(LocalRule):
    """Local classifiers: each hidden layer learns to let a linear classifier of its own name the class.

        signal = share (softmax(h C_l) - y) C_l^T        share = weight of the sample / batch

    h is all that the layer returns, y the one-hot target. C_l learns from the same error by the model's
    optimizer, dC = h^T share (softmax(h C) - y): it is a trainable weight of the model, and follows its
    learning rate. No layer hears of the layers above, so early layers are made to separate classes as
    if they were the last. The readout receives e. Only for classes.

    Args:
        seed: Integer, of C at the start (Glorot's uniform). Drawn when not given.

    Raises:
        ValueError: if the size of a layer is not known; in training, if the network has vector units, or
            the loss is not one of classes.

    Example:

    >>> model = keras_gevb.zoo.build("digits", "fc", vectorized=False, learning_rule="local_error")

    Reference: Nokland and Eidnes 2019 (the prediction loss); Mostafa, Ramesh and Cauwenberghs 2018.
    """

    vectorized = False
    reads_targets = True

    def __init__(self, seed: int | None = None):
        super().__init__()
        self.seed = feedback.seeded(seed)

    def build(self, layers: Sequence[Any], add_weight: Callable[..., Any]) -> None:
        self.classifiers = {
            layer: add_weight(
                name=f"classifier_{n}",
                shape=(feedback.size(layer), feedback.outputs(layers)),
                initializer=keras.initializers.GlorotUniform(seed=self.seed + n),
                trainable=True,
                of=layer,
            )
            for n, layer in enumerate(feedback.hidden(layers))
        }

    def _local(self, record, step):
        """What the layer returns `(batch, n)`, its classifier `(n, K)` and the classifier's error."""
        units = math.prod(record.gate.shape[1:])
        h = ops.reshape(record.activity, (-1, units))
        classifier = ops.cast(self.classifiers[record.place], h.dtype)[:units]
        y = ops.cast(targets.classes(step, self), h.dtype)
        # A softmax over the classes of each position.
        logits = ops.reshape(ops.matmul(h, classifier), (-1, step.readouts[0].outputs.shape[-1]))
        chances = ops.reshape(ops.softmax(logits), ops.shape(y))
        return h, classifier, ops.cast(step.shares(), h.dtype) * (chances - y)

    def signal(self, record: Record, step: Step) -> Tensor:
        if record.is_readout:
            return step.readout_signal(record)
        _, classifier, error = self._local(record, step)
        return ops.reshape(ops.matmul(error, ops.transpose(classifier)), ops.shape(record.gate))

    def own_updates(self, step: Step) -> Iterable[tuple[Any, Tensor]]:
        for record in step.hidden:
            h, _, error = self._local(record, step)
            variable = self.classifiers[record.place]
            update = ops.cast(ops.matmul(ops.transpose(h), error), variable.dtype)
            yield variable, ops.pad(update, [(0, variable.shape[0] - update.shape[0]), (0, 0)])

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}
