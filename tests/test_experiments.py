"""Experiments: cells, runs that survive any death, and errors that say what to do."""

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from keras_gevb import datasets, experiments
from keras_gevb.experiments import CELLS, ExperimentError, Protocol, files, run_cell
from keras_gevb.experiments.__main__ import main
from keras_gevb.experiments.cells import RULES
from keras_gevb.experiments.results import RunFiles
from keras_gevb.experiments.run import data_order

CELL = CELLS["digits-fc-vectorized-gevb-nonnegative"]
SHORT = Protocol(epochs=2, evaluate_every=1)
# tf.data stays compiled, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:Even though the")


@contextlib.contextmanager
def small():
    """Runs on 140 training and 50 test images, whose steps are not compiled."""
    load = datasets.load

    def few(name, data_dir=None):
        splits = load(name, data_dir)
        return tuple((x[:n], y[:n]) for n, (x, y) in zip((140, 50), splits))

    tf.config.run_functions_eagerly(True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(datasets, "load", few)
            yield
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.fixture(autouse=True)
def small_runs():
    with small():
        yield


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory):
    """The folder of a short run that nothing disturbed, its state kept."""
    out = tmp_path_factory.mktemp("left_alone")
    with small():
        run_cell(CELL, 0, out, SHORT, keep_state=True)
    return out


@pytest.fixture
def kept(left_alone, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(left_alone, tmp_path / "kept")


# Cells


def test_the_paper_has_48_cells_and_each_has_its_published_errors():
    published = [cell for cell in CELLS.values() if cell.published]
    assert len(published) == 48
    assert {cell.dataset for cell in published} == {"mnist", "cifar10"}
    assert CELL.published is None


def test_the_published_numbers_stand_at_their_cells():
    """Three entries of the paper's tables and one of its alignment figure."""
    cell = CELLS["mnist-fc-vectorized-gevb-nonnegative"]
    assert (cell.published["test_error_percent"], cell.published["train_error_percent"]) == (1.87, 0.06)
    assert CELLS["cifar10-lc-conventional-dfa-mixed"].published["test_error_percent"] == 39.41
    assert cell.published_alignment["init"] == [9.2, 55.7]
    assert CELLS["mnist-fc-vectorized-gevb-mixed"].published_alignment["init"] == [89.5, 91.6]
    assert CELLS["mnist-fc-conventional-dfa-mixed"].published_alignment is None


DIGITS = [c for c in CELLS.values() if c.dataset == "digits"]
# Other rules stand in the same networks: of each one cell.
ONE_EACH = {(c.units, c.learning_rule): c for c in DIGITS}
BUILT = [c for c in DIGITS if c.learning_rule in RULES[c.units] or c in ONE_EACH.values()]


@pytest.mark.parametrize("cell", BUILT, ids=lambda c: c.name)
def test_every_digits_cell_builds_what_its_name_says(cell):
    model = cell.build()
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    assert model.learning_rule.__class__.__name__.lower() == cell.learning_rule.replace("_", "")
    assert any("gates" in v.name for v in model.weights) == (cell.units == "vectorized")
    assert all(np.min(k) >= 0 for k in kernels[1:]) == (cell.weights == "nonnegative")


@pytest.mark.parametrize(
    ("patterns", "count"),
    [
        (["mnist-*", "cifar10-*"], 48),
        (["mnist-fc-*"], 8),
        (["*-gevb-*"], 24),
        ([CELL.name, "digits-fc-*"], 8),
    ],
)
def test_cells_are_found_by_name_and_pattern_once_each(patterns, count):
    found = experiments.find(patterns, paper=True)
    assert len(found) == len(set(found)) == count


def test_cells_are_found_in_the_order_of_the_list_whatever_is_asked_first():
    """Data sets from small to large, and what the paper compares side by side."""
    found = [cell.name for cell in experiments.find(["mnist-*", "digits-*", "cifar10-*"])]
    assert found == [name for name in CELLS if not name.startswith("fashion")]
    assert found != sorted(found)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("minst-fc-vectorized-gevb-nonegative", "mnist-fc-vectorized-gevb-nonnegative"),
        ("mnst-fc-*", "mnist-fc-*"),
        ("digits-fx", "digits-fc-*"),
    ],
)
def test_an_unknown_cell_suggests_the_nearest(given, meant, capsys):
    assert main(["list", given]) == 1
    assert f"Did you mean {meant}?" in capsys.readouterr().err


