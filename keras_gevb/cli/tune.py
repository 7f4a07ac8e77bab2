"""`keras-gevb tune`."""

import json
import pathlib

from keras_gevb import datasets, zoo
from keras_gevb.cli import kinds, outputs
from keras_gevb.cli.errors import Failed, WrongUse

EXAMPLES = """\
  keras-gevb tune digits
  keras-gevb tune mnist --tuner bayesian --max-trials 40 --out runs/mnist-tuning
  keras-gevb tune digits --learning-rule gevb backprop --json"""
STOPPED = "Finished trials are kept: the same command goes on."


def arguments(parser):
    kinds.add_data(parser)
    parser.add_argument("--family", choices=zoo.ARCHITECTURES, default="fc", help="default: fc")
    # `keras_gevb.tuning.TUNERS`, whose module loads keras-tuner.
    parser.add_argument("--tuner", choices=["bayesian", "grid", "hyperband", "random"], default="random")
    parser.add_argument("--max-trials", type=kinds.positive, default=16, help="default: 16")
    parser.add_argument("--learning-rule", nargs="+", type=kinds.rule, default=["gevb"], metavar="RULE")
    parser.add_argument(
        "--parameters",
        nargs=2,
        type=kinds.positive,
        default=[20_000, 500_000],
        metavar=("LEAST", "MOST"),
        help="budget of parameters; default: 20000 500000",
    )
    parser.add_argument("--epochs", type=kinds.positive, default=15, help="of each trial; default: 15")
    parser.add_argument("--seed", type=kinds.seed, default=0)
    parser.add_argument("--out", metavar="DIR", help="default: runs/DATASET-FAMILY-tuning")


def run(options):
    if options.parameters[0] > options.parameters[1]:
        raise WrongUse(f"--parameters wants the least first. Received: {options.parameters}")
    folder = pathlib.Path(options.out or f"runs/{options.dataset}-{options.family}-tuning")
    if (folder / outputs.ASKED).exists():
        outputs.check_as_asked(outputs.writable(folder), options)
    else:
        outputs.new_folder(folder, "Give another --out.")
        outputs.keep_asked(folder, options)
    if (folder / "result.json").exists():
        return json.loads((folder / "result.json").read_text())
    (x, y), test = kinds.load(options.dataset, options.data_dir)

    # What takes its time to load comes after the checks.
    from sklearn.model_selection import train_test_split

    from keras_gevb import tuning

    x_train, x_val, y_train, y_val = train_test_split(
        x, y, test_size=0.2, random_state=options.seed, stratify=y
    )
    rules = options.learning_rule
    hypermodel = tuning.VNNHyperModel(
        options.family,
        x.shape[1:],
        classes=10,
        brightest=datasets.IMAGES[options.dataset][1],
        seed=options.seed,
        learning_rule=rules if len(rules) > 1 else rules[0],
        parameters=tuple(options.parameters),
    )
    search = tuning.TUNERS[options.tuner](
        hypermodel,
        objective="val_accuracy",
        max_trials=options.max_trials,
        seed=options.seed,
        directory=folder,
        project_name="search",
        **({"max_epochs": options.epochs} if options.tuner == "hyperband" else {}),
    )
    verbose = 0 if options.json else 2
    search.search(x_train, y_train, validation_data=(x_val, y_val), epochs=options.epochs, verbose=verbose)
    best = [trial for trial in search.oracle.get_best_trials() if trial.score is not None]
    if not best:
        raise Failed(f"All {len(search.trials)} trials failed. '{folder / 'search'}' says how each ended.")
    hp = best[0].hyperparameters
    model = hypermodel.build(hp)
    hypermodel.fit(hp, model, x, y, epochs=options.epochs, verbose=verbose)
    error = 1 - model.evaluate(*test, verbose=0, return_dict=True)["accuracy"]
    with outputs.replacing(folder / "model.keras") as path:
        model.save(path)
    result = {
        "model": str(folder / "model.keras"),
        "learning_rule": str(model.learning_rule),
        "trials": len(search.trials),
        "hyperparameters": hp.values,
        "validation_error_percent": round(100 * (1 - best[0].score), 4),
        "test_error_percent": round(100 * error, 4),
    }
    with outputs.replacing(folder / "result.json") as path:
        path.write_text(json.dumps(result, indent=1))
    return result
