"""A traced TensorFlow function as ONNX nodes: one rule for each operation, of the standard domain."""

import collections

import numpy as np
import tensorflow as tf
from onnx import helper, numpy_helper

OPSET = 18


class Converter:
    """Writes the nodes of one ONNX graph, in the order of the traced function's operations.

    Args:
        prefix: What names of tensors begin with.

    Attributes:
        nodes, constants: What was written, as protocol buffers.
    """

    def __init__(self, prefix):
        self.nodes, self.constants = [], []
        self._prefix, self._count = prefix, 0

    def add(self, kind, *inputs, outputs=1, **attributes):
        """The output's name of a new node (or their list); inputs are names, arrays, or None."""
        names = [self._named(value) for value in inputs]
        made = [self._new() for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, names, made, **attributes))
        return made[0] if outputs == 1 else made

    def _named(self, value):
        if value is None or isinstance(value, str):
            return value or ""
        name = self._new()
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _new(self):
        self._count += 1
        return f"{self._prefix}{self._count}"

    def convert(self, function, names):
        """Convert a concrete function; the names of its flat outputs.

        Args:
            function: A `tf.function`'s concrete function, without side effects and captures.
            names: The names of its inputs.

        Raises:
            UnknownOperation: if there are operations that have no rule.
        """
        values = dict(zip([tensor.name for tensor in function.inputs], names))
        constants = _constants(function)
        operations = [op for op in _needed(function) if op.type != "Placeholder"]
        known = {t.name for op in operations for t in op.inputs if t.name in constants}
        known |= {t.name for t in function.outputs if t.name in constants}
        with tf.compat.v1.Session(graph=function.graph) as session:
            values |= session.run({name: function.graph.get_tensor_by_name(name) for name in known})
        operations = [op for op in operations if any(t.name not in constants for t in op.outputs)]
        unknown = [op for op in operations if op.type not in _RULES]
        if unknown:
            raise UnknownOperation(*unknown)
        for op in operations:
            found = _RULES[op.type](self, op, *(values[tensor.name] for tensor in op.inputs))
            found = [found] if isinstance(found, str) else found
            values.update(zip([tensor.name for tensor in op.outputs], found))
        return [self._named(values[tensor.name]) for tensor in function.outputs]

    def name(self, ends):
        """Give tensors other names, in the place of copies where they are made here and have one name.

        Args:
            ends: A dict from new names to those that `convert` returned.
        """
        made = {name for node in self.nodes for name in node.output}
        counts = collections.Counter(ends.values())
        renamed = {name: end for end, name in ends.items() if name in made and counts[name] == 1}
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [renamed.get(name, name) for name in names]
        for end, name in ends.items():
            if name not in renamed:
                self.nodes.append(helper.make_node("Identity", [name], [end]))


class UnknownOperation(Exception):
    """Operations that have no rule."""

    def __init__(self, *operations):
        super().__init__([op.type for op in operations])
        self.operations = operations


def _needed(function):
    """The operations that the outputs depend on, in order."""
    needed, waiting = set(), [tensor.op for tensor in function.outputs]
    while waiting:
        op = waiting.pop()
        if op not in needed:
            needed.add(op)
            waiting += [tensor.op for tensor in op.inputs]
    return [op for op in function.graph.get_operations() if op in needed]


def _constants(function):
    """The names of the tensors that depend on no input, and are no random numbers."""
    names = set()
    for op in function.graph.get_operations():
        random = "Random" in op.type
        if op.type != "Placeholder" and not random and all(t.name in names for t in op.inputs):
            names.update(tensor.name for tensor in op.outputs)
    return names


def _onnx_type(dtype):
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype.as_numpy_dtype))


def _shape(tensor):
    return np.array(tensor.shape.as_list(), "int64")


def _same(kind):
    return lambda c, op, *inputs: c.add(kind, *inputs)


def _first(c, op, value, *_):
    return [value]


def _number(op, value):
    return np.array(value, op.inputs[0].dtype.as_numpy_dtype)


def _cast(c, op, value):
    return c.add("Cast", value, to=_onnx_type(op.outputs[0].dtype))


def _reshape(c, op, value, *_):
    return c.add("Reshape", value, _shape(op.outputs[0]))


def _expand(c, op, value, *_):
    return c.add("Expand", value, _shape(op.outputs[0]))


def _reduce(kind):
    def rule(c, op, value, axes):
        axes = np.atleast_1d(axes).astype("int64")
        if not axes.size:  # which ONNX reads as all
            return [value]
        return c.add(kind, value, axes, keepdims=int(op.get_attr("keep_dims")))

    return rule


