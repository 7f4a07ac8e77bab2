"""ONNX graphs of one training step."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_gevb import private
from keras_gevb.export.lowering import lowered
from keras_gevb.export.rows import in_rows
from keras_gevb.export.spans import in_spans
from keras_gevb.export.trainable import Trainable, refusal
from keras_gevb.types import Path

OPSET = 18


def to_trainable_onnx(
    model: Any, filepath: Path, batch_size: int, targets_spec: Any = None, defaults: bool = True
) -> None:
    """Write one training step as an ordinary ONNX graph, which any runtime for inference runs.

        inputs   x, y, sample_weight (1 unless given), and each tensor of the state, NAME
        outputs  loss, logits (before the step), and the state after the step, NAME_new

    The state is weights and the optimizer's variables; its present values are the inputs' defaults, so the
    file alone is the model. Hand each NAME_new to the next step as NAME. With a label outside of 0..K-1 the
    loss and the logits are NaN, and the state is the same.

    Args:
        model: A model that is built and compiled; with a rule whose way back, if it has one, has operations
            in ONNX.
        filepath: The file to write.
        batch_size: The number of samples in a step.
        targets_spec: A `keras.InputSpec` of a batch of targets, where the loss takes others than labels
            or one number for each output.
        defaults: Whether the file has the values of the state. `onnxruntime-web` takes no values for inputs
            that have a default; `get_state` has them.

    Raises:
        ValueError: if the model is not built or not compiled; naming the operation and the layer that ONNX
            does not have.

    Example:

    >>> keras_gevb.export.to_trainable_onnx(model, "step.onnx", batch_size=32)
    >>> import onnxruntime  # in a process without Keras and TensorFlow
    >>> options = onnxruntime.SessionOptions()
    >>> options.log_severity_level = 3  # not a warning for each state's default
    >>> session = onnxruntime.InferenceSession("step.onnx", options)
    >>> batch = {"x": x[:32].astype("float32"), "y": y[:32].astype("int32")}
    >>> loss, logits, *state = session.run(None, batch)
    """
    import onnx
    from onnx import compose, helper, numpy_helper

    trainable = Trainable(model, batch_size, targets_spec)
    values = {name: value.numpy() for name, value in trainable.values.items()}
    batch = [*trainable.inputs, trainable.targets, trainable.sample_weight]
    specs = [*batch, *(tf.TensorSpec(value.shape, value.dtype, name) for name, value in values.items())]
    new = {name: f"{name}_new" for name in values}

    def learn(*tensors):
        (loss, logits), after = trainable.learn(
            *tensors[: len(batch)], dict(zip(values, tensors[len(batch) :]))
        )
        return {"loss": loss, "logits": logits, **{new[name]: value for name, value in after.items()}}

    step = _converted(lowered(learn, *specs), specs)
    unknown = {node.name: node.op_type for node in step.node if not onnx.defs.has(node.op_type)}
    if unknown:
        raise refusal(model, "ONNX", unknown)
    described = {output.name: output for output in step.output}
    outputs = [described[name] for name in ("loss", "logits", *new.values())]
    nodes, constants = in_rows(in_spans(step, OPSET), OPSET), step.initializer
    valid = _converted(lambda y: {"valid": trainable.are_valid(y)}, [trainable.targets])
    if valid.node:  # else any targets are
        valid = compose.add_prefix_graph(valid, "labels/", rename_inputs=False, rename_outputs=False)
        refused = [
            *(helper.make_node("Constant", [], [o.name], value=_nan(o)) for o in outputs[:2]),
            *(helper.make_node("Identity", [before], [after]) for before, after in new.items()),
        ]
        branches = {
            "then_branch": helper.make_graph(nodes, "step", [], outputs, constants),
            "else_branch": helper.make_graph(refused, "refused", [], outputs),
        }
        ends = [output.name for output in outputs]
        nodes = [*valid.node, helper.make_node("If", ["valid"], ends, **branches)]
        constants = valid.initializer
    if defaults:
        values["sample_weight"] = np.ones(trainable.sample_weight.shape, "float32")
        constants = [*constants, *(numpy_helper.from_array(value, name) for name, value in values.items())]
    graph = helper.make_graph(nodes, model.name, step.input, outputs, constants)
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="keras_gevb"
    )
    try:
        onnx.checker.check_model(proto, full_check=True)
    except onnx.shape_inference.InferenceError as error:
        policies = sorted({layer.dtype_policy.name for layer in private.flat_layers(model)})
        raise ValueError(
            "ONNX has not all operations of this step in all formats. Export a model of float32 or "
            f"mixed_float16. Received: layers of {', '.join(policies)} ({error})"
        ) from error
    onnx.save(proto, str(filepath))


def _converted(function, specs):
    """The ONNX graph of a function of tensors to a dict, whose keys are the names of its outputs."""
    import tf2onnx

    function = tf.function(function, autograph=False)
    settings = {"opset": OPSET, "custom_op_handlers": dict.fromkeys(("Select", "SelectV2"), (_where, []))}
    return tf2onnx.convert.from_function(function, input_signature=specs, **settings)[0].graph


def _where(graph, node, name, args):
    """A choice as one: tf2onnx multiplies by 0 and 1, which is NaN where what is not chosen is infinite."""
    node.type = "Where"


def _nan(described):
    from onnx import helper, numpy_helper

    tensor = described.type.tensor_type
    shape = [axis.dim_value for axis in tensor.shape.dim]
    return numpy_helper.from_array(np.full(shape, np.nan, helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
