"""The vector network of the shape of a stock Keras model."""

import contextlib
import random
import warnings
from typing import Any

import keras

from keras_gevb import conversion, layers, passes, places, private
from keras_gevb.model import Model, Sequential
from keras_gevb.types import Rule


def vectorize(
    model: Any,
    vector_dim: int | None = None,
    nonnegative: bool | None = True,
    learning_rule: Rule = "gevb",
    seed: int | None = None,
) -> Model | Sequential:
    """The network of vector units of the shape of a stock Keras model, freshly initialized.

    Every layer becomes its counterpart of vector units, of the same name and sizes:

        weight layers          the first with `vector_dim`, the later ones nonnegative
        ReLU                   the gate of the weight layer before it; elsewhere, as behind a sum, a layer of
                               gates alone
        the last Dense         VectorReadout; behind it OutputCode, where K < number of outputs
        average pooling, Flatten, Reshape, Dropout     of whole vectors; max pooling becomes average pooling

    What stands before the first weight layer and behind the last, sums and Concatenate are kept. Layers
    of nested models become the network's own. A layer without ReLU is not gated. The original is left as it
    was, and the result is not compiled.

    Args:
        model: A built functional or Sequential model, of Dense, Conv1D, Conv2D, Conv3D, DepthwiseConv2D,
            SeparableConv2D, LocallyConnected1D, LocallyConnected2D (of this package), Embedding and layers
            without weights. It ends in a Dense.
        vector_dim: K. Defaults to the number of outputs; fewer broadcast fewer numbers, by an `OutputCode`.
        nonnegative: Nonnegative kernels past the first layer, or mixed-sign ones.
        learning_rule: A name or a `LearningRule` that serves vector units.
        seed: Integer, from which all that is drawn follows.

    Returns:
        A `keras_gevb.Model`, or `Sequential`.

    Raises:
        TypeError: if it is no Keras model.
        ValueError: if `vector_dim` is larger than the number of outputs; naming a layer that no network of
            vector units can have; as the layers, where ON/OFF pairs do not come out even; as `convert`.

    Example:

    >>> stock = keras.Sequential(
    ...     [keras.Input((64,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10)]
    ... )
    >>> model = keras_gevb.vectorize(stock, seed=0)
    >>> [type(layer).__name__ for layer in model.layers]
    ['VectorDense', 'VectorReadout']

    Reference: paper, section 3 (vectorized nonnegative networks).
    """
    conversion.check(model)
    models = [part for part in (model, *private.flat_layers(model)) if isinstance(part, keras.Model)]
    is_chain = all(isinstance(part, keras.Sequential) for part in models)
    ends = private.symbolic_inputs(model), private.symbolic_outputs(model)
    with _drawing_from(seed):
        counterparts = _Counterparts(ends[1], vector_dim, nonnegative)
        # Not compiled, and of no class that wants other arguments.
        graph = keras.models.clone_model(
            keras.Model(*ends), clone_function=lambda layer: layer, call_function=counterparts
        )
    with _drawing_from(seed):
        settings = {"learning_rule": learning_rule, "name": model.name}
        if is_chain:
            # Anew, for a chain's layers are called once.
            made = [layer for layer in counterparts.made if isinstance(layer, keras.Layer)]  # no masks
            chain = [type(layer).from_config(layer.get_config()) for layer in made]
            vectorized = Sequential([graph.inputs[0], *chain], **settings)
        else:
            vectorized = Model(private.symbolic_inputs(graph), private.symbolic_outputs(graph), **settings)
    vectorized.dtype_policy = model.dtype_policy
    vectorized.learning_rule.check([passes.Record(place) for place in places.of(vectorized)])
    return vectorized


@contextlib.contextmanager
def _drawing_from(seed):
    """Initializers without a seed draw one from Python's generator."""
    state = random.getstate()
    if seed is not None:
        random.seed(seed)
    try:
        yield
    finally:
        if seed is not None:
            random.setstate(state)


