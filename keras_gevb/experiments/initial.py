"""Alignment before training: of the cells, and against width.

Nonnegative networks follow the gradient, and the more so the wider they are.
"""

import functools
import itertools
from collections.abc import Iterable
from typing import Any

import keras

from keras_gevb import Sequential, datasets, layers
from keras_gevb.experiments import files
from keras_gevb.experiments.cells import CELLS, Cell
from keras_gevb.experiments.run import alignment, load
from keras_gevb.types import Path, Progress

WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096)
DEPTH = 3
CELLS_FILE = "alignment.json"
WIDTH_FILE = "width.json"


def measure_alignment(
    out: Path,
    cells: Iterable[Cell],
    seeds: Iterable[int] = (0, 1, 2, 3, 4),
    data_dir: Path | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Measure and write the alignment of cells before training, as `run_cell` does at epoch 0.

    Each network is shown 128 training examples. Cells that learn by backpropagation are left
    out. What stands in the folder already is kept.

    Args:
        out: The output folder; the file there is `alignment.json`.
        cells: `Cell`s.
        seeds: Of the initial weights and the feedback.
        data_dir: See `keras_gevb.datasets.load`.
        progress: A function that is told `(done, total)`.

    Returns:
        A list of dicts: "cell" (its name), "seed", "alignment_degrees" (first hidden layer to last).

    Raises:
        ExperimentError: if no cell is left, another process measures into this file, or it is corrupt.

    Example:

    >>> rows = measure_alignment("runs", find(["digits-fc-*-gevb-*"]), seeds=range(2))
    >>> [(row["cell"], row["seed"]) for row in rows][:2]
    [('digits-fc-vectorized-gevb-nonnegative', 0), ('digits-fc-vectorized-gevb-nonnegative', 1)]

    Reference: paper, figures of alignment.
    """
    broadcast = [cell.name for cell in cells if cell.learning_rule != "backprop"]
    if not broadcast:
        raise files.ExperimentError(
            "Under backpropagation a unit is sent its own signal, at 0 degrees from itself, so there is "
            f"nothing to measure. Received: {', '.join(cell.name for cell in cells)}. Name cells of GEVB "
            "or DFA."
        )
    wanted = [{"cell": cell, "seed": seed} for cell, seed in itertools.product(broadcast, seeds)]

    def build(row):
        return CELLS[row["cell"]].build()

    def dataset(row):
        return CELLS[row["cell"]].dataset

    return _measure(out, CELLS_FILE, wanted, dataset, build, data_dir, progress)


def measure_width(
    out: Path,
    widths: Iterable[int] = WIDTHS,
    seeds: Iterable[int] = (0, 1, 2),
    dataset: str = "mnist",
    data_dir: Path | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Measure and write GEVB's alignment before training, in fully connected networks.

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

    Raises:
        ExperimentError: if another process measures into this file, or it is corrupt.
    """
    wanted = [
        {"dataset": dataset, "width": width, "weights": weights, "seed": seed}
        for width, weights, seed in itertools.product(widths, ("nonnegative", "mixed"), seeds)
    ]
    return _measure(out, WIDTH_FILE, wanted, lambda row: row["dataset"], _network, data_dir, progress)


def read_alignment(folder):
    """What `measure_alignment` has measured so far, where there was a signal in all layers."""
    return _with_signal(_read(folder / CELLS_FILE, ("cell", "seed")))


def read_width(folder):
    """What `measure_width` has measured so far, where there was a signal in all layers."""
    return _with_signal(_read(folder / WIDTH_FILE, ("dataset", "width", "weights", "seed")))


def _measure(out, file, wanted, dataset, build, data_dir, progress):
    """Measure the wanted rows that a file lacks, and write each into it."""
    path = files.open_folder(out, create=True) / file
    lock = path.with_suffix(".lock")
    examples = functools.cache(lambda name: load(name, data_dir)[0])
    with files.locked(lock) as ours:
        if not ours:
            raise files.ExperimentError(
                f"Another process is measuring into '{path}'. Wait for it, or give another --out folder."
            )
        rows = _read(path, wanted[0])
        done = [{key: row[key] for key in wanted[0]} for row in rows]
        missing = [row for row in wanted if row not in done]
        for number, row in enumerate(missing):
            x, y = examples(dataset(row))
            keras.utils.set_random_seed(row["seed"])
            model = build(row)
            model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
            rows.append({**row, "alignment_degrees": alignment(model, x, y)})
            files.write_json(path, {"schema": files.SCHEMA, "rows": rows})
            keras.backend.clear_session()
            if progress:
                progress(number + 1, len(missing))
    return rows


def _read(path, keys):
    """The rows of a file, each with these keys and angles."""
    if not path.exists():
        return []
    content = files.read_json(path)
    try:
        rows = content["rows"]
        for row in rows:
            if set(row) != {*keys, "alignment_degrees"} or row.get("cell") not in {None, *CELLS}:
                raise ValueError(f"a row is {row}")
            if not isinstance(row["alignment_degrees"], list):
                raise TypeError(f"the angles of a row are {row['alignment_degrees']}")
    except (KeyError, TypeError, ValueError) as error:
        raise files.corrupt(path, error) from error
    return rows


def _with_signal(rows):
    return [row for row in rows if None not in row["alignment_degrees"]]


def _network(row):
    shape, brightest = datasets.IMAGES[row["dataset"]]
    nonnegative = row["weights"] == "nonnegative"
    later = {"nonnegative": nonnegative}
    hidden = [layers.VectorDense(row["width"], **later) for _ in range(DEPTH - 1)]
    first = layers.VectorDense(row["width"], vector_dim=10, nonnegative=None if nonnegative else False)
    return Sequential(
        [
            keras.Input(shape),
            keras.layers.Rescaling(2 / brightest, offset=-1),
            keras.layers.Flatten(),
            first,
            *hidden,
            layers.VectorReadout(**later),
        ]
    )
