"""What `performance.py` measured, as Markdown tables and pictures."""

import contestants
import reporting
from counting import limit_milliseconds

from keras_gevb.experiments.style import name

# Of the paper's own implementation: milliseconds of a GEVB step at batch 128, best of two runs, on
# two cores whose matrix-product peak was that many GFLOP/s.
PAPER_GFLOPS = 214
PAPER_MILLISECONDS = {
    "mnist-fc": 169,
    "mnist-conv": 830,
    "mnist-lc": 1292,
    "cifar10-fc": 696,
    "cifar10-conv": 4767,
    "cifar10-lc": 9237,
}
PAPER_BATCH_SIZE = 128


def write(folder, measured, options, left_out):
    """Write performance.md and its pictures; returns the path of the table file.

    Args:
        folder: Where to.
        measured: A dict from part to name to what was measured.
        options: Of the command.
        left_out: Sentences that say what could not be measured, and why.
    """
    steps = measured["steps"]
    networks = [*contestants.NETWORKS, *contestants.SMALL_NETWORKS]
    papers = paper_milliseconds(steps, options.batch_size)
    sections = {
        f"Milliseconds per step, batch {options.batch_size}: median (10th to 90th percentile)": _times(
            steps, networks, options.learners
        ),
        "How many times the time of a GEVB step": _ratios(steps, networks, papers),
        "Share of the limit that the median step reaches": _limits(steps, networks, options.learners),
        "Peak memory beyond weights and optimizer, MB (in brackets: once compiled)": _memory(
            measured["memory"], networks, options.learners
        ),
        "`fit` beside the bare compiled step of GEVB, ms": _overhead(measured["fit"], networks),
        "Steps per second of GEVB, from memory and from TensorFlow Datasets": _pipeline(
            measured["pipeline"], networks
        ),
    }
    text = "\n\n".join(f"## {title}\n\n{body or 'Not run.'}" for title, body in sections.items())
    for sentence in left_out:
        text += f"\n\nLeft out: {sentence}."
    path = folder / "performance.md"
    reporting.write_text(path, text + "\n")
    _draw(folder, measured, papers, networks)
    return path


def paper_milliseconds(steps, batch_size):
    """The paper's own implementation on a machine of this matrix-product peak, by network."""
    if batch_size != PAPER_BATCH_SIZE:
        return {}
    return {
        network: PAPER_MILLISECONDS[network] * PAPER_GFLOPS / result["limits"]["gflops"]
        for network, result in steps.items()
        if network in PAPER_MILLISECONDS
    }


def fractions(result):
    """The share of the machine's limit that each learner reaches, from one network's result."""
    return {
        learner: limit_milliseconds(
            result["operations"][learner], result["bytes"][learner], **result["limits"]
        )
        / times["median"]
        for learner, times in result["milliseconds"].items()
    }


def _times(steps, networks, learners):
    rows = []
    for network in _of(networks, steps):
        result = steps[network]
        times = (result["milliseconds"][learner] for learner in learners)
        limits = (f"{result['limits'][name]:.0f}" for name in ("gflops", "gbytes"))
        rows.append([title(network), *limits, *map(spread, times)])
    return rows and reporting.table(["network", "GFLOP/s", "GB/s", *learners], rows)


def _ratios(steps, networks, papers):
    header = ["network", "paper's implementation, at this peak (ms)", "paper's", "best autodiff"]
    compared = ["Backprop rule", "GEVB, low memory", "conventional"]
    rows = []
    for network in _of(networks, steps):
        times = {learner: t["median"] for learner, t in steps[network]["milliseconds"].items()}
        if "GEVB" not in times:
            continue
        paper = papers.get(network)
        autodiff = min((t for learner, t in times.items() if "autodiff" in learner), default=None)
        ratios = [paper, autodiff, *(times.get(learner) for learner in compared)]
        ratios = (_or_dash(value and value / times["GEVB"], ".2f") for value in ratios)
        rows.append([title(network), _or_dash(paper, ".0f"), *ratios])
    return rows and reporting.table(header + compared, rows)


