"""Models of stock Keras layers."""

import functools
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gevb import layers
from keras_gevb.conversion import copied
from keras_gevb.export.serving import check_built, ends


def to_keras(model: Any) -> Any:
    """The same function as a model of stock Keras layers only.

    Every weight layer becomes a small model of its name, with copies of its weights:

        h = project(a, W) + b       EinsumDense, or a convolution
        t . h                       EinsumDense, not trainable
        m h = h where t . h >= 0    keras.ops

    Anyone with Keras loads the saved result. It learns by automatic differentiation.

    Args:
        model: A built model.

    Returns:
        A `keras.Model` with the model's inputs and outputs.

    Raises:
        ValueError: if the model is not built, has a weight layer of another package, or several open
            extents of space.

    Example:

    >>> keras_gevb.export.to_keras(model).save("stock.keras")
    """
    check_built(model)
    functional = keras.Model(*ends(model), name=str(model.name))
    stock = keras.models.clone_model(functional, clone_function=_stock)
    stock.dtype_policy = model.dtype_policy
    return stock


def _stock(layer):
    """A stock layer, or model, with the same function and weights."""
    if isinstance(layer, layers.WeightLayer):
        return _as_model(layer, functools.partial(_weight_layer, layer))
    for kind, function in _SHAPING.items():
        if isinstance(layer, kind):
            return _as_model(layer, functools.partial(function, layer))
    if isinstance(layer, keras.Model):
        return to_keras(layer)
    if isinstance(layer, layers.Local):
        return _stock(layer.layer)
    return copied(layer)


def _as_model(layer, function):
    if isinstance(layer.input, list):
        raise ValueError(
            f"Layer '{layer.name}' has no counterpart of Keras that takes a mask. Export the model "
            "by model.export instead, or leave out mask_zero. Received: a masked input."
        )
    inputs = keras.Input(layer.input.shape[1:], dtype=layer.input.dtype)
    return keras.Model(inputs, function(inputs), name=layer.name)


def _reshape(layer, vectors):
    policy, rank = {"dtype": layer.dtype_policy}, len(vectors.shape) - 1
    *target, components, channels = layer.compute_output_shape(vectors.shape)[1:]
    vectors_first = keras.layers.Permute((rank - 1, *range(1, rank - 1), rank), **policy)(vectors)
    shaped = _to_shape(layer, (components, *target, channels))(vectors_first)
    last = len(target) + 2
    return keras.layers.Permute((*range(2, last), 1, last), **policy)(shaped) if target else shaped


def _pool(layer, vectors):
    """As the layer does it: components are channels for a layer of Keras, which the layer's own class is."""
    *space, components, channels = vectors.shape[1:]
    kind = getattr(keras.layers, type(layer).__name__.removeprefix("Vector"))
    folded = _to_shape(layer, (*space, components * channels))(vectors)
    pooled = kind.from_config({**layer.get_config(), "name": None})(folded)
    return _to_shape(layer, (*pooled.shape[1:-1], components, channels))(pooled)


def _to_shape(layer, shape):
    """The layer that reshapes: Keras has one for a single extent that is not known."""
    if list(shape).count(None) > 1:
        raise ValueError(
            f"Layer '{layer.name}' has no counterpart of Keras where several extents of space are open. "
            "Build the model on inputs of a known size, or export it by model.export. "
            f"Received: shape {tuple(shape)}."
        )
    return keras.layers.Reshape(shape, dtype=layer.dtype_policy)


def _drop(layer, vectors):
    noise_shape = (*(None,) * (len(vectors.shape) - 2), 1, None)
    return keras.layers.Dropout(layer.rate, noise_shape, layer.seed, dtype=layer.dtype_policy)(vectors)


def _decode(layer, numbers):
    dense = keras.layers.Dense(layer.classes, use_bias=False, trainable=False, dtype=layer.dtype_policy)
    logits = dense(numbers)
    dense.set_weights([ops.convert_to_numpy(layer.code)])
    return logits


def _separable_convolution(layer, inputs):
    return _weight_layer(layer.pointwise, _weight_layer(layer.depthwise, inputs))


def _weight_layer(layer, inputs):
    if type(layer) not in _WEIGHT_LAYERS:
        raise ValueError(
            f"Layer '{layer.name}' has no counterpart among Keras's layers. Export the model by "
            f"model.export instead. Received: a layer of type {type(layer).__name__}"
        )
    h = _WEIGHT_LAYERS[type(layer)](layer, inputs)
    return layer.finish(_gate(layer, h) if layer.gated else h)


def _einsum(layer, equation, output_shape, weights, bias_axes=None, **settings):
    """A function of the inputs: an EinsumDense with these weights."""

    def function(inputs):
        einsum = keras.layers.EinsumDense(
            equation, output_shape, bias_axes=bias_axes, **{"dtype": layer.dtype_policy, **settings}
        )
        outputs = einsum(inputs)
        einsum.set_weights(weights)
        return outputs

    return function


