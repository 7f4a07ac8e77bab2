"""JAX: function transformations, and a step without side effects."""

import contextlib
import threading

import jax
import keras
import numpy as np

from keras_gevb.backend.defaults import add_up, as_one, replicas, uncompiled  # noqa: F401

_step = threading.local()

# What a step is given and returns, in Keras's order.
STATE = "trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables"


def vjp(function, primals, cotangent):
    """The vector-Jacobian product of `function(*primals)` with `cotangent`, a list."""
    _, pullback = jax.vjp(function, *primals)
    return list(pullback(cotangent))


def loss_gradients(scaled_loss, logits, variables):
    """The loss, its gradient in the logits, and in the variables that it reads itself.

    Args, returns: as in `keras_gevb.backend.tensorflow`, but zeros for None.
    """

    def loss(logits, values):
        with _holding([*getattr(_step, "held", []), *zip(variables, values)]):
            return scaled_loss(logits)

    gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (_, reported), (error, gradients) = gradients(logits, [v.value for v in variables])
    return reported, error, gradients


def check_labels(labels, valid, message):
    """The labels; raises if one is not valid, with `message` and the first bad one."""
    valid = np.asarray(valid)
    if not valid.all():
        raise ValueError(f"{message}{np.asarray(labels)[~valid][0]}")
    return labels


def fusing():
    """Whether XLA compiles what is traced now, so that elementwise operations fuse."""
    return True


def after(tensors, others):
    """The tensors, none of which is computed before the others are."""
    # XLA on CPU drops optimization_barrier, and merges what is computed twice. It does not take
    # 0 x for 0, since x may be NaN.
    nothing = 0 * sum(other.max().astype("float32") for other in others)
    return [tensor + nothing.astype(tensor.dtype) for tensor in tensors]


def accelerator():
    """The "device" that computes and the format of its "products" of float32; empty on a CPU."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return {}
    precision = jax.config.jax_default_matmul_precision or "default"
    return {"device": device.device_kind, "products": "float32" if precision == "highest" else precision}


@contextlib.contextmanager
def _holding(pairs):
    """A scope in which variables have the values of these pairs."""
    before, _step.held = getattr(_step, "held", []), pairs
    try:
        with keras.StatelessScope(state_mapping=pairs) as scope:
            yield scope
    finally:
        _step.held = before


class StepMixin:
    """The step of Keras's JAX trainer, with a learning rule's updates."""

    def make_train_function(self, force=False):
        if self.train_function is not None and not force:
            return
        super().make_train_function(force)
        step = self.train_function

        def checked_step(state, batches):
            # A compiled step cannot raise, so the targets are checked on their way to it.
            return step(state, (self._checked(batch, state) for batch in batches))

        self.train_function = checked_step

    def _checked(self, batch, state):
        try:
            self._check_targets(keras.utils.unpack_x_y_sample_weight(batch)[1])
        except ValueError:
            # Give the model back its values, which are in the state while it is fitted.
            self._jax_state = dict(zip(STATE, state))
            self.jax_state_sync()
            raise
        return batch

    def train_step(self, state, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        variables = (
            self.trainable_variables,
            self.non_trainable_variables,
            self.optimizer.variables,
            self.metrics_variables,
        )
        pairs = [pair for part, values in zip(variables, state) for pair in zip(part, values)]
        with _holding(pairs):
            logs = self._train_on(x, y, sample_weight)
            # Inside the scope a variable has its new value.
            state = tuple([variable.value for variable in part] for part in variables)
        return logs, state
