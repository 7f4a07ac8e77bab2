"""What a learning rule is."""

import keras


class LearningRule:
    """Tells each unit how to change, by one signal per sample and unit.

    A unit's credit is its gate times that signal, and its weights change by

        dW_ij = sum_batch credit_i (e . a_j)        db_i = sum_batch credit_i e

    (without `e` in conventional networks, whose signals contain it). So a rule is one
    method, `signals`. To add one, subclass, register, write `signals`; with fixed
    weights of its own, `build` too.

    Attributes:
        vectorized: The units the rule serves: True (vector), False (conventional)
            or None (both).
        needs_activity: Whether the trace must keep the layers' inputs and gates.

    Example:

    >>> @keras.saving.register_keras_serializable(package="mine")
    ... class Half(LearningRule):
    ...     "Every unit is told half the truth."
    ...     def signals(self, trace, error):
    ...         return [0.5 * signal for signal in trace.backward(error)]
    """

    vectorized = None
    needs_activity = True

    def build(self, layers, add_weight):
        """Create the rule's fixed weights, if any.

        Args:
            layers: The model's weight layers, built.
            add_weight: `Model.add_weight`, so that the weights are saved with the model.
        """

    def signals(self, trace, error):
        """One signal for each record of the trace, shaped as its gate.

        Args:
            trace: A `keras_gevb.trace.Trace`: `trace.records`, `trace.backward(error)`.
            error: The error vector dLoss/dLogits, `(batch, K)`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `signals`.")

    def updates(self, trace, error):
        """Pairs (variable, update), one for each use of a variable."""
        for record, signal in zip(trace.records, self.signals(trace, error), strict=True):
            yield from record.layer.updates(record.inputs, record.gate * signal, error)

    def check(self, records):
        """Raise where the rule cannot serve a network.

        Raises:
            ValueError: naming the first layer whose units the rule does not serve.
        """
        for record in records:
            if self.vectorized not in (None, record.layer.vectorized):
                serves, has = ("vector", "conventional")[:: 1 if self.vectorized else -1]
                raise ValueError(
                    f"{type(self).__name__} serves {serves} units, but layer '{record.layer.name}' "
                    f"({type(record.layer).__name__}) has {has} ones. Use another learning rule "
                    f"(Backprop and FA serve both), or build the network of {serves} units."
                )

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


def register(cls):
    """Make a rule of this package serializable."""
    return keras.saving.register_keras_serializable(package="keras_gevb")(cls)