def _weights(layer):
    return [ops.convert_to_numpy(v) for v in (layer.kernel, layer.bias) if v is not None]


def _dense(layer, inputs):
    # k: components, j: inputs, i: units
    if not layer.vectorized:
        equation, shape, bias_axes = "bj,ji->bi", (layer.units,), "i"
    elif layer.vector_dim is None:
        equation, shape, bias_axes = "bkj,ji->bki", (inputs.shape[1], layer.units), "ki"
    else:
        equation, shape, bias_axes = "bj,jki->bki", (layer.vector_dim, layer.units), "ki"
    bias_axes = bias_axes if layer.use_bias else None
    return _einsum(layer, equation, shape, _weights(layer), bias_axes)(inputs)


def _components(layer, inputs):
    """K, as a tuple; of conventional units an empty one."""
    if not layer.vectorized:
        return ()
    return (inputs.shape[-2] if layer.vector_dim is None else layer.vector_dim,)


def _embedding(layer, tokens):
    kernel, *bias = _weights(layer)
    size = (layer.vector_dim, layer.units)
    policy = {"dtype": layer.dtype_policy}
    embedding = keras.layers.Embedding(layer.input_dim, math.prod(size), mask_zero=layer.mask_zero, **policy)
    h = embedding(tokens)
    embedding.set_weights([kernel.reshape(layer.input_dim, -1)])
    h = _to_shape(layer, (*tokens.shape[1:], *size))(h)
    return _plus_bias(layer, h, bias)


def _plus_bias(layer, h, bias):
    if not bias:
        return h
    axes = _SPACE[: len(h.shape) - 3] + "ki"
    ones = ops.convert_to_numpy(ops.ones_like(bias[0]))
    return _einsum(layer, f"b{axes},ki->b{axes}", h.shape[1:], [ones, *bias], "ki")(h)


# Axes of space in an equation.
_SPACE = "hwd"


def _convolution(layer, inputs):
    kernel, *bias = _weights(layer)
    rank, groups = layer.space_rank, layer.groups
    settings = {"groups": groups, "dtype": layer.dtype_policy}
    window = {"kernel_size": layer.kernel_size, "strides": layer.strides, "padding": layer.padding}
    window["dilation_rate"] = layer.dilation_rate
    kind = getattr(keras.layers, f"Conv{rank}D")
    if layer.vectorized and layer.vector_dim is None:
        h = _convolution_of_vectors(layer, inputs, kind, kernel, window, settings)
        return _plus_bias(layer, h, bias)
    *components, units = kernel.shape[rank + 1 :]
    # Units of a group stand side by side: (groups, K, units of a group).
    copies = math.prod(components)

    def by_group(weights):
        weights = weights.reshape(*weights.shape[: weights.ndim - 1 - len(components)], copies, groups, -1)
        return np.moveaxis(weights, -2, -3).reshape(*weights.shape[:-3], -1)

    convolution = kind(units * copies, use_bias=bool(bias), **window, **settings)
    h = convolution(inputs)
    convolution.set_weights([by_group(kernel), *map(by_group, bias)])
    return _by_component(layer, h, groups, components, units)


