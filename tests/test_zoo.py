"""The zoo's networks are the paper's, layer by layer."""

import keras
import numpy as np
import pytest

from keras_gevb import datasets, layers, zoo

K = 10
# Written out from the paper's table for vector units: kernels, and the outputs of each layer that
# weighs or pools. A first layer, on scalar input, has K kernels side by side.
PAPER = {
    ("mnist", "fc"): (
        [(784, K, 1024), (1024, 512), (512, 1)],
        [(K, 1024), (K, 512), (K,)],
    ),
    ("mnist", "conv"): (
        [(3, 3, 1, K, 64), (3, 3, 64, 32), (7 * 7 * 32, 1024), (1024, 1)],
        [(28, 28, K, 64), (14, 14, K, 64), (14, 14, K, 32), (7, 7, K, 32), (K, 1024), (K,)],
    ),
    ("mnist", "lc"): (
        [(28, 28, 3, 3, 1, K, 32), (14, 14, 3, 3, 32, 32), (7 * 7 * 32, 1024), (1024, 1)],
        [(28, 28, K, 32), (14, 14, K, 32), (14, 14, K, 32), (7, 7, K, 32), (K, 1024), (K,)],
    ),
    ("cifar10", "fc"): (
        [(3072, K, 1024), (1024, 512), (512, 512), (512, 1)],
        [(K, 1024), (K, 512), (K, 512), (K,)],
    ),
    ("cifar10", "conv"): (
        [(5, 5, 3, K, 128), (5, 5, 128, 64), (2, 2, 64, 64), (4 * 4 * 64, 1024), (1024, 1)],
        [
            *((32, 32, K, 128), (16, 16, K, 128), (16, 16, K, 64), (8, 8, K, 64)),
            *((4, 4, K, 64), (K, 1024), (K,)),
        ],
    ),
    ("cifar10", "lc"): (
        [
            *((32, 32, 5, 5, 3, K, 64), (16, 16, 5, 5, 64, 32), (4, 4, 2, 2, 32, 32)),
            *((4 * 4 * 32, 256), (256, 1)),
        ],
        [
            *((32, 32, K, 64), (16, 16, K, 64), (16, 16, K, 32), (8, 8, K, 32)),
            *((4, 4, K, 32), (K, 256), (K,)),
        ],
    ),
    ("digits", "fc"): ([(64, K, 128), (128, 64), (64, 1)], [(K, 128), (K, 64), (K,)]),
    ("digits", "conv"): (
        [(3, 3, 1, K, 16), (4 * 4 * 16, 64), (64, 1)],
        [(8, 8, K, 16), (4, 4, K, 16), (K, 64), (K,)],
    ),
    ("digits", "lc"): (
        [(8, 8, 3, 3, 1, K, 16), (4 * 4 * 16, 64), (64, 1)],
        [(8, 8, K, 16), (4, 4, K, 16), (K, 64), (K,)],
    ),
}
# Trainable numbers of the table's networks, added up by hand: kernels, then biases.
PARAMETERS = {
    ("mnist", "fc", True): 784 * 10240 + 1024 * 512 + 512 + 10240 + 5120 + 10,
    ("mnist", "fc", False): 784 * 1024 + 1024 * 512 + 5120 + 1024 + 512 + 10,
    ("mnist", "conv", True): 5760 + 18432 + 1568 * 1024 + 1024 + 640 + 320 + 10240 + 10,
    ("mnist", "conv", False): 576 + 18432 + 1568 * 1024 + 10240 + 64 + 32 + 1024 + 10,
    ("mnist", "lc", True): 784 * (2880 + 320) + 196 * (9216 + 320) + 1568 * 1024 + 1024 + 10240 + 10,
    ("mnist", "lc", False): 784 * (288 + 32) + 196 * (9216 + 32) + 1568 * 1024 + 10240 + 1024 + 10,
    ("cifar10", "fc", True): 3072 * 10240 + 3 * 512 * 512 + 512 + 10240 + 2 * 5120 + 10,
    ("cifar10", "fc", False): 3072 * 1024 + 3 * 512 * 512 + 5120 + 1024 + 2 * 512 + 10,
    ("cifar10", "conv", True): 96000 + 204800 + 16384 + 2**20 + 1024 + 1280 + 640 + 640 + 10240 + 10,
    ("cifar10", "conv", False): 9600 + 204800 + 16384 + 2**20 + 10240 + 128 + 64 + 64 + 1024 + 10,
    ("cifar10", "lc", True): 2**10 * 48640 + 2**8 * 51520 + 16 * 4416 + 512 * 256 + 256 + 2560 + 10,
    ("cifar10", "lc", False): 2**10 * 4864 + 2**8 * 51232 + 16 * 4128 + 512 * 512 + 5120 + 512 + 10,
}
EVERY = [(*network, vectorized) for network in PAPER for vectorized in (True, False)]
every_network = pytest.mark.parametrize(("dataset", "architecture", "vectorized"), EVERY)


def built(*arguments, **options):
    """A network of the zoo whose weights have shapes and no values."""
    with keras.StatelessScope(initialize_variables=False):
        return zoo.build(*arguments, **options)


def weight_layers(model):
    return [layer for layer in model.layers if isinstance(layer, layers.WeightLayer)]


def expected(dataset, architecture, vectorized):
    """Shapes of kernels and of outputs: conventional units have no K, and K of them end the network."""
    kernels, outputs = PAPER[dataset, architecture]
    if vectorized:
        return kernels, outputs
    kernels = [tuple(n for n in shape[:-1] if n != K) + shape[-1:] for shape in kernels]
    outputs = [tuple(n for n in shape[:-1] if n != K) + shape[-1:] for shape in outputs]
    kernels[-1] = (kernels[-1][0], K)
    if (dataset, architecture) == ("cifar10", "lc"):  # the one width that differs
        kernels[-2:], outputs[-2] = [(512, 512), (512, K)], (512,)
    return kernels, outputs


