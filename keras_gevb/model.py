"""Models that learn by a learning rule: Keras models with another `train_step`."""

import copy
import functools

import keras
from keras import ops

from keras_gevb import backend, checks, rules
from keras_gevb.layers import WeightLayer
from keras_gevb.trace import Trace
from keras_gevb.version import __version__


class _Learner(backend.StepMixin):
    """What `Model` and `Sequential` share: a rule's updates in place of the gradients."""

    @property
    def learning_rule(self):
        """The `LearningRule` that trains this model."""
        return self._learning_rule

    def _set_learning_rule(self, learning_rule):
        # A copy, since the rule's fixed weights are this model's own.
        self._learning_rule = copy.copy(rules.get(learning_rule))
        self._rule_built = False
        self._build_rule()

    def _build_rule(self):
        """Create the rule's fixed weights, once the layers have theirs."""
        layers = weight_layers(self)
        ready = layers and all(layer.built for layer in layers)
        if ready and not self._rule_built:
            self._rule_built = True
            self._learning_rule.build(layers, self.add_weight)

    def compute_updates(self, x, y, sample_weight=None, learning_rule=None):
        """What `train_step` would hand to the optimizer in place of the gradients.

        Args:
            x: A batch of inputs.
            y: Its targets.
            sample_weight: Optional weights of the samples.
            learning_rule: A name or a `LearningRule`, in place of the model's own.

        Returns:
            A list of tensors, in the order of `model.trainable_variables`. An optimizer
            that scales its loss (mixed_float16) scales them too.

        Raises:
            ValueError: if the model is not compiled, or the rule cannot serve it.

        Example:

        >>> ours = model.compute_updates(x, y)
        >>> exact = model.compute_updates(x, y, learning_rule="backprop")

        Reference: paper, equations (3) and (4).
        """
        self._assert_compile_called("compute_updates")
        self._build_rule()
        x, y, sample_weight = keras.tree.map_structure(
            lambda v: None if v is None else ops.convert_to_tensor(v), (x, y, sample_weight)
        )
        rule = self.learning_rule
        if learning_rule is not None:
            rule = copy.copy(rules.get(learning_rule))
            rule.build(weight_layers(self), _constant)
        y = self._check_targets(y)
        return self._learn(x, y, sample_weight, rule)[2]

    def _learn(self, x, y, sample_weight, rule):
        """The loss, the outputs and the updates on one batch."""
        trace = Trace(self, x, activity=rule.needs_activity)
        checks.check_loss(self.loss)
        checks.check_network(self, trace)
        rule.check(trace.records)
        if not self.optimizer.built:
            # Not when it first applies updates: an optimizer that is not built scales the loss by a constant.
            self.optimizer.build(self.trainable_variables)

        def scaled_loss(logits):
            loss = self.compute_loss(x, y, logits, sample_weight, training=True)
            return self.optimizer.scale_loss(loss), loss

        loss, error, regularization = backend.loss_gradients(
            scaled_loss, trace.outputs, self.trainable_variables
        )
        updates = {}
        for variable, update in rule.updates(trace, error):
            key = id(variable)
            updates[key] = updates[key] + update if key in updates else update
        updates = [updates[id(variable)] for variable in self.trainable_variables]
        updates = [u if r is None else u + r for u, r in zip(updates, regularization)]
        return loss, trace.outputs, updates

    def _check_targets(self, y):
        outputs = getattr(self, "outputs", None)
        return checks.check_targets(y, self.loss, outputs[0].shape[-1] if outputs else None)

    @functools.wraps(keras.Model.fit)
    def fit(self, x=None, *args, **kwargs):
        checks.check_not_empty(x)
        history = super().fit(x, *args, **kwargs)
        # An optimizer that averages the weights (use_ema) does so before their constraints.
        for variable in self.trainable_variables:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable))
        return history

    def _train_on(self, x, y, sample_weight):
        """One training step; its logs."""
        loss, y_pred, updates = self._learn(x, y, sample_weight, self.learning_rule)
        samples = ops.shape(keras.tree.flatten(x)[0])[0]
        self._loss_tracker.update_state(loss * backend.replicas(), sample_weight=samples)
        backend.as_one(self._apply)(updates)
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def _apply(self, updates):
        self.optimizer.apply(updates, self.trainable_variables)

    def make_train_function(self, force=False):
        self._build_rule()
        if self.train_function is None or force:
            checks.check_linear(self)
        return super().make_train_function(force)

    def load_own_variables(self, store):
        self._build_rule()
        super().load_own_variables(store)

    def get_config(self):
        rule = keras.saving.serialize_keras_object(self.learning_rule)
        return {**super().get_config(), "learning_rule": rule, "keras_gevb_version": __version__}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        checks.check_version(config.pop("keras_gevb_version", __version__))
        rule = rules.get(config.pop("learning_rule", None))
        model = super().from_config(config, custom_objects=custom_objects)
        model._set_learning_rule(rule)
        return model

    def get_compile_config(self):
        # keras.models.clone_model hands on a model's layers and its compile config, no more: so
        # the clone of a compiled model keeps the rule, or fails where Keras makes it another class.
        config = super().get_compile_config()
        rule = keras.saving.serialize_keras_object(_CompiledRule(self.learning_rule))
        return {**config, "learning_rule": rule} if config else config

    def compile_from_config(self, config):
        config = dict(config)
        rule = config.pop("learning_rule", None)
        if rule is not None:
            rule = rules.get(rule["config"]["learning_rule"])
            if repr(rule) != repr(self.learning_rule):
                self._set_learning_rule(rule)
        super().compile_from_config(config)


