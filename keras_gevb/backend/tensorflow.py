"""TensorFlow: gradient tapes, and the step in the functions of Keras's trainer."""

import concurrent.futures
import contextlib
import functools
import threading
import types
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework import op_callbacks

from keras_gevb import scopes
from keras_gevb.backend import defaults
from keras_gevb.backend.compiling import CompiledSteps, as_one, fusing  # noqa: F401
from keras_gevb.backend.defaults import (  # noqa: F401
    assigned,
    integers,
    numbers_like,
    stand_ins,
    writes_weights,
)
from keras_gevb.types import Tensor

# Lifts out of the function that is being traced.
now = tf.init_scope

# Operations that draw by TensorFlow's own generators.
_DRAWING = {
    *("RandomStandardNormal", "RandomUniform", "RandomUniformInt", "TruncatedNormal", "RandomGamma"),
    *("ParameterizedTruncatedNormal", "RandomPoissonV2", "RandomShuffle", "Multinomial", "RngReadAndSkip"),
}
_thread = threading.local()


class Moment(defaults.Moment):
    """TensorFlow's generators besides: what operations of the traced step drew is used again."""

    def __init__(self):
        super().__init__()
        self._graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        self._operations = getattr(self._graph, "version", 0)  # so many it has

    def bring_back(self):
        super().bring_back()
        _thread.drawn = self._drawn()

    def _drawn(self):
        for operation in self._graph.get_operations()[self._operations :]:
            if operation.type in _DRAWING:
                yield operation.outputs

    @contextlib.contextmanager
    def again(self):
        drawing = functools.partial(_draw_again, self._graph)
        op_callbacks.add_op_callback(drawing)
        try:
            with super().again():
                yield
        finally:
            op_callbacks.remove_op_callback(drawing)


def _draw_again(step, name, inputs, attributes, outputs, op_name=None, graph=None):
    if name not in _DRAWING:
        return None
    drawn = next(_thread.drawn, None) if graph is step and step is not None else None
    if drawn is None:
        raise ValueError(
            f"A layer draws random numbers by TensorFlow's own {name} (tf.random) in an eager step, or "
            "within a branch, a loop or a function of its own, where the same numbers cannot be drawn "
            "again, as this learning rule needs. Draw them by keras.random, its seed a "
            "keras.random.SeedGenerator that is an attribute of the layer."
        )
    return drawn


def vjp(function, primals, cotangent):
    """The vector-Jacobian product of `function(*primals)` with `cotangent`, a list."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(primals)
        outputs = function(*primals)
    return tape.gradient(outputs, primals, output_gradients=cotangent)


def jvp(function, primals, tangents):
    """The derivative of `function(*primals)` along `tangents`."""
    # The pullback, which is linear, pulled back: functions of `with_pullback` have no other derivative.
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(primals)
            outputs = function(*primals)
        cotangent = tf.nest.map_structure(tf.zeros_like, outputs)
        outer.watch(cotangent)
        pulled = tape.gradient(outputs, primals, output_gradients=cotangent)
    reached = [(signal, along) for signal, along in zip(pulled, tangents) if signal is not None]
    signals, along = map(list, zip(*reached)) if reached else ([], [])
    return outer.gradient(signals, cotangent, along, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def draw(distribution, shape, dtype, seed):
    """Random numbers from a seed of two integers."""
    # XLA's own choice of an algorithm takes 30 times as long on a CPU.
    stateless = getattr(tf.random, f"stateless_{distribution}")
    return stateless(shape, tf.stack([tf.cast(part, tf.int32) for part in seed]), dtype=dtype, alg="philox")


def linearized(function, primals):
    """The tensor that `function(*primals)` returns, what it returns besides, and the pullback."""
    primals = [tf.identity(primal) for primal in primals]  # one tensor may be two of them
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(primals)
        outputs, rest = function(*primals)

    def pullback(cotangent):
        return tape.gradient(outputs, primals, output_gradients=cotangent)

    return outputs, rest, pullback


def with_pullback(value, primals, pullback):
    """The value, as a function of the primals whose derivative is the pullback."""
    if not primals:
        return value

    @tf.custom_gradient
    def constant(*primals):
        def gradient(cotangent):
            pulled = zip(pullback(cotangent), primals)
            return [tf.zeros_like(primal) if g is None else dense(g) for g, primal in pulled]

        return tf.identity(value), gradient

    return constant(*primals)


def depends(function, primals):
    """For each primal, whether any of the tensors that `function(*primals)` returns depends on it."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(primals)
        outputs = function(*primals)
    return [gradient is not None for gradient in tape.gradient(outputs, primals)]


