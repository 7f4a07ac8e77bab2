"""The names of Keras that are not public and that this package leans on, each with what it stands for.

`tests/test_private.py` fails with the name where one of them moves.
"""

import contextlib
import random

import keras
from keras.src.backend.common import global_state, masking
from keras.src.models.functional import Functional
from keras.src.random import seed_generator

__all__ = [
    "Functional",
    "another_input",
    "checkpoint",
    "direct_layers",
    "flat_layers",
    "give_back_state",
    "is_graph",
    "keeping_losses",
    "loss_tracker",
    "loss_weights",
    "make_unseeded",
    "mask",
    "masked",
    "output_shapes",
    "outside_of_scopes",
    "run_graph",
    "saves_legacy_config",
    "symbolic_inputs",
    "symbolic_outputs",
    "untrack",
    "watching_unseeded",
    "weights_that_learn",
]


def flat_layers(model):
    """The layers of a model at any depth, in order: `Layer._flatten_layers`.

    Public: `Model.layers` has those of one depth, and none that a wrapper holds.
    """
    return model._flatten_layers(include_self=False)


def direct_layers(layer):
    """The layers that a model or a layer holds itself, in order: `Layer._flatten_layers`.

    Public: `Model.layers`, which leaves out what a layer that is no model holds.
    """
    return [part for part in layer._flatten_layers(include_self=False, recursive=False)]


def symbolic_inputs(model):
    """What a built model is called with, as symbolic tensors: `Functional._inputs_struct`.

    Public: `Model.inputs`, which is flat; outside of a graph, the shapes that the model was built on.
    """
    graph = _graph(model)
    if hasattr(graph, "_inputs_struct"):
        return graph._inputs_struct
    shapes = (model.get_build_config() or {}).get("input_shape")
    return keras.tree.map_shape_structure(
        lambda shape: None if shape is None else keras.KerasTensor(shape), shapes
    )


def _graph(model):
    """The graph of a functional model, or of a chain: `Sequential._functional`."""
    return getattr(model, "_functional", None) or model


def is_graph(model):
    """Whether a model's call is that of a graph or a chain, which calls layers and operations alone.

    Public: nothing that a subclass with a call of its own would not have too.
    """
    return getattr(type(model), "call", None) in (Functional.call, keras.Sequential.call)


def weights_that_learn(layer):
    """The weights of a layer and of its parts that learn unless they are frozen: `_trainable_variables`.

    Public: `Layer.trainable_variables`, while nothing is frozen.
    """
    return [v for part in [layer, *flat_layers(layer)] for v in part._trainable_variables]


def another_input(tensor):
    """A new input of a graph like one that it has, of the same name: `KerasTensor._keras_history`.

    Public: `Model.layers`, where a graph lists its input layers too.
    """
    layer = tensor._keras_history.operation
    return type(layer).from_config(layer.get_config()).output


def mask(tensor):
    """The mask that layers of Keras find at a tensor, or None: `get_keras_mask`.

    Public: nothing.
    """
    return masking.get_keras_mask(tensor)


def masked(tensor, mask):
    """The tensor, with this mask, if there is one: `set_keras_mask`.

    Public: `keras.layers.Masking`, of values.
    """
    if mask is not None:
        masking.set_keras_mask(tensor, mask)
    return tensor


def make_unseeded():
    """Have what `keras.random` draws by without a seed, where it may be: `global_seed_generator`.

    Public: a draw, which takes a number.
    """
    before = random.getstate()
    # In what JAX traces Keras refuses it.
    with contextlib.suppress(ValueError):
        seed_generator.global_seed_generator()
    random.setstate(before)  # what is made later is initialized as if there were none yet


@contextlib.contextmanager
def watching_unseeded():
    """A scope, with a list: the pair (state, value before) of what is drawn in it without a seed.

    Public: nothing; a `keras.random.SeedGenerator` has a state of its own.
    """
    generator, before = global_state.get_global_attribute("global_seed_generator"), []
    draw = getattr(generator, "next", None)

    def watched(*args, **kwargs):
        if not before:
            before.append((generator.state, keras.ops.copy(generator.state.value)))
        return draw(*args, **kwargs)

    if generator is not None:
        generator.next = watched
    try:
        yield before
    finally:
        if generator is not None:
            vars(generator).pop("next", None)


