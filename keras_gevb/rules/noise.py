"""Random numbers as a function of a seed and of how often they were drawn, which is saved with the model."""

from typing import Any

from keras import ops

from keras_gevb import backend


class Noise:
    """A rule's random numbers: the same for the same seed, step, place and replica.

    On one backend, that is, compiled in one way: XLA draws others than TensorFlow without it.

    Nothing is counted where they are drawn, so that a rule's signals stay a function of its state.

    Args:
        seed: Integer.
        add_weight: As in `LearningRule.build`.
    """

    def __init__(self, seed: int, add_weight: Any):
        # The seed and the steps, as floats, exact to 2^24, since integers have no mean over replicas.
        self.state = add_weight(
            name="noise",
            shape=(2,),
            initializer=lambda shape, dtype=None: ops.cast([seed % 2**20, 0], dtype),
            dtype="float32",
            trainable=False,
        )

    def normal(self, shape, place, dtype):
        """N(0, 1), another for each place, each replica and each step."""
        return backend.draw("normal", shape, dtype, self._seed(place, backend.replica()))

    def uniform(self, shape, place, dtype):
        """From (0, 1), another for each place and each step; the same on all replicas."""
        return backend.draw("uniform", shape, dtype, self._seed(place))

    def _seed(self, place, replica=0):
        first, steps = (ops.cast(part, "int32") for part in ops.unstack(ops.convert_to_tensor(self.state)))
        return 1009 * first + 8191 * place + 131_071 * replica, steps + 1

    def counted(self):
        """The pair (variable, value) that moves on to other numbers, for `remember`."""
        return self.state, self.state + ops.convert_to_tensor([0.0, 1.0])
