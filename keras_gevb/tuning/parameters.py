"""The size of a network that need not exist."""

import math
from collections.abc import Sequence


def count_parameters(
    network: Sequence[tuple], input_shape: Sequence[int], outputs: int, vectorized: bool = True
) -> int:
    """The number of trainable parameters of a network.

    A layer of u units on fan-in n has, K being 1 for conventional units,

        n u + K u        and on scalar input        K n u + K u

    parameters, at each position where it is locally connected.

    Args:
        network: As in `zoo.stack`.
        input_shape: Shape of one example.
        outputs: The number of outputs.
        vectorized: Vector units, or conventional ones.

    Example:

    >>> count_parameters([("dense", 1024), ("dense", 512)], (28, 28, 1), 10)
    8568330
    """
    components = copies = outputs if vectorized else 1
    *space, channels = input_shape
    total = 0
    for kind, size, *window in network:
        if kind == "pool":
            space = [extent // size for extent in space]
            continue
        if kind == "dense":
            channels, space = math.prod(space) * channels, []
        positions = math.prod(space) if kind == "lc" else 1
        fan_in = window[0] ** 2 * channels if window else channels
        total += positions * size * (copies * fan_in + components)
        channels, copies = size, 1
    fan_in = math.prod(space) * channels
    return total + fan_in * (1 if vectorized else outputs) + outputs