def _by_component(layer, h, groups, components, units):
    """From (groups, K, units of a group), side by side, to vectors."""
    if not components:
        return h
    policy, space = {"dtype": layer.dtype_policy}, h.shape[1:-1]
    if groups > 1:
        h = _to_shape(layer, (*space, groups, *components, units // groups))(h)
        rank = len(space)
        order = (*range(1, rank + 1), rank + 2, rank + 1, rank + 3)
        h = keras.layers.Permute(order, **policy)(h)
    return _to_shape(layer, (*space, *components, units))(h)


def _convolution_of_vectors(layer, inputs, kind, kernel, window, settings):
    rank, policy = layer.space_rank, {"dtype": layer.dtype_policy}
    if rank == 3:
        # No layer convolves over four axes, so each component is a step of time.
        inputs = keras.layers.Permute((4, 1, 2, 3, 5), **policy)(inputs)
        convolution = kind(layer.units, use_bias=False, **window, **settings)
        h = keras.layers.TimeDistributed(convolution, **policy)(inputs)
        convolution.set_weights([kernel])
        return keras.layers.Permute((2, 3, 4, 1, 5), **policy)(h)
    # The vector axis is one more spatial axis, that the window does not extend over.
    if layer.padding == "causal":
        before = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
        inputs = keras.layers.ZeroPadding2D(((before, 0), (0, 0)), **policy)(inputs)
        window["padding"] = "valid"
    window = {k: v if k == "padding" else (*v, 1) for k, v in window.items()}
    kind = getattr(keras.layers, f"Conv{rank + 1}D")
    convolution = kind(layer.units, use_bias=False, **window, **settings)
    h = convolution(inputs)
    convolution.set_weights([np.expand_dims(kernel, rank)])
    return h


def _depthwise_convolution(layer, inputs):
    kernel, *bias = _weights(layer)
    policy, components = {"dtype": layer.dtype_policy}, _components(layer, inputs)
    *space, channels = inputs.shape[1:3] + inputs.shape[-1:]
    on_vectors = layer.vectorized and layer.vector_dim is None
    if on_vectors:
        # The channels of all components, side by side.
        inputs = _to_shape(layer, (*space, components[0] * channels))(inputs)
        kernel = np.tile(kernel, (1, 1, components[0], 1))
    kernel = kernel.reshape(*layer.kernel_size, inputs.shape[-1], -1)
    convolution = keras.layers.DepthwiseConv2D(
        layer.kernel_size,
        layer.strides,
        layer.padding,
        kernel.shape[-1],
        dilation_rate=layer.dilation_rate,
        use_bias=not layer.vectorized and bool(bias),
        **policy,
    )
    h = convolution(inputs)
    convolution.set_weights([kernel, *(bias if not layer.vectorized else ())])
    if on_vectors:
        h = _to_shape(layer, (*h.shape[1:3], *components, layer.units))(h)
    else:
        h = _by_component(layer, h, channels, components, layer.units)
    return _plus_bias(layer, h, bias) if layer.vectorized else h


def _local_connection(layer, inputs):
    kernel, *bias = _weights(layer)
    rank = layer.space_rank
    patches = _patches(layer, inputs)
    positions, size = kernel.shape[:rank], patches.shape[-1]
    kernel = kernel.reshape(*positions, size, *kernel.shape[2 * rank + 1 :])
    components = _components(layer, inputs)
    # k: components, j: inputs, i: units
    space, units = _SPACE[:rank], "ki" if layer.vectorized else "i"
    a, w = ("kj", "ji") if layer.vectorized and layer.vector_dim is None else ("j", f"j{units}")
    einsum = _einsum(
        layer,
        f"b{space}{a},{space}{w}->b{space}{units}",
        (*positions, *components, layer.units),
        [kernel, *bias],
        space + units if layer.use_bias else None,
    )
    return einsum(patches)


def _patches(layer, inputs):
    """The windows, side by side: a convolution that copies each input of a window to a channel of its own."""
    rank, channels = len(inputs.shape) - 2, inputs.shape[-1]
    window = (*layer.kernel_size, 1)[:rank]
    size = math.prod(window) * channels
    convolution = getattr(keras.layers, f"Conv{rank}D")(
        size,
        window,
        (*layer.strides, 1)[:rank],
        padding=layer.padding,
        use_bias=False,
        trainable=False,
        dtype=layer.dtype_policy,
    )
    patches = convolution(inputs)
    identity = ops.convert_to_numpy(ops.eye(size))
    convolution.set_weights([identity.reshape(*window, channels, size)])
    return patches


def _gate(layer, h):
    if layer.activation is not None:
        return keras.layers.Activation(layer.activation, dtype=layer.dtype_policy)(h)
    dtype = keras.backend.result_type(layer.variable_dtype, "float32")
    if not layer.vectorized:
        # Where sign h >= 0, h passes: sign relu(sign h).
        policy = layer.dtype_policy
        flip = functools.partial(keras.layers.Rescaling, [float(g) for g in layer.gates], dtype=policy)
        return flip()(keras.layers.ReLU(dtype=policy)(flip()(h)))
    space = _SPACE[: len(h.shape) - 3]
    gates = ops.convert_to_numpy(layer.gates)
    shape = (*h.shape[1:-2], h.shape[-1])
    aligned = _einsum(layer, f"b{space}ki,ki->b{space}i", shape, [gates], dtype=dtype, trainable=False)(h)
    return ops.where(ops.expand_dims(aligned >= 0, -2), h, ops.zeros_like(h))


def _each(name, function, ranks=(1, 2, 3)):
    """Pairs (class, function) of a kind of layer, of all ranks."""
    found = [f"{units}{name}{rank}D" for units in ("Vector", "") for rank in ranks]
    return dict.fromkeys([getattr(layers, n) for n in found if hasattr(layers, n)], function)


_WEIGHT_LAYERS = {
    **dict.fromkeys([layers.VectorDense, layers.VectorReadout, layers.Dense], _dense),
    layers.VectorEmbedding: _embedding,
    **_each("Conv", _convolution),
    **_each("DepthwiseConv", _depthwise_convolution),
    **_each("LocallyConnected", _local_connection),
}
_SHAPING = {
    **dict.fromkeys([layers.VectorReshape, layers.VectorFlatten], _reshape),
    layers.VectorDropout: _drop,
    layers.OutputCode: _decode,
    **_each("SeparableConv", _separable_convolution),
    **_each("AveragePooling", _pool),
    **_each("GlobalAveragePooling", _pool),
}