def test_list_names_one_cell_per_line(capsys):
    assert main(["list", "mnist-*", "cifar10-*", "--paper"]) == 0
    assert len(capsys.readouterr().out.split()) == 48
    # 12 other rules of conventional units and 8 of vector units, each with two signs of weights.
    assert main(["list", "mnist-fc-*"]) == 0
    assert len(capsys.readouterr().out.split()) == 8 + 2 * (12 + 8)


# Runs


def test_the_order_of_the_data_is_a_function_of_seed_and_epoch():
    orders = {(seed, epoch): tuple(data_order(seed, epoch, 50)) for seed in range(3) for epoch in range(3)}
    assert len(set(orders.values())) == 9
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    assert tuple(data_order(1, 2, 50)) == orders[1, 2]


def test_a_run_measures_and_stops_where_the_protocol_says(tmp_path):
    result = run_cell(CELL, 0, tmp_path, Protocol(epochs=5, evaluate_every=2, learning_rate=0.003))
    assert [m["epoch"] for m in result.measurements] == [0, 2, 4, 5]
    assert (result.epochs, result.finished) == (5, "last epoch")
    assert result.last["train_error_percent"] < result.measurements[0]["train_error_percent"]
    assert len(result.last["alignment_degrees"]) == 2
    # A whole number of the 50 test images.
    wrong = result.last["test_error_percent"] * 0.5
    np.testing.assert_allclose(wrong, round(wrong), atol=1e-9)
    assert [r.last for r in experiments.load_results(tmp_path)] == [result.last]


def test_a_run_ends_when_no_training_error_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_gevb.experiments.run.Run._evaluate", lambda self, x, y: (0.0, 0.0))
    result = run_cell(CELL, 0, tmp_path, Protocol(epochs=9, evaluate_every=2))
    assert (result.epochs, result.finished) == (2, "no training error")


def test_a_finished_run_is_not_run_again(kept, monkeypatch):
    before = RunFiles(kept, CELL, 0).result.read_bytes()
    monkeypatch.setattr("keras_gevb.experiments.run.Run", None)
    run_cell(CELL, 0, kept, SHORT)
    assert RunFiles(kept, CELL, 0).result.read_bytes() == before


def test_epochs_added_to_a_kept_state_equal_a_longer_run(tmp_path):
    """Its last measurement, after 3 epochs, is none of the longer run's. Compiled, as by the command."""
    tf.config.run_functions_eagerly(False)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_cell(CELL, 0, whole, Protocol(4, 2, batch_size=70))
    run_cell(CELL, 0, parts, Protocol(3, 2, batch_size=70), keep_state=True)
    run_cell(CELL, 0, parts, Protocol(4, 2, batch_size=70))
    assert RunFiles(parts, CELL, 0).result.read_bytes() == RunFiles(whole, CELL, 0).result.read_bytes()


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.sampled(1)
def test_a_killed_run_ends_measured_where_it_is_if_it_has_come_to_a_lower_limit(limit, tmp_path):
    class Killed(Exception):
        pass

    def kill(result, share):
        if result.epochs == 2 and share > 0:
            raise Killed

    with pytest.raises(Killed):
        run_cell(CELL, 0, tmp_path, Protocol(9, 9), progress=kill)
    result = run_cell(CELL, 0, tmp_path, Protocol(limit, 9))
    assert (result.epochs, result.finished) == (2, "last epoch")
    assert [m["epoch"] for m in result.measurements] == [0, 2]


def test_progress_is_the_share_of_samples_that_the_epoch_has_had(tmp_path):
    shares = []
    run_cell(CELL, 0, tmp_path, Protocol(1, 1, batch_size=50), progress=lambda _, share: shares.append(share))
    np.testing.assert_allclose([s for s in shares if 0 < s < 1], [50 / 140, 100 / 140], rtol=1e-12)


