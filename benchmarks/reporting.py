"""How results look: one colour, hatch and marker for each learner, Markdown tables, PNG and SVG."""

import io

from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from keras_gevb.experiments import files
from keras_gevb.experiments.style import COLOURS, grid, mark_empty

# Far apart in lightness, hatched and marked, so that they differ in greyscale.
_LOOKS = {
    "GEVB": (COLOURS["gevb"], "", "o", "-"),
    "GEVB, low memory": ("#f3ab8d", "///", "v", (0, (5, 1.5))),
    "Backprop rule": (COLOURS["backprop"], "", "s", "-"),
    "autodiff": ("#6f6f6f", "...", "D", (0, (1, 1.2))),
    "autodiff, XLA": ("#adadad", "\\\\\\", "P", (0, (5, 1.5, 1, 1.5))),
    "conventional": (COLOURS["dfa"], "xxx", "^", (0, (3, 1, 1, 1))),
}


def bars(values, label, log=False, errors=None, marks=None):
    """Bars by group and learner.

    Args:
        values: A dict from names of groups to dicts from learners to numbers.
        label: Of the vertical axis.
        log: Whether that axis is logarithmic.
        errors: As `values`, with pairs (low, high): ends of the error bars.
        marks: A pair (label, dict from names of groups to numbers): a line across the group.
    """
    figure, axes = grid([""], [""], size=(max(5.5, 1.6 * len(values) + 1.5), 3.4))
    ax = axes["", ""]
    learners = [name for name in _LOOKS if any(name in group for group in values.values())]
    width = 0.85 / max(1, len(learners))
    for number, learner in enumerate(learners):
        colour, hatch, _, _ = _LOOKS[learner]
        shown = [(at, name) for at, name in enumerate(values) if learner in values[name]]
        x = [at + (number - (len(learners) - 1) / 2) * width for at, _ in shown]
        heights = [values[name][learner] for _, name in shown]
        ax.bar(
            x, heights, width, color=colour, hatch=hatch, edgecolor="#333333", linewidth=0.4, label=learner
        )
        if errors:
            ends = [errors[name][learner] for _, name in shown]
            lengths = [[abs(h - e) for h, e in zip(heights, side)] for side in zip(*ends)]
            ax.errorbar(x, heights, lengths, fmt="none", ecolor="#666666", elinewidth=0.8, capsize=1.5)
    if marks:
        label_of_marks, at = marks
        for number, name in enumerate(values):
            if name in at:
                label_once = label_of_marks if name == next(iter(at)) else None
                ax.hlines(at[name], number - 0.45, number + 0.45, color="#2b6e3f", label=label_once)
    mark_empty(ax, values)
    if log and values:
        log_axis(ax)
    ax.set_ylabel(label)
    ax.set_xticks(range(len(values)), list(values))
    ax.grid(axis="x", visible=False)
    ax.set_axisbelow(True)
    if values:
        figure.legend(loc="outside lower center", ncols=max(2, min(4, len(values))), handlelength=2.5)
    return figure


def log_axis(ax):
    """A logarithmic vertical axis, its numbers written out."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_locator(NullLocator())


def curves(ax, curves_of_learners):
    """Lines in a panel, from a dict from learners to pairs (x, y)."""
    for learner, (x, y) in reversed(curves_of_learners.items()):  # the first lies above the others
        colour, _, marker, line = _LOOKS[learner]
        ax.plot(x, y, color=colour, marker=marker, linestyle=line)


def legend(figure, learners):
    """The legend of a figure of `curves`."""
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle=line, label=learner)
        for learner, (colour, _, marker, line) in _LOOKS.items()
        if learner in learners
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=3.2)


def save(figure, path):
    """Write a figure as PNG and as SVG."""
    for kind, options in (("png", {"dpi": 150}), ("svg", {"metadata": {"Date": None}})):
        image = io.BytesIO()
        figure.savefig(image, format=kind, **options)
        files.write_atomically(path.with_suffix(f".{kind}"), lambda file, i=image: file.write(i.getvalue()))


def table(header, rows):
    """A Markdown table, its first column to the left, the others to the right."""
    rule = [":--", *["--:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (header, rule, *rows))


def write_text(path, text):
    files.write_atomically(path, lambda file: file.write(text.encode()))
