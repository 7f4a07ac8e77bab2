"""What `growth.py` measured, as a Markdown table and a picture."""

import reporting
from matplotlib.ticker import NullLocator, ScalarFormatter

from keras_gevb.experiments.style import grid, mark_empty

_AXES = {
    "depth": "hidden layers",
    "width": "units in each hidden layer",
    "K": "outputs, K",
    "batch": "samples in a batch",
}
_QUANTITIES = {"times": "time of a step (ms)", "memory": "peak memory of steps (MB)"}


def write(folder, found, learners):
    """Write growth.md and the picture; returns the text.

    Args:
        folder: Where to.
        found: A dict from axis to pairs (value, point). A point is a dict: "times" and "memory" are dicts
            from learner to a number, or to the reason why it was left out; "gflops" is the machine's
            matrix-product peak in the same minute.
        learners: In the order of the columns.
    """
    header = ["point", "GFLOP/s", *(f"{learner} ({unit})" for unit in ("ms", "MB") for learner in learners)]
    rows = [
        [
            f"{axis} {value}",
            f"{point['gflops']:.0f}" if "gflops" in point else "-",
            *(_cell(point[quantity].get(learner)) for quantity in _QUANTITIES for learner in learners),
        ]
        for axis, points in found.items()
        for value, point in points
    ]
    text = reporting.table(header, rows) + "\n"
    ratios = _ratios(dict(found["depth"]), learners)
    if ratios:
        text += f"\nPeak memory of steps, 64 layers against 8: {', '.join(ratios)}.\n"
    reporting.write_text(folder / "growth.md", text)
    reporting.save(_picture(found, learners), folder / "growth")
    return text


def _ratios(depths, learners):
    sentences = []
    for learner in learners:
        shallow, deep = (depths[d]["memory"].get(learner) if d in depths else None for d in (8, 64))
        if _is_number(shallow) and _is_number(deep):
            sentences.append(f"{learner} {deep / shallow:.2f} times ({shallow:.0f} to {deep:.0f} MB)")
    return sentences


def _picture(found, learners):
    """Step time above, peak memory below, a column for each axis."""
    figure, axes = grid(list(_QUANTITIES), list(_AXES))
    for (quantity, axis), ax in axes.items():
        points = found[axis]
        curves = {}
        for learner in learners:
            shown = [(value, point[quantity].get(learner)) for value, point in points]
            shown = [(value, number) for value, number in shown if _is_number(number)]
            if shown:
                curves[learner] = tuple(zip(*shown))
        reporting.curves(ax, curves)
        mark_empty(ax, curves)
        if curves:
            ax.set_xscale("log")
            reporting.log_axis(ax)
            ax.set_xticks([value for value, _ in points])
            ax.xaxis.set_major_formatter(ScalarFormatter())
            ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel(_AXES[axis])
        ax.set_ylabel(_QUANTITIES[quantity])
    reporting.legend(figure, learners)
    return figure


def _cell(measured):
    return f"{measured:.1f}" if _is_number(measured) else measured or "not measured"


def _is_number(measured):
    return isinstance(measured, float)
