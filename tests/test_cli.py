"""The command line does what its help says, and a wrong use is one line that loses nothing."""

import json
import os
import signal
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_gevb
from keras_gevb import cli
from keras_gevb.experiments import cells

pytestmark = [
    pytest.mark.usefixtures("eager_functions"),
    pytest.mark.filterwarnings("ignore:Even though the"),
]
SMALL = ["--width", "0.1", "--batch-size", "256"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line, *more):
    """The exit status, also where the parser ends the process."""
    try:
        return cli.main([*line.split(), *more])
    except SystemExit as ended:
        return ended.code


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def trained(here, capsys):
    assert run("train digits --epochs 1 --out trained --json", *SMALL) == 0
    return here / "trained", json.loads(capsys.readouterr().out)


def test_train_leaves_a_model_whose_test_error_is_the_one_it_prints(trained):
    folder, result = trained
    _, (x, y) = keras_gevb.datasets.load("digits")
    model = keras.models.load_model(folder / "model.keras")
    wrong = np.mean(model.predict(x, verbose=0).argmax(axis=1) != y)
    assert result["test_error_percent"] == pytest.approx(100 * wrong, abs=1e-3)  # four digits are printed
    assert result["epochs"] == 1
    assert json.loads((folder / "result.json").read_text()) == result


