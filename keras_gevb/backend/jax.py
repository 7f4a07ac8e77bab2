"""JAX: function transformations, and a step without side effects."""

import functools

import jax
import jax.extend
import keras
import numpy as np
from jax.interpreters import partial_eval

from keras_gevb import private, scopes
from keras_gevb.backend.defaults import (  # noqa: F401
    Moment,
    add_up,
    as_one,
    assign,
    creating_variables,
    dense,
    is_sparse,
    of_any_batch,
    replica,
    replicas,
    stand_in,
    uncompiled,
    untraced,
)

# Newer releases have it in jax.extend.
_trace_state = getattr(jax.extend.core, "get_opaque_trace_state", None) or jax.core.get_opaque_trace_state

# Also of constants, where a step is being traced.
now = jax.ensure_compile_time_eval


def build_now(optimizer, variables):
    """Build the optimizer for the variables, by numbers, though a step is being traced."""
    with now():
        optimizer.build(variables)


# Keras hands on what a step writes to other variables alone.
writes_weights = False


def assigned(value, before=None):
    """What a variable that was assigned a value is read as: the value, since variables are arguments."""
    return value


def vjp(function, primals, cotangent):
    """The vector-Jacobian product of `function(*primals)` with `cotangent`, a list."""
    _, pullback = jax.vjp(function, *primals)
    return list(pullback(cotangent))


def jvp(function, primals, tangents):
    """The derivative of `function(*primals)` along `tangents`."""
    # The pullback, which is linear, pulled back: functions of `with_pullback` have no other derivative.
    outputs, pullback = jax.vjp(function, *primals)
    _, along = jax.vjp(pullback, jax.tree.map(jax.numpy.zeros_like, outputs))
    return along(tuple(tangents))[0]


def draw(distribution, shape, dtype, seed):
    """Random numbers from a seed of two integers."""
    key = jax.numpy.stack([jax.numpy.asarray(part, "uint32") for part in seed])
    return getattr(jax.random, distribution)(key, shape, dtype)


def linearized(function, primals):
    """The tensor that `function(*primals)` returns, what it returns besides, and the pullback."""
    outputs, pullback, rest = jax.vjp(function, *primals, has_aux=True)
    return outputs, rest, lambda cotangent: list(pullback(cotangent))


def with_pullback(value, primals, pullback):
    """The value, as a function of the primals whose derivative is the pullback."""
    if not primals:
        return value

    @jax.custom_vjp
    def constant(*primals):
        return value

    constant.defvjp(lambda *primals: (value, None), lambda _, cotangent: tuple(pullback(cotangent)))
    return constant(*primals)


def depends(function, primals):
    """For each primal, whether any of the tensors that `function(*primals)` returns depends on it."""
    jaxpr = jax.make_jaxpr(function)(*primals).jaxpr
    return list(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[1])


def loss_gradients(scaled_loss, outputs, variables):
    """The loss, its gradients in the outputs, and in the variables that it reads itself (zeros for None)."""
    changed = []

    def loss(outputs, values):
        with scopes.holding(zip(variables, values)):
            scaled, reported = scaled_loss(*outputs)
            # Metrics that the loss updates: out of the differentiated function by its value alone.
            others = [v for v in scopes.held_variables() if not any(v is w for w in variables)]
            changed[:] = others
            return scaled, (reported, [v.value for v in others])

    gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (_, (reported, values)), (errors, direct) = gradients(outputs, [v.value for v in variables])
    for variable, value in zip(changed, values):
        if value is not variable.value:
            variable.assign(value)
    return reported, errors, direct


def apply(optimizer, updates, variables):
    """One step of the optimizer, where variables have values for a while as Keras's trainer calls it."""
    pairs = zip(variables, updates)  # in JAX what no derivative reaches has one of 0
    updates = [jax.numpy.zeros_like(v.value) if update is None else update for v, update in pairs]
    if scopes.held() is None:
        optimizer.apply(updates, variables)
        return
    state = [v.value for v in optimizer.variables], [v.value for v in variables]
    values, slots = optimizer.stateless_apply(state[0], updates, state[1])
    for variable, value in [*zip(variables, values), *zip(optimizer.variables, slots)]:
        variable.assign(value)


def stand_ins(variables):
    """Random numbers: while a model is fitted, Keras keeps the values of its variables elsewhere."""
    random = np.random.default_rng(0)
    values = []
    for variable in variables:
        value = np.zeros(variable.shape)
        if keras.backend.is_float_dtype(variable.dtype):
            value = random.normal(size=variable.shape) / max(1, np.prod(variable.shape[:-1])) ** 0.5
            value = value if variable.trainable else np.abs(value) + 0.5
        values.append(jax.numpy.asarray(value, variable.dtype))
    return list(zip(variables, values))


def graph():
    """The function that is being traced."""
    return _trace_state(convention="flax")


def integers(labels):
    """Labels as integers: on the host where they are all here, so that no step waits for a device."""
    if isinstance(labels, jax.core.Tracer) or not getattr(labels, "is_fully_addressable", True):
        return labels.astype("int32")
    with np.errstate(invalid="ignore"):  # NaN is no class
        return np.asarray(labels).astype("int64")


def check_labels(labels, valid, message):
    """The labels; raises if one is not valid, with `message` and the first bad one."""
    if isinstance(valid, jax.core.Tracer):
        return labels  # a compiled step cannot raise: they were checked on their way to it
    if isinstance(valid, np.ndarray):
        if not valid.all():
            raise ValueError(f"{message}{np.asarray(labels)[~valid][0]}")
        return labels
    if not valid.all():  # the same on every process, each of which holds a part of the labels
        parts = zip(labels.addressable_shards, valid.addressable_shards)
        bad = [n for part, good in parts for n in np.asarray(part.data)[~np.asarray(good.data)]]
        raise ValueError(f"{message}{bad[0] if bad else 'of another process'}")
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
    """What computes, where it is no CPU."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return {}
    precision = jax.config.jax_default_matmul_precision or "default"
    return {"device": device.device_kind, "products": "float32" if precision == "highest" else precision}


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
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)

        def outputs(x):
            return self._with_state(state, lambda: self(x, training=True))[0]

        try:
            self._check_labels(x, y, functools.partial(jax.eval_shape, outputs))
        except Exception:
            private.give_back_state(self, state)
            raise
        return batch

    def train_step(self, state, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._prepare(x, state)
        return self.stateless_train_step(state, x, y, sample_weight)
