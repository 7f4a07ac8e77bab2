"""`keras-gevb export`."""

import pathlib

import keras

from keras_gevb import backend
from keras_gevb.cli import kinds, outputs
from keras_gevb.cli.errors import Failed, WrongUse

EXAMPLES = """\
  keras-gevb export runs/digits-fc-gevb/model.keras served/digits/1
  keras-gevb export model.keras model.onnx
  keras-gevb export model.keras model.tflite
  keras-gevb export model.keras stock.keras          # stock Keras layers"""
STOPPED = "Nothing was written."
SUFFIXES = {".keras": "keras", ".onnx": "onnx", ".tflite": "litert"}


def arguments(parser):
    parser.add_argument("model", help="a .keras file")
    parser.add_argument("out", help="a folder, or a file that ends in .keras, .onnx or .tflite")
    parser.add_argument(
        "--format",
        choices=["saved_model", "keras", "onnx", "litert"],
        help="default: by the end of OUT's name, else saved_model",
    )
    parser.add_argument(
        "--input-dtype", metavar="DTYPE", help="of a SavedModel, such as uint8 for raw pixels"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT where it is there")


def run(options):
    source, out = kinds.saved(options.model), pathlib.Path(options.out)
    suffix = out.suffix.lower()
    if options.format is None and suffix not in {"", *SUFFIXES} and not suffix[1:].isdigit():
        raise WrongUse(
            "OUT must be a folder or end in .keras, .onnx or .tflite, or --format say what it is. "
            f"Received: '{out}'"
        )
    kind = options.format or SUFFIXES.get(suffix, "saved_model")
    if source.resolve() == out.resolve():
        raise WrongUse(f"'{out}' is the model itself. Give another OUT.")
    outputs.new_file(out, options.overwrite)
    model = kinds.read(source)
    try:
        with outputs.replacing(out) as path:
            _write(model, path, kind, options.input_dtype)
    except ImportError as error:
        raise Failed(
            f"This format needs more packages: pip install 'keras-gevb[export]' ({error})"
        ) from error
    return {"format": kind, "written": str(out)}


def _write(model, path, kind, input_dtype):
    from keras_gevb import export
    from keras_gevb.export.serving import ends

    if kind == "saved_model":
        export.to_saved_model(model, str(path), input_dtype)
    elif kind == "keras":
        export.to_keras(model).save(path)
    else:
        # Keras asks a chain that was loaded to have been called before.
        model(keras.tree.map_structure(backend.stand_in, ends(model)[0]))
        model.export(str(path), format=kind, verbose=False)
