"""`keras-gevb certify`."""

import json
import pathlib

import keras
import numpy as np

from keras_gevb import datasets, diagnostics, targets
from keras_gevb.cli import kinds, outputs
from keras_gevb.cli.errors import WrongUse

EXAMPLES = """\
  keras-gevb certify runs/digits-fc-gevb/model.keras --data digits
  keras-gevb certify model.keras --data batch.npz --out certificate.json   # arrays x and y
  keras-gevb certify model.keras --json"""
STOPPED = "Nothing was written."


def arguments(parser):
    parser.add_argument("model", help="a compiled model in a .keras file")
    parser.add_argument(
        "--data",
        metavar="DATA",
        help=f"{', '.join(datasets.IMAGES)}, or an .npz file of arrays x and y (default: random samples)",
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="folder of prepared data sets (default: $TFDS_DATA_DIR)"
    )
    parser.add_argument("--samples", type=kinds.positive, default=16, help="default: 16")
    parser.add_argument("--seed", type=kinds.seed, default=0, help="of the changes (default: 0)")
    parser.add_argument("--out", metavar="FILE", help="write the certificate there, as JSON")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE where it is there")


def run(options):
    if options.samples < 2:
        raise WrongUse(f"--samples must be at least 2, so that there are others. Received: {options.samples}")
    source = kinds.saved(options.model)
    out = options.out and outputs.new_file(options.out, options.overwrite)
    model = kinds.read(source)
    if not getattr(model, "compiled", False) or not hasattr(model, "learning_rule"):
        raise WrongUse(
            f"'{source}' holds no compiled model that learns by a rule. Compile it before it is saved; a "
            "stock model first becomes one by `keras-gevb convert`."
        )
    certificate = diagnostics.certify(model, *_samples(model, options), seed=options.seed)
    if out:
        with outputs.replacing(out) as path:
            certificate.write(path)
    result = json.loads(certificate.to_json()) if options.json else {"text": str(certificate)}
    if out:
        result["written"] = str(out)
    if not certificate.is_local:
        result["status"] = 1
    return result


def _samples(model, options):
    if isinstance(model.input_shape, (list, dict)) or isinstance(model.output_shape, (list, dict)):
        raise WrongUse(
            "A model of several inputs or outputs is certified in Python, by "
            f"keras_gevb.diagnostics.certify. Received: inputs of shapes {model.input_shape}, outputs of "
            f"shapes {model.output_shape}"
        )
    shape = model.input_shape[1:]
    if options.data is None:
        return _random(model, options, shape)
    x, y = _data(options)
    x, y = x[: options.samples], y[: options.samples]
    if len(x) < 2:
        raise WrongUse(f"'{options.data}' must have at least 2 samples. Received: {len(x)}")
    if None not in shape and x.shape[1:] != shape:
        if x[0].size != np.prod(shape):
            raise WrongUse(f"The model wants samples of shape {shape}. Received: {x.shape[1:]}")
        x = x.reshape(len(x), *shape)
    return x, y


def _data(options):
    if options.data in datasets.IMAGES:
        return kinds.load(options.data, options.data_dir)[0]
    path = pathlib.Path(options.data)
    if path.suffix != ".npz" or not path.is_file():
        raise WrongUse(
            f"--data must be one of {', '.join(datasets.IMAGES)}, or an .npz file of arrays x and y. "
            f"Received: '{options.data}'"
        )
    try:
        with np.load(path) as arrays:
            return arrays["x"], arrays["y"]
    except Exception as error:
        raise WrongUse(f"'{path}' has no arrays x and y that could be read: {error}") from error


def _random(model, options, shape):
    if None in shape or not keras.backend.is_float_dtype(model.inputs[0].dtype):
        raise WrongUse(
            "No random samples are drawn for a model of integers, or of any length. Give --data. Received: "
            f"inputs of shape {shape}, {model.inputs[0].dtype}"
        )
    random = np.random.default_rng(options.seed)
    x = random.random((options.samples, *shape), "float32")
    units = model.output_shape[-1]
    y = np.arange(options.samples) % units
    losses = keras.tree.flatten(model.loss)
    if len(losses) == 1 and targets.takes_labels(losses[0]):
        return x, y
    return x, np.eye(units, dtype="float32")[y] if units > 1 else random.random((len(y), 1), "float32")
