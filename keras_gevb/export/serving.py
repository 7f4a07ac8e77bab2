"""SavedModels that answer with hidden units too."""

import collections
import functools
from typing import Any

import keras

from keras_gevb import passes
from keras_gevb.types import Path


def to_saved_model(model: Any, filepath: Path, input_dtype: Any = None) -> None:
    """Write a SavedModel with signatures for the logits, by default and by name, and for every hidden unit.

    "serving_default" returns the logits; "hidden_units" a dictionary from the name of each hidden
    weight layer to the activity of its units, `(batch, *space, K, units)`, or without K in a
    conventional network. A layer that is called again has a second entry, "name_1".

    Args:
        model: A built model.
        filepath: The folder to write.
        input_dtype: The inputs' dtype, such as "uint8" for raw pixels. Defaults to the model's own.

    Raises:
        ValueError: if the model is not built.

    Example:

    >>> keras_gevb.export.to_saved_model(model, "served/1", input_dtype="uint8")
    >>> served = tf.saved_model.load("served/1")  # in a process without Keras
    >>> units = served.signatures["hidden_units"](tf.constant(pixels))
    >>> sorted(units)
    ['vector_dense', 'vector_dense_1']
    """
    check_built(model)
    signature = keras.tree.map_structure(
        lambda tensor: keras.InputSpec(
            shape=tensor.shape, dtype=input_dtype or tensor.dtype, name=tensor.name
        ),
        ends(model)[0],
    )
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", functools.partial(model, training=False), [signature])
    archive.add_endpoint("hidden_units", functools.partial(_hidden_units, model), [signature])
    archive.write_out(filepath, verbose=False)


def _hidden_units(model, inputs):
    with passes.Recording().in_force() as recording:
        model(inputs, training=False)
    units, calls = {}, collections.Counter()
    for record in recording.records:
        if not record.layer.is_readout:
            name = record.layer.name
            units[f"{name}_{calls[name]}" if calls[name] else name] = record.outputs
            calls[name] += 1
    return units


def ends(model):
    """The symbolic inputs and outputs, in their structure."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0], model.outputs[0]
    return model.input, model.output


def check_built(model):
    if not isinstance(model, keras.Model):
        raise ValueError(f"A built keras.Model is exported. Received: {model!r}")
    if not model.built:
        raise ValueError(
            f"Model '{model.name}' has no weights yet. Begin it with keras.Input(shape), or call it once. "
            f"Received: model={model!r}"
        )
