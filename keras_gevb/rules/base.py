"""What a learning rule is."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import keras

from keras_gevb.types import Record, Step, Tensor


class LearningRule:
    """Tells each unit how to change, by one signal per sample and unit.

    A unit's credit is its gate times that signal, and its weights change by

        dW_ij = sum_batch credit_i (e . a_j)        db_i = sum_batch credit_i e

    (without `e` in conventional networks, whose signals contain it). So a rule is one
    method, `signals`, or one that says the signal of one record, in a `LocalRule`. With weights
    of its own it has `build` too; if it learns them, `own_updates`; if it remembers, `remember`.

    Attributes:
        vectorized: The units the rule serves: True (vector), False (conventional)
            or None (both).
        is_exact: Whether its updates are the gradient, so that losses of activity are served too.
        reads_targets: Whether its signals follow the targets themselves, which a certificate then allows.
        search_space: Arguments that `keras_gevb.tuning` searches for a rule given by name, with what among:
            a list, or a pair of numbers, both ends included, on a logarithmic scale.
        variables: The weights that `build` created.

    Example:

    >>> @keras.saving.register_keras_serializable(package="mine")
    ... class Half(rules.LearningRule):
    ...     "Every unit is told half the truth."
    ...     def signals(self, step):
    ...         return [0.5 * signal for signal in step.backward()]
    """

    vectorized: bool | None = None
    is_exact = False
    low_memory = False
    reads_targets = False
    search_space: ClassVar[dict[str, Any]] = {}
    variables = ()

    def build(self, layers: Sequence[Any], add_weight: Callable[..., Any]) -> None:
        """Create the rule's own weights, if any.

        Args:
            layers: The model's weight layers, built.
            add_weight: As `keras.Model.add_weight`: so the weights are saved with the model. Those that
                `remember` changes want `trainable=False`. Besides, `of` says which kernel or layer a weight
                belongs to: it keeps its value where the model gets, loses or freezes other layers.
        """

    def signals(self, step: Step) -> list[Tensor]:
        """One signal for each record of the step, shaped as its gate; nothing is changed.

        Args:
            step: A `keras_gevb.step.Step`: `step.records`, `step.error` `(batch, K)`, `step.targets`,
                `step.sample_weight`, `step.share()` and `step.shares()`, `step.backward()`,
                `step.along(directions)`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `signals`.")

    def own_updates(self, step: Step) -> Iterable[tuple[Any, Tensor]]:
        """Pairs (variable, update) for weights of the rule that the optimizer trains."""
        return ()

    def remember(self, step: Step, change: Callable[[Any], Tensor]) -> Iterable[tuple[Any, Tensor]]:
        """Pairs (variable, value): what a step of the optimizer leaves behind; nothing is changed here.

        They take effect where the optimizer changed the weights, not where it skipped the step or only
        added to its gradients. Over several replicas the values are averaged.

        Args:
            step: The step, as `signals` saw it; `step.own_error()` is e without the scale of a loss.
            change: A function from a trainable variable to what the step added to it.
        """
        return ()

    def remembers(self) -> bool:
        """Whether the rule has a `remember` of its own, for which weights before a step are kept."""
        return type(self).remember is not LearningRule.remember

    def check(self, records: Sequence[Record]) -> None:
        """Raise where the rule cannot serve a network.

        Raises:
            ValueError: naming the first layer whose units the rule does not serve.
        """
        for record in records:
            if self.vectorized not in (None, record.place.vectorized):
                serves, has = ("vector", "conventional")[:: 1 if self.vectorized else -1]
                raise ValueError(
                    f"{type(self).__name__} serves {serves} units, but layer '{record.layer.name}' "
                    f"({type(record.layer).__name__}) has {has} ones. Use another learning rule "
                    f"(Backprop and FA serve both), or build the network of {serves} units."
                )

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


class LocalRule(LearningRule):
    """A rule whose signals need no way back: each follows from its own record and what is broadcast.

    Args:
        low_memory: Run forward twice, once for e and once more updating each layer as it goes:
            no update waits for another, so the memory for activity does not grow with depth.
            The updates are the same; a step takes longer.
    """

    def __init__(self, low_memory: bool = False):
        self.low_memory = low_memory

    def signal(self, record: Record, step: Step) -> Tensor:
        """The signal of one record, shaped as its gate.

        Args:
            record: A `keras_gevb.passes.Record`: its `layer`, `number`, `inputs` and `gate`.
            step: As in `LearningRule.signals`; with `low_memory` its other records have no activity.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `signal`.")

    def signals(self, step: Step) -> list[Tensor]:
        return [self.told(record, step) for record in step.records]

    def told(self, record: Record, step: Step) -> Tensor:
        """The signal of one record, 0 at padding: no way back shows that nothing heeds it."""
        signal = self.signal(record, step)
        return signal if record.is_readout else record.without_padding(signal)

    def get_config(self) -> dict[str, Any]:
        return {"low_memory": self.low_memory}


def register(cls):
    """Make a rule of this package serializable."""
    return keras.saving.register_keras_serializable(package="keras_gevb")(cls)
