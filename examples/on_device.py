"""Personalization on the device: a trained network learns new data where there is no Keras.

A network that has learned upright digits meets a user who writes them turned by 30 degrees. Its step of
training is written for TensorFlow, LiteRT and ONNX Runtime; each learns the turned digits in a process that
has neither Keras nor keras_gevb (LiteRT and ONNX Runtime: no TensorFlow either); the weights come back.

    python examples/on_device.py                         # trains the network first, half a minute in all
    python examples/on_device.py --model mine.keras      # a compiled classifier of --dataset

Leaves the three exports, and for each runtime the model that it has trained (.keras), under --out.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

# On the device: nothing here reads Keras.


def saved_model(file):
    import tensorflow as tf

    learner = tf.saved_model.load(file)
    return learner.train, lambda: {name: value.numpy() for name, value in learner.get_state().items()}


def litert(file):
    from ai_edge_litert.interpreter import Interpreter

    signature = Interpreter(file).get_signature_runner
    train = signature("train")
    return lambda x, y: train(x=x, y=y), signature("get_state")


def onnx(file):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # else a warning for each value that the file has
    # Errors of batches that are known by heart are so small that arithmetic is ten times slower.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    session = onnxruntime.InferenceSession(file, options)
    names = [output.name for output in session.get_outputs()]
    state = {}

    def train(x, y):
        found = dict(zip(names, session.run(None, {"x": x, "y": y, **state})))
        state.update({n.removesuffix("_new"): np.asarray(v) for n, v in found.items() if n.endswith("_new")})

    return train, lambda: state


RUNTIMES = {
    "TensorFlow": ("learner", saved_model),
    "LiteRT": ("step.tflite", litert),
    "ONNX Runtime": ("step.onnx", onnx),
}


def on_device(runtime, folder, epochs):
    """Train in this process; leave the state, the time of a step and the peak of memory."""
    absent = ["keras", "keras_gevb"] + ([] if runtime == "TensorFlow" else ["tensorflow"])
    sys.modules.update(dict.fromkeys(absent))
    folder = pathlib.Path(folder)
    file, load = RUNTIMES[runtime]
    train, get_state = load(str(folder / file))
    data = np.load(folder / "data.npz")
    batches = list(zip(data["x"], data["y"]))
    seconds = []
    for _ in range(int(epochs)):
        for x, y in batches:
            start = time.perf_counter()
            train(x, y)
            seconds.append(time.perf_counter() - start)
    np.savez(folder / "state.npz", **get_state())
    np.save(folder / "measured.npy", [1e3 * np.median(seconds), peak_megabytes()])


def peak_megabytes():
    """Of this process, on Linux; what `resource` says begins with the process that started this one."""
    status = pathlib.Path("/proc/self/status")
    peak = status.read_text().split("VmHWM:")[1].split()[0] if status.exists() else "nan"
    return float(peak) / 1024


# Where there is Keras.


def turned(images, degrees=30):
    from scipy import ndimage

    return ndimage.rotate(images, degrees, axes=(2, 1), reshape=False, order=1).astype("float32")


def trained(dataset, x, y):
    import keras

    import keras_gevb

    model = keras_gevb.zoo.build(dataset, "fc")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    model.fit(x, y, batch_size=32, epochs=10, verbose=0)
    return model


def error_percent(model, x, y):
    return 100 * np.mean(model.predict(x, verbose=0).argmax(axis=-1) != y)


def size(path):
    return sum(p.stat().st_size for p in [path, *path.rglob("*")] if p.is_file())


def learn(runtime, folder, epochs):
    """Have a runtime learn in a process of its own: its state, milliseconds a step, megabytes."""
    command = [sys.executable, __file__, "--on-device", runtime, str(folder), str(epochs)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{runtime} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return dict(np.load(folder / "state.npz")), *np.load(folder / "measured.npy")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a .keras file of a compiled model (default: one is trained)")
    parser.add_argument("--dataset", choices=["digits", "mnist", "fashion_mnist"], default="digits")
    parser.add_argument("--epochs", type=int, default=5, help="of turned images, in each runtime")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/on-device"))
    return parser.parse_args()


def main():
    options = parse_arguments()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from keras_gevb import datasets, export

    # isort: split
    import keras
    import rich.progress
    import rich.table

    folder, batch_size = options.out, options.batch_size
    folder.mkdir(parents=True, exist_ok=True)
    (x, y), (x_test, y_test) = datasets.load(options.dataset)
    model = keras.models.load_model(options.model) if options.model else trained(options.dataset, x, y)
    x, x_test = turned(x), turned(x_test)
    steps = len(x) // batch_size
    np.savez(
        folder / "data.npz",
        x=x[: steps * batch_size].reshape(steps, batch_size, *x.shape[1:]),
        y=y[: steps * batch_size].reshape(steps, batch_size).astype("int32"),
    )
    export.to_trainable_saved_model(model, folder / "learner")
    export.to_trainable_litert(model, folder / "step.tflite", batch_size)
    export.to_trainable_onnx(model, folder / "step.onnx", batch_size)

    before = error_percent(model, x_test, y_test)
    table = rich.table.Table(title=f"{options.dataset} turned by 30 degrees, {options.epochs} epochs")
    table.add_column("runtime")
    for heading in ("ms a step", "file (MB)", "peak memory (MB)", "test error before (%)", "after (%)"):
        table.add_column(heading, justify="right")
    for runtime, (file, _) in rich.progress.track(RUNTIMES.items(), "Learning without Keras"):
        state, milliseconds, megabytes = learn(runtime, folder, options.epochs)
        export.load_state(model, state)
        model.save(folder / f"{runtime.replace(' ', '_')}.keras")
        numbers = milliseconds, size(folder / file) / 1e6, megabytes, before
        after = error_percent(model, x_test, y_test)
        table.add_row(runtime, *(f"{n:.{d}f}" for n, d in zip((*numbers, after), (2, 1, 0, 1, 1))))
    console = rich.console.Console(width=100)
    console.print(table)
    console.print(f"Exports and models: {folder}/")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--on-device"]:
        on_device(*sys.argv[2:])
    else:
        main()
