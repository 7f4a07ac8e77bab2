"""The private names of keras-tuner that `keras_gevb.tuning.private` uses are where it looks for them."""

import pathlib
import re

import keras_tuner
import pytest
from keras_tuner.oracles import GridSearchOracle, RandomSearchOracle

from keras_gevb import tuning
from keras_gevb.tuning import private

OBJECTIVE = keras_tuner.Objective("val_loss", "min")
ORACLE, GRID = RandomSearchOracle(OBJECTIVE, max_trials=1), GridSearchOracle(OBJECTIVE)
SERVICE = "keras_tuner.src.protos"
NAMES = [
    ("keras_tuner.src.distribute.oracle_chief", "OracleServicer"),
    (SERVICE, "get_service_grpc"),
    (SERVICE, "get_proto"),
    (ORACLE, "_record_values"),
    (GRID, "_compare"),
    (GRID, "_ordered_ids"),
    (GRID, "_populate_next"),
]


@pytest.mark.parametrize(("owner", "name"), NAMES, ids=[name for _, name in NAMES])
def test_a_private_name_of_keras_tuner_is_where_it_was(owner, name):
    private.lookup(owner, name)  # an ImportError names it otherwise


def test_the_private_names_behind_these_are_where_they_were():
    private.lookup(private.lookup(SERVICE, "get_service_grpc")(), "add_OracleServicer_to_server")
    private.lookup(private.lookup(GRID, "_ordered_ids"), "insert")
    assert private.message_status("IDLE") != private.message_status("STOPPED")
    # What is asked of a saved state, and of its file.
    assert {"ongoing_trials", "retry_queue"} <= set(ORACLE.get_state())
    assert {"CreateTrial", "UpdateTrial", "EndTrial"} <= set(dir(private.OracleServicer))


@pytest.mark.parametrize(("owner", "name"), [("keras_tuner.gone", "x"), (SERVICE, "gone"), (ORACLE, "_gone")])
def test_a_name_that_moved_is_an_error_that_says_which(owner, name):
    with pytest.raises(
        ImportError, match=rf"{re.escape(keras_tuner.__version__)}, in which .*\.{name} is no more"
    ):
        private.lookup(owner, name)


def test_private_names_of_keras_tuner_stand_in_one_module():
    public = {"self", "cls"}
    for path in pathlib.Path(tuning.__file__).parent.glob("*.py"):
        if path.name == "private.py":
            continue
        text = path.read_text()
        assert "keras_tuner.src" not in text, path.name
        # `_x` of anything but the object itself; what is written on `self` is the package's own.
        foreign = [owner for owner in re.findall(r"(\w+)\._[a-z]", text) if owner not in public]
        assert not foreign, (path.name, foreign)
        assert not re.search(r"super\(\)\._[a-z]", text), path.name
