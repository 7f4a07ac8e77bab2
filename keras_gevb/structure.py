"""Errors that name what a learning rule cannot serve in a network, before any weight changes."""

import keras
import numpy as np
from keras import ops

from keras_gevb import backend, passes, places, private, scopes


def check_weights(model):
    """Raise unless every trainable weight belongs to a place.

    Raises:
        ValueError: naming the layer and what to do.
    """
    # A place that is not called rests, of which Keras warns; so does the rule of a model within.
    rules = [
        part.learning_rule for part in (model, *private.flat_layers(model)) if hasattr(part, "learning_rule")
    ]
    known = {id(v) for place in places.of(model) for v in place.as_layer().weights}
    known |= {id(v) for rule in rules for v in rule.variables}
    orphans = [v for v in model.trainable_variables if id(v) not in known]
    if orphans:
        # The innermost layer that has it.
        layer = [
            layer
            for layer in [model, *private.flat_layers(model)]
            if any(v is orphans[0] for v in layer.trainable_variables)
        ][-1]
        names = [v.name for v in orphans if any(v is other for other in layer.trainable_variables)]
        raise ValueError(
            f"No learning rule updates the weights that '{layer.name}' ({type(layer).__name__}) has beside "
            f"those of its layers. Received: {names}. Move them into a layer, or make them with "
            "trainable=False."
        )


def check_records(model, records):
    """Raise unless a pass called places, all of one kind.

    Raises:
        ValueError: naming the layers and what to do.
    """
    if not records:
        raise ValueError(
            f"Model '{model.name}' has no layer with trainable weights for a learning rule to update. Build "
            "it from keras_gevb.layers, such as VectorDense and VectorReadout, or from layers of Keras."
        )
    _check_units(records)


def find_readouts(records, outputs, behind):
    """The numbers of the records whose outputs become the model's without another place.

    Args:
        records: The records of a pass.
        outputs: What it returned.
        behind: A function `(records, outputs)` to what the model returns where records have these outputs,
            a dict from their numbers.

    Raises:
        ValueError: if the network does not end as its units must.
    """
    last = records[-1]
    flat = keras.tree.flatten(outputs)
    if len(flat) == 1 and last.of_readout().outputs is flat[0]:
        ends = [last.number]
    else:
        ends = _ends(records, behind)
    if not ends:
        raise ValueError(
            "The error vector is the loss's derivative in the outputs of the last weight layers. Received: a "
            "model whose outputs depend on none by a derivative."
        )
    ungated = [record for record in records if record.place.vectorized and record.place.is_readout]
    if len(ungated) > 1:
        raise ValueError(
            "One error vector is broadcast, so a network of vector units has one readout. "
            f"Received: {len(ungated)} readouts, {[record.layer.name for record in ungated]}."
        )
    gated = [records[n].layer for n in ends if records[n].place.is_gated]
    if gated:
        advice = "VectorReadout()" if last.place.vectorized else "Dense(number_of_outputs, gated=False)"
        raise ValueError(
            f"The model must end in a readout, without a gate: add {advice}, and let no other weight layer "
            f"reach the outputs. Received: '{gated[0].name}' ({type(gated[0]).__name__})."
        )
    return ends


def _ends(records, behind):
    """Which records' outputs the model's depend on, all others held."""
    records = [record.of_readout() for record in records]

    def finished(*values):
        outputs = keras.tree.flatten(behind(records, dict(enumerate(values))))
        return [output for output in outputs if backend.is_numbers(output)]

    reach = backend.depends(finished, [record.outputs for record in records])
    return [record.number for record, reaches in zip(records, reach) if reaches]


