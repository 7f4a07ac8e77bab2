"""`keras-gevb experiments`: the commands of `python -m keras_gevb.experiments`."""

import contextlib
import io

from keras_gevb.cli.errors import Failed, WrongUse

EXAMPLES = """\
  keras-gevb experiments list 'mnist-*'
  keras-gevb experiments run 'digits-fc-*' --seeds 1 --epochs 2 --evaluate-every 1
  keras-gevb experiments report
  keras-gevb experiments run --help"""
STOPPED = "The same command goes on with what is missing."


def arguments(parser):
    parser.add_argument("arguments", nargs="...", metavar="list | run | alignment | width | report ...")


def run(options):
    from keras_gevb import cli
    from keras_gevb.experiments import files
    from keras_gevb.experiments.__main__ import build_parser

    arguments = [argument for argument in options.arguments if argument != "--json"]
    options.json |= len(arguments) < len(options.arguments)
    chosen = build_parser("keras-gevb experiments", cli.Parser).parse_args(arguments)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            chosen.command(chosen)
    except files.WrongName as error:
        raise WrongUse(str(error)) from error
    except files.ExperimentError as error:
        raise Failed(str(error)) from error
    lines = printed.getvalue().splitlines()
    return {"lines": lines} if options.json else {"text": "\n".join(lines)}