@every_network
def test_every_network_has_the_layers_of_the_papers_table(dataset, architecture, vectorized):
    kernels, outputs = expected(dataset, architecture, vectorized)
    model = built(dataset, architecture, vectorized)
    assert model.input_shape == (None, *datasets.IMAGES[dataset][0])
    assert [tuple(layer.kernel.shape) for layer in weight_layers(model)] == kernels
    shaping = keras.layers.Flatten, layers.VectorFlatten, keras.layers.Rescaling
    found = [layer.output.shape[1:] for layer in model.layers if not isinstance(layer, shaping)]
    assert found == outputs


@pytest.mark.parametrize("row", PARAMETERS)
def test_every_network_of_the_paper_has_as_many_parameters_as_its_table_says(row):
    model = built(*row)
    assert sum(np.prod(v.shape) for v in model.trainable_variables) == PARAMETERS[row]


@every_network
def test_hidden_layers_are_gated_and_have_biases_and_the_last_is_a_readout(dataset, architecture, vectorized):
    *hidden, last = weight_layers(built(dataset, architecture, vectorized))
    assert all(layer.gated and layer.use_bias for layer in hidden)
    assert (last.gated, last.use_bias) == (False, True)
    assert all(type(layer).__name__.startswith("Vector") == vectorized for layer in [*hidden, last])


@pytest.mark.parametrize("nonnegative", [True, False])
@every_network
def test_signs_are_those_of_the_network_past_the_first_layer(dataset, architecture, vectorized, nonnegative):
    first, *later = weight_layers(built(dataset, architecture, vectorized, nonnegative))
    assert [layer.constrained for layer in (first, *later)] == [False, *[nonnegative] * len(later)]


@pytest.mark.parametrize("architecture", zoo.ARCHITECTURES)
def test_pools_are_averages_over_two_by_two_without_overlap(architecture):
    for dataset in ("mnist", "cifar10"):
        for vectorized in (True, False):
            pools = [
                layer for layer in built(dataset, architecture, vectorized).layers if "pool" in layer.name
            ]
            assert len(pools) == (0 if architecture == "fc" else 2)
            for pool in pools:
                assert "average" in pool.name
                assert tuple(pool.pool_size) == tuple(pool.strides) == (2, 2)


@pytest.mark.parametrize("dataset", datasets.IMAGES)
def test_pixels_are_scaled_to_between_minus_one_and_one(dataset):
    shape, brightest = datasets.IMAGES[dataset]
    scaling = built(dataset, "fc").layers[0]
    for pixel, value in ((0, -1), (brightest / 2, 0), (brightest, 1)):
        scaled = scaling(np.full((1, *shape), pixel, "float32"))
        np.testing.assert_allclose(scaled, value, rtol=0, atol=1e-6)  # float32


@pytest.mark.parametrize("architecture", zoo.ARCHITECTURES)
def test_fashion_mnist_takes_the_networks_of_mnist(architecture):
    fashion, mnist = (
        [tuple(layer.kernel.shape) for layer in weight_layers(built(name, architecture))]
        for name in ("fashion_mnist", "mnist")
    )
    assert fashion == mnist


@pytest.mark.parametrize(
    ("vectorized", "given", "rule"),
    [
        *((True, None, "GEVB"), (False, None, "DFA")),
        *((True, "backprop", "Backprop"), (False, "backprop", "Backprop"), (True, "fa", "FA")),
    ],
)
def test_the_rule_is_the_given_one_or_that_of_the_units(vectorized, given, rule):
    model = built("digits", "conv", vectorized, learning_rule=given)
    assert type(model.learning_rule).__name__ == rule


@pytest.mark.parametrize(
    ("architecture", "width", "hidden"), [("fc", 0.5, [64, 32]), ("conv", 2, [32, 128]), ("lc", 0.02, [2, 2])]
)
def test_width_multiplies_every_hidden_layer_and_rounds_to_even_numbers(architecture, width, hidden):
    for vectorized in (True, False):
        *found, last = weight_layers(built("digits", architecture, vectorized, width=width))
        assert [layer.units for layer in found] == hidden
        assert last.units == (1 if vectorized else K)


def test_the_default_residual_network_is_that_of_cifar():
    """He et al.: 3 stages of 3 blocks of two convolutions behind one, widths 16, 32, 64."""
    model = zoo.residual_network()
    windows = [n for n in model.layers if isinstance(n, keras.layers.Conv2D) and n.kernel_size == (3, 3)]
    assert [layer.filters for layer in windows] == 7 * [16] + 6 * [32] + 6 * [64]
    assert model.layers[-1].input.shape[-1] == 64


def test_attention_drops_as_the_transformer_is_told():
    model = zoo.vision_transformer((8, 8, 1), patch=4, width=8, heads=2, blocks=1, dropout=0.3)
    attention = [n for n in model.layers if isinstance(n, keras.layers.MultiHeadAttention)]
    assert [layer.get_config()["dropout"] for layer in attention] == [0.3]


def test_a_classifier_of_tokens_adds_each_places_own_vector():
    """Without blocks: the mean over places of the normalized sum of a token's vector and a place's."""
    model = zoo.token_classifier(5, 7, 3, width=4, blocks=0)
    tokens = np.random.default_rng(0).integers(0, 7, (2, 5))
    of_tokens, of_places, scale, offset, kernel, bias = model.get_weights()
    x = of_tokens[tokens] + of_places
    x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-3)
    expected = (x * scale + offset).mean(axis=1) @ kernel + bias
    np.testing.assert_allclose(model.predict(tokens, verbose=0), expected, atol=1e-5)  # float32
