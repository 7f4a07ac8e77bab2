"""The command line: `keras-gevb COMMAND`, or `python -m keras_gevb COMMAND`.

A command is a row of `COMMANDS` and a module of this folder with its name, which has

EXAMPLES
    Lines for the end of its help.
STOPPED
    What is kept when it is stopped by Ctrl-C, one sentence.
arguments(parser)
    Adds its arguments.
run(options)
    Does it; returns what came out, a dict that JSON can hold, with a "status" where it is not 0.

It ends with 0 when done, 1 when something failed, 2 when it was used wrongly, 130 when it was stopped.
"""

import argparse
import contextlib
import importlib
import json
import sys

from keras_gevb.cli.errors import WrongUse
from keras_gevb.version import __version__

COMMANDS = {
    "train": "train a network on a data set by a learning rule",
    "tune": "search learning rate, width and depth, and train the best",
    "experiments": "the paper's comparison: list, run, alignment, width, report",
    "certify": "what each weight's update depends on, as a table",
    "convert": "make a stock model learn by a rule, or a stock model of one that does",
    "export": "write a saved model for other programs",
    "completion": "print a script that completes commands and options in a shell",
}


def main(arguments=None):
    """Run a command; returns the exit status."""
    options = parser().parse_args(arguments)
    command = options.command
    try:
        # What libraries print goes to the standard error; the standard output is the result's.
        with contextlib.redirect_stdout(sys.stderr):
            result = command.run(options)
    except KeyboardInterrupt:
        return _end(options, 130, f"Stopped. {command.STOPPED}")
    except WrongUse as error:
        return _end(options, 2, f"error: {error}")
    except Exception as error:  # also those of libraries, whose classes have no base in common
        if options.debug:
            raise
        return _end(options, 1, f"error: {error or type(error).__name__}")
    status = result.get("status", 0)
    if options.json:
        print(json.dumps(result))
    else:
        result.pop("status", None)
        for name, value in result.items():
            print(value if name == "text" else f"{name.replace('_', ' ')}: {value}")
    return status


def _end(options, status, message):
    line = " ".join(message.split())
    print(line, file=sys.stderr)
    if options.json:
        print(json.dumps({"error": line, "status": status}))
    return status


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message):
        self.exit(2, f"error: {message} (`{self.prog} --help` has all arguments)\n")


def parser():
    """The parser of all commands."""
    whole = Parser(
        prog="keras-gevb",
        description="Train deep networks without backpropagation.",
        epilog="exit status: 0 done, 1 failed, 2 used wrongly, 130 stopped by Ctrl-C",
    )
    whole.add_argument("--version", action="version", version=f"keras-gevb {__version__}")
    commands = whole.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for name, summary in COMMANDS.items():
        module = importlib.import_module(f"{__name__}.{name}")
        one = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=f"examples:\n{module.EXAMPLES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.add_argument("--json", action="store_true", help="print the result, or the error, as JSON")
        one.add_argument("--debug", action="store_true", help="show where an error comes from")
        module.arguments(one)
        one.set_defaults(command=module)
    return whole
