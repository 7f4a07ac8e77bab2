"""The loss and the targets: what they must be for an error vector to be what it says."""

import contextlib
import functools
import inspect

import keras
from keras import ops

from keras_gevb import backend, private


def check_loss(model):
    """Raise if a model's loss takes probabilities, since a readout gives logits.

    Args:
        model: One compiled with a name, function, `Loss`, partial or callable object, or several. What a
            `compute_loss` of its own hands to that is not known.

    Raises:
        ValueError: saying how to pass `from_logits=True`.
    """
    for part in keras.tree.flatten(model.loss):
        if _setting(part, "from_logits") is False and _has_compute_loss_of_keras(model):
            raise ValueError(
                "The model returns logits, but the loss expects probabilities. Compile with "
                "from_logits=True, as in keras.losses.SparseCategoricalCrossentropy(from_logits=True). "
                f"Received: loss={model.loss!r}"
            )


def _has_compute_loss_of_keras(model):
    return type(model).compute_loss is keras.Model.compute_loss


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


def check_labels(model, y, widths):
    """The targets, behind a check that labels of classes are classes of the output that they are for.

    Args:
        model: A compiled model.
        y: The targets of a batch, in their structure.
        widths: The number of units of each output, in the outputs' structure.

    Raises:
        ValueError: if a label is outside 0..K-1 (TensorFlow: InvalidArgumentError, when the step runs).
    """
    flat = keras.tree.flatten(y)
    for n, name, classes, loss in labels(model, y, widths):
        message = (
            f"Labels must be integers from 0 to {classes - 1}, because {name} has K={classes} outputs. "
            "Received the label: "
        )
        flat[n] = backend.check_labels(flat[n], valid_labels(flat[n], classes, loss), message)
    return keras.tree.pack_sequence_as(y, flat)


def labels(model, y, widths):
    """Where targets are labels of classes.

    Args:
        model, y, widths: As in `check_labels`.

    Returns:
        For each tensor of labels its place among the flat targets, what it is for, in words, the number of
        classes, and the loss.
    """
    names = list(getattr(model, "output_names", None) or ())
    sizes, flat = keras.tree.flatten(widths), keras.tree.flatten(y)
    losses = _by_output(model.loss, widths, names)
    losses = losses * len(sizes) if len(losses) == 1 else losses
    places = _by_output(keras.tree.pack_sequence_as(y, range(len(flat))), widths, names)
    if len(places) < len(sizes):  # as Keras has it: those for which there is a loss
        given = iter(places) if len(places) == sum(loss is not None for loss in losses) else iter(())
        places = [None if loss is None else next(given, None) for loss in losses]
    if not len(sizes) == len(losses) == len(places):
        return []  # Keras says what does not fit
    names = sorted(widths) if isinstance(widths, dict) else names
    names = names if len(names) == len(sizes) else range(len(sizes))
    owners = [f"output {name}" for name in names] if len(sizes) > 1 else ["the model"]
    return [
        (n, owner, classes, loss)
        for n, owner, classes, loss in zip(places, owners, sizes, losses)
        if n is not None
        and flat[n] is not None
        and classes is not None
        and takes_labels(loss, flat[n], classes)
    ]


def _by_output(part, outputs, names):
    """What is given by an output's name, key or place, in the flat order of outputs."""
    if isinstance(part, dict) and len(keras.tree.flatten(outputs)) > 1:
        if isinstance(outputs, dict):
            part = {key: part.get(key) for key in outputs}
        elif names:
            part = [part.get(name) for name in names]
    return keras.tree.flatten(part)


def valid_labels(label, classes, loss):
    """Whether each label is one of the classes, or one that the loss ignores."""
    numbers = backend.integers(label)
    valid = (numbers >= 0) & (numbers < classes)
    ignored = _setting(loss, "ignore_class")
    if ignored is not None:
        valid = valid | (numbers == ignored)
    return valid


def compute_loss(model, x, y, outputs, sample_weight, training=True):
    """The loss, by the model's `compute_loss` as Keras calls it, overridden or not.

    Raises:
        ValueError: if the targets have another width than the outputs, and the loss does not take them.
    """
    arguments = {}
    if "training" in inspect.signature(model.compute_loss).parameters:
        arguments["training"] = training
    if len(keras.tree.flatten(outputs)) > 1:
        # Keras weighs the losses of several outputs by the number of samples, where it is known to a trace.
        outputs = keras.tree.map_structure(
            lambda part: private.masked(backend.of_any_batch(part), private.mask(part)), outputs
        )
    try:
        return model.compute_loss(x, y, outputs, sample_weight, **arguments)
    except Exception as error:
        widths = [tensor.shape[-1] if len(tensor.shape) == 2 else None for tensor in _tensors(y, outputs)]
        if len(widths) == 2 and None not in widths and widths[0] != widths[1]:
            raise ValueError(
                f"The model has K={widths[1]} outputs, but the targets have another width, which the loss "
                f"does not take. Received: y of shape {tuple(_tensors(y, outputs)[0].shape)}. Give the model "
                f"{widths[0]} outputs, by the units of its last layer, or vector_dim where units are vectors."
            ) from error
        raise


