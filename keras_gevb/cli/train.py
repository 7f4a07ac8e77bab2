"""`keras-gevb train`."""

import csv
import json
import math
import time

import keras

from keras_gevb import zoo
from keras_gevb.cli import kinds, outputs
from keras_gevb.cli.errors import Failed, WrongUse

EXAMPLES = """\
  keras-gevb train digits
  keras-gevb train mnist --architecture conv --epochs 20 --out runs/mnist
  keras-gevb train digits --learning-rule dfa --conventional --json
  keras-gevb train mnist --out runs/mnist --resume --epochs 40"""
STOPPED = "The folder keeps the model of the last finished epoch: the same command with --resume goes on."
# The paper's protocol, and a shorter one that suits the 1,438 digits.
DEFAULTS = {"epochs": 10, "batch_size": 128, "learning_rate": 3e-4}
DIGITS = {"epochs": 30, "batch_size": 32, "learning_rate": 1e-3}


def arguments(parser):
    kinds.add_data(parser)
    parser.add_argument("--architecture", choices=zoo.ARCHITECTURES, default="fc", help="default: fc")
    parser.add_argument("--learning-rule", type=kinds.rule, metavar="RULE", help="default: gevb, or dfa")
    parser.add_argument("--conventional", action="store_true", help="units of one number, not vectors")
    parser.add_argument("--mixed-sign", action="store_true", help="let kernels past the first be negative")
    parser.add_argument("--width", type=kinds.positive_real, default=1.0, help="factor on the paper's widths")
    parser.add_argument("--epochs", type=kinds.positive, help="default: 10; on digits 30")
    parser.add_argument("--batch-size", type=kinds.positive, help="default: 128; on digits 32")
    parser.add_argument("--learning-rate", type=kinds.positive_real, help="default: 3e-4; on digits 1e-3")
    parser.add_argument("--seed", type=kinds.seed, default=0, help="of weights and batches (default: 0)")
    parser.add_argument("--out", metavar="DIR", help="default: runs/DATASET-ARCHITECTURE-RULE")
    parser.add_argument("--resume", action="store_true", help="go on with the model in --out")


def run(options):
    for name, value in (DIGITS if options.dataset == "digits" else DEFAULTS).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    rule = options.learning_rule or ("dfa" if options.conventional else "gevb")
    folder = options.out or f"runs/{options.dataset}-{options.architecture}-{rule}"
    if options.resume:
        folder = _resumed(folder)
        outputs.check_as_asked(folder, options, free=("epochs", "resume"))
    else:
        folder = outputs.new_folder(folder, "Give --resume to go on with it, or another --out.")
    keras.utils.set_random_seed(options.seed)
    done = _epochs_done(folder)
    model = keras.models.load_model(folder / "model.keras") if done else _new_model(options, rule)
    if not options.resume:
        outputs.keep_asked(folder, options)
    (x, y), (x_test, y_test) = kinds.load(options.dataset, options.data_dir)
    started = time.perf_counter()
    model.fit(
        x,
        y,
        batch_size=options.batch_size,
        epochs=options.epochs,
        initial_epoch=min(done, options.epochs),
        validation_data=(x_test, y_test),
        verbose=0 if options.json else 2,
        callbacks=[keras.callbacks.TerminateOnNaN(), _Keeper(folder)],
    )
    if _epochs_done(folder) < options.epochs:
        raise Failed(
            f"The loss is no longer finite after epoch {_epochs_done(folder)}, which '{folder}' keeps. Try a "
            f"smaller --learning-rate. Received: {options.learning_rate}"
        )
    error = 1 - model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"]
    result = {
        "model": str(folder / "model.keras"),
        "learning_rule": str(model.learning_rule),
        "epochs": _epochs_done(folder),
        "test_error_percent": round(100 * error, 4),
        "seconds": round(time.perf_counter() - started, 2),
    }
    (folder / "result.json").write_text(json.dumps(result, indent=1))
    return result


def _resumed(folder):
    folder = outputs.writable(folder)
    if not outputs.is_begun(folder):
        raise WrongUse(f"There is no run to go on with in '{folder}'. Leave --resume out.")
    return folder


def _epochs_done(folder):
    log = folder / "log.csv"
    if not log.exists():
        return 0
    with log.open() as file:
        return sum(1 for _ in csv.DictReader(file))


def _new_model(options, rule):
    try:
        model = zoo.build(
            options.dataset,
            options.architecture,
            vectorized=not options.conventional,
            nonnegative=not options.mixed_sign,
            learning_rule=rule,
            width=options.width,
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(options.learning_rate), loss, metrics=["accuracy"])
        # One example says whether the rule serves the units, before data are loaded.
        model.compute_updates(keras.ops.zeros((1, *model.input_shape[1:])), keras.ops.zeros(1, "int32"))
    except ValueError as error:
        raise WrongUse(str(error)) from error
    return model


class _Keeper(keras.callbacks.Callback):
    """Leaves model and log after each epoch, both whole; nothing where the loss is not finite."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_epoch_end(self, epoch, logs=None):
        if not math.isfinite(logs["loss"]):
            return
        log = self.folder / "log.csv"
        row = {"epoch": epoch + 1, **logs}
        with outputs.replacing(self.folder / "model.keras") as path:
            self.model.save(path)
        text = log.read_text() if log.exists() else ",".join(row) + "\n"
        with outputs.replacing(log) as path:
            path.write_text(text + ",".join(map(str, row.values())) + "\n")
