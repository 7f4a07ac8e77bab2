"""Measures of a rule, a network and a batch, by layer."""

import keras
import numpy as np
from keras import ops

from keras_gevb import places
from keras_gevb.learning import Learner
from keras_gevb.step import record
from keras_gevb.types import Array


def alignment_angles(model: Learner, x: Array, y: Array) -> dict[str, float]:
    """The angle between backpropagation's signal and what the rule sends, in each hidden layer.

        angle_l = mean over samples of arccos( g . s / (|g| |s|) )

    Here `g` is the backpropagated signal at the gated outputs of layer l, one number for each
    unit and position of a sample, taken as one vector; `s` is what the rule sends to the same
    units before gating (under GEVB the all-ones vector). 0 degrees means that the rule follows
    the gradient, 90 that it knows nothing of it.

    Args:
        model: A compiled `keras_gevb.Model` or `Sequential`.
        x: A batch of inputs; the paper takes 128 training examples.
        y: Its targets.

    Returns:
        A dict from the name of each hidden layer, first to last, to degrees. Samples to which
        no signal arrives have no angle and are left out; NaN where none is left.

    Raises:
        ValueError: if the model is not compiled, or its rule cannot serve it.

    Example:

    >>> keras_gevb.diagnostics.alignment_angles(model, x[:128], y[:128])  # the last near 55.7
    {'vector_dense': ..., 'vector_dense_1': ...}

    Reference: paper, section 5, alignment figures.
    """
    step = step_of(model, x, y)
    flat: dict[str, list] = {}
    for a_record, *signals in zip(step.records, step.backward(), step.signals(), strict=True):
        if not a_record.is_readout:
            flat.setdefault(a_record.layer.name, []).append([_samples(signal) for signal in signals])
    return {name: _mean_angle(*map(np.hstack, zip(*calls, strict=True))) for name, calls in flat.items()}


def sign_agreement(model: Learner, x: Array, y: Array) -> dict[str, float]:
    """The share of a layer's weights whose update does not oppose the gradient, example by example.

        share_l = mean over examples and weights of [update x gradient >= 0]

    It is 1 for GEVB in nonnegative networks of dense and locally connected layers. A convolution
    adds its positions up, and a layer that is used several times its uses, each with a signal of
    its own, so there single weights may disagree.

    Args:
        model: A compiled `keras_gevb.Model` or `Sequential`.
        x: A batch of inputs. The cost grows with its size: two updates of all weights for each.
        y: Its targets.

    Returns:
        A dict from the name of each weight layer, first to last, to a share between 0 and 1.

    Raises:
        ValueError: if the model is not compiled, or its rule cannot serve it.

    Example:

    >>> keras_gevb.diagnostics.sign_agreement(model, x[:32], y[:32])
    {'vector_dense': 1.0, 'vector_dense_1': 1.0, 'vector_readout': 1.0}

    Reference: paper, section 4, nonnegative networks.
    """
    step = step_of(model, x, y)
    exact, sent = step.backward(), step.signals()
    shares: dict[str, list[float]] = {}
    for n in range(int(step.error.shape[0])):
        example = slice(n, n + 1)
        updates, gradients = (layer_updates(step, signals, example) for signals in (sent, exact))
        for name, update in updates.items():
            # NaN agrees with nothing.
            agrees = np.sign(update) * np.sign(gradients[name]) >= 0
            shares.setdefault(name, []).append(agrees.mean())
    return {name: float(np.mean(share)) for name, share in shares.items()}


def dead_units(model: Learner, x: Array) -> dict[str, float]:
    """The share of a layer's units that are closed on every sample.

    A channel of a convolution is one unit: it is dead if it is closed at all positions. In a
    locally connected layer the units of different positions have weights of their own and
    count one by one. Layers of Keras have no gates, and are left out.

    Args:
        model: A model of weight layers.
        x: A batch of inputs.

    Returns:
        A dict from the name of each hidden layer, first to last, to a share between 0 and 1.

    Example:

    >>> keras_gevb.diagnostics.dead_units(model, x[:128])
    {'vector_dense': ..., 'vector_dense_1': ...}
    """
    check_learner(model)
    opened: dict[str, Array] = {}
    records = record(model, keras.tree.map_structure(ops.convert_to_tensor, x))
    gated = [r for r in records if not r.is_readout and r.call is None]
    for layer, gate in ((a_record.layer, a_record.gate) for a_record in gated):
        space = 0 if layer.positions_rank else layer.space_rank
        gate = ops.convert_to_numpy(ops.max(ops.abs(gate), axis=tuple(range(1 + space))))
        opened[layer.name] = np.maximum(opened.get(layer.name, 0), gate)
    return {name: float(np.mean(gate == 0)) for name, gate in opened.items()}


def zero_weights(model: Learner) -> dict[str, float]:
    """The share of a layer's kernel entries that are exactly zero, of all its weights between units.

    Nonnegative kernels start with half of them (ON/OFF pairs), and the constraint adds more.

    Args:
        model: A built model of weight layers.

    Returns:
        A dict from the name of each weight layer, first to last, to a share between 0 and 1.

    Example:

    >>> keras_gevb.diagnostics.zero_weights(model)
    {'vector_dense': 0.0, 'vector_dense_1': 0.5, 'vector_readout': 0.5}
    """
    check_learner(model)
    kernels = {
        place.name: [ops.convert_to_numpy(v).ravel() for v in place.kernels] for place in places.of(model)
    }
    return {name: float(np.mean(np.concatenate(all_of) == 0)) for name, all_of in kernels.items() if all_of}


def step_of(model, x, y):
    """The step of a model of this package."""
    check_learner(model)
    return model.compute_step(x, y)


def check_learner(model):
    """Raise where a model is none of this package."""
    if not isinstance(model, Learner):
        raise ValueError(
            "Diagnostics look at a model that learns by a rule: convert a model of Keras by "
            f"keras_gevb.convert(model, learning_rule). Received: model of type {type(model).__name__}"
        )


def layer_updates(step, signals, examples=slice(None)):
    """The update of each layer by these signals, its weights in one vector and its calls added up, by name.

    Args:
        step: A `Step`.
        signals: One for each of its records.
        examples: Which part of the batch, a slice.
    """
    totals = {}
    for a_record, signal in zip(step.records, signals, strict=True):
        updates = a_record.of(examples).updates(signal[examples], step.error[examples])
        if updates:
            flat = [np.ravel(ops.convert_to_numpy(update)) for _, update in updates]
            name = a_record.layer.name
            totals[name] = totals.get(name, 0) + np.concatenate(flat)
    return totals


def _samples(signal):
    array = ops.convert_to_numpy(signal).astype("float64")
    return array.reshape(len(array), -1)


def _mean_angle(g, s):
    """Mean angle of the rows, in degrees; by the half angle, which is exact near 0 and 180."""
    lengths = np.linalg.norm(g, axis=1), np.linalg.norm(s, axis=1)
    seen = (lengths[0] > 0) & (lengths[1] > 0)
    if not seen.any():
        return float("nan")
    g, s = (v[seen] / length[seen, None] for v, length in zip((g, s), lengths, strict=True))
    angles = 2 * np.arctan2(np.linalg.norm(g - s, axis=1), np.linalg.norm(g + s, axis=1))
    return float(np.degrees(angles).mean())
