"""A training step where there is no Keras: its time, its memory, what ten epochs of it learn.

    python benchmarks/on_device.py              # all three parts, a few minutes
    python benchmarks/on_device.py memory

times     `fit` of Keras and an exported step in TensorFlow, LiteRT and ONNX Runtime, in turns in one process
memory    peaks of steps beyond what is held between them and beyond the weights, a process for each depth;
          ordinary GEVB, and in the order of `low_memory`
digits    ten epochs from the same fresh weights on the same batches in each

What is measured goes to on-device.json in --out as it ends, and is printed as tables.
"""

import argparse
import itertools
import os
import pathlib
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import measuring
import memory
import numpy as np
import rich.progress

PARTS = ["times", "memory", "digits"]
NETWORKS = {"digits": 32, "mnist": 128}  # fully connected ones, and batches
OPTIMIZERS = ["adam", "sgd"]
DEPTHS = [4, 8, 16, 32]
RUNTIMES = ["TensorFlow", "LiteRT", "ONNX Runtime"]
FREES = RUNTIMES[1:]  # what they do not need any more, where they are told to


def tensorflow(file, threads=None):
    import tensorflow as tf

    learner = tf.saved_model.load(file)

    def get_state():
        return {name: value.numpy() for name, value in learner.get_state().items()}

    return lambda x, y: learner.train(x, y), get_state  # which keeps the learner's variables


def litert(file, threads=1):
    from ai_edge_litert.interpreter import Interpreter

    signature = Interpreter(file, num_threads=threads).get_signature_runner
    train = signature("train")
    return lambda x, y: train(x=x, y=y), signature("get_state")


def onnx(file, threads=1, frees=False):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Errors of batches that are known by heart are so small that arithmetic is ten times slower.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = options.enable_mem_pattern = not frees
    session = onnxruntime.InferenceSession(file, options)
    names = [output.name for output in session.get_outputs()]
    state = {}

    def train(x, y):
        found = dict(zip(names, session.run(None, {"x": x, "y": y, **state})))
        state.update({n.removesuffix("_new"): np.asarray(v) for n, v in found.items() if n.endswith("_new")})

    return train, lambda: state


LOAD = dict(zip(RUNTIMES, (tensorflow, litert, onnx)))


def written(runtime, model, folder, batch_size):
    """The exported file or folder, and its bytes."""
    from keras_gevb import export

    path = pathlib.Path(folder) / runtime.replace(" ", "_")
    if runtime == "TensorFlow":
        export.to_trainable_saved_model(model, path)
    else:
        write = export.to_trainable_litert if runtime == "LiteRT" else export.to_trainable_onnx
        write(model, path, batch_size)
    return str(path), sum(p.stat().st_size for p in [path, *path.rglob("*")] if p.is_file())


def compiled(model, optimizer):
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def times(dataset, optimizer, batch_size, steps, repeats, threads):
    """Milliseconds of a step, and megabytes of the file; TensorFlow's threads are set by `main`."""
    from keras_gevb import datasets, zoo

    model = compiled(zoo.build(dataset, "fc"), optimizer)
    shape, brightest = datasets.IMAGES[dataset]
    rng = np.random.default_rng(0)
    x = rng.integers(0, brightest + 1, ((steps + 1) * batch_size, *shape)).astype("float32")
    y = rng.integers(0, 10, len(x)).astype("int32")
    batches = list(zip(x.reshape(-1, batch_size, *shape), y.reshape(-1, batch_size)))
    with tempfile.TemporaryDirectory() as folder:
        files = {runtime: written(runtime, model, folder, batch_size) for runtime in RUNTIMES}
        train = {runtime: LOAD[runtime](file, threads)[0] for runtime, (file, _) in files.items()}
        found = {name: [] for name in ("fit", *RUNTIMES)}

        def others():
            for runtime in RUNTIMES:
                for number, batch in enumerate(batches):
                    start = time.perf_counter()
                    train[runtime](*batch)
                    if number:
                        found[runtime].append(1e3 * (time.perf_counter() - start))

        others()
        for runtime in RUNTIMES:
            found[runtime].clear()
        found["fit"] = measuring.interleaved_steps({"fit": model}, x, y, batch_size, repeats, others)["fit"]
    sizes = {runtime: round(size / 1e6, 2) for runtime, (_, size) in files.items()}
    return {"milliseconds": {name: measuring.spread(ms) for name, ms in found.items()}, "megabytes": sizes}


def peak(runtime, depth, low_memory, units=128, batch_size=256, inputs=64):
    """Megabytes of a step's peak, of the state, and what is held between steps."""
    import keras

    import keras_gevb
    from keras_gevb import layers

    hidden = [layers.VectorDense(units) for _ in range(depth - 2)]
    first = layers.VectorDense(units, vector_dim=10)
    model = keras_gevb.Sequential(
        [keras.Input((inputs,)), first, *hidden, layers.VectorReadout()],
        learning_rule=keras_gevb.rules.GEVB(low_memory=low_memory),
    )
    with tempfile.TemporaryDirectory() as folder:
        file, _ = written(runtime, compiled(model, "sgd"), folder, batch_size)
        request = {"runtime": runtime, "file": file, "batch_size": batch_size, "inputs": inputs}
        return memory.in_fresh_process(__file__, request)


