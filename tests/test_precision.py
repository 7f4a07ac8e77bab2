"""Half, single and double precision: the same updates, as far as each precision goes."""

import keras
import numpy as np
import pytest
from workflows import IMAGE, MODELS, build, compiled, data

import keras_gevb
from keras_gevb import layers

ROWS = [("sequential", "gevb"), ("graph", "gevb"), ("graph", "backprop"), ("conventional", "dfa")]
rows = pytest.mark.parametrize(("name", "rule"), ROWS, ids=["-".join(row) for row in ROWS])


@pytest.fixture
def policy():
    """Set a dtype policy for the layers made from then on."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def relative_error(updates, exact):
    """The largest over the weights of |update - exact| / |exact|, in the 2-norm."""
    return max(
        np.linalg.norm(np.asarray(u, "float64") - e) / np.linalg.norm(e)
        for u, e in zip(updates, exact, strict=True)
    )


@rows
@pytest.mark.parametrize(
    ("precision", "tolerance"),
    # Units of the last place: 2^-9 and 2^-12, times the few layers that add up; 2^-24 in float32.
    [("mixed_bfloat16", 0.05), ("mixed_float16", 0.01), ("float64", 1e-5)],
)
@pytest.mark.sampled(2)
def test_the_first_step_is_that_of_float32(name, rule, precision, tolerance, policy):
    reference = compiled(build(name, rule), run_eagerly=True)
    weights, (x, y) = reference.get_weights(), data()
    policy(precision)
    model = compiled(build(name, rule))
    model.set_weights(weights)
    # A sample near a gate's edge may fall on the other side in half precision: leave such samples out.
    keep = [i for i in range(len(x)) if same_gates(model, reference, x[i : i + 1])]
    assert len(keep) >= 4
    x, y = x[keep], y[keep]
    updates = [np.asarray(u, "float64") for u in reference.compute_updates(x, y)]
    before = [np.asarray(v, "float64") for v in model.trainable_variables]
    # Scaled gradient descent of 1/16 keeps half-precision weights from rounding: they are float32.
    model.optimizer.learning_rate = 2**-4
    model.train_on_batch(x, y)
    moved = []
    for variable, start, update in zip(model.trainable_variables, before, updates, strict=True):
        step = (start - np.asarray(variable, "float64")) * 2**4
        if variable.constraint is not None:
            # Clipped at 0 where the step would have made a weight negative.
            step = np.where(start - update * 2**-4 <= 1e-3, update, step)
        moved.append(step)
    assert relative_error(moved, updates) < tolerance


def same_gates(model, other, x):
    gates = []
    for candidate in (model, other):
        records = keras_gevb.step.record(candidate, x)
        gates.append([np.asarray(record.gate, "float32") for record in records])
    return all(np.array_equal(a, b) for a, b in zip(*gates, strict=True))


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_every_layer_computes_in_the_policys_dtype_and_keeps_its_weights_in_the_variables(
    name, precision, policy
):
    policy(precision)
    model = build(name, MODELS[name][1][0])
    expected = keras.dtype_policies.get(precision)
    assert {v.dtype for v in model.trainable_variables} == {expected.variable_dtype}
    outputs = model(data(2)[0])
    assert keras.backend.standardize_dtype(outputs.dtype) == expected.compute_dtype
    assert np.isfinite(np.asarray(outputs, "float32")).all()


def test_dynamic_loss_scaling_does_not_shrink_the_updates(policy):
    """The first scale is 32768: an update that was not scaled would vanish."""
    policy("mixed_float16")
    model = compiled(build("graph", "gevb"))
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    x, y = data()
    scaled = model.compute_updates(x, y)
    scale = float(model.optimizer.dynamic_scale)
    bias = [
        np.asarray(u) for u, v in zip(scaled, model.trainable_variables, strict=True) if v.name == "bias"
    ][-1]
    logits = np.asarray(model(x), "float64")
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = (softmax - np.eye(4)[y]).mean(axis=0)
    np.testing.assert_allclose(bias[:, 0] / scale, error, rtol=0.01, atol=1e-4)


def test_an_overflow_skips_the_step_and_halves_the_scale(policy):
    policy("mixed_float16")
    model = compiled(build("sequential", "gevb"))
    x, y = data()
    model.train_on_batch(x, y)
    before, scale = model.get_weights(), float(model.optimizer.dynamic_scale)
    sample_weight = np.full(
        len(x), 1e6, "float32"
    )  # 32768e6 is beyond float16, and float32's square of it not
    model.train_on_batch(x, y, sample_weight=sample_weight)
    assert float(model.optimizer.dynamic_scale) == scale / 2
    for mine, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


# (1 - 2^-13) 1 - 1 < 0 closes a gate; in half precision the first entry is 1, so 0 opens it.
PARTS, EDGE = np.array([[1.0], [-1.0], [0.0]]), np.array([[1 - 2.0**-13], [1.0], [1.0]])


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_gates_are_decided_in_float32(precision, policy):
    policy(precision)
    layer = layers.VectorDense(2, use_bias=False, kernel_initializer="ones")
    h = PARTS[None].astype("float32")
    layer.build((None, 3, 1))
    layer.gates.assign(np.broadcast_to(EDGE, (3, 2)))
    with keras_gevb.passes.Recording().in_force() as recording:
        layer(keras.ops.convert_to_tensor(h))
    np.testing.assert_array_equal(np.asarray(recording.records[0].gate, "float32"), 0)


@pytest.mark.parametrize("summand", ["kernel", "bias"])
@pytest.mark.parametrize("inputs", [1, 50], ids=["few inputs", "many inputs"])
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("kind", ["dense", "conv", "local"])
def test_gates_of_a_first_layer_are_decided_in_float32(kind, precision, inputs, summand, policy):
    """The same sum over components, of a kernel's or of a bias: of few inputs it is contracted first."""
    policy(precision)
    settings = {"vector_dim": 3, "kernel_initializer": "zeros"}
    layer, shape = {
        "dense": (layers.VectorDense(2, **settings), (inputs,)),
        "conv": (layers.VectorConv2D(2, 1, **settings), (1, 1, inputs)),
        "local": (layers.VectorLocallyConnected2D(2, 1, **settings), (1, 1, inputs)),
    }[kind]
    layer.build((None, *shape))
    variable = getattr(layer, summand)
    value = np.zeros(variable.shape)
    value[(*(0,) * (value.ndim - 2), ...) if summand == "kernel" else ...] = PARTS
    variable.assign(value)
    layer.gates.assign(np.broadcast_to(EDGE, (3, 2)))
    np.testing.assert_array_equal(np.asarray(layer(np.ones((1, *shape))), "float32"), 0)
    layer.gates.assign(np.broadcast_to(-EDGE, (3, 2)))
    opened = np.asarray(layer(np.ones((1, *shape))), "float32").reshape(3, 2)
    np.testing.assert_array_equal(opened, np.broadcast_to(PARTS, (3, 2)))


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("pool", [2, 3, (1, 2)])
def test_average_pooling_works_in_half_precision_on_any_device(precision, padding, pool, policy):
    policy(precision)
    vectors = np.random.default_rng(0).standard_normal((2, *IMAGE[:2], 3, 4)).astype("float32")
    pooled = layers.VectorAveragePooling2D(pool, padding=padding)(vectors)
    exact = keras.layers.AveragePooling2D(pool, padding=padding, dtype="float32")(
        vectors.reshape(2, 6, 6, 12)
    )
    exact = np.asarray(exact).reshape(pooled.shape)
    np.testing.assert_allclose(np.asarray(pooled, "float32"), exact, rtol=0, atol=0.02)
