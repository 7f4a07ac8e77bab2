"""Search spaces, trials that fail, the models that a search returns, and rules compared."""

import contextlib
import functools
import subprocess
import sys

import keras
import keras_tuner
import numpy as np
import pytest

from keras_gevb import datasets, layers, rules, tuning, zoo
from keras_gevb.model import weight_layers
from keras_gevb.tuning import VNNHyperModel, count_parameters

# tf.data stays compiled, and says so.
pytestmark = [
    pytest.mark.usefixtures("without_collection", "eager_functions"),
    pytest.mark.filterwarnings("ignore:Even though the"),
]
FAMILIES = ["fc", "conv", "lc"]
SMALL = {"parameters": (6_000, 12_000), "depth": 1, "batch_size": 32, "brightest": 16}


@pytest.fixture(scope="module")
def digits():
    (x, y), _ = datasets.load("digits")
    return (x[:96], y[:96]), (x[96:160], y[96:160])


def sample(hypermodel, seed):
    """Random hyperparameters of a search space."""
    declared = keras_tuner.HyperParameters()
    hypermodel.values(declared)
    hp = keras_tuner.HyperParameters()
    hp.values = {p.name: p.random_sample(seed + i) for i, p in enumerate(declared.space)}
    return hp


# The search space.


@pytest.mark.parametrize("vectorized", [True, False])
@pytest.mark.parametrize(
    "network",
    [
        [("dense", 6), ("dense", 4)],
        [("conv", 4, 3, 1, "same"), ("pool", 2), ("dense", 6)],
        [("lc", 4, 3, 1, "same"), ("pool", 2), ("lc", 2, 3, 1, "same"), ("pool", 2), ("dense", 6)],
    ],
)
def test_parameters_are_counted_as_the_model_has_them(network, vectorized):
    model = keras.Sequential([keras.Input((9, 8, 3)), *zoo.stack(network, 6, vectorized)])
    expected = sum(np.prod(v.shape) for v in model.trainable_variables)
    assert count_parameters(network, (9, 8, 3), 6, vectorized) == expected


def expected_network(family, width, depth, taper):
    """A network of the family, as its docstring says."""
    widths = [max(2, 2 * round(width * taper**i / 2)) for i in range(depth)]
    if family == "fc":
        return [("dense", units) for units in widths]
    image_layers = [layer for f in widths for layer in [(family, f, 3, 1, "same"), ("pool", 2)]]
    return [*image_layers, ("dense", {"conv": 16, "lc": 32}[family] * width)]


@pytest.mark.parametrize("rule", ["gevb", "dfa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_widths_are_even_and_the_largest_within_the_budget(family, rule):
    hypermodel = VNNHyperModel(family, (8, 8, 1), 10, parameters=(20_000, 200_000), learning_rule=rule)
    for seed in range(20):
        hp = sample(hypermodel, seed)
        network = hypermodel.network(hp)
        assert all(size % 2 == 0 for kind, size, *_ in network if kind != "pool")
        width, depth, taper = network[0][1], hp.values["depth"], hp.values["taper"]
        assert network == expected_network(family, width, depth, taper)
        wider = expected_network(family, width + 2, depth, taper)
        count = functools.partial(
            count_parameters, input_shape=(8, 8, 1), outputs=10, vectorized=rule == "gevb"
        )
        assert count(network) <= hp.values["parameters"] < count(wider)
    # A budget that it just meets is enough.
    choices = {"parameters": count(network), "depth": depth, "taper": taper, "learning_rule": rule}
    just = VNNHyperModel(family, (8, 8, 1), 10, **choices)
    assert just.network(keras_tuner.HyperParameters()) == network


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        (3e-4, lambda value: value == 3e-4),
        ([1e-3, 1e-2], lambda value: value in (1e-3, 1e-2)),
        ((1e-3, 1e-2), lambda value: 1e-3 <= value <= 1e-2),
    ],
    ids=["fixed", "list", "range"],
)
def test_a_choice_is_fixed_or_narrowed(given, allowed):
    hypermodel = VNNHyperModel("fc", (4,), 3, learning_rate=given)
    values = [hypermodel.values(sample(hypermodel, seed))["learning_rate"] for seed in range(20)]
    assert all(map(allowed, values))
    assert len(set(values)) == {float: 1, list: 2, tuple: 20}[type(given)]


