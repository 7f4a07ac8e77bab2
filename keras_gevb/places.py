"""Where a network learns: weight layers of this package, and any other Keras layer, as it is.

A place is asked four things: to run and say what it holds (`record`), to run again from that
(`activate_again`, `source`), for its weights' updates from a signal (`updates`), and for the shapes
of that signal (`uses`). A `WeightLayer` answers by its gates, a `LayerPlace` by a Keras layer's derivative.
"""

import contextlib

import keras

from keras_gevb import handover, passes, private
from keras_gevb.any_layer import LayerPlace
from keras_gevb.layers import Local, WeightLayer
from keras_gevb.rules.base import LearningRule


def of(model, inputs=None):
    """The places of a model, nested models' included, in order.

    A layer of Keras that is frozen is none, unless the rule has weights for it, since it learned before.

    Args:
        model: A model, built.
        inputs: Its inputs, symbolic, if they are not those that it was built on: from them places learn the
            shapes of their signals when asked.
    """
    found = that_may_learn(model, inputs)
    vectorized = any(place.vectorized for place in found)
    known = () if vectorized else getattr(model, "rule_places", ())
    # Between vector units a frozen layer is as any other without weights.
    return [p for p in found if isinstance(p, WeightLayer) or p.trainable_variables or p in known]


def that_may_learn(model, inputs=None):
    """The places of a model, those of all frozen layers included, in order."""
    examination = _Examination(model, inputs)
    return [place for layer in private.direct_layers(model) for place in _within(layer, examination)]


def has_head(model, inputs):
    """Whether something without weights, such as a softmax, makes a model's outputs."""
    if not of(model):
        return True
    return _examined(model, inputs)[1]


def _within(layer, examination=None):
    """The place that a layer is, or those of a model, and of a layer around places of its own."""
    if isinstance(layer, WeightLayer):
        return [layer]
    if not isinstance(layer, Local):
        has_own = any(isinstance(part, (WeightLayer, Local)) for part in private.flat_layers(layer))
        if has_own or isinstance(layer, keras.Model):
            parts = private.direct_layers(layer)
            return [place for part in parts for place in _within(part, examination)]
    return [LayerPlace(layer, examination)] if private.weights_that_learn(layer) else []


@contextlib.contextmanager
def interposed(model):
    """The scope in which Keras layers that are places hand their calls to the pass in force."""
    found = [place for place in of(model) if isinstance(place, LayerPlace)]
    layers = {id(place.layer) for place in found}
    with contextlib.ExitStack() as scopes:
        for place in found:
            scopes.enter_context(place.handing_over())
        for layer in (model, *private.flat_layers(model)):
            if id(layer) not in layers and handover.is_traced(layer):
                scopes.enter_context(handover.standing_in(layer, handover.own_call(layer)))
        yield


class _Examination:
    """What only a model's call shows of its places: the shapes of their signals, and which are readouts."""

    def __init__(self, model, inputs):
        self._model, self._inputs, self._uses = model, inputs, None

    def uses(self, layer):
        """A `Use` for each call of a layer."""
        if self._uses is None:
            inputs = private.symbolic_inputs(self._model) if self._inputs is None else self._inputs
            self._uses, _ = _examined(self._model, inputs)
        return [use for other, use in self._uses if other is layer]


def _examined(model, inputs):
    """A pair (layer, `Use`) for each call of a place on symbolic inputs, and whether the model has a head."""
    from keras_gevb.step import Step  # which asks for places

    found = []

    class Examined(keras.Operation):
        def call(self, x):
            try:
                step = Step(model, x, LearningRule())
            except Exception as error:
                found.append(error)
                raise
            uses = [(r.layer, passes.Use(tuple(r.gate.shape[1:]), r.is_readout)) for r in step.records]
            found.append((uses, step.has_head))
            return step.outputs

    try:
        Examined()(inputs)
    except Exception:
        if found and isinstance(found[-1], Exception):
            raise found[-1] from None  # as it was, before Keras told of its own call
        raise
    return found[-1]
