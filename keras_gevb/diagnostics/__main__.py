"""The command line: `python -m keras_gevb.diagnostics certify model.keras`."""

import argparse
import sys

import keras
import numpy as np

from keras_gevb import datasets
from keras_gevb.diagnostics.certificate import certify


def main(arguments=None):
    """Run a command; returns the exit status: 0 where the rule is local, 2 where it is not."""
    parser = argparse.ArgumentParser(prog="python -m keras_gevb.diagnostics")
    commands = parser.add_subparsers(required=True, metavar="certify")
    command = commands.add_parser("certify", help="what each weight's update depends on, as a table")
    command.add_argument("model", help="a compiled model in a .keras file")
    command.add_argument("--dataset", choices=list(datasets.IMAGES), help="its samples; else random ones")
    command.add_argument("--data-dir", help="folder with the data sets prepared by TensorFlow Datasets")
    command.add_argument("--samples", type=int, default=16, help="default %(default)s")
    command.add_argument("--seed", type=int, default=0, help="of the changes and of random samples")
    command.add_argument("--json", metavar="FILE", help="write the certificate there, too")
    options = parser.parse_args(arguments)
    try:
        model = keras.models.load_model(options.model)
        certificate = certify(model, *_samples(model, options), seed=options.seed)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        certificate.write(options.json)
    print(certificate)
    return 0 if certificate.is_local else 2


def _samples(model, options):
    if options.dataset:
        (x, y), _ = datasets.load(options.dataset, options.data_dir)
        return x[: options.samples], y[: options.samples]
    random = np.random.default_rng(options.seed)
    x = random.random((options.samples, *model.input_shape[1:]), "float32")
    y = np.arange(options.samples) % model.output_shape[-1]
    if isinstance(model.loss, keras.losses.SparseCategoricalCrossentropy):
        return x, y
    return x, np.eye(model.output_shape[-1], dtype="float32")[y]


if __name__ == "__main__":
    sys.exit(main())
