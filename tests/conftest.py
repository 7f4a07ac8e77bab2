"""Fixtures shared by all tests."""

import collections
import gc
import os
import pathlib

import pytest
import settings  # noqa: F401  before TensorFlow reads them

SMOKE = ("golden", "layers", "initializers", "datasets", "feedback", "errors", "private")
# Whole files go to the next free process: those that take longest first, so that none is left at the end.
LONGEST = (
    *("trainable_exports", "workflows", "workflow_table", "workflow_scripts", "backends", "distribution"),
    *("execution", "export", "convert", "experiments", "keras_features", "protocol", "gevb", "docstrings"),
)


def pytest_configure(config):
    config.option.loadscopereorder = False  # else by the number of tests
    if getattr(config.option, "dist", "no") != "no" and not hasattr(config, "workerinput"):
        return  # it hands out tests, and waits for no import of TensorFlow
    config.pluginmanager.import_plugin("framework")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    order = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))
    for item in items:
        if item.path.stem.removeprefix("test_") in SMOKE:
            item.add_marker("smoke")
    for rows in _tables(items):
        for item in set(rows) - set(_spread(rows, rows[0].get_closest_marker("sampled").args[0])):
            item.add_marker("long")


def _tables(items):
    """The cases of each test that is marked as sampled, without those that are long anyway."""
    tables = collections.defaultdict(list)
    for item in items:
        if item.get_closest_marker("sampled") and not item.get_closest_marker("long"):
            tables[item.path, item.originalname].append(item)
    return tables.values()


def _spread(rows, number):
    """Some of a test's cases: of what was not chosen yet the most, and the farthest from those chosen."""
    values, chosen = [set(item.callspec.indices.items()) for item in rows], []

    def worth(place):
        new = values[place].difference(*(values[other] for other in chosen))
        return len(new), min((abs(place - other) for other in chosen), default=0), -place

    while len(chosen) < min(number, len(rows)):
        chosen.append(max(set(range(len(rows))).difference(chosen), key=worth))
    return [rows[place] for place in chosen]


def pytest_collection_finish():
    gc.freeze()  # a million objects of TensorFlow and Keras, which collections need not visit


@pytest.fixture(autouse=True, scope="module")
def few_objects():
    """What a file's tests leave to TensorFlow and Keras is not visited by later collections."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def without_collection(monkeypatch):
    """keras-tuner collects garbage before each trial: most of the time of one that costs nothing."""
    monkeypatch.setattr("gc.collect", lambda: 0)


@pytest.fixture(scope="session")
def mnist_folder():
    """A folder with MNIST prepared by TensorFlow Datasets; the test is skipped where there is none."""
    beside = pathlib.Path(__file__).resolve().parents[2] / "shared" / "tfds"
    folder = pathlib.Path(os.environ.get("TFDS_DATA_DIR") or beside)
    if not (folder / "mnist").is_dir():
        pytest.skip(f"MNIST is not prepared in {folder}: set TFDS_DATA_DIR")
    return folder
