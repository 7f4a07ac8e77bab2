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
# # Is it secretly backpropagation?
#
# Whoever reads that a network learned without backpropagation should ask this. Three measurements answer
# it: whose weights an update depends on, whether it ever opposes the gradient, and how far from it it
# points.

# %%
import keras_gevb

# isort: split
import keras
import matplotlib.pyplot as plt
import numpy as np

from keras_gevb import diagnostics

(x, y), test = keras_gevb.datasets.load("digits")
few, labels = x[:32], y[:32]


def network(learning_rule, nonnegative=True):
    keras.backend.clear_session()  # names of layers count from one again
    keras.utils.set_random_seed(1)
    model = keras_gevb.zoo.build(
        "digits", "fc", nonnegative=nonnegative, learning_rule=learning_rule, width=0.5
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    return model


# %% [markdown]
# ## Whose weights does an update depend on?
#
# `audit` changes each layer's weights in turn, holds the error vector and what every layer received, and
# looks which updates change. GEVB repeats every other layer's update exactly. Backpropagation does not.
# (`certify` asks for more: later activity, other samples, targets, and what a rule remembers.)

# %%
print(diagnostics.audit(network("gevb"), few, labels))

# %%
print(diagnostics.audit(network("backprop"), few, labels))

# %% [markdown]
# ## The sign theorem
#
# In a network of vector units the gradient of a weight is GEVB's update times one number g for its unit.
# With nonnegative weights g is never negative: in no example does an update oppose the gradient.

# %%
for nonnegative in (True, False):
    agreement = diagnostics.sign_agreement(network("gevb", nonnegative), few, labels)
    print("nonnegative" if nonnegative else "mixed signs", {n: round(s, 3) for n, s in agreement.items()})

# %% [markdown]
# By hand, from the two lists of updates of one example:

# %%
model = network("gevb")
sent = model.compute_updates(few[:1], labels[:1])
exact = model.compute_updates(few[:1], labels[:1], learning_rule="backprop")
opposed = sum(int(np.sum(np.array(a) * np.array(b) < 0)) for a, b in zip(sent, exact))
different = max(float(np.max(np.abs(np.array(a) - np.array(b)))) for a, b in zip(sent, exact))
print(f"weights pushed against the gradient: {opposed}; largest difference from it: {different:.3f}")

# %% [markdown]
# ## How far from the gradient, before and while it trains?
#
# The alignment angle: 0 degrees follow the gradient, 90 know nothing of it. Here with nonnegative weights
# and with mixed signs.

# %%
figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
for nonnegative, style in ((True, "-"), (False, "--")):
    model = network("gevb", nonnegative)
    before = diagnostics.alignment_angles(model, few, labels)
    monitor = diagnostics.AlignmentMonitor(few, labels, measures=["alignment"])
    history = model.fit(x, y, epochs=6, callbacks=[monitor], verbose=0).history
    for layer, angle in before.items():
        signs = "nonnegative" if nonnegative else "mixed signs"
        axes.plot([angle, *history[f"alignment/{layer}"]], style, label=f"{layer}, {signs}")
axes.set(xlabel="epoch", ylabel="angle to the gradient (degrees)", ylim=(0, 110))
axes.legend(fontsize=7)
plt.show()

# %% [markdown]
# So: no, it is not backpropagation, by the first measurement; and it gets along without it because of the
# second and the third.
