"""The benchmarks count what the formulas say, run at a small size, and go on where they were."""

import functools
import importlib
import json
import math
import pathlib
import re
import sys
import threading
import time

import keras
import pytest

import keras_gevb
from keras_gevb import layers

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"
BATCH = 5


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    """The scripts import each other by name, as when one of them is run."""
    monkeypatch.syspath_prepend(BENCHMARKS)


def script(name):
    return importlib.import_module(name)


NETWORKS = {
    "fc": lambda: [
        keras.Input((6,)),
        layers.VectorDense(4, vector_dim=3),
        layers.VectorDense(2),
        layers.VectorReadout(),
    ],
    "conv": lambda: [
        keras.Input((4, 4, 1)),
        layers.VectorConv2D(2, 3, padding="same", vector_dim=3),
        layers.VectorAveragePooling2D(2),
        layers.VectorConv2D(4, 2),
        layers.VectorFlatten(),
        layers.VectorReadout(),
    ],
    "lc": lambda: [
        keras.Input((4, 4, 1)),
        layers.VectorLocallyConnected2D(2, 3, padding="same", vector_dim=3),
        layers.VectorFlatten(),
        layers.VectorReadout(),
    ],
}

# Per sample, layer by layer: forward, update, g's way back, derivative; written by hand.
FC = [(2 * 3 * 6 * 4, 2 * 3 * 6 * 4, 0, 144), (48, 2 * 8 + 2 * 3 * 4, 16, 96), (12, 2 * 2 + 2 * 3 * 2, 4, 24)]
CONV = [(2 * 3 * 16 * 9 * 2, 1728, 0, 1728), (192, 2 * 32 + 2 * 3 * 8, 64, 384), (24, 8 + 24, 8, 48)]
LC = [(1728, 1728, 0, 1728), (2 * 3 * 32, 2 * 32 + 2 * 3 * 32, 64, 384)]
# Weights and biases; words that enter the layers past the first, and how many without K.
STORED = {"fc": (84 + 14 + 5, 12 + 6, 4 + 2), "conv": (60 + 44 + 7, 24 + 12, 8 + 4), "lc": (960 + 35, 96, 32)}


@pytest.mark.parametrize(("name", "by_hand"), [("fc", FC), ("conv", CONV), ("lc", LC)])
def test_operations_and_bytes_are_those_counted_by_hand(name, by_hand):
    counting = script("counting")
    model = keras_gevb.Sequential(NETWORKS[name]())
    forward, update, way_back, derivative = map(sum, zip(*by_hand))
    weights, words, scalars = STORED[name]
    expected = {
        "GEVB": (forward + update, words),
        "GEVB, low memory": (2 * forward + update, 2 * words),
        "Backprop rule": (forward + way_back + update, words + scalars),
        "autodiff": (forward + derivative, 2 * words),
    }
    for learner, (operations, activity) in expected.items():
        assert counting.operations(model, learner, BATCH) == BATCH * operations
        # Four bytes: 8 words per weight with Adam; activity is written and read.
        found = counting.unavoidable_bytes(model, learner, BATCH)
        assert found == 4 * (8 * weights + 2 * BATCH * activity)


def test_a_conventional_twin_has_the_same_widths_and_no_k():
    contestants, counting = script("contestants"), script("counting")
    twin = contestants.build(
        "conventional", lambda rule: keras_gevb.Sequential(NETWORKS["fc"](), learning_rule=rule), "adam"
    )
    assert [layer.units for layer in twin.layers] == [4, 2, 3]
    assert counting.operations(twin, "conventional", BATCH) == BATCH * 2 * (2 * 24 + 3 * 8 + 3 * 6)
    assert counting.unavoidable_bytes(twin, "conventional", BATCH) == 4 * (8 * 47 + 2 * BATCH * 2 * (4 + 2))


@pytest.mark.parametrize(("dataset", "billions"), [("mnist", 5.6), ("cifar10", 18.3)])
def test_a_step_of_the_papers_fully_connected_networks(dataset, billions):
    """As in docs/results: twice 2 x 128 K n units in the first layer, the rest K times cheaper to update."""
    model = keras_gevb.zoo.build(dataset, "fc")
    assert round(script("counting").operations(model, "GEVB", 128) / 1e9, 1) == billions


@pytest.mark.parametrize("name", ["performance", "growth", "gpu", "on_device"])
def test_every_script_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as end:
        script(name).main(["--help"])
    assert end.value.code == 0
    assert f"benchmarks/{name}.py" in capsys.readouterr().out


