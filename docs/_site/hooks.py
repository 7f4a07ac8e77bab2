"""What the site has beside the pages in docs/: reference, notebooks, pictures, links, changelog."""

import os
import pathlib
import re
import subprocess
import sys

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import api_reference
import notebooks
import pictures

ROOT = api_reference.ROOT


def generated():
    """Pages that are not in docs/: a dict from address to Markdown."""
    pages = {**api_reference.pages(), "changelog.md": (ROOT / "CHANGELOG.md").read_text()}
    for path in sorted(notebooks.FOLDER.glob("*.py")):
        pages[f"notebooks/{path.stem}.md"] = _notebook(path)
    return pages


def _notebook(path):
    if not os.environ.get("SITE_RUNS_NOTEBOOKS"):
        return notebooks.markdown(path)
    command = [sys.executable, notebooks.__file__, str(path)]
    environment = {**os.environ, "MPLBACKEND": "agg", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def on_config(config):
    missing = api_reference.undocumented()
    if missing:
        raise PluginError(f"Public names without a docstring: {missing}. Write one sentence at least.")
    for section in config.nav:
        if "Notebooks" in section:
            section["Notebooks"] = [
                {notebooks.title(path): f"notebooks/{path.stem}.md"}
                for path in sorted(notebooks.FOLDER.glob("*.py"))
            ]
        if "Reference" in section:
            section["Reference"] = [
                {pathlib.Path(page).stem.replace("index", "keras_gevb"): page}
                for page in api_reference.pages()
            ]
    _add_new_pages(config)
    return config


def _add_new_pages(config):
    """A page of docs/ or docs/results/ that the navigation does not name joins the guide or the results."""
    named = set(re.findall(r"'([^']+\.md)'", str(config.nav)))
    docs = pathlib.Path(config.docs_dir)
    for section, folder in (("Guide", "."), ("Results", "results")):
        pages = [page.relative_to(docs).as_posix() for page in sorted((docs / folder).glob("*.md"))]
        entries = next(entry[section] for entry in config.nav if section in entry)
        entries += [page for page in pages if page not in named]


def on_files(files, config):
    for address, content in generated().items():
        files.append(File.generated(config, address, content=content))
    return files


def on_page_markdown(markdown, page, files, **_):
    """Names of the package between backticks become links to the reference, but for headings and code."""
    if page.file.src_uri.startswith("reference/"):
        return markdown
    markdown = re.sub(
        r"(?<!!)\[([^\]\n]*)\]\(([^)\s#:]+)\)", lambda m: _of_the_source(m, page, files), markdown
    )
    parts = re.split(r"(^```.*?^```|^#.*?$|^    .*?$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(_linked(part) if number % 2 == 0 else part for number, part in enumerate(parts))


def _of_the_source(link, page, files):
    """A link to a file of the source that is not on the site: its words alone."""
    at = pathlib.PurePosixPath(os.path.normpath(f"docs/{page.file.src_uri}/../{link[2]}"))
    on_site = at.is_relative_to("docs") and files.get_file_from_path(at.relative_to("docs").as_posix())
    return f"{link[1]} (`{at}`)" if not on_site and (ROOT / at).exists() else link[0]


def _linked(text):
    def link(match):
        path = api_reference.links().get(match["name"])
        return f"[{match[0]}][{path}]" if path else match[0]

    return re.sub(r"(?<![\[`])`(?P<name>[\w.]+)(\([^`]*\))?`(?![\]`])", link, text)


def on_page_content(html, **_):
    """`<!-- picture: name -->` becomes the picture of that name."""
    return re.sub(r"<!-- picture: (\w+) -->", lambda match: pictures.draw(match[1]), html)
