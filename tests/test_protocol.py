"""A run is the protocol, written out by hand: data, order, optimizer, measurements, what is kept."""

import keras
import numpy as np
import pytest

from keras_gevb import datasets
from keras_gevb.diagnostics import alignment_angles
from keras_gevb.experiments import (
    CELLS,
    Protocol,
    initial,
    measure_alignment,
    measure_width,
    representation,
    run_cell,
)
from keras_gevb.experiments.__main__ import main
from keras_gevb.experiments.results import RunFiles
from keras_gevb.experiments.run import data_order
from keras_gevb.model import weight_layers

GEVB = CELLS["digits-fc-vectorized-gevb-nonnegative"]
CONV = CELLS["digits-conv-vectorized-gevb-nonnegative"]
# tf.data stays compiled, and says so.
pytestmark = [
    pytest.mark.usefixtures("eager_functions"),
    pytest.mark.filterwarnings("ignore:Even though the"),
]
# Nothing as in the paper, so that a number that does not arrive is seen.
ODD = Protocol(epochs=3, evaluate_every=2, batch_size=37, learning_rate=0.02, epsilon=0.05)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """140 training and 50 test images in place of all digits."""
    (x, y), (x_test, y_test) = datasets.load("digits")
    splits = (x[:140], y[:140]), (x_test[:50], y_test[:50])
    asked = []

    def load(name, data_dir=None):
        asked.append((name, data_dir))
        return splits

    monkeypatch.setattr(datasets, "load", load)
    return splits, asked


def by_hand(cell, seed, protocol, train, test):
    """The measurements of a run, from Keras's own steps and NumPy."""
    keras.utils.set_random_seed(seed)
    model = cell.build()
    model.compile(
        keras.optimizers.Adam(protocol.learning_rate, epsilon=protocol.epsilon),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    measurements = [measured(model, 0, train, test)]
    (x, y), size = train, protocol.batch_size
    for epoch in range(1, protocol.epochs + 1):
        order = data_order(seed, epoch - 1, len(x))
        for start in range(0, len(x), size):
            model.train_on_batch(x[order[start : start + size]], y[order[start : start + size]])
        if epoch % protocol.evaluate_every == 0 or epoch == protocol.epochs:
            measurements.append(measured(model, epoch, train, test))
    return measurements, model


def measured(model, epoch, train, test):
    found = {"epoch": epoch}
    for name, (x, y) in (("train", train), ("test", test)):
        logits = model.predict(x, verbose=0).astype("float64")
        likelihood = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        found[f"{name}_loss"] = -likelihood[np.arange(len(y)), y].mean()
        found[f"{name}_error_percent"] = 100 * np.mean(logits.argmax(axis=1) != y)
    if type(model.learning_rule).__name__ != "Backprop":
        x, y = train
        found["alignment_degrees"] = list(alignment_angles(model, x[:128], y[:128]).values())
    return found


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("digits-fc-vectorized-gevb-nonnegative", 3),
        ("digits-fc-conventional-dfa-mixed", 4),
        ("digits-fc-vectorized-backprop-mixed", 0),
    ],
)
@pytest.mark.sampled(1)
def test_a_run_is_the_protocol_written_out(name, seed, few, tmp_path):
    (train, test), asked = few
    expected, _ = by_hand(CELLS[name], seed, ODD, train, test)
    result = run_cell(CELLS[name], seed, tmp_path, ODD, data_dir="there")
    assert asked == [("digits", "there")]
    assert (result.cell, result.seed, result.protocol) == (CELLS[name], seed, ODD)
    assert (result.epochs, result.finished) == (3, "last epoch")
    assert [m["epoch"] for m in result.measurements] == [0, 2, 3]
    for found, wanted in zip(result.measurements, expected, strict=True):
        angles = wanted.pop("alignment_degrees", None)
        assert (found["alignment_degrees"] is None) == (angles is None)
        if angles is not None:
            # Rounded to three digits; 12 float32 steps before.
            np.testing.assert_allclose(found["alignment_degrees"], angles, rtol=0, atol=0.01)
        for key, value in wanted.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-3, err_msg=key)
    losses = [result.last["train_loss"], result.last["test_loss"]]
    assert abs(losses[0] - losses[1]) > 0.05  # else an exchange would not be seen


def test_the_default_protocol_is_the_papers():
    assert vars(Protocol()) == {
        **{"epochs": 190, "evaluate_every": 10, "batch_size": 128},
        **{"learning_rate": 3e-4, "epsilon": 1e-8},
    }


