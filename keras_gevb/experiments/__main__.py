"""The command line: `python -m keras_gevb.experiments list | run | alignment | width | report`."""

import argparse
import contextlib
import sys

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from keras_gevb.cli import kinds
from keras_gevb.datasets import IMAGES
from keras_gevb.experiments import files, initial, report
from keras_gevb.experiments.cells import find
from keras_gevb.experiments.continuing import check_run
from keras_gevb.experiments.results import Protocol
from keras_gevb.experiments.run import run_cell

CELLS_HELP = "names, or patterns with * and ? (in quotes), such as 'mnist-fc-*'"


def main(arguments=None):
    """Run a command; returns the exit status."""
    options = build_parser().parse_args(arguments)
    try:
        return options.command(options) or 0
    except files.ExperimentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. The same command goes on with what is missing.", file=sys.stderr)
        return 130


def build_parser(prog="python -m keras_gevb.experiments", kind=argparse.ArgumentParser):
    """The parser of the commands.

    Args:
        prog: What the user types before them.
        kind: The class of the parser.
    """
    parser = kind(
        prog=prog,
        description="The paper's comparison of learning rules: 48 cells on MNIST and CIFAR-10, and the "
        "same cells on Fashion-MNIST and the 8 x 8 digits; other rules on MNIST and the digits.",
    )
    commands = parser.add_subparsers(required=True, metavar="list | run | alignment | width | report")

    listing = commands.add_parser("list", help="name the cells, one per line")
    listing.add_argument("cells", nargs="*", default=["*"], metavar="CELL", help=CELLS_HELP)
    _add_paper(listing)
    listing.set_defaults(command=_list)

    run = commands.add_parser(
        "run",
        help="train cells; killed at any moment, the same command goes on at the last finished epoch",
    )
    run.add_argument("cells", nargs="+", metavar="CELL", help=CELLS_HELP)
    _add_paper(run)
    _add_seeds(run, count=5)
    run.add_argument(
        "--epochs",
        type=kinds.positive,
        default=Protocol.epochs,
        help="train so many at the most; default %(default)s, as in the paper",
    )
    run.add_argument(
        "--evaluate-every",
        type=kinds.positive,
        default=Protocol.evaluate_every,
        metavar="EPOCHS",
        help="measure errors and alignment so often; default %(default)s, as in the paper",
    )
    run.add_argument(
        "--keep-state",
        action="store_true",
        help="keep weights and optimizer of finished runs, to add epochs later",
    )
    _add_folders(run)
    run.set_defaults(command=_run)

    alignment = commands.add_parser(
        "alignment", help="measure alignment before training; backprop cells are left out"
    )
    alignment.add_argument("cells", nargs="+", metavar="CELL", help=CELLS_HELP)
    _add_paper(alignment)
    _add_seeds(alignment, count=5)
    _add_folders(alignment)
    alignment.set_defaults(command=_alignment)

    width = commands.add_parser("width", help="measure alignment before training against width")
    width.add_argument(
        "--widths",
        nargs="+",
        type=_even,
        default=list(initial.WIDTHS),
        metavar="UNITS",
        help="hidden units in each of three layers, even numbers; default 64 to 4096",
    )
    _add_seeds(width, count=3)
    width.add_argument("--dataset", choices=list(IMAGES), default="mnist", help="default %(default)s")
    _add_folders(width)
    width.set_defaults(command=_width)

    writing = commands.add_parser("report", help="write report.html, report.md and figures into --out")
    _add_out(writing)
    writing.set_defaults(command=_report)
    return parser


def _add_paper(parser):
    parser.add_argument("--paper", action="store_true", help="only rules that the paper compares")


def _add_seeds(parser, count):
    parser.add_argument(
        "--seeds",
        type=kinds.positive,
        default=count,
        metavar="COUNT",
        help="runs of each cell, with the seeds 0, 1, 2, ...; default %(default)s",
    )
    parser.add_argument(
        "--first-seed", type=kinds.seed, default=0, metavar="SEED", help="count from it instead of 0"
    )


