"""The glue to the Keras backend: derivatives, compilation, and the signature of `train_step`.

Each backend has one module of the same functions; everything else is `keras.ops`.
"""

import importlib

import keras

_glue = importlib.import_module(f"keras_gevb.backend.{keras.backend.backend()}")

StepMixin = _glue.StepMixin
accelerator = _glue.accelerator
add_up = _glue.add_up
after = _glue.after
as_one = _glue.as_one
check_labels = _glue.check_labels
fusing = _glue.fusing
loss_gradients = _glue.loss_gradients
replicas = _glue.replicas
uncompiled = _glue.uncompiled
vjp = _glue.vjp
