"""A traced function in plain operations: what runtimes lack, written by products, sums and slices."""

import itertools

import numpy as np
import tensorflow as tf


def lowered(function, *specs):
    """A function of tensors that computes what `function` does, in operations that runtimes have.

    Args:
        function: A function of tensors to a structure of tensors, without side effects.
        specs: A `tf.TensorSpec` for each argument, of known shape.

    Returns:
        The function; its `graph` is what was traced.
    """
    traced = tf.function(function, autograph=False).get_concrete_function(*specs)
    count = len(specs)

    def plain(*tensors):
        # Of the graph that is being traced, which may be a branch of another.
        values = {t.name: tf.identity(value) for t, value in zip(traced.inputs[:count], tensors)}
        for (outer, _), inner in zip(traced.graph.captures, traced.inputs[count:]):
            values[inner.name] = _held(outer)
        _emit(traced.graph, values, traced.outputs)
        found = [values[t.name] for t in traced.outputs]
        return tf.nest.pack_sequence_as(traced.structured_outputs, found)

    plain.graph = traced.graph
    return plain


def _held(tensor):
    """A constant with the value of a tensor that a function reads from outside."""
    if tensor.dtype in (tf.resource, tf.variant):
        raise ValueError(
            "A training step is exported where all that it reads and changes belongs to the model and its "
            f"optimizer. Received: a step that reads {tensor!r}."
        )
    return tf.constant(tensor.numpy())


def _emit(graph, values, outputs):
    """Compute the outputs of a graph in the graph that is traced now; `values` has its inputs."""
    needed = _needed(outputs)
    definition = graph.as_graph_def()
    pending = []

    def flush():
        if not pending:
            return
        part = tf.compat.v1.GraphDef(versions=definition.versions, library=definition.library)
        made = [tensor for op in pending for tensor in op.outputs]
        given = {}
        for op in pending:
            node = part.node.add()
            node.CopyFrom(op.node_def)
            node.attr.pop("_class", None)  # which other one it stands beside
            # Without control inputs, and what is not made here comes from placeholders.
            del node.input[:]
            for tensor in op.inputs:
                if tensor.op not in pending:
                    given.setdefault(tensor.name, f"given_{len(given)}")
                node.input.append(given.get(tensor.name, tensor.name))
        for name, placeholder in given.items():
            dtype = values[name].dtype.as_datatype_enum
            part.node.add(name=placeholder, op="Placeholder").attr["dtype"].type = dtype
        results = tf.graph_util.import_graph_def(
            part,
            {f"{placeholder}:0": values[name] for name, placeholder in given.items()},
            return_elements=[tensor.name for tensor in made],
            name="",
        )
        values.update(zip([tensor.name for tensor in made], results))
        pending.clear()

    for op in graph.get_operations():
        if op not in needed or op.type == "Placeholder":
            continue
        lower = _LOWERED.get(op.type)
        after = _awaited(op)
        if lower is None and not after:
            pending.append(op)
            continue
        flush()
        inputs = [values[tensor.name] for tensor in op.inputs]
        found = lower(op, *inputs) if lower else _after(*inputs, [values[t.name] for t in after])
        for tensor, value in zip(op.outputs, found):
            values[tensor.name] = value
    flush()


def _needed(outputs):
    """The operations that outputs depend on."""
    needed, waiting = set(), [tensor.op for tensor in outputs]
    while waiting:
        op = waiting.pop()
        if op not in needed:
            needed.add(op)
            waiting += [tensor.op for tensor in op.inputs] + [t.op for t in _awaited(op)]
    return needed


def _awaited(op):
    """The tensors that `backend.after` has an Identity wait for."""
    if op.type != "Identity":
        return []
    return [other.outputs[0] for other in op.control_inputs if other.outputs]


def _after(tensor, others):
    """The tensor, plus a 0 that is known only once the others are: runtimes know no control dependencies."""
    most = tf.reduce_max(tf.stack([tf.reduce_max(tf.cast(other, tf.float32)) for other in others]))
    return [tensor + tf.cast(most > float("inf"), tensor.dtype)]


def _sparse_cross_entropy(op, logits, labels):
    classes = tf.range(logits.shape[-1], dtype=labels.dtype)
    return _cross_entropy(op, logits, tf.cast(tf.equal(labels[:, None], classes), logits.dtype))


