"""What every weight layer shares: weights, gate, replay, local update."""

import math
import warnings

import keras
import numpy as np
from keras import ops

from keras_gevb import backend, trace
from keras_gevb.initializers import GateSigns, MirroredNormal, OnOffNormal

# Up to so many inputs a component, a gate of a first layer costs less from its contracted kernel
# (2 operations an input) than from reading the K components of h (4 bytes each).
_CONTRACTED = 13


class WeightLayer(keras.layers.Layer):
    """A linear map, a bias and a gate, on scalar or on vector units.

    A concrete layer says what its linear map is (`window` and `project`) and whether
    its units are `vectorized`. Everything else is here:

        h = project(a, W) + b       preactivation
        m = [t . h >= 0]            gate (a conventional unit has one component, t = -1 or 1)
        output = m h

    and, for a learning rule that sends each unit its `credit`, the local update

        dW = pullback of credit through project(s, .)      s = e . a   (s = a without K)
        db = sum of credit e

    Args: see the concrete layers.
    """

    vectorized = True
    is_readout = False
    space_rank = 0  # number of spatial axes
    positions_rank = 0  # leading kernel axes that count output positions

    def __init__(
        self,
        units,
        *,
        vector_dim=None,
        nonnegative=None,
        gated=True,
        use_bias=True,
        kernel_initializer=None,
        bias_initializer="zeros",
        gates_initializer=None,
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        activity_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if activity_regularizer is not None:
            raise ValueError(
                f"Layer '{self.name}': an activity regularizer is not local, so no learning rule "
                "here can serve it. Regularize the kernel instead (kernel_regularizer). "
                f"Received: activity_regularizer={activity_regularizer}"
            )
        self.units = _positive_integer("units", units, self.name)
        if vector_dim is not None:
            _positive_integer("vector_dim", vector_dim, self.name)
        self.vector_dim = vector_dim
        self.nonnegative = nonnegative
        self.gated = gated
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.gates_initializer = keras.initializers.get(gates_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)

    # What a concrete layer says of itself.

    def kernel_axes(self, input_shape):
        """The axes before the input channels: `(positions, window)`."""
        raise NotImplementedError

    def project(self, inputs, kernel):
        """The linear map, on `(batch, *space, channels)` or `(batch, *space, K, channels)`."""
        raise NotImplementedError

    def finish(self, activity):
        """The outputs, from the gated activity."""
        return activity

    # Weights.

    @property
    def constrained(self):
        """Whether the kernel is kept nonnegative."""
        if self.nonnegative is None:
            return self.vectorized and self.vector_dim is None
        return self.nonnegative

    def build(self, input_shape):
        self._check_rank(input_shape)
        channels = input_shape[-1]
        positions, window = self.kernel_axes(input_shape)
        first = () if self.vector_dim is None else (self.vector_dim,)
        components = (first or (input_shape[-2],)) if self.vectorized else ()
        self.input_spec = keras.layers.InputSpec(ndim=len(input_shape), axes={-1: channels})
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*positions, *window, channels, *first, self.units),
            initializer=self.initial_kernel,
            regularizer=self.kernel_regularizer,
            constraint=self._constrain if self.constrained else self.kernel_constraint,
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
        if self.gated:
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
        rank = 2 + self.space_rank
        expected = rank + (self.vectorized and self.vector_dim is None)
        if len(input_shape) == expected:
            return
        message = f"Layer '{self.name}' ({type(self).__name__}) received input of shape {input_shape}"
        if self.vectorized and self.vector_dim is None and len(input_shape) == rank:
            raise ValueError(
                f"{message}, which is scalar: it has no vector axis. Give the first weight layer "
                "the number of outputs of the model: vector_dim=10 for ten classes."
            )
        if self.vector_dim is not None and len(input_shape) == rank + 1:
            raise ValueError(
                f"{message} with vector_dim={self.vector_dim}, but that input already has a vector "
                "axis. vector_dim belongs to layers on scalar input only: leave it out here."
            )
        raise ValueError(f"{message}, of rank {len(input_shape)}, but needs rank {expected}.")

    def initial_kernel(self, shape, dtype=None, seed=None):
        """Draw a kernel from the layer's initializer, by another seed where one is given."""
        p, w = self.positions_rank, self.space_rank
        positions, inputs, outputs = shape[:p], shape[p : p + w + 1], shape[p + w + 1 :]
        initializer = self.kernel_initializer or self._default_kernel_initializer()
        if seed is not None and "seed" in initializer.get_config():
            initializer = initializer.from_config({**initializer.get_config(), "seed": seed})
        self._check_pairs(initializer, channels=inputs[-1])
        # As one wide map (*window, channels, outputs), whose fan-in every initializer knows.
        flat = initializer((*inputs, math.prod(positions + outputs)), dtype=dtype)
        kernel = ops.reshape(flat, (*inputs, *positions, *outputs))
        return ops.moveaxis(kernel, tuple(range(w + 1, w + 1 + p)), tuple(range(p)))

    def _default_kernel_initializer(self):
        if self.constrained:
            return OnOffNormal()
        if self.vector_dim is None:
            return keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")
        if self.nonnegative is None:
            return MirroredNormal()
        return keras.initializers.VarianceScaling(1.0, "fan_in", "untruncated_normal")

    def _check_pairs(self, initializer, channels):
        pairs = {}
        if isinstance(initializer, (MirroredNormal, OnOffNormal)) and self.units != 1:
            pairs["units"] = self.units
        if isinstance(initializer, OnOffNormal):
            pairs["input channels"] = channels
        for name, count in pairs.items():
            if count % 2:
                raise ValueError(
                    f"Layer '{self.name}': {type(initializer).__name__} makes ON/OFF pairs of "
                    f"{name}, so their number must be even. Received: {count} {name}. Choose "
                    f"{count + 1}, or pass another kernel_initializer, or nonnegative=False."
                )

    def _constrain(self, kernel):
        if self.kernel_constraint is not None:
            kernel = self.kernel_constraint(kernel)
        return keras.constraints.NonNeg()(kernel)

    def load_own_variables(self, store):
        super().load_own_variables(store)
        for variable in self.variables:
            if not ops.all(ops.isfinite(variable)):
                raise ValueError(
                    f"Layer '{self.name}' was given a {variable.name} that is not finite. Received: NaN or "
                    "infinity in the loaded file."
                )
        lowest = float(ops.min(self.kernel))
        if self.constrained and lowest < 0:
            warnings.warn(
                f"Layer '{self.name}' is nonnegative, but the kernel loaded into it has entries "
                f"below 0. Received: a smallest entry of {lowest}. The first optimizer step "
                "will set them to 0; pass nonnegative=False to keep them.",
                stacklevel=2,
            )

    # Activity.

    def call(self, inputs):
        return trace.current().run(self, inputs)

    def activate(self, inputs):
        """The layer's outputs and its gate."""
        inputs = ops.cast(inputs, self.compute_dtype)
        h = self._preactivation(inputs)
        gate = ops.cast(self._gate(inputs, h), h.dtype)
        # Multiplied, not selected: so a NaN in h is seen in the loss.
        return self.finish(self._over_components(gate) * h), gate

    def _preactivation(self, inputs):
        if self.vector_dim is None:
            h = self.project(inputs, self.kernel)
        else:
            # K maps of the scalar input, side by side.
            *rest, components, units = self.kernel.shape
            kernel = ops.reshape(self.kernel, (*rest, components * units))
            h = self.project(inputs, kernel)
            h = ops.reshape(h, (*ops.shape(h)[:-1], components, units))
        return h if self.bias is None else h + self.bias

    def _gate(self, inputs, h):
        """Whether t . h >= 0, decided in float32 at least."""
        if not self.gated:
            return ops.ones_like(h[..., 0, :] if self.vectorized else h)
        dtype = keras.backend.result_type(self.variable_dtype, "float32")
        gates = ops.cast(self.gates, dtype)
        if not self.vectorized:
            return ops.cast(h, dtype) * gates >= 0
        if self.vector_dim is None or math.prod(self.kernel.shape[:-2]) > _CONTRACTED * self.vector_dim:
            return ops.sum(ops.cast(h, dtype) * gates, axis=-2) >= 0
        # t . h = (t . W) x + t . b, without reading the K components of h.
        kernel = ops.sum(ops.cast(self.kernel, dtype) * gates, axis=-2)
        aligned = self.project(ops.cast(inputs, dtype), kernel)
        if self.bias is not None:
            aligned += ops.sum(ops.cast(self.bias, dtype) * gates, axis=-2)
        return aligned >= 0

    def _over_components(self, scalars):
        return ops.expand_dims(scalars, -2) if self.vectorized else scalars

    # Learning.

    def replay(self, inputs, kernel, gate, perturbation):
        """The outputs of one component, gates held; what does not depend on `inputs` is left out."""
        activity = self._over_components(perturbation)
        if self.vector_dim is None:
            activity += self._over_components(gate) * self.project(inputs, kernel)
        return self.finish(activity)

    def updates(self, inputs, credit, error):
        """The local updates of the trainable weights.

            dW_ij = sum credit_i (e . a_j)        db_i = sum credit_i e

        Args:
            inputs: What the layer received, a.
            credit: What the learning rule tells each unit, `(batch, *space, units)`.
            error: The error vector e, `(batch, K)`.

        Returns:
            A list of pairs (variable, update).
        """
        if not self.trainable:
            return []
        updates = [(self.kernel, self._kernel_update(inputs, credit, error))]
        if self.bias is not None:
            updates.append((self.bias, self._bias_update(credit, error)))
        return [(v, ops.cast(update, v.dtype)) for v, update in updates]

    def _kernel_update(self, inputs, credit, error):
        inputs = ops.cast(inputs, credit.dtype)
        shape = self.kernel.shape
        if self.vectorized:
            batch, components = ops.shape(error)
            space = (1,) * self.space_rank
            error = ops.cast(error, credit.dtype)
            if self.vector_dim is None:
                error = ops.reshape(error, (batch, *space, components, 1))
                inputs = ops.sum(inputs * error, axis=-2)
            else:
                # e . a of the expanded input: x e_k for copy k of each channel.
                error = ops.reshape(error, (batch, *space, 1, components))
                inputs = ops.expand_dims(inputs, -1) * error
                inputs = ops.reshape(inputs, (*ops.shape(inputs)[:-2], -1))
                shape = (*shape[:-3], shape[-3] * shape[-2], shape[-1])
        # The map is linear in its kernel, so any kernel gives the same pullback.
        anywhere = ops.zeros(shape, dtype=credit.dtype)
        (update,) = backend.vjp(lambda kernel: self.project(inputs, kernel), [anywhere], credit)
        return ops.reshape(update, self.kernel.shape)

    def _bias_update(self, credit, error):
        credit = ops.cast(credit, self.bias.dtype)
        if not self.positions_rank:
            credit = ops.sum(credit, axis=tuple(range(1, 1 + self.space_rank)))
        if not self.vectorized:
            return ops.sum(credit, axis=0)
        error = ops.cast(error, self.bias.dtype)
        *positions, components, units = self.bias.shape
        credit = ops.reshape(credit, (-1, math.prod(positions) * units))
        update = ops.matmul(ops.transpose(error), credit)
        return ops.moveaxis(ops.reshape(update, (components, *positions, units)), 0, -2)

    def get_config(self):
        config = {
            **super().get_config(),
            "nonnegative": self.nonnegative,
            "gated": self.gated,
            "use_bias": self.use_bias,
        }
        if self.vectorized:
            config["vector_dim"] = self.vector_dim
            config["gates_initializer"] = keras.initializers.serialize(self.gates_initializer)
        for weight in ("kernel", "bias"):
            for kind in ("initializer", "regularizer", "constraint"):
                name = f"{weight}_{kind}"
                module = getattr(keras, f"{kind}s")
                config[name] = module.serialize(getattr(self, name))
        return config


def _positive_integer(name, value, layer):
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ValueError(f"Layer '{layer}': {name} must be a positive integer. Received: {value!r}")
    return int(value)