@pytest.mark.parametrize("architecture", ["fc", "conv", "lc"])
@pytest.mark.parametrize("units", ["vectorized", "conventional"])
@pytest.mark.sampled(3)
def test_rules_start_from_the_same_weights_with_the_same_seed(architecture, units):
    """Else paired tests between them would not be paired. Feedback is a rule's own."""
    rule = {"vectorized": "gevb", "conventional": "dfa"}[units]
    networks = {}
    for seed in (1, 2):
        for name in (rule, "backprop"):
            keras.utils.set_random_seed(seed)
            model = CELLS[f"digits-{architecture}-{units}-{name}-nonnegative"].build()
            layers = [layer for layer in model.layers if layer.weights]
            networks[seed, name] = [w for layer in layers for w in layer.get_weights()]
    for seed in (1, 2):
        for one, other in zip(networks[seed, rule], networks[seed, "backprop"], strict=True):
            np.testing.assert_array_equal(one, other)
    assert any(np.any(a != b) for a, b in zip(networks[1, rule], networks[2, rule], strict=True))


# What a convolutional run tells of its representation


@pytest.fixture
def fingerprints(monkeypatch):
    """Measures a sum of the first kernel in place of maps and clusters; keeps the images it was shown."""
    shown = []

    def measure(model, x, y):
        shown.append((x, y))
        return np.full((len(x), 2), fingerprint(model)), np.array([fingerprint(model)])

    monkeypatch.setattr(representation, "measure", measure)
    return shown


def fingerprint(model):
    return float(np.sum(np.square(model.get_weights()[0])))


def test_representations_are_measured_before_and_after_training_on_test_images(few, fingerprints, tmp_path):
    (train, test), _ = few
    protocol = Protocol(1, 1, batch_size=70, learning_rate=0.01)
    run_cell(CONV, 2, tmp_path, protocol)
    arrays = representation.read(RunFiles(tmp_path, CONV, 2).representation)
    _, trained = by_hand(CONV, 2, protocol, train, test)
    keras.utils.set_random_seed(2)
    before, after = fingerprint(CONV.build()), fingerprint(trained)
    assert abs(before - after) > 1e-2
    for when, expected in (("before", before), ("after", after)):
        np.testing.assert_allclose(arrays[f"quality_{when}"], expected, rtol=1e-5)  # float32
        np.testing.assert_allclose(arrays[f"map_{when}"], expected, rtol=1e-5)
    np.testing.assert_array_equal(arrays["labels"], test[1])
    for x, y in fingerprints:
        np.testing.assert_array_equal(x, test[0])
        np.testing.assert_array_equal(y, test[1])


@pytest.mark.usefixtures("fingerprints")
def test_a_convolutional_run_goes_on_from_its_trained_weights_after_it_was_measured(tmp_path):
    run_cell(CONV, 0, tmp_path / "parts", Protocol(1, 1), keep_state=True)
    parts = run_cell(CONV, 0, tmp_path / "parts", Protocol(2, 1))
    whole = run_cell(CONV, 0, tmp_path / "whole", Protocol(2, 1))
    assert parts.measurements == whole.measurements


def test_only_convolutional_runs_are_measured_so(few, fingerprints, tmp_path):
    for cell in (GEVB, CELLS["digits-conv-conventional-dfa-mixed"]):
        run_cell(cell, 0, tmp_path, Protocol(1, 1))
        written = RunFiles(tmp_path, cell, 0).representation.exists()
        assert written == (cell.architecture == "conv")


def test_a_map_is_of_the_last_hidden_layer_and_quality_of_each(few):
    (_, (x, y)), _ = few
    model = CONV.build()
    coordinates, quality = representation.measure(model, x, y)
    assert coordinates.shape == (50, 2)
    activity = keras.Model(model.inputs[0], [model.layers[1].output, model.layers[4].output])(x)
    expected = []
    for layer in activity:
        points = np.asarray(layer, "float64").reshape(50, -1)
        means = np.stack([points[y == label].mean(axis=0) for label in y])
        overall = np.square(points - points.mean(axis=0)).sum()
        expected.append(np.sqrt(np.square(points - means).sum() / overall))
    np.testing.assert_allclose(quality, expected, rtol=1e-5)  # float32 activity


# The command line