def _reduce_truth(kind):
    def rule(c, op, value, axes):
        number = c.add("Cast", value, to=_onnx_type(tf.int32))
        return c.add("Cast", _reduce(kind)(c, op, number, axes), to=_onnx_type(tf.bool))

    return rule


def _div_no_nan(c, op, a, b):
    zero = c.add("Equal", b, _number(op, 0))
    return c.add("Where", zero, _number(op, 0), c.add("Div", a, b))


def _transpose(c, op, value, axes):
    return c.add("Transpose", value, perm=[int(n) for n in axes])


def _swapped(c, value, rank):
    return c.add("Transpose", value, perm=[*range(rank - 2), rank - 1, rank - 2])


def _matmul(c, op, a, b):
    across = op.get_attr("transpose_a"), op.get_attr("transpose_b")
    if not any(across):
        return c.add("MatMul", a, b)
    return c.add("Gemm", a, b, transA=int(across[0]), transB=int(across[1]))


def _batch_matmul(c, op, a, b):
    rank = [len(tensor.shape) for tensor in op.inputs]
    a = _swapped(c, a, rank[0]) if op.get_attr("adj_x") else a
    b = _swapped(c, b, rank[1]) if op.get_attr("adj_y") else b
    return c.add("MatMul", a, b)


def _einsum(c, op, *inputs):
    return c.add("Einsum", *inputs, equation=op.get_attr("equation").decode())


def _concat(c, op, *inputs):
    *parts, axis = inputs
    return c.add("Concat", *parts, axis=int(axis))


def _pack(c, op, *parts):
    shape = _shape(op.outputs[0])
    axis = op.get_attr("axis") % len(shape)
    shape[axis] = 1
    return c.add("Concat", *(c.add("Reshape", part, shape) for part in parts), axis=int(axis))


def _unpack(c, op, value):
    axis = op.get_attr("axis") % len(op.inputs[0].shape)
    return [c.add("Gather", value, np.array(n), axis=axis) for n in range(len(op.outputs))]


def _split(c, op, axis, value):
    parts = c.add("Split", value, outputs=len(op.outputs), axis=int(axis), num_outputs=len(op.outputs))
    return [parts] if isinstance(parts, str) else parts


def _strided_slice(c, op, value, begin, end, strides):
    kinds = "begin", "end", "ellipsis", "new_axis", "shrink_axis"
    mask = {kind: op.get_attr(f"{kind}_mask") for kind in kinds}
    is_set = {kind: [bits >> n & 1 for n in range(len(begin))] for kind, bits in mask.items()}
    extents = op.inputs[0].shape.as_list()
    axis, places = 0, []
    for n, (first, last, step) in enumerate(zip(map(int, begin), map(int, end), map(int, strides))):
        if is_set["ellipsis"][n]:
            axis = len(extents) - sum(not new for new in is_set["new_axis"][n + 1 :])
        elif not is_set["new_axis"][n]:
            if is_set["shrink_axis"][n]:
                chosen = slice(first, first + 1 or None)
            else:
                first = None if is_set["begin"][n] else first
                chosen = slice(first, None if is_set["end"][n] else last, step)
            if chosen != slice(None, None, 1):
                places.append((axis, *_indices(chosen, extents[axis])))
            axis += 1
    if places:
        axes, starts, ends, steps = (np.array(numbers, "int64") for numbers in zip(*places))
        value = c.add("Slice", value, starts, ends, axes, steps)
    return _reshape(c, op, value) if mask["new_axis"] or mask["shrink_axis"] or not places else value


def _indices(chosen, extent):
    start, end, step = chosen.indices(extent)
    # Backwards to the start: ONNX counts -1 from the end.
    return start, end if end >= 0 else -extent - 1, step


def _slice(c, op, value, begin, size):
    extents = op.inputs[0].shape.as_list()
    ends = [n if s == -1 else b + s for n, b, s in zip(extents, begin, size)]
    return c.add("Slice", value, np.array(begin, "int64"), np.array(ends, "int64"))


def _pad(c, op, value, widths, *number):
    number = number[0] if number else _number(op, 0)
    return c.add("Pad", value, np.array(widths, "int64").T.reshape(-1), number)


def _tile(c, op, value, repeats):
    return c.add("Tile", value, np.array(repeats, "int64"))


def _gather(c, op, value, indices, axis):
    if op.get_attr("batch_dims"):
        raise UnknownOperation(op)
    return c.add("Gather", value, indices, axis=int(axis))


def _select(c, op, condition, a, b):
    # A vector of truth values chooses among rows.
    missing = len(op.outputs[0].shape) - len(op.inputs[0].shape)
    if missing and op.inputs[0].shape.rank:
        condition = c.add("Reshape", condition, np.array([-1] + [1] * missing, "int64"))
    return c.add("Where", condition, a, b)


