"""The paper's networks, and a small one for the 8 x 8 digits; stock models to convert."""

from collections import abc
from typing import Any

import keras

from keras_gevb import layers
from keras_gevb.datasets import IMAGES
from keras_gevb.initializers import MirroredNormal
from keras_gevb.model import Sequential
from keras_gevb.stock import residual_network, token_classifier, vision_transformer
from keras_gevb.types import Rule

__all__ = ["ARCHITECTURES", "build", "residual_network", "stack", "token_classifier", "vision_transformer"]

CLASSES = 10
ARCHITECTURES = ("fc", "conv", "lc")

# ("dense", units) | ("conv" or "lc", filters, window, strides, padding) | ("pool", size)
_NETWORKS: dict[tuple[str, str], list[tuple]] = {
    ("mnist", "fc"): [("dense", 1024), ("dense", 512)],
    ("mnist", "conv"): [
        ("conv", 64, 3, 1, "same"),
        ("pool", 2),
        ("conv", 32, 3, 1, "same"),
        ("pool", 2),
        ("dense", 1024),
    ],
    ("mnist", "lc"): [
        ("lc", 32, 3, 1, "same"),
        ("pool", 2),
        ("lc", 32, 3, 1, "same"),
        ("pool", 2),
        ("dense", 1024),
    ],
    ("cifar10", "fc"): [("dense", 1024), ("dense", 512), ("dense", 512)],
    ("cifar10", "conv"): [
        ("conv", 128, 5, 1, "same"),
        ("pool", 2),
        ("conv", 64, 5, 1, "same"),
        ("pool", 2),
        ("conv", 64, 2, 2, "valid"),
        ("dense", 1024),
    ],
    ("cifar10", "lc"): [
        ("lc", 64, 5, 1, "same"),
        ("pool", 2),
        ("lc", 32, 5, 1, "same"),
        ("pool", 2),
        ("lc", 32, 2, 2, "valid"),
        ("dense", 256),
    ],
    ("digits", "fc"): [("dense", 128), ("dense", 64)],
    ("digits", "conv"): [("conv", 16, 3, 1, "same"), ("pool", 2), ("dense", 64)],
    ("digits", "lc"): [("lc", 16, 3, 1, "same"), ("pool", 2), ("dense", 64)],
}
# The one width in which the paper's conventional networks differ.
_CONVENTIONAL_NETWORKS = {("cifar10", "lc"): [*_NETWORKS["cifar10", "lc"][:-1], ("dense", 512)]}


def build(
    dataset: str,
    architecture: str,
    vectorized: bool = True,
    nonnegative: bool = True,
    learning_rule: Rule | None = None,
    width: float = 1.0,
) -> Sequential:
    """One of the paper's networks, raw pixels in, logits out, not compiled.

    Every hidden layer is gated; the pixels are scaled to [-1, 1] inside the model. The
    paper's widths, layer by layer:

        mnist    fc    1024, 512
                 conv  64 3x3, pool 2, 32 3x3, pool 2, dense 1024
                 lc    32 3x3, pool 2, 32 3x3, pool 2, dense 1024
        cifar10  fc    1024, 512, 512
                 conv  128 5x5, pool 2, 64 5x5, pool 2, 64 2x2 stride 2, dense 1024
                 lc    64 5x5, pool 2, 32 5x5, pool 2, 32 2x2 stride 2, dense 256
                       (conventional units: dense 512)

    "fashion_mnist" takes the networks of "mnist"; "digits" has smaller ones of ours.

    Args:
        dataset: "mnist", "fashion_mnist", "cifar10" or "digits".
        architecture: "fc" (fully connected), "conv" or "lc" (locally connected).
        vectorized: Vector units, or conventional ones.
        nonnegative: Nonnegative kernels past the first layer, or mixed-sign ones.
        learning_rule: A name or a `LearningRule`. Defaults to "gevb" for vector units
            and to "dfa" for conventional ones.
        width: Factor on the number of units of every hidden layer, rounded to even numbers.

    Returns:
        A `keras_gevb.Sequential`, from `(batch, height, width, channels)` raw pixels to `(batch, 10)` logits.

    Raises:
        ValueError: if the data set or the architecture is unknown.

    Example:

    >>> model = zoo.build("digits", "fc")
    >>> model.output_shape
    (None, 10)

    Reference: paper, appendix on network architectures.
    """
    if dataset not in IMAGES:
        raise ValueError(f"Unknown dataset. Choose one of {sorted(IMAGES)}. Received: {dataset!r}")
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"Unknown architecture. Choose one of {list(ARCHITECTURES)}. Received: {architecture!r}"
        )
    shape, brightest = IMAGES[dataset]
    name = "mnist" if dataset == "fashion_mnist" else dataset, architecture
    network = _NETWORKS[name] if vectorized else _CONVENTIONAL_NETWORKS.get(name, _NETWORKS[name])
    return Sequential(
        [
            keras.Input(shape),
            keras.layers.Rescaling(2 / brightest, offset=-1),
            *stack(network, CLASSES, vectorized, nonnegative, width),
        ],
        learning_rule=learning_rule or ("gevb" if vectorized else "dfa"),
        name=f"{dataset}_{architecture}",
    )


_VECTOR = {
    "dense": layers.VectorDense,
    "conv": layers.VectorConv2D,
    "lc": layers.VectorLocallyConnected2D,
    "pool": layers.VectorAveragePooling2D,
}
_CONVENTIONAL = {
    "dense": layers.Dense,
    "conv": layers.Conv2D,
    "lc": layers.LocallyConnected2D,
    "pool": keras.layers.AveragePooling2D,
}


def stack(
    network: abc.Sequence[tuple],
    outputs: int,
    vectorized: bool = True,
    nonnegative: bool = True,
    width: float = 1.0,
) -> abc.Iterator[Any]:
    """The layers of a network, from scalar input to the readout, one by one.

    Args:
        network: A list of `("dense", units)`, `("conv" or "lc", filters, window, strides, padding)` and
            `("pool", size)`.
        outputs: The number K of outputs.
        vectorized: Vector units, or conventional ones.
        nonnegative: Nonnegative kernels past the first layer, or mixed-sign ones.
        width: Factor on the number of units of every hidden layer, rounded to even numbers.

    Example:

    >>> model = keras_gevb.Sequential([keras.Input((8, 8, 1)), *zoo.stack([("dense", 32)], outputs=10)])
    """
    kinds = _VECTOR if vectorized else _CONVENTIONAL
    later = {"nonnegative": nonnegative}
    settings = _first(outputs, vectorized, nonnegative)
    is_image = True
    for kind, size, *window in network:
        if kind == "dense" and is_image:
            on_vectors = vectorized and settings is later
            yield layers.VectorFlatten() if on_vectors else keras.layers.Flatten()
            is_image = False
        if kind == "pool":
            yield kinds[kind](size)
            continue
        units = max(2, 2 * round(size * width / 2))
        yield kinds[kind](units, *window[:1], **dict(zip(("strides", "padding"), window[1:])), **settings)
        settings = later
    yield layers.VectorReadout(**later) if vectorized else layers.Dense(outputs, gated=False, **later)


def _first(outputs, vectorized, nonnegative):
    """What the first layer is given: it has mixed signs in every network."""
    if vectorized:
        return {"vector_dim": outputs, "nonnegative": None if nonnegative else False}
    if nonnegative:
        return {"kernel_initializer": MirroredNormal()}
    return {"kernel_initializer": keras.initializers.VarianceScaling(1.0, "fan_in", "untruncated_normal")}
