"""Search learning rate, width, depth and more; then train the winner and ship it.

    python examples/tune.py                                 # digits, a few minutes on two cores
    python examples/tune.py --dataset mnist --tuner bayesian --max-trials 40
    python examples/tune.py --learning-rule gevb backprop   # the rule is searched, too
    python examples/tune.py --dashboard                     # and TensorBoard's HParams

Started again with the same --out, it goes on where it was stopped. The search sees a
validation split of the training images. The winner is trained anew on all of them and
evaluated once on the test images.

Several workers: one chief, which hands out trials, and as many workers as you like, on one
machine or on several that share the folder --out. A worker that dies costs no trial.

    export KERASTUNER_ORACLE_IP=127.0.0.1 KERASTUNER_ORACLE_PORT=8000
    KERASTUNER_TUNER_ID=chief   python examples/tune.py &
    KERASTUNER_TUNER_ID=worker1 python examples/tune.py &
    KERASTUNER_TUNER_ID=worker2 python examples/tune.py

Writes into --out: search/ (keras-tuner's project), trials.csv, search.png, saved_model/,
result.json.
"""

import argparse
import csv
import json
import pathlib

from keras_gevb import datasets
from keras_gevb.tuning import TUNERS, VNNHyperModel

# isort: split
import keras
import matplotlib
from sklearn.model_selection import train_test_split

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

RULES = ["gevb", "backprop", "dfa", "fa"]
# Grids are small: every combination is a trial.
GRID = {
    "learning_rate": [3e-4, 1e-3, 3e-3],
    "depth": [1, 2],
    "taper": 0.5,
    "optimizer": "adam",
    "batch_size": 128,
}


def main():
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    hypermodel, training, validation, everything, test = prepare(args)
    tuner = make_tuner(args, hypermodel)
    callbacks = [keras.callbacks.TensorBoard(args.out / "logs")] if args.dashboard else []
    tuner.search(
        *training,
        validation_data=validation,
        epochs=args.epochs,
        callbacks=callbacks,
        verbose=2,
    )
    if tuner.is_worker:
        return
    report(tuner, hypermodel, args)
    ship(tuner, hypermodel, everything, test, args)
    if args.dashboard:
        print(f"All trials side by side:  tensorboard --logdir {args.out / 'logs'}  (tab HPARAMS)")


def arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", choices=sorted(datasets.IMAGES), default="digits")
    parser.add_argument("--family", choices=["fc", "conv", "lc"], default="fc")
    parser.add_argument("--tuner", choices=sorted(TUNERS), default="random")
    parser.add_argument("--max-trials", type=int, default=16)
    parser.add_argument("--learning-rule", nargs="+", default=["gevb"], choices=RULES)
    parser.add_argument(
        "--conventional", action="store_true", help="conventional units, where a rule serves both"
    )
    parser.add_argument(
        "--parameters", nargs=2, type=int, default=[20_000, 500_000], help="smallest, largest"
    )
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tuning"))
    parser.add_argument("--dashboard", action="store_true", help="write logs for TensorBoard's HParams")
    return parser.parse_args(argv)


def prepare(args):
    """The search space, and the images: for training, for validation, both of them, for the test."""
    (x, y), test = datasets.load(args.dataset)
    x_train, x_val, y_train, y_val = train_test_split(x, y, test_size=0.2, random_state=args.seed, stratify=y)
    hypermodel = VNNHyperModel(
        args.family,
        x.shape[1:],
        classes=10,
        brightest=datasets.IMAGES[args.dataset][1],
        vectorized=not args.conventional,
        seed=args.seed,
        **choices(args),
    )
    return hypermodel, (x_train, y_train), (x_val, y_val), (x, y), test


def choices(args):
    """What is searched, where it is not the hypermodel's default."""
    rule = args.learning_rule if len(args.learning_rule) > 1 else args.learning_rule[0]
    low, high = args.parameters
    if args.tuner == "grid":
        return {**GRID, "parameters": [low, round((low * high) ** 0.5), high], "learning_rule": rule}
    return {"parameters": (low, high), "learning_rule": rule}