def _cross_entropy(op, logits, targets):
    """loss = log sum exp z - t . z, and its derivative softmax(z) - t (of targets that sum to 1)."""
    z = logits - tf.reduce_max(logits, axis=-1, keepdims=True)
    exponentials = tf.exp(z)
    total = tf.reduce_sum(exponentials, axis=-1, keepdims=True)
    loss = tf.reduce_sum(targets * (tf.math.log(total) - z), axis=-1)
    return loss, exponentials / total - targets


def _convolve(op, inputs, kernel):
    """A convolution over three axes whose window has one step along the third, as one over two."""
    _check_flat(op, kernel)
    outputs = tf.nn.conv2d(_folded(inputs), kernel[:, :, 0], op.get_attr("strides")[1:3], _padding(op))
    return [_unfolded(outputs, inputs.shape[3])]


def _pullback_to_input(op, sizes, kernel, outputs):
    return [_inputs(op, op.outputs[0].shape, kernel, outputs)]


def _pullback_to_flat_input(op, sizes, kernel, outputs):
    _check_flat(op, kernel)
    batch, height, width, depth, channels = op.outputs[0].shape
    folded = (batch * depth, height, width, channels)
    return [_unfolded(_inputs(op, folded, kernel[:, :, 0], _folded(outputs)), depth)]


def _inputs(op, shape, kernel, outputs):
    """A convolution's pullback to its inputs: of those that windows reach, and zeros behind them."""
    batch, *space, channels = shape
    strides, steps = op.get_attr("strides")[1:3], op.get_attr("dilations")[1:3]
    reach = _reach(outputs.shape[1:3], strides, kernel.shape[:2], steps)
    reached = [min(r, n) for r, n in zip(reach, space)]
    inputs = tf.raw_ops.Conv2DBackpropInput(
        input_sizes=[batch, *reached, channels],
        filter=kernel,
        out_backprop=outputs,
        strides=[1, *strides, 1],
        padding=_padding(op),
        dilations=[1, *steps, 1],
    )
    behind = [(0, n - r) for r, n in zip(reached, space)]
    return tf.pad(inputs, [(0, 0), *behind, (0, 0)]) if reached != space else inputs


def _reach(counts, strides, window, steps):
    """How far windows reach along each axis."""
    return [(n - 1) * s + (w - 1) * d + 1 for n, s, w, d in zip(counts, strides, window, steps)]


def _check_flat(op, kernel):
    if kernel.shape[2] != 1 or op.get_attr("strides")[3] != 1 or set(op.get_attr("dilations")) != {1}:
        raise ValueError(
            "A convolution over three axes is exported where its window has one step along the third. "
            f"Received: a window of {tuple(kernel.shape[:3])} in '{op.name}'."
        )


def _padding(op):
    return op.get_attr("padding").decode()


def _folded(tensor):
    batch, height, width, depth, channels = tensor.shape
    return tf.reshape(tf.transpose(tensor, (0, 3, 1, 2, 4)), (batch * depth, height, width, channels))