def _limits(steps, networks, learners):
    rows = []
    for network in _of(networks, steps):
        result, shares = steps[network], fractions(steps[network])
        first = next(iter(shares)) if "GEVB" not in shares else "GEVB"
        counted = [result[what][first] / 1e9 for what in ("operations", "bytes")]
        rows.append(
            [
                title(network),
                *(f"{number:.2f}" for number in counted),
                *(f"{shares[learner]:.2f}" for learner in learners),
            ]
        )
    return rows and reporting.table(["network", "GFLOP of GEVB", "GB of GEVB", *learners], rows)


def _memory(memory, networks, learners):
    rows = []
    for network in networks:
        found = {n: memory[f"{network} {n}"] for n in learners if f"{network} {n}" in memory}
        held = [m for m in found.values() if "weights" in m]
        if found:
            weights = [f"{held[0][what]:.0f}" if held else "-" for what in ("weights", "optimizer")]
            rows.append([title(network), *weights, *(_peak(found.get(learner)) for learner in learners)])
    return rows and reporting.table(["network", "weights", "optimizer", *learners], rows)


def _overhead(fit, networks):
    rows = [
        [
            title(network),
            *map(spread, (fit[network]["fit"], fit[network]["bare step"])),
            f"{100 * (fit[network]['fit']['median'] / fit[network]['bare step']['median'] - 1):+.1f} %",
        ]
        for network in _of(networks, fit)
    ]
    return rows and reporting.table(["network", "fit", "bare step", "fit takes"], rows)


def _pipeline(pipeline, networks):
    rows = []
    for network in _of(networks, pipeline):
        memory, *streams = pipeline[network].values()
        ratios = (f"{stream['median'] / memory['median']:.3f}" for stream in streams)
        rows.append([title(network), *map(spread, (memory, *streams)), *ratios])
    header = ["network", "from memory", "streamed, first epoch", "later epochs", "first / memory"]
    return rows and reporting.table([*header, "later / memory"], rows)


def _draw(folder, measured, papers, networks):
    steps = {network: measured["steps"][network] for network in _of(networks, measured["steps"])}

    def by_title(of_network):
        return {title(network, "\n"): of_network(result) for network, result in steps.items()}

    def each(of_times):
        return by_title(lambda result: {n: of_times(t) for n, t in result["milliseconds"].items()})

    times = reporting.bars(
        each(lambda t: t["median"]),
        "time of a step (ms)",
        log=True,
        errors=each(lambda t: (t["p10"], t["p90"])),
        marks=(
            "paper's implementation, at this peak",
            {title(n, "\n"): papers[n] for n in steps if n in papers},
        ),
    )
    reporting.save(times, folder / "step_time")
    reporting.save(reporting.bars(by_title(fractions), "share of the machine's limit"), folder / "limit")
    peaks = {}
    for key, result in measured["memory"].items():
        network, learner = key.split(" ", 1)
        if "steps" in result:
            peaks.setdefault(title(network, "\n"), {})[learner] = result["steps"] - result["built"]
    label = "peak memory, once compiled, beyond\nweights and optimizer (MB)"
    reporting.save(reporting.bars(peaks, label, log=True), folder / "memory")


def title(network, between=" "):
    """A network's name for readers."""
    return between.join(name(word) for word in network.split("-"))


def _of(networks, measured):
    return [network for network in networks if network in measured]


def spread(values):
    digits = 0 if values["median"] >= 100 else 1
    return "{median:.{d}f} ({p10:.{d}f} to {p90:.{d}f})".format(**values, d=digits)


def _or_dash(value, form):
    return "-" if value is None else format(value, form)


def _peak(measured):
    if measured is None:
        return "-"
    if "left out" in measured:
        return measured["left out"]
    first, later = (measured[when] - measured["built"] for when in ("first steps", "steps"))
    return f"{first:.0f} ({later:.0f})"
