"""The report's figures of what hidden layers make of the classes."""

import matplotlib
import numpy as np

from keras_gevb.experiments.cells import RULES, WEIGHTS
from keras_gevb.experiments.style import COLOURS, MARKERS, grid, mark_empty, name, of, sample


def representation_maps(representations):
    """t-SNE maps of the last hidden layer before and after training, a panel pair for each cell.

    Args:
        representations: A dict from cells of one data set to the arrays of one seed.
    """
    rows = list(dict.fromkeys((c.units, c.learning_rule) for c in representations))
    columns = [(weights, when) for weights in WEIGHTS for when in ("before", "after")]
    figure, axes = grid(rows, columns, size=(2.5, 2.5))
    colours = matplotlib.colormaps["tab10"]
    for ((units, rule), (weights, when)), ax in axes.items():
        shown = of(representations, units=units, learning_rule=rule, weights=weights)
        ax.set_title(f"{name(rule)}, {units},\n{name(weights)}: {when}")
        for arrays in shown.values():
            points, labels = arrays[f"map_{when}"], arrays["labels"]
            for label in np.unique(labels):
                ax.scatter(
                    *points[labels == label].T,
                    s=14,
                    marker=f"${label}$",
                    linewidths=0.2,
                    color=colours(int(label) % 10),
                    rasterized=True,
                )
            quality = arrays[f"quality_{when}"][-1]
            ax.set_xlabel(f"cluster quality {quality:.2f}")
        mark_empty(ax, shown)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
    return figure


def cluster_quality(representations):
    """Cluster quality of each hidden layer before (open) and after training (filled).

    Args:
        representations: A dict from cells of one data set to a list with the arrays of each seed.
    """
    figure, axes = grid([""], [(units, weights) for units in RULES for weights in WEIGHTS], size=(2.7, 2.9))
    rules = dict.fromkeys(cell.learning_rule for cell in representations)
    smallest = min(arrays["quality_after"].min() for runs in representations.values() for arrays in runs)
    lowest = np.floor(10 * smallest - 0.5) / 10
    for (_, (units, weights)), ax in axes.items():
        cells = of(representations, units=units, weights=weights)
        layers = 1
        for offset, cell in zip(np.linspace(-0.12, 0.12, max(len(cells), 2)), cells, strict=False):
            colour, marker = COLOURS[cell.learning_rule], MARKERS[cell.learning_rule]
            before, after = (
                np.mean([arrays[f"quality_{when}"] for arrays in representations[cell]], axis=0)
                for when in ("before", "after")
            )
            layers = len(after)
            at = 1 + np.arange(layers) + offset
            ax.vlines(at, before, after, color=colour, linewidth=1)
            ax.plot(at, before, marker, color=colour, markerfacecolor="white")
            ax.plot(at, after, marker, color=colour)
        ax.set_title(f"{units}, {name(weights)}")
        ax.set_xlim(0.5, layers + 0.5)
        ax.set_xticks(range(1, layers + 1))
        ax.set_ylim(lowest, 1)
        ax.set_xlabel("hidden layer")
        ax.set_ylabel("within-class / overall distance")
        mark_empty(ax, cells)
    handles = [
        sample(
            f"{name(rule)}, {when} training",
            color=COLOURS[rule],
            marker=MARKERS[rule],
            markerfacecolor=fill or COLOURS[rule],
            linestyle="",
        )
        for rule in rules
        for when, fill in (("before", "white"), ("after", None))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(rules))
    return figure
