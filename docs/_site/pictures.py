"""The site's pictures, drawn while it is built: in the page's own colours, light or dark."""

import io
import json
import re

import matplotlib

matplotlib.use("svg")
import api_reference
import numpy as np
from matplotlib import pyplot

RED, BLUE, GREEN = "#d1495b", "#3f8fbf", "#2a9d7c"
WORDS = {
    "signals": "Two histograms of backpropagation's signal: at or above zero where weights are nonnegative, "
    "on both sides of zero where they have mixed signs.",
    "width": "Alignment angles of three hidden layers against width: below 60 degrees with nonnegative "
    "weights, about 90 degrees with mixed signs.",
}


def draw(name):
    """A picture as HTML."""
    if name == "broadcast":
        return _broadcast()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 11}):
        figure = globals()[f"_{name}"]()
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    svg = "<svg" + drawn.getvalue().partition("<svg")[2]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace("#000000", "currentColor").replace('<text style="', '<text fill="currentColor" style="')
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{WORDS[name]}" ', 1)
    return f'<div class="drawn">{svg}</div>'


def signal(nonnegative, layers=4, units=200, samples=100, seed=0):
    """Backpropagation's g in the first of some gated layers: g_j = sum_i W_ij m_i g_i, 1 at the readout."""
    generator = np.random.default_rng(seed)
    g = np.ones((samples, units))
    for _ in range(layers):
        weights = generator.normal(size=(units, units)) * np.sqrt(2 / units)
        weights = np.maximum(weights, 0) if nonnegative else weights
        gates = generator.random((samples, units)) < 0.5
        g = (gates * g) @ weights
    return g / np.sqrt(np.mean(g**2))


def _signals():
    figure, panels = pyplot.subplots(1, 2, figsize=(7, 2.6), sharey=True, layout="constrained")
    for panel, nonnegative, colour in zip(panels, (True, False), (RED, BLUE), strict=True):
        panel.hist(signal(nonnegative).ravel(), bins=np.linspace(-3, 3, 61), color=colour, density=True)
        panel.axvline(0, color="black", linewidth=1)
        panel.set(
            title="weights ≥ 0" if nonnegative else "mixed signs",
            xlabel="g, what backpropagation tells a unit",
        )
        panel.set_yticks([])
        panel.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _width():
    rows = json.loads((api_reference.ROOT / "docs/results/experiments/width.json").read_text())["rows"]
    figure, panels = pyplot.subplots(1, 2, figsize=(7, 3), sharey=True, layout="constrained")
    for panel, weights in zip(panels, ("nonnegative", "mixed"), strict=True):
        widths = sorted({row["width"] for row in rows})
        for layer, colour in enumerate((RED, BLUE, GREEN)):
            angles = [
                [r["alignment_degrees"][layer] for r in rows if (r["width"], r["weights"]) == (w, weights)]
                for w in widths
            ]
            panel.errorbar(
                widths,
                [np.mean(a) for a in angles],
                [np.std(a, ddof=1) for a in angles],
                color=colour,
                marker="o",
                markersize=4,
                label=f"hidden layer {layer + 1}",
            )
        panel.axhline(90, color="black", linewidth=0.8, linestyle=":")
        panel.set(
            xscale="log",
            xlabel="units in a layer",
            title="weights ≥ 0" if weights != "mixed" else "mixed signs",
        )
        panel.set_ylim(0, 110)
        panel.set_xticks(widths[::2], widths[::2])
        panel.minorticks_off()
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("angle to the gradient (degrees)")
    panels[0].legend(frameon=False, fontsize=9)
    return figure


def _broadcast():
    """Four layers twice: the error vector reaches all at once, or walks back through the weights."""
    return (
        '<div class="pair">'
        + "".join(
            f"<figure>{_network(kind)}<figcaption>{caption}</figcaption></figure>"
            for kind, caption in (
                ("gevb", "GEVB: one error vector, the same for all, at once"),
                ("backprop", "Backpropagation: layer after layer, through the weights"),
            )
        )
        + "</div>"
    )


def _network(kind):
    columns, rows = range(4), range(3)
    x, y = [40 + 90 * c for c in columns], [40 + 45 * r for r in rows]
    edges = [
        f'<line class="edge" x1="{x[c]}" y1="{y[a]}" x2="{x[c + 1]}" y2="{y[b]}"/>'
        for c in columns[:-1]
        for a in rows
        for b in rows
    ]
    units = [
        f'<circle class="unit {kind}-{c}" cx="{x[c]}" cy="{y[r]}" r="11"/>' for c in columns for r in rows
    ]
    way = "M 370 85 V 168 H 40" if kind == "gevb" else "M 370 85 H 40"
    taps = [f"M {at} 168 V 146" for at in x] if kind == "gevb" else []
    paths = [f'<path class="way" d="{d}"/>' for d in (way, *taps)]
    words = (
        "an error vector reaches every layer at once"
        if kind == "gevb"
        else "a signal walks back layer by layer"
    )
    return (
        f'<svg class="network" role="img" aria-label="{words}" viewBox="0 0 400 185">'
        f'{"".join(edges + paths + units)}<text x="376" y="80">e</text></svg>'
    )
