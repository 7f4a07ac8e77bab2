"""Searches whose processes die: every trial ends exactly once."""

import csv
import functools
import importlib.util
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import keras
import keras_tuner
import numpy as np
import pytest
from keras_tuner.src import protos
from keras_tuner.src import utils as tuner_utils

from keras_gevb import datasets, tuning
from keras_gevb.tuning.chief import Chief, hold, is_held

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "tune.py"


class Dies(BaseException):
    """What keras-tuner cannot catch, as it cannot catch a kill."""


class Quadratic(keras_tuner.HyperModel):
    """Trials that cost nothing; `finished` counts those that ran to their end."""

    def __init__(self, dies_in=None):
        super().__init__()
        self.dies_in, self.started, self.finished = dies_in, 0, 0

    def build(self, hp):
        hp.Choice("a", [1, 2, 3])
        hp.Float("b", -1.0, 1.0, step=0.5)
        return self.model

    @functools.cached_property
    def model(self):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    def fit(self, hp, model, *args, **kwargs):
        self.started += 1
        if self.started == self.dies_in:
            raise Dies
        model.save_weights(kwargs["callbacks"][-1].filepath)  # as the checkpoint callback does
        self.finished += 1
        return {"val_loss": hp["a"] + hp["b"] ** 2}


def search(name, folder, hypermodel, max_trials=7):
    settings = {"max_epochs": 4, "factor": 2} if name == "hyperband" else {}
    tuner = tuning.TUNERS[name](
        hypermodel,
        keras_tuner.Objective("val_loss", "min"),
        max_trials=max_trials,
        seed=0,
        directory=folder,
        project_name="search",
        **settings,
    )
    tuner.search(verbose=0)
    return tuner


def outcomes(tuner):
    return {trial.trial_id: (trial.hyperparameters.values, trial.score) for trial in tuner.trials}


@pytest.mark.usefixtures("without_collection")
@pytest.mark.parametrize("name", tuning.TUNERS)
@pytest.mark.sampled(2)
def test_a_search_goes_on_where_it_died(name, tmp_path):
    undisturbed = outcomes(search(name, tmp_path / "undisturbed", Quadratic()))
    assert len(undisturbed) == 7
    with pytest.raises(Dies):
        search(name, tmp_path, Quadratic(dies_in=3))
    finished = {path: path.read_bytes() for path in tmp_path.glob("search/trial_*/trial.json")}
    finished = {path: text for path, text in finished.items() if b"COMPLETED" in text}
    assert len(finished) == 2
    again = Quadratic()
    tuner = search(name, tmp_path, again)
    assert {path: path.read_bytes() for path in finished} == finished
    assert again.finished == 7 - 2
    assert {trial.status for trial in tuner.trials} == {"COMPLETED"}
    if name != "bayesian":  # its random state is not saved, so it may go on to other trials
        assert outcomes(tuner) == undisturbed


class Failing(Quadratic):
    """Trials whose `b` is positive fail, at their end or at once."""

    def __init__(self, dies_in=None, at_once=False):
        super().__init__(dies_in)
        self.at_once, self.failed = at_once, 0

    def build(self, hp):
        model = super().build(hp)
        if self.at_once:
            self._fail(hp)
        return model

    def fit(self, hp, model, *args, **kwargs):
        result = super().fit(hp, model, *args, **kwargs)
        self._fail(hp)
        return result

    def _fail(self, hp):
        if hp["b"] > 0:
            self.failed += 1
            raise keras_tuner.errors.FailedTrialError("b is positive")


@pytest.mark.usefixtures("without_collection")
@pytest.mark.parametrize("at_once", [False, True], ids=["at its end", "at once"])
@pytest.mark.parametrize("name", ["random", "grid"])
def test_a_trial_that_failed_is_not_run_again(name, at_once, tmp_path):
    first = Failing(at_once=at_once)
    tuner = search(name, tmp_path, first, max_trials=9)
    before = outcomes(tuner)
    failed = [trial.trial_id for trial in tuner.trials if trial.status == "FAILED"]
    assert first.failed == len(failed) >= 1
    again = Failing(at_once=at_once)
    tuner = search(name, tmp_path, again, max_trials=9)
    assert (again.finished, again.failed) == (0, 0)
    assert outcomes(tuner) == before
    assert [trial.trial_id for trial in tuner.trials if trial.status == "FAILED"] == failed


