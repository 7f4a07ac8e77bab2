"""A fit that was killed and started again ends where one left alone ends."""

import pathlib
import signal

import keras
import pytest
from workflows import (
    EPOCHS,
    MODELS,
    assert_same_weights,
    build,
    compiled,
    data,
    graph,
    outputs,
    start_python,
    traced,
)

SCRIPT = pathlib.Path(__file__).parent / "processes" / "resumed.py"


@pytest.mark.long
def test_a_fit_killed_inside_and_between_epochs_ends_as_one_left_alone(tmp_path):
    backup, end = tmp_path / "backup", tmp_path / "end.keras"
    for place in [(1, 2), (3, 0)]:  # inside the second epoch; between the third and the fourth
        outputs(start_python(SCRIPT, backup, end, *place), status=-signal.SIGKILL)
        assert not end.exists()
    outputs(start_python(SCRIPT, backup, end, "never"))
    resumed = keras.models.load_model(end)

    keras.utils.set_random_seed(7)
    alone = traced(graph(), keras.optimizers.Adam(0.01))
    alone.fit(*data(), batch_size=8, epochs=EPOCHS, shuffle=False, verbose=0)
    assert_same_weights(resumed, alone, atol=1e-6)
    assert int(resumed.optimizer.iterations) == int(alone.optimizer.iterations) == 3 * EPOCHS


# Of every style a rule, and rules that remember: what a file holds of all of them, `test_saving` shows.
RESUMED = [
    *((name, rules[0]) for name, (_, rules) in MODELS.items()),
    ("sequential", "dkp"),
    ("conventional", "kp"),
]


@pytest.mark.parametrize(("name", "rule"), RESUMED, ids=["-".join(row) for row in RESUMED])
@pytest.mark.sampled(1)
def test_a_fit_resumed_from_a_checkpoint_ends_as_one_left_alone(name, rule, tmp_path):
    path = tmp_path / "{epoch}.keras"
    model = compiled(build(name, rule), keras.optimizers.Adam(0.01))
    settings = {"batch_size": 8, "shuffle": False, "verbose": 0}
    model.fit(*data(), epochs=3, callbacks=[keras.callbacks.ModelCheckpoint(path)], **settings)
    resumed = keras.models.load_model(tmp_path / "1.keras")
    resumed.fit(*data(), initial_epoch=1, epochs=3, **settings)
    assert_same_weights(resumed, model, atol=1e-6)
