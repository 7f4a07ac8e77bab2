"""Operations that runtimes lack are written by others, and ONNX's rules compute what TensorFlow does."""

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

import onnx  # noqa: E402
from onnx import helper  # noqa: E402

from keras_gevb.export.lowering import lowered  # noqa: E402
from keras_gevb.export.operations import _RULES, OPSET, Converter, UnknownOperation  # noqa: E402


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.2, 2, shape).astype("float32")


def specs(arrays):
    return [tf.TensorSpec(array.shape, array.dtype) for array in arrays]


def in_onnx(function, *arrays):
    """What ONNX Runtime computes."""
    concrete = tf.function(function, autograph=False).get_concrete_function(*specs(arrays))
    converter = Converter("t")
    names = [f"in{n}" for n in range(len(arrays))]
    found = converter.convert(concrete, names)
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in zip(names, arrays)
    ]
    nodes = [
        *converter.nodes,
        *(helper.make_node("Identity", [name], [f"out{n}"]) for n, name in enumerate(found)),
    ]
    outputs = [
        helper.make_tensor_value_info(
            f"out{n}", helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype.as_numpy_dtype)), tensor.shape
        )
        for n, tensor in enumerate(concrete.outputs)
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, converter.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    session = runtime.InferenceSession(model.SerializeToString())
    return session.run(None, dict(zip(names, arrays))), {op.type for op in concrete.graph.get_operations()}


def pullback(map_, *primals):
    """A function of a cotangent and the primals to the pullbacks of a map."""

    def function(cotangent, *primals):
        with tf.GradientTape() as tape:
            tape.watch(primals)
            outputs = map_(*primals)
        return tape.gradient(outputs, primals, cotangent)

    return function, (numbers(*map_(*primals).shape, seed=3), *primals)


def windows(strides, padding, dilations=1):
    return lambda x, w: tf.nn.conv2d(x, w, strides, padding, dilations=dilations)


IMAGES, KERNEL = numbers(2, 7, 6, 3), numbers(3, 2, 3, 4)
VECTORS, FLAT = numbers(2, 7, 6, 5, 3), numbers(3, 2, 1, 3, 4)
LABELS = np.array([0, 3, 1], "int32")

LOWERED = {
    **{
        f"windows {strides} {padding}": pullback(windows(strides, padding), IMAGES, KERNEL)
        for strides in (1, 2, (2, 1), (1, 3))
        for padding in ("SAME", "VALID")
    },
    "windows with gaps": pullback(windows(1, "SAME", 2), IMAGES, KERNEL),
    **{
        f"vectors {padding}": pullback(
            lambda x, w, padding=padding: tf.nn.conv3d(x, w, [1, 2, 1, 1, 1], padding), VECTORS, FLAT
        )
        for padding in ("SAME", "VALID")
    },
    "vectors forward": (lambda x, w: tf.nn.conv3d(x, w, [1, 1, 2, 1, 1], "SAME"), (VECTORS, FLAT)),
    "average": pullback(lambda x: tf.nn.avg_pool2d(x, (2, 3), (2, 3), "VALID"), numbers(2, 4, 6, 3)),
    "slices": pullback(lambda x: x[1:6:2, :, 3:], numbers(7, 2, 5)),
    "labels": pullback(
        lambda z: tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, z), numbers(3, 4) * 50
    ),
    "targets": pullback(
        lambda z: tf.nn.softmax_cross_entropy_with_logits(np.eye(4, dtype="float32")[LABELS], z),
        numbers(3, 4),
    ),
    "roots": pullback(lambda x: tf.sqrt(x) + tf.math.rsqrt(x), numbers(3, 4)),
}


@pytest.mark.parametrize("name", LOWERED)
def test_lowered_operations_compute_the_same_here_and_in_onnx(name):
    function, arrays = LOWERED[name]
    expected = tf.nest.flatten(function(*map(tf.constant, arrays)))
    plain = tf.function(lowered(function, *specs(arrays)), autograph=False)
    types = {op.type for op in plain.get_concrete_function(*specs(arrays)).graph.get_operations()}
    assert not types & {"Conv2DBackpropFilter", "Conv3D", "AvgPoolGrad", "StridedSliceGrad", "SqrtGrad"}
    assert not any("CrossEntropy" in kind for kind in types)
    for found in (
        tf.nest.flatten(plain(*map(tf.constant, arrays))),
        in_onnx(plain.python_function, *arrays)[0],
    ):
        for value, other in zip(found, expected, strict=True):
            # float32 sums in another order.
            np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


def test_a_tensor_that_awaits_others_is_the_same():
    def function(x, y):
        with tf.control_dependencies([tf.exp(y)]):
            return tf.identity(x)

    plain = tf.function(lowered(function, *specs([IMAGES, KERNEL])), autograph=False)
    operations = plain.get_concrete_function(*specs([IMAGES, KERNEL])).graph.get_operations()
    # The data say so, since runtimes know no order of operations.
    assert "Exp" in {op.type for op in operations}
    np.testing.assert_array_equal(plain(IMAGES, np.full_like(KERNEL, np.inf)), IMAGES)
    np.testing.assert_array_equal(plain(IMAGES, np.full_like(KERNEL, np.nan)), IMAGES)


def truths(x):
    return x > 1