def test_epochs_cannot_be_added_where_no_state_is_kept(kept):
    run_cell(CELL, 0, kept, SHORT, keep_state=False)
    with pytest.raises(ExperimentError, match="--keep-state"):
        run_cell(CELL, 0, kept, Protocol(3, 1))


def test_another_protocol_does_not_continue_a_run(kept):
    with pytest.raises(ExperimentError, match="another protocol"):
        run_cell(CELL, 0, kept, Protocol(2, 2))


def test_two_processes_do_not_share_a_run(tmp_path):
    run_files = RunFiles(tmp_path, CELL, 0)
    with files.locked(run_files.lock) as ours:
        assert ours
        assert run_cell(CELL, 0, tmp_path, SHORT) is None


def test_a_lock_that_its_owner_deletes_meanwhile_locks_no_one_out(tmp_path, monkeypatch):
    """Opened before the owner ends, locked after: another may have made and locked a new file by then."""
    lock_it = files.fcntl.flock

    def flock(file, operation):
        (tmp_path / "a.lock").unlink()
        lock_it(file, operation)

    with monkeypatch.context() as patch:
        patch.setattr(files.fcntl, "flock", flock)
        with files.locked(tmp_path / "a.lock") as ours:
            assert not ours
    with files.locked(tmp_path / "a.lock") as ours:
        assert ours


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half of the n")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ExperimentError, match="No space"):
        files.write_atomically(path, write)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("file.json", b"old")]


def test_cells_come_in_the_order_of_the_table():
    table = list(CELLS)
    names = [cell.name for cell in experiments.cells.find(["digits-*", "mnist-fc-*"])]
    assert names == [name for name in table if name.startswith(("digits-", "mnist-fc-"))]
    assert names != sorted(names)


def test_two_processes_write_one_file_at_the_same_time(tmp_path):
    """On two machines they may have the same process number."""

    def write(file):
        file.write(b'{"schema"')
        files.write_json(tmp_path / "shared.json", {"schema": files.SCHEMA})
        file.write(b": 1}")

    files.write_atomically(tmp_path / "shared.json", write)
    assert (tmp_path / "shared.json").read_bytes() == b'{"schema": 1}'


# Death at any moment


def command(out, epochs=4):
    arguments = ["run", CELL.name, "--seeds", "1", "--epochs", str(epochs), "--evaluate-every", "1"]
    return [sys.executable, "-m", "keras_gevb.experiments", *arguments, "--out", str(out)]


@pytest.mark.long
def test_a_run_killed_and_started_again_ends_as_one_left_alone(tmp_path):
    """kill -9 after the first and after a later epoch, and in the middle of an epoch."""
    alone, killed = RunFiles(tmp_path / "alone", CELL, 0), RunFiles(tmp_path / "killed", CELL, 0)
    subprocess.run(command(tmp_path / "alone"), check=True, capture_output=True)
    rng = random.Random(0)
    for epochs in (1, 3):
        kill_after(epochs, killed, rng)
    (killed.result.parent / ".seed-0.state.npz.1.writing").write_bytes(b"half a st")
    subprocess.run(command(tmp_path / "killed"), check=True, capture_output=True)
    assert killed.result.read_bytes() == alone.result.read_bytes()
    assert len(killed.read_seconds()) == 4
    left = {path.name for path in killed.result.parent.iterdir()}
    assert left == {"seed-0.json", "seed-0.timing.json"}