def _one_hot(c, op, indices, depth, on, off):
    ends = c.add("Concat", *(c.add("Reshape", value, np.array([1])) for value in (off, on)), axis=0)
    indices = c.add("Cast", indices, to=_onnx_type(tf.int64))
    return c.add("OneHot", indices, np.array(depth, "int64"), ends, axis=op.get_attr("axis"))


def _window(op, window):
    """Padding, strides and dilations over the space of (batch, height, width, channels)."""
    if op.get_attr("data_format") != b"NHWC":
        raise UnknownOperation(op)
    strides = op.get_attr("strides")[1:3]
    steps = op.get_attr("dilations")[1:3] if "dilations" in op.node_def.attr else [1, 1]
    pads = [0, 0, 0, 0]
    if op.get_attr("padding") == b"SAME":
        space, places = (t.shape[1:3] for t in (op.inputs[0], op.outputs[0]))
        for axis, (n, m, s, w, d) in enumerate(zip(space, places, strides, window, steps)):
            missing = max((m - 1) * s + (w - 1) * d + 1 - n, 0)
            pads[axis], pads[axis + 2] = missing // 2, missing - missing // 2
    elif op.get_attr("padding") == b"EXPLICIT":
        explicit = op.get_attr("explicit_paddings")
        pads = [explicit[2], explicit[4], explicit[3], explicit[5]]
    return {"strides": strides, "pads": pads}, {"dilations": steps}


def _channels_first(c, value):
    return c.add("Transpose", value, perm=[0, 3, 1, 2])


def _channels_last(c, value):
    return c.add("Transpose", value, perm=[0, 2, 3, 1])


def _convolution(c, op, inputs, kernel):
    rows, columns, channels, _ = op.inputs[1].shape
    window, steps = _window(op, (rows, columns))
    found = c.add(
        "Conv",
        _channels_first(c, inputs),
        c.add("Transpose", kernel, perm=[3, 2, 0, 1]),
        kernel_shape=[rows, columns],
        group=op.inputs[0].shape[-1] // channels,
        **window,
        **steps,
    )
    return _channels_last(c, found)


def _depthwise(c, op, inputs, kernel):
    rows, columns, channels, several = op.inputs[1].shape
    window, steps = _window(op, (rows, columns))
    kernels = c.add("Transpose", kernel, perm=[2, 3, 0, 1])
    kernels = c.add("Reshape", kernels, np.array([channels * several, 1, rows, columns], "int64"))
    found = c.add(
        "Conv",
        _channels_first(c, inputs),
        kernels,
        kernel_shape=[rows, columns],
        group=channels,
        **window,
        **steps,
    )
    return _channels_last(c, found)


def _pullback_to_input(c, op, sizes, kernel, outputs):
    rows, columns, _, _ = op.inputs[1].shape
    strides, steps = op.get_attr("strides")[1:3], op.get_attr("dilations")[1:3]
    space, places = op.outputs[0].shape[1:3], op.inputs[2].shape[1:3]
    pads, more = [0, 0, 0, 0], [0, 0]
    for axis, (n, m, s, w, d) in enumerate(zip(space, places, strides, (rows, columns), steps)):
        reach = (m - 1) * s + (w - 1) * d + 1
        missing = max(reach - n, 0)
        pads[axis], pads[axis + 2], more[axis] = missing // 2, missing - missing // 2, max(n - reach, 0)
    found = c.add(
        "ConvTranspose",
        _channels_first(c, outputs),
        c.add("Transpose", kernel, perm=[3, 2, 0, 1]),
        kernel_shape=[rows, columns],
        strides=strides,
        dilations=steps,
        pads=pads,
        output_padding=more,
    )
    return _channels_last(c, found)


def _pool(kind, **settings):
    def rule(c, op, inputs):
        window = op.get_attr("ksize")[1:3]
        found = c.add(
            kind, _channels_first(c, inputs), kernel_shape=window, **_window(op, window)[0], **settings
        )
        return _channels_last(c, found)

    return rule


def _relu_gradient(c, op, gradient, value):
    positive = c.add("Greater", value, _number(op, 0))
    return c.add("Mul", gradient, c.add("Cast", positive, to=_onnx_type(op.inputs[0].dtype)))


def _composed(function):
    """A rule of an elementwise formula, by a function of (a, b, ..., add, number)."""
    return lambda c, op, *inputs: function(c.add, lambda value: _number(op, value), *inputs)


