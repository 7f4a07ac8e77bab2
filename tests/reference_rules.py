"""Rules and optimizers written again, sample by sample, from their equations: see `reference`.

A rule has `signals(error, y, share)`, one array `(batch, positions, units)` for each layer, and
`after(error, before)`, which changes its `state` and may change the weights. `error` is
dLoss/dLogits, `y` one-hot, `share` the weight of a sample / batch, `before` the kernels before the step.
"""

import math

import numpy as np


class Rule:
    """Nothing is remembered."""

    def __init__(self, network, state, settings):
        self.network, self.state, self.settings = network, state, settings

    @property
    def hidden(self):
        return self.network.layers[:-1]

    def last(self, error):
        return error[:, None, :] if self.network.components is None else np.ones((len(error), 1, 1))

    def after(self, error, before):
        pass


class Feedback(Rule):
    """Backwards through V."""

    def kernels(self):
        return self.state["feedback"]

    def signals(self, error, y, share):
        return self.network.signals(error, self.kernels())


class USF(Feedback):
    def kernels(self):
        return [self.c(layer.kernel) * np.sign(layer.kernel) for layer in self.network.layers]

    def c(self, kernel):
        _, window, inputs, outputs = kernel.shape
        return math.sqrt(2 / (window * inputs + window * outputs))


class FRSF(Feedback):
    def kernels(self):
        pairs = zip(self.state["feedback"], self.network.layers, strict=True)
        return [abs(m) * np.sign(layer.kernel) for m, layer in pairs]


class KP(Feedback):
    def after(self, error, before):
        decay = self.settings["decay"]
        for n, layer in enumerate(self.network.layers):
            change = layer.kernel - before[n]
            self.state["feedback"][n] = (1 - decay) * (self.state["feedback"][n] + change)
            layer.kernel = (1 - decay) * layer.kernel


class Direct(Rule):
    """Each layer by the leading columns of B, or by a B of its own."""

    def sent(self, error, y, share):
        return error

    def feedback(self, n):
        return self.state["feedback"][n if len(self.state["feedback"]) > 1 else 0]

    def signals(self, error, y, share):
        sent, signals = self.sent(error, y, share), []
        for n, layer in enumerate(self.hidden):
            signal = np.zeros(layer.gate.shape)
            for sample in range(len(error)):
                for p, i in np.ndindex(signal.shape[1:]):
                    signal[sample, p, i] = sent[sample] @ self.feedback(n)[:, p * signal.shape[2] + i]
            signals.append(signal)
        return [*signals, self.last(error)]


class SDFA(Direct):
    def sent(self, error, y, share):
        return share[:, None] * np.sign(error)


class DRTP(Direct):
    def sent(self, error, y, share):
        return share[:, None] * y


class Learned(Direct):
    """B of its own for each layer; in vector units a number for each unit."""

    def signals(self, error, y, share):
        if self.network.components is None:
            return super().signals(error, y, share)
        pairs = zip(self.state["feedback"], self.hidden, strict=True)
        signals = [b.reshape(1, *layer.gate.shape[1:]) * np.ones(layer.gate.shape) for b, layer in pairs]
        return [*signals, self.last(error)]

    def after(self, error, before):
        for n, layer in enumerate(self.hidden):
            self.state["feedback"][n] = self.learned(self.state["feedback"][n], layer, error, n)


class DKP(Learned):
    def learned(self, feedback, layer, error, n):
        seen = np.zeros(feedback.shape)
        for e, h in zip(error, layer.outputs, strict=True):
            for p, i in np.ndindex(h.shape[0], h.shape[2]):
                unit = p * h.shape[2] + i
                if self.network.components is None:
                    seen[:, unit] += e * h[p, 0, i]
                else:
                    seen[unit] += e @ h[p, :, i]
        return feedback - self.settings["rate"] * seen - self.settings["decay"] * feedback


