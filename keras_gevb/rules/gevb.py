"""Global error-vector broadcasting."""

from keras import ops

from keras_gevb.rules.base import LearningRule, register


@register
class GEVB(LearningRule):
    """Global error-vector broadcasting: every unit receives the error vector, and nothing else.

        dW_ij = sum_batch m_i (e . a_j)        db_i = sum_batch m_i e

    A unit's credit is its own gate, so an update depends on no other layer's weights
    once e is known. With nonnegative weights it never opposes the gradient, example by
    example, since backpropagation's signal g is then nonnegative too.

    Raises:
        ValueError: in training, if the network has conventional units.

    Example:

    >>> model = keras_gevb.Sequential(network, learning_rule="gevb")

    Reference: paper, section 4, equation (4).
    """

    vectorized = True

    def signals(self, trace, error):
        return [ops.ones_like(record.gate) for record in trace.records]
