"""What the recipes share: how a network is trained, measured and tabled.

By itself it prints the tables of a file of results, and puts them into a page:

    python recipe.py results.json [page.md]
"""

import argparse
import csv
import dataclasses
import hashlib
import json
import os
import pathlib
import platform
import re
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

import keras_gevb

HELD_OUT = 10_000  # training images that `--validate` keeps for validation


@dataclasses.dataclass
class Recipe:
    """A network and how it is trained.

    Args:
        dataset: A data set of `keras_gevb.datasets`.
        network: Its hidden layers, as `keras_gevb.zoo.stack` takes them.
        epochs, batch_size: Integers.
        learning_rate: Adam's at the start; it falls to 0 as half a cosine.
        shift: Pixels by which a training image is moved at most, each way.
        rotation: Degrees by which it is turned at most, each way.
        flip: Whether it may be mirrored.
        dropout: Share of the hidden units that are left out, the same for all their components.
        label_smoothing: Share of the label that is spread over all classes.
    """

    dataset: str
    network: list
    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 5e-4
    shift: float = 0.0
    rotation: float = 0.0
    flip: bool = False
    dropout: float = 0.0
    label_smoothing: float = 0.0

    def augmentation(self):
        """Layers that act in training alone."""
        (height, width, _), _ = keras_gevb.datasets.IMAGES[self.dataset]
        if self.flip:
            yield keras.layers.RandomFlip("horizontal")
        if self.shift:
            shift = self.shift / height, self.shift / width
            yield keras.layers.RandomTranslation(*shift, fill_mode="constant")
        if self.rotation:
            yield keras.layers.RandomRotation(self.rotation / 360, fill_mode="constant")

    def build(self, rule, units, width=1.0):
        """The network, not compiled: raw pixels to logits."""
        shape, brightest = keras_gevb.datasets.IMAGES[self.dataset]
        vectorized = units == "vector"
        Dropout = keras_gevb.layers.VectorDropout if vectorized else keras.layers.Dropout
        stack = []
        for layer in keras_gevb.zoo.stack(self.network, 10, vectorized, nonnegative=vectorized, width=width):
            stack.append(layer)
            if self.dropout and isinstance(layer, keras_gevb.layers.WeightLayer):
                stack.append(Dropout(self.dropout))
        if self.dropout:
            stack.pop()  # behind the readout
        scaled = keras.layers.Rescaling(2 / brightest, offset=-1)
        return keras_gevb.Sequential(
            [keras.Input(shape), *self.augmentation(), scaled, *stack], learning_rule=rule
        )

    def width_of_equal_parameters(self):
        """The factor on the widths of conventional units that gives them the vector network's parameters."""
        aim = self.build("gevb", "vector").count_params()
        low, high = 1.0, 16.0
        while high - low > 0.01:
            middle = (low + high) / 2
            few = self.build("backprop", "conventional", middle).count_params() < aim
            low, high = (middle, high) if few else (low, middle)
        return round(low, 2)

    def compile(self, model, samples):
        steps = self.epochs * -(-samples // self.batch_size)
        schedule = keras.optimizers.schedules.CosineDecay(self.learning_rate, steps)
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=self.label_smoothing)
        model.compile(keras.optimizers.Adam(schedule), loss, metrics=["accuracy"])


def train(recipe, run, data, folder):
    """Train one network and measure it, once; a run that was killed goes on with its last epoch."""
    (x, y), (x_test, y_test) = split(data, run["images"])
    keras.utils.set_random_seed(run["seed"])
    model = recipe.build(run["rule"], run["units"], run["width"])
    recipe.compile(model, len(x))
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "epochs.csv"
    model.fit(
        x,
        keras.utils.to_categorical(y, 10),
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        verbose=2,
        callbacks=[
            Seconds(),
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.CSVLogger(log, append=True),
            keras.callbacks.BackupAndRestore(folder / "backup"),
        ],
    )
    with log.open() as file:
        epochs = list({row["epoch"]: row for row in csv.DictReader(file)}.values())
    losses, seconds = ([float(epoch[what]) for epoch in epochs] for what in ("loss", "seconds"))
    return measured(model, (x, y), (x_test, y_test), losses, seconds)


def split(data, images):
    """Training images, and those to measure with: the test images, or training images that are held out."""
    (x, y), test = data
    if images == "validation":
        return (x[:-HELD_OUT], y[:-HELD_OUT]), (x[-HELD_OUT:], y[-HELD_OUT:])
    return (x, y), test


def measured(model, training, test, losses, seconds):
    """What is kept of a trained network."""
    return {
        "parameters": model.count_params(),
        "training_error_percent": error_percent(model, *training),
        "error_percent": error_percent(model, *test),
        "losses": [round(loss, 5) for loss in losses],
        "seconds_per_epoch": round(statistics.median(seconds), 1),
    }


def error_percent(model, x, y):
    logits = model.predict(x, batch_size=500, verbose=0)
    return round(100 * float((logits.argmax(axis=1) != y).mean()), 3)


class Seconds(keras.callbacks.Callback):
    """Adds the seconds of an epoch to its logs."""

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = time.perf_counter() - self._start


def arguments(recipe, text, argv=None):
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--rule",
        help="train by this rule alone, with --units; else by gevb, and by backprop on both kinds of units",
    )
    parser.add_argument("--units", choices=("vector", "conventional"), default="vector", help="with --rule")
    parser.add_argument("--width", type=float, default=1.0, help="factor on all widths, with --rule")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of weights, batches and augmentation"
    )
    parser.add_argument(
        "--validate",
        action="store_true",
        help=f"hold out {HELD_OUT} training images, and leave the test images alone",
    )
    parser.add_argument("--data-dir", help="folder of prepared data sets (default: $TFDS_DATA_DIR)")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("runs/recipes.json"),
        help="results; what stands there is not run again",
    )
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if field.type is bool:
            parser.add_argument(f"--{field.name}", action=argparse.BooleanOptionalAction, default=value)
        elif field.type in (int, float):  # a default of 2 may be an integer where 1.5 is meant to be possible
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=field.type, default=value)
    return parser.parse_args(argv)


