"""Epochs as compiled loops under JAX, the data on the device: without Python between the steps."""

import jax
import numpy as np

from keras_gevb.experiments.run import Run


class Scan:
    """Epochs of a compiled model: Keras's own `train_step` or `test_step`, over batches in a given order.

    Args:
        model: A compiled model.
        x, y: Its samples and targets, on the host.
        batch_size: An integer.
    """

    def __init__(self, model, x, y, batch_size):
        model.evaluate(x[:batch_size], y[:batch_size], verbose=0)  # Keras creates its metrics
        model.optimizer.build(model.trainable_variables)
        self.model, self.batch_size = model, batch_size
        self._train = jax.jit(_loop(model.train_step), donate_argnums=0)
        self._test = jax.jit(_loop(model.test_step))
        self.data = jax.device_put((x, y))

    def train(self, order):
        """One epoch in this order of the samples; returns the logs of its last step, means over the epoch."""
        model = self.model
        model.reset_metrics()
        parts = (model.trainable_variables, model.non_trainable_variables)
        parts += (model.optimizer.variables, model.metrics_variables)
        logs, state = self._over_batches(self._train, parts, self.data, order)
        for part, values in zip(parts, state):
            for variable, value in zip(part, values):
                variable.assign(value)
        jax.block_until_ready(state)
        return {name: float(value) for name, value in logs.items()}

    def test(self, data=None):
        """The logs over all samples of `data` (default: those of training), which lies on the device."""
        model = self.model
        model.reset_metrics()
        parts = model.trainable_variables, model.non_trainable_variables, model.metrics_variables
        data = data or self.data
        logs, _ = self._over_batches(self._test, parts, data, np.arange(len(data[0])))
        return {name: float(value) for name, value in logs.items()}

    def _over_batches(self, loop, parts, data, order):
        """The last logs and the state, after the whole batches and then the one that is left."""
        logs, state = None, tuple([variable.value for variable in part] for part in parts)
        whole = len(order) // self.batch_size * self.batch_size
        for chosen in (order[:whole].reshape(-1, self.batch_size), order[None, whole:]):
            if chosen.size:
                logs, state = loop(state, data, chosen.astype("int32"))
        return logs, state


class ScannedRun(Run):
    """A `Run` whose epochs are compiled loops, without a state after every epoch.

    The steps are Keras's own, on the same batches in the same order. The state to go on from is written
    after each measurement.
    """

    def _compile(self):
        self.scan = Scan(self.model, self.x, self.y, self.protocol.batch_size)
        self.data_test = jax.device_put((self.x_test, self.y_test))

    def _epoch(self):
        self._report(self.protocol.batch_size / len(self.x))
        super()._epoch()

    def _fit(self, order, callbacks=()):
        self.scan.train(order)

    def _scores(self, x, y):
        return self.scan.test(None if x is self.x else self.data_test)

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