def kill_after(epochs, run_files, rng):
    """Start the command, and kill it soon after it has finished so many epochs."""
    process = subprocess.Popen(
        command(run_files.result.parents[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if run_files.result.exists() and run_files.read_result().epochs >= epochs:
            time.sleep(rng.uniform(0, 0.1))
            break
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


# Broken files


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "corrupt or half-written"),
        (lambda text: "", "corrupt or half-written"),
        (lambda text: text.replace('"measurements"', '"measures"'), "corrupt or half-written"),
        (lambda text: text.replace('"test_loss"', '"loss"'), "corrupt or half-written"),
        (lambda text: text.replace('"seed": 0', '"seed": 5'), "it is of"),
        (lambda text: text.replace('"schema": 1', '"schema": 99'), "another version"),
    ],
    ids=["half", "empty", "altered", "incomplete", "of another run", "newer"],
)
@pytest.mark.parametrize("arguments", [["run", CELL.name, "--seeds", "2"], ["report"]], ids=["run", "report"])
def test_a_damaged_result_is_named_before_any_work(kept, damage, message, arguments, capsys):
    path = RunFiles(kept, CELL, 0).result
    damaged = damage(path.read_text())
    path.write_text(damaged)
    assert main([*arguments, "--out", str(kept)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert str(path) in error
    assert path.read_text() == damaged
    assert not RunFiles(kept, CELL, 1).result.exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("seed-0.timing.json", b'{"schema": 1}'),
        ("seed-0.representation.npz", b"PK"),
        ("../width.json", b'{"schema": 1, "rows": [{"seed": 0, "alignment_degrees": null}]}'),
    ],
)
@pytest.mark.sampled(2)
def test_a_report_names_what_is_damaged(kept, file, content, capsys):
    path = (kept / CELL.name / file).resolve()
    path.write_bytes(content)
    assert main(["report", "--out", str(kept)]) == 1
    assert f"{path.name}' is corrupt or half-written" in capsys.readouterr().err
    path.unlink()
    assert main(["report", "--out", str(kept)]) == 0


def test_other_files_are_no_results(kept):
    (kept / CELL.name / "seed-0-copy.json").write_bytes(RunFiles(kept, CELL, 0).result.read_bytes())
    assert [result.seed for result in experiments.load_results(kept)] == [0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", CELL.name, "--first-seed", "-1"], "must be at least 0"),
        (["run", CELL.name, "--seeds", "0"], "must be at least 1"),
        (["width", "--widths", "7"], "must be even"),
    ],
)
def test_a_number_that_cannot_be_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "rows", [None, [{"seed": 0}], [{"cell": "mnist-fc", "seed": 0, "alignment_degrees": [1.0]}]]
)
def test_a_damaged_alignment_is_named(tmp_path, rows, capsys):
    path = files.open_folder(tmp_path, create=True) / "alignment.json"
    files.write_json(path, {"schema": files.SCHEMA, "rows": rows})
    for arguments in (["alignment", CELL.name], ["report"]):
        assert main([*arguments, "--out", str(tmp_path)]) == 1
        assert f"'{path}' is corrupt" in capsys.readouterr().err


def test_two_processes_do_not_measure_into_one_file(tmp_path, capsys):
    arguments = ["--seeds", "1", "--out", str(tmp_path)]
    with files.locked(tmp_path / "alignment.lock") as ours:
        assert ours
        assert main(["alignment", CELL.name, *arguments]) == 1
        assert "Another process" in capsys.readouterr().err
    assert main(["alignment", CELL.name, *arguments]) == 0
    (row,) = files.read_json(tmp_path / "alignment.json")["rows"]
    assert (row["cell"], row["seed"]) == (CELL.name, 0)


def test_backpropagation_has_no_alignment_to_measure(tmp_path, capsys):
    assert main(["alignment", "*-backprop-*", "--out", str(tmp_path)]) == 1
    assert "nothing to measure" in capsys.readouterr().err


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_damaged_state_is_named_before_any_work(kept, size, monkeypatch):
    monkeypatch.setattr("keras_gevb.experiments.run.load", None)
    state = RunFiles(kept, CELL, 0).state
    state.write_bytes(state.read_bytes()[:size])
    with pytest.raises(ExperimentError, match=r"state.npz' is corrupt"):
        run_cell(CELL, 0, kept, Protocol(3, 1))