@pytest.mark.usefixtures("without_collection")
@pytest.mark.parametrize("name", ["random", "grid"])
def test_trials_that_failed_before_a_search_died_are_not_run_again(name, tmp_path):
    with pytest.raises(Dies):
        search(name, tmp_path, Failing(dies_in=7), max_trials=9)
    ended = [json.loads(path.read_text())["status"] for path in tmp_path.glob("search/trial_*/trial.json")]
    counts = {status: ended.count(status) for status in ("FAILED", "COMPLETED")}
    assert counts["FAILED"] >= 1
    again = Failing()
    tuner = search(name, tmp_path, again, max_trials=9)
    assert again.started == 9 - sum(counts.values())
    assert len(tuner.trials) == 9


@pytest.mark.usefixtures("without_collection")
@pytest.mark.parametrize("name", ["random", "grid", "hyperband"])
@pytest.mark.sampled(1)
def test_no_trial_is_lost_or_ends_twice_wherever_the_search_dies(name, tmp_path, monkeypatch):
    save, state = tuner_utils.save_json, {"writes": 0, "dies_at": None}

    def dying_save(path, content):
        state["writes"] += 1
        if state["writes"] == state["dies_at"]:
            raise Dies
        return save(path, content)

    monkeypatch.setattr(tuner_utils, "save_json", dying_save)
    undisturbed = outcomes(search(name, tmp_path / "undisturbed", Quadratic(), max_trials=3))
    writes = state["writes"]
    assert writes >= 3 * 7
    for dies_at in range(1, writes + 1):
        folder = tmp_path / str(dies_at)
        state.update(writes=0, dies_at=dies_at)
        with pytest.raises(Dies):
            search(name, folder, Quadratic(), max_trials=3)
        recorded = {
            path: path.read_bytes()
            for path in folder.glob("search/trial_*/trial.json")
            # Before the first trial is over nothing is kept, and the search starts anew.
            if (folder / "search" / "tuner.json").exists() and b"COMPLETED" in path.read_bytes()
        }
        state.update(dies_at=None)
        again = Quadratic()
        tuner = search(name, folder, again, max_trials=3)
        assert {path: path.read_bytes() for path in recorded} == recorded, dies_at
        assert again.finished == 3 - len(recorded), dies_at
        assert outcomes(tuner) == undisturbed, dies_at


def test_a_search_of_its_own_continues_one_with_a_chief_and_the_other_way_round(tmp_path, monkeypatch):
    with pytest.raises(Dies):
        search("random", tmp_path, Quadratic(dies_in=3))
    for variable, value in [("TUNER_ID", "chief"), ("ORACLE_IP", "127.0.0.1"), ("ORACLE_PORT", "1")]:
        monkeypatch.setenv(f"KERASTUNER_{variable}", value)
    tuner = tuning.RandomSearch(
        Quadratic(),
        keras_tuner.Objective("val_loss", "min"),
        max_trials=7,
        directory=tmp_path,
        project_name="search",
    )
    assert [trial.status for trial in tuner.trials] == ["COMPLETED", "COMPLETED", "RUNNING"]
    assert tuner.oracle.get_state()["retry_queue"] == ["2"]


def test_two_searches_under_one_name_in_one_folder_are_refused(tmp_path):
    with hold(tmp_path / "worker.lock"):
        assert is_held(tmp_path / "worker.lock")
        with pytest.raises(RuntimeError, match="Another process searches"):
            hold(tmp_path / "worker.lock", patience=0.1)
    assert not is_held(tmp_path / "worker.lock")


# A chief, without its network.


@pytest.fixture
def chief(tmp_path):
    """A chief, the tuner behind it, and the set of the workers that live."""
    tuner = tuning.RandomSearch(
        Quadratic(),
        keras_tuner.Objective("val_loss", "min"),
        max_trials=2,
        directory=tmp_path,
        project_name="search",
    )
    living = {"one", "two"}
    return Chief(tuner.oracle, living.__contains__), tuner, living


def ask(chief, worker):
    request = protos.get_service().CreateTrialRequest(tuner_id=worker)
    return keras_tuner.engine.trial.Trial.from_proto(chief.CreateTrial(request, None).trial)


def update(chief, trial, score):
    request = protos.get_service().UpdateTrialRequest(
        trial_id=trial.trial_id, metrics={"val_loss": score}, step=0
    )
    chief.UpdateTrial(request, None)


def end(chief, trial):
    trial.status = "COMPLETED"
    chief.EndTrial(protos.get_service().EndTrialRequest(trial=trial.to_proto()), None)


