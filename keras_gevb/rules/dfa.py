"""Direct feedback alignment, with the error, its sign, or the target in its place."""

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from keras_gevb import targets
from keras_gevb.rules import feedback
from keras_gevb.rules.base import LocalRule, register
from keras_gevb.types import Record, Step, Tensor


class DirectFeedback(LocalRule):
    """Every unit receives its own fixed random projection of one vector of the outputs.

        signal_i = (c B_l)_i        c = `sent`

    One random matrix B has a row for each output; layer l uses its leading columns, one for each
    of its units (for every position, in a convolution). The readout receives the error itself.
    """

    vectorized = False
    sign = 1  # of feedback that is of one sign

    def __init__(self, nonnegative: bool | None = None, seed: int | None = None, low_memory: bool = False):
        super().__init__(low_memory)
        self.nonnegative = nonnegative
        self.seed = feedback.seeded(seed)

    def sent(self, step: Step) -> Tensor:
        """What is projected, `(batch, K)`."""
        raise NotImplementedError(f"{type(self).__name__} must implement `sent`.")

    def build(self, layers: Sequence[Any], add_weight: Callable[..., Any]) -> None:
        sizes = [feedback.size(layer) for layer in feedback.hidden(layers)]
        self.feedback = add_weight(
            name="feedback",
            shape=(feedback.outputs(layers), max(sizes, default=0)),
            initializer=feedback.uniform(layers, self.nonnegative, self.seed, self.sign),
            trainable=False,
        )

    def signal(self, record: Record, step: Step) -> Tensor:
        if record.is_readout:
            return step.readout_signal(record)
        return feedback.projected(self.sent(step), self.feedback, record)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "nonnegative": self.nonnegative, "seed": self.seed}


@register
class DFA(DirectFeedback):
    """Direct feedback alignment: every unit receives its own random projection of the error.

        credit_i = m_i (e B_l)_i        dW_ij = sum_batch credit_i a_j

    One fixed random matrix B has a row for each output; layer l uses its leading
    columns, one for each of its units (for every position, in a convolution). The
    readout receives the error itself.

    Args:
        nonnegative: Draw B from (0, 1) rather than (-1, 1). By default so where the
            network has nonnegative kernels.
        seed: Integer. Drawn when not given.
        low_memory: As in `GEVB`.

    Raises:
        ValueError: if the size of a layer is not known; in training, if the network has vector units.

    Example:

    >>> model = keras_gevb.zoo.build("digits", "fc", vectorized=False, learning_rule="dfa")

    Reference: Nokland 2016; the paper's appendix for the range of B.
    """

    def sent(self, step: Step) -> Tensor:
        return step.error


@register
class SDFA(DirectFeedback):
    """Direct feedback of the error's sign: whether each output is too large, not by how much.

        signal = share sign(e) B        share = weight of the sample / batch

    The share keeps the mean over a batch, and a sample's weight, which the sign of e has lost.
    A sample pulls as hard when it is all but learned as when it is wrong, so training does not come
    to rest by itself: lower the learning rate towards the end.

    Args: as in `DFA`.

    Example:

    >>> model = keras_gevb.zoo.build("digits", "fc", vectorized=False, learning_rule="sdfa")

    Reference: Frenkel, Lefebvre and Bol 2021 (sDFA); the code of Direct Random Target Projection.
    """

    def sent(self, step: Step) -> Tensor:
        return step.shares() * ops.sign(step.error)


@register
class DRTP(DirectFeedback):
    """Direct random target projection: hidden units learn from the target alone, and know no error.

        signal = share y B        y the one-hot target, share = weight of the sample / batch

    So the update of a layer waits for nothing, not even for the outputs. y stands for -e, whose entry at the
    target it keeps in sign, so B is drawn from (-1, 0) where it is to be of one sign, else from
    (-1, 1). Only for classes; hidden units never see whether the network is right already.

    Args:
        nonnegative: Draw B from (-1, 0) rather than (-1, 1). By default so where the network has
            nonnegative kernels.
        seed, low_memory: As in `DFA`.

    Raises:
        ValueError: in training, if the loss is not one of classes; as `DFA`.

    Example:

    >>> model = keras_gevb.zoo.build("digits", "fc", vectorized=False, learning_rule="drtp")

    Reference: Frenkel, Lefebvre and Bol 2021.
    """

    sign = -1
    reads_targets = True

    def sent(self, step: Step) -> Tensor:
        return step.shares() * ops.cast(targets.classes(step, self), step.error.dtype)
