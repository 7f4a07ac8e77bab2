"""Errors that name what a learning rule cannot serve in a network, before any weight changes."""

import warnings

import keras
import numpy as np
from keras import ops

from keras_gevb import backend, passes, private, scopes


def check_network(model, records, outputs):
    """Raise unless every trainable weight belongs to a weight layer, and the last one gives the outputs.

    Raises:
        ValueError: naming the layer and what to do.
    """
    if not records:
        raise ValueError(
            f"Model '{model.name}' has no weight layer for a learning rule to update. Build it from "
            "keras_gevb.layers, such as VectorDense and VectorReadout."
        )
    _check_readout(records, outputs)
    _check_units(records)
    served = {id(v) for record in records for v in record.layer.trainable_variables}
    served |= {id(v) for v in model.learning_rule.variables}
    orphans = [v for v in model.trainable_variables if id(v) not in served]
    ours = {id(v): layer for layer in private.flat_layers(model) if is_ours(layer) for v in layer.weights}
    idle = {ours[id(v)].name for v in orphans if id(v) in ours}
    if idle:
        warnings.warn(f"Layers that are not called do not learn. Received: {sorted(idle)}.", stacklevel=2)
    orphans = [v for v in orphans if id(v) not in ours]
    if orphans:
        # The innermost layer that has it.
        layer = [
            layer
            for layer in [model, *private.flat_layers(model)]
            if any(v is orphans[0] for v in layer.trainable_variables)
        ][-1]
        names = [v.name for v in orphans if any(v is other for other in layer.trainable_variables)]
        raise ValueError(
            f"No learning rule updates layer '{layer.name}' ({type(layer).__name__}), but it has "
            f"trainable weights. Received: {names}. Use its counterpart in keras_gevb.layers, "
            "or set its `trainable` to False."
        )


def _check_readout(records, outputs):
    last = records[-1].layer
    ungated = [r.layer.name for r in records if r.layer.is_readout]
    if len(ungated) > 1:
        raise ValueError(
            "One error vector is broadcast, so a model has one readout. "
            f"Received: {len(ungated)} readouts, {ungated}."
        )
    if not ungated:
        advice = "VectorReadout()" if last.vectorized else "Dense(number_of_outputs, gated=False)"
        raise ValueError(
            f"The model must end in a readout, without a gate: add {advice}. "
            f"Received: last weight layer '{last.name}' ({type(last).__name__})."
        )
    outputs = keras.tree.flatten(outputs)
    if len(outputs) > 1:
        raise ValueError(
            "The error vector is the loss's derivative in the outputs of one readout, so a model has one "
            f"output. Received: {len(outputs)} outputs. Take the others from another model of these layers."
        )
    if not last.is_readout or outputs[0] is not records[-1].outputs:
        raise ValueError(
            f"The readout '{ungated[0]}' must be the last layer, since the error vector is the loss's "
            "derivative in its outputs, the logits. Received: layers that follow it. Remove them: a "
            "softmax belongs into the loss (from_logits=True), a dtype into the readout "
            "(dtype='float32')."
        )


def _check_units(records):
    by_kind = {record.layer.vectorized: record.layer for record in records}
    if len(by_kind) > 1:
        raise ValueError(
            "A network has vector units or conventional ones, not both. Received: layer "
            f"'{by_kind[True].name}' ({type(by_kind[True]).__name__}) and layer "
            f"'{by_kind[False].name}' ({type(by_kind[False]).__name__})."
        )


def check_added_losses(model, rule, added):
    """Raise where layers add losses of activity, which act through others, and the rule has no way back.

    Args:
        model: A model that has been called.
        rule: A learning rule.
        added: The number of such losses.

    Raises:
        ValueError: naming the layer, and the rule that serves it.
    """
    if not added or rule.is_exact:
        return
    names = [
        f"'{layer.name}' ({type(layer).__name__})"
        for layer in private.flat_layers(model)
        if len(layer.losses) > sum(v.regularizer is not None for v in layer.trainable_variables)
    ]
    raise ValueError(
        f"Layer {names[-1]} adds a loss (by add_loss, or an activity regularizer), which is not local: its "
        f"gradient runs through other layers. Received: learning rule {type(rule).__name__}. Regularize "
        "kernels instead (kernel_regularizer), or train by learning_rule='backprop', which is exact."
    )


