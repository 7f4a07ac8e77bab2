"""A model made ready for a step: its layers and its rule, built for each other."""

import copy
import dataclasses
import itertools
from typing import Any

import keras
from keras import ops

from keras_gevb import backend, places, private, rules, scopes, structure
from keras_gevb.places import forward


class Prepared:
    """The part of a model that has a rule, and makes it ready for exactly the layers that there are."""

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
        if backend.replicas() == 1:  # elsewhere Keras makes none either
            with backend.now():
                private.make_unseeded()
        if self._is_ready():
            return
        inputs = keras.tree.map_structure(symbolic, x)
        self._build_layers(inputs)
        self._ready = dataclasses.replace(self._ready, parts=None, widths=None, has_head=None)
        self._build_rule(symbolic=inputs)
        structure.check_weights(self)
        structure.check_linear(self, x, forward)
        variables = [] if state is None else itertools.chain(*self._state_variables())
        values = [] if state is None else itertools.chain(*state)
        with scopes.holding(zip(variables, values)):
            self._ready.read_between = places.read_between(self, inputs)
        self._ready.parts = _parts(self)

    def _is_ready(self):
        """Whether the model has the layers and weights that it was prepared for, and the same ones learn."""
        (parts, learn), (others, learned) = _parts(self), self._ready.parts or ((), None)
        return learn == learned and list(map(id, parts)) == list(map(id, others))

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
            if self._is_ready():
                return
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


@dataclasses.dataclass
class _Ready:
    """For which layers a model is ready: objects that Keras does not track.

    Attributes:
        rule: The places for which the rule's weights were made.
        kernels: The ids of the kernels that these had then.
        weights: The rule's weights, pairs (owner, variable), by what they belong to.
        before: Those that it had until it was built anew, while it is.
        parts: All layers and weights, once the model is prepared for a step, and which of these learn.
        widths: The last extent of each output, in their structure.
        read_between: The weights that the model reads itself.
        has_head: Whether something without weights makes the outputs.
    """

    rule: list | None = None
    kernels: list | None = None
    weights: dict = dataclasses.field(default_factory=dict)
    before: dict = dataclasses.field(default_factory=dict)
    parts: tuple | None = None
    widths: Any = None
    read_between: list = dataclasses.field(default_factory=list)
    has_head: bool | None = None


def _kernels(found):
    return [id(kernel) for place in found for kernel in place.kernels]


def _parts(model):
    """All layers and weights, and which weights learn."""
    weights = model.weights
    return [*private.flat_layers(model), *weights], [weight.trainable for weight in weights]


def symbolic(tensor):
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