@pytest.mark.parametrize(
    ("name", "low", "high", "middle"),
    [
        ("learning_rate", 1e-5, 1e-1, 1e-3),
        ("parameters", 100, 1_000_000, 10_000),
        ("batch_size", 8, 2048, 128),
        ("initial_scale", 0.01, 100.0, 1.0),
    ],
)
def test_a_range_over_decades_is_searched_by_its_logarithm(name, low, high, middle):
    hypermodel = VNNHyperModel("fc", (4,), 3, **{name: (low, high)})
    values = np.array([sample(hypermodel, seed).values[name] for seed in range(1000)])
    assert low <= values.min()
    assert values.max() <= high
    # Half of the draws below the middle of the decades; 4 standard errors are 0.063.
    assert np.mean(values < middle) == pytest.approx(0.5, abs=0.063)
    assert {type(value) for value in values.tolist()} == {type(low)}


@pytest.mark.parametrize(
    ("name", "low", "high", "middle"), [("depth", 1, 4, 2.5), ("taper", 0.01, 1.0, 0.505)]
)
def test_other_ranges_are_searched_evenly(name, low, high, middle):
    hypermodel = VNNHyperModel("fc", (4,), 3, **{name: (low, high)})
    values = np.array([sample(hypermodel, seed).values[name] for seed in range(1000)])
    assert low <= values.min()
    assert values.max() <= high
    assert np.mean(values < middle) == pytest.approx(0.5, abs=0.063)
    if name == "depth":
        assert set(values) == {1, 2, 3, 4}  # both ends


# The docstring's table.
SEARCHED = {
    "learning_rate": {"min_value": 1e-4, "max_value": 1e-2, "sampling": "log"},
    "parameters": {"min_value": 100_000, "max_value": 1_000_000, "sampling": "log"},
    "depth": {"min_value": 1, "max_value": 3, "sampling": "linear"},
    "taper": {"values": [0.5, 1.0]},
    "optimizer": {"values": ["adam", "rmsprop"]},
    "batch_size": {"values": [32, 64, 128, 256]},
}
FIXED = {"initial_scale": 1.0, "nonnegative": True, "learning_rule": "gevb"}


def test_by_default_the_table_of_choices_is_searched():
    hypermodel, hp = VNNHyperModel("fc", (4,), 3), keras_tuner.HyperParameters()
    values = hypermodel.values(hp)
    assert {parameter.name for parameter in hp.space} == set(SEARCHED)
    for parameter in hp.space:
        assert SEARCHED[parameter.name].items() <= parameter.get_config().items()
    assert {name: values[name] for name in FIXED} == FIXED
    assert set(values) == {*SEARCHED, *FIXED}


class Fitted:
    """A model that notes what its `fit` was given."""

    def fit(self, *args, callbacks, **kwargs):
        self.given, self.callbacks = (args, kwargs), callbacks
        history = keras.callbacks.History()
        history.epoch, history.history = [0, 1], {}
        return history


@pytest.mark.parametrize("batch_size", [7, 64, None])
def test_a_trial_is_fitted_in_batches_of_its_size(batch_size):
    hypermodel = VNNHyperModel("fc", (4,), 3, batch_size=batch_size)
    model, mine, (x, y) = Fitted(), keras.callbacks.Callback(), np.ones((2, 3))
    history = hypermodel.fit(keras_tuner.HyperParameters(), model, x, y, epochs=2, callbacks=[mine])
    sized = {} if batch_size is None else {"batch_size": batch_size}
    assert model.given[1] == {"epochs": 2, **sized}
    assert all(one is other for one, other in zip(model.given[0], (x, y), strict=True))
    assert model.callbacks[0] is mine
    assert len(history.history["seconds"]) == 2
    hypermodel.fit(keras_tuner.HyperParameters(), model, x, y, batch_size=5)
    assert model.given[1]["batch_size"] == 5  # what a user asks for holds