def probe(runtime, file, batch_size, inputs, steps=5):
    """Steps in this process, which has made nothing else."""
    memory.give_back_what_is_freed()
    train, get_state = onnx(file, frees=True) if runtime == "ONNX Runtime" else LOAD[runtime](file)
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(batch_size, inputs)).astype("float32"), rng.integers(0, 10, batch_size, "int32")
    train(*batch)
    held, highest = memory.peak(lambda: [train(*batch) for _ in range(steps)])
    state = sum(value.nbytes for value in get_state().values()) / 1e6
    # ONNX Runtime's new weights are outputs, beside the old ones until the step is over.
    beside = state if runtime == "ONNX Runtime" else 0
    return {"step": round(highest - held - beside, 2), "state": round(state, 2), "held": round(held, 1)}


def digits(seed, epochs=10, batch_size=32):
    """Percent of the held-out digits that are wrong, after the same batches from the same weights."""
    import keras

    from keras_gevb import datasets, export, zoo

    keras.utils.set_random_seed(seed)
    model = compiled(zoo.build("digits", "fc"), keras.optimizers.Adam(1e-3))
    (x, y), (x_test, y_test) = datasets.load("digits")
    x, y = x.astype("float32"), y.astype("int32")
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(x))[: len(x) // batch_size * batch_size] for _ in range(epochs)]

    def error():
        return round(100 * float(np.mean(model.predict(x_test, verbose=0).argmax(axis=-1) != y_test)), 2)

    with tempfile.TemporaryDirectory() as folder:
        learners = {r: LOAD[r](written(r, model, folder, batch_size)[0]) for r in RUNTIMES}
        for order in orders:
            model.fit(x[order], y[order], batch_size=batch_size, shuffle=False, verbose=0)
        found = {"fit": error()}
        for runtime, (train, get_state) in learners.items():
            for order in orders:
                for chosen in order.reshape(-1, batch_size):
                    train(x[chosen], y[chosen])
            export.load_state(model, get_state())
            found[runtime] = error()
    return found


MEASURE = {"times": times, "memory": peak, "digits": digits}


def wanted(options):
    """What is measured: part, name, settings."""
    how_often = {name: getattr(options, name) for name in ("steps", "repeats", "threads")}
    for dataset, optimizer in itertools.product(NETWORKS, OPTIMIZERS):
        settings = {"dataset": dataset, "optimizer": optimizer, "batch_size": NETWORKS[dataset], **how_often}
        yield "times", f"{dataset} fc, {optimizer}, threads: {options.threads}", settings
    for runtime, low, depth in itertools.product(FREES, (False, True), options.depths):
        settings = {"runtime": runtime, "depth": depth, "low_memory": low}
        yield "memory", f"{runtime}{', low memory' * low}, {depth}", settings
    for seed in range(options.seeds):
        yield "digits", f"seed {seed}", {"seed": seed}


def table(title, head, rows):
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join([f"\n{title}\n", *("| " + " | ".join(map(str, line)) + " |" for line in lines)])


def tables(found, options):
    names = ["fit", *RUNTIMES]
    if "times" in found:
        rows = []
        for name, measured in found["times"].items():
            ms = measured["milliseconds"]
            row = [
                f"{ms[n]['median']:.2f} ({ms[n]['p10']:.2f} to {ms[n]['p90']:.2f}), "
                f"{ms[n]['median'] / ms['fit']['median']:.2f}"
                for n in ms
            ]
            rows.append([name, *row])
        yield table("Milliseconds a step, median (10th to 90th percentile), times `fit`", ["", *ms], rows)
        sizes = [[name, *(m["megabytes"][n] for n in RUNTIMES)] for name, m in found["times"].items()]
        yield table("Megabytes of the file", ["", *RUNTIMES], sizes)
    if "memory" in found:
        rows = {}
        for name, measured in found["memory"].items():
            rows.setdefault(name.rpartition(", ")[0], []).append(measured.get("step", "left out"))
        head = ["", *(f"{depth} layers" for depth in options.depths)]
        yield table(
            "Megabytes of a step beyond the weights", head, [[name, *row] for name, row in rows.items()]
        )
    if "digits" in found:
        rows = [[name, *(m[n] for n in names)] for name, m in found["digits"].items()]
        yield table("Test error (%) on the digits after ten epochs", ["", *names], rows)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[], help="default: all")
    parser.add_argument("--depths", nargs="+", type=measuring.positive, default=DEPTHS)
    parser.add_argument("--seeds", type=measuring.positive, default=3, help="default %(default)s")
    measuring.add_repeats(parser, steps=40, repeats=5)
    parser.add_argument("--threads", type=measuring.positive, default=1, help="default %(default)s")
    measuring.add_out(parser, pathlib.Path("runs/on-device-benchmark"))
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.parts = options.parts or PARTS
    if options.probe:
        memory.answer(options.probe, probe)
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    results = measuring.Results(options.out / "on-device.json", measuring.machine())
    found = {}
    jobs = [job for job in wanted(options) if job[0] in options.parts]
    for part, name, settings in rich.progress.track(jobs, "on device"):
        if results.get(part, name, settings) is None:
            results.put(part, name, settings, MEASURE[part](**settings))
        found.setdefault(part, {})[name] = results.get(part, name, settings)
    print(*tables(found, options), sep="\n")


if __name__ == "__main__":
    measuring.run(main)
