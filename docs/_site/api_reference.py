"""The public names, read from the source without importing it, and the pages that document them."""

import functools
import pathlib

import griffe

ROOT = pathlib.Path(__file__).parents[2]
OF_A_MODULE = "{members: false, show_root_heading: false, show_root_toc_entry: false}"
# Names that Keras has too, or that are common words: no links from bare words.
COMMON = {
    "Adam",
    "Conv2D",
    "Dense",
    "Model",
    "Sequential",
    "get",
    "find",
    "load",
    "build",
    "record",
    "forward",
}


@functools.cache
def package():
    return griffe.load("keras_gevb", search_paths=[ROOT])


def public_modules():
    """The public modules of the package, by name."""
    found = package()
    return {
        n: found.members[n]
        for n in sorted(found.exports)
        if found.members.get(n) and found.members[n].is_module
    }


def public_names(module):
    """What a module offers: its `__all__`, else the classes and functions that it defines."""
    if module.exports:
        return sorted(map(str, module.exports), key=lambda name: (not name[0].isupper(), name))
    kinds = (griffe.Kind.CLASS, griffe.Kind.FUNCTION)
    own = module.members.items()
    return [n for n, member in own if not n.startswith("_") and not member.is_alias and member.kind in kinds]


@functools.cache
def names():
    """All public names with a docstring of their own: a dict from path to object."""
    modules = public_modules()
    top = {
        f"keras_gevb.{n}": package()[n] for n in public_names(package()) if n not in modules and n[0] != "_"
    }
    inner = {f"keras_gevb.{m}.{n}": module[n] for m, module in modules.items() for n in public_names(module)}
    return {
        path: thing for path, thing in {**top, **inner}.items() if thing.kind is not griffe.Kind.ATTRIBUTE
    }


def undocumented():
    """Paths of public modules, classes and functions without a docstring."""
    modules = {f"keras_gevb.{name}": module for name, module in public_modules().items()}
    return [path for path, thing in {**modules, **names()}.items() if not thing.docstring]


def first_sentence(thing):
    return thing.docstring.value.split("\n\n")[0].replace("\n", " ")


def pages():
    """The pages of the reference: a dict from address to Markdown."""
    modules = public_modules()
    rows = [f"| [`{name}`]({name}.md) | {first_sentence(module)} |" for name, module in modules.items()]
    top = [path for path in names() if path.count(".") == 1]
    index = ["# Reference", "", "| module | what |", "|---|---|", *rows, "", *map(_entry, top)]
    found = {"reference/index.md": "\n".join(index)}
    for name in modules:
        parts = [
            f"# {name}",
            _entry(f"keras_gevb.{name}") + f"    options: {OF_A_MODULE}",
        ]
        parts += [_entry(path) for path in names() if path.startswith(f"keras_gevb.{name}.")]
        found[f"reference/{name}.md"] = "\n\n".join(parts)
    return found


def _entry(path):
    return f"::: {path}\n"


@functools.cache
def links():
    """What may stand between backticks, and the name that it means: full, from its module, or alone."""
    short = {path.removeprefix("keras_gevb."): path for path in names()}
    alone = {path.split(".")[-1]: path for path in names() if path.split(".")[-1][0].isupper()}
    return {
        **{n: p for n, p in alone.items() if n not in COMMON},
        **short,
        **{path: path for path in names()},
    }
