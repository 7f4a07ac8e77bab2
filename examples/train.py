"""Train a network by GEVB, and the same network by backpropagation, on real data.

With no argument: the 8 x 8 digits, under two minutes on two CPU cores. Each rule starts
from the same weights and sees the same batches. Under `--out` it leaves the learning
curves (PNG), and for each rule the epochs (CSV), the model (.keras) and a SavedModel that
takes raw pixels.
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib
import numpy as np
import rich.console
import rich.table

import keras_gevb

matplotlib.use("Agg")
from matplotlib import pyplot, ticker

# The paper's protocol, and a shorter one that suits the 1,438 digits.
PAPER = {"epochs": 10, "batch_size": 128, "learning_rate": 3e-4}
DIGITS = {"epochs": 30, "batch_size": 32, "learning_rate": 1e-3}
STYLES = {
    "gevb": ("#d1495b", "-"),
    "backprop": ("#30638e", "--"),
    "fa": ("#edae49", "-."),
    "dfa": ("#00798c", ":"),
}


class EpochTimer(keras.callbacks.Callback):
    """Seconds of every epoch but the first, which compiles, unless it is the only one."""

    def on_train_begin(self, logs=None):
        self._seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self._seconds.append(time.perf_counter() - self._start)

    @property
    def median(self):
        seconds = sorted(self._seconds[1:] or self._seconds)
        return seconds[len(seconds) // 2]


def train(rule, data, options, folder):
    """Train one model from the seed's initial weights; returns it, its history and its timer."""
    keras.utils.set_random_seed(options.seed)
    model = keras_gevb.zoo.build(
        options.dataset, options.architecture, nonnegative=not options.mixed_sign, learning_rule=rule
    )
    model.compile(
        keras.optimizers.Adam(options.learning_rate, epsilon=1e-8),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    timer = EpochTimer()
    (x, y), test = data
    history = model.fit(
        x,
        y,
        batch_size=options.batch_size,
        epochs=options.epochs,
        validation_data=test,
        callbacks=[
            timer,
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.CSVLogger(folder / f"{rule}.csv"),
        ],
    )
    return model, history.history, timer


def smallest_kernel(model):
    """The smallest kernel entry past the first layer."""
    weighty = [layer for layer in model.layers if isinstance(layer, keras_gevb.layers.WeightLayer)]
    return min(float(keras.ops.min(layer.kernel)) for layer in weighty[1:]) + 0.0  # not -0


def draw_curves(histories, title, path):
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for rule, history in histories.items():
        colour, line = STYLES.get(rule, ("#333333", "-"))
        epochs = range(1, len(history["accuracy"]) + 1)
        for name, label, width in (("val_accuracy", "test", 2), ("accuracy", "train", 0.8)):
            errors = 100 * (1 - np.array(history[name]))
            axes.plot(epochs, errors, line, color=colour, linewidth=width, label=f"{rule}, {label}")
    axes.set(xlabel="epoch", ylabel="error (%)", title=title)
    if min(line.get_ydata().min() for line in axes.lines) > 0:
        axes.set_yscale("log")
    else:
        axes.set_yscale("symlog", linthresh=0.1)
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(ticker.LogFormatter(minor_thresholds=(2, 0.5)))
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=sorted(keras_gevb.datasets.IMAGES), default="digits")
    parser.add_argument(
        "--architecture",
        choices=keras_gevb.zoo.ARCHITECTURES,
        default="fc",
        help="fully connected (default), convolutional or locally connected",
    )
    parser.add_argument(
        "--learning-rule",
        choices=("gevb", "backprop", "fa"),
        help="train by this rule alone (default: by gevb, then by backprop)",
    )
    parser.add_argument("--epochs", type=int, help="default: 30 on digits, else 10")
    parser.add_argument("--batch-size", type=int, help="default: 32 on digits, else 128")
    parser.add_argument("--learning-rate", type=float, help="Adam's (default: 1e-3 on digits, else 3e-4)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (default: 0)")
    parser.add_argument(
        "--mixed-sign", action="store_true", help="do not keep the weights past the first layer nonnegative"
    )
    parser.add_argument("--data-dir", help="folder of prepared data sets (default: $TFDS_DATA_DIR)")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("runs"),
        help="folder for curves and models (default: runs)",
    )
    options = parser.parse_args()
    for name, value in (DIGITS if options.dataset == "digits" else PAPER).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
        if getattr(options, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0, got {getattr(options, name)}")
    return options


def main():
    options = parse_arguments()
    rules = [options.learning_rule] if options.learning_rule else ["gevb", "backprop"]
    signs = "mixed-sign" if options.mixed_sign else "nonnegative"
    name = f"{options.dataset}-{options.architecture}-{signs}"
    folder = options.out / name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        data = keras_gevb.datasets.load(options.dataset, data_dir=options.data_dir)
    except RuntimeError as error:
        raise SystemExit(f"error: {error}") from None

    console = rich.console.Console()
    table = rich.table.Table(title=f"{name}, {options.epochs} epochs, seed {options.seed}")
    for heading in (
        "learning rule",
        "test error (%)",
        "seconds per epoch",
        "smallest kernel entry past layer 1",
    ):
        table.add_column(heading, justify="right")
    histories = {}
    for rule in rules:
        console.rule(f"{name} by {rule}")
        model, histories[rule], timer = train(rule, data, options, folder)
        model.save(folder / f"{rule}.keras")
        model.export(folder / f"{rule}_savedmodel", verbose=False)
        error = 100 * (1 - histories[rule]["val_accuracy"][-1])
        table.add_row(rule, f"{error:.2f}", f"{timer.median:.2f}", f"{smallest_kernel(model):.3g}")
    draw_curves(histories, name, folder / "learning_curves.png")
    console.print(table)
    console.print(f"Curves and models: {folder}/")


if __name__ == "__main__":
    main()
