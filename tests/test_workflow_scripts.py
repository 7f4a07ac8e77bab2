"""The scripts that users copy train, are saved and exported, and are loaded by another process."""

import functools
import importlib
import pathlib
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from workflows import outputs, start_python

SCRIPTS = pathlib.Path(__file__).parent.parent / "examples" / "workflows"
SOME = ("callbacks",)
# name: (epochs, the least score: an accuracy, or how many times the error of knowing nothing)
LEAST = {
    "callbacks": (8, 0.85),
    "custom_loss": (15, 1.1),
    "custom_metric": (15, 0.8),
    "image_augmentation": (3, 0.5),
    "mixed_precision": (4, 0.8),
    "pydataset": (5, 0.8),
    "several_inputs": (4, 0.8),
    "structured_data": (6, 0.75),
    "text_classification": (3, 0.9),
    "time_series": (6, 1.5),
}

OTHERS = [name for name in LEAST if name not in SOME]
every_script = pytest.mark.parametrize(
    "name", [*SOME, *(pytest.param(name, marks=pytest.mark.long) for name in OTHERS)]
)

LOADED = """
import importlib, pathlib, sys
sys.path.insert(0, {scripts!r})
import keras_gevb, keras, numpy as np
from test_workflow_scripts import test_inputs
for name in {names!r}:
    inputs = test_inputs(importlib.import_module(name))
    folder = pathlib.Path({folder!r}) / name
    model = keras.models.load_model(folder / "model.keras")
    np.save(folder / "predictions.npy", model.predict(inputs, verbose=0))
    assert isinstance(model, keras_gevb.Model), name
"""


SAMPLES = 16


def test_inputs(script):
    """A few inputs of a script's test data, in their structure."""
    test = script.data()[1]
    if isinstance(test, tuple):
        inputs = test[0]
    else:
        batches = test if len(test.element_spec[1].shape) > 1 else test.batch(SAMPLES)
        inputs = next(iter(batches))[0]
    return tf.nest.map_structure(lambda part: tf.convert_to_tensor(part)[:SAMPLES], inputs)


test_inputs.__test__ = False


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("workflows")


@pytest.fixture(scope="module", autouse=True)
def scripts():
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="module")
def train(folder, scripts):
    """A function from a script's name to its model and score, trained once."""
    return functools.cache(
        lambda name: importlib.import_module(name).main(folder / name, epochs=LEAST[name][0])
    )


def test_the_list_is_of_all_scripts():
    assert {path.stem for path in SCRIPTS.glob("*.py")} == set(LEAST)


@every_script
def test_a_script_learns(name, train):
    assert train(name)[1] > LEAST[name][1]


@pytest.mark.long
@pytest.mark.parametrize("names", [SOME, OTHERS], ids=["some", "others"])
def test_another_process_loads_what_the_scripts_saved(names, train, folder):
    models = {name: train(name)[0] for name in names}
    outputs(start_python("-c", LOADED.format(scripts=str(SCRIPTS), folder=str(folder), names=names)))
    for name, model in models.items():
        expected = model.predict(test_inputs(importlib.import_module(name)), verbose=0)
        loaded = np.load(folder / name / "predictions.npy")
        np.testing.assert_allclose(loaded, expected, rtol=1e-6, atol=1e-6, err_msg=name)


@every_script
def test_an_exported_script_serves(name, train, folder):
    model, inputs = train(name)[0], test_inputs(importlib.import_module(name))
    if isinstance(inputs, dict):
        wanted = {tensor.name: tensor.dtype for tensor in model.inputs}
        inputs = {k: tf.cast(v, wanted[k]) if v.dtype.is_integer else v for k, v in inputs.items()}
    elif inputs.dtype == tf.uint8:
        inputs = tf.cast(inputs, model.input_dtype)
    exported = tf.saved_model.load(str(folder / name / "saved_model"))
    served = tf.nest.flatten(exported.serve(inputs))[0]
    # bfloat16 rounds to 8 bits where it is compiled and where it is not.
    tolerance = 0.05 if name == "mixed_precision" else 1e-5
    expected = model.predict(inputs, verbose=0)
    np.testing.assert_allclose(served, expected, rtol=tolerance, atol=tolerance)
