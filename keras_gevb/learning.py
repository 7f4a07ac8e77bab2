"""How a model learns by a rule: made ready, one step, its logs."""

import copy
import functools
import warnings
from typing import Any

import keras
from keras import ops

from keras_gevb import backend, places, private, rules, scopes, targets
from keras_gevb.layers import WeightLayer
from keras_gevb.preparation import Prepared, symbolic
from keras_gevb.saving import Saved
from keras_gevb.stateless import Stateless
from keras_gevb.step import Step, forward
from keras_gevb.types import Array, Rule, Tensor


class Learner(Prepared, Saved, Stateless, backend.StepMixin):
    """What all models share: a rule's updates in place of the gradients."""

    # One step.

    def compute_updates(
        self,
        x: Array,
        y: Array | None = None,
        sample_weight: Array | None = None,
        learning_rule: Rule | None = None,
    ) -> list[Tensor]:
        """What `train_step` would hand to the optimizer in place of the gradients.

        Args:
            x: A batch of inputs.
            y: Its targets.
            sample_weight: Optional weights of the samples.
            learning_rule: A name or a `LearningRule`, in place of the model's own.

        Returns:
            A list of tensors, in the order of `model.trainable_variables`. An optimizer
            that scales its loss (mixed_float16) scales them too. The model is left as it was.

        Raises:
            ValueError: if the model is not compiled, or the rule cannot serve it.

        Example:

        >>> ours = model.compute_updates(x, y)
        >>> exact = model.compute_updates(x, y, learning_rule="backprop")

        Reference: paper, equations (3) and (4).
        """
        updates = self.compute_step(x, y, sample_weight, learning_rule).updates()
        pairs = zip(self.trainable_variables, updates, strict=True)
        return [ops.zeros_like(v.value) if update is None else backend.dense(update) for v, update in pairs]

    def compute_step(
        self,
        x: Array,
        y: Array | None = None,
        sample_weight: Array | None = None,
        learning_rule: Rule | None = None,
    ) -> Step:
        """One training step as it would be, up to its updates; the model is left as it was.

        Args, raises: as `compute_updates`.

        Returns:
            A `keras_gevb.step.Step`: its records, error vector, signals and updates.

        Example:

        >>> step = model.compute_step(x, y)
        >>> g = step.backward()  # backpropagation's signal, for each record
        """
        if not self.compiled:
            raise ValueError(
                "A step needs a loss: call model.compile(optimizer, loss) first. "
                f"Received: model '{self.name}', which is not compiled."
            )
        x, y, sample_weight = keras.tree.map_structure(
            lambda v: None if v is None else ops.convert_to_tensor(v), (x, y, sample_weight)
        )
        self._prepare(x)
        rule = self.learning_rule
        if learning_rule is not None:
            rule = copy.copy(rules.get(learning_rule))
            rule.build(places.of(self, keras.tree.map_structure(symbolic, x)), _constant)
        values = [(v, v.value) for v in self.variables]
        with scopes.holding(values):
            return self._step(x, self._check_labels(x, y), sample_weight, rule)

    def _step(self, x, y, sample_weight, rule):
        step = Step(self, x, rule)
        # Not when it first applies updates: an optimizer that is not built scales the loss by a constant.
        self._build_optimizer()
        return step.assess(y, sample_weight)

    def _build_optimizer(self):
        if self.optimizer is not None and not self.optimizer.built:
            with private.outside_of_scopes(), backend.creating_variables(self):
                backend.build_now(self.optimizer, self.trainable_variables)

    def _check_labels(self, x, y, shaped=None):
        """The targets; where they are labels, behind a check that each is one of its output's units.

        Args:
            x, y: Of a batch.
            shaped: A function of `x` to the shapes of the outputs, where Keras's own finds no weights.
        """
        if self._ready.widths is None:
            outputs = private.symbolic_outputs(self)
            if outputs is None:
                outputs = self(keras.tree.map_structure(symbolic, x)) if shaped is None else shaped(x)
            self._ready.widths = keras.tree.map_structure(
                lambda tensor: (tensor.shape or (None,))[-1], outputs
            )
        return targets.check_labels(self, y, self._ready.widths)

    def _learn(self, x, y, sample_weight):
        """Take one step; its loss and the outputs."""
        if not self.trainable_variables:
            warnings.warn("The model does not have any trainable weights.", stacklevel=2)
            return self._assess(x, y, sample_weight, training=True)
        rule = self.learning_rule
        step = self._step(x, y, sample_weight, rule)
        if not rule.remembers():
            backend.as_one(self._apply)(step.updates())
            return step.loss, step.outputs
        updates, steps = step.updates(), ops.copy(self.optimizer.iterations)
        backend.as_one(self._apply)(updates)
        # Neither where a loss scale was too large, nor where gradients are only added up.
        taken = self.optimizer.iterations > steps
        pairs = [(v, ops.cast(value, v.dtype)) for v, value in rule.remember(step, step.change)]
        backend.assign([(v, ops.where(taken, value, v.value)) for v, value in pairs])
        return step.loss, step.outputs

    def _apply(self, updates):
        backend.apply(self.optimizer, updates, self.trainable_variables)

    def _assess(self, x, y, sample_weight, training=False):
        """The loss and the outputs, without learning."""
        try:
            targets.check_loss(self)
        except ValueError:
            if self._ready.has_head is None:
                self._ready.has_head = places.has_head(self, keras.tree.map_structure(symbolic, x))
            if not self._ready.has_head:
                raise
        outputs = forward(self, x, training=training)
        return targets.compute_loss(self, x, y, outputs, sample_weight, training=training), outputs

    def _log(self, loss, outputs, x, y, sample_weight):
        """The logs of a step, as Keras makes them."""
        samples = next(ops.shape(part)[0] for part in keras.tree.flatten(x) if part is not None)
        private.loss_tracker(self).update_state(loss * backend.replicas(), sample_weight=samples)
        return self.compute_metrics(x, y, outputs, sample_weight=sample_weight)

    @functools.wraps(keras.Model.fit)
    def fit(self, x=None, *args, **kwargs):
        targets.check_not_empty(x)
        return super().fit(x, *args, **kwargs)

    def make_train_function(self, force: bool = False) -> Any:
        self._build_rule()
        # A step that makes a variable is traced twice.
        private.make_unseeded()
        _constrain_averages(self.optimizer)
        return super().make_train_function(force)


def _constrain_averages(optimizer):
    """Averages that an optimizer writes into weights (use_ema) are constrained, which Keras leaves out."""
    write = getattr(optimizer, "finalize_variable_values", None)
    averages = getattr(getattr(optimizer, "inner_optimizer", optimizer), "use_ema", False)
    if not averages or hasattr(write, "constrains"):
        return

    @functools.wraps(write)
    def write_constrained(variables):
        write(variables)
        for variable in variables:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable))

    write_constrained.constrains = True
    optimizer.finalize_variable_values = write_constrained


def weight_layers(model):
    """The weight layers of a model, nested ones included, in order."""
    return [layer for layer in private.flat_layers(model) if isinstance(layer, WeightLayer)]


def _constant(name, shape, initializer, trainable=False, dtype=None, **_):
    """A rule's weight that no model owns."""
    draw = keras.initializers.get(initializer)
    return ops.convert_to_tensor(draw(shape, dtype=dtype or keras.config.floatx()))
