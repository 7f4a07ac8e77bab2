"""Where a network learns: weight layers of this package, and any other Keras layer, as it is.

A place is asked four things: to run and say what it holds (`record`), to run again from that
(`activate_again`, `source`), for its weights' updates from a signal (`updates`), and for the shapes
of that signal (`uses`). A `WeightLayer` answers by its gates, a `LayerPlace` by a Keras layer's derivative.
"""

import contextlib

import keras

from keras_gevb import passes, private
from keras_gevb.any_layer import LayerPlace
from keras_gevb.layers import Local, WeightLayer
from keras_gevb.rules.base import LearningRule


def of(model, inputs=None):
    """The places of a model, nested models' included, in order.

    Args:
        model: A model, built.
        inputs: Its inputs, symbolic, if they are not those that it was built on: from them places learn the
            shapes of their signals when asked.
    """
    examination = _Examination(model, inputs)
    return [place for layer in private.direct_layers(model) for place in _within(layer, examination)]


def has_head(model, inputs):
    """Whether something without weights, such as a softmax, makes a model's outputs from its readouts'."""
    examined = _Examined(model, [])
    examined(inputs)
    return examined.has_head


def _within(layer, examination=None):
    """The place that a layer is, or those of a model, and of a layer around places of its own."""
    if isinstance(layer, WeightLayer):
        return [layer]
    if not isinstance(layer, Local):
        has_own = any(isinstance(part, (WeightLayer, Local)) for part in private.flat_layers(layer))
        if has_own or isinstance(layer, keras.Model):
            parts = private.direct_layers(layer)
            return [place for part in parts for place in _within(part, examination)]
    return [LayerPlace(layer, examination)] if layer.trainable_variables else []


@contextlib.contextmanager
def interposed(model):
    """The scope in which Keras layers that are places hand their calls to the pass in force."""
    handovers = [_Handover.of(place) for place in of(model) if isinstance(place, LayerPlace)]
    try:
        yield
    finally:
        for handover in handovers:
            handover.close()


class _Handover:
    """A layer's `call` while passes run, shared by replicas, each of which has a thread."""

    def __init__(self, place):
        self._place, self._uses = place, 0

    @classmethod
    def of(cls, place):
        attributes = vars(place.layer)
        if not isinstance(attributes.get("call"), cls):
            attributes["call"] = cls(place)
        attributes["call"]._uses += 1
        return attributes["call"]

    def __call__(self, *args, **kwargs):
        return passes.current().run(self._place, (args, kwargs))

    def close(self):
        self._uses -= 1
        if not self._uses:
            self._place.give_back_call()


class _Examination:
    """What only a model's call shows of its places: the shapes of their signals, and which are readouts."""

    def __init__(self, model, inputs):
        self._model, self._inputs, self._uses = model, inputs, None

    def uses(self, layer):
        """A `Use` for each call of a layer."""
        if self._uses is None:
            self._uses = []
            inputs = private.symbolic_inputs(self._model) if self._inputs is None else self._inputs
            _Examined(self._model, self._uses)(inputs)
        return [use for other, use in self._uses if other is layer]


class _Examined(keras.Operation):
    """A model's call on symbolic inputs."""

    def __init__(self, model, uses):
        super().__init__()
        self._model, self._uses = model, uses

    def call(self, x):
        from keras_gevb.step import Step  # which asks for places

        step = Step(self._model, x, LearningRule())
        self._uses[:] = [
            (record.layer, passes.Use(tuple(record.gate.shape[1:]), record.is_readout))
            for record in step.records
        ]
        self.has_head = step.has_head
        return step.outputs
