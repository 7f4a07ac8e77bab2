"""Files and copies of models: the rule goes with them, or an error says where it would be lost."""

import functools
import threading
import warnings
from typing import Any

import keras
import numpy as np

from keras_gevb import places, private, rules
from keras_gevb.version import __version__, check_version

# Beside the weights of a rule in a file: its registered name, and for which layers it has weights.
_RULE, _PLACES = "learning_rule", "learning_rule_layers"


def _name(rule):
    return keras.saving.get_registered_name(type(rule))


class _NamedInFull(type(keras.Model)):
    """Classes whose name in a legacy .h5 file is the registered one: their bare names are Keras's own."""

    @property
    def __name__(cls):
        bare = type.__dict__["__name__"].__get__(cls)
        # Without a registered name Keras asks for this one again.
        if not private.saves_legacy_config() or getattr(_asking, "now", False):
            return bare
        _asking.now = True
        try:
            return keras.saving.get_registered_name(cls)
        finally:
            _asking.now = False


_asking = threading.local()


class Saved(metaclass=_NamedInFull):
    """The part of a model that is saved, loaded, cloned and copied with its rule."""

    def save_own_variables(self, store: Any) -> None:
        self._build_rule()
        super().save_own_variables(store)
        if self.learning_rule.variables:
            # Feedback of one rule can have the shapes of another's.
            store[_RULE] = np.frombuffer(_name(self.learning_rule).encode(), "uint8")
            has = [place in self.rule_places() for place in places.that_may_learn(self)]
            store[_PLACES] = np.array(has, "uint8")

    @functools.wraps(keras.Model.load_weights)
    def load_weights(self, filepath, *args, **kwargs):
        # Keras loads the layers that fit before it says which do not.
        before = [(v, keras.ops.convert_to_numpy(v)) for v in self.variables]
        try:
            return super().load_weights(filepath, *args, **kwargs)
        except Exception:
            for variable, value in before:
                variable.assign(value)
            raise

    def load_own_variables(self, store: Any) -> None:
        self._build_rule()
        rule = self.learning_rule
        if rule.variables and not store.keys():
            warnings.warn(
                f"The file is of a model whose learning rule has no weights: those of {rule} stay as drawn.",
                stacklevel=2,
            )
            return
        weights = {key: store[key] for key in store.keys()}  # noqa: SIM118 a store, no dict
        saved = bytes(weights.pop(_RULE, b"")).decode()
        if saved not in ("", _name(rule)):
            raise ValueError(
                f"The file is of a model with another learning rule than {rule}. Received: '{saved}'. "
                "Pass skip_mismatch=True, or load into a model of its rule."
            )
        has, may = weights.pop(_PLACES, ()), places.that_may_learn(self)
        if len(has) == len(may):  # what was frozen then need not be now
            self._build_rule(found=[place for place, known in zip(may, has) if known])
        try:
            super().load_own_variables(weights)
        except ValueError as error:
            raise ValueError(
                f"{error}\nThe file may be of a model with another learning rule than {rule}: then pass "
                "skip_mismatch=True, or load into a model of its rule."
            ) from error
        finally:
            self._build_rule()

    def get_config(self) -> dict[str, Any]:
        if private.saves_legacy_config() and self.learning_rule.variables:
            raise ValueError(
                "Keras's legacy .h5 format does not keep the weights of a learning rule. Received: "
                f"{self.learning_rule}. Save to a file that ends in '.keras', or weights alone by "
                "save_weights('... .weights.h5')."
            )
        rule = keras.saving.serialize_keras_object(self.learning_rule)
        return {**super().get_config(), "learning_rule": rule, "keras_gevb_version": __version__}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
        # A config of stock Keras, or of a subclass that leaves the rule out, gets the constructor's.
        saved = not {"keras_gevb_version", "learning_rule"}.isdisjoint(config)
        config = dict(config)
        check_version(config.pop("keras_gevb_version", __version__))
        rule = config.pop("learning_rule", None)
        rule = rules.get(rule) if saved else None
        model = super().from_config(config, custom_objects=custom_objects)
        if saved:
            model._set_learning_rule(rule)
        return model

    def get_compile_config(self) -> dict[str, Any]:
        # keras.models.clone_model hands on a model's layers and its compile config, no more: so
        # the clone of a compiled model keeps the rule, or fails where Keras makes it another class.
        config = super().get_compile_config()
        rule = keras.saving.serialize_keras_object(_NotForStockModels(self.learning_rule))
        return {**config, "learning_rule": rule} if config else config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        config = dict(config)
        rule = config.pop("learning_rule", None)
        if rule is not None:
            rule = rules.get(rule["config"]["learning_rule"])
            if repr(rule) != repr(self.learning_rule):
                self._set_learning_rule(rule)
        super().compile_from_config(config)


@keras.saving.register_keras_serializable(package="keras_gevb", name="_CompiledRule")
class _NotForStockModels:
    """The rule in a compile config, with which no stock model can be compiled."""

    def __init__(self, learning_rule):
        self.learning_rule = learning_rule

    def get_config(self):
        return {"learning_rule": keras.saving.serialize_keras_object(self.learning_rule)}

    @classmethod
    def from_config(cls, config):
        raise ValueError(
            "A stock Keras model learns by automatic differentiation, and keras.models.clone_model makes one "
            "of every Sequential. Clone by type(model).from_config(model.get_config()), and give "
            "scikit-learn's wrappers a function that makes the model. Received a compile config with "
            f"learning_rule={config['learning_rule']['class_name']}"
        )
