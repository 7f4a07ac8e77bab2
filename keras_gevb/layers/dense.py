"""Dense layers: every unit sees every input."""

import keras
from keras import ops

from keras_gevb.layers.base import WeightLayer


class _Dense(WeightLayer):
    """h_i = sum_j W_ij a_j + b_i."""

    def kernel_axes(self, input_shape):
        return (), ()

    def project(self, inputs, kernel):
        return ops.matmul(inputs, kernel)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorDense(_Dense):
    """Densely connected vector units."""


@keras.saving.register_keras_serializable(package="keras_gevb")
class Dense(_Dense):
    """Densely connected conventional units."""

    vectorized = False

    @property
    def is_readout(self):
        return not self.gated


@keras.saving.register_keras_serializable(package="keras_gevb")
class VectorReadout(_Dense):
    """One ungated vector unit, whose K components are the logits."""

    is_readout = True

    def __init__(self, **kwargs):
        super().__init__(1, gated=False, **kwargs)

    def finish(self, activity):
        return ops.squeeze(activity, axis=-1)

    def get_config(self):
        config = super().get_config()
        for name in ("units", "gated", "vector_dim", "gates_initializer"):
            del config[name]
        return config
