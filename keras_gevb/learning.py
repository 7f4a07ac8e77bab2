"""How a model learns by a rule: made ready, one step, its logs."""

import copy
import dataclasses
import functools
import itertools
import warnings
from typing import Any

import keras
from keras import ops

from keras_gevb import backend, places, private, rules, scopes, structure, targets
from keras_gevb.layers import WeightLayer
from keras_gevb.saving import Saved
from keras_gevb.stateless import Stateless
from keras_gevb.step import Step, forward
from keras_gevb.types import Array, Rule, Tensor


class Learner(Saved, Stateless, backend.StepMixin):
    """What all models share: a rule's updates in place of the gradients."""

    @property
    def learning_rule(self) -> rules.LearningRule:
        """The `LearningRule` that trains this model."""
        return self._learning_rule

    # No properties: files hold what is found by attributes.

    def read_between(self) -> list[Any]:
        """The weights that the model reads itself, between its layers: see `keras_gevb.places`."""
        return self._ready.read_between

    def rule_places(self) -> list[Any]:
        """The places that the rule has weights for: see `keras_gevb.places`."""
        return self._ready.rule or []

    def _set_learning_rule(self, learning_rule):
        self._drop_rule_weights()
        # A copy, since the rule's weights are this model's own.
        self._learning_rule = copy.copy(rules.get(learning_rule))
        self._ready = _Ready()
        self._build_rule()

    # Made ready before a step, and again where the layers are others.

    def _prepare(self, x, state=None):
        """Whatever runs a step on `x`: layers and rule are built for each other, vector units are linear.

        Args:
            x: A batch of inputs.
            state: What the variables have, where Keras keeps it elsewhere: as `training_state` returns it.
        """
        with backend.now(), backend.creating_variables(self):
            private.unseeded()
        inputs, layers = keras.tree.map_structure(_symbolic, x), private.flat_layers(self)
        known = _same(layers, self._ready.layers)
        if not known:
            self._build_layers(inputs)
        self._build_rule(symbolic=inputs)
        if not known:
            self._ready = dataclasses.replace(self._ready, layers=None, widths=None, has_head=None)
            structure.check_linear(self, x, forward)
            variables = [] if state is None else itertools.chain(*self._state_variables())
            values = [] if state is None else itertools.chain(*state)
            with scopes.holding(zip(variables, values)):
                self._ready.read_between = places.read_between(self, inputs)
            self._ready.layers = private.flat_layers(self)

    def _build_layers(self, inputs):
        """All layers' weights: by shapes, and by numbers where a layer makes its own when it is called."""
        for values in (inputs, None):
            if all(layer.built for layer in (self, *private.flat_layers(self))):
                return
            with backend.now():
                before = [] if values is inputs else [(v, ops.copy(v.value)) for v in self.variables]
                if values is None:
                    values = keras.tree.map_structure(_numbers, inputs)
                forward(self, values, training=values is inputs)
                backend.assign(before)

    def _build_rule(self, symbolic=None, found=None):
        """The rule's weights, for exactly the places that the model has, once these have theirs.

        Args:
            symbolic: The model's inputs; without them it is asked for its own, and what is not built waits.
            found: Some of the places, in place of those.
        """
        if found is None:
            if symbolic is None and not all(layer.built for layer in private.flat_layers(self)):
                return
            found = [place for place in places.of(self, symbolic) if place.built]
        if found == self._ready.rule and _kernels(found) == self._ready.kernels:
            return
        self._ready.before = self._drop_rule_weights()
        # Frozen layers among them are places from now on.
        self._ready.rule, self._ready.kernels = found, None
        if found:
            with backend.creating_variables(self):
                self._learning_rule.build(found, self._add_rule_weight)
        self._ready.kernels, self._ready.before = _kernels(found), {}

    def _add_rule_weight(self, of=None, **settings):
        """A weight of the rule: what it had before there were other places it has, as far as it reaches.

        Args:
            of: The variable or place that it belongs to, if any.
            settings: As of `keras.Model.add_weight`.
        """
        variable, weights = self.add_weight(**settings), self._ready.weights
        owner = settings.get("name") if of is None else getattr(of, "as_layer", lambda: of)()
        key = (owner if of is None else id(owner)), sum(other is owner for other, _ in weights.values())
        weights[key] = owner, variable  # as long as the owner is held, no other has its id
        _, before = self._ready.before.get(key, (None, variable))
        if before is not variable and len(before.shape) == len(variable.shape):
            value, had = ops.convert_to_numpy(variable).copy(), ops.convert_to_numpy(before)
            both = tuple(slice(min(extents)) for extents in zip(value.shape, had.shape))
            value[both] = had[both]
            variable.assign(value)
        private.checkpoint(self, f"learning_rule_{len(self._learning_rule.variables)}", variable)
        self._learning_rule.variables = [*self._learning_rule.variables, variable]
        return variable

    def _drop_rule_weights(self):
        """The rule's weights, which the model has no more, by what they belong to."""
        rule, ready = getattr(self, "_learning_rule", None), getattr(self, "_ready", _Ready())
        for number, variable in enumerate(getattr(rule, "variables", ())):
            private.untrack(self, variable)
            private.checkpoint(self, f"learning_rule_{number}", None)
        if rule is not None:
            rule.variables = []
        dropped, ready.weights = ready.weights, {}
        return dropped

    def _lock_state(self):
        # As Functional and Sequential have it: a rule may get its weights after the model is built.
        pass

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
        return [backend.dense(update) for update in updates]

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
            rule.build(places.of(self, keras.tree.map_structure(_symbolic, x)), _constant)
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
            with backend.now(), private.outside_of_scopes(), backend.creating_variables(self):
                self.optimizer.build(self.trainable_variables)

    def _check_labels(self, x, y, shaped=None):
        """The targets; where they are labels, behind a check that each is one of its output's units.

        Args:
            x, y: Of a batch.
            shaped: A function of `x` to the shapes of the outputs, where Keras's own finds no weights.
        """
        if self._ready.widths is None:
            outputs = private.symbolic_outputs(self)
            if outputs is None:
                outputs = self(keras.tree.map_structure(_symbolic, x)) if shaped is None else shaped(x)
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
            targets.check_loss(self.loss)
        except ValueError:
            if self._ready.has_head is None:
                self._ready.has_head = places.has_head(self, keras.tree.map_structure(_symbolic, x))
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


