"""Search spaces of networks that learn by a learning rule."""

import bisect
import math
import time
from collections import abc
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any, ClassVar

import keras
import keras_tuner
from keras import ops

from keras_gevb import rules, zoo
from keras_gevb.model import Sequential, weight_layers
from keras_gevb.tuning.parameters import count_parameters

_LOGARITHMIC = {"learning_rate", "parameters", "batch_size", "initial_scale"}
_LOSSES = "loss", "val_loss"
_WIDEST = 2**24
# Units of the dense layer after the last image layer, for each filter of the first one.
_DENSE_PER_FILTER = {"conv": 16, "lc": 32}


class VNNHyperModel(keras_tuner.HyperModel):
    """The networks that a keras-tuner search chooses from, one family at a time.

        fc          dense w, dense w taper, ...                     (depth layers)
        conv, lc    w filters 3x3, pool 2, w taper filters 3x3, pool 2, ..., dense 16 w or 32 w

    The width w is no choice of its own: it is the largest even number for which the trial
    stays within its budget of `parameters`. So no trial outgrows the machine, trials of one
    budget are comparable, and depth and taper say how a budget is best spent.

    Each choice is a keyword argument, with one of three kinds of value:

        3e-4            fixed: not searched
        ["adam", "sgd"] searched among these
        (1e-4, 1e-2)    searched in this range, both ends included

    | choice | default | |
    |---|---|---|
    | `learning_rate` | `(1e-4, 1e-2)` | on a logarithmic scale |
    | `parameters` | `(100_000, 1_000_000)` | budget of trainable parameters, logarithmic |
    | `depth` | `(1, 3)` | hidden layers; for "conv" and "lc", image layers |
    | `taper` | `[0.5, 1.0]` | width of a layer over that of the one before |
    | `optimizer` | `["adam", "rmsprop"]` | a Keras name, or a function of the learning rate |
    | `batch_size` | `[32, 64, 128, 256]` | None where the data come in batches |
    | `initial_scale` | `1.0` | factor on the variance of every initial kernel, logarithmic |
    | `nonnegative` | `True` | nonnegative kernels past the first layer |
    | `learning_rule` | `"gevb"` | names, or one `LearningRule` |

    Of a rule given by name, its own `search_space` is searched too ("kp": its decay, as "kp_decay"). A
    `LearningRule` stays as it is: `rules.KP(decay=1e-3)`.

    To add a choice, subclass: extend `search_space`, and override the method that needs it
    (`network`, `layers`, `rule`, `compile` or `fit`).

    Args:
        family: "fc", "conv" or "lc".
        input_shape: Shape of one example; images for "conv" and "lc".
        classes: The number K of outputs.
        loss: Taken on logits. Defaults to sparse categorical cross-entropy.
        metrics: Defaults to `["accuracy"]`.
        brightest: The largest input: 0 to `brightest` becomes -1 to 1 inside the model. None
            takes the input as it is.
        vectorized: Vector units or conventional ones, under rules that serve both; the others
            (GEVB: vector, DFA: conventional) have what they serve.
        seed: Seeds each build, so that a trial run again is the same trial. Leave it out to
            average over several `executions_per_trial`.
        **choices: Values of the choices above.

    Raises:
        ValueError: if a family or a choice is unknown.
        keras_tuner.errors.FailedTrialError: in a trial, if not even the narrowest network is
            within its budget, or if the loss is no longer finite.

    Example:

    >>> hypermodel = VNNHyperModel("fc", (8, 8, 1), 10, depth=2, learning_rate=(1e-3, 1e-1))
    >>> search = tuning.RandomSearch(hypermodel, objective="val_accuracy", max_trials=20)
    """

    search_space: ClassVar = {
        "learning_rate": (1e-4, 1e-2),
        "parameters": (100_000, 1_000_000),
        "depth": (1, 3),
        "taper": [0.5, 1.0],
        "optimizer": ["adam", "rmsprop"],
        "batch_size": [32, 64, 128, 256],
        "initial_scale": 1.0,
        "nonnegative": True,
        "learning_rule": "gevb",
    }

    def __init__(
        self,
        family: str,
        input_shape: abc.Sequence[int],
        classes: int,
        *,
        loss: Any = None,
        metrics: Iterable[Any] = ("accuracy",),
        brightest: float | None = None,
        vectorized: bool = True,
        seed: int | None = None,
        name: str | None = None,
        **choices: Any,
    ) -> None:
        super().__init__(name=name)
        if family not in zoo.ARCHITECTURES:
            raise ValueError(f"Unknown family. Choose one of {list(zoo.ARCHITECTURES)}. Received: {family!r}")
        unknown = sorted(set(choices) - set(self.search_space))
        if unknown:
            raise ValueError(f"Unknown choices. Give any of {sorted(self.search_space)}. Received: {unknown}")
        self.family = family
        self.input_shape = tuple(input_shape)
        self.classes = classes
        self.loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.metrics = list(metrics)
        self.brightest = brightest
        self.vectorized = vectorized
        self.seed = seed
        self.choices = {**self.search_space, **choices}

    def values(self, hp: Any) -> dict[str, Any]:
        """The value of every choice in a trial, by name.

        Args:
            hp: The trial's `keras_tuner.HyperParameters`.
        """
        values = {n: _value(hp, n, choice, n in _LOGARITHMIC) for n, choice in self.choices.items()}
        given = self.choices["learning_rule"]
        for rule in given if isinstance(given, list) else [given]:
            # A setting is one of the trials with its rule.
            of_rule = hp.conditional_scope("learning_rule", [rule]) if rule is not given else nullcontext()
            with of_rule:
                values |= {name: _value(hp, name, choice, True) for name, _, choice in _settings(rule)}
        return values

    def rule(self, hp: Any) -> rules.LearningRule:
        """The learning rule of a trial, with its own settings.

        Args:
            hp: The trial's `keras_tuner.HyperParameters`.
        """
        values = self.values(hp)
        given = values["learning_rule"]
        rule, found = rules.get(given), {argument: values[name] for name, argument, _ in _settings(given)}
        return type(rule).from_config({**rule.get_config(), **found}) if found else rule

    def network(self, hp: Any) -> list[tuple]:
        """The network of a trial, in the terms of `zoo.stack`: as wide as its budget allows.

        Args:
            hp: The trial's `keras_tuner.HyperParameters`.
        """
        values = self.values(hp)
        vectorized = self._is_vectorized(values)

        def network(width):
            widths = [_even(width * values["taper"] ** i) for i in range(values["depth"])]
            if self.family == "fc":
                return [("dense", units) for units in widths]
            pairs = [((self.family, filters, 3, 1, "same"), ("pool", 2)) for filters in widths]
            return [*sum(pairs, ()), ("dense", width * _DENSE_PER_FILTER[self.family])]

        def parameters(width):
            return count_parameters(network(width), self.input_shape, self.classes, vectorized)

        widths = range(2, _WIDEST, 2)
        fitting = bisect.bisect_right(widths, values["parameters"], key=parameters)
        if not fitting:
            raise keras_tuner.errors.FailedTrialError(
                f"Too large: the narrowest '{self.family}' network of depth {values['depth']} has "
                f"{parameters(2)} parameters. Received: a budget of parameters={values['parameters']}."
            )
        return network(widths[fitting - 1])

    def layers(self, hp: Any) -> Iterator[Any]:
        """The layers of a trial's model, after its input.

        Args:
            hp: The trial's `keras_tuner.HyperParameters`.
        """
        values = self.values(hp)
        if self.brightest is not None:
            yield keras.layers.Rescaling(2 / self.brightest, offset=-1)
        yield from zoo.stack(
            self.network(hp), self.classes, self._is_vectorized(values), bool(values["nonnegative"])
        )

    def build(self, hp: Any) -> Sequential:
        if self.seed is not None:
            keras.utils.set_random_seed(self.seed)
        values = self.values(hp)
        model = Sequential([keras.Input(self.input_shape), *self.layers(hp)], learning_rule=self.rule(hp))
        for layer in weight_layers(model):
            layer.kernel.assign(layer.kernel * ops.sqrt(values["initial_scale"]))
        self.compile(hp, model)
        return model

    def compile(self, hp: Any, model: Sequential) -> None:
        """Compile a trial's model.

        Args:
            hp: The trial's `keras_tuner.HyperParameters`.
            model: The model, built.
        """
        values = self.values(hp)
        optimizer, learning_rate = values["optimizer"], values["learning_rate"]
        if not callable(optimizer):
            config = {"class_name": optimizer, "config": {"learning_rate": learning_rate}}
            model.compile(keras.optimizers.get(config), self.loss, metrics=self.metrics)
        else:
            model.compile(optimizer(learning_rate), self.loss, metrics=self.metrics)

    def fit(self, hp: Any, model: Any, *args: Any, callbacks: Iterable[Any] = (), **kwargs: Any) -> Any:
        """Train a trial's model; its metrics include the seconds it took."""
        batch_size = self.values(hp)["batch_size"]
        if batch_size is not None:
            kwargs.setdefault("batch_size", batch_size)
        check = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: require_finite(epoch, logs, _LOSSES)
        )
        started = time.perf_counter()
        history = model.fit(*args, callbacks=[*callbacks, check], **kwargs)
        seconds = time.perf_counter() - started
        history.history["seconds"] = [seconds] * len(history.epoch)
        return history

    def _is_vectorized(self, values):
        serves = rules.get(values["learning_rule"]).vectorized
        return self.vectorized if serves is None else serves