class NodePerturbation(Rule):
    def signals(self, error, y, share):
        along = self.network.along(self.state["noise"])
        told = error if self.network.components is None else np.ones((len(error), 1))
        signals = []
        for u in self.state["noise"]:
            signal = np.zeros(u.shape)
            for sample in range(len(u)):
                signal[sample] = (told[sample] @ along[sample]) * u[sample]
            signals.append(signal)
        return [*signals, self.last(error)]


class FDFA(Learned):
    def learned(self, feedback, layer, error, n):
        # Of the step's weights: before the optimizer.
        u, seen = self.state["noise"][n], np.zeros(feedback.shape)
        for sample, along in enumerate(self.state["along"]):
            flat = u[sample].ravel()
            seen += np.outer(along, flat) if self.network.components is None else along[0] * flat
        return feedback - self.settings["rate"] * (feedback - seen / len(u))


class EBD(Rule):
    def signals(self, error, y, share):
        s, signals = self.settings, []
        for r, c, layer in zip(self.state["feedback"], self.state["covariance"], self.hidden, strict=True):
            signal = np.zeros(layer.gate.shape)
            inverse = np.linalg.inv(c + s["epsilon"] * np.eye(len(c)))
            for sample, p in np.ndindex(signal.shape[:2]):
                h = layer.outputs[sample, p, 0]
                wanted = s["power"] * (np.diag(c) - s["level"]) * h - s["entropy"] * inverse @ h
                signal[sample, p] = share[sample] * wanted
            signal += np.stack([r @ e for e in error]).reshape(signal.shape)
            signals.append(signal)
        return [*signals, self.last(error)]

    def after(self, error, before):
        memory = self.settings["memory"]
        for n, layer in enumerate(self.hidden):
            r, c = self.state["feedback"][n], self.state["covariance"][n]
            with_error, among = np.zeros(r.shape), np.zeros(c.shape)
            for sample, e in enumerate(error):
                with_error += np.outer(layer.outputs[sample].ravel(), e)
                for h in layer.outputs[sample, :, 0]:
                    among += np.outer(h, h)
            among /= layer.outputs.shape[0] * layer.outputs.shape[1]
            self.state["feedback"][n] = memory * r + (1 - memory) * with_error
            self.state["covariance"][n] = memory * c + (1 - memory) * among


class LocalError(Rule):
    def own_errors(self, y, share):
        for classifier, layer in zip(self.state["classifier"], self.hidden, strict=True):
            h = layer.outputs.reshape(len(y), -1)
            logits = h @ classifier
            exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
            yield h, classifier, share[:, None] * (exponentials / exponentials.sum(axis=1, keepdims=True) - y)

    def signals(self, error, y, share):
        signals = [own @ classifier.T for _, classifier, own in self.own_errors(y, share)]
        signals = [s.reshape(layer.gate.shape) for s, layer in zip(signals, self.hidden, strict=True)]
        return [*signals, self.last(error)]

    def own_updates(self, y, share):
        return [h.T @ own for h, _, own in self.own_errors(y, share)]


class SGD:
    """w <- w + v, v <- momentum v - rate g"""

    def __init__(self, rate, momentum):
        self.rate, self.momentum, self.moved = rate, momentum, {}

    def step(self, n, w, g):
        self.moved[n] = self.momentum * self.moved.get(n, 0) - self.rate * g
        return w + self.moved[n]


class Adam:
    """w <- w - rate sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon)"""

    def __init__(self, rate, b1=0.9, b2=0.999, epsilon=1e-7):
        self.rate, self.b1, self.b2, self.epsilon, self.means = rate, b1, b2, epsilon, {}

    def step(self, n, w, g):
        t, m, v = self.means.get(n, (0, 0, 0))
        t, m, v = t + 1, self.b1 * m + (1 - self.b1) * g, self.b2 * v + (1 - self.b2) * g**2
        self.means[n] = t, m, v
        rate = self.rate * math.sqrt(1 - self.b2**t) / (1 - self.b1**t)
        return w - rate * m / (np.sqrt(v) + self.epsilon)
