"""What is compared: one vectorized nonnegative network by several learners, and its conventional twin."""

import keras
import numpy as np

from keras_gevb import layers, rules, zoo

NETWORKS = [f"{d}-{a}" for d in ("mnist", "cifar10") for a in zoo.ARCHITECTURES]
SMALL_NETWORKS = [f"digits-{a}" for a in zoo.ARCHITECTURES]
LEARNERS = ["GEVB", "GEVB, low memory", "Backprop rule", "autodiff", "autodiff, XLA", "conventional"]
_RULES = {
    "GEVB": rules.GEVB(),
    "GEVB, low memory": rules.GEVB(low_memory=True),
    "Backprop rule": rules.Backprop(),
}


def build(learner, network, optimizer):
    """A compiled model.

    Args:
        learner: One of `LEARNERS`. "autodiff" is a stock `keras.Sequential` over the layers of the
            network, "conventional" one over stock layers of the same widths.
        network: A function from a learning rule to a `keras_gevb.Sequential`, or a name: one of
            `NETWORKS` or `SMALL_NETWORKS`.
        optimizer: A Keras optimizer.
    """
    if isinstance(network, str):
        dataset, architecture = network.split("-")

        def network(rule):
            return zoo.build(dataset, architecture, learning_rule=rule)

    model = network(_RULES.get(learner, "backprop"))
    if learner not in _RULES:
        stock = _conventional(model) if learner == "conventional" else model.layers
        model = keras.Sequential([keras.Input(model.input_shape[1:]), *stock])
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=True if learner == "autodiff, XLA" else "auto",
    )
    return model


def random_images(model, samples):
    """Raw pixels and labels for a model; a step takes the same time whatever they show."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (samples, *model.input_shape[1:]), dtype="uint8")
    return x, generator.integers(0, model.output_shape[-1], samples)


def _conventional(model):
    """The layers of the conventional network of the same widths: rectifiers, a readout of K units."""
    for layer in model.layers:
        match layer:
            case layers.VectorDense():
                yield keras.layers.Dense(layer.units, activation="relu")
            case layers.VectorConv2D():
                yield keras.layers.Conv2D(**_window(layer), activation="relu")
            case layers.VectorLocallyConnected2D():
                yield layers.LocallyConnected2D(**_window(layer))
            case layers.VectorReadout():
                yield keras.layers.Dense(model.output_shape[-1])
            case layers.VectorFlatten():
                yield keras.layers.Flatten()
            case layers.VectorAveragePooling2D():
                yield keras.layers.AveragePooling2D(layer.pool_size)
            case _:
                yield layer


def _window(layer):
    return {name: getattr(layer, name) for name in ("filters", "kernel_size", "strides", "padding")}
