"""Models of stock Keras, made to learn by a rule."""

import copy
from typing import Any

import keras

from keras_gevb import passes, places, private
from keras_gevb.model import Model, Sequential
from keras_gevb.types import Rule


def convert(model: Any, learning_rule: Rule = "backprop") -> Model | Sequential:
    """The same model, which learns by a rule: every layer with weights is a place that learns.

    Layers, names, weights, seeds, statistics and dtype policies are copies, outputs are equal, and the
    original is left as it was. Each layer's update is the derivative of its own call along the signal that
    the rule sends it: automatic differentiation's gradient under "backprop". The copy is not compiled.

    A layer is one place, whatever it does inside: a recurrent layer is unrolled in its own derivative, an
    attention has its projections in it. Nested models are the places of their layers.

    Args:
        model: A built functional or Sequential model.
        learning_rule: A name or a `LearningRule` that serves conventional units.

    Returns:
        A `keras_gevb.Model`, or `Sequential`; `keras_gevb.export.to_keras` gives a stock model back.

    Raises:
        TypeError: if it is no Keras model.
        ValueError: if the model is subclassed or not built, has weights beside its layers, a training step of
            its own or a Lambda, or the rule cannot serve it.

    Example:

    >>> stock = keras.Sequential(
    ...     [keras.Input((64,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10)]
    ... )
    >>> model = keras_gevb.convert(stock, learning_rule="dfa")

    Reference: Sanfiz and Akrout 2021, BioTorch, for PyTorch.
    """
    check(model)
    if isinstance(model, keras.Sequential):
        inputs = private.another_input(model.inputs[0])
        with keras.name_scope(model.name):
            chain = [inputs, *map(copied, model.layers)]
        converted = Sequential(chain, learning_rule=learning_rule, name=model.name)
    else:
        inputs = keras.tree.map_structure(private.another_input, private.symbolic_inputs(model))
        clone = keras.models.clone_model(model, input_tensors=inputs, clone_function=copied)
        ends = private.symbolic_inputs(clone), private.symbolic_outputs(clone)
        converted = Model(*ends, learning_rule=learning_rule, name=model.name)
    converted.dtype_policy = model.dtype_policy  # by which Keras scales the loss, when it is compiled
    if not model.trainable:
        converted.trainable = False
    found = places.of(converted)
    # Of open extents layers are not called here, as in Keras; the first step checks the model.
    for place in found if places.are_known(converted.inputs) else ():
        place.uses()  # runs the model's checks
    converted.learning_rule.check([passes.Record(place) for place in found])
    return converted


def copied(layer):
    """A layer's copy: its weights, which of them learn, its seeds, and state such as a vocabulary."""
    if not isinstance(layer, keras.Layer):  # an operation, such as x + y
        return type(layer).from_config(layer.get_config())
    parts = [layer, *private.flat_layers(layer)]
    with keras.saving.custom_object_scope({type(part).__name__: type(part) for part in parts}):
        if any(map(_has_more_than_weights, parts)):
            another = copy.deepcopy(layer)
        else:
            another = type(layer).from_config(layer.get_config())
            if layer.built and not another.built:
                another.build_from_config(layer.get_build_config() or {})
    mine, theirs = another.variables, layer.variables
    if sorted(map(_name, mine)) == sorted(map(_name, theirs)):
        # What is built quantized has them in another order than what became so.
        mine, theirs = sorted(mine, key=_name), sorted(theirs, key=_name)
    for variable, value in zip(mine, theirs, strict=True):
        variable.assign(value)
    for mine, theirs in zip([another, *private.flat_layers(another)], parts, strict=True):
        mine.trainable = theirs.trainable  # a part before its own parts
        if hasattr(theirs, "lora_alpha"):
            mine.lora_alpha = theirs.lora_alpha  # a configuration makes it the rank
    return another


def _name(variable):
    return variable.name


def _has_more_than_weights(layer):
    own = type(layer).load_own_variables is not keras.Layer.load_own_variables
    return hasattr(layer, "save_assets") or (own and not isinstance(layer, keras.Model))


def check(model):
    """Raise, by name, where no graph of layers says what the model does."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model. Received: {model!r}")
    if not isinstance(model, (keras.Sequential, private.Functional)):
        raise ValueError(
            "A subclassed model has no graph to convert. Subclass keras_gevb.Model in place of keras.Model: "
            "its Keras layers then learn as they are (a block of several as one by keras_gevb.layers.Local). "
            f"Received: model '{model.name}' of class {type(model).__name__}"
        )
    if not model.built:
        raise ValueError(
            "The model has no weights yet. Call it, or give it a keras.Input. "
            f"Received: model '{model.name}', which is not built."
        )
    if type(model).train_step not in _train_steps():
        raise ValueError(
            f"{type(model).__name__} has a `train_step` of its own, which a rule takes the place of. "
            f"Convert keras.Model(model.inputs, model.outputs) instead. Received: model '{model.name}'"
        )
    layers = private.flat_layers(model)
    for layer in layers:
        if isinstance(layer, keras.layers.Lambda):
            raise ValueError(
                "A Lambda is code that no .keras file carries, so it is not copied. Write it as a layer. "
                f"Received: layer '{layer.name}'"
            )
    rule = getattr(model, "learning_rule", None)  # of a model that was converted before
    known = {id(v) for layer in layers for v in layer.weights} | {
        id(v) for v in getattr(rule, "variables", ())
    }
    outside = [v.path for v in model.weights if id(v) not in known]
    if outside:
        raise ValueError(
            f"Model '{model.name}' has weights beside those of its layers, which are not converted. "
            f"Received: {outside}. Move them into a layer."
        )


def _train_steps():
    return {keras.Model.train_step, Model.train_step, Sequential.train_step}
