"""Under JAX: an epoch as one compiled loop. `KERAS_BACKEND=jax pytest tests/test_scanning.py`"""

import pathlib

import keras
import numpy as np
import pytest

from keras_gevb.experiments import CELLS, Protocol, run_cell

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the loop is JAX's")
PROTOCOL = Protocol(epochs=4, evaluate_every=2)


@pytest.fixture
def scanned_run(monkeypatch):
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parent.parent / "benchmarks")
    from scanning import ScannedRun

    return ScannedRun


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
