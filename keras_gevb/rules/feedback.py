"""Weights on which signals come back: in the place of kernels, or straight from the outputs."""

import math
import random

import keras
from keras import ops


def seeded(seed):
    """A seed; drawn when not given."""
    return random.randint(1, 10**9) if seed is None else seed


def feedback_kernels(layers, add_weight, seed):
    """Pairs (weight, its own feedback weight, drawn as it was), of all layers."""
    pairs = []
    for layer in layers:
        pairs += layer.feedback(seed + len(pairs))
    return [
        (
            kernel,
            add_weight(
                name=f"feedback_{n}", shape=kernel.shape, initializer=draw, trainable=False, of=kernel
            ),
        )
        for n, (kernel, draw) in enumerate(pairs)
    ]


def hidden(layers):
    """The layers that are told something: all but readouts."""
    return [layer for layer in layers if not all(use.is_readout for use in layer.uses())]


def outputs(layers):
    """The length of the error vector of a conventional network: the sizes of its readouts."""
    uses = [(layer, use) for layer in layers for use in layer.uses() if use.is_readout]
    return sum(_known(layer, use) for layer, use in uses) or 1


def size(layer):
    """The number of a layer's units, at all positions, in its largest use.

    Raises:
        ValueError: if it is not known.
    """
    return max(_known(layer, use) for use in layer.uses() if not use.is_readout)


def _known(layer, use):
    if use.rows != 1:
        raise ValueError(
            "This learning rule has a feedback weight for each unit of a sample. Received: layer "
            f"'{layer.name}', which has {use.rows:g} rows for each sample, as where a reshape folds time "
            "into the batch. Keep the batch as it is: Dense acts on the last axis of (batch, time, features)."
        )
    if use.size is None:
        raise ValueError(
            "This learning rule needs the size of every layer, to draw a feedback weight for each unit. "
            f"Received: layer '{layer.name}' with outputs of unknown size. Give keras.Input its full shape."
        )
    return use.size


def uniform(layers, nonnegative, seed, scale=1):
    """The initializer of direct feedback: from (-1, 1), or (0, 1) where it has a sign, times the scale."""
    if nonnegative is None:
        nonnegative = any(layer.constrained for layer in layers)
    ends = sorted([0.0 if nonnegative else -1.0 * scale, 1.0 * scale])
    return keras.initializers.RandomUniform(*ends, seed=seed)


def projected(sent, feedback, record):
    """`(batch, K)` through the leading columns of `(K, n)`, one for each unit of a record; as its gate."""
    units = math.prod(record.gate.shape[1:])
    feedback = ops.cast(feedback, sent.dtype)[:, :units]
    return ops.reshape(ops.matmul(sent, feedback), ops.shape(record.gate))