_SAME = (
    *("Abs", "Acos", "Asin", "Atan", "Ceil", "Cos", "Cosh", "Elu", "Equal", "Erf", "Exp", "Floor", "Greater"),
    *(
        "Less",
        "Log",
        "Mul",
        "Neg",
        "Pow",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Sigmoid",
        "Sign",
    ),
    *("Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Tan", "Tanh"),
)
_RENAMED = {
    "Add": "Add",
    "AddN": "Sum",
    "AddV2": "Add",
    "BiasAdd": "Add",
    "GreaterEqual": "GreaterOrEqual",
    "Inv": "Reciprocal",
    "IsInf": "IsInf",
    "IsNan": "IsNaN",
    "LessEqual": "LessOrEqual",
    "LogicalAnd": "And",
    "LogicalNot": "Not",
    "LogicalOr": "Or",
    "Maximum": "Max",
    "Minimum": "Min",
    "RealDiv": "Div",
    "Rint": "Round",
    "SelectV2": "Where",
    "TruncateDiv": "Div",
}

_RULES = {name: _same(kind) for name, kind in {**dict(zip(_SAME, _SAME)), **_RENAMED}.items()} | {
    "All": _reduce_truth("ReduceMin"),
    "Any": _reduce_truth("ReduceMax"),
    "ArgMax": lambda c, op, value, axis: c.add(
        "Cast",
        c.add("ArgMax", value, axis=int(axis), keepdims=0),
        to=_onnx_type(op.outputs[0].dtype),
    ),
    "AvgPool": _pool("AveragePool", count_include_pad=0),
    "BatchMatMul": _batch_matmul,
    "BatchMatMulV2": _batch_matmul,
    "BatchMatMulV3": _batch_matmul,
    "BroadcastTo": _expand,
    "Cast": _cast,
    "ClipByValue": lambda c, op, value, low, high: c.add("Min", c.add("Max", value, low), high),
    "ConcatV2": _concat,
    "Conv2D": _convolution,
    "Conv2DBackpropInput": _pullback_to_input,
    "DepthwiseConv2dNative": _depthwise,
    "DivNoNan": _div_no_nan,
    "Einsum": _einsum,
    "EnsureShape": _first,
    "ExpandDims": _reshape,
    "Erfc": _composed(lambda add, n, x: add("Sub", n(1), add("Erf", x))),
    "Expm1": _composed(lambda add, n, x: add("Sub", add("Exp", x), n(1))),
    "Fill": lambda c, op, shape, value: _expand(c, op, value),
    "GatherV2": _gather,
    "L2Loss": lambda c, op, value: c.add(
        "Mul", c.add("ReduceSumSquare", value, keepdims=0), _number(op, 0.5)
    ),
    "LeakyRelu": lambda c, op, value: c.add("LeakyRelu", value, alpha=op.get_attr("alpha")),
    "Log1p": _composed(lambda add, n, x: add("Log", add("Add", x, n(1)))),
    "LogSoftmax": lambda c, op, value: c.add("LogSoftmax", value, axis=-1),
    "MatMul": _matmul,
    "Max": _reduce("ReduceMax"),
    "MaxPool": _pool("MaxPool"),
    "Mean": _reduce("ReduceMean"),
    "Min": _reduce("ReduceMin"),
    "NotEqual": lambda c, op, a, b: c.add("Not", c.add("Equal", a, b)),
    "OneHot": _one_hot,
    "Pack": _pack,
    "Pad": _pad,
    "PadV2": _pad,
    "PreventGradient": _first,
    "Prod": _reduce("ReduceProd"),
    "ReluGrad": _relu_gradient,
    "ReciprocalGrad": _composed(lambda add, n, y, dy: add("Neg", add("Mul", dy, add("Mul", y, y)))),
    "Reshape": _reshape,
    "Rsqrt": _composed(lambda add, n, x: add("Reciprocal", add("Sqrt", x))),
    "SigmoidGrad": _composed(lambda add, n, y, dy: add("Mul", dy, add("Mul", y, add("Sub", n(1), y)))),
    "Select": _select,
    "Slice": _slice,
    "Softmax": lambda c, op, value: c.add("Softmax", value, axis=-1),
    "Split": _split,
    "Square": _composed(lambda add, n, x: add("Mul", x, x)),
    "SquaredDifference": lambda c, op, a, b: (lambda d: c.add("Mul", d, d))(c.add("Sub", a, b)),
    "Squeeze": _reshape,
    **dict.fromkeys(("Identity", "StopGradient"), _first),
    "StridedSlice": _strided_slice,
    "Sum": _reduce("ReduceSum"),
    "TanhGrad": _composed(lambda add, n, y, dy: add("Mul", dy, add("Sub", n(1), add("Mul", y, y)))),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unpack": _unpack,
    "ZerosLike": lambda c, op, value: _expand(c, op, _number(op, 0)),
}
