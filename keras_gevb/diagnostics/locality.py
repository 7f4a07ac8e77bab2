"""Is it secretly backpropagation?"""

import contextlib
import dataclasses

import numpy as np
from keras import ops

from keras_gevb import places
from keras_gevb.diagnostics.measures import layer_updates, step_of
from keras_gevb.learning import Learner
from keras_gevb.types import Array


@dataclasses.dataclass(frozen=True)
class Audit:
    """Which other layers' weights each layer's update depends on, once the error vector is known.

    Attributes:
        dependence: `dependence[layer][other]` is the relative change of the layer's update
            when the other layer's weights change: exactly 0 where it does not depend on them.

    Prints as a table.
    """

    dependence: dict[str, dict[str, float]]

    def depends_on(self, layer: str) -> list[str]:
        """The names of the other layers whose weights the update of `layer` depends on."""
        return [other for other, change in self.dependence[layer].items() if change > 0]

    @property
    def is_local(self) -> bool:
        """Whether no layer's update depends on another layer's weights."""
        return not any(self.depends_on(layer) for layer in self.dependence)

    def __str__(self):
        names = list(self.dependence)
        first = max(map(len, [*names, "update of"]))
        rows = [f"{'update of':<{first}}  depends, given the error vector, on the weights of"]
        for name in names:
            rows.append(f"{name:<{first}}  {', '.join(self.depends_on(name)) or '-'}")
        verdict = (
            "Local: no update depends on another layer's weights."
            if self.is_local
            else "Not local: updates depend on other layers' weights, as in backpropagation."
        )
        return "\n".join([*rows, verdict])


def audit(model: Learner, x: Array, y: Array, seed: int = 0) -> Audit:
    """Is the rule secretly backpropagation? Which weights each layer's update depends on.

    Every layer's kernel and bias are changed in turn, while the error vector and what each layer
    received, its input and its gate, are held. A rule that sends the error alone (GEVB, DFA)
    then repeats every other layer's update exactly. Backpropagation does not: it reads the
    weights of all later layers. The model is left as it was.

    Args:
        model: A compiled `keras_gevb.Model` or `Sequential`.
        x: A batch of inputs.
        y: Its targets.
        seed: Integer, of the random change.

    Returns:
        An `Audit`, which prints as a table.

    Raises:
        ValueError: if the model is not compiled, its rule cannot serve it, or an update is not finite.

    Example:

    >>> print(keras_gevb.diagnostics.audit(model, x[:32], y[:32]))
    update of       depends, given the error vector, on the weights of
    vector_dense    -
    vector_dense_1  -
    vector_readout  -
    Local: no update depends on another layer's weights.
    """
    generator = np.random.default_rng(seed)
    step = step_of(model, x, y)
    before = layer_updates(step, step.signals())
    for name, update in before.items():
        if not np.isfinite(update).all():
            raise ValueError(
                f"The update of layer '{name}' is not finite, so nothing shows what it depends on. Received: "
                "a model whose weights or loss have become NaN or infinite. Audit it before they do."
            )
    dependence: dict[str, dict[str, float]] = {name: {} for name in before}
    for other in places.of(model):
        with _changed(other, generator):
            changed = step.at_present_weights()
            after = layer_updates(changed, changed.signals())
        for name in before:
            if name != other.name:
                dependence[name][other.name] = _relative_change(before[name], after[name])
    return Audit(dependence)


@contextlib.contextmanager
def _changed(place, generator):
    """A place's weights, changed at random within the scope; nonnegative ones stay so."""
    variables = {id(v): v for v in (*place.kernels, *place.trainable_variables)}.values()
    weights = [(v, ops.convert_to_numpy(v)) for v in variables]
    try:
        for variable, value in weights:
            size = float(np.sqrt(np.mean(np.square(value, dtype="float64")))) or 1.0
            variable.assign(value + size * generator.uniform(0.5, 1.5, value.shape))
        yield
    finally:
        for variable, value in weights:
            variable.assign(value)


def _relative_change(before, after):
    before, after = before.astype("float64"), after.astype("float64")
    return float(np.linalg.norm(after - before) / (np.linalg.norm(before) or 1.0))
