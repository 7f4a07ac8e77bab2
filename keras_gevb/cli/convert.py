"""`keras-gevb convert`."""

from keras_gevb import conversion, vectorization
from keras_gevb.cli import kinds, outputs
from keras_gevb.cli.errors import WrongUse

EXAMPLES = """\
  keras-gevb convert model.keras --rule dfa --out converted.keras
  keras-gevb convert model.keras --vectorize --out vectors.keras       # by GEVB, weights anew
  keras-gevb convert converted.keras --to-keras --out model.keras      # stock Keras layers"""
STOPPED = "Nothing was written."


def arguments(parser):
    parser.add_argument("model", help="a .keras file")
    parser.add_argument(
        "--rule",
        "--learning-rule",
        type=kinds.rule,
        metavar="RULE",
        help="the same model, with its weights, learning by this rule",
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument(
        "--vectorize",
        action="store_true",
        help="the network of vector units of the model's shape, by --rule (default: gevb)",
    )
    way.add_argument("--to-keras", action="store_true", help="a model of stock layers, of equal outputs")
    parser.add_argument("--out", required=True, metavar="OUT", help="a .keras file")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT where it is there")


def run(options):
    if options.to_keras and options.rule:
        raise WrongUse("--to-keras takes no --rule: stock models learn by automatic differentiation.")
    if not (options.to_keras or options.vectorize or options.rule):
        raise WrongUse("Say what to make of the model: --rule RULE, --vectorize or --to-keras.")
    if not options.out.endswith(".keras"):
        raise WrongUse(f"--out must end in .keras. Received: '{options.out}'")
    source = kinds.saved(options.model)
    out = outputs.new_file(options.out, options.overwrite)
    model = kinds.read(source)
    try:
        made = _made(model, options)
    except (TypeError, ValueError) as error:
        raise WrongUse(str(error)) from error
    _compile_as(model, made)
    with outputs.replacing(out) as path:
        made.save(path)
    rule = None if options.to_keras else str(made.learning_rule)
    return {"learning_rule": rule, "parameters": made.count_params(), "written": str(out)}


def _compile_as(model, made):
    """The same loss, metrics and settings of the optimizer, if any."""
    config = model.get_compile_config() or {}
    config.pop("learning_rule", None)
    if config:
        made.compile_from_config(config)


def _made(model, options):
    if options.to_keras:
        from keras_gevb import export

        return export.to_keras(model)
    if options.vectorize:
        return vectorization.vectorize(model, learning_rule=options.rule or "gevb")
    return conversion.convert(model, options.rule)
