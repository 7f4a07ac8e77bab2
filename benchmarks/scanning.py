"""A run of the comparison whose epochs are compiled loops under JAX, the data on the device."""

import jax
import numpy as np

from keras_gevb.experiments.run import Run


class ScannedRun(Run):
    """A `Run` without Python between its steps, and without a state after every epoch.

    The steps are Keras's own, `train_step` and `test_step`, on the same batches in the same order. The
    state to go on from is written after each measurement.
    """

    def _compile(self):
        size = self.protocol.batch_size
        self.model.evaluate(self.x[:size], self.y[:size], verbose=0)  # Keras creates its metrics
        self._train = jax.jit(_loop(self.model.train_step), donate_argnums=0)
        self._test = jax.jit(_loop(self.model.test_step))
        self.data, self.data_test = jax.device_put([(self.x, self.y), (self.x_test, self.y_test)])

    def _epoch(self):
        self._report(self.protocol.batch_size / len(self.x))
        super()._epoch()

    def _fit(self, order, callbacks=()):
        model = self.model
        model.reset_metrics()
        parts = (model.trainable_variables, model.non_trainable_variables)
        parts += (model.optimizer.variables, model.metrics_variables)
        _, state = self._over_batches(self._train, parts, self.data, order)
        for part, values in zip(parts, state):
            for variable, value in zip(part, values):
                variable.assign(value)
        jax.block_until_ready(state)

    def _scores(self, x, y):
        model = self.model
        model.reset_metrics()
        parts = model.trainable_variables, model.non_trainable_variables, model.metrics_variables
        data = self.data if x is self.x else self.data_test
        scores, _ = self._over_batches(self._test, parts, data, np.arange(len(x)))
        return {name: float(score) for name, score in scores.items()}

    def _over_batches(self, loop, parts, data, order):
        """The last logs and the state, after the whole batches and then the one that is left."""
        logs, state = None, tuple([variable.value for variable in part] for part in parts)
        size = self.protocol.batch_size
        whole = len(order) // size * size
        for chosen in (order[:whole].reshape(-1, size), order[None, whole:]):
            if chosen.size:
                logs, state = loop(state, data, chosen.astype("int32"))
        return logs, state

    def _save(self):
        if self.result.finished or self.result.last["epoch"] == self.result.epochs:
            super()._save()


def _loop(step):
    """A step, over the rows of an array with the samples of each batch: the last logs, and the state."""

    def loop(state, data, batches):
        def body(state, chosen):
            logs, state = step(state, tuple(array[chosen] for array in data))
            return tuple(state), logs

        state, logs = jax.lax.scan(body, tuple(state), batches)
        return {name: values[-1] for name, values in logs.items()}, state

    return loop