def _tensors(y, outputs):
    return [tensor for tensor in keras.tree.flatten([y, outputs]) if hasattr(tensor, "shape")]


def weights(model, outputs, sample_weight):
    """Pairs (weights of samples or None, weight of the loss), for each of the outputs, flat."""
    names, flat = list(getattr(model, "output_names", None) or ()), keras.tree.flatten(outputs)
    of_samples = _by_output(sample_weight, outputs, names)
    of_losses = [1.0 if w is None else w for w in _by_output(private.loss_weights(model), outputs, names)]
    of_samples, of_losses = (part * len(flat) if len(part) == 1 else part for part in (of_samples, of_losses))
    return list(zip(of_samples, of_losses, strict=True))


def weighted(values, weight):
    """Values of the form of a model's output times weights of its samples, or of its positions."""
    if weight is None:
        return values
    weight = ops.cast(weight, values.dtype)
    while len(weight.shape) > 1 and (weight.shape[-1] == 1 or len(weight.shape) > len(values.shape) - 1):
        weight = ops.mean(weight, axis=-1)
    return values * ops.reshape(weight, (*ops.shape(weight), *[1] * (len(values.shape) - len(weight.shape))))


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

    Where outputs have positions, such as time steps, those of each, side by side.

    Raises:
        ValueError: if the loss is not one of classes.
    """
    losses, labels = keras.tree.flatten(step.model.loss), keras.tree.flatten(step.targets)
    outputs, samples = step.readouts[0].outputs.shape[-1], ops.shape(step.error)[0]
    logits = keras.tree.flatten(step.outputs)
    if len(logits) == 1 and logits[0].shape[-1] != outputs:
        raise ValueError(
            f"{type(rule).__name__} sends the targets' classes, so the last weight layer must have a unit "
            f"for each. Received: {logits[0].shape[-1]} classes, made from {outputs} outputs. For a "
            "code of classes take DFA."
        )
    if len(losses) == len(labels) == len(step.readouts) == 1:
        if takes_labels(losses[0], labels[0], outputs):
            y = ops.one_hot(ops.reshape(ops.cast(labels[0], "int32"), (samples, -1)), outputs)
            return ops.reshape(y, (samples, -1))
        if _function(losses[0]) in _OF_CLASSES and labels[0].shape[-1] == outputs:
            return ops.reshape(labels[0], (samples, -1))
    raise ValueError(
        f"{type(rule).__name__} reads the targets as classes, so a model has one output and a loss of "
        "classes, such as keras.losses.SparseCategoricalCrossentropy(from_logits=True) or "
        f"CategoricalCrossentropy. For regression take DFA. Received: loss={step.model.loss!r}"
    )


_OF_CLASSES = (
    keras.losses.categorical_crossentropy,
    keras.losses.categorical_focal_crossentropy,
    keras.losses.binary_crossentropy,
    keras.losses.binary_focal_crossentropy,
    keras.losses.categorical_hinge,
)


def takes_labels(loss, y=None, classes=None):
    """Whether targets are numbers of classes: so in sparse categorical cross-entropy, under whatever name.

    Args:
        loss: A name, function, `Loss`, partial or callable object.
        y, classes: The targets and their number of classes, by which Keras tells what "crossentropy" is.
    """
    known, loss = keras.losses.SparseCategoricalCrossentropy, _meant(loss, y, classes)
    if isinstance(loss, known):
        return type(loss).call is known.call  # one of a user's own may shift or mask them
    return _function(loss) is keras.losses.sparse_categorical_crossentropy


def _meant(loss, y=None, classes=None):
    """The loss behind a name, "crossentropy" and "ce" included."""
    if not isinstance(loss, str):
        return loss
    if loss.lower() not in ("crossentropy", "ce"):
        return keras.losses.get(loss)
    if classes == 1:
        return keras.losses.binary_crossentropy
    if y is None or (len(y.shape) > 1 and y.shape[-1] == classes):
        return keras.losses.categorical_crossentropy
    return keras.losses.sparse_categorical_crossentropy


def _function(loss):
    """The function behind a name, a `Loss` or a partial."""
    loss = _meant(loss)
    while isinstance(loss, functools.partial):
        loss = loss.func
    return getattr(loss, "fn", loss)


def _setting(loss, name):
    """What a loss has for an argument, wherever it got it; None where it has no such argument."""
    loss = _meant(loss)
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
