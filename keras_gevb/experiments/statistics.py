"""Means over seeds, and paired tests between cells on the same seeds."""

import dataclasses
import itertools

import numpy as np
from scipy import stats

from keras_gevb.experiments.cells import CELLS


@dataclasses.dataclass(frozen=True)
class Summary:
    """The runs of one cell.

    Attributes:
        cell: The `Cell`.
        results: Its `Result`s, at least one.
    """

    cell: object
    results: list

    def errors(self, which):
        """The last "train" or "test" errors in percent, over the seeds."""
        return [result.last[f"{which}_error_percent"] for result in self.results]

    def mean(self, which):
        return float(np.mean(self.errors(which)))

    def sd(self, which):
        """Standard deviation over seeds (n - 1); NaN for one seed."""
        errors = self.errors(which)
        return float(np.std(errors, ddof=1)) if len(errors) > 1 else float("nan")

    @property
    def epochs(self):
        """The fewest and the most epochs after which these errors were measured."""
        epochs = [result.last["epoch"] for result in self.results]
        return min(epochs), max(epochs)

    @property
    def limits(self):
        """The most epochs that the runs were given, each number once."""
        return sorted({result.protocol.epochs for result in self.results})

    @property
    def unfinished(self):
        """How many runs are still under way."""
        return sum(result.finished is None for result in self.results)


def summarize(results):
    """A dict from each cell that has results to its `Summary`, in the order of the results."""
    summaries = {}
    for result in results:
        if result.measurements:
            summaries.setdefault(result.cell, Summary(result.cell, [])).results.append(result)
    return summaries


def initial_alignment(results, rows):
    """Alignment before training, of runs and of what `measure_alignment` returned.

    Returns:
        A dict from cells to a list of lists, over seeds and hidden layers, in degrees.
    """
    found = {cell: {} for cell in CELLS.values()}
    for row in rows:
        found[CELLS[row["cell"]]][row["seed"]] = row["alignment_degrees"]
    for result in results:
        angles = result.measurements[0]["alignment_degrees"] if result.measurements else None
        if angles and None not in angles:
            found[result.cell][result.seed] = angles
    return {cell: list(angles.values()) for cell, angles in found.items() if angles}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A paired t test of two cells' test errors on the seeds that both have, by one protocol.

    Attributes:
        first, second: The cells.
        seeds: The shared seeds.
        difference: Mean of first minus second, in percentage points.
        p: Two-sided p value; None where it does not exist: fewer than two shared seeds, or the
            same difference on every seed.
    """

    first: object
    second: object
    seeds: tuple
    difference: float
    p: float | None


def compare(first, second):
    """The `Comparison` of two summaries on the runs of one seed and one protocol; None if there are none."""
    by_run = [
        {(r.seed, r.protocol): r.last["test_error_percent"] for r in summary.results}
        for summary in (first, second)
    ]
    shared = [run for run in by_run[0] if run in by_run[1]]
    if not shared:
        return None
    a, b = (np.array([errors[run] for run in shared]) for errors in by_run)
    seeds = tuple(seed for seed, _ in shared)
    p = None
    if len(seeds) > 1 and np.ptp(a - b) > 1e-9:
        p = float(stats.ttest_rel(a, b).pvalue)
    return Comparison(first.cell, second.cell, seeds, float(np.mean(a - b)), p)


def comparisons(summaries):
    """Every pair of rules and units that share data set, architecture and sign of weights."""
    by_panel = {}
    for cell, summary in summaries.items():
        by_panel.setdefault((cell.dataset, cell.architecture, cell.weights), []).append(summary)
    pairs = [compare(*pair) for panel in by_panel.values() for pair in itertools.combinations(panel, 2)]
    return [comparison for comparison in pairs if comparison]
