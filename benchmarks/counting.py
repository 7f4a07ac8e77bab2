"""Floating-point operations and bytes of a training step, counted from the layers of the network.

With its gates held, a weight layer is one linear map, the same for its K components (K = 1 in a
conventional layer). Let `products` be its multiply-adds per sample and component: positions x inputs
of a unit x units, where windows that reach over the border count whole. Two operations each:

    forward                 2 K products
    update, first layer     2 K products: scalar inputs times the error vector, K components each
    update, later layers    2 products on scalars, once s = e . a is known: 2 K operations for each input
    g's way back            2 products on scalars; not to the inputs of the first layer
    automatic derivative    2 K products in the kernel, and 2 K in the inputs, but in the first layer's

Learners differ in what they add up:

    GEVB                    forward, update
    GEVB, low memory        forward, forward, update
    Backprop rule           forward, g's way back, update
    autodiff, conventional  forward, automatic derivative

Gates, biases and pooling are not counted: per output they are a few operations, where a product is
hundreds.

Bytes are those that no order of computing avoids where a network is larger than the caches. Adam reads
each weight, its two moments and its update, and writes the first three; before, the update was written:
8 words per weight. What enters a layer past the first was written once and is read once: 2 K words per
input and pass, as much again for its automatic derivative, 2 words for g. That an update reads it a
second time is not counted: it may still be in a cache.
"""

import dataclasses
import math

import keras

from keras_gevb import layers

WORD = 4  # bytes, float32
ADAM = 8  # words read or written per weight


@dataclasses.dataclass(frozen=True)
class Map:
    """A weight layer, per sample.

    Attributes:
        first: Whether it is on the scalar inputs of the network.
        components: K; 1 for a conventional layer.
        products: Multiply-adds on one component.
        inputs: Numbers that one component of it reads.
        weights: Entries of kernel and bias.
    """

    first: bool
    components: int
    products: int
    inputs: int
    weights: int

    @property
    def forward(self):
        return 2 * self.components * self.products

    @property
    def update(self):
        return self.forward if self.first else 2 * self.products + 2 * self.components * self.inputs

    @property
    def way_back(self):
        return 0 if self.first else 2 * self.products

    @property
    def derivative(self):
        return self.forward if self.first else 2 * self.forward

    @property
    def activity(self):
        """Words of what enters it, if a layer before it had to write them."""
        return 0 if self.first else self.components * self.inputs


def maps(model):
    """The `Map` of each weight layer of a built Sequential model, in order."""
    weighted = [layer for layer in model.layers if layer.trainable_weights]
    return [_map(layer, first=layer is weighted[0]) for layer in weighted]


def _map(layer, first):
    vectorized = getattr(layer, "vectorized", False)
    components = layer.bias.shape[-2] if vectorized else 1
    inputs = math.prod(layer.input.shape[1:])
    products = math.prod(layer.kernel.shape)
    if isinstance(layer, (keras.layers.Conv2D, layers.VectorConv2D)):
        products *= math.prod(layer.output.shape[1:3])  # one kernel serves all positions
    if vectorized and first:
        products //= components  # the kernel has one map for each component
    elif vectorized:
        inputs //= components
    weights = sum(math.prod(variable.shape) for variable in layer.trainable_weights)
    return Map(first, components, products, inputs, weights)


def operations(model, learner, batch_size):
    """Floating-point operations of a step."""
    per_sample = {
        "GEVB": lambda m: m.forward + m.update,
        "GEVB, low memory": lambda m: 2 * m.forward + m.update,
        "Backprop rule": lambda m: m.forward + m.way_back + m.update,
    }.get(learner, lambda m: m.forward + m.derivative)
    return batch_size * sum(map(per_sample, maps(model)))


def unavoidable_bytes(model, learner, batch_size):
    """Bytes that a step with Adam must read or write."""
    written_and_read = {
        "GEVB": lambda m: m.activity,
        "GEVB, low memory": lambda m: 2 * m.activity,
        "Backprop rule": lambda m: m.activity + m.activity // m.components,
    }.get(learner, lambda m: 2 * m.activity)
    activity = 2 * batch_size * sum(map(written_and_read, maps(model)))
    return WORD * (ADAM * sum(m.weights for m in maps(model)) + activity)


def limit_milliseconds(operations, unavoidable_bytes, gflops, gbytes):
    """The least time of a step: all arithmetic at peak, all unavoidable bytes at full bandwidth."""
    return operations / gflops / 1e6 + unavoidable_bytes / gbytes / 1e6
