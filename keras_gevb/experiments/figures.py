"""The report's figures of errors and of alignment. One colour and marker per rule throughout."""

import numpy as np
from matplotlib.ticker import ScalarFormatter

from keras_gevb.experiments.cells import RULES, WEIGHTS
from keras_gevb.experiments.style import (
    COLOURS,
    LAYER_LINES,
    LAYER_MARKERS,
    LINES,
    curve,
    grid,
    mark_empty,
    name,
    of,
    sample,
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
        shown = of(summaries, architecture=architecture, units=units)
        for cell, summary in shown.items():
            epochs, mean, sd = _over_seeds(summary.results, f"{which}_error_percent")
            style = curve(cell.learning_rule, cell.weights)
            ax.plot(epochs, mean, markevery=_sparse(epochs), **style)
            ax.fill_between(epochs, mean - sd, mean + sd, color=style["color"], alpha=0.2, linewidth=0)
        mark_empty(ax, shown)
        ax.set_ylabel(f"{which} error (%)")
        _along_epochs(ax)
    rules = dict.fromkeys(cell.learning_rule for cell in summaries)
    handles = [sample(f"{name(rule)}, {name(w)}", **curve(rule, w)) for rule in rules for w in WEIGHTS]
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
        shown = of(broadcast, architecture=architecture, learning_rule=rule, weights=weights)
        for summary in shown.values():
            epochs, mean, sd = _over_seeds(summary.results, "alignment_degrees")
            layers = max(layers, mean.shape[1])
            ax.margins(x=0.26)  # room for the published values
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
        ax.axhline(90, color="#888888", linewidth=0.8)
        ax.set_ylim(0, 105)
        ax.set_yticks([0, 30, 60, 90])
        ax.set_ylabel("angle (degrees)")
        _along_epochs(ax)
    handles = [
        sample(
            f"hidden layer {i + 1}",
            color="#555555",
            linestyle=LAYER_LINES[i % 4],
            marker=LAYER_MARKERS[i % 4],
        )
        for i in range(layers)
    ]
    if any(cell.published_alignment for cell in broadcast):
        label = "numbers: published, by hidden layer, before training and at the end"
        handles.append(sample(label, color="#111111", marker="$1$", markersize=6, linestyle=""))
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
