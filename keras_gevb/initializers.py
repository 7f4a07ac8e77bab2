"""Initial kernels and gates of the paper: ON/OFF pairs, mirrored pairs, random signs.

In an ON/OFF pair the odd unit starts as the mirror of the even one, so a network
with nonnegative weights starts with the activity of a mixed-sign network
(Clark, Abbott, Chung 2021, section "Initialization").

Layers hand every kernel initializer, these and Keras's own, the shape
`(*window, inputs, units)`, whatever stands between; so fan-in is `prod(shape[:-1])`.
"""

import math
import random
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_gevb.types import Tensor


class _SeededInitializer(keras.initializers.Initializer):
    """What the initializers below share: a seed, drawn once when none is given."""

    def __init__(self, seed: int | None = None) -> None:
        # keras.utils.set_random_seed seeds Python's generator too.
        self.seed = random.randint(1, 10**9) if seed is None else seed

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}


class _PairedNormal(_SeededInitializer):
    """Normal numbers of variance `scale / fan-in`, one for each pair."""

    def __init__(self, scale: float, seed: int | None = None):
        super().__init__(seed)
        self.scale = scale

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale, **super().get_config()}

    def _draw(self, shape, fan_in, dtype):
        stddev = math.sqrt(self.scale / fan_in)
        return keras.random.normal(shape, stddev=stddev, dtype=dtype, seed=self.seed)


@keras.saving.register_keras_serializable(package="keras_gevb")
class MirroredNormal(_PairedNormal):
    """First-layer kernels whose units come in mirrored pairs: `Z` and `-Z`.

    `Z ~ N(0, scale / n)` for unit `2i`, and `-Z` for unit `2i + 1`, where `n` is the
    fan-in. For layers on scalar input, whose kernels are not constrained.

    Args:
        scale: Variance of `Z` times the fan-in.
        seed: Integer. Drawn when not given; `keras.utils.set_random_seed` fixes the draw.

    Raises:
        ValueError: if the number of units (the last axis) is odd.

    Example:

    >>> kernel = keras.ops.convert_to_numpy(MirroredNormal(seed=0)((784, 1024)))
    >>> bool((kernel[:, 1] == -kernel[:, 0]).all())
    True

    Reference: paper, appendix on initialization, first layer.
    """

    def __init__(self, scale: float = 1.0, seed: int | None = None) -> None:
        super().__init__(scale, seed)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        _require_even(shape[-1], "units")
        fan_in = math.prod(shape[:-1])
        z = self._draw((*shape[:-1], shape[-1] // 2), fan_in, dtype)
        return ops.reshape(ops.stack([z, -z], axis=-1), shape)


@keras.saving.register_keras_serializable(package="keras_gevb")
class OnOffNormal(_PairedNormal):
    """Nonnegative kernels between pairs of inputs and pairs of units.

    With `Z ~ N(0, scale / n)` for each pair of inputs and pair of units,

        even input to even unit = odd input to odd unit = max(Z, 0)
        odd input to even unit = even input to odd unit = max(-Z, 0)

    where `n` is the fan-in. A single unit (the readout) takes the even half.

    Args:
        scale: Variance of `Z` times the fan-in.
        seed: Integer. Drawn when not given; `keras.utils.set_random_seed` fixes the draw.

    Raises:
        ValueError: if the number of inputs is odd, or that of units odd and not 1.

    Example:

    >>> kernel = keras.ops.convert_to_numpy(OnOffNormal(seed=0)((1024, 512)))
    >>> bool(kernel.min() >= 0)
    True

    Reference: paper, appendix on initialization, nonnegative networks.
    """

    def __init__(self, scale: float = 4.0, seed: int | None = None) -> None:
        super().__init__(scale, seed)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        *window, inputs, units = shape
        _require_even(inputs, "inputs")
        if units != 1:
            _require_even(units, "units")
        pairs = (*window, inputs // 2, math.ceil(units / 2))
        z = self._draw(pairs, math.prod(shape[:-1]), dtype)
        on, off = ops.relu(z), ops.relu(-z)
        # blocks: (*window, input pairs, 2, unit pairs, 2)
        blocks = ops.stack([ops.stack([on, off], axis=-1), ops.stack([off, on], axis=-1)], axis=-3)
        return ops.reshape(blocks, (*window, inputs, 2 * pairs[-1]))[..., :units]


@keras.saving.register_keras_serializable(package="keras_gevb")
class GateSigns(_SeededInitializer):
    """Gates: random signs for even units, the opposite signs for the odd ones.

    `t_2i` is +1 or -1 with equal chance in each component, and `t_2i+1 = -t_2i`,
    so that where one unit of a pair is closed the other is open.

    Args:
        seed: Integer. Drawn when not given; `keras.utils.set_random_seed` fixes the draw.

    Example:

    >>> gates = keras.ops.convert_to_numpy(GateSigns(seed=0)((10, 512)))
    >>> bool((gates[:, 0] + gates[:, 1]).any())
    False

    Reference: paper, section 3 (gating of vector units).
    """

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        *components, units = shape
        pairs = math.ceil(units / 2)
        draw = keras.random.randint((*components, pairs), 0, 2, seed=self.seed)
        signs = ops.cast(2 * draw - 1, dtype or keras.config.floatx())
        both = ops.reshape(ops.stack([signs, -signs], axis=-1), (*components, 2 * pairs))
        return both[..., :units]


def _require_even(count, name):
    if count % 2:
        raise ValueError(
            f"ON/OFF initialization pairs its {name}, so their number must be even. "
            f"Received: {count} {name}. Choose an even number, or another initializer."
        )
