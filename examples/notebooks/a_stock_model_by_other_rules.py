# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A stock model by other rules
#
# Any functional or Sequential model of Keras can learn by another rule than backpropagation. Nothing in it
# has to be written again: `keras_gevb.convert` copies it, with its layers, names and weights.

# %%
import keras_gevb

# isort: split
import keras
import matplotlib.pyplot as plt
import numpy as np

(x, y), (x_test, y_test) = keras_gevb.datasets.load("digits")

# %% [markdown]
# ## A residual network, as anybody writes it

# %%
keras.utils.set_random_seed(0)
pixels = keras.Input((8, 8, 1))
h = keras.layers.Rescaling(1 / 8, offset=-1)(pixels)
h = keras.layers.Conv2D(16, 3, padding="same", use_bias=False)(h)
h = stem = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(h))
h = keras.layers.Conv2D(16, 3, padding="same", use_bias=False)(h)
h = keras.layers.ReLU()(keras.layers.Add()([stem, keras.layers.BatchNormalization(momentum=0.9)(h)]))
h = keras.layers.Flatten()(keras.layers.MaxPooling2D()(h))
stock = keras.Model(pixels, keras.layers.Dense(10)(h))

# %% [markdown]
# ## The same weights under four rules
#
# - `backprop`: each layer is told its own share of the error, through the weights of all later ones. This is
#   what stock Keras does, to rounding.
# - `fa`: the same way back, but through fixed random weights.
# - `kp`: through weights that begin at random, and become the network's own as both learn.
# - `dfa`: no way back: each layer is told a random projection of the error vector.

# %%
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
curves, models = {}, {}
for rule in ("backprop", "fa", "kp", "dfa"):
    model = models[rule] = keras_gevb.convert(stock, learning_rule=rule)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    logs = model.fit(x, y, batch_size=32, epochs=6, validation_data=(x_test, y_test), verbose=0)
    curves[rule] = 100 * (1 - np.array(logs.history["val_accuracy"]))
    print(f"{rule:8} test error {curves[rule][-1]:.1f} %")

# %%
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
for rule, curve in curves.items():
    axes.plot(range(1, len(curve) + 1), curve, label=rule)
axes.set(xlabel="epoch", ylabel="test error in percent", yscale="log")
axes.legend()
plt.show()

# %% [markdown]
# One seed and six epochs of an easy task order nothing; [Every rule on the same
# networks](../results/rules.md) has three seeds of all rules.
#
# ## What does each layer hear?
#
# The angle between what a rule tells a layer and what backpropagation would: 0 degrees is the gradient, 90
# nothing of it. And whose weights each update was seen to depend on.

# %%
for rule, model in models.items():
    angles = keras_gevb.diagnostics.alignment_angles(model, x[:64], y[:64])
    print(f"{rule:8}", {name: round(float(angle)) for name, angle in angles.items()})

# %%
print(keras_gevb.diagnostics.audit(models["dfa"], x[:32], y[:32]))

# %% [markdown]
# ## And back
#
# `to_keras` gives the stock model, trained. Its file needs nothing of this package.

# %%
trained = keras_gevb.export.to_keras(models["fa"])
trained.save("trained.keras")
again = keras.models.load_model("trained.keras")
print(type(again).__module__.split(".")[0], np.abs(again(x_test[:8]) - models["fa"](x_test[:8])).max())

# %% [markdown]
# ## Nothing to convert
#
# In a script of one's own the model's class is all that changes; `keras.layers` lines stay as they are.

# %%
model = keras_gevb.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Flatten(),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ],
    learning_rule="dfa",
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x, y, epochs=3, verbose=0)
print(f"test accuracy {model.evaluate(x_test, y_test, verbose=0, return_dict=True)['accuracy']:.2f}")

# %% [markdown]
# ## The vector network of a model's shape
#
# GEVB needs vector units, which no stock model has. `vectorize` builds the network of the same shape from
# them, with new weights: gates stand in place of ReLUs, average pooling of max pooling.

# %%
plain = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Rescaling(1 / 8, offset=-1),
        keras.layers.Flatten(),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(10),
    ]
)
vectors = keras_gevb.vectorize(plain, seed=0)
vectors.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
vectors.fit(x, y, batch_size=32, epochs=4, verbose=0)
print(f"test accuracy {vectors.evaluate(x_test, y_test, verbose=0, return_dict=True)['accuracy']:.2f}")
vectors.summary()
