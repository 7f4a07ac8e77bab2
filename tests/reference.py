"""The learning rules written again, as NumPy loops over positions, from the equations alone.

Activity has the shape (batch, positions, K, units). The vectorized input is written out:
K copies of every input, copy k holding x in component k and 0 elsewhere. Conventional
units are vector units with K = 1 whose signals already contain the error.

    h_i = sum_j W_ij a_j + b_i        m_i = [t_i . h_i >= 0]        a_i = m_i h_i
    dW_ij = sum_batch m_i signal_i (e . a_j)        db_i = sum_batch m_i signal_i e
"""

import dataclasses
import itertools
from typing import Any

import numpy as np


@dataclasses.dataclass
class Weights:
    """A weight layer: `kernel` is (positions or 1, window, inputs, units) with its K copies written out.

    Where there are groups, a group's inputs are seen by its units alone, and `kernel` has the inputs of one.
    """

    kernel: Any
    bias: Any  # (positions or 1, K, units)
    gates: Any  # (K, units), or None
    links: Any  # for every output position, pairs (place in the window, input position)
    groups: int = 1
    stored: Any = np.asarray  # from the form of `kernel` to that of the layer's
    biased: bool = True

    def _kernel(self, kernel, position, place):
        """(inputs of a group, groups, units of a group)"""
        kernel = kernel[position if len(kernel) > 1 else 0, place]
        return kernel.reshape(len(kernel), self.groups, -1)

    def _grouped(self, values):
        return values.reshape(*values.shape[:-1], self.groups, -1)

    def project(self, a):
        """sum_j W_ij a_j"""
        batch, _, components, _ = a.shape
        h = np.zeros((batch, len(self.links), components, self.kernel.shape[-1]))
        for p, links in enumerate(self.links):
            for place, q in links:
                kernel = self._kernel(self.kernel, p, place)
                h[:, p] += np.einsum("bkgj,jgi->bkgi", self._grouped(a[:, q]), kernel).reshape(h[:, p].shape)
        return h

    def forward(self, a):
        self.inputs = a
        h = self.project(a)
        batch, _, _, units = h.shape
        for p in range(len(self.links)):
            h[:, p] += self.bias[p if len(self.bias) > 1 else 0]
        self.gate = np.ones((batch, len(self.links), units))
        if self.gates is not None:
            self.gate = (np.einsum("bpki,ki->bpi", h, self.gates) >= 0).astype(float)
        self.outputs = self.gate[:, :, None, :] * h
        return self.outputs

    def backward(self, signal, kernel):
        """g_j = sum_i W_ij m_i g_i"""
        credit = self.gate * signal
        batch, positions, _, inputs = self.inputs.shape
        below = np.zeros((batch, positions, inputs))
        for p, links in enumerate(self.links):
            for place, q in links:
                told = np.einsum("bgi,jgi->bgj", self._grouped(credit[:, p]), self._kernel(kernel, p, place))
                below[:, q] += told.reshape(below[:, q].shape)
        return below

    def updates(self, signal, error):
        credit = self.gate * signal
        kernel, bias = np.zeros_like(self.kernel), np.zeros_like(self.bias)
        for p, links in enumerate(self.links):
            for place, q in links:
                aligned = np.einsum("bk,bkj->bj", error, self.inputs[:, q])
                pulled = np.einsum("bgj,bgi->jgi", self._grouped(aligned), self._grouped(credit[:, p]))
                kernel[p if len(kernel) > 1 else 0, place] += pulled.reshape(kernel.shape[2:])
            bias[p if len(bias) > 1 else 0] += np.einsum("bk,bi->ki", error, credit[:, p])
        return (self.stored(kernel), bias) if self.biased else (self.stored(kernel),)


@dataclasses.dataclass
class AveragePool:
    size: tuple  # that of the input's space
    window: tuple

    def __post_init__(self):
        self.links = window_links(self.size, self.window, self.window, "valid")

    def forward(self, a):
        self.positions = a.shape[1]
        return np.stack([np.mean([a[:, q] for _, q in links], axis=0) for links in self.links], axis=1)

    def backward(self, signal):
        below = np.zeros((len(signal), self.positions, signal.shape[-1]))
        for p, links in enumerate(self.links):
            for _, q in links:
                below[:, q] += signal[:, p] / len(links)
        return below


