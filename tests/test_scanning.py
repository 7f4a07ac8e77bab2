"""Under JAX: an epoch as one compiled loop. `KERAS_BACKEND=jax pytest tests/test_scanning.py`"""

import importlib
import pathlib

import keras
import numpy as np
import pytest

import keras_gevb
from keras_gevb.experiments import CELLS, Protocol, run_cell

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the loop is JAX's")
PROTOCOL = Protocol(epochs=4, evaluate_every=2)


@pytest.fixture
def benchmark(monkeypatch):
    """The scripts import each other by name, as when one of them is run."""
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parent.parent / "benchmarks")
    return importlib.import_module


@pytest.fixture
def scanned_run(benchmark):
    return benchmark("scanning").ScannedRun


@pytest.mark.parametrize(
    "name", ["digits-fc-vectorized-gevb-nonnegative", "digits-fc-conventional-backprop-mixed"]
)
def test_a_scanned_run_takes_the_steps_and_measures_what_an_ordinary_run_does(name, scanned_run, tmp_path):
    plain, scanned = (
        run_cell(CELLS[name], 3, tmp_path / kind, PROTOCOL, keep_state=True, runner=runner)
        for kind, runner in (("plain", None), ("scanned", scanned_run))
    )
    assert [m["epoch"] for m in plain.measurements] == [m["epoch"] for m in scanned.measurements] == [0, 2, 4]
    for a, b in zip(plain.measurements, scanned.measurements):
        assert a.keys() == b.keys()
        for what in a:
            # Losses are means of float32; errors are of whole numbers of samples, angles rounded.
            np.testing.assert_allclose(np.array(a[what], "float64"), np.array(b[what], "float64"), rtol=1e-5)
    states = [np.load(tmp_path / kind / name / "seed-3.state.npz") for kind in ("plain", "scanned")]
    variables = [key for key in states[0].files if key != "header"]
    for key in variables:
        # One step moves a weight by 3e-4; the same operations, compiled in a loop, may round otherwise.
        np.testing.assert_allclose(states[0][key], states[1][key], rtol=1e-5, atol=1e-5)


def test_a_scanned_run_that_is_stopped_goes_on_at_its_last_measurement(scanned_run, tmp_path):
    cell = CELLS["digits-fc-vectorized-gevb-nonnegative"]

    def stop(result, share):
        if result.epochs == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cell(cell, 3, tmp_path / "stopped", PROTOCOL, progress=stop, runner=scanned_run)
    begun = []
    stopped = run_cell(
        cell,
        3,
        tmp_path / "stopped",
        PROTOCOL,
        progress=lambda result, share: begun.append(result.epochs),
        runner=scanned_run,
    )
    alone = run_cell(cell, 3, tmp_path / "alone", PROTOCOL, runner=scanned_run)
    assert begun[0] == 2
    assert stopped.measurements == alone.measurements


def test_a_recipe_in_loops_takes_the_steps_of_its_model(benchmark, tmp_path):
    loops = benchmark("gpu_recipes")
    (x, y), test = keras_gevb.datasets.load("digits")
    x, y = x[:70], y[:70]
    small = loops.recipe.Recipe("digits", [("dense", 16), ("dense", 8)], epochs=2, batch_size=32)
    run = {"rule": "gevb", "units": "vector", "width": 1.0, "seed": 3, "images": "test"}
    measured = loops.train(small, run, ((x, y), test), tmp_path)
    keras.utils.set_random_seed(3)
    model = small.build("gevb", "vector")
    small.compile(model, len(x))
    orders, losses = np.random.default_rng(3), []
    for _ in range(2):
        order, sums = orders.permutation(70), 0.0
        for start in (0, 32, 64):  # the last batch has six samples
            batch = order[start : start + 32]
            targets = keras.utils.to_categorical(y[batch], 10)
            sums += len(batch) * model.train_on_batch(x[batch], targets, return_dict=True)["loss"]
        losses.append(sums / 70)
    np.testing.assert_allclose(measured["losses"], losses, rtol=1e-5)  # rounded to five digits
    assert measured["error_percent"] == loops.recipe.error_percent(model, *test)
