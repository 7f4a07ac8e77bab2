"""Learning rules compared fairly: each at its own best within the same budget."""

import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from keras_gevb.rules import LearningRule
from keras_gevb.tuning.tuners import RandomSearch
from keras_gevb.types import Array, Images, Path


def compare_rules(
    hypermodel: Callable[..., Any],
    rules: Iterable[str | LearningRule],
    x: Array,
    y: Array,
    validation_data: Images,
    *,
    max_trials: int,
    seeds: Iterable[int] = (0, 1, 2),
    test_data: Images | None = None,
    directory: Path = "tuning",
    **fit_kwargs: Any,
) -> dict[str, dict[str, Any]]:
    """Give each learning rule the same search budget and seeds, and report the best it finds.

    A learning rate that is good for backpropagation need not be good for GEVB, so a comparison
    at one learning rate favours the rule it was chosen for. Here every rule is searched at
    random `len(seeds)` times, `max_trials` trials each. Under one seed all rules without settings of
    their own to search meet the same trials: the same learning rates, budgets and batch sizes in the
    same order. The spread over seeds is what another search of this budget would find, not the noise of
    one training.

    Args:
        hypermodel: A function of `learning_rule` and `seed` that returns a hypermodel: a
            `VNNHyperModel` with everything else filled in.
        rules: Names of learning rules, or `LearningRule`s.
        x, y: Training inputs and targets.
        validation_data: The pair that chooses the best trial.
        max_trials: Trials of each search.
        seeds: One search for each.
        test_data: Optional pair, on which only the winner of each search is evaluated.
        directory: Where the searches are kept; called again, finished trials are not repeated.
        **fit_kwargs: Given to every `fit`, such as `epochs`.

    Returns:
        A dict, by the rule's name, of dicts: "errors" (validation error of the best trial, one for
        each seed), "mean", "spread" (standard deviation over seeds, None for one seed), "best"
        (hyperparameters of the winners), "seconds" (training time of all trials), and with
        `test_data` "test_errors".

    Example:

    >>> space = functools.partial(VNNHyperModel, "fc", (8, 8, 1), 10, brightest=16, parameters=10_000)
    >>> validation, budget = (x_val, y_val), {"max_trials": 2, "seeds": (0,)}
    >>> report = compare_rules(space, ["gevb", "backprop"], x, y, validation, **budget, epochs=1, verbose=0)
    >>> list(report)
    ['gevb', 'backprop']
    """
    report = {}
    for rule in rules:
        name = str(rule)
        searches = [
            _search(
                RandomSearch(
                    hypermodel(learning_rule=rule, seed=seed),
                    objective="val_accuracy",
                    max_trials=max_trials,
                    seed=seed,
                    directory=pathlib.Path(directory) / name,
                    project_name=f"seed_{seed}",
                ),
                (x, y),
                validation_data,
                test_data,
                fit_kwargs,
            )
            for seed in seeds
        ]
        report[name] = _summary(searches)
    return report


def _search(tuner, data, validation_data, test_data, fit_kwargs):
    tuner.search(*data, validation_data=validation_data, **fit_kwargs)
    best = tuner.oracle.get_best_trials()[0]
    result = {
        "errors": 1 - best.score,
        "best": best.hyperparameters.values,
        "seconds": sum(t.metrics.get_best_value("seconds") for t in tuner.trials if t.score is not None),
    }
    if test_data is not None:
        (model,) = tuner.get_best_models()
        result["test_errors"] = 1 - model.evaluate(*test_data, verbose=0, return_dict=True)["accuracy"]
    return result


def _summary(searches):
    summary = {key: [search[key] for search in searches] for key in searches[0]}
    errors = summary["errors"]
    return {
        **summary,
        "seconds": sum(summary["seconds"]),
        "mean": float(np.mean(errors)),
        "spread": float(np.std(errors, ddof=1)) if len(errors) > 1 else None,
    }