def symbolic_outputs(model):
    """What a graph returns, as symbolic tensors in their structure, or None: `Functional._outputs_struct`.

    Public: `Model.outputs`, which is flat.
    """
    return getattr(_graph(model), "_outputs_struct", None)


def run_graph(model, inputs, call):
    """A graph's outputs where `call(layer, *args, **kwargs)` calls its layers: `Function._run_through_graph`.

    Public: `clone_model(call_function=)`, for inputs that are new ones.
    """
    return _graph(model)._run_through_graph(inputs, operation_fn=lambda operation: operation, call_fn=call)


def producer(tensor):
    """The operation that made a symbolic tensor of a graph, and from which tensors: `_keras_history`.

    Public: nothing.
    """
    operation, node, _ = tensor._keras_history
    return operation, operation._inbound_nodes[node].input_tensors


def consumers(layer):
    """The operations that a layer's outputs go to in graphs: `Layer._outbound_nodes`.

    Public: nothing.
    """
    return [node.operation for node in layer._outbound_nodes if node.operation is not None]


def output_shapes(layer):
    """The shape of a built layer's outputs at each use in a graph: `Layer._inbound_nodes`.

    Public: `layer.output`, of a layer that is used once. Outside of a graph, from the shape it was built on.
    """
    uses = [output.shape for node in layer._inbound_nodes for output in node.output_tensors]
    return uses or [layer.compute_output_shape(layer.get_build_config()["input_shape"])]


@contextlib.contextmanager
def outside_of_scopes():
    """Where variables are what they are in no `keras.StatelessScope`: the scope in force.

    Public: nothing.
    """
    name = "stateless_scope"
    scope = global_state.get_global_attribute(name)
    global_state.set_global_attribute(name, None)
    try:
        yield
    finally:
        global_state.set_global_attribute(name, scope)


def saves_legacy_config():
    """Whether Keras writes an .h5 file now, which keeps a model's bare class name: `use_legacy_config`.

    Public: nothing.
    """
    return bool(global_state.get_global_attribute("use_legacy_config", False))


@contextlib.contextmanager
def keeping_losses(model):
    """A scope in which a call of the model leaves the losses that its last one added: `Layer._losses`.

    Public: nothing; a call of a model begins by clearing them.
    """
    layers = [model, *flat_layers(model)]
    before = [(layer, list(layer._losses), set(layer._loss_ids)) for layer in layers]
    try:
        yield
    finally:
        for layer, losses, ids in before:
            layer._losses[:] = losses
            layer._loss_ids.clear()
            layer._loss_ids.update(ids)


def loss_tracker(model):
    """The mean of the loss over an epoch: `Trainer._loss_tracker`.

    Public: the metric named "loss" in `model.metrics`, unless a subclass has metrics of its own.
    """
    return model._loss_tracker


def loss_weights(model):
    """What `compile` was given to weigh the losses of outputs with: `CompileLoss._user_loss_weights`.

    Public: `Model.get_compile_config()`, which serializes all that `compile` was given.
    """
    return getattr(model._compile_loss, "_user_loss_weights", None)


def checkpoint(model, name, variable):
    """Have TensorFlow's checkpoints hold a variable of a model, or None: `Trackable._track_trackable`.

    Public: attributes of the model, which Keras's own files would hold a second time.
    """
    if keras.backend.backend() != "tensorflow":
        return
    if variable is None:
        model._delete_tracking(name)
    else:
        model._track_trackable(variable, name, overwrite=True)


def untrack(layer, variable):
    """Have a layer forget a weight: `Layer._untrack_variable`.

    Public: `del layer.name`, for a weight that is an attribute.
    """
    layer._untrack_variable(variable)


def give_back_state(model, state):
    """Give a model its values back, which a fit under JAX keeps: `_jax_state`, `jax_state_sync`.

    Public: nothing.
    """
    names = "trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables"
    model._jax_state = dict(zip(names, state))
    model._jax_state_synced = False
    model.jax_state_sync()