def _settings(rule):
    """Of a rule given by name, (name in a search, argument, choice) of each setting that it has searched."""
    own = rules.get(rule).search_space if isinstance(rule, str) else {}
    return [(f"{rule}_{argument}", argument, choice) for argument, choice in own.items()]


def _value(hp, name, choice, logarithmic):
    """The value of one choice, asked of the tuner where it is searched."""
    if isinstance(choice, list):
        if all(isinstance(value, bool) for value in choice) and len(set(choice)) == 2:
            return hp.Boolean(name, default=choice[0])
        return hp.Choice(name, choice)
    if not isinstance(choice, tuple):
        return choice
    low, high = choice
    sampling = "log" if logarithmic else "linear"
    ask = hp.Int if isinstance(low, int) and isinstance(high, int) else hp.Float
    return ask(name, low, high, sampling=sampling)


def _even(width):
    return max(2, 2 * round(width / 2))


def require_finite(epoch, logs, names):
    """End a trial in which one of these logs is not finite; others are no matter of the search.

    Raises:
        keras_tuner.errors.FailedTrialError: with the logs that are not.
    """
    broken = {name: logs[name] for name in names if name in logs and not math.isfinite(logs[name])}
    if broken:
        raise keras_tuner.errors.FailedTrialError(
            f"Not finite after epoch {epoch + 1}. Received: {broken}. Try smaller learning rates."
        )
