"""What TensorFlow makes of a step: which operations XLA compiles, and which wait for which."""

import contextlib
import unittest.mock

import tensorflow as tf

# What multiplies weights or their updates.
PRODUCTS = "MatMul", "BatchMatMul", "Conv"


def step_graph(model, x, y, training=True, any_size=False):
    """The graph of the step that `fit`, or `evaluate`, takes on a batch; nothing is compiled for it."""
    with _eagerly():  # makes every variable
        model.fit(x, y, batch_size=len(x), verbose=0)
    made, function = [], tf.function

    def kept(*args, **kwargs):
        made.append(function(*args, **kwargs))
        return made[-1]

    with unittest.mock.patch.object(tf, "function", kept):
        make = model.make_train_function if training else model.make_test_function
        make(force=True)
    batches = tf.data.Dataset.from_tensors((x, y))
    if any_size:
        batches = batches.unbatch().batch(len(x))
    batches = iter(batches)
    return made[-1].get_concrete_function(batches).graph  # Keras makes the outermost function last


@contextlib.contextmanager
def _eagerly():
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def operations(graph):
    """Pairs (type, how it is compiled: as part of a "whole", as a "part", or None), nested ones included."""
    definition = graph.as_graph_def()
    functions = {function.signature.name: function for function in definition.library.function}

    def visit(nodes, whole):
        for node in nodes:
            inside = whole or node.attr["_XlaMustCompile"].b
            yield node.op, "whole" if inside else "part" if node.attr["_XlaCompile"].b else None
            for function in _called(node, functions):
                yield from visit(function.node_def, inside or function.attr["_XlaMustCompile"].b)

    return list(visit(definition.node, whole=False))


def compiled(graph, kind):
    """How the operations are compiled whose type begins with this."""
    return {how for name, how in operations(graph) if name.startswith(kind)}


def waiting_updates(graph):
    """How many pairs of weights' updates there are of which one is computed before the other may be."""
    definition = graph.as_graph_def()
    functions = {function.signature.name: function for function in definition.library.function}
    nodes, sinks = _body_of_updates(definition.node, functions)
    nodes = {node.name: node for node in nodes}
    # An update is made by the product that is nearest to the weight.
    made_by = {sink: _nearest_product(sink, nodes) for sink in sinks}
    products = {product for product in made_by.values() if product is not None}
    before = {product: _ancestors(product, nodes) for product in products}
    return sum(one in before[other] for one in products for other in products if one != other)


def _called(node, functions):
    for value in node.attr.values():
        if value.func.name in functions:
            yield functions[value.func.name]


def _body_of_updates(nodes, functions):
    """The nodes among which updates are computed, and the names of what hands them to the weights."""
    sinks = [node.input[1] for node in nodes if node.op == "AssignSubVariableOp"]
    if sinks:
        return nodes, sinks
    for node in nodes:
        for function in _called(node, functions):
            found = _body_of_updates(function.node_def, functions)
            if found is None:
                continue
            if any(inside.op.startswith(PRODUCTS) for inside in found[0]):
                return found
            return nodes, list(node.input)  # the optimizer alone
    return None


def _name(tensor):
    return tensor.lstrip("^").split(":")[0]


def _sources(tensor, nodes):
    """The tensors from which one is computed; after a "^", the operations that it waits for."""
    node = nodes[_name(tensor)]
    if node.op != "IdentityN":
        return list(node.input)
    index = tensor.split(":")[-1] if ":" in tensor else "0"
    return [node.input[int(index)], *(source for source in node.input if source.startswith("^"))]


def _ancestors(tensor, nodes):
    """The names of all operations that run before a tensor is there."""
    seen, waiting = set(), [tensor]
    while waiting:
        each = waiting.pop()
        if each not in seen and _name(each) in nodes:
            seen.add(each)
            waiting += _sources(each, nodes)
    return set(map(_name, seen))


def _nearest_product(tensor, nodes):
    """The name of the product that makes an update; None where a sum does."""
    seen, waiting = set(), [tensor]
    while waiting:
        each = waiting.pop(0)
        if each in seen or _name(each) not in nodes:
            continue
        seen.add(each)
        if nodes[_name(each)].op.startswith(PRODUCTS):
            return _name(each)
        if nodes[_name(each)].op == "Sum":
            return None
        waiting += [source for source in _sources(each, nodes) if not source.startswith("^")]
    return None
