"""The notebooks of examples/notebooks, scripts in cells as jupytext or keras.io has them, as Markdown.

python docs/_site/notebooks.py FILE      runs a notebook and prints it with what it shows
"""

import ast
import contextlib
import io
import pathlib
import re
import sys

FOLDER = pathlib.Path(__file__).parents[2] / "examples" / "notebooks"


def cells(path):
    """A notebook's cells, pairs of "text" or "code" and the source."""
    source = path.read_text()
    if source.startswith('"""\nTitle: '):
        return list(_keras_io(source))
    return list(_percent(source))


def _percent(source):
    """`# %% [markdown]` begins a cell of text, `# %%` one of code."""
    for cell in re.split(r"^# %%", source, flags=re.MULTILINE)[1:]:
        kind, _, body = cell.partition("\n")
        if "[markdown]" in kind:
            yield "text", re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)
        else:
            yield "code", body.strip()


def _keras_io(source):
    """Text stands between lines of three quotes; the first of it is the header."""
    header, *parts = re.split(r'^"""\n', source, flags=re.MULTILINE)[1:]
    fields = dict(re.findall(r"^([\w ]+): (.*)$", header, flags=re.MULTILINE))
    yield (
        "text",
        f"# {fields['Title']}\n\n{fields['Description']}\n\n*{fields['Author']}, {fields['Date created']}*",
    )
    for number, part in enumerate(parts):
        if part.strip():
            yield ("text" if number % 2 else "code"), part.strip()


def title(path):
    return cells(path)[0][1].split("\n")[0].removeprefix("# ")


def markdown(path, run=False):
    """A notebook as a page; `run` shows what each cell prints, returns and draws."""
    globals_, parts = {"__name__": "notebook"}, []
    for kind, source in cells(path):
        parts.append(source if kind == "text" else f"```python\n{source}\n```")
        if run and kind == "code":
            parts += _run(source, globals_, path)
    note = f"*This page is [{path.name}](#), a script in cells: `python examples/notebooks/{path.name}`, or "
    note = note.replace(f"[{path.name}](#)", f"`examples/notebooks/{path.name}`")
    parts.append(note + f"`jupytext --to ipynb examples/notebooks/{path.name}` for Jupyter.*")
    return "\n\n".join(parts)


def _run(source, globals_, path):
    """Run a cell; what it printed and returned, and its figures."""
    *body, last = ast.parse(source, str(path)).body
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if isinstance(last, ast.Expr):
            exec(compile(ast.Module(body, []), str(path), "exec"), globals_)
            value = eval(compile(ast.Expression(last.value), str(path), "eval"), globals_)
            if value is not None:
                print(repr(value))
        else:
            exec(compile(ast.Module([*body, last], []), str(path), "exec"), globals_)
    if printed.getvalue().strip():
        yield f"```text\n{printed.getvalue().strip()}\n```"
    yield from _figures()


def _figures():
    pyplot = sys.modules.get("matplotlib.pyplot")
    for number in pyplot.get_fignums() if pyplot else ():
        drawn = io.StringIO()
        pyplot.figure(number).savefig(drawn, format="svg", metadata={"Date": None})
        pyplot.close(number)
        svg = re.sub(r"\n\s*", " ", drawn.getvalue().partition("<svg")[2])
        yield f'<div class="drawn"><svg{svg}</div>'


if __name__ == "__main__":
    print(markdown(pathlib.Path(sys.argv[1]), run=True))
