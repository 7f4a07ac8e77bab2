"""Recipes train what they say, validate without the test images, and table what was measured."""

import dataclasses
import importlib
import json
import pathlib
import sys

import numpy as np
import pytest

import keras_gevb

ROOT = pathlib.Path(__file__).parent.parent
FOLDER = ROOT / "examples" / "recipes"
pytestmark = pytest.mark.filterwarnings("ignore:Even though the")
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "recipe")


@pytest.fixture
def script(monkeypatch):
    """The scripts import the one module that they share by name, as when one of them is run."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


@pytest.fixture
def small(script):
    """A recipe with all that a recipe may have."""
    return script("recipe").Recipe(
        *("digits", [("dense", 16), ("dense", 8)]),
        **dict(epochs=1, batch_size=32, learning_rate=1e-2),
        **dict(shift=1, rotation=5, flip=True, dropout=0.2, label_smoothing=0.1),
    )


def few():
    """96 training digits and 32 test digits."""
    (x, y), (x_test, y_test) = keras_gevb.datasets.load("digits")
    return (x[:96], y[:96]), (x_test[:32], y_test[:32])


@pytest.mark.usefixtures("eager_functions")
def test_a_recipe_measures_each_run_once_and_tables_it(script, small, tmp_path, monkeypatch, capsys):
    recipe = script("recipe")
    data = few()
    monkeypatch.setattr(keras_gevb.datasets, "load", lambda *_: data)
    out = tmp_path / "results.json"
    monkeypatch.setattr(sys, "argv", ["recipe", "--rule", "gevb", "--seeds", "3", "--out", str(out)])
    models, fit = [], keras_gevb.Sequential.fit
    monkeypatch.setattr(
        keras_gevb.Sequential, "fit", lambda model, *a, **k: models.append(model) or fit(model, *a, **k)
    )
    recipe.main(small, "text", "tiny")
    recipe.main(small, "text", "tiny")  # goes on with what is missing: nothing
    (model,), (run,) = models, json.loads(out.read_text())
    x, y = data[1]
    wrong = np.mean(model.predict(x, verbose=0).argmax(axis=1) != y)
    assert run["error_percent"] == pytest.approx(100 * wrong, abs=1e-3)
    assert (run["rule"], run["units"], run["seed"], run["images"]) == ("gevb", "vector", 3, "test")
    assert len(run["losses"]) == 1
    row = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].strip("|").split("|")]
    assert row[:2] == ["GEVB", "vector"]
    assert row[3] == f"{model.count_params():,}"
    assert float(row[7]) == pytest.approx(100 * wrong, abs=0.0051)


@pytest.mark.usefixtures("eager_functions")
def test_validation_leaves_the_test_images_alone(script, small, tmp_path, monkeypatch):
    recipe = script("recipe")
    monkeypatch.setattr(recipe, "HELD_OUT", 32)
    x, y = few()[0]
    run = {"rule": "gevb", "units": "vector", "width": 1.0, "seed": 0, "images": "validation"}
    seen = []
    fit = keras_gevb.Sequential.fit
    monkeypatch.setattr(
        keras_gevb.Sequential, "fit", lambda model, x, *a, **k: seen.append(x) or fit(model, x, *a, **k)
    )
    measured = recipe.train(small, run, ((x, y), (None, None)), tmp_path)
    np.testing.assert_array_equal(seen[0], x[:64])  # none of those it is validated on
    assert 0 <= measured["error_percent"] <= 100


@pytest.mark.usefixtures("eager_functions")
def test_a_run_that_was_killed_goes_on_with_its_last_epoch(script, small, tmp_path, monkeypatch):
    recipe, three = script("recipe"), dataclasses.replace(small, epochs=3)
    run = {"rule": "gevb", "units": "vector", "width": 1.0, "seed": 0, "images": "test"}
    begun, models = [], []

    class Killed(recipe.Seconds):
        def on_epoch_begin(self, epoch, logs=None):
            begun.append(epoch)
            models.append(self.model)
            if begun == [0, 1]:
                raise KeyboardInterrupt
            super().on_epoch_begin(epoch, logs)

    monkeypatch.setattr(recipe, "Seconds", Killed)
    with pytest.raises(KeyboardInterrupt):
        recipe.train(three, run, few(), tmp_path)
    measured = recipe.train(three, run, few(), tmp_path)
    assert begun == [0, 1, 1, 2]
    assert len(measured["losses"]) == 3
    assert int(models[-1].optimizer.iterations) == 3 * 3  # so the rate went on falling


def test_augmentation_and_dropout_act_in_training_alone(small):
    plain = dataclasses.replace(small, shift=0, rotation=0, flip=False, dropout=0.0).build("gevb", "vector")
    augmented = small.build("gevb", "vector")
    for layer, other in zip(*(weight_layers(model) for model in (augmented, plain)), strict=True):
        layer.set_weights(other.get_weights())
    x = few()[0][0][:4].astype("float32")
    np.testing.assert_array_equal(augmented(x, training=False), plain(x, training=False))
    assert np.abs(np.array(augmented(x, training=True)) - np.array(plain(x, training=True))).max() > 1e-3


def weight_layers(model):
    return [layer for layer in model.layers if isinstance(layer, keras_gevb.layers.WeightLayer)]


def test_an_image_is_moved_by_no_more_than_the_recipe_says(small):
    moved = dataclasses.replace(small, rotation=0, flip=False, shift=2)
    (layer,) = moved.augmentation()
    image = np.zeros((64, 8, 8, 1), "float32")
    image[:, 3, 4] = 1
    shifted = np.array(layer(image, training=True))[..., 0]
    np.testing.assert_allclose(shifted.sum(axis=(1, 2)), 1, atol=1e-5)  # bilinear weights add up to 1
    for axis, start in ((1, 3), (2, 4)):
        along = np.arange(8).reshape(1, *(-1, 1) if axis == 1 else (1, -1))
        centres = (shifted * along).sum(axis=(1, 2)) - start
        assert 1 < np.abs(centres).max() <= 2 + 1e-5


def test_the_rate_falls_to_0_as_half_a_cosine(small):
    model = small.build("gevb", "vector")
    small.compile(model, 96)
    rate = model.optimizer._learning_rate  # the schedule
    # 3 batches of 32: the middle is half the rate.
    for step, expected in ((0, 1e-2), (1.5, 5e-3), (3, 0)):
        assert float(rate(step)) == pytest.approx(expected, abs=1e-9)


def test_a_conventional_network_of_equal_parameters_has_as_many(small):
    width = small.width_of_equal_parameters()
    wide = small.build("backprop", "conventional", width)
    aim = small.build("gevb", "vector").count_params()
    # Widths are even numbers: 2 units of the first layer hold 2 (64 + 8 w) weights.
    assert abs(wide.count_params() - aim) < 2 * (64 + 8 * width + 16 * width)
    assert all(not layer.vectorized for layer in weight_layers(wide))


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_recipe_explains_itself(name, script, monkeypatch, capsys):
    made = script(name)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        made.recipe.main(made.RECIPE, made.__doc__, name)
    assert ended.value.code == 0
    assert made.__doc__.split(":")[0] in capsys.readouterr().out
    assert made.RECIPE.dataset in keras_gevb.datasets.IMAGES


def test_the_page_has_the_tables_of_the_results(script):
    recipe = script("recipe")
    runs = json.loads((ROOT / "docs" / "results" / "recipes.json").read_text())
    page = (ROOT / "docs" / "results" / "recipes.md").read_text()
    kinds = {(run["recipe"], run["images"]) for run in runs}
    assert kinds
    assert all(recipe.table(runs, name, images) in page for name, images in kinds)
    assert {name for name, _ in kinds} <= set(SCRIPTS)
