"""The page of examples/browser learns, in a browser."""

import functools
import http.server
import importlib.util
import pathlib
import re
import shutil
import threading

import numpy as np
import pytest
from browser import CHROMIUM, Page

from keras_gevb import datasets

ROOT = pathlib.Path(__file__).parent.parent
FOLDER = ROOT / "examples" / "browser"
BUILT = ROOT / "runs" / "browser"
# What is asked of all elements of a kind.
ALL = "[...document.querySelectorAll('{}')].map(element => {})"


@pytest.fixture(scope="module")
def build():
    """The script that builds the page, as a module."""
    pytest.importorskip("onnx", reason="the page needs: pip install '.[export]'")
    specification = importlib.util.spec_from_file_location("browser_build", FOLDER / "build.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def served(build, tmp_path_factory):
    """The page, built and open in a browser, and the models that it was built from."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    if not all((BUILT / name).exists() for name in build.RUNTIME):
        pytest.skip("onnxruntime-web is not there: python examples/browser/build.py fetches it, by npm")
    folder = tmp_path_factory.mktemp("browser")
    for name in build.RUNTIME:
        shutil.copy(BUILT / name, folder)
    models = build.networks()
    build.write(folder, models)
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = Page(f"http://localhost:{server.server_port}/", tmp_path_factory.mktemp("profile"))
        try:
            page.wait("!document.querySelector('#run').disabled")
            yield page, models
        finally:
            page.close()
            server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *message):
        pass


def accuracies(page):
    """Percent of the held-out digits, as the page shows them."""
    return page.run(ALL.format(".percent", "parseFloat(element.textContent)"))


def gates(page, name):
    """Whether each unit's gate is open, layer by layer."""
    cells = "[...element.children].map(cell => cell.className === 'open')"
    return page.run(ALL.format(f"#{name} .gates", cells))


def status(page):
    return page.run("document.querySelector('#status').textContent")


# Notes what each step of either network is given.
NOTING = """import("/learner.js").then(({ Learner }) => {
    const train = Learner.prototype.train;
    Object.assign(window, { rates: [], labels: [] });
    Learner.prototype.train = function (x, y) {
        rates.push(this.state.optimizer_learning_rate.data[0]);
        labels.push([...y]);
        return train.call(this, x, y);
    };
})"""
THREE = [(0.3, 0.2), (0.5, 0.12), (0.68, 0.25), (0.5, 0.45), (0.7, 0.65), (0.5, 0.88), (0.28, 0.78)]
INK = "[...seen.getContext('2d').getImageData(0, 0, 8, 8).data].filter(value => value).length"


def test_the_page_learns_digits_answers_drawings_pauses_and_starts_anew(served):
    page, models = served
    (_, train_labels), (x, y) = datasets.load("digits")
    started = accuracies(page)
    # What Keras answers before anything is learned; the page shows one digit after the point.
    for (name, model), shown in zip(models.items(), started):
        assert shown == pytest.approx(100 * np.mean(model(x).numpy().argmax(axis=-1) == y), abs=0.051)
        records = model.compute_step(x[:1].astype("float32"), y[:1]).records[:-1]
        for record, layer in zip(records, gates(page, name), strict=True):
            np.testing.assert_array_equal(np.squeeze(record.gate) > 0, layer)
    fresh = [gates(page, name) for name in models]

    page.run(NOTING)
    page.click("#run")
    page.wait(ALL.format(".percent", "parseFloat(element.textContent) >= 93") + ".every(Boolean)", 120)
    page.drag("#draw", THREE)
    page.wait(ALL.format(".best", "element.textContent === '3'") + ".every(Boolean)", 20)
    assert [gates(page, name) for name in models] != fresh

    page.click("#run")
    page.run("new Promise(done => setTimeout(done, 300))")  # a step may be on its way
    stopped = status(page), page.run("rates.length")
    assert page.run(INK) > 64  # the alpha of all 64 pixels, and the digit
    page.click("#clear")
    page.wait(f"{INK} === 64")
    assert (status(page), page.run("rates.length")) == stopped
    labels = page.run("labels")
    assert labels[::2] == labels[1::2]  # both networks are given the same
    steps = len(train_labels) // 32
    seen = np.bincount(np.ravel(labels[: 2 * steps : 2]), minlength=10)
    assert seen.sum() == 32 * steps
    assert np.all(seen <= np.bincount(train_labels))  # none twice in an epoch
    np.testing.assert_allclose(page.run("rates"), 1e-3, rtol=1e-6)

    page.click("#reset")
    page.wait("document.querySelector('#status').textContent === 'Epoch 0.0'")
    assert accuracies(page) == started
    rate = "document.querySelector('#rate')"
    page.run(f"Object.assign({rate}, {{ value: -2 }}).dispatchEvent(new Event('input'))")
    assert page.run("document.querySelector('#rate-shown').textContent") == "0.010"
    page.click("#run")
    page.wait(f"rates.length > {stopped[1] + 4}")
    assert page.run("rates.at(-1)") == pytest.approx(0.01)
    assert page.complaints == []


@pytest.mark.parametrize("width", [400, 800, 1400])
def test_the_page_fits_its_window(width, served):
    page, _ = served
    page.resize(width, 900)
    page.wait(f"innerWidth === {width}")
    assert page.run("document.documentElement.scrollWidth") <= width
    boxes = page.run(ALL.format("button, input, canvas, .card", "element.getBoundingClientRect().toJSON()"))
    assert len(boxes) > 10
    assert all(box["left"] >= 0 and box["right"] <= width and box["width"] > 30 for box in boxes)
    assert page.complaints == []


def test_what_the_script_looks_for_is_on_the_page():
    html, script = ((FOLDER / name).read_text() for name in ("index.html", "page.js"))
    wanted = set(re.findall(r'"#([a-z-]+)"', script))
    assert len(wanted) > 8
    assert wanted <= set(re.findall(r'id="([a-z-]+)"', html))


def test_the_page_is_not_built_without_npm(build, tmp_path, monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match=r"npm.*onnxruntime-web@[\d.]+.*Install Node"):
        build.fetch(tmp_path)