A, B, I = numbers(3, 4), numbers(3, 4, seed=1), np.array([[2, 0, 1, 1]], "int32")  # noqa: E741
FORMULAS = {
    "elementwise": (
        lambda a, b: [
            *(
                f(a)
                for f in (
                    tf.abs,
                    tf.exp,
                    tf.math.log,
                    tf.sqrt,
                    tf.math.rsqrt,
                    tf.square,
                    tf.negative,
                    tf.sign,
                )
            ),
            *(
                f(a)
                for f in (tf.tanh, tf.sigmoid, tf.nn.relu, tf.nn.elu, tf.nn.selu, tf.nn.softplus, tf.math.erf)
            ),
            *(
                f(a)
                for f in (tf.math.erfc, tf.math.log1p, tf.math.expm1, tf.math.reciprocal, tf.floor, tf.round)
            ),
            *(f(a, b) for f in (tf.add, tf.subtract, tf.multiply, tf.divide, tf.pow, tf.maximum, tf.minimum)),
            *(
                f(a, b)
                for f in (tf.math.squared_difference, tf.math.divide_no_nan, tf.math.greater, tf.math.less)
            ),
            *(f(a, b) for f in (tf.equal, tf.not_equal, tf.greater_equal, tf.less_equal)),
            tf.math.divide_no_nan(a, tf.nn.relu(b - 1)),
            tf.logical_and(a > 1, tf.logical_not(b > 1)) | (a > 1.9),
            tf.where(a > 1, a, b),
            tf.clip_by_value(a, 0.5, 1.5),
            tf.nn.leaky_relu(a - 1, 0.3),
            tf.add_n([a, b, a]),
            tf.raw_ops.L2Loss(t=a),
            tf.cast(a * 3, tf.int32),
            tf.zeros_like(a) + tf.ones_like(b),
        ],
        (A, B),
    ),
    "reductions": (
        lambda a: [
            *(
                f(a, axis=0)
                for f in (tf.reduce_sum, tf.reduce_mean, tf.reduce_max, tf.reduce_min, tf.reduce_prod)
            ),
            *(f(a, keepdims=True) for f in (tf.reduce_sum, tf.reduce_max)),
            tf.reduce_sum(a, axis=[-1, 0]),
            tf.reduce_sum(a, axis=[]),
            tf.reduce_all(truths(a), axis=1),
            tf.reduce_any(truths(a)),
            tf.argmax(a, axis=-1),
            tf.nn.softmax(a),
            tf.nn.log_softmax(a),
        ],
        (A,),
    ),
    "shapes": (
        lambda a, i: [
            tf.reshape(a, (2, 6)),
            tf.transpose(a),
            a[..., 1:3],
            a[:, None, ::-1],
            a[-1],
            a[::2, 1:-1],
            a[:, 0],
            tf.slice(a, [1, 0], [2, -1]),
            tf.pad(a, [(1, 0), (2, 3)], constant_values=7.0),
            tf.tile(a, (2, 3)),
            tf.concat([a, a * 2], axis=1),
            tf.stack([a, a * 2], axis=1),
            *tf.unstack(a, axis=1),
            *tf.split(a, 2, axis=1),
            tf.gather(a, i, axis=0),
            tf.one_hot(i, 3, 2.0, -1.0),
            tf.broadcast_to(a, (2, 3, 4)),
            tf.squeeze(a[:1]),
            tf.fill((2, 3), a[0, 0]),
        ],
        (A, I),
    ),
    "products": (
        lambda a, b: [
            tf.matmul(a, b, transpose_b=True),
            tf.matmul(a, b, transpose_a=True),
            tf.matmul(tf.stack([a, b]), tf.stack([b, a]), transpose_b=True),
            tf.matmul(tf.stack([a, b]), tf.stack([b, a]), transpose_a=True),
            tf.einsum("ij,kj->ik", a, b),
        ],
        (A, B),
    ),
    "windows": (
        lambda x, w: [
            *(tf.nn.conv2d(x, w, s, p) for s in (1, (2, 3)) for p in ("SAME", "VALID")),
            tf.nn.conv2d(x, w, 1, [(0, 0), (2, 1), (0, 3), (0, 0)]),
            tf.nn.depthwise_conv2d(x, w, (1, 2, 2, 1), "SAME"),
            *(f(x, 3, 2, p) for f in (tf.nn.max_pool2d, tf.nn.avg_pool2d) for p in ("SAME", "VALID")),
        ],
        (IMAGES, KERNEL),
    ),
    "gradients": pullback(lambda a: tf.nn.relu(a - 1) + tf.sigmoid(a) + tf.tanh(a) + 1 / a, A),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_onnx_computes_what_tensorflow_does(name):
    function, arrays = FORMULAS[name]
    expected = tf.nest.flatten(function(*map(tf.constant, arrays)))
    found, types = in_onnx(lambda *tensors: tf.nest.flatten(function(*tensors)), *arrays)
    assert types - {"Placeholder", "Const", "Shape", "ShapeN", "NoOp"} <= set(_RULES) | {
        "Range",
        "StridedSlice",
    }
    for n, (value, other) in enumerate(zip(found, expected, strict=True)):
        assert np.shape(value) == tuple(other.shape), n
        np.testing.assert_allclose(value, other, rtol=2e-6, atol=2e-6, err_msg=str(n))  # float32


def test_an_operation_without_a_rule_is_named_and_all_of_them():
    with pytest.raises(UnknownOperation, match=r"'Cumsum', 'Digamma'"):
        in_onnx(lambda a: tf.math.digamma(tf.cumsum(a)), A)
