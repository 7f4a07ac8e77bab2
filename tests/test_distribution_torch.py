"""The documented step of several processes under PyTorch is one process's step."""

import pathlib
import re
import socket

import keras
import numpy as np
import pytest
from workflows import compiled, data, graph, outputs, start_python

if keras.backend.backend() != "torch":
    pytest.skip("several processes under PyTorch: KERAS_BACKEND=torch", allow_module_level=True)

TESTS = pathlib.Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "compatibility.md").read_text()


def test_two_processes_that_average_their_updates_take_the_step_of_one(tmp_path):
    (code,) = re.findall(r"```python\n(updates = .*?)```", PAGE, re.DOTALL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = TESTS / "processes" / "averaged.py"
    for process in [start_python(script, index, port, code, tmp_path) for index in range(2)]:
        outputs(process)
    results = [np.load(tmp_path / f"{index}.npz") for index in range(2)]
    model = compiled(graph(), keras.optimizers.SGD(0.1, momentum=0.9))
    start = [results[0][f"start/{i}"] for i in range(len(model.weights))]
    model.set_weights(start)
    model.train_on_batch(*data(16))
    ended = model.get_weights()
    assert max(np.abs(before - after).max() for before, after in zip(start, ended)) > 1e-2
    for each in results:
        for i, weight in enumerate(ended):
            # Float32 sums over the batch in another order.
            np.testing.assert_allclose(each[f"weights/{i}"], weight, rtol=0, atol=1e-6)