def test_the_trial_of_a_dead_worker_is_given_to_another_that_waits_for_it(chief):
    chief, tuner, living = chief
    first, second = ask(chief, "one"), ask(chief, "two")
    update(chief, first, 5.0)  # and dies before it ends the trial
    living.remove("one")
    update(chief, second, 2.0)
    end(chief, second)
    assert ask(chief, "two").status == "IDLE"  # no trial is left, but one may come back
    chief.reclaim()
    assert ask(chief, "two").status == "IDLE"  # missed once is not dead
    chief.reclaim()
    again = ask(chief, "two")
    assert (again.trial_id, again.status) == (first.trial_id, "RUNNING")
    assert not again.metrics.exists("val_loss")
    update(chief, again, 1.0)
    end(chief, again)
    assert ask(chief, "two").status == "STOPPED"
    assert chief.stop_triggered
    assert not tuner.oracle.tuner_ids
    assert not tuner.oracle.ongoing_trials
    assert sorted(tuner.oracle.end_order) == ["0", "1"]
    assert [trial.score for trial in tuner.trials] == [1.0, 2.0]


def test_a_worker_that_comes_back_at_once_goes_on_with_its_trial(chief):
    chief, tuner, _ = chief
    first = ask(chief, "one")
    update(chief, first, 5.0)
    again = ask(chief, "one")
    assert again.trial_id == first.trial_id
    assert not again.metrics.exists("val_loss")
    assert len(tuner.trials) == 1


def test_a_worker_whose_lock_is_not_seen_is_never_taken_for_dead(chief):
    chief, tuner, _ = chief
    ask(chief, "elsewhere")
    chief.reclaim()
    chief.reclaim()
    assert set(tuner.oracle.ongoing_trials) == {"elsewhere"}


def test_a_chief_that_comes_back_leaves_living_workers_their_trials(chief, tmp_path, monkeypatch):
    chief, tuner, _ = chief
    first, second = ask(chief, "one"), ask(chief, "two")
    tuner.save()
    for variable, value in [("TUNER_ID", "chief"), ("ORACLE_IP", "127.0.0.1"), ("ORACLE_PORT", "1")]:
        monkeypatch.setenv(f"KERASTUNER_{variable}", value)
    with hold(tmp_path / "search" / "one.lock"):
        back = tuning.RandomSearch(
            Quadratic(),
            keras_tuner.Objective("val_loss", "min"),
            max_trials=2,
            directory=tmp_path,
            project_name="search",
        )
    assert {w: t.trial_id for w, t in back.oracle.ongoing_trials.items()} == {"one": first.trial_id}
    assert back.oracle.get_state()["retry_queue"] == [second.trial_id]


# The example, killed for real.


def start(out, *arguments, **environment):
    command = [sys.executable, str(EXAMPLE), "--out", str(out), *arguments]
    log = (out.parent / f"{environment.get('KERASTUNER_TUNER_ID', 'log')}.txt").open("a")
    return subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)


def wait_for(condition, what, patience=150):
    until = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < until, f"{what} did not happen in {patience} s"
        time.sleep(0.02)
    return found


def trials(out):
    """The trials on disk; while one is being written it is left out."""
    found = {}
    for path in sorted(out.glob("search/trial_*/trial.json")):
        try:
            found[path] = json.loads(path.read_text())
        except json.JSONDecodeError:
            continue
    return found


def in_the_middle_of(out, number):
    """Whether that trial runs, and has finished an epoch."""
    folder = out / "search" / f"trial_{number}"
    path = folder / "trial.json"
    return trials(out).get(path, {}).get("status") == "RUNNING" and any(folder.glob("checkpoint*"))


# Compiling takes seconds and an epoch a few hundredths: enough of them to die among.
QUICK = ["--epochs", "20", "--parameters", "3000", "20000", "--max-trials", "3"]


@pytest.fixture(scope="module")
def killed_and_resumed(tmp_path_factory):
    """The example's outputs, after it was killed in the middle of trial 3 and started again."""
    out = tmp_path_factory.mktemp("tune") / "out"
    process = start(out, *QUICK, "--dashboard")
    wait_for(lambda: in_the_middle_of(out, 2), "trial 3")
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path: path.read_bytes() for path, trial in trials(out).items() if trial["score"]}
    assert start(out, *QUICK, "--dashboard").wait() == 0, (out.parent / "log.txt").read_text()[-3000:]
    return out, before


