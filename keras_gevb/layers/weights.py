"""The weights of a layer: kernel, bias and gates, how they start and what constrains them."""

import math
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gevb import backend
from keras_gevb.initializers import GateSigns, MirroredNormal, OnOffNormal
from keras_gevb.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_gevb")
class Nonnegative(keras.constraints.Constraint):
    """max(W, 0), after another constraint where one is given.

    Args:
        first: A constraint, or None.

    Example:

    >>> keras.ops.convert_to_numpy(Nonnegative()(keras.ops.array([-1.0, 2.0]))).tolist() == [0.0, 2.0]
    True
    """

    def __init__(self, first: Any = None):
        self.first = keras.constraints.get(first)

    def __call__(self, w):
        return keras.constraints.NonNeg()(w if self.first is None else self.first(w))

    def get_config(self):
        return {"first": keras.constraints.serialize(self.first)}


class Weighted(keras.layers.Layer):
    """The part of `WeightLayer` that owns its weights.

    Args: see the concrete layers.
    """

    vectorized = True
    is_readout = False
    space_rank = 0  # number of spatial axes
    positions_rank = 0  # leading kernel axes that count output positions
    groups = 1  # parts of the channels, each seen by its own part of the units

    def __init__(
        self,
        units: int,
        *,
        vector_dim: int | None = None,
        nonnegative: bool | None = None,
        gated: bool = True,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = None,
        bias_initializer: Any = "zeros",
        gates_initializer: Any = None,
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        activity_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if activity_regularizer is not None:
            raise ValueError(
                f"Layer '{self.name}': an activity regularizer is not local, so no learning rule "
                "here can serve it. Regularize the kernel instead (kernel_regularizer). "
                f"Received: activity_regularizer={activity_regularizer}"
            )
        self.units = positive_integer("units", units, self.name)
        if vector_dim is not None:
            positive_integer("vector_dim", vector_dim, self.name)
        self.vector_dim = vector_dim
        self.nonnegative = nonnegative
        self.gated = gated
        self.activation = self._checked(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.gates_initializer = keras.initializers.get(gates_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)

    def _checked(self, activation):
        """The activation in place of the gate; None where the gate stays."""
        if activation is None:
            return None
        received = f"Received: activation={activation!r}"
        if self.vectorized:
            raise ValueError(
                f"Layer '{self.name}': vector units are gated as a whole, and no other activation leaves "
                f"them linear. {received}. Leave it out, or take conventional units."
            )
        if not self.gated:
            raise ValueError(
                f"Layer '{self.name}': without a gate the outputs are the logits. {received}, gated=False. "
                "Put keras.layers.Activation behind the layer, or leave out gated."
            )
        function = keras.activations.get(activation)
        if not _acts_on_each(function) or getattr(function, "trainable_variables", ()):
            raise ValueError(
                f"Layer '{self.name}': an activation is a function of each unit by itself, without weights. "
                f"{received}. Put it behind, as a layer of its own."
            )
        return function

    def kernel_axes(self, input_shape: Shape) -> tuple[Shape, Shape]:
        """The axes before the input channels: `(positions, window)`."""
        raise NotImplementedError(f"{type(self).__name__} must implement `kernel_axes`.")

    def kernel_ends(self, channels: int) -> tuple[int, int]:
        """The last axes of one component's kernel, from the number of input channels."""
        return channels, self.units

    @property
    def constrained(self) -> bool:
        """Whether the kernel is kept nonnegative."""
        if self.nonnegative is None:
            return self.vectorized and self.vector_dim is None
        return self.nonnegative

    def build(self, input_shape: Shape) -> None:
        self._check_rank(input_shape)
        channels = input_shape[-1]
        positions, window = self.kernel_axes(input_shape)
        inputs, outputs = self.kernel_ends(channels)
        first = () if self.vector_dim is None else (self.vector_dim,)
        components = (first or (input_shape[-2],)) if self.vectorized else ()
        self.input_spec = keras.layers.InputSpec(ndim=len(input_shape), axes={-1: channels})
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*positions, *window, inputs, *first, outputs),
            initializer=self.initial_kernel,
            regularizer=self.kernel_regularizer,
            constraint=Nonnegative(self.kernel_constraint) if self.constrained else self.kernel_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(*positions, *components, self.units),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.gates = None
        if self.gated and self.activation is None:
            self.gates = self._add_gates(components)

    def _add_gates(self, components):
        if not self.vectorized:
            return np.where(np.arange(self.units) % 2, 1.0, -1.0)
        return self.add_weight(
            name="gates",
            shape=(*components, self.units),
            initializer=self.gates_initializer or GateSigns(),
            trainable=False,
            autocast=False,
        )

    def _check_rank(self, input_shape):
        takes_vectors = self.vectorized and self.vector_dim is None
        rank = 2 + self.space_rank
        expected = rank + takes_vectors
        if len(input_shape) == expected:
            return
        message = f"Layer '{self.name}' ({type(self).__name__}) received input of shape {input_shape}"
        if takes_vectors and len(input_shape) == rank:
            raise ValueError(
                f"{message}, which is scalar: it has no vector axis. Give the first weight layer "
                "the number of outputs of the model: vector_dim=10 for ten classes. Behind vector units, "
                "VectorFlatten takes the place of Flatten."
            )
        if self.vector_dim is not None and len(input_shape) == rank + 1:
            raise ValueError(
                f"{message} with vector_dim={self.vector_dim}, but that input already has a vector "
                "axis. vector_dim belongs to layers on scalar input only: leave it out here."
            )
        advice = ""
        if len(input_shape) > expected and not self.space_rank:
            flatten = "VectorFlatten" if takes_vectors else "Flatten"
            advice = f" Put {flatten}() in front of it."
        raise ValueError(f"{message}, of rank {len(input_shape)}, but needs rank {expected}.{advice}")

    def initial_kernel(self, shape: Shape, dtype: Any = None, seed: int | None = None) -> Tensor:
        """Draw a kernel from the layer's initializer, by another seed where one is given."""
        p, w = self.positions_rank, self.space_rank
        positions, inputs, outputs = shape[:p], shape[p : p + w + 1], shape[p + w + 1 :]
        # As one wide map (*window, channels, outputs), whose fan-in every initializer knows.
        flat = self._drawn((*inputs, math.prod(positions + outputs)), dtype, seed)
        kernel = ops.reshape(flat, (*inputs, *positions, *outputs))
        return ops.moveaxis(kernel, tuple(range(w + 1, w + 1 + p)), tuple(range(p)))

    def _drawn(self, shape, dtype, seed):
        initializer = self.kernel_initializer or self._default_kernel_initializer()
        if seed is not None and "seed" in initializer.get_config():
            initializer = initializer.from_config({**initializer.get_config(), "seed": seed})
        self._check_pairs(initializer, channels=shape[-2])
        return initializer(shape, dtype=dtype)

    def _default_kernel_initializer(self):
        if self.constrained:
            return OnOffNormal()
        if self.vector_dim is None:
            return keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")
        if self.nonnegative is None:
            return MirroredNormal()
        return keras.initializers.VarianceScaling(1.0, "fan_in", "untruncated_normal")

    def _check_pairs(self, initializer, channels):
        pairs, part = {}, " of a group" if self.groups > 1 else ""
        if isinstance(initializer, (MirroredNormal, OnOffNormal)) and self.units != 1:
            pairs[f"units{part}"] = self.units // self.groups
        if isinstance(initializer, OnOffNormal):
            pairs[f"input channels{part}"] = channels
        for name, count in pairs.items():
            if count % 2:
                raise ValueError(
                    f"Layer '{self.name}': {type(initializer).__name__} makes ON/OFF pairs of "
                    f"{name}, so their number must be even. Received: {count} {name}. Choose "
                    f"{count + 1}, or pass another kernel_initializer, or nonnegative=False."
                )

    def save_own_variables(self, store: Any) -> None:
        if self.built:
            super().save_own_variables(store)

    def load_own_variables(self, store: Any) -> None:
        if not self.built and not store.keys():
            return  # saved before it was built
        super().load_own_variables(store)
        for variable in self.variables:
            if not ops.all(ops.isfinite(variable)):
                raise ValueError(
                    f"Layer '{self.name}' was given a {variable.name} that is not finite. Received: NaN or "
                    "infinity in the loaded file."
                )
        lowest = float(np.min(ops.convert_to_numpy(self.kernel)))
        if self.constrained and lowest < 0:
            warnings.warn(
                f"Layer '{self.name}' is nonnegative, but the kernel loaded into it has entries "
                f"below 0. Received: a smallest entry of {lowest}. The first optimizer step "
                "will set them to 0; pass nonnegative=False to keep them.",
                stacklevel=2,
            )

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "nonnegative": self.nonnegative,
            "gated": self.gated,
            "use_bias": self.use_bias,
        }
        if self.vectorized:
            config["vector_dim"] = self.vector_dim
            config["gates_initializer"] = keras.initializers.serialize(self.gates_initializer)
        else:
            config["activation"] = self.activation and keras.activations.serialize(self.activation)
        for weight in ("kernel", "bias"):
            for kind in ("initializer", "regularizer", "constraint"):
                name = f"{weight}_{kind}"
                module = getattr(keras, f"{kind}s")
                config[name] = module.serialize(getattr(self, name))
        return config


def _acts_on_each(function):
    """Whether a function of units takes each by itself."""
    try:
        with backend.now():
            numbers = ops.convert_to_tensor([[-2.0, -0.5, 0.25, 3.0]])
            together, alone = function(numbers), ops.transpose(function(ops.transpose(numbers)))
            return together.shape == alone.shape and bool(ops.all(ops.abs(together - alone) < 1e-3))
    except Exception:  # some functions need an even number of units
        return False


def is_positive_integer(value):
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= 1


def positive_integer(name, value, layer):
    if not is_positive_integer(value):
        raise ValueError(f"Layer '{layer}': {name} must be a positive integer. Received: {value!r}")
    return int(value)
