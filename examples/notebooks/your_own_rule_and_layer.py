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
# # Your own rule and layer
#
# A rule says what units are told. A layer says what its linear map is. Gates, products, the optimizer,
# saving, diagnostics and exports follow from that.

# %%
import keras_gevb

# isort: split
import keras

from keras_gevb import diagnostics, layers, rules

(x, y), test = keras_gevb.datasets.load("digits")
few, labels = x[:32], y[:32]

# %% [markdown]
# ## A rule
#
# Suppose that each layer hears the broadcast the more faintly the farther it is from the readout. A rule of
# which each unit's signal follows from its own record and what is broadcast is a `LocalRule`: one method,
# `signal`.


# %%
@keras.saving.register_keras_serializable(package="notebook")
class FadingGEVB(rules.LocalRule):
    """GEVB that is heard with half the strength in each layer away from the readout."""

    vectorized = True

    def signal(self, record, step):
        away = len(step.records) - 1 - record.number
        return 0.5**away * keras.ops.ones_like(record.gate)


def train(model, epochs=6):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    history = model.fit(x, y, epochs=epochs, validation_data=test, verbose=0).history
    return 100 * (1 - history["val_accuracy"][-1])


for rule in ("gevb", FadingGEVB()):
    keras.utils.set_random_seed(0)
    model = keras_gevb.zoo.build("digits", "fc", learning_rule=rule, width=0.5)
    print(f"{rule}: test error {train(model):.1f} %")

# %% [markdown]
# Is it still local, and does it still agree with the gradient? Nothing has to be proved by hand:

# %%
print(diagnostics.certify(model, few, labels))
print(diagnostics.sign_agreement(model, few, labels))

# %% [markdown]
# It is saved and comes back by its registered name.

# %%
model.save("fading.keras")
print(keras.models.load_model("fading.keras").learning_rule)

# %% [markdown]
# ## A layer
#
# Units that see only part of what the layer before computes: the inputs in groups, one group for each group
# of units. `kernel_axes` says which axes the kernel has before its input channels, `project` what the map
# is. It must be linear in both arguments, and runs on scalars and on all components at once.


# %%
@keras.saving.register_keras_serializable(package="notebook")
class VectorGrouped(layers.WeightLayer):
    """h_i = sum over the inputs j of i's group of W_ij a_j, + b_i."""

    groups = 4

    def kernel_axes(self, input_shape):
        return (), ()

    def project(self, inputs, kernel):
        size_in, size_out = kernel.shape[-2] // self.groups, kernel.shape[-1] // self.groups
        parts = [
            keras.ops.matmul(
                inputs[..., g * size_in : (g + 1) * size_in],
                kernel[g * size_in : (g + 1) * size_in, ..., g * size_out : (g + 1) * size_out],
            )
            for g in range(self.groups)
        ]
        return keras.ops.concatenate(parts, axis=-1)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def grouped(learning_rule):
    keras.utils.set_random_seed(0)
    return keras_gevb.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Rescaling(1 / 8, offset=-1),
            keras.layers.Flatten(),
            layers.VectorDense(64, vector_dim=10),
            VectorGrouped(32),
            layers.VectorReadout(),
        ],
        learning_rule=learning_rule,
    )


# %% [markdown]
# Every rule trains it, the exact gradient too: no derivative was written.

# %%
for rule in ("gevb", "backprop", "fa"):
    print(f"{rule}: test error {train(grouped(rule)):.1f} %")
