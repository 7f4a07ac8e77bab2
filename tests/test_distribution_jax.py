"""One global step on several devices under JAX, by `keras.distribution`, is one device's step."""

import functools
import json
import pathlib
import socket

import keras
import numpy as np
import pytest
from workflows import PARTS, data, every_distributed, graph, outputs, start_python, traced

from keras_gevb import datasets

if keras.backend.backend() != "jax":
    pytest.skip("keras.distribution on several devices: KERAS_BACKEND=jax", allow_module_level=True)

PROCESSES = pathlib.Path(__file__).parent / "processes"
EXAMPLE = pathlib.Path(__file__).parents[1] / "examples" / "distributed.py"
# Float32 sums over a batch in another order: the scale of the weights is 1.
APART = 1e-6


@pytest.fixture(scope="module")
def of_part(tmp_path_factory):
    """A function from a part of the rows to what a process with four virtual devices measures, once."""

    @functools.cache
    def of(part):
        folder = tmp_path_factory.mktemp("devices")
        return json.loads(outputs(start_python(PROCESSES / "devices.py", folder, *PARTS[part])))

    return of


@pytest.fixture(scope="module")
def measured(of_part):
    return of_part("some")


@every_distributed
@pytest.mark.parametrize("kind", ["data", "model"])
def test_a_step_on_four_devices_is_the_step_on_one(kind, part, row, of_part):
    measured = of_part(part)
    assert measured[f"moved {row}"] > 1e-2
    assert measured[f"step {kind} {row}"] < APART
    assert measured[f"logs {kind} {row}"] < APART
    assert measured[f"devices {kind} {row}"] == 4
    # Data parallelism keeps whole weights everywhere, model parallelism splits both hidden layers' at least.
    split = measured[f"split {kind} {row}"]
    assert split == 0 if kind == "data" else split >= 4


def test_a_model_trained_on_four_devices_goes_on_on_one(measured):
    assert measured["negative"] <= 0
    for name in ("loaded", "evaluate", "predict"):
        assert measured[name] < APART, name


def test_a_batch_that_the_devices_cannot_share_is_refused(measured):
    assert measured["refused"]


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What each of two processes, with two devices each, came to."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    workers = [start_python(PROCESSES / "devices_worker.py", index, address, folder) for index in range(2)]
    for worker in workers:
        outputs(worker)
    return [dict(np.load(folder / f"{index}.npz")) for index in range(2)]


def test_two_processes_take_the_step_of_one(processes):
    model = traced(graph(), keras.optimizers.SGD(0.1, momentum=0.9), metrics=["accuracy"])
    model.set_weights([processes[0][f"start/{i}"] for i in range(len(model.weights))])
    x, y = data(16)
    history = model.fit(x, y, batch_size=16, shuffle=False, verbose=0).history
    evaluated = model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True)
    for results in processes:
        assert results["devices"] == 4
        for i, weight in enumerate(model.get_weights()):
            np.testing.assert_allclose(results[f"weights/{i}"], weight, rtol=0, atol=APART)
        for name in ("loss", "accuracy"):
            np.testing.assert_allclose(results[f"logs/{name}"], history[name][-1], rtol=0, atol=APART)
            np.testing.assert_allclose(results[f"evaluated/{name}"], evaluated[name], rtol=0, atol=APART)


def test_a_wrong_label_of_one_process_is_an_error_in_both(processes):
    first, second = (str(results["refused"]) for results in processes)
    assert "Labels must be integers from 0 to 3" in first
    assert "Labels must be integers from 0 to 3" in second
    assert second.endswith("99")


def test_the_example_trains_on_two_local_processes(tmp_path):
    arguments = ["--backend", "jax", "--epochs", "3", "--save", tmp_path / "digits.keras"]
    written = outputs(start_python(EXAMPLE, *arguments))
    accuracy = float(written.split("2 workers, test accuracy")[1])
    assert accuracy > 0.8  # of ten kinds of digits
    (_, _), (x, y) = datasets.load("digits")
    model = keras.models.load_model(tmp_path / "digits.keras")
    # The processes' shares leave out one of 359 images at most: 0.0028.
    alone = model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"]
    np.testing.assert_allclose(alone, accuracy, rtol=0, atol=0.005)
