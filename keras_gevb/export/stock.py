"""Models of stock Keras layers."""

import functools

import keras
from keras import ops

from keras_gevb import layers
from keras_gevb.conversion import copied
from keras_gevb.export.serving import check_built, ends


def to_keras(model):
    """The same function as a model of stock Keras layers only.

    Every weight layer becomes a small model of its name, with copies of its weights:

        h = project(a, W) + b       EinsumDense, or Conv2D or Conv3D
        t . h                       EinsumDense, not trainable
        m h = h where t . h >= 0    keras.ops

    Anyone with Keras loads the saved result. It learns by automatic differentiation.

    Args:
        model: A built model.

    Returns:
        A `keras.Model` with the model's inputs and outputs.

    Raises:
        ValueError: if the model is not built, or has a weight layer of another package.

    Example:

    >>> keras_gevb.export.to_keras(model).save("stock.keras")
    """
    check_built(model)
    functional = keras.Model(*ends(model), name=str(model.name))
    return keras.models.clone_model(functional, clone_function=_stock)


def _stock(layer):
    """A stock layer, or model, with the same function and weights."""
    if isinstance(layer, layers.WeightLayer):
        return _stock_weight_layer(layer)
    if isinstance(layer, layers.VectorFlatten):
        return _as_model(layer, functools.partial(_flatten, layer))
    if isinstance(layer, layers.VectorAveragePooling2D):
        return _as_model(layer, functools.partial(_pool, layer))
    if isinstance(layer, keras.Model):
        return to_keras(layer)
    if isinstance(layer, layers.Local):
        return _stock(layer.layer)
    return copied(layer)


def _as_model(layer, function):
    inputs = keras.Input(layer.input.shape[1:], dtype=layer.input.dtype)
    return keras.Model(inputs, function(inputs), name=layer.name)


def _flatten(layer, vectors):
    *_, components, _ = vectors.shape
    rank = len(vectors.shape) - 1
    order = (rank - 1, *range(1, rank - 1), rank)
    vectors_first = keras.layers.Permute(order, dtype=layer.dtype_policy)(vectors)
    return keras.layers.Reshape((components, -1), dtype=layer.dtype_policy)(vectors_first)


def _pool(layer, vectors):
    height, width, *vector = vectors.shape[1:]
    flat = keras.layers.Reshape((height, width, -1), dtype=layer.dtype_policy)(vectors)
    pooled = keras.layers.AveragePooling2D(
        layer.pool_size, layer.strides, layer.padding, dtype=layer.dtype_policy
    )
    pooled = pooled(flat)
    return keras.layers.Reshape((*pooled.shape[1:3], *vector), dtype=layer.dtype_policy)(pooled)


def _stock_weight_layer(layer):
    maps = {
        layers.VectorDense: _dense,
        layers.VectorReadout: _dense,
        layers.Dense: _dense,
        layers.VectorConv2D: _convolution,
        layers.Conv2D: _convolution,
        layers.VectorLocallyConnected2D: _local_connection,
        layers.LocallyConnected2D: _local_connection,
    }
    if type(layer) not in maps:
        raise ValueError(
            f"Layer '{layer.name}' has no counterpart among Keras's layers. Export the model by "
            f"model.export instead. Received: a layer of type {type(layer).__name__}"
        )

    def function(inputs):
        h = maps[type(layer)](layer, inputs)
        return layer.finish(_gate(layer, h) if layer.gated else h)

    return _as_model(layer, function)


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


def _convolution(layer, inputs):
    kernel, *bias = _weights(layer)
    settings = {"padding": layer.padding, "dtype": layer.dtype_policy}
    if layer.vectorized and layer.vector_dim is None:
        # The vector axis is a third spatial axis that the window does not extend over.
        window, strides = (*layer.kernel_size, 1), (*layer.strides, 1)
        convolution = keras.layers.Conv3D(layer.units, window, strides, use_bias=False, **settings)
        h = convolution(inputs)
        convolution.set_weights([kernel[:, :, None]])
        if not bias:
            return h
        ones = ops.convert_to_numpy(ops.ones_like(bias[0]))
        return _einsum(layer, "bhwki,ki->bhwki", h.shape[1:], [ones, *bias], "ki")(h)
    *components, units = kernel.shape[3:]
    filters = units * (components[0] if components else 1)
    convolution = keras.layers.Conv2D(
        filters, layer.kernel_size, layer.strides, use_bias=bool(bias), **settings
    )
    h = convolution(inputs)
    convolution.set_weights([kernel.reshape(*kernel.shape[:3], filters), *(b.reshape(-1) for b in bias)])
    return keras.layers.Reshape((*h.shape[1:3], *components, units), dtype=layer.dtype_policy)(h)


def _local_connection(layer, inputs):
    kernel, *bias = _weights(layer)
    patches = _patches(layer, inputs)
    positions, size = kernel.shape[:2], patches.shape[-1]
    kernel = kernel.reshape(*positions, size, *kernel.shape[5:])
    if not layer.vectorized:
        equation, bias_axes = "bhwj,hwji->bhwi", "hwi"
    elif layer.vector_dim is None:
        equation, bias_axes = "bhwkj,hwji->bhwki", "hwki"
    else:
        equation, bias_axes = "bhwj,hwjki->bhwki", "hwki"
    vector = (inputs.shape[3] if layer.vector_dim is None else layer.vector_dim,) if layer.vectorized else ()
    bias_axes = bias_axes if layer.use_bias else None
    return _einsum(layer, equation, (*positions, *vector, layer.units), [kernel, *bias], bias_axes)(patches)


def _patches(layer, inputs):
    """The windows, side by side: a convolution that copies each input of a window to a channel of its own."""
    rank = len(inputs.shape) - 2
    (rows, columns), channels = layer.kernel_size, inputs.shape[-1]
    size = rows * columns * channels
    convolution = (keras.layers.Conv2D if rank == 2 else keras.layers.Conv3D)(
        size,
        (rows, columns, 1)[:rank],
        (*layer.strides, 1)[:rank],
        padding=layer.padding,
        use_bias=False,
        trainable=False,
        dtype=layer.dtype_policy,
    )
    patches = convolution(inputs)
    identity = ops.convert_to_numpy(ops.eye(size))
    convolution.set_weights([identity.reshape(rows, columns, *(1,) * (rank - 2), channels, size)])
    return patches


def _gate(layer, h):
    dtype = keras.backend.result_type(layer.variable_dtype, "float32")
    if not layer.vectorized:
        # Where sign h >= 0, h passes: sign relu(sign h).
        policy = layer.dtype_policy
        flip = functools.partial(keras.layers.Rescaling, [float(g) for g in layer.gates], dtype=policy)
        return flip()(keras.layers.ReLU(dtype=policy)(flip()(h)))
    space = "hw"[: len(h.shape) - 3]
    gates = ops.convert_to_numpy(layer.gates)
    shape = (*h.shape[1:-2], h.shape[-1])
    aligned = _einsum(layer, f"b{space}ki,ki->b{space}i", shape, [gates], dtype=dtype, trainable=False)(h)
    return ops.where(ops.expand_dims(aligned >= 0, -2), h, ops.zeros_like(h))