def test_the_batch_size_of_a_trial_is_the_one_that_was_drawn():
    hypermodel = VNNHyperModel("fc", (4,), 3, batch_size=[8, 16, 24])
    drawn = set()
    for seed in range(6):
        hp, model = sample(hypermodel, seed), Fitted()
        hypermodel.fit(hp, model)
        assert model.given[1] == {"batch_size": hp.values["batch_size"]}
        drawn.add(hp.values["batch_size"])
    assert len(drawn) > 1


@pytest.mark.parametrize("name", ["adam", "rmsprop", "sgd"])
def test_a_trial_is_compiled_as_its_choices_say(name):
    loss = keras.losses.MeanSquaredError()
    hypermodel = VNNHyperModel(
        "fc", (4,), 3, optimizer=name, learning_rate=0.025, loss=loss, metrics=["mae"], parameters=500
    )
    model = hypermodel.build(keras_tuner.HyperParameters())
    assert type(model.optimizer).__name__.lower() == name
    np.testing.assert_allclose(float(model.optimizer.learning_rate), 0.025, rtol=1e-6)
    assert model.loss is loss
    assert model.output_shape == (None, 3)


@pytest.mark.parametrize("brightest", [None, 16])
def test_the_brightest_input_becomes_one_and_the_darkest_minus_one(brightest):
    hypermodel = VNNHyperModel("fc", (4, 4, 1), 3, brightest=brightest, parameters=2000)
    model = hypermodel.build(keras_tuner.HyperParameters())
    first = next(layer for layer in model.layers if isinstance(layer, layers.WeightLayer))
    scaled = keras.Model(model.inputs[0], first.input)(np.array([0, 8, 16]).repeat(16).reshape(3, 4, 4, 1))
    expected = [0, 8, 16] if brightest is None else [-1, 0, 1]
    np.testing.assert_allclose(np.asarray(scaled)[:, 0], expected, atol=1e-6)


@pytest.mark.parametrize("nonnegative", [True, False])
def test_signs_of_a_trial_are_those_chosen(nonnegative):
    for rule in ("gevb", "dfa"):
        hypermodel = VNNHyperModel(
            "conv", (8, 8, 1), 4, nonnegative=nonnegative, learning_rule=rule, parameters=9000
        )
        first, *later = weight_layers(hypermodel.build(keras_tuner.HyperParameters()))
        assert {layer.constrained for layer in later} == {nonnegative}
        assert not first.constrained


def test_a_seed_makes_a_trial_the_same_again_and_another_seed_another():
    def kernel(seed):
        hypermodel = VNNHyperModel("fc", (4,), 3, seed=seed, parameters=500)
        return np.asarray(weight_layers(hypermodel.build(keras_tuner.HyperParameters()))[0].kernel)

    np.testing.assert_array_equal(kernel(1), kernel(1))
    assert not np.array_equal(kernel(1), kernel(2))


def test_true_and_false_stay_booleans():
    hypermodel = VNNHyperModel("fc", (4,), 3, nonnegative=[True, False])
    values = {hypermodel.values(sample(hypermodel, seed))["nonnegative"] for seed in range(20)}
    assert values == {True, False}
    assert {type(value) for value in values} == {bool}


def test_the_rule_says_which_units_and_the_model_has_it():
    hypermodel = VNNHyperModel("fc", (4,), 4, learning_rule=["gevb", "dfa", "fa"], depth=1)
    for name, layer in [
        ("gevb", layers.VectorDense),
        ("dfa", layers.Dense),
        ("fa", layers.VectorDense),
    ]:
        hp = sample(hypermodel, 0)
        hp.values["learning_rule"] = name
        model = hypermodel.build(hp)
        assert type(model.learning_rule) is type(rules.get(name))
        assert type(weight_layers(model)[0]) is layer


OF_RULES = [("kp", "decay"), ("dkp", "rate"), ("fdfa", "rate"), ("node_perturbation", "samples")]
OF_RULES += [("ebd", "entropy"), ("ebd", "power")]


