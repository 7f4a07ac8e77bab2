"""What one GPU does within a given time: step times of the paper's networks, then cells of its comparison.

    KERAS_BACKEND=jax python benchmarks/gpu.py --minutes 25
    KERAS_BACKEND=tensorflow python benchmarks/gpu.py --minutes 25

First the time of a step, as in performance.py. Then the 24 vectorized MNIST and CIFAR-10 cells, the first
seed of each before the second of any, for as long as an epoch is likely to end in time. Under JAX an epoch
is one compiled loop over its batches. Products of float32 are in float32, not in TensorFloat-32, but where
JAX_DEFAULT_MATMUL_PRECISION says otherwise. Everything is written to --out as it ends; the same command
goes on at the last finished epoch, under JAX at the last measurement. At the end, or when the time is up,
it writes gpu.md, with the GPU's name.

Small networks leave a GPU idle between their operations: several processes of the same command share the
cells, and with --alone the step times, as in gpu.sh.

Without TensorFlow, data sets come as files in --data-dir. Where TensorFlow Datasets is installed, this
makes them:

    python benchmarks/gpu.py --make-data mnist cifar10 --out FOLDER
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")

import contestants
import keras
import measuring
import numpy as np
import performance_report
import reporting
import rich.progress

from keras_gevb import datasets
from keras_gevb.backend import accelerator
from keras_gevb.experiments import Protocol, find, load_results, run_cell
from keras_gevb.experiments.results import RunFiles

if keras.backend.backend() == "jax":
    from scanning import ScannedRun as Run
else:
    from keras_gevb.experiments.run import Run

LEARNERS = ["GEVB", "Backprop rule", "autodiff"]
CELLS = ["mnist-*-vectorized-*", "cifar10-*-vectorized-*"]


def main(arguments=None):
    options = _options(arguments)
    if options.make_data:
        make_data(options.make_data, options.out, options.data_dir)
        return
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(False)
    end = time.monotonic() + 60 * options.minutes
    machine = measuring.machine() | accelerator()
    results = measuring.Results(options.out / "gpu.json", machine)
    settings = {"batch_size": 128, "steps": options.steps, "repeats": options.repeats}
    with rich.progress.Progress() as bars:
        try:
            time_steps(options, settings, results, end, bars)
            train_cells(options, end, bars)
        except TimeIsUp:
            bars.console.print("The time is up. The same command goes on from here.")
    networks = [*contestants.NETWORKS, *contestants.SMALL_NETWORKS]
    steps = {name: results.get("steps", name, settings) for name in networks}
    print(write_report(options, machine, {name: found for name, found in steps.items() if found}))


class TimeIsUp(Exception):
    """Ends the work; what was finished is written."""


def time_steps(options, settings, results, end, bars):
    missing = [name for name in options.networks if results.get("steps", name, settings) is None]
    task = bars.add_task("step times", total=len(missing) * len(LEARNERS) * options.repeats)
    turns = measuring.Turns(options.alone)

    def advance():
        bars.advance(task)
        if time.monotonic() > end:
            raise TimeIsUp

    for network in missing:
        turns.compile()
        models = {name: contestants.build(name, network, keras.optimizers.Adam(3e-4)) for name in LEARNERS}
        samples = settings["batch_size"] * (options.steps + 1)
        x, y = contestants.random_images(models["GEVB"], samples)
        order = settings["batch_size"], options.repeats, advance
        times = measuring.interleaved_steps(models, x, y, *order, queued=True, compiled=turns.measure)
        measured = {
            "limits": {"gflops": measuring.matrix_product_peak(8192 if accelerator() else 3000)},
            "milliseconds": {name: measuring.spread(t) for name, t in times.items()},
        }
        results.put("steps", network, settings, measured)
        keras.backend.clear_session()


def train_cells(options, end, bars):
    protocol = Protocol(epochs=options.epochs)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    runs = [(cell, seed) for seed in seeds for cell in find(options.cells)]
    task = bars.add_task("cells", total=len(runs) * options.epochs)
    for number, (cell, seed) in enumerate(runs):
        bars.update(task, completed=number * options.epochs, description=f"{cell.name}, seed {seed}")
        watch = Watch(end, lambda epochs, n=number: bars.update(task, completed=n * options.epochs + epochs))
        folder = options.out / "experiments"
        run_cell(cell, seed, folder, protocol, options.data_dir, progress=watch, runner=Run)
        keras.backend.clear_session()
    bars.update(task, completed=len(runs) * options.epochs)


class Watch:
    """Ends a run where its next epoch would end too late: at its first batch, when the last one is written.

    Args:
        end: When the time is up, by `time.monotonic`.
        show: A function that is told how many epochs are done.
    """

    def __init__(self, end, show):
        self.end, self.show = end, show
        self.epochs = self.started = None
        self.seconds = 0.0

    def __call__(self, result, share):
        """What `run_cell` calls after every batch."""
        now = time.monotonic()
        self.show(result.epochs + share)
        if share and result.epochs != self.epochs:  # the first batch of an epoch
            if self.started is not None:
                self.seconds = now - self.started
            self.epochs, self.started = result.epochs, now
            now += self.seconds
        if share and now > self.end:
            raise TimeIsUp


def write_report(options, machine, steps):
    """Write gpu.md; returns its text."""
    description = ", ".join(f"{what} {which}" for what, which in machine.items())
    sections = [f"Measured on: {description}."]
    if steps:
        peaks = [result["limits"]["gflops"] / 1e3 for result in steps.values()]
        rows = []
        for network, result in steps.items():
            times = result["milliseconds"]
            ratio = times["autodiff"]["median"] / times["GEVB"]["median"]
            spreads = (performance_report.spread(times[name]) for name in LEARNERS)
            rows.append([performance_report.title(network), *spreads, f"{ratio:.2f}"])
        sections += [
            "## Milliseconds per step, batch 128: median of the repeats' means (10th to 90th percentile)",
            reporting.table(["network", *LEARNERS, "autodiff / GEVB"], rows),
            f"Matrix-product peak, float32 as the backend computes it: {np.median(peaks):.1f} TFLOP/s.",
        ]
    folder = options.out / "experiments"
    results = load_results(folder) if folder.exists() else []
    rows = [_row(result, RunFiles(folder, result.cell, result.seed)) for result in results]
    if rows:
        header = ["cell", "seed", "epochs", "test error (%)", "train error (%)", "seconds per epoch"]
        sections += ["## Cells", reporting.table(header, rows)]
    text = "\n\n".join(sections) + "\n"
    reporting.write_text(options.out / "gpu.md", text)
    return text


def _row(result, run_files):
    errors = (f"{result.last[f'{which}_error_percent']:.2f}" for which in ("test", "train"))
    epochs = str(result.epochs) + ("" if result.finished else ", goes on")
    seconds = run_files.read_seconds()
    return [result.cell.name, result.seed, epochs, *errors, f"{np.median(seconds):.2f}" if seconds else "-"]


def make_data(names, folder, data_dir):
    """Write NAME.npz of each data set into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (x, y), (x_test, y_test) = datasets.load(name, data_dir)
        np.savez_compressed(folder / f"{name}.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
        print(folder / f"{name}.npz")


def _options(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=25.0, help="the time in all; default %(default)s")
    parser.add_argument(
        "--networks",
        nargs="*",
        choices=[*contestants.NETWORKS, *contestants.SMALL_NETWORKS],
        default=contestants.NETWORKS,
        metavar="NETWORK",
        help=f"to time, of {', '.join(contestants.NETWORKS)}; default: all",
    )
    measuring.add_repeats(parser, steps=30, repeats=8)
    parser.add_argument(
        "--alone",
        type=pathlib.Path,
        metavar="FILE",
        help="processes with the same FILE compile side by side, and time their steps one after another",
    )
    parser.add_argument(
        "--cells", nargs="*", default=CELLS, metavar="CELL", help=f"to train; default {' '.join(CELLS)}"
    )
    parser.add_argument("--epochs", type=measuring.positive, default=20, help="default %(default)s")
    parser.add_argument(
        "--seeds", type=measuring.positive, default=1, metavar="COUNT", help="default %(default)s"
    )
    parser.add_argument(
        "--first-seed", type=int, default=0, metavar="SEED", help="count from it; default %(default)s"
    )
    parser.add_argument(
        "--make-data",
        nargs="+",
        choices=list(datasets.IMAGES),
        metavar="NAME",
        help="write NAME.npz into --out",
    )
    measuring.add_folders(parser, out="runs/gpu")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    measuring.run(main)
