"""The measures during `fit`."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gevb.diagnostics.measures import alignment_angles, dead_units, sign_agreement, zero_weights
from keras_gevb.types import Array


class AlignmentMonitor(keras.callbacks.Callback):
    """Measures the diagnostics on a fixed batch while a model is fitted.

    They join the logs of an epoch, so they stand in `History`, and in TensorBoard, CSVLogger
    and other callbacks that follow this one in the list. The names are

        alignment/<layer>  sign_agreement/<layer>  dead_units/<layer>  zero_weights/<layer>

    Args:
        x: A batch of inputs, the same at every measurement.
        y: Its targets.
        every: Measure at the end of every so many epochs, as `validation_freq` in `fit`; in the other epochs
            the logs have NaN, so that a table that began with the first epoch has columns for all.
        measures: Which of the four, a subset of their names. "sign_agreement" costs the most.

    Raises:
        ValueError: if `every` or `measures` cannot be used.

    Example:

    >>> monitor = keras_gevb.diagnostics.AlignmentMonitor(x[:32], y[:32], every=2)
    >>> history = model.fit(x, y, epochs=4, callbacks=[monitor], verbose=0)
    >>> history.history["alignment/vector_dense"]
    [...]
    """

    MEASURES = ("alignment", "sign_agreement", "dead_units", "zero_weights")

    def __init__(self, x: Array, y: Array, every: int = 1, measures: Sequence[str] = MEASURES) -> None:
        super().__init__()
        if not isinstance(every, (int, np.integer)) or every < 1:
            raise ValueError(f"`every` must be a positive number of epochs. Received: every={every!r}")
        unknown = [name for name in measures if name not in self.MEASURES]
        if unknown or isinstance(measures, str):
            raise ValueError(
                f"`measures` must be a list of names out of {list(self.MEASURES)}. Received: {measures!r}"
            )
        self.x, self.y = keras.tree.map_structure(ops.convert_to_numpy, (x, y))
        self.every = every
        self.measures = tuple(measures)
        self._names: list[str] = []

    def measure(self) -> dict[str, float]:
        """The measures now, a dict from `<measure>/<layer>` to a number."""
        by_name = {
            "alignment": lambda: alignment_angles(self.model, self.x, self.y),
            "sign_agreement": lambda: sign_agreement(self.model, self.x, self.y),
            "dead_units": lambda: dead_units(self.model, self.x),
            "zero_weights": lambda: zero_weights(self.model),
        }
        return {
            f"{measure}/{layer}": value
            for measure in self.measures
            for layer, value in by_name[measure]().items()
        }

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs.update(self.measure() if (epoch + 1) % self.every == 0 else self._not_measured())

    def _not_measured(self):
        # Of the same layers that a measurement has.
        self._names = self._names or list(self.measure())
        return dict.fromkeys(self._names, float("nan"))
