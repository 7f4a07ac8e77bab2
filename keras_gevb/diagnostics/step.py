"""One training step, up to its updates, without training."""

import copy

import keras
from keras import ops

from keras_gevb import backend, checks
from keras_gevb.trace import Trace


class Step:
    """One training step up to the updates: its trace, its error vector, its rule's signals."""

    def __init__(self, model, x, y):
        model._assert_compile_called("diagnostics")
        model._build_rule()
        self.model, self.x = model, _tensors(x)
        self.trace = forward(model, self.x)
        self.rule = model.learning_rule
        checks.check_network(model, self.trace)
        self.rule.check(self.trace.records)
        y = model._check_targets(_tensors(y))

        def loss(logits):
            value = model.compute_loss(self.x, y, logits, training=True)
            return value, value

        _, self.error, _ = backend.loss_gradients(loss, self.trace.outputs, [])

    def with_current_weights(self):
        """This step, its error vector, inputs and gates held, as the present weights see it."""
        step = copy.copy(self)
        step.trace = forward(self.model, self.x)
        step.trace.records, step.trace.outputs = self.trace.records, self.trace.outputs
        return step

    def signals(self):
        return self.rule.signals(self.trace, self.error)

    def updates(self, signals, example=None):
        """Pairs (layer, update as one vector) by these signals, of one example or of the batch."""
        chosen = slice(None) if example is None else slice(example, example + 1)
        for record, signal in zip(self.trace.records, signals, strict=True):
            credit = (record.gate * signal)[chosen]
            updates = record.layer.updates(record.inputs[chosen], credit, self.error[chosen])
            if updates:
                yield record.layer, ops.concatenate([ops.ravel(update) for _, update in updates])

    def total_updates(self, signals=None, example=None):
        """The update of each layer, its calls added up, by name; by the rule's signals by default."""
        totals = {}
        for layer, update in self.updates(self.signals() if signals is None else signals, example):
            update = ops.convert_to_numpy(update)
            totals[layer.name] = totals.get(layer.name, 0) + update
        return totals


def forward(model, x):
    # What a layer changes as it runs (random seeds, moving averages) is dropped with the scope.
    with keras.StatelessScope():
        return Trace(model, _tensors(x))


def _tensors(structure):
    return keras.tree.map_structure(ops.convert_to_tensor, structure)