def loss_gradients(scaled_loss, outputs, variables):
    """The loss, its gradients in the outputs, and in the variables that it reads itself."""
    values = [variable.value for variable in variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([*outputs, *values])
        scaled, loss = scaled_loss(*outputs)
    gradients = tape.gradient(scaled, [*outputs, *values])
    return loss, gradients[: len(outputs)], gradients[len(outputs) :]


def check_labels(labels, valid, message):
    """The labels, behind an assertion that all are valid; `message` takes the first bad one."""
    first_bad = tf.boolean_mask(labels, ~valid)[:1]
    if tf.executing_eagerly():
        if len(first_bad):
            raise ValueError(f"{message}{first_bad[0].numpy()}")
        return labels
    assertion = tf.debugging.Assert(tf.reduce_all(valid), [message, first_bad])
    with tf.control_dependencies([assertion] if assertion is not None else []):
        return tf.identity(labels)


def graph():
    """The function that is being traced, or None."""
    return None if tf.executing_eagerly() else id(tf.compat.v1.get_default_graph())


def untraced(function):
    """The function; of a `tf.function` the Python function, its branches and loops on tensors as there."""
    python_function = getattr(function, "python_function", None)
    if python_function is None:
        return function
    own = getattr(python_function, "__self__", None)  # of a method; what is made of it is bound to nothing
    converted = tf.autograph.to_graph(python_function)
    return converted if own is None else types.MethodType(converted, own)


def of_any_batch(tensor):
    """The tensor, its number of samples unknown to what is traced, as in Keras's own functions."""
    if tf.executing_eagerly() or not isinstance(tensor, tf.Tensor) or not tensor.shape.rank:
        return tensor
    return tf.compat.v1.placeholder_with_default(tensor, [None, *tensor.shape[1:]])


def uncompiled():
    """A scope whose operations XLA does not fuse with others, where the step is compiled in parts."""
    return tf.xla.experimental.jit_scope(False) if fusing() else contextlib.nullcontext()


def dense(tensor):
    """The tensor with its zeros: gradients of embeddings have rows alone."""
    return tf.convert_to_tensor(tensor)


def add_up(terms):
    """The sum of tensors of one shape, in one pass over memory where XLA compiles it."""
    # The graph optimizer gathers sums into operations outside of what XLA compiles; differences
    # it leaves alone.
    first, *others = map(dense, terms)
    negative = -first
    for term in others:
        negative = negative - term
    return -negative


def after(tensors, others):
    """The tensors, none of which is computed before the others are."""
    if fusing():
        # XLA knows no control dependencies, and merges what is computed twice. It does not
        # take 0 x for 0, since x may be NaN.
        nothing = 0 * sum(tf.cast(tf.reduce_max(dense(other)), tf.float32) for other in others)
        return [tensor + tf.cast(nothing, tensor.dtype) for tensor in tensors]
    with tf.control_dependencies(others):
        return [tf.identity(tensor) for tensor in tensors]


def replicas():
    """The number of replicas whose losses add up."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def replica():
    """Which of the replicas this is."""
    context = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group


def accelerator():
    """What computes, where it is no CPU."""
    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        return {}
    details = tf.config.experimental.get_device_details(devices[0])
    exact = not tf.config.experimental.tensor_float_32_execution_enabled()
    return {
        "device": details.get("device_name", "GPU"),
        "products": "float32" if exact else "tensorfloat32",
    }


def is_sparse(tensor):
    """Whether a tensor keeps its zeros implicit."""
    return isinstance(tensor, tf.SparseTensor) or bool(getattr(tensor, "sparse", False))


def stand_in(tensor, samples=4):
    """Random numbers where a tensor has fractions, else zeros: valid indices of anything."""
    if tensor is None:
        return None
    numbers = tf.convert_to_tensor(numbers_like(tensor, samples))
    return tf.sparse.from_dense(numbers) if is_sparse(tensor) else numbers


def build_now(optimizer, variables):
    """Build the optimizer outside of the step that is being traced, if one is."""
    if tf.executing_eagerly() or tf.distribute.has_strategy():
        with now():
            optimizer.build(variables)
        return

    def build():
        with tf.device(variables[0].value.device):
            optimizer.build(variables)

    # A function is traced twice if variables are made in it, but not by what another thread makes.
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        threads.submit(build).result()


@contextlib.contextmanager
def creating_variables(model):
    """The scope in which weights of a built model are created: that of its strategy."""
    if tf.distribute.in_cross_replica_context():
        with model.distribute_strategy.scope():
            yield
    else:
        yield


def apply(optimizer, updates, variables):
    """One step of the optimizer, also where variables have values for a while."""
    if scopes.held() is not None:
        optimizer = _without_tf_variables(optimizer)
    # Nothing is counted where a label was refused.
    told = [update for update in updates if update is not None]
    with tf.control_dependencies([] if tf.executing_eagerly() else [tf.group(*told)]):
        optimizer.apply_gradients(zip(updates, variables))


def assign(pairs):
    """Give variables their values: over several replicas the means of theirs."""
    context = tf.distribute.get_replica_context()
    if not pairs or scopes.held() is not None or context is None or replicas() == 1:
        defaults.assign(pairs)
        return
    variables, values = zip(*pairs)

    def update(strategy, values):
        for variable, value in zip(variables, values):
            mean = strategy.extended.reduce_to(tf.distribute.ReduceOp.MEAN, value, variable.value)
            strategy.extended.update(variable.value, lambda v, new: v.assign(new), args=(mean,))

    context.merge_call(update, args=(values,))


def _without_tf_variables(optimizer):
    """A view of an optimizer that assigns to Keras's variables, as on other backends, not to TensorFlow's."""
    # Of Keras's optimizers the first base is the backend's, the second Keras's own.
    backends, general = keras.optimizers.Optimizer.__bases__
    shared = {name: getattr(general, name) for name in vars(backends) if hasattr(general, name)}
    methods = {name: method for name, method in shared.items() if callable(method) and name != "__init__"}
    # An optimizer's own, of these, stands.
    kind = type(optimizer)
    methods = {name: m for name, m in methods.items() if getattr(kind, name) is getattr(backends, name)}
    if hasattr(optimizer, "inner_optimizer") or "_backend_update_step" not in methods:
        raise ValueError(
            f"Under TensorFlow, Keras's {kind.__name__} has no form without variables. Compile with another "
            f"optimizer for a step that is a pure function. Received: {kind.__name__}"
        )
    view = object.__new__(type(kind.__name__, (kind,), methods))
    vars(view).update(vars(optimizer))
    indices = {id(v): n for n, v in enumerate(optimizer._trainable_variables)}
    vars(view)["_trainable_variables_indices"] = indices
    return view


def _spans_workers(strategy):
    """Whether a strategy's replicas are on several machines."""
    multi_worker = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return multi_worker and bool(strategy.cluster_resolver.cluster_spec().jobs)


def _reducible(logs):
    """The logs, as Keras reduces them over replicas: over several machines along an axis (#20585)."""
    if not _spans_workers(tf.distribute.get_strategy()):
        return logs
    return {name: tf.expand_dims(value, 0) for name, value in logs.items()}


class StepMixin(CompiledSteps):
    """The steps of Keras's TensorFlow trainer, with a learning rule's updates."""

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        strategy = self.distribute_strategy
        if isinstance(strategy, tf.distribute.experimental.ParameterServerStrategy):
            raise ValueError(
                "Keras 3 has no asynchronous training, so `fit` does not run on a "
                "ParameterServerStrategy. Use MultiWorkerMirroredStrategy. "
                f"Received: {type(strategy).__name__}"
            )
        return super().fit(*args, **kwargs)

    def train_step(self, data: Any) -> dict[str, Tensor]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._prepare(x)
        return self._run(self._learn, x, y, sample_weight)

    def test_step(self, data: Any) -> dict[str, Tensor]:
        return self._run(self._assess, *keras.utils.unpack_x_y_sample_weight(data))

    def _run(self, step, x, y, sample_weight):
        """The logs of a step: labels before what is compiled, metrics, which may call anything, after it."""
        y = self._check_labels(x, y)
        checked = [part for part in tf.nest.flatten(y, expand_composites=True) if part is not None]
        with tf.control_dependencies(checked):
            x = tf.nest.map_structure(
                lambda part: None if part is None else tf.identity(part), x, expand_composites=True
            )
        loss, outputs = self._compiled(step, x, y, sample_weight)
        # Nothing is counted before XLA has taken the step.
        with tf.control_dependencies([loss]):
            return _reducible(self._log(loss, outputs, x, y, sample_weight))

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras would average the first batch over all replicas, which several machines cannot do
        # (#20585); the local part of it has all that a build reads.
        if iterator is not None and _spans_workers(self.distribute_strategy):
            local = self.distribute_strategy.experimental_local_results
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(lambda v: local(v)[0], next(batches))
                break
            iterator = None
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)
