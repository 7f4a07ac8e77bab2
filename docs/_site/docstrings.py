"""Docstrings of this package, as the site shows them."""

import re

import griffe


class Docstrings(griffe.Extension):
    """Headings that are this package's own in bold, and examples as code."""

    def on_instance(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = shown(obj.docstring.value, is_contract=obj.path == "keras_gevb.backend")


def shown(text, is_contract=False):
    heading = r"^(Input shape|Output shape|Weights|Reference|Prints|Example):(?= |$)"
    text = re.sub(heading, r"\n**\1:**", text, flags=re.MULTILINE)
    # Names of arguments that go on in a second line.
    text = re.sub(r"^( {4}[\w*, ]+,)\n {8}(?=[\w*, ]+:)", r"\1 ", text, flags=re.MULTILINE)
    text = re.sub(r"((?:^>>>.*\n?)(?:^.+\n?)*)", r"```pycon\n\1\n```\n", text, flags=re.MULTILINE)
    if is_contract:
        text = re.sub(r"^(\S.*)\n    (?=\S)", r"\n`\1`\n:   ", text, flags=re.MULTILINE)
    return text
