"""How figures look: one colour and one marker for each rule, the words of the cells, the grid."""

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# Far apart in lightness too, so that they differ in greyscale.
COLOURS = {
    "gevb": "#d1421f",
    "backprop": "#1c1c1c",
    "dfa": "#5aa9dc",
    "fa": "#8fae3b",
    "usf": "#6a3d9a",
    "frsf": "#9e77c9",
    "brsf": "#cab2d6",
    "kp": "#33803f",
    "dkp": "#1f5f9e",
    "fdfa": "#2aa5a0",
    "sdfa": "#a6cee3",
    "drtp": "#b8860b",
    "local_error": "#e08fb0",
    "node_perturbation": "#8c564b",
    "ebd": "#7f7f7f",
}
MARKERS = dict(zip(COLOURS, "os^DvPX<>*hdpH8"))
LINES = {"nonnegative": "-", "mixed": (0, (4, 2))}
LAYER_LINES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
LAYER_MARKERS = ("o", "s", "^", "D")
NAMES = {
    "gevb": "GEVB",
    "backprop": "backpropagation",
    "dfa": "DFA",
    "fa": "FA",
    "usf": "uSF",
    "frsf": "frSF",
    "brsf": "brSF",
    "kp": "KP",
    "dkp": "DKP",
    "fdfa": "FDFA",
    "sdfa": "sDFA",
    "drtp": "DRTP",
    "local_error": "local errors",
    "node_perturbation": "node perturbation",
    "ebd": "EBD",
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "fashion_mnist": "Fashion-MNIST",
    "digits": "Digits",
    "fc": "fully connected",
    "conv": "convolutional",
    "lc": "locally connected",
    "mixed": "mixed-sign",
}
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.frameon": False,
    "svg.hashsalt": "keras_gevb",
}


def name(word):
    """How a word of a cell's name is written for readers."""
    return NAMES.get(word, word)


def grid(rows, columns, size=(2.9, 2.5)):
    """A figure, and its axes by (row, column)."""
    matplotlib.rcParams.update(STYLE)
    width, height = size[0] * len(columns), size[1] * len(rows) + 0.6
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    return figure, {(r, c): axes[i, j] for i, r in enumerate(rows) for j, c in enumerate(columns)}


def of(content, **words):
    """What belongs to the cells with these words, from a dict with cells for keys."""
    return {
        cell: value
        for cell, value in content.items()
        if all(getattr(cell, part) == word for part, word in words.items())
    }


def curve(rule, weights):
    """How a curve of a rule is drawn: filled markers on a solid line where weights are nonnegative."""
    filled = COLOURS[rule] if weights == "nonnegative" else "white"
    style = {"color": COLOURS[rule], "linestyle": LINES[weights]}
    return {**style, "marker": MARKERS[rule], "markerfacecolor": filled}


def sample(label, **style):
    """An entry of a legend."""
    return Line2D([], [], label=label, **style)


def mark_empty(ax, shown):
    """Say so in a panel where nothing is shown."""
    if not shown:
        ax.text(0.5, 0.5, "not run", transform=ax.transAxes, ha="center", va="center", color="#777777")