class _Counterparts:
    """What `clone_model` calls in place of each layer of a graph.

    Attributes:
        made: The layers that were made, in order.
    """

    def __init__(self, outputs, vector_dim, nonnegative):
        self.made, self._nonnegative = [], nonnegative
        self._by_layer, self._on_vectors = {}, {}
        self._vectors, self._gated = {}, {}  # by id, so that ids stay theirs
        self._readout = _readout(keras.tree.flatten(outputs))
        classes = self._readout.units
        self._vector_dim = classes if vector_dim is None else vector_dim
        self._classes = classes
        if self._vector_dim > classes:
            raise ValueError(
                "`vector_dim` must be at most the number of outputs, which K numbers make. Received: "
                f"vector_dim={vector_dim}, a model of {classes} outputs."
            )

    def __call__(self, layer, *args, **kwargs):
        if isinstance(layer, keras.Model):
            return private.run_graph(layer, args, self)
        given = keras.tree.flatten(args)
        kind = _kind(layer)
        if layer is self._readout:
            return self._read(layer, *args)
        if kind in _WEIGHT_LAYERS:
            return self._weigh(layer, kind, *args)
        if not any(id(tensor) in self._vectors for tensor in given):
            if not getattr(layer, "trainable_variables", ()):
                return self._made(layer, conversion.copied, lambda made: made(*args, **kwargs))
            raise _refusal(
                layer, "Before the first weight layer freeze it, or adapt keras.layers.Normalization."
            )
        if _is_relu(layer):
            return given[0] if id(given[0]) in self._gated else self._gate(layer, given[0])
        if kind not in _SHAPING or not all(id(tensor) in self._vectors for tensor in given):
            raise _refusal(layer, _ADVICE.get(kind, _WHOLE))
        outputs = given[0] if len(given) == 1 else given
        *before, _, channels = given[0].shape
        for part in _SHAPING[kind](layer, (*before, channels)):
            outputs = self._made(part, lambda part: part, lambda made, x=outputs: made(x))
        return self._keep(outputs)

    def _keep(self, vectors):
        self._vectors[id(vectors)] = vectors
        return vectors

    def _made(self, layer, make, call):
        """The outputs of a layer's counterpart, which is made once."""
        if id(layer) not in self._by_layer:
            self._by_layer[id(layer)] = made = make(layer)
            self.made.append(made)
        return call(self._by_layer[id(layer)])

    def _weigh(self, layer, kind, inputs):
        on_vectors = id(inputs) in self._vectors
        if self._on_vectors.setdefault(id(layer), on_vectors) != on_vectors:
            raise _refusal(
                layer, "It is shared by inputs, which are numbers, and by units, which are vectors: take two."
            )
        behind = private.consumers(layer)
        gated = _is_relu_function(layer) or (_is_linear(layer) and behind and all(map(_is_relu, behind)))
        if not gated and not _is_linear(layer):
            raise _refusal(layer, _GATES)
        if layer.get_config().get("data_format") == "channels_first":
            raise _refusal(layer, "Take data_format='channels_last'.")

        def make(layer):
            first = {"vector_dim": self._vector_dim, "nonnegative": None if self._nonnegative else False}
            settings = {"nonnegative": self._nonnegative} if on_vectors else first
            rank = len(inputs.shape) - 2 - on_vectors
            if kind != "Embedding":
                settings["gated"] = bool(gated)
            return _WEIGHT_LAYERS[kind](rank)(**_kept(layer, rank), **settings)

        vectors = self._keep(self._made(layer, make, lambda made: made(inputs)))
        if gated:
            self._gated[id(vectors)] = vectors
        return vectors

    def _gate(self, layer, vectors):
        """Gates of their own, as of a sum: a weight layer that passes its inputs on and does not learn."""
        rank = len(vectors.shape) - 3
        if rank not in (0, 2):
            raise _refusal(layer, "Over one or three axes put a ReLU right behind a weight layer.")
        settings = {"name": layer.name, "dtype": layer.dtype_policy, "trainable": False, "use_bias": False}

        def make(_):
            if rank:
                return layers.VectorDepthwiseConv2D(1, kernel_initializer="ones", **settings)
            return layers.VectorDense(vectors.shape[-1], kernel_initializer="identity", **settings)

        return self._keep(self._made(layer, make, lambda made: made(vectors)))

    def _read(self, layer, inputs):
        if id(inputs) not in self._vectors:
            raise _refusal(layer, "A network of vector units has a hidden layer before its last one.")
        kept = {name: value for name, value in _kept(layer, 0).items() if name != "units"}
        readout = layers.VectorReadout(nonnegative=self._nonnegative, **kept)
        outputs = self._made(layer, lambda _: readout, lambda made: made(inputs))
        behind = []
        if self._vector_dim < self._classes:
            behind.append(layers.OutputCode(self._classes, dtype=layer.dtype_policy))
        if not _is_linear(layer):
            behind.append(keras.layers.Activation(layer.activation, dtype=layer.dtype_policy))
        for part in behind:
            outputs = self._made(part, lambda part: part, lambda made, x=outputs: made(x))
        return outputs


def _readout(outputs):
    """The last Dense of a model, behind which there are no other weights."""
    found = _weighty(outputs[0])
    if len(outputs) > 1 or len(outputs[0].shape) != 2 or _kind(found) != "Dense":
        raise ValueError(
            "One error vector is broadcast, so a model ends in one Dense, whose units become the components "
            f"of a VectorReadout. Received: outputs of shapes {[tensor.shape for tensor in outputs]}, from a "
            f"layer of type {type(found).__name__}."
        )
    return found


def _weighty(tensor):
    """The last layer with weights before a symbolic tensor, within nested models too."""
    found, givens = private.producer(tensor)
    if not getattr(found, "weights", ()):
        return _weighty(givens[0]) if len(givens) == 1 else found
    if isinstance(found, keras.Model):
        return _weighty(keras.tree.flatten(private.symbolic_outputs(found))[0])
    return found


_SUM = type(private.producer(keras.KerasTensor((1,)) + keras.KerasTensor((1,)))[0])  # x + y


