"""Build a page that learns: two networks in a browser, by ONNX Runtime's WebAssembly.

    python examples/browser/build.py --serve      # then open http://localhost:8000

Writes into --out the page, two training steps as ONNX graphs, the digits, and onnxruntime-web, which npm
fetches once. Any server of files will do: python -m http.server --directory runs/browser
"""

import argparse
import base64
import functools
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import rich

from keras_gevb import datasets, export, zoo

HERE = pathlib.Path(__file__).parent
PAGE = "index.html", "style.css", "page.js", "learner.js", "chart.js"
PACKAGE = "onnxruntime-web@1.30.0"
RUNTIME = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
BATCH = 32


def networks(width=0.5, seed=0):
    """GEVB on vector units and DFA on conventional ones; the kernel between hidden layers is the same."""
    keras.utils.set_random_seed(seed)
    models = {"gevb": zoo.build("digits", "fc", width=width)}
    models["dfa"] = zoo.build("digits", "fc", vectorized=False, width=width)
    first, second = (hidden(model)[1] for model in models.values())
    second.kernel.assign(first.kernel)
    for model in models.values():
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-3), loss)
    return models


def hidden(model):
    return [layer for layer in model.layers if hasattr(layer, "kernel")][:-1]


def encoded(array):
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"type": str(array.dtype), "dims": list(array.shape), "data": data}


def write(out, models):
    """The page, its ONNX graphs, and state and digits as JSON."""
    out.mkdir(parents=True, exist_ok=True)
    for name in PAGE:
        shutil.copy(HERE / name, out)
    content = {"batch": BATCH, "networks": {}}
    for name, model in models.items():
        # onnxruntime-web takes no values for inputs that have a default: the state is given apart.
        export.to_trainable_onnx(model, out / f"{name}.onnx", BATCH, defaults=False)
        state = export.trainable.named_variables(model)
        content["networks"][name] = {
            "hidden": [layer.name for layer in hidden(model)],
            "state": {key: encoded(np.asarray(variable)) for key, variable in state.items()},
        }
    train, test = datasets.load("digits")
    for name, (x, y) in {"train": train, "test": test}.items():
        content[name] = {"x": encoded(x.astype("uint8")), "y": encoded(y.astype("int32"))}
    (out / "digits.json").write_text(json.dumps(content))


def fetch(out):
    """onnxruntime-web, unless it is there."""
    if all((out / name).exists() for name in RUNTIME):
        return
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit(f"error: npm, which fetches {PACKAGE}, is missing. Install Node.js.")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([npm, "install", "--no-audit", "--no-fund", "--prefix", folder, PACKAGE], check=True)
        for name in RUNTIME:
            shutil.copy(pathlib.Path(folder) / "node_modules" / "onnxruntime-web" / "dist" / name, out)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/browser"))
    parser.add_argument("--serve", action="store_true", help="serve the page until Ctrl-C")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    write(options.out, networks())
    fetch(options.out)
    rich.print(f"The page: {options.out}/index.html")
    if options.serve:
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=options.out)
        with http.server.ThreadingHTTPServer(("localhost", options.port), handler) as server:
            rich.print(f"Open http://localhost:{options.port}")
            server.serve_forever()


if __name__ == "__main__":
    main()
