"""ONNX graphs of one training step."""

import numpy as np
import tensorflow as tf

from keras_gevb.export.lowering import lowered
from keras_gevb.export.trainable import Trainable, refusal


def to_trainable_onnx(model, filepath, batch_size, targets_spec=None, defaults=True):
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
    >>> session = onnxruntime.InferenceSession("step.onnx")
    >>> batch = {"x": x[:32].astype("float32"), "y": y[:32].astype("int32")}
    >>> loss, logits, *state = session.run(None, batch)
    """
    import onnx
    from onnx import helper, numpy_helper

    from keras_gevb.export.operations import OPSET, Converter, UnknownOperation

    trainable = Trainable(model, batch_size, targets_spec)
    values = {name: value.numpy() for name, value in trainable.values.items()}
    batch = [*trainable.inputs, trainable.targets, trainable.sample_weight]
    state = [tf.TensorSpec(value.shape, value.dtype, name) for name, value in values.items()]
    specs = [*batch, *state]
    inputs = [spec.name for spec in specs]
    outputs = ["loss", "logits", *(f"{name}_new" for name in values)]

    def step(*tensors):
        logs, after = trainable.learn(*tensors[: len(batch)], dict(zip(values, tensors[len(batch) :])))
        return *logs, *after.values()

    def convert(function, specs, ends):
        """Nodes and constants of a function, whose outputs have these names."""
        converter = Converter(prefix=f"{ends[0]}.")
        concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
        found = converter.convert(concrete, [spec.name for spec in specs])
        converter.name(dict(zip(ends, found, strict=True)))
        return converter, concrete

    try:
        converter, concrete = convert(lowered(step, *specs), specs, outputs)
        valid, _ = convert(trainable.are_valid, [trainable.targets], ["valid"])
    except UnknownOperation as error:
        raise refusal(model, "ONNX", error.operations) from None

    def info(spec, name):
        return helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype.as_numpy_dtype)), spec.shape.as_list()
        )

    ends = [info(tensor, name) for tensor, name in zip(concrete.outputs, outputs)]
    refused = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(_nan(tensor)))
        for tensor, name in zip(concrete.outputs[:2], outputs)
    ]
    refused += [helper.make_node("Identity", [name], [f"{name}_new"]) for name in values]
    branches = {
        "then_branch": helper.make_graph(converter.nodes, "step", [], ends, converter.constants),
        "else_branch": helper.make_graph(refused, "refused", [], ends),
    }
    graph = helper.make_graph(
        [*valid.nodes, helper.make_node("If", ["valid"], outputs, **branches)],
        str(model.name),
        [info(spec, name) for spec, name in zip(specs, inputs)],
        ends,
        [
            *valid.constants,
            *(numpy_helper.from_array(value, name) for name, value in values.items() if defaults),
            *([numpy_helper.from_array(np.ones(batch_size, "float32"), "sample_weight")] if defaults else []),
        ],
    )
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="keras_gevb"
    )
    onnx.checker.check_model(proto)
    onnx.save(proto, str(filepath))


def _nan(tensor):
    return np.full(tensor.shape.as_list(), np.nan, tensor.dtype.as_numpy_dtype)
