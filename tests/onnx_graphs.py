"""ONNX graphs of few operations, and what they compute."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from keras_gevb.export.onnx import OPSET


def graph(given, nodes, outputs):
    """A graph of operations `(kind, inputs, output)` or `(kind, inputs, output, attributes)`.

    Given are inputs' shapes, by name, and outputs likewise.
    """
    made = [
        helper.make_node(kind, list(read), [name], **(attributes[0] if attributes else {}))
        for kind, read, name, *attributes in nodes
    ]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in names.items()]
        for names in (given, outputs)
    ]
    return helper.make_graph(made, "graph", *ends)


def run(graph, nodes):
    """The outputs of the graph with other nodes, on numbers that are always the same."""
    copy = helper.make_graph(nodes, "graph", graph.input, graph.output, graph.initializer)
    proto = helper.make_model(copy, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    rng = np.random.default_rng(0)
    shapes = {i.name: [axis.dim_value for axis in i.type.tensor_type.shape.dim] for i in graph.input}
    arrays = {name: rng.uniform(0.5, 2, shape).astype("float32") for name, shape in shapes.items()}
    return onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, arrays)


def assert_same(graph, nodes):
    """To the last bit."""
    for found, expected in zip(run(graph, nodes), run(graph, graph.node), strict=True):
        np.testing.assert_array_equal(found, expected)
