"""The annotations hold in the package's own code, and tell a user's editor what is wrong."""

import importlib
import inspect
import os
import pathlib
import subprocess
import sys

import pytest

import keras_gevb

ROOT = pathlib.Path(__file__).parent.parent
WRONG = """\
import keras_gevb
from keras_gevb import datasets, diagnostics, experiments, tuning, zoo

datasets.load(3)                                              # a name
zoo.build("digits", "fc", width="wide")                       # a number
diagnostics.audit("model.keras", [], [])                      # a model
experiments.run_cell("mnist-fc-vectorized-gevb-mixed", 0, ".")  # a Cell
tuning.count_parameters([("dense", 8)], (8, 8, 1), "ten")     # a number
angles: dict[str, str] = diagnostics.alignment_angles(zoo.build("digits", "fc"), [], [])
keras_gevb.rules.get(1.5)
"""
RIGHT = """\
import keras_gevb
from keras_gevb import datasets, diagnostics, zoo

(x, y), test = datasets.load("digits", "folder")
model = zoo.build("digits", "fc", learning_rule=keras_gevb.rules.GEVB())
model.compile("adam", "mse")
share: float = diagnostics.zero_weights(model)["vector_dense"]
print(diagnostics.audit(model, x, y, seed=1).is_local)
"""


def mypy(*arguments, folder=ROOT):
    command = [sys.executable, "-m", "mypy", "--no-incremental", *arguments]
    # An editable installation is hidden from it.
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(autouse=True, scope="module")
def checker():
    pytest.importorskip("mypy", reason="the check needs: pip install '.[test]'")


def test_the_package_has_no_type_errors():
    done = mypy()
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_says_that_it_is_typed():
    assert (pathlib.Path(keras_gevb.__file__).parent / "py.typed").is_file()


@pytest.mark.long
def test_a_users_wrong_arguments_are_caught_and_right_ones_are_not(tmp_path):
    (tmp_path / "wrong.py").write_text(WRONG)
    (tmp_path / "right.py").write_text(RIGHT)
    settings = ["--ignore-missing-imports", "--follow-imports=silent"]
    right = mypy(*settings, "right.py", folder=tmp_path)
    assert right.returncode == 0, right.stdout
    wrong = mypy(*settings, "wrong.py", folder=tmp_path)
    reported = {int(line.split(":")[1]) for line in wrong.stdout.splitlines() if ": error:" in line}
    assert reported == set(range(4, 11)), wrong.stdout


MODULES = [
    "datasets",
    "diagnostics",
    "experiments",
    "export",
    "layers",
    "optimizers",
    "rules",
    "tuning",
    "zoo",
]


@pytest.mark.parametrize("module", ["", *(f".{name}" for name in MODULES)])
def test_every_argument_of_a_public_function_is_annotated(module):
    module = importlib.import_module(f"keras_gevb{module}")
    names = getattr(module, "__all__", [n for n, v in vars(module).items() if not n.startswith("_")])
    own = [v for v in (getattr(module, n) for n in names) if callable(v)]
    makers = [v.__init__ for v in own if inspect.isclass(v)]
    functions = [
        v for v in [*own, *makers] if inspect.isfunction(v) and v.__module__.startswith("keras_gevb")
    ]
    assert functions
    for function in functions:
        arguments = [p for name, p in inspect.signature(function).parameters.items() if name != "self"]
        bare = [p.name for p in arguments if p.annotation is p.empty]
        assert not bare, f"{function.__qualname__}: {bare}"
