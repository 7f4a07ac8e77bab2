"""Personalization on the device: a trained network learns new data where there is no Keras.

With no argument: the 8 x 8 digits, learned upright, are then seen turned by 30 degrees. The model is written
for TensorFlow, LiteRT and ONNX Runtime; each learns the turned digits in a process that has neither Keras nor
keras_gevb (LiteRT and ONNX Runtime: no TensorFlow either); the weights come back into Keras.

    python examples/on_device.py
    python examples/on_device.py --model mine.keras      # a compiled classifier of digits
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

NAMES = "x", "y"


# On the device: nothing here reads Keras.


def saved_model(file):
    import tensorflow as tf

    learner = tf.saved_model.load(file)
    return (
        lambda x, y: learner.train(x, y)["loss"].numpy(),
        lambda: {name: value.numpy() for name, value in learner.get_state().items()},
    )


def litert(file):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(file).get_signature_runner
    train = runner("train")
    return lambda x, y: train(x=x, y=y)["loss"], lambda: runner("get_state")()


def onnx(file):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # else a warning for each value that the file has
    session = onnxruntime.InferenceSession(file, options)
    names = [output.name for output in session.get_outputs()]
    state = {}

    def train(x, y):
        found = dict(zip(names, session.run(None, {"x": x, "y": y, **state})))
        state.update(
            {name.removesuffix("_new"): np.asarray(v) for name, v in found.items() if "_new" in name}
        )
        return found["loss"]

    return train, lambda: state


RUNTIMES = {"saved_model": saved_model, "litert": litert, "onnx": onnx}


def learn(runtime, file, data, result, epochs):
    """Train in this process, and write the state, the time of a step and the memory."""
    missing = ["keras", "keras_gevb"] + ([] if runtime == "saved_model" else ["tensorflow"])
    sys.modules.update(dict.fromkeys(missing))
    train, get_state = RUNTIMES[runtime](file)
    batches = np.load(data)
    times = []
    for _ in range(int(epochs)):
        for batch in zip(*(batches[name] for name in NAMES)):
            start = time.perf_counter()
            train(*batch)
            times.append(time.perf_counter() - start)
    # Linux; what `resource` says begins with the memory of the process that started this one.
    status = pathlib.Path("/proc/self/status").read_text()
    megabytes = int(status.split("VmHWM:")[1].split()[0]) / 1024
    np.savez(result, **get_state(), milliseconds=1000 * np.median(times), megabytes=megabytes)


# Where there is Keras.


def turned(images, degrees=30):
    from scipy import ndimage

    return ndimage.rotate(images, degrees, axes=(2, 1), reshape=False, order=1).astype("float32")


def compiled(file):
    import keras

    from keras_gevb import datasets, zoo

    if file:
        return keras.models.load_model(file)
    model = zoo.build("digits", "fc")
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    (x, y), _ = datasets.load("digits")
    model.fit(x, y, batch_size=32, epochs=10, verbose=0)
    return model


def size(path):
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)


def main(arguments):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import rich.console
    import rich.table

    from keras_gevb import datasets, export

    batch_size = 32
    model = compiled(arguments.model)
    (x, y), (x_test, y_test) = datasets.load("digits")
    x, x_test = turned(x), turned(x_test)
    steps = len(x) // batch_size
    folder = pathlib.Path(tempfile.mkdtemp())
    np.savez(
        folder / "data.npz",
        x=x[: steps * batch_size].reshape(steps, batch_size, *x.shape[1:]),
        y=y[: steps * batch_size].reshape(steps, batch_size).astype("int32"),
    )
    files = {
        "saved_model": folder / "saved_model",
        "litert": folder / "step.tflite",
        "onnx": folder / "step.onnx",
    }
    export.to_trainable_saved_model(model, files["saved_model"])
    export.to_trainable_litert(model, files["litert"], batch_size)
    export.to_trainable_onnx(model, files["onnx"], batch_size)
    before = 1 - model.evaluate(x_test, y_test, verbose=0)[1]
    table = rich.table.Table(title=f"Digits turned by 30 degrees, {arguments.epochs} epochs")
    for column in (
        "runtime",
        "ms a step",
        "file, kB",
        "peak memory, MB",
        "error before, %",
        "error after, %",
    ):
        table.add_column(column, justify="left" if column == "runtime" else "right")
    for runtime, file in files.items():
        result = folder / f"{runtime}.npz"
        command = [sys.executable, __file__, "--device", runtime, file, folder / "data.npz", result]
        subprocess.run([*map(str, command), str(arguments.epochs)], check=True)
        state = dict(np.load(result))
        milliseconds, megabytes = state.pop("milliseconds"), state.pop("megabytes")
        export.load_state(model, state)
        after = 1 - model.evaluate(x_test, y_test, verbose=0)[1]
        numbers = (f"{milliseconds:.2f}", f"{size(file) / 1000:.0f}", f"{megabytes:.0f}")
        table.add_row(runtime, *numbers, f"{100 * before:.1f}", f"{100 * after:.1f}")
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--device"]:
        learn(*sys.argv[2:])
    else:
        parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
        parser.add_argument("--model", help="a .keras file of a compiled classifier of digits")
        parser.add_argument("--epochs", type=int, default=5)
        main(parser.parse_args())
