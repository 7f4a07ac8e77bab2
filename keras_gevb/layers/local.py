"""A layer of layers as one place that learns."""

from typing import Any

import keras

from keras_gevb.any_layer import LayerPlace
from keras_gevb.types import Tensor


@keras.saving.register_keras_serializable(package="keras_gevb")
class Local(keras.layers.Wrapper):
    """A layer, or a model, that learns as one place: its signal arrives at its outputs.

        outputs = f(inputs, W)        dW = (df/dW)^T signal

    Keras layers learn in place without it. It is for what has places of its own, such as a block of several
    layers written as a model: wrapped, the rule's signal is sent to the block, whose inside learns by the
    derivative of the whole block's call.

    Args:
        layer: A Keras layer or model.

    Example:

    >>> block = keras.Sequential([keras.layers.Dense(32, "relu"), keras.layers.Dense(32)])
    >>> model = keras_gevb.Sequential(
    ...     [keras.Input((64,)), layers.Local(block), keras.layers.Dense(10)], learning_rule="dfa"
    ... )
    """

    def __init__(self, layer: Any, **kwargs: Any):
        super().__init__(layer, **kwargs)
        self.supports_masking = layer.supports_masking

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return self.layer(inputs, *args, **kwargs)

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        return self.layer.compute_mask(inputs, previous_mask)

    def as_place(self, examination: Any = None) -> LayerPlace:
        """The one place that its layer is: see `keras_gevb.places`."""
        return LayerPlace(self, examination)
