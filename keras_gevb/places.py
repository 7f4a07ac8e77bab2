"""Where a network learns: weight layers of this package, and any other Keras layer, as it is.

A place is asked four things: to run and say what it holds (`record`), to run again from that
(`activate_again`, `source`), for its weights' updates from a signal (`updates`), and for the shapes
of that signal (`uses`). A `WeightLayer` is one itself and answers by its gates, a `LayerPlace` stands for a
Keras layer and answers by its derivative. A layer with `as_place` says what its place is.
"""

import contextlib
import inspect

import keras
from keras import ops

from keras_gevb import handover, passes, private, scopes
from keras_gevb.any_layer import LayerPlace
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
    known = () if vectorized else getattr(model, "rule_places", list)()
    # Between vector units a frozen layer is as any other without weights.
    return [p for p in found if p.as_layer() is p or p.trainable_variables or p in known]


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
    if _says_its_place(layer):
        return [layer.as_place(examination)]
    if _is_around_places(layer):
        return [place for part in private.direct_layers(layer) for place in _within(part, examination)]
    return [LayerPlace(layer, examination)] if private.weights_that_learn(layer) else []


def _says_its_place(layer):
    return hasattr(layer, "as_place")


def _is_around_places(layer):
    return isinstance(layer, keras.Model) or any(map(_says_its_place, private.flat_layers(layer)))


def read_between(model, inputs):
    """The weights that a model reads itself, beside the layers that have them, before its last place.

    Args:
        model: A model, built.
        inputs: Its inputs, symbolic.

    Returns:
        A list of variables; none where its call takes no symbolic inputs.
    """
    around = [part for part in (model, *private.flat_layers(model)) if _is_around_places(part)]
    if all(private.is_graph(part) for part in around):
        return []
    read = set()

    class Watched(keras.Operation):
        def call(self, x):
            with scopes.holding() as scope, _Watching(scope, read).in_force():
                return keras.tree.map_structure(ops.convert_to_tensor, forward(model, x, training=True))

    with contextlib.suppress(Exception):
        Watched()(inputs)
    return [v for v in model.trainable_variables if id(v) in read]


class _Watching(passes.Pass):
    """A pass that keeps what was read in a scope before its last place was called."""

    def __init__(self, scope, read):
        self._scope, self._read = scope, read

    def run(self, place, inputs):
        self._read |= self._scope.read
        with scopes.holding():
            return super().run(place, inputs)


@contextlib.contextmanager
def interposed(model):
    """The scope in which Keras layers that are places hand their calls to the pass in force."""
    found = [place for place in of(model) if place.as_layer() is not place]
    layers = {id(place.as_layer()) for place in found}
    with contextlib.ExitStack() as scopes:
        for place in found:
            scopes.enter_context(place.handing_over())
        for layer in (model, *private.flat_layers(model)):
            if id(layer) not in layers and handover.is_traced(layer):
                scopes.enter_context(handover.standing_in(layer, handover.own_call(layer)))
        yield


def forward(model, x, training):
    """The model's outputs; `training` goes to models whose call takes it, as in Keras."""
    takes_training = "training" in inspect.signature(model.call).parameters
    with interposed(model):
        return model(x, training=training) if takes_training else model(x)


class _Examination:
    """What only a model's call shows of its places: the shapes of their signals, and which are readouts."""

    def __init__(self, model, inputs):
        self._model, self._inputs, self._uses = model, inputs, None

    def uses(self, layer):
        """A `Use` for each call of a layer."""
        if self._uses is None:
            own = private.symbolic_inputs(self._model)
            inputs = own if self._inputs is None else self._inputs
            if all(tensor.shape[:1] == (None,) for tensor in _given(own)):
                inputs = keras.tree.map_structure(_of_some_samples, inputs)
            self._uses, _ = _examined(self._model, inputs)
        return [use for other, use in self._uses if other is layer]


def are_known(inputs):
    """Whether all extents of symbolic inputs are known, but for the number of samples."""
    return not any(None in tensor.shape[1:] for tensor in _given(inputs))


def _given(inputs):
    """The inputs that are not missing."""
    return [tensor for tensor in keras.tree.flatten(inputs) if tensor is not None]


def _of_some_samples(tensor):
    """The symbolic tensor, of a known number of samples, which tells them from rows of other kinds."""
    if tensor is None or tensor.shape[0] is not None:
        return tensor
    return keras.KerasTensor((3, *tensor.shape[1:]), tensor.dtype, sparse=tensor.sparse)


def _examined(model, inputs):
    """A pair (layer, `Use`) for each call of a place on symbolic inputs, and whether the model has a head."""
    from keras_gevb.step import Step  # which asks for places

    found = []
    samples = _given(inputs)[0].shape[0]

    def use(record):
        rows, *shape = record.gate.shape
        known = None not in (rows, samples)
        return passes.Use(tuple(shape), record.is_readout, rows / samples if known else 1)

    class Examined(keras.Operation):
        def call(self, x):
            try:
                step = Step(model, x, LearningRule())
            except Exception as error:
                found.append(error)
                raise
            found.append(([(record.layer, use(record)) for record in step.records], step.has_head))
            return step.outputs

    try:
        Examined()(inputs)
    except Exception as error:
        # As it was, before Keras told of its own call.
        error = found[-1] if found and isinstance(found[-1], Exception) else error
        if isinstance(error, ValueError) or are_known(inputs):
            raise error from None
        raise ValueError(
            f"The shapes of model '{model.name}' are asked for, and a layer has none where extents are open. "
            "Give keras.Input its full shape. Received: inputs "
            f"{[tensor.shape for tensor in _given(inputs)]} ({type(error).__name__}: {error})"
        ) from error
    return found[-1]
