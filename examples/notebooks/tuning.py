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
# # Tuning with keras-tuner
#
# A learning rate that is good for backpropagation need not be good for another rule. So search, under the
# same budget for each.

# %%
import functools

import keras_gevb

# isort: split
from keras_gevb import tuning

(x, y), (x_test, y_test) = keras_gevb.datasets.load("digits")
training, validation = (x[:1150], y[:1150]), (x[1150:], y[1150:])

# %% [markdown]
# ## A search space
#
# A value is fixed, a list is chosen from, a pair is a range. Widths are no choice of their own: they follow
# from the budget of parameters, so that trials are comparable.

# %%
space = functools.partial(
    tuning.VNNHyperModel,
    "fc",
    (8, 8, 1),
    10,
    brightest=16,
    learning_rate=(1e-3, 3e-2),
    depth=[1, 2],
    parameters=20_000,
    optimizer="adam",
    batch_size=128,
)

# %% [markdown]
# ## A search
#
# The tuners are keras-tuner's. Killed at any moment, the same lines go on where they were.

# %%
search = tuning.RandomSearch(
    space(seed=0), objective="val_accuracy", max_trials=3, seed=0, directory="tuning"
)
search.search(*training, validation_data=validation, epochs=3, verbose=0)
for trial in sorted(search.trials, key=lambda trial: -trial.score):
    values = trial.hyperparameters.values
    error = 100 * (1 - trial.score)
    print(f"{error:5.1f} %  learning rate {values['learning_rate']:.1e}, depth {values['depth']}")

# %% [markdown]
# ## The winner
#
# Trained anew on all training images, and met by the test images once.

# %%
(best,) = search.get_best_hyperparameters()
hypermodel = space(seed=0)
model = hypermodel.build(best)
hypermodel.fit(best, model, x, y, epochs=6, verbose=0)
print(
    f"test error {100 * (1 - model.evaluate(x_test, y_test, verbose=0, return_dict=True)['accuracy']):.1f} %"
)

# %% [markdown]
# ## Two rules, one budget

# %%
report = tuning.compare_rules(
    space, ["gevb", "backprop"], *training, validation, max_trials=2, seeds=(0,), epochs=2, verbose=0
)
for rule, result in report.items():
    rate = result["best"][0]["learning_rate"]
    print(f"{rule}: validation error {100 * result['mean']:.1f} % at learning rate {rate:.1e}")
