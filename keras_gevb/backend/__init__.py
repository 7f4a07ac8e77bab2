"""The glue to the Keras backend: derivatives, compilation, and the signature of `train_step`."""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_gevb.backend.tensorflow import (
        StepMixin,
        add_up,
        check_labels,
        fusing,
        loss_gradients,
        vjp,
    )
else:
    raise ImportError(
        "keras_gevb runs on the TensorFlow backend of Keras. "
        f"Received: KERAS_BACKEND={keras.backend.backend()}. Set KERAS_BACKEND=tensorflow."
    )

__all__ = ["StepMixin", "add_up", "check_labels", "fusing", "loss_gradients", "vjp"]
