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
# # Export a step, and train without Keras
#
# A step of GEVB is a forward computation: activity, the error vector, one product for each weight. So it
# fits into a graph that a runtime for inference runs, where backpropagation needs a runtime for training.
# Here such a graph learns in a process that has ONNX Runtime and no Keras.

# %%
import keras_gevb

# isort: split
import pathlib
import subprocess
import sys
import tempfile
import textwrap

import keras
import matplotlib.pyplot as plt
import numpy as np
import onnx
from scipy import ndimage

(x, y), (x_test, y_test) = keras_gevb.datasets.load("digits")
keras.utils.set_random_seed(0)
model = keras_gevb.zoo.build("digits", "fc", width=0.5)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(2e-3), loss, metrics=["accuracy"])
model.fit(x, y, epochs=5, verbose=0)


def error(images):
    return f"{1 - model.evaluate(images, y_test, verbose=0)[1]:.1%}"


error(x_test)

# %% [markdown]
# ## New data
#
# Somebody holds the phone askew: digits turned by 30 degrees.


# %%
def turned(images):
    return ndimage.rotate(images, 30, axes=(2, 1), reshape=False, order=1).astype("float32")


error(turned(x_test))

# %% [markdown]
# ## The step as a file
#
# One ordinary ONNX graph. Its inputs are a batch and the state: weights, and what Adam keeps. Their present
# values are in the file. Its outputs are the loss, the logits, and the state after the step.

# %%
folder = pathlib.Path(tempfile.mkdtemp())
keras_gevb.export.to_trainable_onnx(model, folder / "step.onnx", batch_size=32)
graph = onnx.load(folder / "step.onnx").graph
for name in ("input", "output"):
    names = ", ".join(value.name for value in getattr(graph, name))
    print(textwrap.fill(f"{name}s: {names}", 90))

# %% [markdown]
# ## Elsewhere
#
# All that the device needs: NumPy, ONNX Runtime, and these lines. A step's new state is the next one's.

# %%
DEVICE = """
import sys
sys.modules.update(dict.fromkeys(["keras", "tensorflow", "keras_gevb"]))  # they cannot be imported

import numpy as np
import onnxruntime

options = onnxruntime.SessionOptions()
options.log_severity_level = 3  # else a warning for each value that the file has
session = onnxruntime.InferenceSession("step.onnx", options)
names = [output.name for output in session.get_outputs()]
data, state, losses = np.load("data.npz"), {}, []
for x, y in zip(data["x"], data["y"]):
    loss, _, *values = session.run(None, {"x": x, "y": y, **state})
    state = {name.removesuffix("_new"): np.asarray(value) for name, value in zip(names[2:], values)}
    losses.append(loss)
np.savez("state.npz", **state)
np.save("losses.npy", losses)
"""
(folder / "device.py").write_text(DEVICE)
order = np.concatenate([np.random.default_rng(epoch).permutation(len(x))[: 44 * 32] for epoch in range(5)])
images, labels = turned(x)[order].reshape(-1, 32, 8, 8, 1), y[order].reshape(-1, 32).astype("int32")
np.savez(folder / "data.npz", x=images, y=labels)
subprocess.run([sys.executable, "device.py"], cwd=folder, check=True)

figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.plot(np.load(folder / "losses.npy"))
axes.set(xlabel="step on the device", ylabel="loss", yscale="log")
plt.show()

# %% [markdown]
# ## And back
#
# The state goes into the model by name, and training goes on from it as if it had happened here.

# %%
keras_gevb.export.load_state(model, dict(np.load(folder / "state.npz")))
print("turned digits, after:", error(turned(x_test)))
print("Adam's steps:", int(model.optimizer.iterations), "=", 5 * 45, "here +", len(images), "there")

# %% [markdown]
# The same step as a LiteRT file for phones, as a SavedModel, and in a browser: see *Train on the device*.