def _kind(layer):
    """The name of a layer's class, of Keras or of this package."""
    base = type(layer)
    if base is _SUM:
        return "Add"
    known = keras.layers.__dict__.get(base.__name__) is base or base.__name__ in vars(layers)
    return base.__name__ if known else None


def _is_linear(layer):
    # Layers of this package have a gate for None.
    if isinstance(layer, layers.WeightLayer):
        return layer.activation is None and not layer.gated
    return getattr(layer, "activation", None) in (None, keras.activations.linear)


def _is_relu_function(layer):
    if isinstance(layer, layers.WeightLayer) and layer.activation is None:
        return layer.gated
    return getattr(layer, "activation", None) is keras.activations.relu


def _is_relu(layer):
    if _kind(layer) == "ReLU":
        return layer.max_value is None and not layer.negative_slope and not layer.threshold
    return _kind(layer) == "Activation" and layer.activation is keras.activations.relu


_KEPT = (
    *("name", "trainable", "units", "filters", "input_dim", "output_dim", "mask_zero"),
    *("kernel_size", "strides", "padding", "dilation_rate", "groups", "depth_multiplier", "use_bias"),
    *(
        f"{weight}_{kind}"
        for weight in ("kernel", "bias", "depthwise", "pointwise", "embeddings")
        for kind in ("regularizer", "constraint")
    ),
)


def _kept(layer, rank):
    """The settings that a counterpart shares."""
    config = {name: value for name, value in layer.get_config().items() if name in _KEPT}
    config["dtype"] = layer.dtype_policy
    kind = _kind(layer)
    renamed = {"Embedding": "embeddings", "DepthwiseConv2D": "depthwise"}.get(kind)
    if kind == "DepthwiseConv2D":
        config.pop("groups", None)
    if kind == "Dense" and rank:
        config |= {"filters": config.pop("units"), "kernel_size": 1}
    return {name.replace(f"{renamed}_", "kernel_"): value for name, value in config.items()}


def _named(name):
    return lambda rank: getattr(layers, f"Vector{name}")


# Functions from the rank of space to a class.
_WEIGHT_LAYERS = {
    # At every position of a space a Dense is a convolution of windows of 1.
    "Dense": lambda rank: getattr(layers, f"VectorConv{rank}D" if rank else "VectorDense"),
    **{
        name: _named(name)
        for name in (
            *("Conv1D", "Conv2D", "Conv3D", "DepthwiseConv2D", "SeparableConv2D"),
            *("LocallyConnected1D", "LocallyConnected2D", "Embedding"),
        )
    },
}


# Functions from a layer and the shape that it would be given to its counterparts, one behind the other.


def _pool(layer, shape):
    average = type(layer).__name__.replace("Max", "Average")
    if average != type(layer).__name__:
        warnings.warn(
            f"Max pooling is not linear, so layer '{layer.name}' becomes average pooling. Received: "
            f"{type(layer).__name__}.",
            stacklevel=6,
        )
    config = layer.get_config()
    if config.pop("data_format", None) == "channels_first":
        raise _refusal(layer, "Take data_format='channels_last'.")
    yield getattr(layers, f"Vector{average}").from_config(config)


def _drop(layer, shape):
    if layer.noise_shape is not None:
        raise _refusal(layer, "Leave noise_shape out: whole vectors are dropped.")
    yield layers.VectorDropout(layer.rate, layer.seed, name=layer.name, dtype=layer.dtype_policy)


def _flatten(layer, shape):
    if len(shape) > 2:
        yield layers.VectorFlatten(name=layer.name, dtype=layer.dtype_policy.name)


def _reshape(layer, shape):
    yield layers.VectorReshape(layer.target_shape, name=layer.name, dtype=layer.dtype_policy.name)


def _join(layer, shape):
    config = layer.get_config()
    axis = config.get("axis", -1)
    if axis == len(shape) - 1:
        config["axis"] = -1  # of the channels, behind the components
    elif axis < -1:
        config["axis"] = axis + len(shape)
    yield getattr(keras.layers, _kind(layer)).from_config(config)


_SHAPING = {
    **dict.fromkeys(
        [
            f"{way}{kind}Pooling{r}D"
            for way in ("", "Global")
            for kind in ("Average", "Max")
            for r in (1, 2, 3)
        ],
        _pool,
    ),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Dropout": _drop,
    **dict.fromkeys(["Add", "Average", "Concatenate", "Identity"], _join),
}
_WHOLE = "Leave it out, or train the model as it is, by keras_gevb.convert."
_GATES = "Vector units have gates, which stand for ReLUs: take activation='relu' of the weight layers."
_DROPOUT = "Take Dropout, which becomes VectorDropout."
_ADVICE = {
    **dict.fromkeys(["Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "Softmax"], _GATES),
    **dict.fromkeys([f"SpatialDropout{rank}D" for rank in (1, 2, 3)], _DROPOUT),
}


def _refusal(layer, advice=_WHOLE):
    return ValueError(
        "Between vector units a network is linear, and the same for each component, while gates are held. "
        f"Received: layer '{layer.name}' ({type(layer).__name__}), which has no counterpart there. {advice}"
    )
