"""Errors that name what a learning rule cannot serve, before any weight changes."""

import inspect

import keras
import numpy as np
from keras import ops

from keras_gevb import backend
from keras_gevb.trace import Trace
from keras_gevb.version import __version__


def check_network(model, trace):
    """Raise unless every trainable weight belongs to a weight layer, and one is the output.

    Raises:
        ValueError: naming the layer and what to do.
    """
    records = trace.records
    if not records:
        raise ValueError(
            f"Model '{model.name}' has no weight layer for a learning rule to update. Build it from "
            "keras_gevb.layers, such as VectorDense and VectorReadout."
        )
    _check_output(records, trace.outputs)
    _check_units(records)
    served = {id(v) for record in records for v in record.layer.trainable_variables}
    for layer in model._flatten_layers(include_self=False):
        regularizer = getattr(layer, "activity_regularizer", None)
        if regularizer is not None:
            raise ValueError(
                f"Layer '{layer.name}' has an activity regularizer, which is not local: no learning "
                f"rule can serve it. Regularize its kernel instead. Received: {regularizer}"
            )
        orphans = [v.name for v in layer._trainable_variables if id(v) not in served]
        if layer.trainable and orphans:
            raise ValueError(
                f"No learning rule updates layer '{layer.name}' ({type(layer).__name__}), but it has "
                f"trainable weights. Received: {orphans}. Use its counterpart in keras_gevb.layers, "
                "or set its `trainable` to False."
            )


def _check_output(records, outputs):
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
    if not last.is_readout or outputs is not records[-1].outputs:
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


def check_linear(model):
    """Raise unless vector units form a linear network, the same for each component, gates held.

    On random inputs, with s the last component's sources and R their replay:

        R(s) = outputs        R(-2 s) - R(0) = -2 (R(s) - R(0))

    up to rounding of R(|s|) - R(0), since the outputs themselves may cancel.

    Raises:
        ValueError: naming the layers among which to look.
    """
    inputs = getattr(model, "inputs", None)
    if not inputs or not all(keras.backend.is_float_dtype(i.dtype) for i in inputs):
        return
    random = np.random.default_rng(0)
    shapes = [[n or 8 for n in tensor.shape] for tensor in inputs]
    x = [ops.convert_to_tensor(random.random(shape), i.dtype) for shape, i in zip(shapes, inputs)]
    with keras.StatelessScope():
        trace = Trace(model, x if len(x) > 1 else x[0])
        check_network(model, trace)
        last = trace.records[-1].layer
        if not last.vectorized:
            return
        sources = [record.layer.source(record, component=-1) for record in trace.records]
        replays = [[f(s) for s in sources] for f in (ops.zeros_like, lambda s: -2 * s, ops.abs)]
        ends = [trace.outputs[:, -1:], *map(trace.replay, replays)]
    once, rest, reverse, most = (ops.convert_to_numpy(ops.cast(end, "float32")) for end in ends)
    rounding = 0.02 if last.compute_dtype in ("float16", "bfloat16") else 1e-4
    with np.errstate(all="ignore"):  # a deep network may overflow
        error = np.abs(reverse - rest + 2 * (once - rest))
        if not np.any(error > rounding * np.abs(most - rest).max()):
            return
    between = [layer.name for layer in model._flatten_layers(include_self=False) if _may_bend(layer)]
    raise ValueError(
        "Between vector units a network must be linear, and the same for each component, while their gates "
        f"are held; this one is not. Received, besides weight layers: {between}. Leave nonlinear layers out; "
        "for Dropout take keras.layers.SpatialDropout1D, which drops units with all their components."
    )


def _may_bend(layer):
    ours = type(layer).__module__.startswith("keras_gevb.")
    return not ours and not isinstance(layer, (keras.layers.InputLayer, keras.Model))


def check_loss(loss):
    """Raise if the loss takes probabilities where a readout gives logits.

    Raises:
        ValueError: saying how to pass `from_logits=True`.
    """
    if _settings(loss).get("from_logits") is False:
        raise ValueError(
            "The model returns logits, but the loss expects probabilities. Compile with "
            "from_logits=True, as in keras.losses.SparseCategoricalCrossentropy(from_logits=True). "
            f"Received: loss={loss!r}"
        )


def check_not_empty(x):
    """Raise if there is nothing to learn from.

    Raises:
        ValueError: if `x` is an array or a dataset without samples.
    """
    if hasattr(x, "cardinality"):
        empty = int(x.cardinality()) == 0
    else:
        empty = any(0 in getattr(part, "shape", ())[:1] for part in keras.tree.flatten(x))
    if empty:
        raise ValueError(
            f"The data set is empty. Received: {x!r}. Check how it was loaded, filtered or split."
        )


def check_targets(y, loss, outputs):
    """The targets, where they fit the loss and the number of outputs.

    Args:
        y: The targets of a batch.
        loss: The compiled loss.
        outputs: The number K of outputs, or None if not known.

    Raises:
        ValueError: if the targets' width differs from K.
        tf.errors.InvalidArgumentError: when the step runs, if a label is outside 0..K-1.
    """
    if outputs is None or y is None or isinstance(y, (dict, list, tuple)):
        return y
    settings = _settings(loss)
    if "sparse" not in settings.get("name", ""):
        if len(y.shape) == 2 and y.shape[-1] is not None and y.shape[-1] != outputs:
            raise ValueError(
                f"The model has vector_dim={outputs} outputs, but the targets have another width. "
                f"Received: y of shape {tuple(y.shape)}. Set vector_dim to {y.shape[-1]}."
            )
        return y
    valid = ops.logical_and(y >= 0, y < outputs)
    if settings.get("ignore_class") is not None:
        valid = ops.logical_or(valid, y == settings["ignore_class"])
    message = (
        f"Labels must be integers from 0 to {outputs - 1}, because the model has K={outputs} "
        "outputs (vector_dim). Received the label: "
    )
    return backend.check_labels(y, valid, message)


def check_version(version):
    """Raise if a newer version of the package wrote a file.

    Raises:
        ValueError: naming both versions.
    """
    try:
        newer = _release(version) > _release(__version__)
    except (AttributeError, ValueError):
        newer = True
    if newer:
        raise ValueError(
            f"The model was saved by another version of keras_gevb than this one, {__version__}: install "
            f"that version or a later one. Received: keras_gevb_version={version!r}"
        )


def _release(version):
    """Major and minor version, within which files do not change."""
    return tuple(int(number) for number in version.split(".")[:2])


def _settings(loss):
    """The arguments of a loss, given as a name, a function or a Loss."""
    if isinstance(loss, (dict, list, tuple)) or loss is None:
        return {}
    loss = keras.losses.get(loss)
    if isinstance(loss, keras.losses.Loss):
        return {"name": loss.name or "", **loss.get_config()}
    parameters = inspect.signature(loss).parameters
    return {"name": loss.__name__, **{name: p.default for name, p in parameters.items()}}