def test_every_option_of_run_arrives(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        "keras_gevb.experiments.__main__.run_cell",
        lambda cell, seed, out, protocol, data_dir, keep_state, progress: told.append(
            (cell.name, seed, str(out), protocol, data_dir, keep_state)
        ),
    )
    names = ["digits-fc-vectorized-gevb-nonnegative", "digits-fc-vectorized-gevb-mixed"]
    arguments = ["--seeds", "2", "--first-seed", "3", "--epochs", "7", "--evaluate-every", "4"]
    folders = ["--out", str(tmp_path), "--data-dir", "there"]
    assert main(["run", *names, *arguments, "--keep-state", *folders]) == 0
    rest = str(tmp_path), Protocol(7, 4), "there"
    assert told == [(name, seed, *rest, True) for name in names for seed in (3, 4)]
    told.clear()
    assert main(["run", names[0], "--out", str(tmp_path)]) == 0
    assert told == [(names[0], seed, str(tmp_path), Protocol(), None, False) for seed in range(5)]


@pytest.mark.parametrize(
    ("first", "seeds"), [([], [0, 1, 2, 3, 4]), (["--first-seed", "6"], [6, 7, 8, 9, 10])]
)
def test_every_option_of_alignment_arrives(first, seeds, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        "keras_gevb.experiments.initial.measure_alignment",
        lambda out, cells, seeds, data_dir, progress: told.append((out, cells, list(seeds), data_dir)),
    )
    assert main(["alignment", GEVB.name, *first, "--out", "here", "--data-dir", "there"]) == 0
    assert told == [("here", [GEVB], seeds, "there")]


def test_every_option_of_width_arrives(monkeypatch):
    told = []
    monkeypatch.setattr(
        "keras_gevb.experiments.initial.measure_width",
        lambda out, widths, seeds, dataset, data_dir, progress: told.append(
            (out, widths, list(seeds), dataset, data_dir)
        ),
    )
    arguments = ["--widths", "8", "16", "--seeds", "2", "--first-seed", "1", "--dataset", "digits"]
    assert main(["width", *arguments, "--out", "here", "--data-dir", "there"]) == 0
    assert main(["width"]) == 0
    widths = [64, 128, 256, 512, 1024, 2048, 4096]
    assert told == [
        ("here", [8, 16], [1, 2], "digits", "there"),
        ("runs/experiments", widths, [0, 1, 2], "mnist", None),
    ]


def test_a_command_that_is_stopped_says_how_to_go_on(monkeypatch, capsys):
    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_gevb.experiments.initial.measure_width", stopped)
    assert main(["width"]) == 130  # as shells have it
    assert capsys.readouterr().err.endswith("Stopped. The same command goes on with what is missing.\n")


# Before training


def test_alignment_before_training_has_a_row_for_each_cell_and_seed(few, tmp_path):
    (train, test), asked = few
    cells = [GEVB, CELLS["digits-fc-conventional-dfa-mixed"]]
    rows = measure_alignment(tmp_path, cells, seeds=(1, 4), data_dir="there")
    assert [(row["cell"], row["seed"]) for row in rows] == [(c.name, s) for c in cells for s in (1, 4)]
    assert set(asked) == {("digits", "there")}
    for row in rows:
        (expected,), _ = by_hand(CELLS[row["cell"]], row["seed"], Protocol(0, 1), train, test)
        # Rounded to three digits.
        np.testing.assert_allclose(row["alignment_degrees"], expected["alignment_degrees"], atol=6e-4)


def test_networks_of_every_width_have_three_hidden_layers_and_a_seed(tmp_path):
    rows = measure_width(tmp_path, widths=(4, 8), seeds=(2, 5), dataset="digits")
    found = [(row["dataset"], row["width"], row["weights"], row["seed"]) for row in rows]
    signs = ("nonnegative", "mixed")
    assert found == [("digits", width, sign, seed) for width in (4, 8) for sign in signs for seed in (2, 5)]
    assert {len(row["alignment_degrees"]) for row in rows} == {3}
    assert len({tuple(row["alignment_degrees"]) for row in rows}) == len(rows)


@pytest.mark.parametrize(("weights", "mirrored"), [("nonnegative", True), ("mixed", False)])
def test_a_first_layer_of_a_width_is_mirrored_where_weights_are_nonnegative(weights, mirrored):
    network = initial._network({"dataset": "digits", "width": 8, "weights": weights})
    kernel = np.asarray(weight_layers(network)[0].kernel)
    assert np.array_equal(kernel[..., 1::2], -kernel[..., ::2]) is mirrored


def test_a_map_of_much_activity_is_always_the_same(monkeypatch):
    """Of large matrices scikit-learn finds leading components by random numbers."""
    from sklearn.manifold import TSNE

    leading = []
    monkeypatch.setattr(TSNE, "fit_transform", lambda _, components: leading.append(components))
    activity = np.random.default_rng(0).standard_normal((600, 600))
    for _ in range(2):
        representation._map(activity)
    np.testing.assert_array_equal(*leading)