@pytest.mark.parametrize(("name", "argument"), OF_RULES)
def test_a_rule_given_by_name_has_its_own_settings_searched(name, argument):
    choice = rules.get(name).search_space[argument]
    within = (
        choice.__contains__ if isinstance(choice, list) else lambda value: choice[0] <= value <= choice[1]
    )
    assert within(rules.get(name).get_config()[argument])  # what it has without a search, too
    hypermodel = VNNHyperModel("fc", (4,), 3, learning_rule=name, depth=1, parameters=500)
    samples = [sample(hypermodel, seed) for seed in range(20)]
    found = [getattr(hypermodel.rule(hp), argument) for hp in samples]
    assert found == [hp.values[f"{name}_{argument}"] for hp in samples]
    assert all(map(within, found))
    assert len(set(found)) == (len(choice) if isinstance(choice, list) else 20)
    given = VNNHyperModel("fc", (4,), 3, learning_rule=rules.get(name))
    assert not any(key.startswith(name) for key in sample(given, 0).values)


def test_among_several_rules_a_setting_is_searched_in_the_trials_of_its_rule():
    hypermodel = VNNHyperModel("fc", (4,), 3, learning_rule=["kp", "fdfa", "fa"])
    settings = {"kp": {"kp_decay"}, "fdfa": {"fdfa_rate"}, "fa": set()}
    for name, own in settings.items():
        hp = keras_tuner.HyperParameters()
        hp.values["learning_rule"] = name
        values = hypermodel.values(hp)
        asked = {key for key in ("kp_decay", "fdfa_rate") if values[key] is not None}
        assert asked == own


class Decays(VNNHyperModel):
    """Trials without training: the nearer a decay is to 1e-3, the better."""

    def fit(self, hp, model, *args, **kwargs):
        return {"val_accuracy": -abs(np.log10(model.learning_rule.decay / 1e-3))}


def test_the_winner_of_a_search_with_kolen_pollack_has_the_best_decay(tmp_path):
    hypermodel = Decays("fc", (4,), 3, learning_rule="kp", depth=1, parameters=500)
    tuner = tuning.RandomSearch(hypermodel, "val_accuracy", max_trials=3, seed=0, directory=tmp_path)
    tuner.search(verbose=0)
    tried = [trial.hyperparameters["kp_decay"] for trial in tuner.trials]
    assert len(set(tried)) == 3
    (best,) = tuner.get_best_hyperparameters()
    assert hypermodel.build(best).learning_rule.decay == min(tried, key=lambda d: abs(np.log10(d / 1e-3)))


def test_two_trials_do_not_share_the_weights_of_a_rule():
    hypermodel = VNNHyperModel("fc", (4,), 3, learning_rule=rules.FA(seed=1))
    one, two = (hypermodel.build(sample(hypermodel, 0)) for _ in range(2))
    assert one.learning_rule is not two.learning_rule


def test_the_initial_scale_multiplies_the_variance_of_every_kernel():
    build = functools.partial(VNNHyperModel, "fc", (4,), 3, depth=2, parameters=2000, seed=3)
    plain, scaled = (build(initial_scale=scale).build(keras_tuner.HyperParameters()) for scale in (1.0, 4.0))
    for one, two in zip(weight_layers(plain), weight_layers(scaled), strict=True):
        np.testing.assert_array_equal(two.kernel, 2 * one.kernel.numpy())


def test_a_subclass_adds_a_choice():
    class WithMomentum(VNNHyperModel):
        search_space = {**VNNHyperModel.search_space, "momentum": [0.5, 0.9]}  # noqa: RUF012

        def compile(self, hp, model):
            values = self.values(hp)
            model.compile(keras.optimizers.SGD(values["learning_rate"], values["momentum"]), self.loss)

    hypermodel = WithMomentum("fc", (4,), 3, momentum=0.9)
    model = hypermodel.build(sample(hypermodel, 0))
    assert model.optimizer.momentum == 0.9


