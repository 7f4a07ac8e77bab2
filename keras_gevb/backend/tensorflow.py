"""TensorFlow: gradient tapes, and XLA around everything that it makes faster."""

import contextlib
import threading

import keras
import tensorflow as tf

_scope = threading.local()


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
    return getattr(_scope, "fusing", False)


@contextlib.contextmanager
def _fused(everything):
    """Let XLA compile the operations traced here; on request also the convolutions.

    Measured on CPU: oneDNN's convolutions are faster than XLA's, and XLA's elementwise
    passes, contractions and optimizer updates are faster than TensorFlow's.
    """
    if tf.executing_eagerly():
        yield
        return
    compiles = True if everything else lambda node: not node.op.startswith("Conv")
    before, _scope.fusing = fusing(), True
    try:
        with tf.xla.experimental.jit_scope(compile_ops=compiles):
            yield
    finally:
        _scope.fusing = before


class StepMixin:
    """The steps of Keras's TensorFlow trainer, with a learning rule's updates."""

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y = self._check_targets(y)
        with _fused(self._compiles_everything):
            loss, y_pred, updates = self._learn(x, y, sample_weight, self.learning_rule)
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            samples = tf.shape(keras.tree.flatten(x)[0])[0]
            self._loss_tracker.update_state(loss * replicas, sample_weight=samples)
            self.optimizer.apply(updates, self.trainable_variables)
            return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def test_step(self, data):
        with _fused(self._compiles_everything):
            return super().test_step(data)

    def make_train_function(self, force=False):
        with self._compiled_inside():
            return super().make_train_function(force)

    def make_test_function(self, force=False):
        with self._compiled_inside():
            return super().make_test_function(force)

    @contextlib.contextmanager
    def _compiled_inside(self):
        # XLA drops assertions, so the label check must stay outside of what it compiles:
        # the step opens the compiled part itself, and Keras compiles nothing around it.
        self._compiles_everything = self.jit_compile
        self.jit_compile = False
        try:
            yield
        finally:
            self.jit_compile = self._compiles_everything
