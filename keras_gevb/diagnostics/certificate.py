"""A certificate of what each weight's update depends on, and does not, once the error vector is known."""

import dataclasses
import json
import pathlib

import keras

from keras_gevb.diagnostics.measures import check_learner
from keras_gevb.diagnostics.probes import PROBES, Control, Probing
from keras_gevb.learning import Learner
from keras_gevb.types import Array
from keras_gevb.version import __version__

SCHEMA = "keras_gevb.certificate/1"


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What the update of each weight was seen to depend on, given the error vector.

    Attributes:
        entries: A list of dicts: "weight", "layer", "on" (one of `PROBES`), "perturbation", "change"
            (the largest relative change found, exactly 0 for none), "control" (that of a rule that has the
            dependence, on this network by the same perturbation) and "allowed".
        model, rule, seed, samples, versions: What was measured, and how to repeat it.

    Prints as a table.
    """

    entries: list[dict]
    model: str
    rule: str
    seed: int
    samples: int
    versions: dict

    @property
    def is_local(self) -> bool:
        """Whether no weight's update depends on what a local rule may not know."""
        return not self.violations

    @property
    def violations(self) -> list[dict]:
        """The entries that a local rule has not."""
        return [entry for entry in self.entries if entry["change"] > 0 and not entry["allowed"]]

    def to_json(self) -> str:
        """The certificate as a string; `schema` is its version."""
        return json.dumps({"schema": SCHEMA, "is_local": self.is_local, **dataclasses.asdict(self)}, indent=1)

    def write(self, path: str | pathlib.Path) -> None:
        """Write the JSON into a file."""
        pathlib.Path(path).write_text(self.to_json())

    def __str__(self):
        weights = list(dict.fromkeys(entry["weight"] for entry in self.entries))
        found = {(entry["weight"], entry["on"]): entry for entry in self.entries}
        lines = [
            f"{self.rule} on '{self.model}', {self.samples} samples, seed {self.seed}: relative change",
            "",
            f"| update of | {' | '.join(PROBES)} |",
            "|:--" * (1 + len(PROBES)) + "|",
        ]
        for weight in weights:
            cells = [_cell(found.get((weight, on))) for on in PROBES]
            lines.append(f"| {weight} | {' | '.join(cells)} |")
        largest = {
            on: max((e["control"] for e in self.entries if e["on"] == on), default=None) for on in PROBES
        }
        controls = ["-" if control is None else f"{control:.2g}" for control in largest.values()]
        lines.append(f"| control, which depends | {' | '.join(controls)} |")
        verdict = "Local" if self.is_local else "Not local"
        verdict += ", given the error vector. (!) marks what a local rule may not know."
        return "\n".join([*lines, "", verdict])


def _cell(entry):
    if entry is None or entry["change"] == 0:
        return "-"
    return f"{entry['change']:.2g}{'' if entry['allowed'] else ' (!)'}"


def certify(model: Learner, x: Array, y: Array, seed: int = 0) -> Certificate:
    """Which of five things the update of each weight depends on, once the error vector is known.

    Each is changed at random while e, and what a layer itself received and returned, are held:

        forward weights of other layers, weights of the rule, later activity, other samples, targets

    A local rule may know its own activity, e, and feedback weights; one that declares
    `reads_targets`, the targets too. What a rule remembers is asked alike, in a row for each of its weights:
    so one that copies weights in `remember` is seen. Every entry has the change of a control on the same
    network, which has that dependence: backpropagation; with a factor of its own; plus the batch's mean;
    times the target.

    Not seen: what a rule was told outside of the step, such as labels in a list of its own. Updates by
    `own_updates` are sums over samples, so for them other samples are not asked.

    Args:
        model: A compiled `keras_gevb.Model` or `Sequential`. It is left as it was.
        x: A batch of inputs, of at least 2 samples.
        y: Its targets, not all the same.
        seed: Integer, of the changes: the same seed gives the same certificate.

    Returns:
        A `Certificate`, which prints as a table.

    Raises:
        ValueError: if the model is not compiled, its rule cannot serve it, or an update is not finite; if its
            updates differ from one look to the next; if samples or targets are too few to see what depends
            on them.

    Example:

    >>> certificate = keras_gevb.diagnostics.certify(model, x[:16], y[:16])
    >>> certificate.is_local
    True
    """
    check_learner(model)
    rule = model.learning_rule
    found = Probing(model, x, y, rule, seed).found()
    entries = []
    for on, perturbation in PROBES.items():
        # A control of other layers: seen anywhere is enough.
        control = max(Probing(model, x, y, Control(on), seed).changes(on).values(), default=0.0)
        if not control and on in ("other samples", "targets") and found[on]:
            raise ValueError(
                f"Nothing shows what depends on {on}: a rule that does was not seen to. Received: "
                f"{len(keras.tree.flatten(x)[0])} samples. Give at least 2, with targets that differ."
            )
        allowed = on == "feedback weights" or (on == "targets" and rule.reads_targets)
        for (weight, layer), change in found[on].items():
            entries.append(
                {
                    "weight": weight,
                    "layer": layer,
                    "on": on,
                    "perturbation": perturbation,
                    "change": change,
                    "control": control,
                    "allowed": allowed,
                }
            )
    return Certificate(entries, model.name, repr(rule), seed, len(keras.tree.flatten(x)[0]), _versions())


def _versions():
    return {"keras_gevb": __version__, "keras": keras.__version__, "backend": keras.backend.backend()}
