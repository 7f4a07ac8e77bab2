"""ONNX graphs whose broadcasts run over long spans of numbers.

Runtimes broadcast in spans: the last axes together, as far as each operand has all of them or one number for
all. A short last axis makes many short spans, which take longer than their arithmetic.
"""

import collections
import math

from keras_gevb.export.rows import ELEMENTWISE, like, read, tensors_of


def in_spans(graph, opset):
    """A graph that computes the same in longer spans.

        one number and a tensor `(..., 1)`    the number has as many axes, so that all axes are one span
        transposed outer products             `(batch, n, 1)` times `(batch, 1, K)`, as `(n * K, batch)`: made
                                              so, of transposed factors, in spans of a batch in place of K

    Args:
        graph: An ONNX graph.
        opset: The version of its operations.

    Returns:
        The graph.
    """
    from onnx import helper

    tensors = tensors_of(graph, opset)
    makers = {node.output[0]: node for node in graph.node}
    readers = collections.Counter(name for node in graph.node for name in read(node))
    readers.update(output.name for output in graph.output)
    instead = {}  # of nodes, by the names of their outputs
    for node in graph.node:
        if _is_in_short_spans(node, tensors):
            instead[node.output[0]] = _with_as_many_axes(node, tensors)
        merged = _maker(node, "Transpose", makers)
        product = merged and _maker(merged, "Reshape", makers)
        if product and _is_transposed_product(product, merged, node, tensors):
            between = product.output[0], merged.output[0]
            if all(readers[name] == 1 for name in between):
                instead |= {name: [] for name in between}
                instead[node.output[0]] = _turned(product, node, tensors)
    nodes = [made for node in graph.node for made in instead.get(node.output[0], [node])]
    ends = graph.input, graph.output, graph.initializer
    return helper.make_graph(nodes, graph.name, *ends, value_info=graph.value_info)


def _maker(node, kind, makers):
    """What makes the input of an operation, where it is of the kind."""
    return makers.get(node.input[0]) if node.op_type == kind else None


def _is_in_short_spans(node, tensors):
    shapes = [tensors[name][1] for name in (*node.output, *node.input) if name in tensors]
    if node.op_type not in ELEMENTWISE or len(shapes) != 3:
        return False
    return () in shapes and len(shapes[0]) > 1 and shapes[0][-1] == 1


def _with_as_many_axes(node, tensors):
    shape = tensors[node.output[0]][1]
    number = next(name for name in node.input if tensors[name][1] == ())
    name = f"{node.output[0]}/number"
    inputs = [name if given == number else given for given in node.input]
    return [*_reshaped(number, name, (1,) * len(shape)), like(node, inputs, node.output)]


def _is_transposed_product(product, merged, node, tensors):
    shape, flat = (tensors[made.output[0]][1] for made in (product, merged))
    factors = [tensors[name][1] for name in product.input if name in tensors]
    if product.op_type not in ELEMENTWISE or {len(factor) for factor in factors} != {len(shape)}:
        return False
    swapped = [[*attribute.ints] for attribute in node.attribute] == [[1, 0]]
    small = sum(map(math.prod, factors)) < math.prod(shape) and shape[-1] < shape[0]
    return swapped and small and flat == (shape[0], math.prod(shape[1:]))


def _turned(product, node, tensors):
    """A product whose first axis is behind the others, of factors likewise."""
    end = node.output[0]
    factors = {name: f"{end}/factor_{place}" for place, name in enumerate(product.input)}
    made = [part for name, factor in factors.items() for part in _behind(name, factor, tensors[name][1])]
    whole = like(product, [factors[name] for name in product.input], [f"{end}/product"])
    return [*made, whole, *_reshaped(f"{end}/product", end, tensors[end][1])]


def _behind(name, turned, shape):
    """The first axis behind the others: flat, for runtimes move other transposes behind what reads them."""
    from onnx import helper

    batch, *rest = shape
    return [
        *_reshaped(name, f"{turned}/flat", (batch, math.prod(rest))),
        helper.make_node("Transpose", [f"{turned}/flat"], [f"{turned}/swapped"], perm=[1, 0]),
        *_reshaped(f"{turned}/swapped", turned, (*rest, batch)),
    ]


def _reshaped(name, output, shape):
    from onnx import TensorProto, helper

    axes = helper.make_tensor("", TensorProto.INT64, [len(shape)], shape)
    return [
        helper.make_node("Constant", [], [f"{output}/shape"], value=axes),
        helper.make_node("Reshape", [name, f"{output}/shape"], [output]),
    ]
