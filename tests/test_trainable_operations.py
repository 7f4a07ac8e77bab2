"""Operations that runtimes lack are written by others, which compute what TensorFlow does."""

import numpy as np
import pytest
import tensorflow as tf

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

from keras_gevb.export.lowering import _LOWERED, lowered  # noqa: E402
from keras_gevb.export.onnx import OPSET, _converted  # noqa: E402


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.2, 2, shape).astype("float32")


def specs(arrays):
    return [tf.TensorSpec(array.shape, array.dtype) for array in arrays]


def in_onnx(function, arrays):
    """What ONNX Runtime computes."""
    graph = _converted(function, specs(arrays))
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    proto = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = runtime.InferenceSession(proto.SerializeToString())
    names = [given.name for given in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=True)))


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
            lambda x, w, padding=padding: tf.nn.conv3d(x, w, [1, 2, 3, 1, 1], padding), VECTORS, FLAT
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
    "roots of zero": pullback(
        lambda x: tf.where(x > 0, tf.sqrt(x), 0.0) + tf.where(x > 0, tf.math.rsqrt(x), 0.0),
        numbers(3, 4) * np.array([0, 1, 1, 1], "float32"),
    ),
    "ways back": pullback(lambda x: tf.nn.relu(x - 1) + tf.sigmoid(x) + tf.tanh(x) + 1 / x, numbers(3, 4)),
    "formulas": (
        lambda x: [tf.math.erfc(x), tf.math.expm1(x), tf.math.log1p(x), tf.raw_ops.L2Loss(t=x)],
        (numbers(3, 4),),
    ),
}


@pytest.mark.parametrize("name", LOWERED)
def test_lowered_operations_compute_the_same_here_and_in_onnx(name):
    function, arrays = LOWERED[name]
    try:
        expected = tf.nest.flatten(function(*map(tf.constant, arrays)))
    except tf.errors.InvalidArgumentError as error:
        if "dilation rates" in str(error):
            pytest.skip("TensorFlow without oneDNN has no pullback through windows with gaps on CPUs")
        raise
    plain = tf.function(lowered(function, *specs(arrays)), autograph=False)
    types = {op.type for op in plain.get_concrete_function(*specs(arrays)).graph.get_operations()}
    # A convolution's pullback to its inputs is written by another.
    assert not types & (set(_LOWERED) - {"Conv2DBackpropInput"})
    for found in (
        tf.nest.flatten(plain(*map(tf.constant, arrays))),
        in_onnx(plain, arrays),
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