@keras.saving.register_keras_serializable(package="keras_gevb")
class _CompiledRule:
    """The rule in a compile config, with which no stock model can be compiled."""

    def __init__(self, learning_rule):
        self.learning_rule = learning_rule

    def get_config(self):
        return {"learning_rule": keras.saving.serialize_keras_object(self.learning_rule)}

    @classmethod
    def from_config(cls, config):
        raise ValueError(
            "A stock Keras model learns by automatic differentiation, and keras.models.clone_model makes one "
            "of every Sequential. Clone by type(model).from_config(model.get_config()). Received a compile "
            f"config with learning_rule={config['learning_rule']['class_name']}"
        )


@keras.saving.register_keras_serializable(package="keras_gevb")
class Model(_Learner, keras.Model):
    """A Keras model that learns by a learning rule.

    Everything is `keras.Model`, but what `train_step` hands to the optimizer: the rule's
    updates in place of the gradients.

    Args:
        inputs, outputs: As in `keras.Model`.
        learning_rule: A name ("gevb", "backprop", "dfa", "fa") or a `LearningRule`. It is
            an argument of the model, not of `compile`, so that tuners, which compile
            models anew, keep it. Defaults to "gevb".

    Example:

    >>> inputs = keras.Input((64,))
    >>> units = layers.VectorDense(32, vector_dim=10)(inputs)
    >>> more = layers.VectorDense(32)(units)
    >>> outputs = layers.VectorReadout()(keras.layers.Add()([units, more]))
    >>> model = keras_gevb.Model(inputs, outputs, learning_rule="gevb")
    """

    def __init__(self, *args, learning_rule="gevb", **kwargs):
        super().__init__(*args, **kwargs)
        self._set_learning_rule(learning_rule)


@keras.saving.register_keras_serializable(package="keras_gevb")
class Sequential(_Learner, keras.Sequential):
    """A Keras Sequential model that learns by a learning rule.

    Args:
        layers: As in `keras.Sequential`.
        learning_rule: See `Model`.

    Example:

    >>> model = keras_gevb.Sequential([
    ...     keras.Input((64,)),
    ...     layers.VectorDense(32, vector_dim=10),
    ...     layers.VectorReadout(),
    ... ], learning_rule="gevb")
    """

    def __init__(self, layers=None, *, learning_rule="gevb", **kwargs):
        super().__init__(layers, **kwargs)
        self._set_learning_rule(learning_rule)


def weight_layers(model):
    """The weight layers of a model, nested ones included, in order."""
    layers = model._flatten_layers(include_self=False)
    return [layer for layer in layers if isinstance(layer, WeightLayer)]


def _constant(name, shape, initializer, trainable):
    """A rule's fixed weight that no model owns."""
    return ops.convert_to_tensor(initializer(shape, dtype=keras.config.floatx()))
