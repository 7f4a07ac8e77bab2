"""What every weight layer does: it projects, gates, runs again, and updates itself locally."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_gevb import backend, passes, private
from keras_gevb.layers.weights import Weighted
from keras_gevb.types import Pairs, Record, Shape, Tensor

# Up to so many inputs a component, a gate of a first layer costs less from its contracted kernel
# (2 operations an input) than from reading the K components of h (4 bytes each). Not where every
# position has a kernel: there JAX's compiled step, on CPU, got other gates than its parts alone.
_CONTRACTED = 13


class WeightLayer(Weighted):
    """A linear map, a bias and a gate, on scalar or on vector units.

    A concrete layer says what its linear map is (`kernel_axes` and `project`) and whether
    its units are `vectorized`. Everything else is here:

        h = project(a, W) + b       preactivation
        m = [t . h >= 0]            gate (a conventional unit has one component, t = -1 or 1)
        output = m h                or activation(h), of conventional units: then m is its derivative at h

    and, for a learning rule that sends each unit its `credit`, the local update

        dW = pullback of credit through project(s, .)      s = e . a   (s = a without K)
        db = sum of credit e

    Args: see the concrete layers.
    """

    def project(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """The linear map, on `(batch, *space, channels)` or `(batch, *space, K, channels)`."""
        raise NotImplementedError(f"{type(self).__name__} must implement `project`.")

    def positions(self, space: Sequence[Any]) -> Sequence[Any]:
        """The extents of the output's space, from those of the input's."""
        return space

    def finish(self, activity: Tensor) -> Tensor:
        """The outputs, from the gated activity."""
        return activity

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, *space = input_shape[: 1 + self.space_rank]
        components: Shape = ()
        if self.vectorized:
            components = (self.vector_dim or input_shape[-2],)
        return (batch, *self.positions(space), *components, self.units)

    def call(self, inputs: Tensor) -> Tensor:
        return passes.current().run(self, ops.convert_to_tensor(inputs, sparse=False))

    def received(self, inputs: Tensor) -> Tensor:
        """The inputs as `project` takes them."""
        return ops.cast(inputs, self.compute_dtype)

    def activate(self, inputs: Tensor, gated: bool = True) -> tuple[Tensor, Tensor]:
        """The layer's outputs and its gate, open everywhere unless `gated`; None of an activation."""
        inputs = self.received(inputs)
        h = self._preactivation(inputs)
        if self.activation is not None and gated:
            return self.finish(self.activation(h)), None
        gate = ops.cast(self._gate(inputs, h, gated and self.gated), h.dtype)
        # Multiplied, not selected: so a NaN in h is seen in the loss.
        return self.finish(self._over_components(gate) * h), gate

    def _preactivation(self, inputs):
        if self.vector_dim is None:
            h = self.project(inputs, self.kernel)
        else:
            # K maps of the scalar input, side by side.
            kernel = ops.reshape(self.kernel, (*self.kernel.shape[:-2], -1))
            h = self.project(inputs, kernel)
            h = ops.reshape(h, (*ops.shape(h)[:-1], self.vector_dim, self.units))
        return h if self.bias is None else h + self.bias

    def _gate(self, inputs, h, gated):
        """Whether t . h >= 0, decided in float32 at least."""
        if not gated:
            return ops.ones_like(h[..., 0, :] if self.vectorized else h)
        dtype = keras.backend.result_type(self.variable_dtype, "float32")
        gates = ops.cast(self.gates, dtype)
        if not self.vectorized:
            return ops.cast(h, dtype) * gates >= 0
        by_units = not self.positions_rank and self.kernel.shape[-1] == self.units
        contracts = self.vector_dim is not None and by_units
        if not contracts or math.prod(self.kernel.shape[:-2]) > _CONTRACTED * self.vector_dim:
            return ops.sum(ops.cast(h, dtype) * gates, axis=-2) >= 0
        # t . h = (t . W) x + t . b, without reading the K components of h.
        kernel = ops.sum(ops.cast(self.kernel, dtype) * gates, axis=-2)
        aligned = self.project(ops.cast(inputs, dtype), kernel)
        if self.bias is not None:
            aligned = aligned + ops.sum(ops.cast(self.bias, dtype) * gates, axis=-2)
        return aligned >= 0

    def _over_components(self, scalars):
        return ops.expand_dims(scalars, -2) if self.vectorized else scalars

    # Learning.

    def as_place(self, examination: Any = None) -> Any:
        """The place of this layer, itself: see `keras_gevb.places`."""
        return self

    def as_layer(self) -> Any:
        """The layer of this place, itself."""
        # No attribute: files hold what is found by a layer's attributes, and by those of what is found.
        return self

    def record(self, number: int, inputs: Tensor) -> Record:
        """What one call holds, for learning."""
        if self.activation is None:
            outputs, gate = self.activate(inputs)
        else:
            h = self._preactivation(self.received(inputs))
            outputs, _, pullback = backend.linearized(lambda h: (self.activation(h), ()), [h])
            (gate,) = pullback(ops.ones_like(outputs))
            gate = ops.zeros_like(outputs) if gate is None else gate
        return passes.Record(self, number, inputs, gate, outputs)

    def source(self, record: Record, component: int | None = None) -> Tensor:
        """What `activate_again` leaves out; with it as perturbation, that is the recorded pass."""
        if self.vector_dim is not None:
            return record.outputs[..., component, :]
        if self.bias is None or not self.vectorized:
            return ops.zeros_like(record.gate)
        return record.gate * ops.cast(self.bias[..., component, :], record.gate.dtype)

    def activate_again(self, record: Record, inputs: Tensor, perturbation: Tensor) -> Tensor:
        """The outputs with gates held: of one component of vectors, without what no input acts on.

        Of conventional units they are those of the recorded pass, at which what follows may bend, whatever
        the kernel in force, along which they change.
        """
        activity = self._over_components(perturbation)
        if self.vector_dim is None:
            kernel = ops.cast(self.kernel, self.compute_dtype)
            seen = self._over_components(record.gate) * self.project(inputs, kernel)
            if not self.vectorized:
                seen = record.outputs + (seen - ops.stop_gradient(seen))
            activity = activity + seen
        return self.finish(activity)

    def feedback(self, seed: int) -> Pairs:
        """Pairs (variable, initializer): a random kernel in the place of each on the way back."""
        return [(self.kernel, functools.partial(self.initial_kernel, seed=seed))]

    def uses(self) -> list[passes.Use]:
        """How a model uses the layer: a `Use` for each call."""
        shapes = [shape[1:] for shape in private.output_shapes(self)]
        if self.vectorized:
            shapes = [(*shape[:-2], shape[-1]) for shape in shapes]
        return [passes.Use(shape, self.is_readout) for shape in shapes]

    @property
    def is_gated(self) -> bool:
        """Whether no network ends in it."""
        return not self.is_readout

    @property
    def kernels(self) -> list[Any]:
        """The weights between units, a list."""
        return [self.kernel]

    def updates(self, record: Record, credit: Tensor, error: Tensor) -> Pairs:
        """The local updates of the trainable weights.

            dW_ij = sum credit_i (e . a_j)        db_i = sum credit_i e

        Args:
            record: The call, which received a.
            credit: What the learning rule tells each unit, `(batch, *space, units)`.
            error: The error vector e, `(batch, K)`.

        Returns:
            A list of pairs (variable, update).
        """
        if not self.trainable:
            return []
        updates = [(self.kernel, self._kernel_update(record.inputs, credit, error))]
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
                # Over an unknown number of channels Keras has XLA convolve, compiled for each batch size.
                channels = math.prod(inputs.shape[-2:])
                inputs = ops.reshape(inputs, (*ops.shape(inputs)[:-2], channels))
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
