"""A model's training step as a function of tensors that have names, and that state back in a model."""

import collections.abc
import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_gevb import private, scopes, targets
from keras_gevb.export.serving import check_built, ends
from keras_gevb.step import forward


class Trainable:
    """The training step of a compiled model as a pure function, in TensorFlow.

    Args:
        model: A model that is built and compiled.
        batch_size: The number of samples in a step, or None for any.
        targets_spec: A `keras.InputSpec` of a batch of targets, where a loss takes others than labels or
            one number for each output.

    Attributes:
        variables: A dict from names to what a step reads and changes: weights, the rule's own, seeds, and
            what the optimizer keeps. Names do not depend on those of the model and of the optimizer.
        inputs, targets, sample_weight: What a batch is: a list of `tf.TensorSpec`, and one of each.

    Raises:
        ValueError: if the model is not built or not compiled, or TensorFlow does not run it.
    """

    def __init__(self, model, batch_size=None, targets_spec=None):
        check_built(model)
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "Training steps are exported by TensorFlow. Save the model, and load and export it with "
                f"KERAS_BACKEND=tensorflow. Received: backend {keras.backend.backend()!r}"
            )
        self.model = model
        model.training_state()
        if getattr(model.optimizer, "gradient_accumulation_steps", None):
            raise ValueError(
                "An optimizer that accumulates updates has no step that is a pure function. Export with "
                "larger batches. Received: gradient_accumulation_steps="
                f"{model.optimizer.gradient_accumulation_steps}"
            )
        if getattr(model.optimizer, "ema_overwrite_frequency", None):
            raise ValueError(
                "An optimizer that overwrites weights by their averages every so many steps is not exported. "
                "Leave ema_overwrite_frequency out: the averages are in the state. Received: "
                f"ema_overwrite_frequency={model.optimizer.ema_overwrite_frequency}"
            )
        self.variables = named_variables(model)
        inputs, outputs = ends(model)
        model._prepare(inputs)
        self._structure = inputs
        flat = keras.tree.flatten(inputs)
        names = ["x"] if len(flat) == 1 else [tensor.name for tensor in flat]
        self.inputs = [_spec(tensor, batch_size, name) for tensor, name in zip(flat, names)]
        outputs = keras.tree.flatten(outputs)
        if len(outputs) != 1:
            raise ValueError(
                "The step of a model with one output is exported. Export one model for each output. "
                f"Received: model '{model.name}' with {len(outputs)} outputs."
            )
        (self.outputs,) = outputs
        losses = keras.tree.flatten(model.loss)
        if targets_spec is not None:
            self.targets = _spec(targets_spec, batch_size, "y")
        elif len(losses) == 1 and targets.takes_labels(losses[0]):
            self.targets = tf.TensorSpec((batch_size, *self.outputs.shape[1:-1]), tf.int32, "y")
        else:
            self.targets = tf.TensorSpec((batch_size, *self.outputs.shape[1:]), tf.float32, "y")
        # One for each position, such as a time step, that has outputs.
        weighed = batch_size, *self.outputs.shape[1:-1]
        self.sample_weight = tf.TensorSpec(weighed, tf.float32, "sample_weight")
        self._metrics = self._fresh_metrics()

    @property
    def values(self):
        """The present values of the variables, a dict."""
        return {name: tf.convert_to_tensor(v.value) for name, v in self.variables.items()}

    def learn(self, *batch):
        """Loss, outputs before the step, and values after it: of `(*x, y, sample_weight, values)`."""
        *x, y, sample_weight, values = batch
        (loss, outputs), after = self._run(lambda x: self.model._learn(x, y, sample_weight), x, values)
        return (loss, *keras.tree.flatten(outputs)), after

    def train(self, *batch):
        """The logs of one step, of this batch alone, and the values after it."""
        *x, y, sample_weight, values = batch

        def learn(x):
            return self.model._log(*self.model._learn(x, y, sample_weight), x, y, sample_weight)

        return self._run(learn, x, values)

    def evaluate(self, *batch):
        """The logs of a batch, without learning: of `(*x, y, values)`."""
        *x, y, values = batch

        def assess(x):
            return self.model._log(*self.model._assess(x, y, None), x, y, None)

        return self._run(assess, x, values)[0]

    def infer(self, *batch):
        """The model's outputs: of `(*x, values)`."""
        *x, values = batch
        return self._run(lambda x: keras.tree.flatten(forward(self.model, x, False))[0], x, values)[0]

    def are_valid(self, y):
        """Whether all of a batch's labels are classes of the model."""
        found = targets.labels(self.model, y, self.outputs.shape[-1])
        valid = [targets.valid_labels(y, classes, loss) for _, _, classes, loss in found]
        return ops.all(valid[0]) if valid else tf.constant(True)

    def _fresh_metrics(self):
        """The values of the metrics' variables before anything is counted."""
        model = self.model
        before = {id(v): ops.copy(v.value) for v in model.metrics_variables}
        x, y, outputs = (
            [tf.zeros([2, *part.shape[1:]], part.dtype) for part in parts]
            for parts in (self.inputs, [self.targets], [self.outputs])
        )
        # Metrics have their variables once they are called.
        model.compute_metrics(keras.tree.pack_sequence_as(self._structure, x), y[0], outputs[0])
        with scopes.holding([(v, v.value) for v in model.metrics_variables]):
            for metric in model.metrics:
                metric.reset_state()
            fresh = [v.value for v in model.metrics_variables]
        for variable, value in zip(model.metrics_variables, fresh):
            variable.assign(before.get(id(variable), value))
        return fresh

    def _run(self, function, x, values):
        x = keras.tree.pack_sequence_as(self._structure, x)
        parts = self.model._state_variables()
        by_variable = {id(v): values[name] for name, v in self.variables.items()}
        state = [[by_variable[id(v)] for v in part] for part in parts[:3]]
        result, state = self.model._with_state([*state, self._metrics], lambda: function(x))
        after = {id(v): value for part, new in zip(parts, state) for v, value in zip(part, new)}
        return result, {name: after[id(v)] for name, v in self.variables.items()}