@pytest.mark.long
def test_killed_in_trial_3_the_finished_trials_are_kept_and_the_search_completes(killed_and_resumed):
    out, before = killed_and_resumed
    assert [path.parent.name for path in before] == ["trial_0", "trial_1"]
    assert {path: path.read_bytes() for path in before} == before
    assert [trial["status"] for trial in trials(out).values()] == ["COMPLETED"] * 3
    oracle = json.loads((out / "search" / "oracle.json").read_text())
    assert oracle["end_order"] == ["0", "1", "2"]
    assert set(oracle["run_times"].values()) == {1}


@pytest.mark.long
def test_the_best_model_after_a_kill_is_the_one_its_trial_recorded(killed_and_resumed):
    out, _ = killed_and_resumed
    specification = importlib.util.spec_from_file_location("tune", EXAMPLE)
    tune = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(tune)
    args = tune.arguments([*QUICK, "--out", str(out)])
    hypermodel, training, validation, _, _ = tune.prepare(args)
    tuner = tune.make_tuner(args, hypermodel)
    (model,) = tuner.get_best_models()
    (best,) = tuner.oracle.get_best_trials()
    found = model.evaluate(*validation, verbose=0, return_dict=True)
    for name, value in found.items():
        # Float32 sums over 288 images, in batches of another size.
        np.testing.assert_allclose(value, best.metrics.get_best_value(f"val_{name}"), rtol=1e-5)
    (images, _), _ = datasets.load("digits")
    assert len(training[0]) + len(validation[0]) == len(images)  # and no test image


@pytest.mark.long
def test_the_example_ships_what_it_reports(killed_and_resumed, tmp_path):
    out, _ = killed_and_resumed
    result = json.loads((out / "result.json").read_text())
    with (out / "trials.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 3
    assert table[0]["trial"] == result["trial"]
    assert float(table[0]["validation_error"]) == min(float(row["validation_error"]) for row in table)
    assert (out / "search.png").stat().st_size > 10_000
    _, (x, y) = datasets.load("digits")
    np.savez(tmp_path / "test.npz", x=x.astype("float32"), y=y)
    serve = (
        "import sys; sys.modules['keras_gevb'] = None\n"
        "import numpy as np, tensorflow as tf\n"
        "test = np.load(sys.argv[2])\n"
        "model = tf.saved_model.load(sys.argv[1])\n"
        "logits = model.serve(test['x'])\n"
        "print(np.mean(np.argmax(logits, axis=-1) != test['y']))"
    )
    command = [sys.executable, "-c", serve, str(out / "saved_model"), str(tmp_path / "test.npz")]
    served = subprocess.run(command, check=True, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    # One image of 360 is 0.0028.
    np.testing.assert_allclose(float(served.stdout), result["test_error"], atol=1e-6)


@pytest.mark.long
def test_the_dashboard_finds_every_trial_with_its_hyperparameters(killed_and_resumed):
    out, _ = killed_and_resumed
    for number in range(3):
        (events, *_) = sorted((out / "logs" / str(number) / "execution0").glob("events*"))
        assert b"hparams" in events.read_bytes()
        assert b"learning_rate" in events.read_bytes()


@pytest.mark.long
def test_one_of_two_workers_is_killed_and_every_trial_ends_once(tmp_path):
    out = tmp_path / "out"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}
    processes = {
        name: start(out, *QUICK, KERASTUNER_TUNER_ID=name, **address)
        for name in ("chief", "worker1", "worker2")
    }

    def running(worker):
        path = out / "search" / "oracle.json"
        try:
            number = json.loads(path.read_text())["ongoing_trials"].get(worker)
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return number if number is not None and in_the_middle_of(out, number) else None

    lost = wait_for(lambda: running("worker1"), "a trial of worker1")
    processes["worker1"].send_signal(signal.SIGKILL)
    try:
        for name in ("worker2", "chief"):
            output = tmp_path / f"{name}.txt"
            assert processes[name].wait(timeout=600) == 0, output.read_text()[-3000:]
    finally:
        for process in processes.values():
            process.kill()
    assert f"Worker worker1 died; trial {lost} will run again" in (tmp_path / "chief.txt").read_text()
    assert [trial["status"] for trial in trials(out).values()] == ["COMPLETED"] * 3
    oracle = json.loads((out / "search" / "oracle.json").read_text())
    assert sorted(oracle["end_order"]) == ["0", "1", "2"]
    assert set(oracle["run_times"].values()) == {1}
    assert (out / "saved_model").is_dir()
    assert "test_error" in json.loads((out / "result.json").read_text())
