"""Alignment at initialization against width: nonnegative networks follow the gradient as they widen."""

import itertools

import keras
import numpy as np

from keras_gevb import Sequential, datasets, layers
from keras_gevb.diagnostics import alignment_angles
from keras_gevb.experiments import files
from keras_gevb.experiments.run import ALIGNMENT_EXAMPLES, load

WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096)
DEPTH = 3
FILE = "width.json"


def measure_width(out, widths=WIDTHS, seeds=(0, 1, 2), dataset="mnist", data_dir=None, progress=None):
    """Measure and write GEVB's alignment at initialization, in fully connected networks.

    Each network has three hidden layers of equal width, nonnegative or of mixed sign, and is
    shown 128 training examples. What stands in the folder already is kept.

    Args:
        out: The output folder; the file there is `width.json`.
        widths: Units in each hidden layer, even numbers.
        seeds: Of the initial weights.
        dataset: The name of a data set.
        data_dir: See `keras_gevb.datasets.load`.
        progress: A function that is told `(done, total)`.

    Returns:
        A list of dicts: "dataset", "width", "weights", "seed", "alignment_degrees" (first
        hidden layer to last).
    """
    folder = files.open_folder(out, create=True)
    rows = read_width(folder)
    done = {_key(row) for row in rows}
    wanted = [
        {"dataset": dataset, "width": width, "weights": weights, "seed": seed}
        for width, weights, seed in itertools.product(widths, ("nonnegative", "mixed"), seeds)
    ]
    wanted = [row for row in wanted if _key(row) not in done]
    if not wanted:
        return rows
    (x, y), _ = load(dataset, data_dir)
    x, y = x[:ALIGNMENT_EXAMPLES], y[:ALIGNMENT_EXAMPLES]
    for number, row in enumerate(wanted):
        keras.utils.set_random_seed(row["seed"])
        model = _network(x.shape[1:], datasets.IMAGES[dataset][1], row["width"], row["weights"])
        angles = list(alignment_angles(model, x, y).values())
        rows.append({**row, "alignment_degrees": np.round(angles, 3).tolist()})
        files.write_json(folder / FILE, {"schema": files.SCHEMA, "rows": rows})
        keras.backend.clear_session()
        if progress:
            progress(number + 1, len(wanted))
    return rows


def read_width(folder):
    """The rows measured so far."""
    path = folder / FILE
    return files.read_json(path)["rows"] if path.exists() else []


def _key(row):
    return row["dataset"], row["width"], row["weights"], row["seed"]


def _network(shape, brightest, width, weights):
    nonnegative = weights == "nonnegative"
    later = {"nonnegative": nonnegative}
    hidden = [layers.VectorDense(width, **later) for _ in range(DEPTH - 1)]
    first = layers.VectorDense(width, vector_dim=10, nonnegative=None if nonnegative else False)
    model = Sequential(
        [
            keras.Input(shape),
            keras.layers.Rescaling(2 / brightest, offset=-1),
            keras.layers.Flatten(),
            first,
            *hidden,
            layers.VectorReadout(**later),
        ]
    )
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model
