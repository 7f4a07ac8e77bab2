"""One page about all runs in a folder, as HTML and as Markdown, with its figures."""

import base64
import pathlib

from markdown_it import MarkdownIt

from keras_gevb.experiments import figures, files, representation, representation_figures, tables
from keras_gevb.experiments.cells import CELLS, DATASETS
from keras_gevb.experiments.initial import read_alignment, read_width
from keras_gevb.experiments.results import RunFiles, load_results
from keras_gevb.experiments.statistics import comparisons, initial_alignment, summarize
from keras_gevb.experiments.style import name
from keras_gevb.types import Path

HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1.5rem; }}
table {{ border-collapse: collapse; font-size: 0.82rem; line-height: 1.35; margin: 1rem 0; }}
th, td {{ padding: 0.25rem 0.6rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }}
th {{ border-bottom: 2px solid #888; vertical-align: bottom; white-space: normal; }}
img {{ max-width: 100%; display: block; margin: 1rem 0 0.3rem; }}
h2 {{ margin-top: 2.5rem; }}
p, li {{ max-width: 54rem; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def write_report(out: Path) -> pathlib.Path:
    """Write `report.html`, `report.md` and `figures/` into an output folder.

    Args:
        out: The folder that `run` wrote into.

    Returns:
        The path of the HTML page. It holds its figures, so it can be sent as one file.

    Raises:
        ExperimentError: if there are no results, or a file is corrupt or of another version.
    """
    folder = files.open_folder(out)
    page = _Page(folder)
    text = page.text()
    files.write_atomically(folder / "report.md", lambda file: file.write(text.encode()))
    body = MarkdownIt("commonmark").enable("table").render(text)
    for path in page.figures:
        image = base64.b64encode((folder / path).with_suffix(".svg").read_bytes()).decode()
        body = body.replace(f'src="{path}"', f'src="data:image/svg+xml;base64,{image}"')
    html = HTML.format(title=page.title, body=body)
    files.write_atomically(folder / "report.html", lambda file: file.write(html.encode()))
    return folder / "report.html"


class _Page:
    """The report in Markdown, and the figures that it shows."""

    title = "Broadcast errors against backpropagation"

    def __init__(self, folder):
        self.folder = folder
        self.figures = []
        self.results = load_results(folder)
        self.summaries = summarize(self.results)
        self.finished = summarize(result for result in self.results if result.finished)
        self.width = read_width(folder)
        self.initial = initial_alignment(self.results, read_alignment(folder))
        if not self.summaries and not self.width and not self.initial:
            raise files.ExperimentError(
                f"There are no results in '{folder}' yet. Run cells into it first: "
                f"`python -m keras_gevb.experiments run CELL --out {folder}`."
            )

    def text(self):
        blocks = [f"# {self.title}", self._what_ran(), *self._tables(), *self._tests()]
        blocks += [*self._curves(), *self._initial_alignment(), *self._alignment(), *self._width()]
        blocks += self._representations()
        blocks += self._provenance()
        return "\n\n".join(blocks) + "\n"

    def _of(self, dataset):
        return {cell: s for cell, s in self.summaries.items() if cell.dataset == dataset}

    def _what_ran(self):
        ran = len([cell for cell in self.finished if cell.published])
        total = len([cell for cell in CELLS.values() if cell.published])
        others = len(self.finished) - ran
        unfinished = len([result for result in self.results if not result.finished])
        return (
            f"Of the paper's {total} cells {ran} were run here, and {others} of ours on other data"
            f"{f'; runs not finished: {unfinished}' if unfinished else ''}. "
            "Errors are those of a run's last measurement, mean ± standard deviation over seeds, in "
            "percent; published numbers are means over 5 runs of up to 190 epochs (Clark, Abbott, Chung, "
            "[arXiv 2106.04089](https://arxiv.org/abs/2106.04089)). Compare numbers only where the "
            "epochs are alike. The column of epochs says after how many the error was measured."
        )

    def _tables(self):
        published = {cell.dataset for cell in CELLS.values() if cell.published}
        shown = [dataset for dataset in DATASETS if dataset in published or self._of(dataset)]
        for number, dataset in enumerate(shown):
            yield f"## Table {number + 1}. {name(dataset)}"
            yield tables.errors(dataset, self.summaries)

    def _tests(self):
        pairs = comparisons(self.finished)
        if pairs:
            yield "## Paired tests between rules"
            yield (
                "Test errors of finished runs of two cells by one protocol on the same seeds, which fix the "
                "order of the data and, for two rules on one network, the initial weights: paired t tests "
                f"(`scipy.stats.ttest_rel`), two-sided. {len(pairs)} tests, not corrected for their number. "
                "No p value where fewer than two seeds are shared."
            )
            yield tables.paired_tests(pairs)
            yield "Order by mean test error, lowest first:"
            yield tables.order(self.finished)

    def _curves(self):
        yield from self._per_dataset(
            "Learning curves",
            "Error against epoch, mean and standard deviation over seeds; below 0.1 % the axis is linear. "
            "A run that ended early, without a training error, keeps its last value.",
            "learning-curves",
            figures.learning_curves,
            {dataset: self._of(dataset) for dataset in DATASETS},
        )

    def _initial_alignment(self):
        if self.initial:
            yield "## Alignment before training"
            yield (
                "The angle between backpropagation's signal at the gated outputs and what the rule sends, "
                "mean over 128 training examples; then mean ± standard deviation over seeds, and the "
                "median, which a seed far out does not move."
            )
            yield tables.initial_alignment(self.initial)

    def _alignment(self):
        broadcast = {
            dataset: {c: s for c, s in self._of(dataset).items() if c.learning_rule != "backprop"}
            for dataset in DATASETS
        }
        yield from self._per_dataset(
            "Alignment during training",
            "The angle between backpropagation's signal at the gated outputs and what the rule sends, by "
            "hidden layer, mean over 128 training examples. Numbers name the hidden layer of a "
            "published value: before training (left) and at the paper's last measurement, at epoch 190 "
            "at the latest (right, whatever our last epoch).",
            "alignment",
            figures.alignment_in_training,
            broadcast,
        )

    def _width(self):
        by_dataset = {d: [row for row in self.width if row["dataset"] == d] for d in DATASETS}
        yield from self._per_dataset(
            "Alignment before training against width",
            "Fully connected networks of three equal hidden layers before training, GEVB, mean over 128 "
            "training examples, then mean and standard deviation over seeds. With nonnegative weights the "
            "last hidden layer is expected at 55.7 degrees at any width, arccos(1 / sqrt(pi)): its signal is "
            "the readout's kernel, half-normal or zero.",
            "width",
            figures.alignment_against_width,
            by_dataset,
        )
        for rows in by_dataset.values():
            if rows:
                yield tables.widths(rows)

    def _representations(self):
        found = {}
        for result in self.results:
            arrays = representation.read(RunFiles(self.folder, result.cell, result.seed).representation)
            if arrays:
                found.setdefault(result.cell.dataset, {}).setdefault(result.cell, []).append(arrays)
        yield from self._per_dataset(
            "What convolutional networks learn",
            "The last hidden layer's answer to test images before and after training: t-SNE of its 50 "
            "leading principal components, first seed, each image drawn as its label.",
            "representation",
            representation_figures.representation_maps,
            {d: {cell: runs[0] for cell, runs in found.get(d, {}).items()} for d in DATASETS},
        )
        yield from self._per_dataset(
            "",
            "Cluster quality by hidden layer, mean over seeds: root mean square distance from the mean of "
            "the class over that from the mean of all (1: no clusters; lower is better).",
            "cluster-quality",
            representation_figures.cluster_quality,
            {d: found.get(d, {}) for d in DATASETS},
        )

    def _per_dataset(self, heading, caption, stem, draw, by_dataset):
        """A section with one figure for each data set that has something to show."""
        shown = {dataset: content for dataset, content in by_dataset.items() if content}
        if not shown:
            return
        if heading:
            yield f"## {heading}"
        yield caption
        for dataset, content in shown.items():
            figure, path = draw(content), f"figures/{stem}-{dataset}.png"
            for kind, options in ((".png", {"dpi": 160}), (".svg", {"metadata": {"Date": None}})):
                target = (self.folder / path).with_suffix(kind)
                files.write_atomically(target, _saver(figure, kind, options))
            self.figures.append(path)
            svg = pathlib.PurePath(path).with_suffix(".svg")
            yield f"![{stem.replace('-', ' ')}, {name(dataset)}]({path})"
            yield f"{name(dataset)}. Files: [PNG]({path}), [SVG]({svg})."

    def _provenance(self):
        if not self.results:
            return
        yield "## How these runs were made"
        lines = [
            f"- Protocol: up to {p.epochs} epochs, measured every {p.evaluate_every}, batches of "
            f"{p.batch_size}, Adam at {p.learning_rate:g} (epsilon {p.epsilon:g})"
            for p in (result.protocol for result in self.results)
        ]
        lines += list(self._versions())
        seconds = {}
        for result in self.results:
            run_files = RunFiles(self.folder, result.cell, result.seed)
            seconds.setdefault(result.cell, []).extend(run_files.read_seconds())
        total = sum(map(sum, seconds.values()))
        lines.append(f"- Training took {total / 3600:.2f} hours in all, measurements not counted")
        lines.append(
            "- Seconds depend on the machine and on what else it did: runs of several do not compare"
        )
        yield "\n".join(dict.fromkeys(lines))
        yield tables.times(seconds)

    def _versions(self):
        """A line for each set of versions and devices; where there are several, with its runs."""
        runs = {}
        for result in self.results:
            versions = ", ".join(map(" ".join, result.versions.items()))
            runs.setdefault(versions, {}).setdefault(result.cell.name, []).append(str(result.seed))
        for versions, cells in runs.items():
            which = "; ".join(f"{cell}, seed {', '.join(seeds)}" for cell, seeds in cells.items())
            yield f"- Versions: {versions}" + (f": {which}" if len(runs) > 1 else "")


def _saver(figure, kind, options):
    return lambda file: figure.savefig(file, format=kind[1:], **options)