def test_an_optimizer_may_be_a_function_of_the_learning_rate():
    hypermodel = VNNHyperModel(
        "fc", (4,), 3, learning_rate=0.5, optimizer=lambda rate: keras.optimizers.SGD(rate, 0.9)
    )
    optimizer = hypermodel.build(sample(hypermodel, 0)).optimizer
    assert (float(optimizer.learning_rate), optimizer.momentum) == (0.5, 0.9)


@pytest.mark.parametrize(
    ("family", "choices", "message"),
    [("fc", {"dropout": 0.1}, "dropout"), ("rnn", {}, "Received: 'rnn'")],
)
def test_what_is_unknown_is_refused_by_name(family, choices, message):
    with pytest.raises(ValueError, match=message):
        VNNHyperModel(family, (8, 8, 1), 10, **choices)


# Trials that fail.


def test_trials_that_are_too_large_or_not_finite_fail_and_the_search_goes_on(digits, tmp_path):
    # More failures in a row than the three at which keras-tuner ends a search by itself.
    hypermodel = VNNHyperModel(
        "fc",
        (8, 8, 1),
        10,
        **{**SMALL, "depth": [1, 400, 401, 402, 403]},
        learning_rate=[1e-3, 1e30],
        taper=1.0,
        optimizer="sgd",
    )
    hypermodel.choices["parameters"] = 6_000
    tuner = tuning.GridSearch(hypermodel, "val_accuracy", directory=tmp_path)
    (x, y), validation = digits
    tuner.search(x, y, validation_data=validation, epochs=1, verbose=0)
    outcomes = {(t.hyperparameters["learning_rate"], t.hyperparameters["depth"]): t for t in tuner.trials}
    assert len(outcomes) == len(tuner.trials) == 10
    for (rate, depth), trial in outcomes.items():
        reason = "Too large" if depth > 1 else "Not finite" if rate > 1 else None
        assert trial.status == ("FAILED" if reason else "COMPLETED")
        assert reason is None or reason in trial.message
    assert tuner.oracle.get_best_trials()[0].hyperparameters["learning_rate"] == 1e-3


def test_a_search_in_which_every_trial_fails_says_why(digits, tmp_path):
    hypermodel = VNNHyperModel("fc", (8, 8, 1), 10, **SMALL, learning_rate=1e30, optimizer="sgd")
    tuner = tuning.RandomSearch(hypermodel, "val_accuracy", max_trials=1, directory=tmp_path)
    (x, y), validation = digits
    with pytest.raises(RuntimeError, match="Not finite after epoch 1"):
        tuner.search(x, y, validation_data=validation, epochs=1, verbose=0)


class Logging(VNNHyperModel):
    """Trials whose callback logs what it is told to, beside the metrics."""

    def fit(self, hp, model, *args, callbacks=(), **kwargs):
        log = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(self.logged))
        return super().fit(hp, model, *args, callbacks=[log, *callbacks], **kwargs)


BEST = keras_tuner.Objective("mine", "min")
# what a callback logs, the objective: whether the trial completes
LOGGED = [
    ({"angle": np.nan}, "val_accuracy", True),
    ({"angle": np.nan}, "loss", True),
    ({"mine": np.inf}, "val_loss", True),
    ({"mine": np.inf}, BEST, False),
    ({"mine": np.nan}, BEST, False),
    ({"mine": 1.0}, BEST, True),
    ({"mine": np.nan}, ["val_loss", BEST], False),
    ({"loss": np.nan}, "val_accuracy", False),
    ({"val_loss": np.inf}, "val_accuracy", False),
]


@pytest.mark.parametrize(("logged", "objective", "completes"), LOGGED)
@pytest.mark.sampled(5)
def test_the_objective_and_the_loss_decide_whether_a_trial_fails(
    logged, objective, completes, digits, tmp_path
):
    hypermodel = Logging("fc", (8, 8, 1), 10, **SMALL)
    hypermodel.logged = logged
    tuner = tuning.RandomSearch(hypermodel, objective, max_trials=1, directory=tmp_path)
    (x, y), _ = digits
    ended = contextlib.nullcontext() if completes else pytest.raises(RuntimeError, match="Not finite")
    with ended:
        tuner.search(x[:32], y[:32], validation_data=(x[:32], y[:32]), epochs=1, verbose=0)
    assert tuner.trials[0].status == ("COMPLETED" if completes else "FAILED")