class Flatten:
    """Units innermost; a vector keeps its K components."""

    def forward(self, a):
        self.shape = a.shape
        return a.transpose(0, 2, 1, 3).reshape(a.shape[0], 1, a.shape[2], -1)

    def backward(self, signal):
        return signal.reshape(signal.shape[0], self.shape[1], self.shape[3])


def window_links(size, window, strides, padding, dilation=None):
    """For every output position, pairs (place in the window, input position) inside the space."""
    dilation = dilation or (1,) * len(size)
    starts = []
    for n, k, s, d in zip(size, window, strides, dilation, strict=True):
        reach = (k - 1) * d + 1
        if padding == "valid":
            starts.append(list(range(0, n - reach + 1, s)))
        else:
            count = -(-n // s)
            before = max((count - 1) * s + reach - n, 0) // 2 if padding == "same" else reach - 1
            starts.append([i * s - before for i in range(count)])
    links = []
    for corner in itertools.product(*starts):
        seen = []
        for place, offset in enumerate(np.ndindex(*window)):
            at = [c + o * d for c, o, d in zip(corner, offset, dilation)]
            if all(0 <= i < n for i, n in zip(at, size)):
                seen.append((place, int(np.ravel_multi_index(at, size))))
        links.append(seen)
    return links


def written_out(x, components):
    """The vectorized input: (batch, positions, K, inputs * K), copies of one input side by side."""
    batch, positions, inputs = x.shape
    a = np.zeros((batch, positions, components, inputs, components))
    for k in range(components):
        a[:, :, k, :, k] = x
    return a.reshape(batch, positions, components, inputs * components)


class Network:
    """A chain of stages.

    Args:
        stages: `Weights`, `AveragePool` and `Flatten`, the last one the readout.
        components: K of the vector units, or None for conventional ones.
    """

    def __init__(self, stages, components):
        self.stages, self.components = stages, components
        self.layers = [stage for stage in stages if isinstance(stage, Weights)]

    def forward(self, x):
        """Logits, from inputs (batch, positions, channels)."""
        vectorized = self.components is not None
        self.x = x
        a = written_out(x, self.components) if vectorized else x[:, :, None, :]
        for stage in self.stages:
            a = stage.forward(a)
        return a[:, 0, :, 0] if vectorized else a[:, 0, 0, :]

    def along(self, directions):
        """The derivative of the logits along directions at the hidden units, gates held; of one component."""
        remaining, a = list(directions), None
        for stage in self.stages:
            if not isinstance(stage, Weights):
                a = stage.forward(a)
                continue
            moved = 0 if a is None else stage.gate[:, :, None, :] * stage.project(a)
            a = moved + (remaining.pop(0)[:, :, None, :] if remaining else 0)
        return a[:, 0, 0, :]

    def gevb(self, error):
        return self._updates([np.ones_like(layer.gate) for layer in self.layers], error)

    def exact(self, error):
        return self._updates(self.signals(error), error)

    def feedback_alignment(self, error, kernels):
        """Backwards through `kernels`; the layers' own give the exact updates."""
        return self._updates(self.signals(error, kernels), error)

    def signals(self, error, kernels=None):
        """What arrives at the gated outputs of each layer, backwards through `kernels` or the layers' own."""
        kernels = [layer.kernel for layer in self.layers] if kernels is None else kernels
        remaining = list(kernels)
        signal = np.ones((len(error), 1, 1)) if self.components is not None else error[:, None, :]
        signals = []
        for stage in reversed(self.stages):
            if isinstance(stage, Weights):
                signals.insert(0, signal)
                signal = stage.backward(signal, remaining.pop())
            else:
                signal = stage.backward(signal)
        return signals

    def direct_feedback_alignment(self, error, feedback):
        """credit_i = m_i (e B)_i, each layer by the leading columns of B."""
        signals = []
        for layer in self.layers[:-1]:
            shape = layer.gate.shape
            signals.append((error @ feedback[:, : shape[1] * shape[2]]).reshape(shape))
        return self._updates([*signals, error[:, None, :]], error)

    def _updates(self, signals, error):
        if self.components is None:
            error = np.ones((len(error), 1))
        pairs = [layer.updates(s, error) for layer, s in zip(self.layers, signals, strict=True)]
        return [update for pair in pairs for update in pair]


def softmax_cross_entropy_error(logits, labels, sample_weight):
    """dLoss/dLogits of the weighted mean over the batch."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    softmax = exponentials / exponentials.sum(axis=-1, keepdims=True)
    onehot = np.eye(logits.shape[-1])[labels]
    return (softmax - onehot) * sample_weight[:, None] / len(labels)
