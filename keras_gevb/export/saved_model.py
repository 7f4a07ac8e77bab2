"""SavedModels that learn."""

from typing import Any

import tensorflow as tf

from keras_gevb.export.trainable import Trainable, guarded
from keras_gevb.types import Path


def to_trainable_saved_model(model: Any, filepath: Path, targets_spec: Any = None) -> None:
    """Write a SavedModel that learns by the model's rule, loss and optimizer, without Keras.

        train(x, y)                            one step: a dict of the loss and the metrics of this batch
        train_weighted(x, y, sample_weight)    the same, samples weighted
        evaluate(x, y)                         the loss and the metrics; nothing is learned
        serve(x)                               the logits
        get_state(), set_state(...)            weights and the optimizer's variables, by name

    Each is a method of what `tf.saved_model.load` returns, and a signature. The variables are its `state`, a
    dict, which `tf.train.Checkpoint` keeps, and `tf.saved_model.save` of what was loaded. A batch with a
    label outside of 0..K-1 returns NaN and changes nothing.

    Args:
        model: A model that is built and compiled, with any rule.
        filepath: The folder to write.
        targets_spec: A `keras.InputSpec` of a batch of targets, where the loss takes others than labels
            or one number for each output.

    Raises:
        ValueError: if the model is not built or not compiled, or TensorFlow does not run it.

    Example:

    >>> keras_gevb.export.to_trainable_saved_model(model, "learner")
    >>> learner = tf.saved_model.load("learner")  # in a process without Keras
    >>> logs = learner.train(x, y)
    """
    trainable = Trainable(model, targets_spec=targets_spec)
    trainer = Trainer(trainable, trainable.train)
    trainer.evaluate = trainer.function(trainable.evaluate, *trainable.inputs, trainable.targets)
    trainer.serve = trainer.function(trainable.infer, *trainable.inputs)
    names = "train", "train_weighted", "evaluate", "serve", "get_state", "set_state"
    trainer.save(filepath, names, serving_default=trainer.serve)


class Trainer(tf.Module):
    """A training step with its state in variables, and functions for signatures.

    Args:
        trainable: A `Trainable`.
        step: A function `(*x, y, sample_weight, values)` to logs and new values.
        most_axes: The number of axes that a variable can have; one with more is kept flat.
    """

    def __init__(self, trainable, step, most_axes=None):
        super().__init__()
        values = trainable.values
        self._shapes = {name: value.shape.as_list() for name, value in values.items()}
        flat = {name for name, value in values.items() if value.ndim > (most_axes or value.ndim)}
        self.state = {
            name: tf.Variable(tf.reshape(value, [-1]) if name in flat else value, name=name)
            for name, value in values.items()
        }

        def train_weighted(*batch):
            *batch, values = batch
            logs, after = guarded(
                lambda: step(*batch, values), trainable.are_valid(batch[-2]), unchanged=values
            )
            self._assign(after)
            return logs

        def train(*batch):
            *batch, values = batch
            return train_weighted(*batch, None, values)

        def set_state(*values):
            self._assign(dict(zip(self.state, values)))
            return {"variables": tf.constant(len(values))}

        batch = *trainable.inputs, trainable.targets
        self.train = self.function(train, *batch)
        self.train_weighted = self.function(train_weighted, *batch, trainable.sample_weight)
        self.get_state = tf.function(self._values, input_signature=[])
        specs = [tf.TensorSpec(value.shape, value.dtype, name) for name, value in values.items()]
        self.set_state = tf.function(set_state, input_signature=specs, autograph=False)

    def function(self, function, *specs):
        """A `tf.function` of tensors, by a function that takes the values of the state after them."""
        return tf.function(
            lambda *tensors: function(*tensors, self._values()), input_signature=specs, autograph=False
        )

    def save(self, folder, names, **signatures):
        """Write a SavedModel, its signatures the functions of these names and others."""
        signatures |= {name: getattr(self, name) for name in names}
        # The step has its derivatives in it.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(self, str(folder), signatures, options)

    def _values(self):
        return {name: _shaped(v.read_value(), self._shapes[name]) for name, v in self.state.items()}

    def _assign(self, values):
        for name, variable in self.state.items():
            variable.assign(_shaped(values[name], variable.shape))


def _shaped(value, shape):
    return value if value.shape == shape else tf.reshape(value, shape)