def _unfolded(tensor, depth):
    folded, height, width, channels = tensor.shape
    return tf.transpose(
        tf.reshape(tensor, (folded // depth, depth, height, width, channels)), (0, 2, 3, 1, 4)
    )


def _pullback_to_kernel(op, inputs, sizes, credit):
    """dW_d = sum over positions x of a_(x+d) credit_x: windows side by side, and one product."""
    *window, channels, units = op.outputs[0].shape
    space, positions = inputs.shape[1:-1], credit.shape[1:-1]
    rank = len(window)
    strides, steps = op.get_attr("strides")[1 : 1 + rank], op.get_attr("dilations")[1 : 1 + rank]
    missing = [max(r - n, 0) for r, n in zip(_reach(positions, strides, window, steps), space)]
    if _padding(op) == "SAME" and any(missing):
        inputs = tf.pad(inputs, [(0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)])
    places = []
    for offsets in itertools.product(*map(range, window)):
        slices = [
            slice(o * d, o * d + (n - 1) * s + 1, s) for o, d, n, s in zip(offsets, steps, positions, strides)
        ]
        places.append(inputs[(slice(None), *slices)])
    count = int(np.prod(credit.shape[:-1]))
    patches = tf.reshape(tf.concat(places, axis=-1), (count, -1))
    update = tf.matmul(patches, tf.reshape(credit, (count, units)), transpose_a=True)
    return [tf.reshape(update, (*window, channels, units))]


def _pullback_through_average(op, shape, outputs):
    """Each of a window's inputs has an equal share, where windows tile the space."""
    batch, height, width, channels = op.outputs[0].shape
    _, rows, columns, _ = op.get_attr("ksize")
    tiled = list(op.get_attr("strides")) == list(op.get_attr("ksize"))
    if not tiled or height % rows or width % columns:
        raise ValueError(
            "The way back through average pooling is exported where its windows tile the space. Use a local "
            f"rule (GEVB, DFA), or other sizes. Received: windows of {(rows, columns)} in '{op.name}'."
        )
    shares = tf.reshape(outputs / (rows * columns), (batch, height // rows, 1, width // columns, 1, channels))
    return [tf.reshape(shares * tf.ones((1, 1, rows, 1, columns, 1), outputs.dtype), op.outputs[0].shape)]


def _pullback_of_slice(op, shape, begin, end, strides, outputs):
    """The outputs where they were taken from, and zeros around and between them."""
    if any(op.get_attr(f"{kind}_mask") for kind in ("ellipsis", "new_axis", "shrink_axis")):
        raise ValueError(
            "The way back through a slice is exported where it keeps all axes. Use a local rule (GEVB, DFA). "
            f"Received: '{op.name}'."
        )
    masks = op.get_attr("begin_mask"), op.get_attr("end_mask")
    bounds = zip(*(tf.get_static_value(tensor) for tensor in op.inputs[1:4]))
    widths = []
    for axis, (first, last, step) in enumerate(bounds):
        extent, count = op.outputs[0].shape[axis], outputs.shape[axis]
        first, last = (None if mask >> axis & 1 else int(n) for mask, n in zip(masks, (first, last)))
        start, _, step = slice(first, last, int(step)).indices(extent)
        if step > 1:
            between = [*outputs.shape]
            outputs = tf.expand_dims(outputs, axis + 1)
            outputs = tf.pad(outputs, [(0, (step - 1) * (n == axis + 1)) for n in range(len(outputs.shape))])
            between[axis] *= step
            outputs = tf.reshape(outputs, between)
            keep = [slice(None)] * axis + [slice(0, (count - 1) * step + 1)]
            outputs = outputs[tuple(keep)]
        widths.append((start, extent - start - outputs.shape[axis]))
    widths += [(0, 0)] * (len(outputs.shape) - len(widths))
    return [tf.pad(outputs, widths)]


def _shapes(op, *tensors):
    return [tf.constant(tensor.shape.as_list(), output.dtype) for tensor, output in zip(tensors, op.outputs)]


def _formula(function):
    """One output, by a formula of the inputs."""
    return lambda op, *inputs: [function(*inputs)]


# Gradients dy in x are written by y = f(x), and are 0 where dy is, also where y is not finite.
_LOWERED = {
    "BiasAddGrad": _formula(lambda dy: tf.reduce_sum(dy, axis=list(range(len(dy.shape) - 1)))),
    "Erfc": _formula(lambda x: 1 - tf.math.erf(x)),
    "Expm1": _formula(lambda x: tf.exp(x) - 1),
    "L2Loss": _formula(lambda x: tf.reduce_sum(x * x) / 2),
    "Log1p": _formula(lambda x: tf.math.log(x + 1)),
    "ReciprocalGrad": _formula(lambda y, dy: -dy * y * y),
    "ReluGrad": _formula(lambda dy, x: dy * tf.cast(x > 0, dy.dtype)),
    "RsqrtGrad": _formula(lambda y, dy: tf.where(dy == 0, dy, -0.5 * dy * y * y * y)),
    "SigmoidGrad": _formula(lambda y, dy: dy * y * (1 - y)),
    "SqrtGrad": _formula(lambda y, dy: tf.where(dy == 0, dy, 0.5 * dy / y)),
    "TanhGrad": _formula(lambda y, dy: dy * (1 - y * y)),
    "Shape": _shapes,
    "ShapeN": _shapes,
    "StridedSliceGrad": _pullback_of_slice,
    "SparseSoftmaxCrossEntropyWithLogits": _sparse_cross_entropy,
    "SoftmaxCrossEntropyWithLogits": _cross_entropy,
    "Conv2DBackpropFilter": _pullback_to_kernel,
    "Conv3DBackpropFilterV2": _pullback_to_kernel,
    "Conv3D": _convolve,
    "Conv2DBackpropInput": _pullback_to_input,
    "Conv3DBackpropInputV2": _pullback_to_flat_input,
    "AvgPoolGrad": _pullback_through_average,
}
