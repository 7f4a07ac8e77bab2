"""Linear maps on windows of a space of any rank: convolution, also of each channel, and local connection."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_gevb import backend
from keras_gevb.layers.base import WeightLayer
from keras_gevb.layers.weights import is_positive_integer, positive_integer
from keras_gevb.types import Shape, Tensor

# A convolution over so few inputs is summed slice by slice where XLA compiles it: it fuses with the
# gate and the pooling that follow, and the preactivation is never written to memory. Measured on
# CPU: for 3 x 3 windows of one channel a quarter of the time, for 5 x 5 of three three times as much.
_FUSED_WINDOW = 16


class Windowed(WeightLayer):
    """Units that see a window of the space, which has `space_rank` axes."""

    paddings: tuple[str, ...] = ("valid", "same")

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: str = "valid",
        **kwargs: Any,
    ):
        super().__init__(filters, **kwargs)
        self.filters = self.units
        self.kernel_size = self._extents("kernel_size", kernel_size)
        self.strides = self._extents("strides", strides)
        self.dilation_rate = (1,) * self.space_rank
        if padding not in self.paddings:
            raise ValueError(
                f"Layer '{self.name}': padding must be {' or '.join(map(repr, self.paddings))}. "
                f"Received: {padding!r}"
            )
        self.padding = padding
        # What acts at each position alone passes on which there are.
        self.supports_masking = set(self.kernel_size) == set(self.strides) == {1}

    def _extents(self, name, value):
        rank = self.space_rank
        extents = tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank
        if len(extents) != rank or not all(is_positive_integer(v) for v in extents):
            several = "" if rank == 1 else f" or {('a pair', 'three')[rank - 2]} of them"
            raise ValueError(
                f"Layer '{self.name}': {name} must be a positive integer{several}. Received: {value!r}"
            )
        return extents

    @property
    def _reach(self):
        """How far a window extends."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel_size, self.dilation_rate))

    def kernel_axes(self, input_shape: Shape) -> tuple[Shape, Shape]:
        sizes = input_shape[1 : 1 + self.space_rank]
        if self.padding == "valid" and any(n and n < k for n, k in zip(sizes, self._reach)):
            raise ValueError(
                f"Layer '{self.name}': the window does not fit into the input. Received: kernel_size="
                f"{self.kernel_size} on a space of {tuple(sizes)}. Choose a smaller one, or padding='same'."
            )
        return (), self.kernel_size

    def _check_known(self, input_shape, reason):
        space = tuple(input_shape[1 : 1 + self.space_rank])
        if None in space:
            raise ValueError(
                f"Layer '{self.name}' {reason}, so the size of the input must be known. Received: a space of "
                f"{space}. Give keras.Input its full shape."
            )

    def positions(self, space: Sequence[Any]) -> Sequence[Any]:
        """The number of window positions along each axis."""
        counts = []
        for size, reach, stride in zip(space, self._reach, self.strides):
            starts = size - reach + 1 if size is not None and self.padding == "valid" else size
            counts.append(starts and -(-starts // stride))
        return tuple(counts)

    def _pad(self, inputs, first=1):
        """The inputs with zeros around their space, whose axes begin at `first`."""
        sizes = inputs.shape[first : first + self.space_rank]
        counts = self.positions(sizes)
        widths = [(0, 0)] * len(inputs.shape)
        for i, (size, count, stride, reach) in enumerate(zip(sizes, counts, self.strides, self._reach)):
            if self.padding == "causal":
                widths[first + i] = reach - 1, 0
            else:
                missing = max((count - 1) * stride + reach - size, 0)
                widths[first + i] = missing // 2, missing - missing // 2
        return ops.pad(inputs, widths)

    def _slices(self, offsets, counts):
        """What of a padded space the windows see at these offsets."""
        starts = [offset * dilation for offset, dilation in zip(offsets, self.dilation_rate)]
        return [slice(o, o + (n - 1) * s + 1, s) for o, n, s in zip(starts, counts, self.strides)]

    def _views(self, inputs):
        """For each offset in the window, that and what the windows see there."""
        counts = self.positions(inputs.shape[1 : 1 + self.space_rank])
        inputs = self._pad(inputs)
        for offsets in itertools.product(*map(range, self.kernel_size)):
            yield offsets, inputs[(slice(None), *self._slices(offsets, counts))]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
        }


class Dilated(Windowed):
    """Windows with gaps."""

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: str = "valid",
        *,
        dilation_rate: int | tuple[int, ...] = 1,
        **kwargs: Any,
    ):
        super().__init__(filters, kernel_size, strides, padding, **kwargs)
        self.dilation_rate = self._extents("dilation_rate", dilation_rate)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                f"Layer '{self.name}': a window has strides or a dilation_rate, not both. Received: strides="
                f"{self.strides}, dilation_rate={self.dilation_rate}. Leave one of them at 1."
            )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dilation_rate": self.dilation_rate}


