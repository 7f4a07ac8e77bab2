"""The training step as a pure function of its state."""

from typing import Any

from keras import ops

from keras_gevb import scopes
from keras_gevb.types import Array, Tensor


class Stateless:
    """The part of a model that hands out its training step as a pure function."""

    def stateless_train_step(
        self, state: Any, x: Array, y: Array | None = None, sample_weight: Array | None = None
    ) -> tuple[dict[str, Tensor], Any]:
        """One training step as a pure function, for `jax.jit` or `tf.function` outside of the model.

        Args:
            state: As `training_state` returns it.
            x, y, sample_weight: A batch.

        Returns:
            `(logs, state)`: the metrics so far, and the state after the step. The model is left as it was.

        Raises:
            ValueError: as in training. Labels are not checked.

        Example:

        >>> state = model.training_state()
        >>> logs, state = model.stateless_train_step(state, x, y)
        """

        def train():
            return self._log(*self._learn(x, y, sample_weight), x, y, sample_weight)

        return self._with_state(state, train)

    def _with_state(self, state, function):
        """What a function returns where the variables have the values of `state`, and the state after it."""
        parts = self._state_variables()
        pairs = [pair for part, values in zip(parts, state, strict=True) for pair in zip(part, values)]
        with scopes.holding(pairs):
            result = function()
            # Inside the scope a variable has its new value.
            return result, tuple([variable.value for variable in part] for part in parts)

    def training_state(self) -> Any:
        """What a training step reads and changes.

        Returns:
            Four lists of tensors, as Keras orders them under JAX: the values of the trainable variables, the
            others of the model, the optimizer's, and those of the metrics.

        Raises:
            ValueError: if the model is not built or not compiled.

        Example:

        >>> trainable, others, optimizer, metrics = model.training_state()
        """
        if not self.built or not self.compiled:
            raise ValueError(
                "The state of training is that of a model that is built and compiled. "
                f"Received: model '{self.name}', built={self.built}, compiled={self.compiled}."
            )
        self._build_rule()
        self._build_optimizer()
        return tuple([ops.copy(v.value) for v in part] for part in self._state_variables())

    def _state_variables(self):
        return (
            self.trainable_variables,
            self.non_trainable_variables,
            self.optimizer.variables,
            self.metrics_variables,
        )
