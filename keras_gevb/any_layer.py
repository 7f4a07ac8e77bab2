"""Any Keras layer as a place that learns, by the derivative of its own call."""

import keras
from keras import ops

from keras_gevb import backend, handover, passes, private
from keras_gevb.layer_call import Call


class LayerPlace:
    """A Keras layer with weights, which learns from a signal at its outputs by its own derivative.

        outputs = f(inputs, W)        dW = (df/dW)^T signal        signal to inputs = (df/dinputs)^T signal

    Inputs, masks, training mode and random numbers are those of the recorded call, which alone writes
    moving averages. What a layer does within its call (the steps of a recurrent layer, the parts of an
    attention) is inside of that derivative. Several outputs are told one signal, side by side.

    Args:
        layer: A built Keras layer.
        examination: What knows its uses in a model, if asked.
    """

    vectorized = constrained = is_gated = False
    vector_dim = None
    positions_rank = 0

    def __init__(self, layer, examination=None):
        self.layer, self._examination = layer, examination

    def __eq__(self, other):
        return isinstance(other, LayerPlace) and self.layer is other.layer

    def __hash__(self):
        return id(self.layer)

    name = property(lambda self: self.layer.name)
    built = property(lambda self: self.layer.built)
    # Of a frozen layer whose parts are not, as Keras loads some, these learn: a model counts weights.
    trainable_variables = property(lambda self: [v for v in self.layer.variables if v.trainable])

    def uses(self):
        return self._examination.uses(self.layer)

    @property
    def is_readout(self):
        return any(use.is_readout for use in self.uses())

    @property
    def units(self):
        return self.uses()[0].shape[-1]

    @property
    def kernels(self):
        return [v for v in private.weights_that_learn(self.layer) if v.ndim > 1]

    def as_layer(self):
        return self.layer

    def call(self, *args, **kwargs):
        """The layer's own call, whatever pass is in force; weight layers within are part of it."""
        with passes.Pass().in_force():
            return handover.own_call(self.layer)(*args, **kwargs)

    def handing_over(self):
        """The scope in which calls of the layer go to the pass in force."""
        return handover.standing_in(
            self.layer, lambda *args, **kwargs: passes.current().run(self, (args, kwargs))
        )

    # What a place is asked.

    def activate(self, inputs):
        args, kwargs = inputs
        return self.call(*args, **kwargs), None

    def record(self, number, inputs):
        call = Call(self, inputs)
        for variable, value in call.changed if backend.writes_weights else call.after:
            variable.assign(value)
        for loss in call.losses:
            self.layer.add_loss(loss)
        return passes.Record(self, number, inputs, ops.ones_like(call.outputs), call.outputs, call)

    def source(self, record):
        return ops.zeros_like(record.outputs)

    def activate_again(self, record, inputs, perturbation):
        call = record.call
        if not passes.current().changed.isdisjoint(map(id, self.layer.variables)):
            record.began.bring_back()
            call = call.at_weights_in_force()
        flat = keras.tree.flatten(inputs)
        inputs = [flat[n] for n in call.given]

        def pullback(signal):
            return call.pull(signal, record.is_readout)[: len(inputs)]

        return backend.with_pullback(record.outputs, inputs, pullback) + perturbation

    def updates(self, record, credit, error):
        variables = self.trainable_variables
        if not variables:
            return []
        pulled = record.call.pull(credit, record.is_readout)[len(record.call.given) :]
        pairs = [(v, update) for v, update in zip(variables, pulled, strict=True) if update is not None]
        if not pairs and not record.call.losses:  # else they learn from these
            raise ValueError(
                f"Layer '{self.name}' ({type(self.layer).__name__}) learns by the derivative of its call, "
                f"which has none in its weights. Received: {[v.name for v in variables]}. Make them with "
                "trainable=False, or compute the outputs from them by operations that have a derivative, "
                "without keras.remat or tf.recompute_grad inside of the call, which hide it."
            )
        return [(v, ops.cast(update, v.dtype)) for v, update in pairs]

    def feedback(self, seed):
        return [(v, _like(self.layer, v, seed + n)) for n, v in enumerate(self.kernels)]


def _like(layer, variable, seed):
    """How a weight starts, by another seed."""
    for owner in [layer, *private.flat_layers(layer)]:
        initializer = getattr(owner, f"{variable.name}_initializer", None)
        if initializer is not None and any(v is variable for v in owner.variables):
            break
    initializer = keras.initializers.get(initializer)
    config = getattr(initializer, "get_config", dict)()
    if "seed" not in config:
        return keras.initializers.GlorotUniform(seed)
    return type(initializer).from_config({**config, "seed": seed})
