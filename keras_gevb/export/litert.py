"""LiteRT models that learn."""

import pathlib
import re
import tempfile
from typing import Any

import tensorflow as tf

from keras_gevb.export.lowering import lowered
from keras_gevb.export.saved_model import Trainer
from keras_gevb.export.trainable import Trainable, refusal
from keras_gevb.types import Path

# Of the variables of XNNPACK, by which the interpreter runs what it can.
_MOST_AXES = 6


def to_trainable_litert(model: Any, filepath: Path, batch_size: int, targets_spec: Any = None) -> None:
    """Write a LiteRT model (.tflite) that learns, of built-in operations only.

        train(x, y)                            one step: "loss"
        train_weighted(x, y, sample_weight)    the same, samples weighted
        infer(x)                               "logits", of any number of samples
        get_state(), set_state(...)            weights and the optimizer's variables, by name

    Each is a signature. The state lives in the interpreter, and starts from its present values. A batch with
    a label outside of 0..K-1 returns NaN and changes nothing.

    Args:
        model: A model that is built and compiled; with a rule whose way back, if it has one, has operations
            in LiteRT.
        filepath: The file to write.
        batch_size: The number of samples in a step.
        targets_spec: A `keras.InputSpec` of a batch of targets, where the loss takes others than labels
            or one number for each output.

    Raises:
        ValueError: if the model is not built or not compiled; naming the operation and the layer that LiteRT
            does not have.

    Example:

    >>> keras_gevb.export.to_trainable_litert(model, "step.tflite", batch_size=32)
    >>> from ai_edge_litert.interpreter import Interpreter  # in a process without Keras and TensorFlow
    >>> interpreter = Interpreter("step.tflite")
    >>> train = interpreter.get_signature_runner("train")
    >>> loss = train(x=x[:32].astype("float32"), y=y[:32].astype("int32"))["loss"]
    """
    trainable = Trainable(model, batch_size, targets_spec)
    values = trainable.values
    batch = [*trainable.inputs, trainable.targets, trainable.sample_weight]
    state = [tf.TensorSpec(value.shape, value.dtype) for value in values.values()]

    def step(*tensors):
        (loss, _), after = trainable.learn(*tensors[: len(batch)], dict(zip(values, tensors[len(batch) :])))
        return {"loss": loss}, after

    plain = lowered(step, *batch, *state)

    def train(*batch):
        *batch, weight, values = batch
        weight = tf.ones(trainable.sample_weight.shape) if weight is None else weight
        return plain(*batch, weight, *values.values())

    trainer = Trainer(trainable, train, _MOST_AXES)
    any_number = [tf.TensorSpec((None, *spec.shape[1:]), spec.dtype, spec.name) for spec in trainable.inputs]
    trainer.infer = trainer.function(lambda *x: {"logits": trainable.infer(*x)}, *any_number)
    names = ["train", "train_weighted", "infer", "get_state", "set_state"]
    with tempfile.TemporaryDirectory() as folder:
        trainer.save(folder, names)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=names)
        converter.experimental_enable_resource_variables = True
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            written = converter.convert()
        except Exception as error:
            said = str(error)
            unknown = re.findall(r"'tf\.(\w+)' op is neither", said) or re.findall(r'fused\["(\w+):"', said)
            operations = {op.name: op.type for op in plain.graph.get_operations() if op.type in unknown}
            if not operations:
                raise
            raise refusal(model, "LiteRT", operations) from None
    pathlib.Path(filepath).write_bytes(written)
