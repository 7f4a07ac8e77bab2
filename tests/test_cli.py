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
    assert sorted(path.name for path in (here / "trained").iterdir()) == [
        "asked.json",
        "log.csv",
        "model.keras",
    ]
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
    "train digits --resume": "no run to go on with",
    "tune digits --parameters 5 3": "the least first",
    "tune digits --out a-folder": "is there already",
    "experiments list nothing": "No cell is named so",
    "experiments report --out nothing": "no experiments in",
    "experiments nothing": "invalid choice: 'nothing'",
    "export nothing.keras out": "no file 'nothing.keras'",
    "export a-file a-folder": "is there already",
    "export a-file a-file": "is the model itself",
    "certify nothing.keras": "no file 'nothing.keras'",
    "certify a-file --out a-file": "is there already",
    "certify a-file --out a-file/deeper": "cannot be written into",
    "certify a-file --samples 1": "at least 2",
    "certify a-file --samples none": "invalid positive value",
    "train digits --learning-rate 0": "must be above 0 and finite",
    "convert nothing.keras --rule dfa --out out.keras": "no file 'nothing.keras'",
    "convert a-file --rule nothing --out out.keras": "Unknown learning rule",
    "convert a-file --rule dfa": "required: --out",
    "convert a-file --out out.keras": "--rule RULE, --vectorize or --to-keras",
    "convert a-file --rule dfa --out out.h5": "must end in .keras",
    "convert a-file --rule dfa --out a-file/out.keras": "cannot be written into",
    "convert a-file --to-keras --rule dfa --out out.keras": "takes no --rule",
    "convert a-file --to-keras --vectorize --out out.keras": "not allowed with",
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


def test_export_writes_onnx(trained, here):
    pytest.importorskip("onnx", reason="the extra `export`")
    assert run("export trained/model.keras model.ONNX") == 0
    assert (here / "model.ONNX").stat().st_size


def test_a_certificate_knows_a_loss_by_its_name(here, capsys):
    chain = [keras.Input((6,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(3, "softmax")]
    model = keras_gevb.convert(keras.Sequential(chain), "dfa")
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save("named.keras")
    assert run("certify named.keras") == 0
    assert "Local" in capsys.readouterr().out


def test_an_error_of_a_library_is_one_line(here, capsys):
    assert run("tune digits --parameters 1 2 --max-trials 1 --out small") == 1
    assert len(capsys.readouterr().err.strip().splitlines()[-1:]) == 1
    with pytest.raises(Exception, match="Too large"):
        run("tune digits --parameters 1 2 --max-trials 1 --out smaller --debug")


def test_a_run_goes_on_by_the_arguments_that_it_began_with(trained, capsys):
    folder, _ = trained
    before = files(folder)
    assert run("train digits --epochs 3 --out trained --resume --learning-rate 5", *SMALL) == 2
    assert "learning_rate changed" in capsys.readouterr().err
    assert files(folder) == before


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


@pytest.fixture(scope="module")
def stock_file(tmp_path_factory):
    """Pixels to 10 classes by stock layers, compiled."""
    inputs = keras.Input((8, 8, 1))
    hidden = keras.layers.Dense(6, activation="relu")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(10)(hidden), name="mine")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.25), loss, metrics=["accuracy"])
    path = tmp_path_factory.mktemp("stock") / "stock.keras"
    model.save(path)
    return str(path)


def test_convert_keeps_answers_and_loss_there_to_another_rule_and_back(stock_file, here, capsys):
    x = np.random.default_rng(0).random((4, 8, 8, 1), "float32")
    stock = keras.models.load_model(stock_file)
    for source, way, out in (
        (stock_file, "--rule dfa", "dfa.keras"),
        ("dfa.keras", "--rule fa", "fa.keras"),
        ("fa.keras", "--to-keras", "back.keras"),
    ):
        assert run(f"convert {source} {way} --out {out} --json") == 0
        result = json.loads(capsys.readouterr().out)
        model = keras.models.load_model(here / out)
        # The same float32 operations in the same order, but for what XLA may fuse.
        np.testing.assert_allclose(model(x), stock(x), rtol=1e-6, atol=1e-6)
        assert result["written"] == out
        assert result["parameters"] == model.count_params()
        assert float(model.optimizer.learning_rate) == 0.25
        assert model.loss.from_logits
        assert isinstance(model, keras_gevb.Model) == (way != "--to-keras")
        if way != "--to-keras":
            assert type(model.learning_rule).__name__.lower() == out.removesuffix(".keras")
    assert not any(type(layer).__module__.startswith("keras_gevb") for layer in model.layers)


def test_convert_to_vectors_learns_by_gevb_unless_told(stock_file, here, capsys):
    for more, rule in (("", keras_gevb.rules.GEVB), ("--rule backprop", keras_gevb.rules.Backprop)):
        assert run(f"convert {stock_file} --vectorize {more} --out vectors.keras --overwrite") == 0
        model = keras.models.load_model(here / "vectors.keras")
        assert isinstance(model.learning_rule, rule)
        assert isinstance(model.layers[-1], keras_gevb.layers.VectorReadout)
        assert model.count_params() == 64 * 10 * 6 + 2 * 10 * 6 + 6 + 10  # kernels, biases and gates; readout


