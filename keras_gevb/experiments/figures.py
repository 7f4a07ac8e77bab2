"""The figures of the report, as matplotlib figures. One colour and marker per rule throughout."""

import matplotlib
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import ScalarFormatter

from keras_gevb.experiments.cells import RULES, WEIGHTS
from keras_gevb.experiments.style import (
    COLOURS,
    LAYER_LINES,
    LAYER_MARKERS,
    LINES,
    MARKERS,
    grid,
    mark_empty,
    name,
)


def learning_curves(summaries):
    """Errors against epochs: a row for each architecture, columns for units and train or test.

    Args:
        summaries: A dict from cells of one data set to their `Summary`.
    """
    columns = [(units, which) for units in RULES for which in ("test", "train")]
    figure, axes = grid(_architectures(summaries), columns)
    smallest = min(min(s.errors(which)) for s in summaries.values() for which in ("test", "train"))
    lowest = 0 if smallest < 0.1 else 10 ** np.floor(np.log10(smallest))
    for (architecture, (units, which)), ax in axes.items():
        ax.set_title(f"{name(architecture)}\n{units}, {which}")
        ax.set_yscale("symlog", linthresh=0.1, linscale=0.4)
        ax.yaxis.set_major_formatter("{x:g}")
        ax.set_ylim(lowest, 100)
        shown = [s for c, s in summaries.items() if (c.architecture, c.units) == (architecture, units)]
        for summary in shown:
            cell = summary.cell
            epochs, mean, sd = _over_seeds(summary.results, f"{which}_error_percent")
            style = {"color": COLOURS[cell.learning_rule], "linestyle": LINES[cell.weights]}
            filled = style["color"] if cell.weights == "nonnegative" else "white"
            ax.plot(
                epochs,
                mean,
                marker=MARKERS[cell.learning_rule],
                markevery=_sparse(epochs),
                markerfacecolor=filled,
                **style,
            )
            ax.fill_between(epochs, mean - sd, mean + sd, color=style["color"], alpha=0.2, linewidth=0)
        mark_empty(ax, shown)
        ax.set_ylabel(f"{which} error (%)")
        _along_epochs(ax)
    rules = dict.fromkeys(cell.learning_rule for cell in summaries)
    handles = [
        Line2D(
            [],
            [],
            color=COLOURS[r],
            marker=MARKERS[r],
            markerfacecolor=COLOURS[r] if w == "nonnegative" else "white",
            linestyle=LINES[w],
            label=f"{name(r)}, {name(w)}",
        )
        for r in rules
        for w in WEIGHTS
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(rules), handlelength=3.2)
    return figure


def alignment_in_training(summaries):
    """Alignment against epochs, hidden layer by layer, with the published values beside it.

    Args:
        summaries: A dict from cells of one data set to their `Summary`.
    """
    broadcast = {c: s for c, s in summaries.items() if c.learning_rule != "backprop"}
    columns = list(dict.fromkeys((c.learning_rule, w) for w in WEIGHTS for c in broadcast))
    columns.sort(key=lambda column: list(COLOURS).index(column[0]))
    figure, axes = grid(_architectures(broadcast), columns)
    layers = 0
    for (architecture, (rule, weights)), ax in axes.items():
        ax.set_title(f"{name(architecture)}\n{name(rule)}, {name(weights)}")
        shown = [
            s
            for c, s in broadcast.items()
            if (c.architecture, c.learning_rule, c.weights) == (architecture, rule, weights)
        ]
        for summary in shown:
            epochs, mean, sd = _over_seeds(summary.results, "alignment_degrees")
            layers = max(layers, mean.shape[1])
            for layer in range(mean.shape[1]):
                style = {"color": COLOURS[rule], "linestyle": LAYER_LINES[layer % 4]}
                ax.plot(
                    epochs,
                    mean[:, layer],
                    marker=LAYER_MARKERS[layer % 4],
                    markevery=_sparse(epochs),
                    **style,
                )
                low, high = mean[:, layer] - sd[:, layer], mean[:, layer] + sd[:, layer]
                ax.fill_between(epochs, low, high, color=COLOURS[rule], alpha=0.15, linewidth=0)
            _mark_published(ax, summary.cell.published_alignment, epochs[-1])
        mark_empty(ax, shown)
        ax.margins(x=0.26)  # room for the published values
        ax.axhline(90, color="#888888", linewidth=0.8)
        ax.set_ylim(0, 105)
        ax.set_yticks([0, 30, 60, 90])
        ax.set_ylabel("angle (degrees)")
        _along_epochs(ax)
    handles = [
        Line2D(
            [],
            [],
            color="#555555",
            linestyle=LAYER_LINES[i % 4],
            marker=LAYER_MARKERS[i % 4],
            label=f"hidden layer {i + 1}",
        )
        for i in range(layers)
    ]
    if any(cell.published_alignment for cell in broadcast):
        handles.append(_published_handle())
    figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=3.2)
    return figure


