"""The scripts of examples/ do what the README and their own help say."""

import csv
import importlib.util
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_gevb

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py"))
pytestmark = pytest.mark.filterwarnings("ignore:Even though the")


def example(name, *arguments, monkeypatch):
    """An example as a module, its command line set."""
    monkeypatch.setattr(sys, "argv", [str(EXAMPLES / f"{name}.py"), *map(str, arguments)])
    specification = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_example_explains_itself(name, monkeypatch, capsys):
    script = example(name, "--help", monkeypatch=monkeypatch)
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 0
    words = " ".join(capsys.readouterr().out.split())
    assert " ".join(script.__doc__.split()) in words
    assert "--epochs" in words


def test_the_readmes_first_command_calls_an_example_that_is_there():
    commands = re.findall(r"python (examples/\S+\.py)", (ROOT / "README.md").read_text())
    assert commands[0] == "examples/train.py"
    assert all((ROOT / path).is_file() for path in commands)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What the README's first command leaves and prints, of two epochs in place of thirty."""
    folder = tmp_path_factory.mktemp("train")
    command = [sys.executable, str(EXAMPLES / "train.py"), "--epochs", "2"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "runs" / "digits-fc-nonnegative", done.stdout


def epochs(folder, rule):
    with (folder / f"{rule}.csv").open() as file:
        return list(csv.DictReader(file))


def table(printed):
    """The numbers behind each rule's name."""
    rows = re.findall(r"^\W*(gevb|backprop)\W+([\d.]+)\W+([\d.]+)\W+([\d.e-]+)\W*$", printed, re.MULTILINE)
    return {rule: tuple(map(float, numbers)) for rule, *numbers in rows}


def test_the_table_of_the_readmes_first_command_is_what_was_trained(trained):
    folder, printed = trained
    _, (x, y) = keras_gevb.datasets.load("digits")
    shown = table(printed)
    assert list(shown) == ["gevb", "backprop"]
    for rule, (error, seconds, smallest) in shown.items():
        model = keras.models.load_model(folder / f"{rule}.keras")
        assert type(model.learning_rule).__name__.lower() == rule
        wrong = np.mean(model.predict(x, verbose=0).argmax(axis=1) != y)
        assert error == pytest.approx(100 * wrong, abs=0.0051)  # two digits are shown
        assert error < 40  # chance: 90
        later = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")][1:]
        assert smallest == pytest.approx(min(float(np.min(kernel)) for kernel in later), rel=0.01)
        assert smallest >= 0
        assert seconds > 0
        last = epochs(folder, rule)[-1]
        assert 100 * (1 - float(last["val_accuracy"])) == pytest.approx(100 * wrong, abs=1e-3)


def test_both_rules_of_the_readmes_first_command_train_from_the_same_start(trained):
    folder, _ = trained
    one, other = (epochs(folder, rule) for rule in ("gevb", "backprop"))
    assert len(one) == len(other) == 2
    # After one epoch of the same batches from the same weights, not yet far apart, and not the same.
    assert float(one[0]["loss"]) == pytest.approx(float(other[0]["loss"]), rel=0.3)
    assert one[0]["loss"] != other[0]["loss"]


def test_the_readmes_first_command_leaves_curves_and_a_model_that_takes_raw_pixels(trained):
    folder, printed = trained
    assert (folder / "learning_curves.png").stat().st_size > 10_000
    assert "Curves and models: runs/digits-fc-nonnegative" in printed.replace("\n", "")
    x = keras_gevb.datasets.load("digits")[1][0][:5]
    for rule in ("gevb", "backprop"):
        served = tf.saved_model.load(folder / f"{rule}_savedmodel")
        model = keras.models.load_model(folder / f"{rule}.keras")
        logits = served.serve(x.astype("float32"))
        np.testing.assert_allclose(logits, model.predict(x, verbose=0), rtol=1e-4, atol=1e-4)


@pytest.fixture
def compiled_with(monkeypatch):
    """The settings of every model that an example compiles."""
    settings, compile_model = [], keras_gevb.Sequential.compile

    def noted(model, optimizer, *args, **kwargs):
        settings.append((model, optimizer))
        return compile_model(model, optimizer, *args, **kwargs)

    monkeypatch.setattr(keras_gevb.Sequential, "compile", noted)
    return settings


@pytest.fixture
def fitted_with(monkeypatch):
    """What `fit` of every model was given; it trains on 64 images."""
    given, fit = [], keras_gevb.Sequential.fit

    def noted(model, x, y, **kwargs):
        given.append(kwargs)
        kwargs = {**kwargs, "epochs": 1, "verbose": 0, "validation_data": (x[:32], y[:32])}
        return fit(model, x[:64], y[:64], **kwargs)

    monkeypatch.setattr(keras_gevb.Sequential, "fit", noted)
    return given


@pytest.mark.usefixtures("eager_functions")
def test_every_option_of_the_training_example_arrives(tmp_path, monkeypatch, compiled_with, fitted_with):
    monkeypatch.setattr(keras_gevb.Sequential, "export", lambda *args, **kwargs: None)
    options = ["--architecture", "conv", "--learning-rule", "fa", "--mixed-sign", "--out", tmp_path]
    options += ["--epochs", 3, "--batch-size", 16, "--learning-rate", 0.025, "--seed", 4]
    example("train", *options, monkeypatch=monkeypatch).main()
    ((model, optimizer),), (fit,) = compiled_with, fitted_with
    assert (model.name, type(model.learning_rule).__name__) == ("digits_conv", "FA")
    assert [layer.constrained for layer in model.layers if hasattr(layer, "constrained")] == [False] * 3
    assert float(optimizer.learning_rate) == pytest.approx(0.025)
    assert (fit["epochs"], fit["batch_size"]) == (3, 16)
    assert {path.name for path in (tmp_path / "digits-conv-mixed-sign").iterdir()} == {
        *("fa.csv", "fa.keras", "learning_curves.png")
    }


@pytest.mark.parametrize(
    ("dataset", "defaults"),
    [
        ("digits", {"epochs": 30, "batch_size": 32, "learning_rate": 1e-3}),
        ("cifar10", {"epochs": 10, "batch_size": 128, "learning_rate": 3e-4}),
    ],
)
def test_the_training_example_has_the_defaults_that_its_help_says(dataset, defaults, monkeypatch):
    options = vars(example("train", "--dataset", dataset, monkeypatch=monkeypatch).parse_arguments())
    assert {name: options[name] for name in defaults} == defaults
    assert options["seed"] == 0


@pytest.mark.parametrize("option", ["--epochs", "--batch-size", "--learning-rate"])
def test_the_training_example_refuses_what_cannot_be(option, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        example("train", option, "0", monkeypatch=monkeypatch).parse_arguments()
    assert f"{option} must be above 0" in capsys.readouterr().err


@pytest.mark.parametrize("tuner", ["random", "grid"])
def test_the_tuning_example_searches_what_it_is_told(tuner, tmp_path, monkeypatch):
    tune = example("tune", monkeypatch=monkeypatch)
    options = ["--family", "conv", "--learning-rule", "gevb", "dfa", "--parameters", "2000", "8000"]
    options += ["--tuner", tuner, "--max-trials", "3", "--seed", "5", "--out", str(tmp_path)]
    args = tune.arguments(options)
    hypermodel, training, validation, everything, test = tune.prepare(args)
    (x, y), (x_test, y_test) = keras_gevb.datasets.load("digits")
    assert [len(part[0]) for part in (training, validation, everything, test)] == [1150, 288, 1438, 359]
    np.testing.assert_array_equal(everything[0], x)
    np.testing.assert_array_equal(test[0], x_test)
    np.testing.assert_array_equal(test[1], y_test)
    # Training and validation images are the training images, each once, with their labels.
    split = [(image.tobytes(), label) for part in (training, validation) for image, label in zip(*part)]
    assert sorted(split) == sorted((image.tobytes(), label) for image, label in zip(x, y))
    assert hypermodel.family == "conv"
    assert (hypermodel.brightest, hypermodel.seed) == (16, 5)
    assert hypermodel.choices["learning_rule"] == ["gevb", "dfa"]
    expected = {"random": (2000, 8000), "grid": [2000, 4000, 8000]}[tuner]
    assert hypermodel.choices["parameters"] == expected
    searched = tune.make_tuner(args, hypermodel)
    assert type(searched) is keras_gevb.tuning.TUNERS[tuner]
    assert searched.oracle.max_trials == 3
    assert searched.oracle.objective.name == "val_accuracy"


def test_the_distributed_example_starts_as_many_workers_as_it_is_told(monkeypatch):
    script = example("distributed", "--workers", "3", monkeypatch=monkeypatch)
    started = []

    class Process:
        def __init__(self, command, env):
            started.append((command, env["TF_CONFIG"]))

        def wait(self):
            return len(started) - 3  # the worst of these is returned

    monkeypatch.setattr(script.subprocess, "Popen", Process)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 0
    assert len(started) == 3
    assert all(command == [sys.executable, *sys.argv] for command, _ in started)
    assert len({configuration for _, configuration in started}) == 3


def test_shards_are_the_data_in_batches(monkeypatch):
    script = example("distributed", monkeypatch=monkeypatch)
    x, y = np.arange(10.0), np.arange(10)
    batches = [(a.numpy(), b.numpy()) for a, b in script.shards(x, y, 4)]
    assert [len(a) for a, _ in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([a for a, _ in batches]), x)
    for a, b in script.shards(x, y, 4, shuffle=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.long
def test_the_on_device_example_learns_in_every_runtime_what_keras_learns(tmp_path, monkeypatch, capsys):
    for module in ("onnx", "onnxruntime", "ai_edge_litert"):
        pytest.importorskip(module)
    model = keras_gevb.zoo.build("digits", "fc", width=0.25)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"], jit_compile=False)
    (x, y), (x_test, y_test) = keras_gevb.datasets.load("digits")
    model.fit(x, y, batch_size=64, epochs=4, verbose=0)
    model.save(tmp_path / "upright.keras")
    options = ["--model", tmp_path / "upright.keras", "--epochs", 4, "--batch-size", 64, "--out", tmp_path]
    script = example("on_device", *options, monkeypatch=monkeypatch)
    script.main()

    data = np.load(tmp_path / "data.npz")
    # By NumPy, a quarter turn is the same way round.
    np.testing.assert_allclose(script.turned(x, 90), np.rot90(x, axes=(1, 2)), atol=1e-4)
    np.testing.assert_array_equal(data["x"].reshape(-1, 8, 8, 1), script.turned(x)[: data["y"].size])
    before = script.error_percent(model, script.turned(x_test), y_test)
    for images, labels in [*zip(data["x"], data["y"])] * 4:
        model.train_on_batch(images, labels)
    expected = script.error_percent(model, script.turned(x_test), y_test)
    assert expected < before / 2
    rows = re.findall(r"^. (TensorFlow|LiteRT|ONNX Runtime) +(.*)$", capsys.readouterr().out, re.MULTILINE)
    assert len(rows) == 3
    for name, row in rows:
        learned = keras.models.load_model(tmp_path / f"{name.replace(' ', '_')}.keras")
        after = script.error_percent(learned, script.turned(x_test), y_test)
        shown = [float(number) for number in re.findall(r"[\d.]+", row)]
        assert shown[3:] == pytest.approx([before, after], abs=0.051)  # one digit is shown
        # Units at the edge open by rounding, so two right runs part: by a few of 359 images.
        assert after == pytest.approx(expected, abs=2)
        assert int(learned.optimizer.iterations) == 4 * 22 + 4 * 23