def _check_units(records):
    by_kind = {record.place.vectorized: record.layer for record in records}
    if len(by_kind) > 1:
        raise ValueError(
            "A network has vector units or conventional ones, not both. Received: layer "
            f"'{by_kind[True].name}' ({type(by_kind[True]).__name__}) and layer "
            f"'{by_kind[False].name}' ({type(by_kind[False]).__name__}). Use the counterpart of the second "
            "in keras_gevb.layers, where it has one; else leave it out, or set its `trainable` to False."
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


def check_read_between(model, found, rule):
    """Raise where a rule has no way back to weights that a model reads itself, between its layers.

    Raises:
        ValueError: naming a weight, and what to do.
    """
    if found and not rule.is_exact:
        raise ValueError(
            f"Model '{model.name}' reads weights beside the layers that have them, so that no signal of "
            f"{type(rule).__name__} reaches them there. Received: {[v.path for v in found]}. Read them in "
            "one layer: keras_gevb.layers.Local around a wrapper, or a kernel_constraint in its place. Or "
            "train by learning_rule='backprop', which is exact."
        )


class _Probe(passes.Recording):
    """A recording with all gates open, whose first layers receive random numbers, whatever they are given."""

    def __init__(self):
        super().__init__()
        self._random = np.random.default_rng(0)

    def run(self, place, inputs):
        if place.vector_dim is not None:
            inputs = ops.convert_to_tensor(self._random.random(inputs.shape), inputs.dtype)
        return self.keep(passes.recorded(self._open, place, len(self.records), inputs))

    @staticmethod
    def _open(place, number, inputs):
        outputs, gate = place.activate(inputs, gated=False)
        return passes.Record(place, number, inputs, gate, outputs)


def check_linear(model, x, forward):
    """Raise unless vector units form a linear network, the same for each component, gates held.

    On random inputs, gates open, with s the last component's sources, p random perturbations and R the pass
    run again, on three points of a line:

        outputs + R(2 p - s) = 2 R(p)

    up to rounding of what stands there and, where that cancels, of R(|s| + 2 |p|) - R(0). The model is left
    as it was.

    Args:
        model: A built model.
        x: Inputs, of which only shapes and dtypes are read.
        forward: A function `(model, x, training)` to the outputs.

    Raises:
        ValueError: naming the layers among which to look.
    """
    if not any(place.vectorized for place in places.of(model)):
        return
    with backend.now():
        before = backend.stand_ins(model.variables)
        x = keras.tree.map_structure(backend.stand_in, x)

        def run(a_pass):
            with scopes.holding(before), a_pass.in_force():
                forward(model, x, training=True)
            return a_pass

        try:
            records = run(_Probe()).records
        except Exception:
            return  # a model that takes no stand-ins, such as a lookup of known words alone
        if not records or not records[-1].place.vectorized or not records[-1].layer.is_readout:
            return
        logits = records[-1].outputs
        with scopes.holding(before):
            sources = [record.place.source(record, component=-1) for record in records]
        # Products of float32 on a GPU may be in TensorFloat-32, of 11 bits.
        coarse = backend.accelerator().get("products", "float32") != "float32"
        coarse = coarse or any(r.layer.compute_dtype in ("float16", "bfloat16") for r in records)
        random = np.random.default_rng(1)
        # Of several sizes, since a network may bend far from 0 only.
        sizes = np.array([1.0, 1.0, 4.0, 16.0] if coarse else [0.01, 1.0, 30.0, 1000.0])

        def perturbation(source):
            numbers = random.standard_normal(source.shape)
            rows = np.resize(sizes, (len(numbers), *[1] * (numbers.ndim - 1)))
            return ops.cast(numbers * rows, source.dtype)

        pairs = [(s, perturbation(s)) for s in sources]

        def end(start):
            outputs = run(passes.Again(records, [start(s, p) for s, p in pairs])).outputs[-1]
            return ops.convert_to_numpy(ops.cast(outputs, "float32"))

        try:
            outputs = ops.convert_to_numpy(ops.cast(logits[:, -1:], "float32"))
            middle, beyond = end(lambda s, p: p), end(lambda s, p: 2 * p - s)
        except Exception as error:
            raise ValueError(
                "What stands between vector units must take one component as it takes all K of them, with "
                "the same weights. Reshape whole vectors by VectorReshape, which leaves K open. "
                f"Received: {str(error).strip()}"
            ) from error
        rounding = 0.05 if coarse else 1e-4
        with np.errstate(all="ignore"):  # a deep network may overflow
            error = np.abs(outputs + beyond - 2 * middle)
            size = np.abs([outputs, beyond, 2 * middle]).sum(axis=0)
            if np.any(error > rounding * size):
                size += np.abs(end(lambda s, p: ops.abs(s) + 2 * ops.abs(p)) - end(lambda s, p: 0 * p))
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
        "for Dropout take keras_gevb.layers.VectorDropout, which drops units with all their components."
    )


def is_ours(layer):
    """Whether a layer is one of this package: a weight layer, or one that shapes vectors."""
    return keras.saving.get_registered_name(type(layer)).startswith("keras_gevb>")