@dataclasses.dataclass
class _Ready:
    """For which layers a model is ready: objects that Keras does not track.

    Attributes:
        rule: The places for which the rule's weights were made.
        kernels: The ids of the kernels that these had then.
        weights: The rule's weights, pairs (owner, variable), by what they belong to.
        before: Those that it had until it was built anew, while it is.
        layers: All layers, once the model is prepared for a step.
        widths: The last extent of each output, in their structure.
        read_between: The weights that the model reads itself.
        has_head: Whether something without weights makes the outputs.
    """

    rule: list | None = None
    kernels: list | None = None
    weights: dict = dataclasses.field(default_factory=dict)
    before: dict = dataclasses.field(default_factory=dict)
    layers: list | None = None
    widths: Any = None
    read_between: list = dataclasses.field(default_factory=list)
    has_head: bool | None = None


def _kernels(found):
    return [id(kernel) for place in found for kernel in place.kernels]


def _same(layers, others):
    return others is not None and list(map(id, layers)) == list(map(id, others))


def _symbolic(tensor):
    """What Keras builds a model by: a tensor's shape and dtype."""
    if tensor is None:
        return None
    if not hasattr(tensor, "dtype"):  # a table of pandas
        tensor = ops.convert_to_tensor(tensor)
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return keras.KerasTensor(tuple(tensor.shape), dtype, sparse=backend.is_sparse(tensor))


def _numbers(tensor):
    """Numbers to call a model with: as many samples as there are, where that is known."""
    return backend.stand_in(tensor) if tensor is None else backend.stand_in(tensor, tensor.shape[0] or 4)


def weight_layers(model):
    """The weight layers of a model, nested ones included, in order."""
    return [layer for layer in private.flat_layers(model) if isinstance(layer, WeightLayer)]


def _constant(name, shape, initializer, trainable=False, dtype=None, **_):
    """A rule's weight that no model owns."""
    draw = keras.initializers.get(initializer)
    return ops.convert_to_tensor(draw(shape, dtype=dtype or keras.config.floatx()))
