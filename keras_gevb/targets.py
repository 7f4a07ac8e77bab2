"""The loss and the targets: what they must be for an error vector to be what it says."""

import contextlib
import functools
import inspect

import keras
from keras import ops

from keras_gevb import backend


def check_loss(loss):
    """Raise if a loss takes probabilities, since a readout gives logits.

    Args:
        loss: What `compile` was given: a name, function, `Loss`, partial or callable object, or several.

    Raises:
        ValueError: saying how to pass `from_logits=True`.
    """
    for part in keras.tree.flatten(loss):
        if _setting(part, "from_logits") is False:
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
    cardinality = getattr(x, "cardinality", None)
    if cardinality is not None:
        # A method of a dataset, a number of a distributed one.
        empty = int(cardinality() if callable(cardinality) else cardinality) == 0
    else:
        empty = any(0 in getattr(part, "shape", ())[:1] for part in keras.tree.flatten(x))
    if empty:
        raise ValueError(
            f"The data set is empty. Received: {x!r}. Check how it was loaded, filtered or split."
        )


def check_labels(loss, y, outputs):
    """The targets, behind a check that labels of classes are classes of the model.

    Args:
        loss: What `compile` was given.
        y: The targets of a batch, in their structure.
        outputs: The number K of outputs, or None where it is not known.

    Raises:
        ValueError: if a label is outside 0..K-1 (TensorFlow: InvalidArgumentError, when the step runs).
    """
    found = valid_labels(loss, y, outputs)
    if found is None:
        return y
    label, numbers, valid = found
    message = (
        f"Labels must be integers from 0 to {outputs - 1}, because the model has K={outputs} "
        "outputs (vector_dim). Received the label: "
    )
    return keras.tree.pack_sequence_as(y, [backend.check_labels(label, numbers, valid, message)])


def valid_labels(loss, y, outputs):
    """The labels as given, as integers, and whether each is a class; None where targets are no labels.

    Args:
        loss, y, outputs: As in `check_labels`.
    """
    losses = keras.tree.flatten(loss)
    labels = keras.tree.flatten(y)
    if outputs is None or len(labels) != 1 or len(losses) != 1 or not takes_labels(losses[0]):
        return None
    (label,) = labels
    numbers = backend.integers(label)
    valid = (numbers >= 0) & (numbers < outputs)
    ignored = _setting(losses[0], "ignore_class")
    if ignored is not None:
        valid = valid | (numbers == ignored)
    return label, numbers, valid


def compute_loss(model, x, y, outputs, sample_weight, training=True):
    """The loss, by the model's `compute_loss` as Keras calls it, overridden or not.

    Raises:
        ValueError: if the targets have another width than the outputs, and the loss does not take them.
    """
    arguments = {}
    if "training" in inspect.signature(model.compute_loss).parameters:
        arguments["training"] = training
    try:
        return model.compute_loss(x, y, outputs, sample_weight, **arguments)
    except Exception as error:
        widths = [tensor.shape[-1] if len(tensor.shape) == 2 else None for tensor in _tensors(y, outputs)]
        if len(widths) == 2 and None not in widths and widths[0] != widths[1]:
            raise ValueError(
                f"The model has vector_dim={widths[1]} outputs, but the targets have another width, which "
                f"the loss does not take. Received: y of shape {tuple(_tensors(y, outputs)[0].shape)}. "
                f"Set vector_dim to {widths[0]}."
            ) from error
        raise


def _tensors(y, outputs):
    return [tensor for tensor in keras.tree.flatten([y, outputs]) if hasattr(tensor, "shape")]


def error_vector(errors, outputs, adds_losses):
    """The error vector, of the errors side by side; raises where the loss has none.

    Args:
        errors: The derivatives of the loss in the outputs of each readout; None where it has none.
        outputs: These outputs.
        adds_losses: Whether losses of activity are served besides.

    Raises:
        ValueError: if the loss does not depend on the outputs.
    """
    if all(error is None for error in errors) and not adds_losses:
        raise ValueError(
            "A rule broadcasts the error vector, the derivative of the loss in the logits, of shape (batch, "
            "K). Received: none. Compile with a loss of the model's outputs."
        )
    errors = [ops.zeros_like(o) if error is None else error for error, o in zip(errors, outputs)]
    if len(errors) == 1 and len(errors[0].shape) == 2:
        return errors[0]
    dtype = keras.backend.result_type(*(error.dtype for error in errors))
    flat = [ops.reshape(error, (ops.shape(error)[0], -1)) for error in errors]
    return ops.concatenate([ops.cast(error, dtype) for error in flat], axis=-1)


def classes(step, rule):
    """The targets of a step as one-hot vectors `(batch, K)`; labels that the loss ignores are zeros.

    Raises:
        ValueError: if the loss is not one of classes.
    """
    losses, labels = keras.tree.flatten(step.model.loss), keras.tree.flatten(step.targets)
    outputs = step.error.shape[-1]
    logits = keras.tree.flatten(step.outputs)
    if len(logits) == 1 and logits[0].shape[-1] != outputs:
        raise ValueError(
            f"{type(rule).__name__} sends the targets' classes, so the last weight layer must have a unit "
            f"for each. Received: {logits[0].shape[-1]} classes, made from {outputs} outputs. For a "
            "code of classes take DFA."
        )
    if len(losses) == len(labels) == 1:
        if takes_labels(losses[0]):
            return ops.one_hot(ops.reshape(ops.cast(labels[0], "int32"), (-1,)), outputs)
        if _function(losses[0]) in _OF_CLASSES and labels[0].shape[-1] == outputs:
            return labels[0]
    raise ValueError(
        f"{type(rule).__name__} reads the targets as classes, so the loss must be one of classes, such as "
        "keras.losses.SparseCategoricalCrossentropy(from_logits=True) or CategoricalCrossentropy. For "
        f"regression take DFA. Received: loss={step.model.loss!r}"
    )


_OF_CLASSES = (
    keras.losses.categorical_crossentropy,
    keras.losses.categorical_focal_crossentropy,
    keras.losses.binary_crossentropy,
    keras.losses.binary_focal_crossentropy,
    keras.losses.categorical_hinge,
)


def takes_labels(loss):
    """Whether targets are numbers of classes: so in sparse categorical cross-entropy, under whatever name."""
    known = keras.losses.SparseCategoricalCrossentropy
    if isinstance(loss, known):
        return type(loss).call is known.call  # one of a user's own may shift or mask them
    return _function(loss) is keras.losses.sparse_categorical_crossentropy


def _function(loss):
    """The function behind a name, a `Loss` or a partial."""
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    while isinstance(loss, functools.partial):
        loss = loss.func
    return getattr(loss, "fn", loss)


def _setting(loss, name):
    """What a loss has for an argument, wherever it got it; None where it has no such argument."""
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    if isinstance(loss, keras.losses.Loss):
        if hasattr(loss, name):
            return getattr(loss, name)
        with contextlib.suppress(Exception):  # a Loss of the user's may have no config
            return loss.get_config().get(name)
        return None
    if not callable(loss):
        return None
    with contextlib.suppress(ValueError, TypeError):  # built-in functions have no signature
        parameter = inspect.signature(loss).parameters.get(name)
        if parameter is not None and parameter.default is not parameter.empty:
            return parameter.default
    return getattr(loss, name, None)
