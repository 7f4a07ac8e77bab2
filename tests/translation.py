"""Models as chains of `reference` stages."""

import numpy as np
import reference
from networks import array as array


def translate(model, x):
    """The reference of a sequential model after its forward pass on `x`, and its logits."""
    stages, size, components = [], (1, 1), None
    for layer in model.layers:
        kind = type(layer).__name__.removeprefix("Vector")
        size = layer.input.shape[1:3] if len(layer.input.shape) > 3 else (1, 1)
        if kind == "Rescaling":
            x = array(layer(x))
        elif kind == "Flatten" and not stages:
            x = x.reshape(len(x), 1, -1)
        elif kind == "Flatten":
            stages.append(reference.Flatten())
        elif kind == "AveragePooling2D":
            stages.append(reference.AveragePool(size, layer.pool_size))
        else:
            components = getattr(layer, "vector_dim", None) or components
            stages.append(_weights(layer, kind, size))
    network = reference.Network(stages, components)
    return network, network.forward(x.reshape(len(x), -1, x.shape[-1]))


def stored(kernel, layer):
    """A kernel in the shape of a reference's `Weights.kernel`: (positions or 1, window, inputs, units)."""
    kernel = array(kernel)
    positions = np.prod(kernel.shape[:2]) if "Local" in type(layer).__name__ else 1
    window = np.prod(getattr(layer, "kernel_size", 1))
    return kernel.reshape(positions, window, -1, kernel.shape[-1])


def _weights(layer, kind, size):
    kernel = stored(layer.kernel, layer)
    vectorized = type(layer).__name__.startswith("Vector")
    components = (layer.vector_dim or layer.input.shape[-2]) if vectorized else 1
    units = kernel.shape[-1]
    bias = np.zeros((1, components, units)) if layer.bias is None else array(layer.bias)
    bias = bias.reshape(-1, components, units)
    gates = None
    if layer.gated:
        # Conventional units: even ones pass h <= 0, odd ones h >= 0.
        gates = array(layer.gates) if vectorized else np.array([[-1.0, 1.0] * (units // 2)])
    if kind in ("Dense", "Readout"):
        links = [[(0, 0)]]
    else:
        links = reference.window_links(size, layer.kernel_size, layer.strides, layer.padding)
    return reference.Weights(kernel, bias, gates, links)