def guarded(step, valid, unchanged):
    """What a step returns where its labels are valid; else NaN, and the values as they were.

    Args:
        step: A function to a structure of tensors of fractions and a dict of values.
        valid: Whether all labels are valid, a tensor.
        unchanged: The dict of values.
    """
    shapes = tf.function(step, autograph=False).get_concrete_function().structured_outputs

    def refused():
        logs = tf.nest.map_structure(
            lambda spec: tf.fill(spec.shape, tf.cast(float("nan"), spec.dtype)), shapes[0]
        )
        return logs, {name: tf.identity(value) for name, value in unchanged.items()}

    return tf.cond(valid, step, refused)


def refusal(model, runtime, operations):
    """The error that names operations that a runtime does not have, and the layers that use them.

    Args:
        model: A model.
        runtime: The name of the format.
        operations: A dict from the names of operations of the traced step to their types.
    """
    layers = [layer.name for layer in private.flat_layers(model)]
    # A scope that is entered again has a number after the layer's name.
    users = {
        name
        for operation in operations
        for name in layers
        if re.search(rf"/{re.escape(name)}(_\d+)?/", f"/{operation}")
    }
    return ValueError(
        f"{runtime} has no operation for what the training step of model '{model.name}' does. Use "
        "to_trainable_saved_model, which has them all; or a local learning rule (GEVB, DFA), or other "
        f"layers, another loss or optimizer. Received: {sorted({*operations.values()})}"
        + (f" in {sorted(users)}." if users else ".")
    )


def load_state(model: Any, state: Any) -> None:
    """Give a model the state that an exported step reached.

    Args:
        model: The model that was exported, or one loaded from its file: built and compiled with the same
            optimizer.
        state: A dict from names to arrays: what `get_state` returned, or the newest outputs of the ONNX
            graph. The suffix "_new" of names is taken off.

    Raises:
        ValueError: if the state is that of another model, naming what is missing, unknown or of
            another shape.

    Example:

    >>> keras_gevb.export.to_trainable_litert(model, "step.tflite", batch_size=32)
    >>> from ai_edge_litert.interpreter import Interpreter
    >>> interpreter = Interpreter("step.tflite")
    >>> state = interpreter.get_signature_runner("get_state")()
    >>> keras_gevb.export.load_state(model, state)
    """
    if not isinstance(state, collections.abc.Mapping):
        raise ValueError(
            f"`state` is a dict from names to arrays, as get_state returns it. Received: {state!r}"
        )
    model.training_state()
    variables = named_variables(model)
    state = {name if name in variables else name.removesuffix("_new"): value for name, value in state.items()}
    missing, unknown = sorted({*variables} - {*state}), sorted({*state} - {*variables})
    shapes = [
        f"{name}: {np.shape(state[name])} for {tuple(v.shape)}"
        for name, v in variables.items()
        if name in state and np.shape(state[name]) != tuple(v.shape)
    ]
    if missing or unknown or shapes:
        raise ValueError(
            f"This is not the state of model '{model.name}' with its optimizer. Load the model that was "
            f"exported. Received: missing {missing}, unknown {unknown}, of another shape {shapes}."
        )
    for name, variable in variables.items():
        variable.assign(np.asarray(state[name]))


def named_variables(model):
    """A dict from names, which are identifiers, to a model's weights and its optimizer's variables."""
    *weights, optimizer, _ = model._state_variables()
    prefix = f"{model.name}_".replace("/", "_")
    named = [(v.path.removeprefix(f"{model.name}/"), v) for part in weights for v in part]
    named += [("optimizer/" + v.path.split("/", 1)[-1].removeprefix(prefix), v) for v in optimizer]
    variables = {}
    for path, variable in named:
        # Keras numbers generators of random numbers as it makes them.
        path = re.sub(r"seed_generator_\d+", "seed_generator", path)
        name = first = re.sub(r"\W", "_", path)
        count = 0
        while name in variables:
            count += 1
            name = f"{first}_{count}"
        variables[name] = variable
    return variables


def _spec(tensor, batch_size, name):
    return tf.TensorSpec((batch_size, *tensor.shape[1:]), tensor.dtype, name)