def contestants(recipe, options):
    """What is trained: pairs of (rule, units, width)."""
    if options.rule:
        return [(options.rule, options.units, options.width)]
    equal = recipe.width_of_equal_parameters()
    return [
        ("gevb", "vector", 1.0),
        ("backprop", "conventional", 1.0),
        ("backprop", "vector", 1.0),
        ("backprop", "conventional", equal),
    ]


def main(recipe, text, name, train=train, argv=None):
    """Train what the command line says, and print the table.

    Args:
        recipe: A `Recipe`; options of the same names change it.
        text: What `--help` says.
        name: Of the recipe in the results.
        train: What trains and measures a network, as `train` here does.
        argv: The command line, where it is not this process's.
    """
    options = arguments(recipe, text, argv)
    names = {field.name for field in dataclasses.fields(recipe)}
    recipe = dataclasses.replace(recipe, **{k: v for k, v in vars(options).items() if k in names})
    settings = json.loads(json.dumps(dataclasses.asdict(recipe)))  # as they are read again
    try:
        data = keras_gevb.datasets.load(recipe.dataset, options.data_dir)
    except RuntimeError as error:
        raise SystemExit(f"error: {error}") from None
    for seed in options.seeds:
        for rule, units, width in contestants(recipe, options):
            run = {"recipe": name, "settings": settings, "rule": rule, "units": units, "width": width}
            run |= {"seed": seed, "images": "validation" if options.validate else "test"}
            if find(options.out, run):
                continue
            print(f"{name}: {rule}, {units} units, width {width}, seed {seed}", flush=True)
            digest = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:12]
            folder = options.out.with_suffix("") / f"{name}-{rule}-{units}-{seed}-{digest}"
            put(options.out, run | train(recipe, run, data, folder) | {"machine": machine()})
    print(table(read(options.out), name))


def read(path):
    """The runs in a file of results."""
    return json.loads(path.read_text()) if path.exists() else []


def find(path, run):
    """Whether a run is in the file of results."""
    return any(run.items() <= done.items() for done in read(path))


def put(path, run):
    """Add a run to the file of results, which is old or new at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.writing")
    new.write_text(json.dumps([*read(path), run], indent=1) + "\n")
    new.replace(path)


def machine():
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": f"{keras.backend.backend()} {sys.modules[keras.backend.backend()].__version__}",
        "keras_gevb": keras_gevb.__version__,
        **keras_gevb.backend.accelerator(),
    }


NAMES = {"gevb": "GEVB", "backprop": "backpropagation"}


def table(runs, recipe, images="test"):
    """Errors of a recipe in percent, as a Markdown table: one row for each network, rule and setting."""
    groups = {}
    for run in runs:
        if run["recipe"] == recipe and run["images"] == images:
            key = in_words(run["settings"]), run["rule"], run["units"], run["width"]
            groups.setdefault(key, []).append(run)
    heads = "rule", "units", "widths", "parameters", "trained by", "on"
    heads = *heads, "training error", f"{images} error", "seeds"
    lines = [
        "| " + " | ".join(heads) + " |",
        "| :-- | :-- | --: | --: | :-- | :-- |" + " --: |" * (len(heads) - 6),
    ]
    for group in groups.values():
        group.sort(key=lambda run: run["seed"])
        first = group[0]
        cells = [
            NAMES.get(first["rule"], first["rule"]),
            first["units"],
            f"x {first['width']:g}",
            f"{first['parameters']:,}",
            in_words(first["settings"]),
            ", ".join(dict.fromkeys(where(run["machine"]) for run in group)),
            mean([run["training_error_percent"] for run in group]),
            mean([run["error_percent"] for run in group]),
            " ".join(str(run["seed"]) for run in group),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def where(machine):
    return machine.get("device") or f"{machine['cores']} cores"


def in_words(settings):
    """Epochs, rate and whatever is not 0 of how a network was trained."""
    names = ("shift", "rotation", "flip", "dropout", "label_smoothing")
    more = [
        name.replace("_", " ") + (f" {v:g}" if v is not True else "")
        for name in names
        if (v := settings[name])
    ]
    first = f"{settings['epochs']} epochs, rate {settings['learning_rate']:g}, batch {settings['batch_size']}"
    return ", ".join([first, *more])


def mean(values):
    """The mean, with the standard deviation and the values where there are several."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    each = ", ".join(f"{value:.2f}" for value in values)
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f} ({each})"


def fill(page, runs):
    """A page with its tables as the runs have them: each stands behind `<!-- recipe, images -->`."""
    for name, images in sorted({(run["recipe"], run["images"]) for run in runs}):
        mark = f"<!-- {name}, {images} -->"
        found = re.compile(re.escape(mark) + r"\n\n(\|.*\n)*")
        if not found.search(page):
            sys.exit(f"error: the page has no '{mark}', followed by an empty line")
        filled = f"{mark}\n\n{table(runs, name, images)}\n"
        page = found.sub(lambda _, filled=filled: filled, page)
    return page


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    runs = read(pathlib.Path(sys.argv[1]))
    for name, images in dict.fromkeys((run["recipe"], run["images"]) for run in runs):
        print(f"{name}, {images} images\n\n{table(runs, name, images)}\n")
    if len(sys.argv) == 3:
        page = pathlib.Path(sys.argv[2])
        page.write_text(fill(page.read_text(), runs))
