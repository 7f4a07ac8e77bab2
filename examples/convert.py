"""Convert a stock Keras model, and train it by several learning rules side by side.

With no argument: a small residual network on the 8 x 8 digits by backpropagation, DFA and FA, under two
minutes on two CPU cores. Each rule starts from the same weights and sees the same batches. `--model` is
one of the package's stock models or a `.keras` file of a classifier of the data set. Under `--out` it
leaves the learning curves (PNG), and for each rule the epochs (CSV) and the trained model, of stock
Keras layers.
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
import rich.progress
import rich.table

import keras_gevb

matplotlib.use("Agg")
from matplotlib import pyplot, ticker

SMALL = {"residual": {"blocks": 1, "filters": 8}, "transformer": {"patch": 2, "width": 32, "blocks": 2}}
MODELS = ("residual", "transformer", "tokens")


def stock_model(name, dataset):
    """A stock model for images of a data set, or that of a file."""
    shape, brightest = keras_gevb.datasets.IMAGES[dataset]
    settings = {**(SMALL.get(name, {}) if dataset == "digits" else {}), "scale": brightest}
    if name == "residual":
        return keras_gevb.zoo.residual_network(shape, **settings)
    if name == "transformer":
        return keras_gevb.zoo.vision_transformer(shape, **settings)
    if name == "tokens":  # a pixel is a word
        return keras_gevb.zoo.token_classifier(shape[0] * shape[1] * shape[2], brightest + 1, 10, 32)
    return keras.models.load_model(name)


class Progress(keras.callbacks.Callback):
    """A row of the bar for each rule."""

    def __init__(self, bars, rule, epochs):
        super().__init__()
        self._bars, self._rule = bars, rule
        self._task = bars.add_task(rule, total=epochs)

    def on_epoch_end(self, epoch, logs=None):
        error = 100 * (1 - logs["val_accuracy"])
        self._bars.update(self._task, advance=1, description=f"{self._rule}, test error {error:.1f} %")


def train(stock, rule, data, options, bars, folder):
    """Train a copy of the model by a rule; its history and seconds per epoch."""
    keras.utils.set_random_seed(options.seed)
    model = keras_gevb.convert(stock, rule)
    model.compile(
        keras.optimizers.Adam(options.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    (x, y), test = data
    start = time.perf_counter()
    history = model.fit(
        x,
        y,
        batch_size=options.batch_size,
        epochs=options.epochs,
        validation_data=test,
        callbacks=[
            Progress(bars, rule, options.epochs),
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.CSVLogger(folder / f"{rule}.csv"),
        ],
        verbose=0,
    )
    seconds = (time.perf_counter() - start) / options.epochs
    keras_gevb.export.to_keras(model).save(folder / f"{rule}.keras")
    return history.history, seconds


def draw_curves(histories, title, path):
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for rule, history in histories.items():
        errors = 100 * (1 - np.array(history["val_accuracy"]))
        (line,) = axes.plot(range(1, len(errors) + 1), errors, linewidth=2, label=f"{rule}, test")
        errors = 100 * (1 - np.array(history["accuracy"]))
        axes.plot(range(1, len(errors) + 1), errors, ":", color=line.get_color(), label=f"{rule}, train")
    axes.set(xlabel="epoch", ylabel="error (%)", title=title, ylim=(0, None))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="residual", help=f"one of {', '.join(MODELS)}, or a .keras file")
    parser.add_argument("--dataset", choices=sorted(keras_gevb.datasets.IMAGES), default="digits")
    parser.add_argument("--rules", nargs="+", default=["backprop", "dfa", "fa"], help="names of rules")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="Adam's")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (default: 0)")
    parser.add_argument("--data-dir", help="folder of prepared data sets (default: $TFDS_DATA_DIR)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/convert"))
    options = parser.parse_args()
    if options.model not in MODELS and not pathlib.Path(options.model).is_file():
        parser.error(f"--model must be one of {MODELS} or a file, got {options.model}")
    return options


def main():
    options = parse_arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(options.seed)
    stock = stock_model(options.model, options.dataset)
    try:
        data = keras_gevb.datasets.load(options.dataset, data_dir=options.data_dir)
    except RuntimeError as error:
        raise SystemExit(f"error: {error}") from None
    data = [(x.reshape(len(x), *stock.input_shape[1:]), y) for x, y in data]
    title = f"{stock.name} on {options.dataset}, {options.epochs} epochs, seed {options.seed}"
    table = rich.table.Table(title=title)
    for heading in ("learning rule", "test error (%)", "seconds per epoch"):
        table.add_column(heading, justify="right")
    console = rich.console.Console()
    histories = {}
    columns = (*rich.progress.Progress.get_default_columns(), rich.progress.TimeElapsedColumn())
    with rich.progress.Progress(*columns, console=console) as bars:
        for rule in options.rules:
            histories[rule], seconds = train(stock, rule, data, options, bars, options.out)
            error = 100 * (1 - histories[rule]["val_accuracy"][-1])
            table.add_row(rule, f"{error:.2f}", f"{seconds:.2f}")
    draw_curves(histories, title, options.out / "learning_curves.png")
    console.print(table)
    console.print(f"Curves and models: {options.out}/")


if __name__ == "__main__":
    main()
