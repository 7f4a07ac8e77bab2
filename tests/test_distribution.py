"""Several replicas make the step of one device."""

import functools
import json
import pathlib
import socket

import keras
import numpy as np
import pytest
from workflows import (
    PARTS,
    assert_same_weights,
    compiled,
    data,
    distance,
    every_distributed,
    graph,
    outputs,
    start_python,
)

import keras_gevb

TESTS = pathlib.Path(__file__).parent
EXAMPLE = TESTS.parent / "examples" / "distributed.py"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A function from a part of the rows to what a process with two replicas measures, once."""

    @functools.cache
    def of(part):
        folder = tmp_path_factory.mktemp("mirrored")
        written = outputs(start_python(TESTS / "processes" / "mirrored.py", folder, *PARTS[part]))
        return json.loads(written.splitlines()[-1])

    return of


@pytest.fixture(scope="module")
def mirrored(measured):
    return measured("some")


@every_distributed
def test_one_step_on_two_mirrored_replicas_is_the_step_of_one_device(part, row, measured):
    mirrored = measured(part)
    # The same sums in another order, in float32.
    assert mirrored[f"step {row}"] < 1e-6
    assert mirrored[f"logs {row}"] < 1e-5
    assert mirrored[f"moved {row}"] > 1e-4


def test_an_uneven_last_batch_is_weighted_as_keras_weights_it_on_two_mirrored_replicas(mirrored):
    assert mirrored["step uneven"] < 1e-6
    assert mirrored["logs uneven"] < 1e-5


def test_kernels_stay_nonnegative_on_two_mirrored_replicas(mirrored):
    assert mirrored["negative"] <= 0


@pytest.mark.parametrize("way", ["one to two", "two to one"])
def test_a_checkpoint_continues_on_another_number_of_replicas(way, mirrored):
    assert mirrored[f"loaded {way}"] == 0
    assert mirrored[f"resumed {way}"] < 1e-6


def test_predict_and_evaluate_on_two_mirrored_replicas_are_those_of_one_device(mirrored):
    assert mirrored["predict"] < 1e-6
    assert mirrored["evaluate"] < 1e-5


def free_addresses(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """What two processes on loopback computed, and the folder of their models."""
    folder, addresses = tmp_path_factory.mktemp("workers"), free_addresses(2)
    started = [
        start_python(TESTS / "processes" / "worker.py", index, folder, *addresses) for index in range(2)
    ]
    for process in started:
        outputs(process)
    return [np.load(folder / f"{index}.npz") for index in range(2)], folder


def under(results, prefix):
    return {name.removeprefix(prefix): value for name, value in results.items() if name.startswith(prefix)}


@pytest.mark.long
def test_one_step_on_two_workers_is_the_step_of_one_device(workers):
    (first, second), folder = workers
    model = compiled(graph(), metrics=["accuracy"])
    x, y = data(64)
    history = model.fit(x, y, batch_size=64, validation_data=(x, y), verbose=0).history
    for results in (first, second):
        weights = under(results, "weights/")
        for i, weight in enumerate(model.get_weights()):
            np.testing.assert_allclose(weights[str(i)], weight, rtol=0, atol=1e-6)
        for name, values in under(results, "logs/").items():
            np.testing.assert_allclose(values, history[name], rtol=1e-5)
        for name, value in under(results, "evaluated/").items():
            np.testing.assert_allclose(
                value, model.evaluate(x, y, verbose=0, return_dict=True)[name], rtol=1e-5
            )
    loaded = keras.models.load_model(folder / "0.keras")
    assert distance(loaded, model) < 1e-6
    for each in (loaded, model):
        each.fit(*data(16, seed=1), batch_size=16, verbose=0)
    assert_same_weights(loaded, model, atol=2e-6)


@pytest.mark.long
def test_an_uneven_last_batch_is_weighted_as_keras_weights_it_on_two_workers(workers):
    for results in workers[0]:
        stock = under(results, "stock/")
        for name, weight in under(results, "uneven/").items():
            np.testing.assert_allclose(weight, stock[name], rtol=0, atol=1e-6)


@pytest.mark.long
def test_the_example_trains_on_two_local_workers(tmp_path):
    command = [EXAMPLE, "--epochs", "2", "--samples", "512", "--save", tmp_path / "model.keras"]
    written = outputs(start_python(*command))
    assert "2 workers, test accuracy" in written
    assert type(keras.models.load_model(tmp_path / "model.keras")) is keras_gevb.Sequential


@pytest.mark.long
def test_a_parameter_server_is_refused_with_the_alternative():
    written = outputs(start_python(TESTS / "processes" / "parameter_server.py", *free_addresses(2)))
    assert "MultiWorkerMirroredStrategy. Received: ParameterServerStrategy" in written
