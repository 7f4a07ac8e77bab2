"""The site builds strictly, documents every public name, and what it tells a reader to type works."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest

import keras_gevb
from keras_gevb import learning

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.py"))
# Their code is run by tests of their own.
ELSEWHERE = {"extending.md", "compatibility.md"}
PAGES = [
    page
    for page in sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "guide").glob("*.md")])
    if "```python" in page.read_text() and page.name not in ELSEWHERE
]


@pytest.fixture(scope="module")
def tools():
    """The modules that make the site."""
    pytest.importorskip("mkdocs", reason="the site needs: pip install '.[docs]'")
    pytest.importorskip("griffe", reason="the site needs: pip install '.[docs]'")
    sys.path.insert(0, str(ROOT / "docs" / "_site"))
    import api_reference
    import hooks
    import notebooks
    import pictures

    yield types.SimpleNamespace(
        hooks=hooks, notebooks=notebooks, pictures=pictures, api_reference=api_reference
    )
    sys.path.remove(str(ROOT / "docs" / "_site"))


def build(root, out):
    # The `mkdocs` of this interpreter.
    path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", str(root / "docs" / "build")]
    environment = {**os.environ, "SITE_DIR": str(out), "PATH": path}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def site(tools, tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT, out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def public_names():
    """Every class and function that `__all__` names, here and in the modules that it names."""
    for name in keras_gevb.__all__:
        value = getattr(keras_gevb, name)
        if not isinstance(value, types.ModuleType):
            if callable(value):
                yield f"keras_gevb.{name}"
            continue
        yield f"keras_gevb.{name}"
        own = (n for n, v in vars(value).items() if getattr(v, "__module__", None) == value.__name__)
        for inner in getattr(value, "__all__", own):
            if not inner.startswith("_") and callable(getattr(value, inner)):
                yield f"keras_gevb.{name}.{inner}"


def test_every_public_name_stands_in_the_reference(site):
    names = list(public_names())
    assert len(names) > 60
    pages = "".join(page.read_text() for page in (site / "reference").glob("*.html"))
    shown = set(re.findall(r'id="(keras_gevb[\w.]*)"', pages))
    shown |= {f"keras_gevb.{page.stem}" for page in (site / "reference").glob("*.html")}
    assert not set(names) - shown


def test_pictures_and_notebooks_are_on_their_pages(site):
    concepts = (site / "concepts.html").read_text()
    assert concepts.count('<div class="drawn"><svg') == 2
    assert "picture:" not in concepts
    for path in NOTEBOOKS:
        assert (site / "notebooks" / f"{path.stem}.html").is_file()


def test_a_public_name_without_a_docstring_fails_the_build(tools, monkeypatch):
    from mkdocs.exceptions import PluginError

    monkeypatch.setattr(tools.api_reference, "undocumented", lambda: ["keras_gevb.zoo.build"])
    with pytest.raises(PluginError, match=r"keras_gevb\.zoo\.build"):
        tools.hooks.on_config(None)


def test_an_undocumented_function_is_found(tools, monkeypatch):
    assert tools.api_reference.undocumented() == []
    monkeypatch.setattr(tools.api_reference.names()["keras_gevb.zoo.build"], "docstring", None)
    assert tools.api_reference.undocumented() == ["keras_gevb.zoo.build"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[gone](gone.md)", "gone.md"),
        ("[gone](concepts.md#gone)", "#gone"),
        ("[gone][keras_gevb.gone]", "keras_gevb.gone"),
    ],
)
def test_a_broken_link_in_a_new_page_fails_the_build(text, complaint, tools, tmp_path):
    """A page that the navigation does not name is there too."""
    names = ["mkdocs.yml", "docs", "keras_gevb", "examples", "CHANGELOG.md"]
    for name in names:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    (tmp_path / "docs" / "new.md").write_text(f"# New\n\n{text}\n")
    done = build(tmp_path, tmp_path / "out")
    assert done.returncode != 0
    assert complaint in done.stdout + done.stderr
    assert "new.md" in done.stdout + done.stderr


def test_the_picture_of_signals_shows_the_theorem(tools):
    """g is a sum of products of nonnegative weights and gates; with mixed signs it has no sign."""
    assert tools.pictures.signal(nonnegative=True).min() >= 0
    mixed = tools.pictures.signal(nonnegative=False)
    assert abs(np.mean(mixed > 0) - 0.5) < 0.05  # 20,000 numbers of 200 units


@pytest.mark.usefixtures("eager_functions")
@pytest.mark.filterwarnings("ignore:Even though the")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    if page.stem == "on-device":
        for package in ("onnx", "onnxruntime", "ai_edge_litert"):
            pytest.importorskip(package, reason="the extra `export`")
    monkeypatch.chdir(tmp_path)
    fit = learning.Learner.fit

    def short(model, x, y, **settings):
        return fit(model, x[:64], y[:64], **{**settings, "epochs": 1, "verbose": 0})

    monkeypatch.setattr(learning.Learner, "fit", short)
    names = {"__name__": "page"}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        exec(compile(block, str(page), "exec"), names)


def test_a_notebook_is_the_script_cell_by_cell(tools):
    for path in NOTEBOOKS:
        cells = tools.notebooks.cells(path)
        assert cells[0][1].startswith("# ")
        code = "\n".join(source for kind, source in cells if kind == "code")
        compile(code, str(path), "exec")
        source = path.read_text()
        assert all(line in source for line in code.splitlines())
        assert code.count("import keras_gevb") == 1


def test_one_notebook_has_the_form_of_a_keras_example():
    header = (ROOT / "examples" / "notebooks" / "gevb_in_ten_minutes.py").read_text().split('"""')[1]
    fields = [line.split(":")[0] for line in header.strip().splitlines()]
    assert fields == ["Title", "Author", "Date created", "Last modified", "Description", "Accelerator"]


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    environment = {**os.environ, "MPLBACKEND": "agg"}
    command = [sys.executable, str(ROOT / "docs" / "_site" / "notebooks.py"), str(path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "```text" in done.stdout
