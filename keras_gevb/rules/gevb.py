"""Global error-vector broadcasting."""

from keras import ops

from keras_gevb.rules.base import LocalRule, register
from keras_gevb.types import Record, Step, Tensor


@register
class GEVB(LocalRule):
    """Global error-vector broadcasting: every unit receives the error vector, and nothing else.

        dW_ij = sum_batch m_i (e . a_j)        db_i = sum_batch m_i e

    A unit's credit is its own gate, so an update depends on no other layer's weights
    once e is known. With nonnegative weights it never opposes the gradient, example by
    example, since backpropagation's signal g is then nonnegative too.

    Args:
        low_memory: Run forward twice, once for e and once more updating each layer as it goes:
            no update waits for another, so the memory for activity does not grow with depth.
            The updates are the same; a step takes up to three times as long.

    Raises:
        ValueError: in training, if the network has conventional units.

    Example:

    >>> model = keras_gevb.Sequential(network, learning_rule="gevb")
    >>> deep = keras_gevb.Sequential(network, learning_rule=keras_gevb.rules.GEVB(low_memory=True))

    Reference: paper, section 4, equation (4).
    """

    vectorized = True

    def signal(self, record: Record, step: Step) -> Tensor:
        return ops.ones_like(record.gate)
