"""Installs with `pip install .`; the metadata lives in pyproject.toml."""

from setuptools import setup

setup()
