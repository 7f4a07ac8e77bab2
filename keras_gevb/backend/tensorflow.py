"""TensorFlow: gradient tapes, and XLA around everything that it makes faster."""

import contextlib
import threading

import keras
import tensorflow as tf

_scope = threading.local()

# Layers that are faster in parts, and operations outside of the parts: theirs, which are faster there,
# and what reads or writes variables. One that is read inside of a part and written in another may be
# written first. The call is that of the optimizer (`as_one`).
_IN_PARTS = "Conv", "LocallyConnected"
_OUTSIDE = "Conv", "BatchMatMul", "ReadVariable", "Assign", "StatefulPartitionedCall"


def vjp(function, primals, cotangent):
    """The vector-Jacobian product of `function(*primals)` with `cotangent`, a list."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(primals)
        outputs = function(*primals)
    return tape.gradient(outputs, primals, output_gradients=cotangent)


def loss_gradients(scaled_loss, logits, variables):
    """The loss, its gradient in the logits, and in the variables that it reads itself.

    Args:
        scaled_loss: A function of the logits that returns the loss to differentiate
            and the loss to report.
        logits: The model's outputs.
        variables: A list of variables.

    Returns:
        The loss to report, dLoss/dLogits, and a list with a gradient for each variable:
        None where the loss does not read it (only regularizers do).
    """
    with tf.GradientTape() as tape:
        tape.watch(logits)
        scaled, loss = scaled_loss(logits)
    error, *gradients = tape.gradient(scaled, [logits, *variables])
    return loss, error, gradients


def check_labels(labels, valid, message):
    """The labels, behind an assertion that all are valid; `message` takes the first bad one."""
    first_bad = tf.boolean_mask(labels, ~valid)[:1]
    assertion = tf.debugging.Assert(tf.reduce_all(valid), [message, first_bad])
    with tf.control_dependencies([assertion] if assertion is not None else []):
        return tf.identity(labels)


def fusing():
    """Whether XLA compiles what is traced now, so that elementwise operations fuse."""
    return getattr(_scope, "compiles", False)


def uncompiled():
    """A scope whose operations XLA does not fuse with others, where the step is compiled in parts."""
    return tf.xla.experimental.jit_scope(False) if fusing() else contextlib.nullcontext()


def as_one(function):
    """The function, compiled as a whole where XLA compiles, on one device: so it updates in place."""
    if not fusing() or tf.distribute.has_strategy():
        return function
    return tf.function(function, jit_compile=True, autograph=False)


def add_up(terms):
    """The sum of tensors of one shape, in one pass over memory where XLA compiles it."""
    # The graph optimizer gathers sums into operations outside of what XLA compiles; differences
    # it leaves alone.
    negative = -terms[0]
    for term in terms[1:]:
        negative = negative - term
    return -negative


def after(tensors, others):
    """The tensors, none of which is computed before the others are."""
    if fusing():
        # XLA knows no control dependencies, and merges what is computed twice. It does not
        # take 0 x for 0, since x may be NaN.
        nothing = 0 * sum(tf.cast(tf.reduce_max(other), tf.float32) for other in others)
        return [tensor + tf.cast(nothing, tensor.dtype) for tensor in tensors]
    with tf.control_dependencies(others):
        return [tf.identity(tensor) for tensor in tensors]


def replicas():
    """The number of replicas whose losses add up."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def accelerator():
    """The "device" that computes and the format of its "products" of float32; empty on a CPU."""
    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        return {}
    details = tf.config.experimental.get_device_details(devices[0])
    exact = not tf.config.experimental.tensor_float_32_execution_enabled()
    return {
        "device": details.get("device_name", "GPU"),
        "products": "float32" if exact else "tensorfloat32",
    }


@contextlib.contextmanager
def _compiling():
    """The scope of what XLA compiles."""
    before, _scope.compiles = fusing(), True
    try:
        yield
    finally:
        _scope.compiles = before


def _spans_workers(strategy):
    """Whether a strategy's replicas are on several machines."""
    multi_worker = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return multi_worker and bool(strategy.cluster_resolver.cluster_spec().jobs)


def _reducible(logs):
    """The logs, as Keras reduces them over replicas: over several machines along an axis (#20585)."""
    if not _spans_workers(tf.distribute.get_strategy()):
        return logs
    return {name: tf.expand_dims(value, 0) for name, value in logs.items()}


class StepMixin:
    """The steps of Keras's TensorFlow trainer, with a learning rule's updates.

    `jit_compile` means: True, XLA compiles the whole step; False, nothing; "auto", what was
    measured to be fastest on CPU. XLA is faster at elementwise passes, contractions and
    optimizer updates, and only what it compiles as a whole updates the weights in place;
    but oneDNN is faster at convolutions and at batches of matrix products, so a network of
    convolutional or locally connected layers is compiled in parts, the optimizer as one.
    """

    def fit(self, *args, **kwargs):
        strategy = self.distribute_strategy
        if isinstance(strategy, tf.distribute.experimental.ParameterServerStrategy):
            raise ValueError(
                "Keras 3 has no asynchronous training, so `fit` does not run on a "
                "ParameterServerStrategy. Use MultiWorkerMirroredStrategy. "
                f"Received: {type(strategy).__name__}"
            )
        return super().fit(*args, **kwargs)

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y = self._check_targets(y)
        return _reducible(self._compiled(self._train_on)(x, y, sample_weight))

    def test_step(self, data):
        return _reducible(self._compiled(super().test_step)(data))

    def _compiled(self, step):
        """The step, with as much of it compiled as `jit_compile` says."""
        if tf.executing_eagerly() or self._jit is False:
            return step
        names = [type(layer).__name__ for layer in self._flatten_layers()]
        spatial = any(part in name for name in names for part in _IN_PARTS)
        if tf.distribute.has_strategy() or (self._jit is None and spatial):

            def in_parts(*args):
                clusters = tf.xla.experimental.jit_scope(lambda node: not node.op.startswith(_OUTSIDE))
                with _compiling(), clusters:
                    return step(*args)

            return in_parts

        def whole(*args):
            with _compiling():
                return step(*args)

        return tf.function(whole, jit_compile=True, autograph=False)

    def _resolve_auto_jit_compile(self):
        # Not resolved to True or False: so a saved model is compiled as fits where it is loaded.
        return super()._resolve_auto_jit_compile() or None

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

    def make_train_function(self, force=False):
        with self._compiled_inside():
            return super().make_train_function(force)

    def make_test_function(self, force=False):
        with self._compiled_inside():
            return super().make_test_function(force)

    @contextlib.contextmanager
    def _compiled_inside(self):
        # XLA drops assertions, so the label check must stay outside of what it compiles:
        # the step compiles what follows the check, and Keras compiles nothing around it.
        self._jit, self.jit_compile = self.jit_compile, False
        try:
            yield
        finally:
            self.jit_compile = self._jit
