"""
Title: Training without backpropagation: error-vector broadcasting in ten minutes
Author: The keras_gevb authors
Date created: 2026/11/26
Last modified: 2026/11/26
Description: Train a classifier of digits by broadcasting one error vector to all hidden units.
Accelerator: NONE
"""

"""
## Introduction

Backpropagation tells each unit of a network its own share of the error, and computes these shares layer by
layer, backwards, through the very weights that the network uses. *Global error-vector broadcasting* (GEVB)
does away with that: the derivative of the loss in the outputs, one vector, is broadcast to all units, and
each weight changes by a product of what its two units know and of that vector.

It works in networks whose hidden units are vectors with as many components as the network has outputs, and
whose weights past the first layer are nonnegative. We build one, train it on the 8 x 8 digits that come
with scikit-learn, train the same network by backpropagation, and compare.

Reference: Clark, Abbott and Chung, *Credit Assignment Through Broadcasting a Global Error Vector*, NeurIPS
2021.
"""

"""
## Setup
"""

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_gevb
from keras_gevb import layers

"""
## Data

1,438 images to train, 359 to test, pixels from 0 to 16.
"""

(x, y), (x_test, y_test) = keras_gevb.datasets.load("digits")
print(x.shape, x_test.shape)

"""
## A network of vector units

Each hidden unit holds 10 numbers, one for each class. `vector_dim=10` says so once, where pixels become
vectors; later layers know. There, weights are kept at or above zero. Units are gated as a whole, so there
are no activation functions. The readout's ten numbers are the logits.
"""


def network(learning_rule):
    keras.backend.clear_session()  # names of layers count from one again
    keras.utils.set_random_seed(0)
    model = keras_gevb.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Rescaling(1 / 8, offset=-1),
            keras.layers.Flatten(),
            layers.VectorDense(128, vector_dim=10),
            layers.VectorDense(64),
            layers.VectorReadout(),
        ],
        learning_rule=learning_rule,
    )
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


"""
## Training

The rule is an argument of the model. Everything else is Keras: both networks start from the same weights
and see the same batches.
"""

histories = {}
for learning_rule in ("gevb", "backprop"):
    model = network(learning_rule)
    fitted = model.fit(x, y, batch_size=32, epochs=15, validation_data=(x_test, y_test), verbose=0)
    histories[learning_rule] = fitted.history
    print(f"{learning_rule}: test error {100 * (1 - fitted.history['val_accuracy'][-1]):.1f} %")

"""
## Comparison
"""

figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
for learning_rule, history in histories.items():
    errors = 100 * (1 - np.array(history["val_accuracy"]))
    axes.plot(range(1, len(errors) + 1), errors, label=learning_rule)
axes.set(xlabel="epoch", ylabel="test error (%)", yscale="log")
axes.legend()

"""
## Does it follow the gradient?

`compute_updates` gives what a rule would hand to the optimizer. In each single example no weight of the
GEVB network is pushed against the gradient: the share of weights that agree is 1.
"""

model = network("gevb")
print(keras_gevb.diagnostics.sign_agreement(model, x[:16], y[:16]))

"""
## Conclusion

One broadcast vector trained a deep network to nearly the error of backpropagation, without a backward pass.
The saved file goes on training by its rule wherever keras_gevb is installed.
"""

model.save("digits.keras")
