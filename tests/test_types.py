"""The annotations hold in the package's own code, and tell a user's editor what is wrong."""

import inspect
import os
import pathlib
import subprocess
import sys
import types

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
class Rule(keras_gevb.rules.LocalRule):
    def signal(self, record, step: int):                          # a Step
        return record.gate
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
    assert reported == {*range(4, 11), 12}, wrong.stdout


def public():
    """Each function, method and property that a public name leads to, once: pairs of name and function."""
    found, seen = [(f"keras_gevb.{n}", getattr(keras_gevb, n)) for n in keras_gevb.__all__], set()
    while found:
        name, value = found.pop()
        if isinstance(value, types.ModuleType):
            own = [n for n, v in vars(value).items() if getattr(v, "__module__", None) == value.__name__]
            names = getattr(value, "__all__", [n for n in own if not n.startswith("_")])
            found += [(f"{name}.{n}", getattr(value, n)) for n in names]
        elif inspect.isclass(value):
            for cls in value.__mro__:
                members = [(n, v) for n, v in vars(cls).items() if n == "__init__" or not n.startswith("_")]
                found += [(f"{cls.__name__}.{n}", _function(v)) for n, v in members]
        elif inspect.isfunction(value) and value.__module__.startswith("keras_gevb") and value not in seen:
            seen.add(value)
            yield name, value


def _function(member):
    return member.fget if isinstance(member, property) else getattr(member, "__func__", member)


def test_every_public_function_and_method_is_annotated():
    bare, functions = [], list(public())
    for name, function in functions:
        signature = inspect.signature(function)
        parameters = [p for n, p in signature.parameters.items() if n not in ("self", "cls")]
        bare += [f"{name}({p.name})" for p in parameters if p.annotation is p.empty]
        if function.__name__ != "__init__" and signature.return_annotation is signature.empty:
            bare.append(f"{name} ->")
    assert len(functions) > 200
    assert not bare
