"""The tables of the report, in Markdown."""

import math
import statistics

from keras_gevb.experiments.cells import CELLS, RULES
from keras_gevb.experiments.style import name


def errors(dataset, summaries):
    """Errors of a data set's cells, beside the published ones if there are; what was not run is marked."""
    # Of the paper's rules all cells, of others those that were run.
    cells = [
        cell
        for cell in CELLS.values()
        if cell.dataset == dataset and (cell in summaries or cell.learning_rule in RULES[cell.units])
    ]
    compared = ["published", "difference"] if any(cell.published for cell in cells) else []
    header = ["network", "units", "weights", "rule"]
    header += ["test error (%)", *compared, "train error (%)", *compared, "seeds", "epochs"]
    rows = []
    for cell in cells:
        summary = summaries.get(cell)
        row = [name(cell.architecture), cell.units, name(cell.weights), name(cell.learning_rule)]
        for which in ("test", "train"):
            row.append(_mean_and_sd(summary, which))
            if compared and not cell.published:
                row += ["-", ""]
            elif compared:
                reference = cell.published[f"{which}_error_percent"]
                row.append(f"{reference:.2f}")
                row.append(f"{summary.mean(which) - reference:+.2f}" if summary else "")
        rows.append(row + _behind(summary))
    return _table(header, rows, left=4)


def paired_tests(pairs):
    """Paired tests, one `Comparison` in a row."""
    header = ["data", "network", "weights", "first", "second", "first - second (points)", "seeds", "p"]
    rows = [
        [
            name(pair.first.dataset),
            name(pair.first.architecture),
            name(pair.first.weights),
            *(f"{name(cell.learning_rule)} ({cell.units})" for cell in (pair.first, pair.second)),
            f"{pair.difference:+.2f}",
            str(len(pair.seeds)),
            _p(pair.p),
        ]
        for pair in pairs
    ]
    return _table(header, rows, left=5)


def order(summaries):
    """For each network and sign of weights, the rules from the lowest mean test error up, as a list.

    Cells that were given different numbers of epochs do not compare, and stand in lists of their own.
    """
    panels = {}
    for cell, summary in summaries.items():
        panel = f"{name(cell.dataset)}, {name(cell.architecture)}, {name(cell.weights)}, "
        panel += f"epochs: {' or '.join(map(str, summary.limits))} at most"
        panels.setdefault(panel, []).append(summary)
    lines = []
    for panel, members in panels.items():
        ranked = sorted(members, key=lambda summary: summary.mean("test"))
        words = (f"{name(s.cell.learning_rule)} ({s.cell.units}) {s.mean('test'):.2f}" for s in ranked)
        lines.append(f"- {panel}: {' < '.join(words)}")
    return "\n".join(lines)


def initial_alignment(angles):
    """Alignment before training beside the published one, a hidden layer in a row.

    Args:
        angles: A dict from cells to a list of lists, over seeds and hidden layers, in degrees.
    """
    header = ["data", "network", "rule", "weights", "hidden layer", "degrees", "median"]
    header += ["published", "difference", "seeds"]
    rows = []
    for cell, runs in angles.items():
        words = [name(w) for w in (cell.dataset, cell.architecture, cell.learning_rule, cell.weights)]
        published = (cell.published_alignment or {}).get("init")
        for layer, values in enumerate(zip(*runs, strict=True)):
            compared = ["", ""]
            if published:
                difference = statistics.mean(values) - published[layer]
                compared = [f"{published[layer]:.1f}", f"{difference:+.1f}"]
            measured = [_degrees(values), f"{statistics.median(values):.1f}"]
            rows.append([*words, str(layer + 1), *measured, *compared, str(len(values))])
    return _table(header, rows, left=4)


def widths(rows):
    """Alignment before training by width and hidden layer, from the rows of `measure_width`."""
    groups = {}
    for row in rows:
        groups.setdefault((row["weights"], row["width"]), []).append(row["alignment_degrees"])
    layers = len(rows[0]["alignment_degrees"])
    header = ["weights", "width", *(f"hidden layer {i + 1} (degrees)" for i in range(layers)), "seeds"]
    body = []
    for (weights, width), angles in sorted(groups.items(), key=lambda g: (g[0][0] == "mixed", g[0][1])):
        degrees = [_degrees(layer) for layer in zip(*angles, strict=True)]
        body.append([name(weights), str(width), *degrees, str(len(angles))])
    return _table(header, body, left=1)


def times(seconds):
    """Median seconds per epoch, from a dict from cells to the seconds of every epoch."""
    rows = [[cell.name, f"{statistics.median(values):.2f}"] for cell, values in seconds.items() if values]
    return _table(["cell", "seconds per epoch (median)"], rows, left=1)


def _degrees(values):
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def _mean_and_sd(summary, which):
    if summary is None:
        return "not run"
    mean, sd = summary.mean(which), summary.sd(which)
    return f"{mean:.2f}" if math.isnan(sd) else f"{mean:.2f} ± {sd:.2f}"


def _behind(summary):
    if summary is None:
        return ["0", ""]
    fewest, most = summary.epochs
    epochs = str(most) if fewest == most else f"{fewest} to {most}"
    return [str(len(summary.results)), epochs + (", unfinished" if summary.unfinished else "")]


def _p(p):
    if p is None:
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _table(header, rows, left):
    """A table whose columns past the first `left` ones hold numbers, set to the right."""
    rule = [":--"] * left + ["--:"] * (len(header) - left)
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))