# The models that a search returns.


class Recording(VNNHyperModel):
    """Keeps the weights and the outputs of its last trial, epoch by epoch."""

    def fit(self, hp, model, x, *args, callbacks=(), **kwargs):
        self.model, self.epochs = model, []

        def record(epoch, logs):
            self.epochs.append((model.get_weights(), model.predict(x, verbose=0)))

        keep = keras.callbacks.LambdaCallback(on_epoch_end=record)
        return super().fit(hp, model, x, *args, callbacks=[*callbacks, keep], **kwargs)


@pytest.mark.parametrize(
    ("rule", "given_to_the_tuner"),
    [
        ("gevb", {}),
        ("gevb", {"optimizer": "sgd", "metrics": ["accuracy"]}),
        ("fa", {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}),
        ("dfa", {"optimizer": "adam"}),
    ],
)
@pytest.mark.sampled(1)
def test_the_best_model_is_that_of_its_trial(rule, given_to_the_tuner, digits, tmp_path):
    # Without a seed, so that gates and feedback are those of the trial only if restored.
    hypermodel = Recording("fc", (8, 8, 1), 10, **SMALL, learning_rule=rule)
    tuner = tuning.RandomSearch(
        hypermodel, "val_loss", max_trials=1, directory=tmp_path, **given_to_the_tuner
    )
    (x, y), validation = digits
    tuner.search(x, y, validation_data=validation, epochs=2, verbose=0)
    trained = hypermodel.model
    (model,) = tuner.get_best_models()
    weights, outputs = hypermodel.epochs[tuner.trials[0].best_step]
    assert model is not trained
    for ours, own in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(ours, own)
    # The same weights through the same graph; oneDNN may sum in another order.
    np.testing.assert_allclose(model.predict(x, verbose=0), outputs, rtol=1e-5, atol=1e-5)
    for each in (trained, model):
        assert type(each.learning_rule) is type(rules.get(rule))
    if "optimizer" in given_to_the_tuner:
        assert model.optimizer.name.lower() == given_to_the_tuner["optimizer"]


SERVE = """
import sys
sys.modules["keras_gevb"] = None
import numpy as np, tensorflow as tf
folder, x, outputs = sys.argv[1:]
model = tf.saved_model.load(folder)
np.save(outputs, model.serve(np.load(x).astype("float32")))
"""


@pytest.mark.long
def test_a_tuned_model_is_served_where_the_package_is_not(digits, tmp_path):
    hypermodel = VNNHyperModel("conv", (8, 8, 1), 10, **SMALL)
    tuner = tuning.RandomSearch(hypermodel, "val_accuracy", max_trials=1, directory=tmp_path)
    (x, y), validation = digits
    tuner.search(x, y, validation_data=validation, epochs=1, verbose=0)
    (model,) = tuner.get_best_models()
    model.export(tmp_path / "saved_model", verbose=False)
    np.save(tmp_path / "x.npy", x)
    files = [str(tmp_path / name) for name in ("saved_model", "x.npy", "outputs.npy")]
    subprocess.run([sys.executable, "-c", SERVE, *files], check=True, cwd=tmp_path)
    # The same operations, in another process: rounding only.
    np.testing.assert_allclose(np.load(files[-1]), model(x), rtol=1e-5, atol=1e-5)


# Rules compared.


class Scored(VNNHyperModel):
    """Trials without training: the error is the distance of the learning rate from the rule's best."""

    best_rate = {"gevb": 1e-2, "backprop": 1e-3}  # noqa: RUF012
    fits = 0

    def fit(self, hp, model, *args, **kwargs):
        Scored.fits += 1
        rate, best = hp["learning_rate"], self.best_rate[self.choices["learning_rule"]]
        return {"val_accuracy": 1 - 0.1 * abs(np.log10(rate / best)), "seconds": 2.0}