def _seeds(options):
    return range(options.first_seed, options.first_seed + options.seeds)


def _add_folders(parser):
    _add_out(parser)
    parser.add_argument(
        "--data-dir", metavar="DIR", help="folder with the data sets prepared by TensorFlow Datasets"
    )


def _add_out(parser):
    parser.add_argument(
        "--out", default="runs/experiments", metavar="DIR", help="folder of the results; default %(default)s"
    )


def _even(text):
    number = kinds.positive(text)
    if number % 2:
        raise argparse.ArgumentTypeError(f"must be even, since units start in ON/OFF pairs, but is {number}")
    return number


def _list(options):
    for cell in find(options.cells, options.paper):
        print(cell.name)


def _run(options):
    runs = [(cell, seed) for cell in find(options.cells, options.paper) for seed in _seeds(options)]
    protocol = Protocol(epochs=options.epochs, evaluate_every=options.evaluate_every)
    folder = files.open_folder(options.out, create=True)
    for cell, seed in runs:
        check_run(cell, seed, folder, protocol)
    with _bars() as bars:
        whole = bars.add_task("all runs", total=len(runs), errors="")
        for number, (cell, seed) in enumerate(runs):
            with _RunBar(bars, whole, number, protocol, f"{cell.name} seed {seed}") as bar:
                bar.end(
                    run_cell(cell, seed, folder, protocol, options.data_dir, options.keep_state, bar.update)
                )
            keras.backend.clear_session()


def _bars():
    # While it loads it replaces Python's `import`, which the thread that draws the bars must not meet.
    import tensorflow_datasets  # noqa: F401

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.1f}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[errors]}"),
        console=Console(stderr=True),
    )


class _RunBar:
    """The bar of one run, within the bar of the whole."""

    def __init__(self, bars, whole, number, protocol, title):
        self.bars, self.whole, self.number, self.protocol, self.title = bars, whole, number, protocol, title

    def __enter__(self):
        self.task = self.bars.add_task(self.title, total=self.protocol.epochs, errors="")
        return self

    def __exit__(self, *exception):
        self.bars.remove_task(self.task)

    def update(self, result, share):
        epochs = result.epochs + share
        self.bars.update(self.task, completed=epochs, errors=_errors(result))
        self.bars.update(self.whole, completed=self.number + epochs / self.protocol.epochs)
        if share == 0 and not self.bars.console.is_terminal:
            self._print(f"epoch {result.epochs}, {_errors(result)}")

    def end(self, result):
        self.bars.update(self.whole, completed=self.number + 1)
        if result is None:
            self._print("another process is at it")
        else:
            self._print(f"{result.epochs} epochs, {_errors(result)} ({result.finished})")

    def _print(self, text):
        self.bars.console.print(f"{self.title}: {text}", highlight=False, soft_wrap=True)


def _errors(result):
    if not result.measurements:
        return "not measured yet"
    last = result.last
    return f"error: train {last['train_error_percent']:.2f} %, test {last['test_error_percent']:.2f} %"


def _alignment(options):
    with _measuring("alignment before training") as progress:
        initial.measure_alignment(
            options.out, find(options.cells, options.paper), _seeds(options), options.data_dir, progress
        )
    _print_where(options)


def _width(options):
    with _measuring("alignment against width") as progress:
        initial.measure_width(
            options.out, options.widths, _seeds(options), options.dataset, options.data_dir, progress
        )
    _print_where(options)


def _print_where(options):
    print(f"Measured. `python -m keras_gevb.experiments report --out {options.out}` shows it.")


@contextlib.contextmanager
def _measuring(title):
    """A scope with one bar; yields the function that moves it."""
    with _bars() as bars:
        task = bars.add_task(title, total=None, errors="")
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _report(options):
    print(report.write_report(options.out))


if __name__ == "__main__":
    sys.exit(main())