class Conv(Dilated):
    """h_xi = sum_dj W_dij a_(x+d)j + b_i, where a unit of a group sees channels j of that group."""

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: str = "valid",
        *,
        groups: int = 1,
        **kwargs: Any,
    ):
        super().__init__(filters, kernel_size, strides, padding, **kwargs)
        self.groups = positive_integer("groups", groups, self.name)
        self._check_groups("filters", self.filters)

    def _check_groups(self, name, count):
        if count % self.groups:
            raise ValueError(
                f"Layer '{self.name}': {name} must be a multiple of groups. Received: {count} {name}, "
                f"groups={self.groups}"
            )

    def kernel_ends(self, channels: int) -> tuple[int, int]:
        self._check_groups("input channels", channels)
        return channels // self.groups, self.units

    def project(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        if self.groups == 1:
            return self._convolve(inputs, kernel)
        # Of a first layer there are K units for one.
        *seen, outputs = kernel.shape
        copies, units = outputs // self.units, self.units // self.groups
        kernels = ops.reshape(kernel, (*seen, copies, self.groups, units))
        parts = []
        for group, part in enumerate(ops.split(inputs, self.groups, axis=-1)):
            h = self._convolve(part, ops.reshape(kernels[..., group, :], (*seen, copies * units)))
            parts.append(ops.reshape(h, (*ops.shape(h)[:-1], copies, units)))
        h = ops.concatenate(parts, axis=-1)
        return ops.reshape(h, (*ops.shape(h)[:-2], outputs))

    def _convolve(self, inputs, kernel):
        rank, (*space, channels) = self.space_rank, kernel.shape[:-1]
        if len(inputs.shape) == rank + 3:
            return self._convolve_vectors(inputs, kernel)
        known = None not in inputs.shape[1:-1]
        if known and backend.fusing() and math.prod(space) * channels <= _FUSED_WINDOW:
            places = itertools.product(self._views(inputs), range(channels))
            return backend.add_up([seen[..., c : c + 1] * kernel[(*at, c)] for (at, seen), c in places])
        return self._conv(inputs, kernel, self.strides, self.dilation_rate)

    def _convolve_vectors(self, inputs, kernel):
        rank = self.space_rank
        if rank < 3:
            # The vector axis is one more spatial axis, that the window does not extend over.
            kernel = ops.expand_dims(kernel, rank)
            return self._conv(inputs, kernel, (*self.strides, 1), (*self.dilation_rate, 1))
        # No backend convolves over four axes, so each component is a sample.
        components = inputs.shape[-2]
        samples = ops.moveaxis(inputs, -2, 1)
        samples = ops.reshape(samples, (-1, *ops.shape(samples)[2:]))
        outputs = self._conv(samples, kernel, self.strides, self.dilation_rate)
        outputs = ops.reshape(outputs, (-1, components, *ops.shape(outputs)[1:]))
        return ops.moveaxis(outputs, 1, -2)

    def _conv(self, inputs, kernel, strides, dilation_rate):
        padding = self.padding
        if padding == "causal":
            inputs, padding = self._pad(inputs), "valid"
        settings = {"padding": padding, "dilation_rate": dilation_rate, "data_format": "channels_last"}
        return ops.conv(inputs, kernel, strides=strides, **settings)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "groups": self.groups}