@pytest.mark.long
def test_rules_are_compared_at_the_best_of_the_same_budget_and_seeds(tmp_path):
    space = functools.partial(Scored, "fc", (4,), 3, depth=1, parameters=1000)
    compare = functools.partial(
        tuning.compare_rules,
        space,
        ["gevb", "backprop"],
        None,
        None,
        None,
        max_trials=3,
        seeds=(0, 1),
        directory=tmp_path,
        verbose=0,
    )
    Scored.fits = 0
    report = compare()
    assert Scored.fits == 2 * 3 * 2
    rates = {}
    for seed in range(2):
        for rule in report:
            trials = sorted((tmp_path / rule / f"seed_{seed}").glob("trial_*/trial.json"))
            loaded = [keras_tuner.engine.trial.Trial.load(str(path)) for path in trials]
            rates[rule, seed] = [trial.hyperparameters["learning_rate"] for trial in loaded]
        assert rates["gevb", seed] == rates["backprop", seed]
    for rule, summary in report.items():
        distances = [
            min(0.1 * abs(np.log10(rate / Scored.best_rate[rule])) for rate in rates[rule, seed])
            for seed in range(2)
        ]
        np.testing.assert_allclose(summary["errors"], distances, atol=1e-12)  # float64 rounding
        mean = sum(distances) / 2
        spread = (sum((d - mean) ** 2 for d in distances) / 1) ** 0.5
        np.testing.assert_allclose([summary["mean"], summary["spread"]], [mean, spread], atol=1e-12)
        assert summary["seconds"] == 2.0 * 3 * 2
    assert compare() == report
    assert Scored.fits == 2 * 3 * 2  # nothing was repeated


def test_only_the_winners_meet_the_test_images(digits, tmp_path):
    (x, y), validation = digits
    space = functools.partial(VNNHyperModel, "fc", (8, 8, 1), 10, **SMALL)
    settings = {"max_trials": 1, "seeds": (0,), "directory": tmp_path, "epochs": 1, "verbose": 0}
    compare = functools.partial(tuning.compare_rules, space, ["gevb"], x, y, validation, **settings)
    report = compare(test_data=validation)
    # Here the test images are the validation images, so the errors agree up to float32.
    np.testing.assert_allclose(report["gevb"]["test_errors"], report["gevb"]["errors"], atol=1e-6)
    assert report["gevb"]["spread"] is None
    # Of seven others, a whole number is wrong.
    (wrong,) = compare(test_data=(x[:7], y[:7]))["gevb"]["test_errors"]
    np.testing.assert_allclose(7 * wrong, round(7 * wrong), atol=1e-5)
    assert 0 < report["gevb"]["errors"][0] < 1


def test_a_seed_of_zero_is_a_seed():
    def kernel():
        hypermodel = VNNHyperModel("fc", (4,), 3, seed=0, parameters=500)
        return np.asarray(weight_layers(hypermodel.build(keras_tuner.HyperParameters()))[0].kernel)

    np.testing.assert_array_equal(kernel(), kernel())


def test_a_failed_trial_costs_nothing_in_a_comparison_whose_errors_have_a_spread(tmp_path):
    fits = []

    class Sometimes(VNNHyperModel):
        def fit(self, hp, model, *args, **kwargs):
            fits.append(model)
            if len(fits) == 1:
                raise keras_tuner.errors.FailedTrialError("no memory")
            return {"val_accuracy": 0.5 if len(fits) < 4 else 0.9, "seconds": 2.0}

    made = functools.partial(Sometimes, "fc", (4,), 3, depth=1, parameters=1000)
    settings = {"max_trials": 3, "seeds": (0, 1), "directory": tmp_path, "verbose": 0}
    found = tuning.compare_rules(made, ["gevb"], None, None, None, **settings)["gevb"]
    assert found["seconds"] == 4.0 + 6.0
    # Of two errors: their mean, and how far they are apart divided by the root of 2.
    np.testing.assert_allclose([found["mean"], found["spread"]], [0.3, 0.4 / 2**0.5], rtol=1e-12)