def make_tuner(args, hypermodel):
    settings = {"max_epochs": args.epochs} if args.tuner == "hyperband" else {}
    return TUNERS[args.tuner](
        hypermodel,
        objective="val_accuracy",
        max_trials=args.max_trials,
        seed=args.seed,
        directory=args.out,
        project_name="search",
        **settings,
    )


def report(tuner, hypermodel, args):
    """Write and show the table of trials, and the picture."""
    rows = [row(trial, hypermodel) for trial in tuner.trials]
    rows.sort(key=lambda row: (row["validation_error"] is None, row["validation_error"]))
    names = list(dict.fromkeys(name for row in rows for name in row))
    with (args.out / "trials.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    print(f"\n{'trial':>5} {'error':>7} {'rate':>9}  widths, best first ({args.out / 'trials.csv'} has all)")
    for r in rows:
        error = r["status"].lower() if r["validation_error"] is None else f"{r['validation_error']:.2%}"
        print(f"{r['trial']:>5} {error:>7} {r['learning_rate']:9.2e}  {r['widths']}")
    picture(rows, args)


def row(trial, hypermodel):
    hp = trial.hyperparameters
    completed = trial.status == "COMPLETED"
    network = hypermodel.network(hp) if completed else []
    widths = [size for kind, size, *_ in network if kind != "pool"]
    return {
        "trial": trial.trial_id,
        "status": trial.status,
        "validation_error": 1 - trial.score if completed else None,
        "seconds": round(float(trial.metrics.get_best_value("seconds")), 2) if completed else None,
        "widths": "-".join(map(str, widths)),
        **hypermodel.values(hp),
        **{name: value for name, value in hp.values.items() if name.startswith("tuner/")},
    }


def picture(rows, args):
    """Validation error against learning rate and against width, each coloured by the other."""
    rows = [row for row in rows if row["validation_error"] is not None]
    errors = [100 * row["validation_error"] for row in rows]
    axes = {
        "learning rate": [row["learning_rate"] for row in rows],
        "width of the first hidden layer": [int(row["widths"].split("-")[0]) for row in rows],
    }
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for panel, (name, values), colours in zip(panels, axes.items(), reversed(axes.items()), strict=True):
        points = panel.scatter(values, errors, c=colours[1], norm="log", cmap="viridis", edgecolors="black")
        panel.plot(values[0], errors[0], "*", color="red", markersize=18, zorder=0, label="best")
        panel.set(xscale="log", xlabel=name)
        panel.grid(alpha=0.3)
        bar = figure.colorbar(points, label=colours[0])
        for axis in (panel.xaxis, bar.ax.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_formatter(NullFormatter())
    panels[0].set_ylabel("validation error (%)")
    panels[0].legend()
    figure.suptitle(f"{args.dataset}, {args.family}, {' or '.join(args.learning_rule)}: {len(rows)} trials")
    figure.savefig(args.out / "search.png", dpi=120)


def ship(tuner, hypermodel, train, test, args):
    """Train the winner on all training images, evaluate it once, and export it."""
    result_file = args.out / "result.json"
    (best,) = tuner.oracle.get_best_trials()
    if result_file.exists() and json.loads(result_file.read_text())["trial"] == best.trial_id:
        print(f"Already trained and evaluated: {result_file}")
        return
    hp = best.hyperparameters
    model = hypermodel.build(hp)
    hypermodel.fit(hp, model, *train, epochs=args.epochs, verbose=2)
    test_error = 1 - model.evaluate(*test, verbose=0, return_dict=True)["accuracy"]
    model.export(args.out / "saved_model", verbose=False)
    result = {
        "trial": best.trial_id,
        "learning_rule": str(model.learning_rule),
        "hyperparameters": hp.values,
        "network": hypermodel.network(hp),
        "epochs": args.epochs,
        "validation_error": 1 - best.score,
        "test_error": test_error,
    }
    result_file.write_text(json.dumps(result, indent=2))
    print(f"\nWinner: trial {best.trial_id}, {hp.values}")
    print(f"Validation error {1 - best.score:.2%} in the search, test error {test_error:.2%} ({result_file})")


if __name__ == "__main__":
    main()
