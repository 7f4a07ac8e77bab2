"""Initial kernels and gates have the paper's distributions and pairings."""

import keras
import numpy as np
import pytest
from networks import step_of
from scipy import stats

from keras_gevb import zoo
from keras_gevb.initializers import GateSigns, MirroredNormal, OnOffNormal
from keras_gevb.layers import Dense, LocallyConnected2D, VectorDense, WeightLayer

ARCHITECTURES = pytest.mark.parametrize("architecture", zoo.ARCHITECTURES)
UNITS = pytest.mark.parametrize("vectorized", [True, False], ids=["vectorized", "conventional"])


def weight_layers(model):
    return [layer for layer in model.layers if isinstance(layer, WeightLayer)]


def inputs_by_units(layer):
    """The kernel as (..., inputs, units): with K copies, each is a kernel of its own."""
    kernel = layer.kernel.numpy()
    return kernel if getattr(layer, "vector_dim", None) is None else np.moveaxis(kernel, -2, 0)


def fan_in(layer):
    """Input channels times kernel area, from what the layer is connected to; no K, no positions."""
    return layer.input.shape[-1] * int(np.prod(getattr(layer, "kernel_size", 1)))


def assert_normal(values, variance):
    """Kolmogorov and Smirnov's test, at a level that one seed in ten thousand fails."""
    values = np.ravel(values)
    assert stats.kstest(values, "norm", args=(0, np.sqrt(variance))).pvalue > 1e-4
    # The test is blind to a scale that is a little wrong: 5 standard errors of the variance.
    np.testing.assert_allclose(np.mean(values**2), variance, rtol=5 * np.sqrt(2 / values.size))


@UNITS
@ARCHITECTURES
def test_mixed_sign_kernels(architecture, vectorized):
    first, *later = weight_layers(zoo.build("mnist", architecture, vectorized, nonnegative=False, width=0.25))
    assert_normal(first.kernel, 1 / fan_in(first))
    for layer in later:
        assert_normal(layer.kernel, 2 / fan_in(layer))


@UNITS
@ARCHITECTURES
def test_nonnegative_first_layers_are_mirrored_pairs(architecture, vectorized):
    first, *_ = weight_layers(zoo.build("mnist", architecture, vectorized, width=0.25))
    kernel = first.kernel.numpy()
    np.testing.assert_array_equal(kernel[..., 1::2], -kernel[..., ::2])
    assert_normal(kernel[..., ::2], 1 / fan_in(first))
    assert not first.constrained


@UNITS
@ARCHITECTURES
def test_nonnegative_later_layers_are_pairs_of_pairs(architecture, vectorized):
    _, *later = weight_layers(zoo.build("mnist", architecture, vectorized, width=0.25))
    for layer in later:
        kernel = inputs_by_units(layer)
        even, odd = kernel[..., ::2, :], kernel[..., 1::2, :]
        z = (even - odd)[..., ::2]
        np.testing.assert_array_equal(even[..., ::2], np.maximum(z, 0))
        np.testing.assert_array_equal(odd[..., ::2], np.maximum(-z, 0))
        if layer.units > 1:
            np.testing.assert_array_equal(odd[..., 1::2], even[..., ::2])
            np.testing.assert_array_equal(even[..., 1::2], odd[..., ::2])
        assert_normal(z, 4 / fan_in(layer))


