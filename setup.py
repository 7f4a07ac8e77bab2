"""Installs with `pip install .`; the metadata lives in pyproject.toml, but for what depends on the publisher.

With REPOSITORY set to the address of the published source, as a release has it, the package index is told
where that is, and the README's links and images, relative in the repository, become absolute.
"""

import os
import pathlib
import re

from setuptools import setup

here = pathlib.Path(__file__).parent
repository = os.environ.get("REPOSITORY", "").rstrip("/")
readme = (here / "README.md").read_text(encoding="utf-8")
urls = {"Paper": "https://arxiv.org/abs/2106.04089"}
if repository:
    version = re.search(r'__version__ = "(.*)"', (here / "keras_gevb" / "version.py").read_text())[1]
    relative = r"\]\((?![a-z]+:|#)"
    readme = re.sub(r"(!\[[^\]]*)" + relative, rf"\1]({repository}/raw/v{version}/", readme)
    readme = re.sub(relative, f"]({repository}/blob/v{version}/", readme)
    urls |= {
        "Source": repository,
        "Issues": f"{repository}/issues",
        "Changelog": f"{repository}/blob/v{version}/CHANGELOG.md",
    }

setup(long_description=readme, long_description_content_type="text/markdown", project_urls=urls)