def test_train_says_how_to_go_on_where_there_is_a_model_and_goes_on(trained, capsys):
    folder, _ = trained
    before = files(folder)
    assert run("train digits --epochs 2 --out trained", *SMALL) == 2
    assert "--resume" in capsys.readouterr().err
    assert files(folder) == before
    assert run("train digits --epochs 2 --out trained --resume --json", *SMALL) == 0
    assert json.loads(capsys.readouterr().out)["epochs"] == 2
    rows = (folder / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2"]
    assert int(keras.models.load_model(folder / "model.keras").optimizer.iterations) == 2 * 6  # 1,438 / 256


def test_ctrl_c_keeps_the_finished_epochs(monkeypatch, here, capsys):
    keep = cli.train._Keeper.on_epoch_end

    def interrupted(keeper, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt
        keep(keeper, epoch, logs)

    monkeypatch.setattr(cli.train._Keeper, "on_epoch_end", interrupted)
    assert run("train digits --epochs 3 --out trained", *SMALL) == 130
    assert "--resume goes on" in capsys.readouterr().err.splitlines()[-1]
    assert sorted(path.name for path in (here / "trained").iterdir()) == ["log.csv", "model.keras"]
    model = keras.models.load_model(here / "trained" / "model.keras")
    assert int(model.optimizer.iterations) == 6


def test_a_loss_that_is_not_finite_is_a_failure_that_keeps_the_last_good_model(trained, monkeypatch, capsys):
    folder, _ = trained
    before = files(folder)
    load = keras.models.load_model

    def broken(path):
        model = load(path)
        model.layers[-1].bias.assign(np.full(model.layers[-1].bias.shape, np.inf))
        return model

    monkeypatch.setattr(keras.models, "load_model", broken)
    assert run("train digits --epochs 2 --out trained --resume", *SMALL) == 1
    assert "no longer finite" in capsys.readouterr().err.splitlines()[-1]
    assert files(folder) == before


WRONG = {
    "train nothing": "invalid choice: 'nothing'",
    "train digits --learning-rule nothing": "Unknown learning rule",
    "train digits --learning-rule dfa": "DFA serves conventional units",
    "train digits --epochs 0": "must be at least 1",
    "train digits --learning-rate inf": "above 0 and finite",
    "train digits --out a-file/deeper": "cannot be written into",
    "train digits --resume": "no model to go on with",
    "tune digits --parameters 5 3": "the least first",
    "tune digits --out a-folder": "is there already",
    "experiments list nothing": "No cell is named so",
    "experiments report --out nothing": "no experiments in",
    "experiments nothing": "invalid choice: 'nothing'",
    "export nothing.keras out": "no file 'nothing.keras'",
    "export a-file a-folder": "is there already",
    "export a-file a-file": "is the model itself",
    "nothing": "invalid choice: 'nothing'",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_use_is_one_line_and_status_2_and_changes_nothing(line, here, capsys):
    (here / "a-folder").mkdir()
    (here / "a-folder" / "mine").write_text("mine")
    (here / "a-file").write_text("mine")
    assert run(line) == 2
    printed = capsys.readouterr()
    assert WRONG[line] in printed.err
    assert len(printed.err.splitlines()) == 1
    assert not printed.out
    assert files(here) == {here / "a-folder" / "mine": b"mine", here / "a-file": b"mine"}


def test_a_folder_without_permission_is_a_wrong_use(here, monkeypatch, capsys):
    def refused(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cli.outputs.pathlib.Path, "mkdir", refused)
    assert run("train digits --out forbidden") == 2
    assert "Permission denied" in capsys.readouterr().err


def test_no_network_is_a_failure_at_once(here, monkeypatch, capsys):
    def unreachable(*args):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert run("train mnist --data-dir nothing --json") == 1
    printed = capsys.readouterr()
    assert "there is no network" in printed.err.splitlines()[-1]
    assert json.loads(printed.out) == {"error": printed.err.splitlines()[-1], "status": 1}


def test_export_writes_what_gives_the_models_answers(trained, here, capsys):
    x = keras_gevb.datasets.load("digits")[1][0][:4]
    logits = keras.models.load_model(here / "trained" / "model.keras").predict(x, verbose=0)
    assert run("export trained/model.keras served --input-dtype uint8") == 0
    assert capsys.readouterr().out.splitlines() == ["format: saved_model", "written: served"]
    served = tf.saved_model.load(here / "served").signatures["serving_default"](tf.constant(x))["output_0"]
    np.testing.assert_allclose(served, logits, rtol=0, atol=1e-5)  # float32, logits of order 10
    assert run("export trained/model.keras stock.keras --json") == 0
    stock = keras.models.load_model(here / "stock.keras")
    np.testing.assert_allclose(stock.predict(x, verbose=0), logits, rtol=0, atol=1e-5)
    assert not any(isinstance(layer, keras_gevb.layers.WeightLayer) for layer in stock._flatten_layers())


def test_an_export_that_fails_leaves_what_was_there(here, capsys):
    (here / "broken.keras").write_text("no model")
    (here / "out.keras").write_text("mine")
    assert run("export broken.keras out.keras --overwrite") == 1
    assert "could not be read as a model" in capsys.readouterr().err
    assert files(here) == {here / "broken.keras": b"no model", here / "out.keras": b"mine"}


def test_an_export_that_fails_while_it_writes_leaves_what_was_there(trained, here, monkeypatch, capsys):
    def half(model, path, *_):
        path.write_text("half")
        raise RuntimeError("the disk is full")

    (here / "out.keras").write_text("mine")
    before = files(here)
    monkeypatch.setattr(cli.export, "_write", half)
    assert run("export trained/model.keras out.keras --overwrite") == 1
    assert "the disk is full" in capsys.readouterr().err
    assert files(here) == before


def test_tune_searches_trains_the_best_and_repeats_nothing(here, monkeypatch, capsys):
    line = "tune digits --max-trials 1 --epochs 1 --parameters 2000 2001 --out tuned --json"
    assert run(line) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["trials"] == 1
    model = keras.models.load_model(here / "tuned" / "model.keras")
    assert sum(np.size(weight) for weight in model.trainable_weights) <= 2001
    monkeypatch.setattr(cli.kinds, "load", None)
    assert run(line) == 0
    assert json.loads(capsys.readouterr().out) == result
    assert run(line, "--seed", "1") == 2
    assert "seed changed" in capsys.readouterr().err


def test_experiments_are_those_of_the_package(capsys):
    assert run("experiments --json list mnist-* cifar10-*") == 0
    names = json.loads(capsys.readouterr().out)["lines"]
    assert names == [cell.name for cell in cells.find(["mnist-*", "cifar10-*"])]
    assert run("experiments list mnist-fc-*") == 0
    assert capsys.readouterr().out.splitlines() == [name for name in names if "mnist-fc" in name]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help_with_examples_that_can_be_parsed(command, capsys):
    assert run(command, "--help") == 0
    words = capsys.readouterr().out
    examples = [
        line.split("keras-gevb ")[1] for line in words.splitlines() if line.startswith("  keras-gevb ")
    ]
    for example in examples:
        arguments = example.split(" > ")[0].split("#")[0].replace("'", "").split()
        if "--help" not in arguments:
            cli.parser().parse_args(arguments)
    assert examples or command == "completion"


def test_completion_offers_commands_and_their_options():
    script = subprocess.run(
        [
            "bash",
            "-c",
            'source /dev/stdin; say() { _keras_gevb; echo "${COMPREPLY[@]}"; }; '
            "COMP_WORDS=(keras-gevb train --wi) COMP_CWORD=2; say; "
            "COMP_WORDS=(keras-gevb tr) COMP_CWORD=1; say",
        ],
        input=cli.completion.run(cli.parser().parse_args(["completion", "bash"]))["text"],
        capture_output=True,
        text=True,
    )
    assert script.stdout.splitlines() == ["--width", "train"]


def test_the_command_imports_nothing_beyond_keras_that_it_does_not_use():
    """In a process of its own: what `keras_gevb` and the parser load after Keras is theirs, or Python's."""
    program = (
        "import keras, sys; before = set(sys.modules); import keras_gevb.cli; keras_gevb.cli.parser();"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "keras_gevb" in loaded
    assert loaded - {"keras_gevb"} <= set(sys.stdlib_module_names)


@pytest.mark.long
def test_a_real_ctrl_c_ends_with_one_line(here):
    command = [sys.executable, "-m", "keras_gevb", "train", "digits", "--epochs", "500", "--out", "trained"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "val_accuracy" in line:
            break
    os.kill(process.pid, signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130
    assert "Traceback" not in rest
    assert rest.splitlines()[-1].startswith("Stopped.")
    assert keras.models.load_model(here / "trained" / "model.keras").learning_rule.vectorized
