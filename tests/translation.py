"""Models as chains of `reference` stages."""

import numpy as np
import reference
from networks import array as array

from keras_gevb import places


def translate(model, x):
    """The reference of a sequential model after its forward pass on `x`, and its logits."""
    stages, size, components = [], (1,), None
    for layer in model.layers:
        kind = type(layer).__name__.removeprefix("Vector")
        shape = layer.input.shape[1:]
        vectors = components is not None
        size = (tuple(shape) if kind == "Embedding" else tuple(shape[: -1 - vectors])) or (1,)
        if kind == "Rescaling":
            x = array(layer(x))
        elif kind == "Flatten" and not stages:
            x = x.reshape(len(x), 1, -1)
        elif kind == "Flatten":
            stages.append(reference.Flatten())
        elif "Average" in kind:
            stages.append(reference.AveragePool(size, size if "Global" in kind else layer.pool_size))
        else:
            if kind == "Embedding":
                x = np.eye(layer.input_dim)[x]
            for part in places._within(layer):
                components = getattr(part, "vector_dim", None) or components
                stages.append(_weights(part, size, components or 1))
                size = part.positions(size)
    network = reference.Network(stages, components)
    return network, network.forward(x.reshape(len(x), -1, x.shape[-1]))


def stored(kernel, layer):
    """A kernel in the shape of a reference's `Weights.kernel`: (positions or 1, window, inputs, units)."""
    kernel = array(kernel)
    positions = np.prod(kernel.shape[: layer.positions_rank], dtype=int)
    window = np.prod(getattr(layer, "kernel_size", 1))
    if _channels(layer):
        # (.., C, K, M) to K inputs of each of C groups, whose units are (C, M).
        kernel = kernel.reshape(window, _channels(layer), -1, layer.depth_multiplier)
        return np.moveaxis(kernel, 1, 2).reshape(1, window, -1, layer.units)
    return kernel.reshape(positions, window, -1, kernel.shape[-1])


def _channels(layer):
    """The number of channels that a depthwise convolution sees one by one."""
    return layer.units // layer.depth_multiplier if hasattr(layer, "depth_multiplier") else None


def _weights(layer, size, components):
    vectorized = type(layer).__name__.startswith("Vector")
    groups = _channels(layer) or layer.groups

    def restored(kernel):
        if not _channels(layer):
            return kernel
        kernel = kernel.reshape(*kernel.shape[1:3], groups, layer.depth_multiplier)
        return np.moveaxis(kernel, 1, 2)

    kernel = stored(layer.kernel, layer)
    units = kernel.shape[-1]
    bias = np.zeros((1, components, units)) if layer.bias is None else array(layer.bias)
    bias = bias.reshape(-1, components, units)
    gates = None
    if layer.gated:
        # Conventional units: even ones pass h <= 0, odd ones h >= 0.
        gates = array(layer.gates) if vectorized else np.where(np.arange(units) % 2, 1.0, -1.0)[None]
    if hasattr(layer, "kernel_size"):
        windows = layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate
        links = reference.window_links(size, *windows)
    else:
        links = [[(0, q)] for q in range(np.prod(size))]
    return reference.Weights(kernel, bias, gates, links, groups, restored, layer.bias is not None)
