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
# # Reproducing a table of the paper
#
# The paper compares rules in 48 cells: a data set, an architecture, units, a rule, and the sign of the
# weights. Here the machinery on the 8 x 8 digits for a few epochs; the same lines with `"mnist-fc-*"` and
# 190 epochs are the paper's own experiment, and take hours.

# %%
import keras_gevb

# isort: split
from keras_gevb import experiments

cells = experiments.find(["digits-fc-vectorized-*-nonnegative"])
for cell in cells:
    print(cell.name)

# %% [markdown]
# ## Run
#
# Every run is one file, written after each epoch: killed, it goes on at the last one. What is finished is
# not run again.

# %%
protocol = experiments.Protocol(epochs=10, evaluate_every=5)
for cell in cells:
    result = experiments.run_cell(cell, 0, "experiments", protocol)
    last = result.last
    print(f"{cell.learning_rule:9s} {cell.units:13s} test error {last['test_error_percent']:.1f} %")

# %% [markdown]
# ## Report
#
# Tables with means and spreads over seeds, paired tests, figures; beside the published numbers, where there
# are any.

# %%
print(experiments.write_report("experiments"))

# %% [markdown]
# ## The published numbers
#
# They come with the package, cell by cell: test and training error, means of five runs of up to 190 epochs.

# %%
for cell in experiments.find(["mnist-fc-*"], paper=True):
    print(f"{cell.name:45s} {cell.published['test_error_percent']:.2f} %")

# %% [markdown]
# ## Alignment before training
#
# The quickest check of a reproduction: no training, minutes on MNIST. Digits have no published angle; for
# MNIST the package was within 2 degrees of every published one ([the
# report](../results/experiments/report.md)).

# %%
experiments.measure_alignment("experiments", experiments.find(["digits-fc-vectorized-gevb-*"]), range(2))
print(experiments.write_report("experiments"))
print(keras_gevb.__version__)
