"""Outputs and updates equal those of the paper's own implementation, on every parameter."""

import pathlib

import keras
import numpy as np
import pytest

import keras_gevb
from keras_gevb import layers

GOLDEN = pathlib.Path(__file__).parent / "golden"
# Computed in float32 by another program.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(params=sorted(path.stem for path in GOLDEN.glob("*.npz")))
def golden(request):
    with np.load(GOLDEN / f"{request.param}.npz") as data:
        return {"nonnegative": request.param.endswith("nonneg"), **data}


def test_all_six_files_are_there():
    assert len(list(GOLDEN.glob("*.npz"))) == 6


@pytest.mark.sampled(3)
def test_the_logits_are_the_papers(golden):
    model, _ = build(golden)
    np.testing.assert_allclose(model.predict_on_batch(inputs(golden)), golden["logits"], **CLOSE)


@pytest.mark.parametrize(("learning_rule", "key"), [("gevb", "gevb"), ("backprop", "bp")])
def test_the_updates_are_the_papers(golden, learning_rule, key):
    model, places = build(golden)
    updates = model.compute_updates(inputs(golden), golden["y"], learning_rule=learning_rule)
    expected = [
        value
        for place, layer in places.items()
        for value in ours(golden, f"{key}/{place}", layer, int(golden["K"]))
    ]
    assert len(updates) == len(expected)
    for update, wanted, variable in zip(updates, expected, model.trainable_variables, strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(update), wanted, **CLOSE, err_msg=variable.path)


def build(golden):
    """The model with the file's weights, and its weight layers by their position in the file."""
    components, names = int(golden["K"]), list(golden["layers"])
    chain, places = [keras.Input(inputs(golden).shape[1:])], {}
    for place, name in enumerate(names):
        if name == "AvgPool2d":
            chain.append(layers.VectorAveragePooling2D(2))
        elif name == "Flatten":
            chain.append(layers.VectorFlatten())
        elif name in ("Linear", "Conv2d", "Local2d"):
            places[place] = layer(golden, place, name, is_last=place == len(names) - 1)
            chain.append(places[place])
    model = keras_gevb.Sequential(chain)
    for place, weight_layer in places.items():
        kernel, bias = ours(golden, f"param/{place}", weight_layer, components)
        weight_layer.kernel.assign(kernel)
        weight_layer.bias.assign(bias)
        if weight_layer.gated:
            gates = golden[f"param/{place + 1}.t"]
            # (K, out, H', W'), equal at all positions.
            weight_layer.gates.assign(gates.reshape(*gates.shape[:2], -1)[..., 0])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model, places


def layer(golden, place, name, is_last):
    if is_last:
        return layers.VectorReadout(nonnegative=golden["nonnegative"])
    weight = golden[f"param/{place}.weight"]
    first = {"vector_dim": int(golden["K"]), "nonnegative": False}
    settings = first if place == 0 else {"nonnegative": golden["nonnegative"]}
    if name == "Linear":
        return layers.VectorDense(weight.shape[0], **settings)
    window = weight.shape[-1]
    settings |= {"padding": "same"} if window == 3 else {"strides": 2}
    kind = {"Conv2d": layers.VectorConv2D, "Local2d": layers.VectorLocallyConnected2D}[name]
    return kind(weight.shape[0], window, **settings)


def inputs(golden):
    x = golden["x"]
    return np.moveaxis(x, 1, -1) if x.ndim == 4 else x


def ours(golden, key, layer, components):
    """Kernel and bias, from channels first to channels last."""
    kernel, bias = golden[f"{key}.weight"], golden[f"{key}.bias"]
    units, *positions_and_inputs = kernel.shape
    rank = {"VectorConv2D": 2, "VectorLocallyConnected2D": 4}.get(type(layer).__name__, 0)
    position_rank = rank // 2 if rank == 4 else 0
    positions, channels = positions_and_inputs[:position_rank], positions_and_inputs[position_rank]
    window = kernel.shape[kernel.ndim - 2 :] if rank else ()
    copies = () if layer.vector_dim is None else (components,)
    # (out, H', W', K, in, kh, kw) to (H', W', kh, kw, in, K, out)
    split = kernel.reshape(units, *positions, *copies, channels // int(np.prod(copies)), *window)
    p, c = len(positions), len(copies)
    order = [*range(1, 1 + p), *range(2 + p + c, split.ndim), 1 + p + c, *range(1 + p, 1 + p + c), 0]
    # (K, out, H', W') to (H', W', K, out)
    return split.transpose(order), bias.transpose(*range(2, 2 + p), 0, 1) if p else bias
