"""Every example of a docstring runs and shows what it returns."""

import doctest
import functools
import importlib
import pkgutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_gevb
from keras_gevb import datasets, experiments, layers, tuning

# tf.data stays compiled, and says so.
pytestmark = [
    pytest.mark.usefixtures("eager_functions"),
    pytest.mark.filterwarnings("ignore:Even though the"),
]
# Backends' glue has no examples; a main module would run.
MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.walk_packages(keras_gevb.__path__, "keras_gevb.")
    if not module.name.startswith("keras_gevb.backend") and not module.name.endswith("__main__")
]
FINDER = doctest.DocTestFinder(exclude_empty=True)
EXAMPLES = {
    test.name: test
    for module in (keras_gevb, *MODULES)
    for test in FINDER.find(module, module.__name__)
    if test.examples
}


@functools.cache
def images():
    """A few of the digits, for training and for validation."""
    (x, y), (x_test, y_test) = datasets.load("digits")
    return {"x": x[:64], "y": y[:64], "x_val": x_test[:32], "y_val": y_test[:32], "pixels": x[:2]}


def names():
    """What the examples take as given: modules, public names, a small compiled model and its data."""
    network = [
        keras.Input((8, 8, 1)),
        *(keras.layers.Rescaling(1 / 8, offset=-1), keras.layers.Flatten()),
        layers.VectorDense(16, vector_dim=10, name="vector_dense"),
        layers.VectorDense(8, name="vector_dense_1"),
        layers.VectorReadout(name="vector_readout"),
    ]
    model = keras_gevb.Sequential(network)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], run_eagerly=True)
    given = {"model": model, "network": network}
    modules = {"keras": keras, "keras_gevb": keras_gevb, "np": np, "tf": tf, "functools": functools}
    modules |= {
        module.__name__.split(".")[1]: module for module in MODULES if module.__name__.count(".") == 1
    }
    return {**modules, **vars(tuning), **vars(experiments), **images(), **given}


# The extra `export`: packages, by a part of the names of the examples that need them.
EXTRA = {"to_trainable_litert": "ai_edge_litert", "load_state": "ai_edge_litert", "to_trainable_onnx": "onnx"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs_and_shows_what_it_returns(name, tmp_path, monkeypatch):
    for part, package in EXTRA.items():
        if name.endswith(part):
            pytest.importorskip(package, reason="the extra `export`")
    monkeypatch.chdir(tmp_path)
    example = EXAMPLES[name]
    example.globs = {**names(), **example.globs}
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE, verbose=False)
    failed, tried = runner.run(example, out=report.append, clear_globs=False)
    assert tried
    assert not failed, "".join(report)