@UNITS
@ARCHITECTURES
def test_odd_units_start_as_mirrors_of_even_ones(architecture, vectorized):
    model = zoo.build("digits", architecture, vectorized)
    x = np.random.default_rng(0).uniform(0, 16, (8, 8, 8, 1)).astype("float32")
    for record in step_of(model, x).records[:-1]:
        activity = record.outputs.numpy()
        # Pairs of sums with opposite signs, in float32.
        np.testing.assert_allclose(activity[..., 1::2], -activity[..., ::2], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(record.gate[..., 1::2], record.gate[..., ::2])


@ARCHITECTURES
@pytest.mark.sampled(2)
def test_gates_are_random_signs_in_opposite_pairs(architecture):
    for nonnegative in (True, False):
        model = zoo.build("mnist", architecture, nonnegative=nonnegative)
        for layer in weight_layers(model)[:-1]:
            gates = layer.gates.numpy()
            np.testing.assert_array_equal(np.abs(gates), 1)
            np.testing.assert_array_equal(gates[:, 1::2], -gates[:, ::2])
            draws = gates[:, ::2]
            # A fair coin: 5 standard errors, and no two components alike.
            assert abs(draws.mean()) < 5 / np.sqrt(draws.size)
            assert len(np.unique(draws, axis=0)) == len(draws)


def test_biases_start_at_zero():
    for layer in weight_layers(zoo.build("digits", "lc")):
        np.testing.assert_array_equal(layer.bias, 0)


INITIALIZERS = pytest.mark.parametrize(
    "make",
    [MirroredNormal, OnOffNormal, GateSigns, lambda **seed: OnOffNormal(scale=9.0, **seed)],
    ids=["MirroredNormal", "OnOffNormal", "GateSigns", "OnOffNormal(scale=9)"],
)


@INITIALIZERS
def test_the_seed_fixes_the_draw(make):
    draw = np.asarray(make(seed=1)((6, 8)))
    np.testing.assert_array_equal(draw, make(seed=1)((6, 8)))
    assert not np.array_equal(draw, make(seed=2)((6, 8)))


@INITIALIZERS
def test_without_a_seed_the_global_one_fixes_the_draw(make):
    draws = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        draws.append([np.asarray(make()((6, 8))) for _ in range(2)])
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0][0], draws[0][1])


@INITIALIZERS
def test_initializers_are_saved_with_their_seed(make):
    initializer = make()
    config = keras.saving.serialize_keras_object(initializer)
    restored = keras.saving.deserialize_keras_object(config)
    assert restored.get_config() == initializer.get_config()
    np.testing.assert_array_equal(restored((6, 8)), initializer((6, 8)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@INITIALIZERS
def test_the_draw_has_the_dtype_that_was_asked_for(make, dtype):
    assert keras.backend.standardize_dtype(make(seed=1)((6, 8), dtype=dtype).dtype) == dtype


@pytest.mark.parametrize(
    ("make", "shape"), [(MirroredNormal, (4, 3)), (OnOffNormal, (4, 3)), (OnOffNormal, (3, 4))]
)
def test_pairs_need_even_numbers(make, shape):
    with pytest.raises(ValueError, match=r"must be even\. Received: 3"):
        make()(shape)


def test_scale_is_the_variance_times_the_fan_in():
    assert_normal(MirroredNormal(scale=9.0)((3, 30, 400))[..., ::2], 9 / 90)
    z = np.asarray(OnOffNormal(scale=9.0)((3, 30, 400)))
    assert_normal(z[:, ::2, ::2] - z[:, 1::2, ::2], 9 / 90)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        *((VectorDense, {"nonnegative": sign}) for sign in (True, False)),
        *((Dense, {"nonnegative": sign}) for sign in (True, False)),
    ],
)
def test_layers_of_one_model_draw_different_kernels(make, settings):
    """All of one shape, so that one draw for all of them would be seen."""
    shape = (4, 8) if make is VectorDense else (8,)
    model = keras.Sequential([keras.Input(shape), *(make(8, **settings) for _ in range(3))])
    for name in ("kernel", "gates") if make is VectorDense else ("kernel",):
        one, two, three = (np.array(getattr(layer, name)) for layer in model.layers)
        assert one.shape == two.shape == three.shape
        assert not np.array_equal(one, two)
        assert not np.array_equal(two, three)
        assert not np.array_equal(one, three)


def test_positions_of_a_locally_connected_layer_draw_different_kernels():
    for nonnegative in (True, False):
        layer = LocallyConnected2D(4, 2, nonnegative=nonnegative)
        layer.build((None, 4, 4, 2))
        kernels = np.array(layer.kernel).reshape(9, -1)
        assert len(np.unique(kernels, axis=0)) == 9


def test_components_of_a_first_layer_draw_different_kernels():
    for nonnegative in (None, False):
        layer = VectorDense(4, vector_dim=5, nonnegative=nonnegative)
        layer.build((None, 6))
        kernels = np.moveaxis(np.array(layer.kernel), 1, 0).reshape(5, -1)
        assert len(np.unique(kernels, axis=0)) == 5