@pytest.mark.parametrize(
    ("line", "status", "error"),
    [
        ("convert {stock} --rule gevb --out out.keras", 2, "vector"),
        ("convert {stock} --rule dfa --out mine.keras", 2, "is there already"),
        ("convert mine.keras --rule dfa --out out.keras", 1, "could not be read as a model"),
        ("certify mine.keras --out out.json", 1, "could not be read as a model"),
        ("certify {stock} --out out.json", 2, "no compiled model that learns by a rule"),
        ("certify {vectors} --data nothing", 2, "--data must be one of digits"),
        ("certify {vectors} --data mine.npz", 2, "no arrays x and y"),
        ("certify {vectors} --data small.npz", 2, "samples of shape (8, 8, 1). Received: (3,)"),
        ("certify {words}", 2, "a model of integers"),
        ("certify {two}", 2, "several inputs or outputs"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_and_leaves_the_others(
    line, status, error, stock_file, model_files, here, capsys
):
    (here / "mine.keras").write_text("mine")
    np.savez(here / "mine.npz", a=1)
    np.savez(here / "small.npz", x=np.zeros((4, 3)), y=np.zeros(4))
    before = files(here)
    assert run(line.format(stock=stock_file, **model_files), "--json") == status
    printed = capsys.readouterr()
    (said,) = (one for one in printed.err.splitlines() if one.startswith("error: "))
    assert error in said
    assert json.loads(printed.out) == {"error": said, "status": status}
    assert files(here) == before


@pytest.fixture(scope="module")
def model_files(tmp_path_factory):
    """Models that learn by a rule: of vector units, of words, of two outputs."""
    folder, layers = tmp_path_factory.mktemp("rules"), keras_gevb.layers
    pixels, words = keras.Input((8, 8, 1)), keras.Input((5,), dtype="int32")
    flat = keras.layers.Flatten()(pixels)
    hidden = layers.VectorDense(4, vector_dim=10)(flat)
    dense = keras.layers.Dense(4)(flat)
    ends = {
        "vectors": (pixels, layers.VectorReadout()(hidden)),
        "words": (words, keras.layers.Dense(3)(keras.layers.Flatten()(keras.layers.Embedding(7, 2)(words)))),
        "two": (pixels, [keras.layers.Dense(3)(dense), keras.layers.Dense(2)(dense)]),
    }
    for name, (inputs, outputs) in ends.items():
        model = keras_gevb.Model(inputs, outputs, learning_rule="gevb" if name == "vectors" else "backprop")
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss if name != "two" else ["mse", "mse"])
        model.save(folder / f"{name}.keras")
    return {name: str(folder / f"{name}.keras") for name in ends}


@pytest.mark.parametrize(("rule", "status"), [("backprop", 1), ("gevb", 0)])
@pytest.mark.sampled(1)
def test_certify_prints_the_table_of_the_package_and_fails_what_is_not_local(
    rule, status, model_files, here, capsys
):
    model = keras.models.load_model(model_files["vectors"])
    model._set_learning_rule(rule)
    model.save(here / "model.keras")
    (x, y), _ = keras_gevb.datasets.load("digits")
    wanted = keras_gevb.diagnostics.certify(model, x[:8], y[:8], seed=1)
    line = "certify model.keras --data digits --samples 8 --seed 1"
    assert run(f"{line} --out certificate.json") == status
    assert capsys.readouterr().out == f"{wanted}\nwritten: certificate.json\n"
    assert (here / "certificate.json").read_text() == wanted.to_json()
    assert run(f"{line} --json") == status
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("status", 0) == status
    assert printed == json.loads(wanted.to_json())


def test_certify_takes_arrays_and_pixels_in_another_shape(model_files, here, capsys):
    (x, y), _ = keras_gevb.datasets.load("digits")
    np.savez(here / "flat.npz", x=x.reshape(-1, 64), y=y)
    names = "--data digits", "--data flat.npz"
    tables = []
    for name in names:
        assert run(f"certify {model_files['vectors']} --samples 4 {name}") == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]
    assert "4 samples" in tables[0]


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


def test_a_run_that_was_stopped_in_its_first_epoch_goes_on(monkeypatch, here, capsys):
    def interrupted(keeper, epoch, logs=None):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cli.train._Keeper, "on_epoch_end", interrupted)
        assert run("train digits --epochs 1 --out begun", *SMALL) == 130
    assert run("train digits --epochs 1 --out begun --resume --json", *SMALL) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["epochs"] == 1


def test_an_export_goes_by_the_end_of_its_name(trained, here, capsys):
    assert run("export trained/model.keras out.h5") == 2
    assert "--format" in capsys.readouterr().err
    assert not (here / "out.h5").exists()


def test_what_is_asked_of_train_reaches_the_model_and_fit(here, monkeypatch):
    fits = []

    def fit(model, *data, **settings):
        fits.append((model, settings))
        raise RuntimeError("seen enough")  # which ends the command

    monkeypatch.setattr(keras_gevb.Sequential, "fit", fit)
    for n, seed in enumerate((1, 1, 2)):
        assert run(f"train digits --mixed-sign --width 0.1 --seed {seed} --out run-{n}") == 1
    kernels = [np.concatenate([np.ravel(k) for k in model.get_weights()]) for model, _ in fits]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])
    model, settings = fits[0]
    assert (settings["epochs"], settings["batch_size"]) == (30, 32)  # the digits' own
    assert not any(layer.constrained for layer in keras_gevb.model.weight_layers(model))


def test_the_seed_of_tune_is_that_of_the_search(here, monkeypatch):
    given = {}

    def search(hypermodel, **settings):
        given.update(settings)
        raise RuntimeError("seen enough")  # which ends the command

    monkeypatch.setitem(keras_gevb.tuning.TUNERS, "random", search)
    assert run("tune digits --seed 5 --out searched") == 1
    assert given["seed"] == 5


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_for_the_shell(shell):
    text = cli.completion.run(cli.parser().parse_args(["completion", shell]))["text"]
    assert ("bashcompinit" in text) is (shell == "zsh")
