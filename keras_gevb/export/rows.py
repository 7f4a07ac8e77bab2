"""ONNX graphs whose operations on the elements of large tensors run row by row, in the processor's cache."""

import graphlib
import heapq
import math

LARGE, ROW = 2**20, 2**12  # elements of a tensor, and of its rows, from which a loop over rows is quicker
ELEMENTWISE = (
    {"Add", "Div", "Max", "Min", "Mul", "Pow", "Sub", "Sum", "Where"}
    | {"And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or"}
    | {"Abs", "Ceil", "Erf", "Exp", "Floor", "Log", "Neg", "Reciprocal", "Round", "Sign", "Sqrt"}
    | {"Cast", "Identity", "Relu", "Sigmoid", "Softplus", "Tanh"}
)


def in_rows(graph, opset):
    """The nodes of a graph, with one loop in place of each group of elementwise ones.

    Runtimes run operations one by one, and each of an optimizer's dozen reads and writes memory. A group has
    operations on large tensors of one shape that hand them to one another. In a loop over their first axis,
    a row that one makes is still in the cache when the next reads it.

    Args:
        graph: An ONNX graph, whose nodes stand in an order in which they can run.
        opset: The version of its operations.

    Returns:
        A list of nodes, in such an order, which compute the same.
    """
    tensors = tensors_of(graph, opset)
    makers, groups, depths = {}, {}, {}  # by outputs' names
    for node in graph.node:
        key = node.output[0]
        shape = _looped(node, tensors)
        before = [makers[name] for name in read(node) if name in makers]
        # A path that leaves a group comes back deeper, so that no group waits for what it makes.
        depths[key] = max((depths[b] + (b in groups and not shape) for b in before), default=0)
        makers.update(dict.fromkeys(node.output, key))
        if shape:
            group = [node]
            for b in before:
                alike = b in groups and tensors[b][1] == shape and depths[b] == depths[key]
                if alike and groups[b] is not group:
                    group = groups[b] + group
                    groups.update({member.output[0]: group for member in group})
            groups[key] = group
    loops = {id(g): _loop(g, graph, tensors) for g in groups.values() if len(g) > 1}
    found = {id(node): node for node in (loops.get(id(groups.get(n.output[0])), n) for n in graph.node)}
    return _ordered([*found.values()])


def tensors_of(graph, opset):
    """The type and the shape of each tensor, by its name."""
    from onnx import helper, shape_inference

    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    graph = shape_inference.infer_shapes(model).graph
    tensors = {value.name: (value.data_type, tuple(value.dims)) for value in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            tensors[value.name] = kind.elem_type, tuple(axis.dim_value for axis in kind.shape.dim)
    return tensors


def _looped(node, tensors):
    """The shape that an operation's rows are of, or None; what has fewer axes is read whole for each row."""
    shapes = [tensors[name][1] if name in tensors else None for name in (*node.output, *node.input)]
    shape = shapes[0]
    large = shape and math.prod(shape) >= LARGE and math.prod(shape[1:]) >= ROW
    if node.op_type not in ELEMENTWISE or not large or None in shapes or shape not in shapes[1:]:
        return None
    return shape if all(s == shape or len(s) < len(shape) for s in shapes) else None


def _loop(group, graph, tensors):
    """One node for a group, which goes over the first axis of what the group reads and makes."""
    from onnx import helper

    shape = tensors[group[0].output[0]][1]
    made = [node.output[0] for node in group]
    taken = [name for node in group for name in node.input if name not in made and tensors[name][1] == shape]
    taken = list(dict.fromkeys(taken))
    elsewhere = {name for node in graph.node if node.output[0] not in made for name in read(node)}
    elsewhere |= {output.name for output in graph.output}
    kept = [name for name in made if name in elsewhere] or made[-1:]
    rows = {name: f"{name}/row" for name in (*taken, *made)}
    body = [like(n, [rows.get(name, name) for name in n.input], [rows[n.output[0]]]) for n in group]
    ends = [
        [helper.make_tensor_value_info(rows[n], tensors[n][0], shape[1:]) for n in names]
        for names in (taken, kept)
    ]
    row = helper.make_graph(body, "row", *ends)
    return helper.make_node("Scan", taken, kept, group[0].name, body=row, num_scan_inputs=len(taken))


def _ordered(nodes):
    """Nodes behind those whose outputs they read, and else in the order in which they are."""
    makers = {name: place for place, node in enumerate(nodes) for name in node.output}
    sorter = graphlib.TopologicalSorter()
    for place, node in enumerate(nodes):
        sorter.add(place, *(makers[name] for name in read(node) if name in makers))
    sorter.prepare()
    ready, ordered = [], []
    while sorter.is_active():
        for place in sorter.get_ready():
            heapq.heappush(ready, place)
        first = heapq.heappop(ready)
        ordered.append(nodes[first])
        sorter.done(first)
    return ordered


def like(node, inputs, outputs):
    """The operation, of other tensors."""
    from onnx import helper

    made = helper.make_node(node.op_type, inputs, outputs, node.name)
    made.attribute.extend(node.attribute)
    return made


def read(node):
    """The names of what a node reads, and what loops and branches in it do."""
    parts = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return [*node.input, *(name for part in parts for inner in part.node for name in read(inner))]