class DepthwiseConv(Dilated):
    """h_x(jm) = sum_d W_djm a_(x+d)j + b_jm: each channel j has units m of its own."""

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        **kwargs: Any,
    ):
        self.depth_multiplier = depth_multiplier
        super().__init__(depth_multiplier, kernel_size, strides, padding, **kwargs)

    def build(self, input_shape: Shape) -> None:
        self.units = input_shape[-1] * self.depth_multiplier
        super().build(input_shape)

    def kernel_axes(self, input_shape: Shape) -> tuple[Shape, Shape]:
        self._check_known(input_shape, "sums over shifts of its input")
        return super().kernel_axes(input_shape)

    def kernel_ends(self, channels: int) -> tuple[int, int]:
        return channels, self.depth_multiplier

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*super().compute_output_shape(input_shape)[:-1], input_shape[-1] * self.depth_multiplier)

    def project(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        seen = [(kernel[at], ops.expand_dims(view, -1)) for at, view in self._views(inputs)]
        h = backend.add_up([weights * view for weights, view in seen])
        *rest, given, outputs = ops.shape(h)
        channels, multiplier = self.units // self.depth_multiplier, self.depth_multiplier
        if given > channels:  # K inputs for one, on the way to a first layer's update
            h = ops.sum(ops.reshape(h, (*rest, channels, -1, outputs)), axis=-2)
        if outputs > multiplier:  # K units for one, of a first layer
            h = ops.moveaxis(ops.reshape(h, (*rest, channels, -1, multiplier)), -2, -3)
        return ops.reshape(h, (*rest, channels * outputs))

    def initial_kernel(self, shape: Shape, dtype: Any = None, seed: int | None = None) -> Tensor:
        """Draw a kernel, whose fan-in is the window; where nonnegative, the same for the two of a pair."""
        rank = self.space_rank
        window, channels, outputs = shape[:rank], shape[rank], shape[rank + 1 :]
        paired = self.kernel_initializer is None and self.constrained
        drawn = math.ceil(channels / 2) if paired else channels
        flat = self._drawn((*window, 1, drawn * math.prod(outputs)), dtype, seed)
        kernel = ops.reshape(flat, (*window, drawn, *outputs))
        if not paired:
            return kernel
        # An ON/OFF pair sees one signal, so the two stay mirrors of each other.
        return ops.take(ops.repeat(ops.abs(kernel), 2, axis=rank), range(channels), axis=rank)

    def _default_kernel_initializer(self):
        odd = self.depth_multiplier % 2
        if self.constrained or (self.vector_dim is not None and odd):
            return keras.initializers.VarianceScaling(1.0, "fan_in", "untruncated_normal")
        return super()._default_kernel_initializer()

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "depth_multiplier": self.depth_multiplier}
        del config["filters"]
        return config


class LocallyConnected(Windowed):
    """h_xi = sum_dj W_xdij a_(x+d)j + b_xi: every position has a kernel of its own."""

    def kernel_axes(self, input_shape: Shape) -> tuple[Shape, Shape]:
        self._check_known(input_shape, "has a kernel for every position")
        _, window = super().kernel_axes(input_shape)
        return tuple(self.positions(input_shape[1 : 1 + self.space_rank])), window

    @property
    def positions_rank(self) -> int:
        return self.space_rank

    def project(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        rank = self.space_rank
        counts, window, (channels, units) = kernel.shape[:rank], kernel.shape[rank:-2], kernel.shape[-2:]
        extents, last = inputs.shape[1 : 1 + rank], (slice(None),) * (rank - 1)
        # Position first: at each, one matrix product over the batch and the components. Fused with
        # it, the pooling of the layer before would be computed twice.
        with backend.uncompiled():
            axes = (*range(1, 1 + rank), 0, *range(1 + rank, len(inputs.shape)))
            at_positions = ops.transpose(inputs, axes)
            at_positions = self._pad(ops.reshape(at_positions, (*extents, -1, channels)), first=0)
        columns = [self._slices((0,) * (rank - 1) + (j,), counts)[-1] for j in range(window[-1])]
        row = ops.concatenate([at_positions[(*last, column)] for column in columns], axis=-1)
        # Not fused, these are parts of one array; fused, each would be gathered anew.
        with backend.uncompiled():
            offsets = itertools.product(*map(range, window[:-1]))
            patches = [row[tuple(self._slices(at, counts))] if at else row for at in offsets]
        if math.prod(window) * channels <= units:
            # Whole patches are then smaller than the sums of their rows' products.
            patches = [ops.concatenate(patches, axis=-1)]
        kernel = ops.reshape(kernel, (*counts, len(patches), -1, units))
        kernels = ops.unstack(kernel, axis=rank)
        outputs = backend.add_up([ops.matmul(*factors) for factors in zip(patches, kernels)])
        components = inputs.shape[1 + rank : -1]
        outputs = ops.reshape(outputs, (*counts, -1, *components, units))
        return ops.transpose(outputs, (rank, *range(rank), *range(rank + 1, len(outputs.shape))))