@pytest.mark.long
def test_a_tiny_run_leaves_figures_table_and_pictures_and_is_not_repeated(tmp_path, monkeypatch):
    performance, memory = script("performance"), script("memory")
    command = ["digits-fc", "--learners", "GEVB", "--steps", "2", "--repeats", "1", "--batch-size", "8"]
    # A large array costs a second on a busy machine, and this is no test of the machine.
    monkeypatch.setattr(script("measuring"), "limits", lambda: {"gflops": 100.0, "gbytes": 10.0})
    performance.main([*command, "--out", str(tmp_path)])

    content = json.loads((tmp_path / "performance.json").read_text())
    parts = {"steps", "memory"} if memory.why_not() is None else {"steps"}
    parts |= {"fit"} if keras.backend.backend() == "tensorflow" else set()
    assert parts == set(content) - {"schema", "machine"}
    figures = [n for part in parts for n in numbers(content[part])]
    assert len(figures) > 10
    assert all(math.isfinite(n) and n >= 0 for n in figures)
    table = (tmp_path / "performance.md").read_text()
    assert re.search(r"\| Digits fully connected \| 100 \| 10 \| [\d.]+ \([\d.]+ to [\d.]+\) \|", table)
    for picture in ("step_time", "limit", "memory"):
        assert (tmp_path / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
        assert "</svg>" in (tmp_path / f"{picture}.svg").read_text()

    def again(*_, **__):
        raise AssertionError("measured again")

    for measure in ("steps_of", "_model"):
        monkeypatch.setattr(performance, measure, again)
    monkeypatch.setattr(memory, "in_fresh_process", again)
    performance.main([*command, "--out", str(tmp_path)])
    with pytest.raises(AssertionError, match="measured again"):
        performance.main([*command, "--repeats", "2", "--out", str(tmp_path)])


def numbers(content):
    """All numbers in nested dicts, without the settings."""
    if isinstance(content, dict):
        return [n for name, value in content.items() if name != "settings" for n in numbers(value)]
    return [content] if isinstance(content, (int, float)) else []


def test_results_of_two_machines_do_not_mix(tmp_path):
    measuring = script("measuring")
    results = measuring.Results(tmp_path / "results.json", {"cores": 2})
    results.put("part", "name", {"steps": 3}, {"ms": 1.5})
    assert measuring.Results(tmp_path / "results.json", {"cores": 2}).get("part", "name", {"steps": 3})
    assert results.get("part", "name", {"steps": 4}) is None
    with pytest.raises(keras_gevb.experiments.ExperimentError, match="another --out"):
        measuring.Results(tmp_path / "results.json", {"cores": 4})


def test_a_point_that_does_not_fit_is_told_and_the_growth_with_depth_printed(tmp_path):
    def point(megabytes):
        return {"times": {"GEVB": 5.0}, "memory": {"GEVB": megabytes}, "gflops": 200.0}

    found = {"depth": [(8, point(30.0)), (64, point(36.0))], "width": [(8192, point("out of memory"))]}
    found |= {"K": [], "batch": []}
    text = script("growth_report").write(tmp_path, found, ["GEVB"])
    assert "| width 8192 | 200 | 5.0 | out of memory |" in text
    assert "GEVB 1.20 times (30 to 36 MB)" in text
    assert (tmp_path / "growth.md").read_text() == text
    assert (tmp_path / "growth.png").exists()


def test_processes_compile_side_by_side_and_measure_when_no_other_does_either(tmp_path):
    first, second = (script("measuring").Turns(tmp_path / "turns") for _ in range(2))
    first.compile()
    second.compile()
    measures = threading.Event()
    threading.Thread(target=lambda: (second.measure(), measures.set()), daemon=True).start()
    assert not measures.wait(0.2)
    first._file.close()  # as when its process ends
    assert measures.wait(60)


def test_two_processes_write_into_the_same_results(tmp_path):
    first, second = (script("measuring").Results(tmp_path / "results.json", {}) for _ in range(2))
    first.put("steps", "a", {}, 1)
    second.put("steps", "b", {}, 2)
    results = script("measuring").Results(tmp_path / "results.json", {})
    assert [results.get("steps", name, {}) for name in "ab"] == [1, 2]


def test_a_run_ends_at_the_first_batch_of_an_epoch_that_would_end_too_late(monkeypatch):
    gpu = script("gpu")
    now = iter([0.0, 5.0, 10.0, 15.0, 20.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    watch = gpu.Watch(end=25.0, show=lambda epochs: None)

    class Result:
        epochs = 0

    for Result.epochs, share in ((0, 0.5), (0, 1.0), (1, 0.5), (1, 1.0)):
        watch(Result, share)
    Result.epochs = 2
    with pytest.raises(gpu.TimeIsUp):  # at 20 of 25 seconds, with epochs of 10
        watch(Result, 0.5)


# The losses of a peer's first steps say that it trains the same network by the same gradient.
PEERS = {
    "keras_autodiff": ("tensorflow", ("auto",)),
    "jax_autodiff": ("jax", ()),
    "jax_by_hand": ("jax", ()),
    "torch_autodiff": ("torch", (False,)),
}


@pytest.fixture(scope="module")
def peers_data():
    """Weights of full size, since the peers' networks are, and two batches of 4 images."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(BENCHMARKS)
        peers = script("peers")
        monkeypatch.setattr(peers, "BATCH", 4)
        return peers.weights(), *peers.images(2)


def first_loss(name, told, data, monkeypatch):
    weights, x, y = data
    monkeypatch.syspath_prepend(BENCHMARKS / "peer_networks")
    train = importlib.import_module(name).build(weights, 1e-3, *told)
    return train(x, y, 4)


@pytest.fixture(scope="module")
def loss_of_backprop(peers_data):
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield first_loss("gevb", ("backprop",), peers_data, monkeypatch)
    tf.config.run_functions_eagerly(False)


@pytest.mark.usefixtures("eager_functions")
@pytest.mark.parametrize("name", PEERS)
@pytest.mark.sampled(1)
def test_a_peer_trains_the_network_that_this_package_trains(name, peers_data, loss_of_backprop, monkeypatch):
    framework, told = PEERS[name]
    installed = pytest.importorskip(framework)
    if framework == "torch":  # has epsilon behind Adam's correction: what is as much in the first step
        equal = functools.partial(installed.optim.Adam, eps=1e-7 / (1 - 0.999) ** 0.5)
        monkeypatch.setattr(installed.optim, "Adam", equal)
    loss = first_loss(name, told, peers_data, monkeypatch)
    # The mean of a first loss and of one after a step, by float32 sums of 8 million products.
    assert loss == pytest.approx(loss_of_backprop, rel=1e-5)


@pytest.mark.usefixtures("eager_functions")
def test_the_second_loss_tells_one_gradient_from_another(peers_data, loss_of_backprop, monkeypatch):
    gevb = first_loss("gevb", ("gevb",), peers_data, monkeypatch)
    assert gevb != pytest.approx(loss_of_backprop, rel=5e-4)


def test_the_page_of_the_peers_has_the_table_of_what_was_measured():
    results = BENCHMARKS.parent / "docs" / "results"
    measured = json.loads((results / "peers.json").read_text())
    assert set(measured["peers"]) == set(script("peers").PEERS)
    assert script("peers").table(measured) in (results / "peers.md").read_text()


def test_lines_of_code_are_those_that_do_something(tmp_path):
    path = tmp_path / "file.py"
    path.write_text('"""Title.\n\nMore."""\n\nimport x  # why\n\n# a remark\ny = f(\n    1,\n)\nz = "a"\n')
    assert script("peers").lines_of_code(path) == 5


def test_a_peer_whose_framework_is_missing_is_left_out_and_said_to_be(monkeypatch):
    peers = script("peers")
    monkeypatch.setitem(peers.PEERS, "nobody", ("nobody", "no_such_framework", ()))
    peer = peers.Peer("nobody", sys.executable, 1)
    table = peers.table({"peers": {}, "left out": {"nobody": peer.why_not}})
    assert "Left out: nobody (no_such_framework is not installed in" in table


@pytest.mark.long
def test_ten_epochs_on_the_device_leave_the_error_that_keras_has(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("ai_edge_litert")
    script("on_device").main(["digits", "--seeds", "1", "--out", str(tmp_path)])
    content = json.loads((tmp_path / "on-device.json").read_text())
    errors = content["digits"]["seed 0"]["measured"]
    assert list(errors) == ["fit", "TensorFlow", "LiteRT", "ONNX Runtime"]
    assert errors["fit"] < 5
    assert all(abs(error - errors["fit"]) <= 1 for error in errors.values())  # the bar, in points
    assert f"| seed 0 | {' | '.join(map(str, errors.values()))} |" in capsys.readouterr().out