def alignment_against_width(rows):
    """GEVB's alignment before training against width, hidden layer by layer.

    Args:
        rows: What `measure_width` returns, of one data set.
    """
    figure, axes = grid([""], [""], size=(6.2, 3.8))
    ax = axes["", ""]
    for weights in WEIGHTS:
        angles = {}
        for row in rows:
            if row["weights"] == weights:
                angles.setdefault(row["width"], []).append(row["alignment_degrees"])
        widths = sorted(angles)
        for layer in range(len(rows[0]["alignment_degrees"])):
            values = [np.array(angles[width])[:, layer] for width in widths]
            colour = COLOURS["gevb"]
            ax.errorbar(
                widths,
                [v.mean() for v in values],
                [_sd(v) for v in values],
                color=colour,
                linestyle=LINES[weights],
                marker=LAYER_MARKERS[layer % 4],
                capsize=2,
                markerfacecolor=colour if weights == "nonnegative" else "white",
                label=f"{name(weights)}, hidden layer {layer + 1}",
            )
    ax.axhline(90, color="#888888", linewidth=0.8)
    ax.set_xscale("log", base=2)
    ax.set_xticks(sorted({row["width"] for row in rows}))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.set_ylim(0, 105)
    ax.set_yticks([0, 15, 30, 45, 60, 75, 90])
    ax.set_xlabel("units in each hidden layer")
    ax.set_ylabel("angle to backpropagation's signal (degrees)")
    figure.legend(loc="outside lower center", ncols=2, handlelength=3.2)
    return figure


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
        shown = [
            arrays
            for c, arrays in representations.items()
            if (c.units, c.learning_rule, c.weights) == (units, rule, weights)
        ]
        ax.set_title(f"{name(rule)}, {units},\n{name(weights)}: {when}")
        for arrays in shown:
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
        cells = [c for c in representations if (c.units, c.weights) == (units, weights)]
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
        Line2D(
            [],
            [],
            color=COLOURS[r],
            marker=MARKERS[r],
            markerfacecolor=fill or COLOURS[r],
            linestyle="",
            label=f"{name(r)}, {when} training",
        )
        for r in rules
        for when, fill in (("before", "white"), ("after", None))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(rules))
    return figure


def _architectures(summaries):
    return list(dict.fromkeys(cell.architecture for cell in summaries))


def _along_epochs(ax):
    ax.set_xlabel("epoch")
    ax.xaxis.get_major_locator().set_params(integer=True)


def _over_seeds(results, measure):
    """Epochs that all runs measured, mean and spread; without a training error a run keeps its last value."""
    epochs = sorted({m["epoch"] for result in results for m in result.measurements})
    for result in results:
        at = {m["epoch"] for m in result.measurements}
        ended = result.epochs if result.finished == "no training error" else np.inf
        epochs = [epoch for epoch in epochs if epoch in at or epoch > ended]
    curves = []
    for result in results:
        at = [m["epoch"] for m in result.measurements]
        values = np.array([m[measure] for m in result.measurements], dtype=float)
        curves.append(values[np.searchsorted(at, epochs, side="right") - 1])
    curves = np.array(curves)
    return np.array(epochs), curves.mean(axis=0), _sd(curves)


def _sd(values):
    return values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros_like(values[0])


def _sparse(epochs):
    return max(1, len(epochs) // 6)


def _mark_published(ax, published, last_epoch):
    if published:
        for epoch, when, outward in ((0, "init", -1), (last_epoch, "last", 1)):
            for layer, angle in enumerate(published[when]):
                # Side by side, since published angles of two layers may be alike.
                beside = (outward * (9 + 7 * layer), 0)
                at = {"xytext": beside, "textcoords": "offset points", "ha": "center", "va": "center"}
                box = {"facecolor": "white", "linewidth": 0, "pad": 0.6}
                ax.annotate(str(layer + 1), (epoch, angle), fontsize="small", weight="bold", bbox=box, **at)


def _published_handle():
    label = "numbers: published, by hidden layer, before training and at the end"
    return Line2D([], [], color="#111111", marker="$1$", markersize=6, linestyle="", label=label)
