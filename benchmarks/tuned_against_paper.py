"""A tuned fully connected VNN against the paper's setting, both trained by GEVB for as long.

    python benchmarks/tuned_against_paper.py --dataset mnist
    python benchmarks/tuned_against_paper.py --dataset fashion_mnist

1. Search (Hyperband) among networks no larger than the paper's, on a tenth of the training
   images held out for validation.
2. Train the winner and the paper's setting (1024, 512 units, Adam 3e-4, batches of 128) on all
   training images, once per seed, and evaluate each once on the test images.

Every step is written to --out as it ends, and started again the script goes on from there.
At the end it prints the table for docs/results/tuning.md.
"""

import argparse
import json
import pathlib
import time

from keras_gevb import Sequential, datasets, zoo
from keras_gevb.tuning import Hyperband, VNNHyperModel, count_parameters

# isort: split
import keras
import keras_tuner
import numpy as np
from sklearn.model_selection import train_test_split

PAPER = {"network": [("dense", 1024), ("dense", 512)], "learning_rate": 3e-4, "batch_size": 128}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", choices=["mnist", "fashion_mnist", "digits"], default="mnist")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--max-trials", type=int, help="end the search early")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tuned_against_paper"))
    args = parser.parse_args()
    folder = args.out / args.dataset
    folder.mkdir(parents=True, exist_ok=True)
    train, test = datasets.load(args.dataset)
    results = Results(folder / "results.json")
    tuner = search(train, args, folder)
    (best,) = tuner.oracle.get_best_trials()
    hp = best.hyperparameters
    seconds = [t.metrics.get_best_value("seconds") for t in tuner.trials if t.status == "COMPLETED"]
    network = tuner.hypermodel.network(hp)
    results["search"] = {
        "trials": len(tuner.trials),
        "failed": len(tuner.trials) - len(seconds),
        "seconds": round(sum(seconds), 1),
        "epochs": sum(
            t.hyperparameters["tuner/epochs"] - t.hyperparameters["tuner/initial_epoch"] for t in tuner.trials
        ),
        "validation_error": 1 - best.score,
        "hyperparameters": hp.values,
        "network": network,
        "parameters": size(network, args),
    }
    for seed in args.seeds:
        for setting, make in {"paper": paper, "tuned": tuned}.items():
            name = f"{setting}, seed {seed}"
            if name not in results:
                results[name] = evaluate(*make(args, seed, tuner.hypermodel, hp), train, test, args.epochs)
                print(f"{name}: {results[name]}", flush=True)
    print(table(results, args))


class Results(dict):
    """What has been measured, kept in a file that is never half written."""

    def __init__(self, path):
        super().__init__(json.loads(path.read_text()) if path.exists() else {})
        self.path = path

    def __setitem__(self, name, value):
        super().__setitem__(name, value)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self, indent=2))
        partial.replace(self.path)


def search(train, args, folder):
    x, x_val, y, y_val = train_test_split(*train, test_size=0.1, random_state=0, stratify=train[1])
    largest = size(PAPER["network"], args)
    hypermodel = VNNHyperModel(
        "fc",
        x.shape[1:],
        classes=zoo.CLASSES,
        brightest=datasets.IMAGES[args.dataset][1],
        seed=0,
        parameters=(largest // 8, largest),
        batch_size=[64, 128, 256],
    )
    tuner = Hyperband(
        hypermodel,
        objective=keras_tuner.Objective("val_accuracy", "max"),
        max_epochs=args.epochs,
        max_trials=args.max_trials,
        seed=0,
        directory=folder,
        project_name="search",
    )
    tuner.search(x, y, validation_data=(x_val, y_val), verbose=2)
    return tuner


def paper(args, seed, hypermodel, hp):
    """The paper's model, and its batch size."""
    keras.utils.set_random_seed(seed)
    shape, brightest = datasets.IMAGES[args.dataset]
    rescaling = keras.layers.Rescaling(2 / brightest, offset=-1)
    layers = [keras.Input(shape), rescaling, *zoo.stack(PAPER["network"], zoo.CLASSES)]
    model = Sequential(layers, learning_rule="gevb")
    model.compile(keras.optimizers.Adam(PAPER["learning_rate"]), hypermodel.loss, metrics=["accuracy"])
    return model, PAPER["batch_size"]


def tuned(args, seed, hypermodel, hp):
    """The winner's model, and its batch size."""
    hypermodel.seed = seed
    return hypermodel.build(hp), hp["batch_size"]


def evaluate(model, batch_size, train, test, epochs):
    started = time.perf_counter()
    model.fit(*train, batch_size=batch_size, epochs=epochs, verbose=2)
    seconds = time.perf_counter() - started
    accuracy = model.evaluate(*test, batch_size=1000, verbose=0, return_dict=True)["accuracy"]
    return {"test_error": 1 - accuracy, "seconds": round(seconds, 1)}


def size(network, args):
    return count_parameters(network, datasets.IMAGES[args.dataset][0], zoo.CLASSES)


def table(results, args):
    found = results["search"]
    widths = {"paper": PAPER["network"], "tuned": found["network"]}
    hp = found["hyperparameters"]
    optimizers = {
        "paper": f"adam {PAPER['learning_rate']:.1e}, batch {PAPER['batch_size']}",
        "tuned": f"{hp['optimizer']} {hp['learning_rate']:.1e}, batch {hp['batch_size']}",
    }
    lines = [
        f"| {args.dataset}, {args.epochs} epochs | units | parameters | optimizer | test error, % |",
        "|---|---|---|---|---|",
    ]
    for setting in ("paper", "tuned"):
        errors = [100 * results[f"{setting}, seed {seed}"]["test_error"] for seed in args.seeds]
        spread = f" ± {np.std(errors, ddof=1):.2f}" if len(errors) > 1 else ""
        each = ", ".join(f"{error:.2f}" for error in errors)
        lines.append(
            f"| {setting} | {', '.join(str(units) for _, units in widths[setting])} "
            f"| {size(widths[setting], args):,} | {optimizers[setting]} "
            f"| {np.mean(errors):.2f}{spread} ({each}) |"
        )
    lines.append("")
    lines.append(
        f"The search: {found['trials']} trials ({found['failed']} failed), {found['epochs']} epochs, "
        f"{found['seconds'] / 60:.0f} minutes of training."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