class _Probe(passes.Recording):
    """A recording with all gates open, whose first layers receive random numbers, whatever they are given."""

    def __init__(self):
        super().__init__()
        self._random = np.random.default_rng(0)

    def run(self, layer, inputs):
        if layer.vector_dim is not None:
            inputs = ops.convert_to_tensor(self._random.random(inputs.shape), inputs.dtype)
        return self.keep(layer, inputs, *layer.activate(inputs, gated=False))


def check_linear(model, x, forward):
    """Raise unless vector units form a linear network, the same for each component, gates held.

    On random inputs, gates open, with s the last component's sources, p random perturbations and R the pass
    run again:

        R(s - 2 p) = outputs - 2 (R(p) - R(0))

    up to rounding of what stands there and of R(|s| + 2 |p|) - R(0). The model is left as it was.

    Args:
        model: A built model.
        x: Inputs, of which only shapes and dtypes are read.
        forward: A function `(model, x, training)` to the outputs.

    Raises:
        ValueError: naming the layers among which to look.
    """
    with backend.now():
        before = backend.stand_ins(model.variables)
        x = keras.tree.map_structure(backend.stand_in, x)

        def run(a_pass):
            with scopes.holding(before), a_pass.in_force():
                return keras.tree.flatten(forward(model, x, training=True))[0]

        recording = _Probe()
        try:
            logits = run(recording)
        except Exception:
            return  # a model that takes no stand-ins, such as a lookup of known words alone
        records = recording.records
        if not records or not records[-1].layer.vectorized or logits is not records[-1].outputs:
            return
        with scopes.holding(before):
            sources = [record.layer.source(record, component=-1) for record in records]
        # Products of float32 on a GPU may be in TensorFloat-32, of 11 bits.
        coarse = backend.accelerator().get("products", "float32") != "float32"
        coarse = coarse or any(r.layer.compute_dtype in ("float16", "bfloat16") for r in records)
        random = np.random.default_rng(1)
        # Of several sizes, since a network may bend far from 0 only.
        sizes = np.array([1.0, 1.0, 4.0, 16.0] if coarse else [0.01, 1.0, 30.0, 1000.0])

        def perturbation(source):
            numbers = random.standard_normal(source.shape)
            return ops.cast(numbers * sizes.reshape(-1, *[1] * (numbers.ndim - 1)), source.dtype)

        pairs = [(s, perturbation(s)) for s in sources]
        starts = (
            [ops.zeros_like(s) for s in sources],
            [p for _, p in pairs],
            [s - 2 * p for s, p in pairs],
            [ops.abs(s) + 2 * ops.abs(p) for s, p in pairs],
        )
        try:
            ends = [logits[:, -1:], *(run(passes.Again(records, start)) for start in starts)]
        except Exception as error:
            raise ValueError(
                "What stands between vector units must take one component as it takes all K of them, with "
                "the same weights. Leave K open where a layer names it (-1 in a Reshape). "
                f"Received: {str(error).strip()}"
            ) from error
        outputs, rest, once, reverse, most = (ops.convert_to_numpy(ops.cast(e, "float32")) for e in ends)
    rounding = 0.05 if coarse else 1e-4
    with np.errstate(all="ignore"):  # a deep network may overflow
        error = np.abs(reverse - outputs + 2 * (once - rest))
        # Each of these may cancel, but not all of them.
        size = np.abs([outputs, reverse, once - rest, most - rest]).sum(axis=0)
        if not np.any(error > rounding * size):
            return
    recorded = {id(record.layer) for record in records}
    between = [
        layer.name
        for layer in private.flat_layers(model)
        if id(layer) not in recorded
        and not is_ours(layer)
        and not isinstance(layer, (keras.layers.InputLayer, keras.Model))
    ]
    raise ValueError(
        "Between vector units a network must be linear, and the same for each component, while their gates "
        f"are held; this one is not. Received, besides weight layers: {between}. Leave nonlinear layers out; "
        "for Dropout take keras.layers.SpatialDropout1D, which drops units with all their components."
    )


def is_ours(layer):
    """Whether a layer is one of this package: a weight layer, or one that shapes vectors."""
    return keras.saving.get_registered_name(type(layer)).startswith("keras_gevb>")
