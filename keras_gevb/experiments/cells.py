"""The cells of the comparison, as data, and what the paper published for them."""

import dataclasses
import difflib
import fnmatch
import functools
import importlib.resources
import itertools
import json
from collections.abc import Iterable
from typing import Any

from keras_gevb import zoo
from keras_gevb.experiments.files import WrongName
from keras_gevb.model import Sequential

# The paper's data sets first; no numbers are published for the others.
DATASETS = ("mnist", "cifar10", "fashion_mnist", "digits")
# Units, and the rules that train them: the broadcast rule first.
RULES = {"vectorized": ("gevb", "backprop"), "conventional": ("dfa", "backprop")}
# The field's other rules, on two of the data sets.
OTHER_RULES = {
    "vectorized": ("fa", "usf", "brsf", "frsf", "kp", "dkp", "fdfa", "node_perturbation"),
    "conventional": (
        *("fa", "usf", "brsf", "frsf", "kp", "dkp", "sdfa", "drtp"),
        *("node_perturbation", "fdfa", "ebd", "local_error"),
    ),
}
OTHERS_ON = ("mnist", "digits")
WEIGHTS = ("nonnegative", "mixed")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One network, its data set and its learning rule.

    Attributes:
        dataset: "mnist", "cifar10", "fashion_mnist" or "digits".
        architecture: "fc", "conv" or "lc".
        units: "vectorized" or "conventional".
        learning_rule: "gevb", "dfa", "backprop", or on "mnist" and "digits" any other by its name.
        weights: "nonnegative" or "mixed".
    """

    dataset: str
    architecture: str
    units: str
    learning_rule: str
    weights: str

    @property
    def name(self) -> str:
        """Such as "mnist-fc-vectorized-gevb-nonnegative"."""
        return "-".join(dataclasses.astuple(self))

    @property
    def network(self) -> str:
        """The name without the rule: cells that agree in it start from the same weights."""
        return "-".join([self.dataset, self.architecture, self.units, self.weights])

    def build(self) -> Sequential:
        """The cell's network, not compiled."""
        return zoo.build(
            self.dataset,
            self.architecture,
            vectorized=self.units == "vectorized",
            nonnegative=self.weights == "nonnegative",
            learning_rule=self.learning_rule,
        )

    @property
    def published(self) -> dict[str, Any] | None:
        """The paper's test and train error in percent, mean of 5 runs; None where it has none."""
        return _published_errors().get(self)

    @property
    def published_alignment(self) -> dict[str, list[float]] | None:
        """The paper's angles per hidden layer, "init" and "last"; None where it has none."""
        angles = _published()["alignment_degrees"].get(self.dataset, {})
        return angles.get(self.architecture, {}).get(f"{self.learning_rule} {self.weights}")


CELLS = {
    cell.name: cell
    for datasets, rules in ((DATASETS, RULES), (OTHERS_ON, OTHER_RULES))
    for dataset, architecture, units, weights in itertools.product(
        datasets, zoo.ARCHITECTURES, rules, WEIGHTS
    )
    for rule in rules[units]
    for cell in [Cell(dataset, architecture, units, rule, weights)]
}


def find(patterns: Iterable[str], paper: bool = False) -> list[Cell]:
    """The cells that these names or patterns with `*` and `?` name, in the order of the table.

    Args:
        patterns: A list of names and patterns.
        paper: Leave out rules that the paper does not compare.

    Raises:
        WrongName: if one names no cell; it suggests the nearest.

    Example:

    >>> len(find(["mnist-*", "cifar10-*"], paper=True))
    48
    """
    chosen = set()
    for pattern in patterns:
        names = fnmatch.filter(CELLS, pattern)
        if not names:
            near = _nearest(pattern)
            advice = f" Did you mean {near}?" if near else ""
            raise WrongName(
                f"No cell is named so.{advice} Received: {pattern!r}. "
                "`python -m keras_gevb.experiments list` names them all."
            )
        chosen.update(names)
    return [
        cell
        for name, cell in CELLS.items()
        if name in chosen and not (paper and cell.learning_rule not in RULES[cell.units])
    ]


def _nearest(pattern):
    """The name or pattern with each misspelt word mended; None where that names no cell either."""
    words = {word for cell in CELLS.values() for word in dataclasses.astuple(cell)}

    def mended(word):
        is_pattern = "*" in word or "?" in word
        return word if is_pattern else "".join(difflib.get_close_matches(word, words, n=1, cutoff=0.5))

    near = "-".join(map(mended, pattern.split("-")))
    for candidate in (near, f"{near}-*"):
        if fnmatch.filter(CELLS, candidate):
            return candidate
    return None


@functools.cache
def _published():
    file = importlib.resources.files(__package__).joinpath("published.json")
    return json.loads(file.read_text())


@functools.cache
def _published_errors():
    fields = [field.name for field in dataclasses.fields(Cell)]
    return {Cell(*(row[f] for f in fields)): row for row in _published()["errors"]}