def test_a_damaged_state_of_a_later_run_is_named_before_the_first(kept, capsys):
    RunFiles(kept, CELL, 1).state.write_bytes(b"half a st")
    arguments = ["run", CELL.name, "--seeds", "2", "--epochs", "3", "--evaluate-every", "1"]
    assert main([*arguments, "--out", str(kept)]) == 1
    assert "seed-1.state.npz' is corrupt" in capsys.readouterr().err
    assert RunFiles(kept, CELL, 0).read_result().epochs == 2


def test_a_state_of_other_packages_is_not_continued(kept, monkeypatch):
    monkeypatch.setattr("keras_gevb.experiments.run.load", None)
    monkeypatch.setattr("keras_gevb.experiments.continuing.versions", lambda: {"keras": "99"})
    with pytest.raises(ExperimentError, match="99"):
        run_cell(CELL, 0, kept, Protocol(3, 1))


def test_a_file_is_no_output_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for arguments in (["run", CELL.name], ["report"]):
        assert main([*arguments, "--out", str(tmp_path / "file")]) == 1
        assert "is a file. Give --out a folder" in capsys.readouterr().err


def test_a_folder_of_another_version_is_refused(tmp_path, capsys):
    (tmp_path / files.MARKER).write_text(json.dumps({"schema": 99}))
    for arguments in (["run", CELL.name], ["report"]):
        assert main([*arguments, "--out", str(tmp_path)]) == 1
        assert "another version" in capsys.readouterr().err


@pytest.mark.parametrize("full_at", [0, 2, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 3, 5))])
@pytest.mark.sampled(1)
def test_a_full_disk_ends_the_command_and_loses_nothing(left_alone, tmp_path, monkeypatch, capsys, full_at):
    """The disk fills up at some write; with space again the run goes on to the same result."""
    arguments = ["run", CELL.name, "--epochs", "2", "--evaluate-every", "1", "--seeds", "1"]
    arguments += ["--out", str(tmp_path)]
    writes = iter(range(1000))
    synchronize = os.fsync

    def fsync(descriptor):
        if next(writes) >= full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synchronize(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        assert main(arguments) == 1
    assert "No space is left on the device" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.writing"))
    assert main(arguments) == 0
    full, alone = (RunFiles(out, CELL, 0).result.read_bytes() for out in (tmp_path, left_alone))
    assert full == alone


def test_a_file_stays_as_it_was_where_the_disk_is_full(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    files.write_json(path, {"old": 1})
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(files.ExperimentError, match="No space is left"):
        files.write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_data_set_is_a_clear_error(tmp_path, capsys, monkeypatch):
    (tmp_path / "data" / "mnist" / "3.0.1").mkdir(parents=True)
    arguments = ["run", "mnist-fc-vectorized-gevb-nonnegative", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--data-dir", str(tmp_path / "data")]) == 1
    assert "TFDS_DATA_DIR" in capsys.readouterr().err


def test_tensorflow_datasets_is_loaded_before_bars_are_drawn(tmp_path, monkeypatch):
    """While it loads it replaces Python's `import`, which killed the thread that draws."""
    monkeypatch.delitem(sys.modules, "tensorflow_datasets", raising=False)
    loaded = []
    monkeypatch.setattr(
        "rich.progress.Progress.start", lambda bars: loaded.append("tensorflow_datasets" in sys.modules)
    )
    arguments = ["width", "--widths", "8", "--seeds", "1", "--dataset", "digits"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert loaded == [True]


def test_a_report_needs_an_output_folder(tmp_path, capsys):
    assert main(["report", "--out", str(tmp_path)]) == 1
    assert "no experiments" in capsys.readouterr().err


def test_a_run_without_training_error_is_not_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments.run.Run, "_evaluate", lambda self, x, y: (0.1, 0.0))
    first = run_cell(CELL, 0, tmp_path, Protocol(5, 1))
    assert (first.epochs < 5, first.finished) == (True, "no training error")

    def fails(*args, **kwargs):
        raise AssertionError("run again")

    monkeypatch.setattr(experiments.run.Run, "_evaluate", fails)
    assert run_cell(CELL, 0, tmp_path, Protocol(5, 1)) == first
