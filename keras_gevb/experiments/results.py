"""What a run leaves behind: its result, its timing, and the state to go on from."""

import dataclasses
import importlib.metadata
import json
import platform
import re
import zipfile
from typing import Any

import keras
import numpy as np

from keras_gevb import backend
from keras_gevb.experiments import files
from keras_gevb.experiments.cells import CELLS, Cell
from keras_gevb.types import Path
from keras_gevb.version import __version__

MEASURED = {
    "epoch",
    "train_error_percent",
    "test_error_percent",
    "train_loss",
    "test_loss",
    "alignment_degrees",
}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a cell is trained; the defaults are the paper's.

    Attributes:
        epochs: The run ends at this epoch at the latest.
        evaluate_every: Epochs from one measurement to the next. A run ends at the
            measurement that finds no training error.
        batch_size: Samples in a batch.
        learning_rate, epsilon: Of Adam.
    """

    epochs: int = 190
    evaluate_every: int = 10
    batch_size: int = 128
    learning_rate: float = 3e-4
    epsilon: float = 1e-8

    def measures(self, epoch: int) -> bool:
        """Whether errors are measured after so many epochs."""
        return epoch % self.evaluate_every == 0 or epoch >= self.epochs


@dataclasses.dataclass
class Result:
    """What one run found. It holds nothing that differs between two runs of one seed.

    Attributes:
        cell: The `Cell`.
        seed: Of the initial weights, the feedback and the order of the data.
        protocol: The `Protocol`.
        versions: Of the packages, by name; on an accelerator also its name, and how exact its products are.
        measurements: A list of dicts, the first one before training: "epoch",
            "train_error_percent", "test_error_percent", "train_loss", "test_loss",
            "alignment_degrees" (first hidden layer to last; None under backpropagation).
        epochs: How many are trained.
        finished: Why the run ended: "last epoch" or "no training error". None while it has not.
    """

    cell: Cell
    seed: int
    protocol: Protocol
    versions: dict[str, str]
    measurements: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    epochs: int = 0
    finished: str | None = None

    @property
    def last(self) -> dict[str, Any]:
        """The last measurement."""
        return self.measurements[-1]

    def to_json(self) -> dict[str, Any]:
        content = dataclasses.asdict(self) | {"cell": self.cell.name}
        return {"schema": files.SCHEMA, **content}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Result":
        content = {name: content[name] for name in (field.name for field in dataclasses.fields(cls))}
        content["cell"] = CELLS[content["cell"]]
        content["protocol"] = Protocol(**content["protocol"])
        if any(measurement.keys() != MEASURED for measurement in content["measurements"]):
            raise ValueError("a measurement lacks one of its numbers")
        return cls(**content)


class RunFiles:
    """The files of one run.

    Args:
        folder: The output folder.
        cell: A `Cell`.
        seed: Integer.
    """

    def __init__(self, folder, cell, seed):
        self.cell, self.seed = cell, seed
        stem = folder / cell.name / f"seed-{seed}"
        self.result = stem.with_suffix(".json")
        self.timing = stem.with_suffix(".timing.json")
        self.state = stem.with_suffix(".state.npz")
        self.representation = stem.with_suffix(".representation.npz")
        self.lock = stem.with_suffix(".lock")

    def read_result(self):
        """The `Result`, or None where there is none yet.

        Raises:
            ExperimentError: if the file is corrupt, of another version or of another run.
        """
        if not self.result.exists():
            return None
        content = files.read_json(self.result)
        try:
            result = Result.from_json(content)
            if (result.cell, result.seed) != (self.cell, self.seed):
                raise ValueError(f"it is of {result.cell.name}, seed {result.seed}")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise files.corrupt(self.result, error) from error
        return result

    def write_result(self, result):
        files.write_json(self.result, result.to_json())

    def write_timing(self, seconds):
        content = {"schema": files.SCHEMA, "machine": machine(), "seconds_per_epoch": seconds}
        files.write_json(self.timing, content)

    def read_seconds(self):
        """Seconds of training per epoch, a list; empty where the file is not there."""
        if not self.timing.exists():
            return []
        content = files.read_json(self.timing, files.WITHOUT)
        try:
            return [float(seconds) for seconds in content["seconds_per_epoch"]]
        except (KeyError, TypeError, ValueError) as error:
            raise files.corrupt(self.timing, error, files.WITHOUT) from error

    def write_state(self, result, seconds, variables):
        """Write what a run needs to go on: one file, so that its parts belong together."""
        header = json.dumps({**result.to_json(), "seconds": seconds}).encode()
        arrays = {f"variable_{i}": np.asarray(v) for i, v in enumerate(variables)}
        header = np.frombuffer(header, "uint8")
        files.write_atomically(self.state, lambda file: np.savez(file, header=header, **arrays))

    def read_state(self):
        """`(result, seconds, arrays)` after the last finished epoch, or None where there is no state."""
        if not self.state.exists():
            return None
        try:
            with np.load(self.state) as archive:
                header = files.checked(json.loads(archive["header"].tobytes()), self.state)
                arrays = [archive[f"variable_{i}"] for i in range(len(archive.files) - 1)]
            return Result.from_json(header), header["seconds"], arrays
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise files.corrupt(self.state, error) from error


def load_results(out: Path) -> list[Result]:
    """Every result in an output folder, in the order of the cells, then of the seeds.

    Raises:
        ExperimentError: if there is no such folder, or a file is corrupt or of another version.
    """
    folder = files.open_folder(out)
    results = []
    for name, cell in CELLS.items():
        names = (re.fullmatch(r"seed-(\d+)\.json", path.name) for path in (folder / name).glob("seed-*"))
        seeds = sorted(int(match[1]) for match in names if match)
        results += [RunFiles(folder, cell, seed).read_result() for seed in seeds]
    return results


def versions():
    """The versions that a result depends on, and the accelerator, if one computes."""
    names = (keras.backend.backend(), "keras", "numpy")
    found = {"keras-gevb": __version__} | {name: importlib.metadata.version(name) for name in names}
    return found | backend.accelerator()


def machine():
    """What the seconds depend on."""
    import os

    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": keras.distribution.list_devices(),
    }
