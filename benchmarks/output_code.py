"""What few numbers for many classes save, and what they cost: OutputCode against as many outputs as classes.

    python benchmarks/output_code.py
    python benchmarks/output_code.py cost --ks 32 1000

cost: a GEVB step on 1000 classes with K numbers and a code, against K = 1000 without one: three layers of
512 units on 512 inputs, batches of 256, plain SGD. Time and peak memory, each in a process of its own
(how: memory.py).

accuracy: two of the digits side by side are one of 100 classes. Test error after training against K, by
GEVB and by the exact gradient, of two layers of 256 units.

Every point goes to output_code.json in --out as it ends; started again, the same command does what is
missing. At the end it writes output_code.md.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import measuring
import memory
import numpy as np
import rich.progress

import keras_gevb
from keras_gevb import datasets, layers

CLASSES = {"cost": 1000, "accuracy": 100}
KS = {"cost": [32, 1000], "accuracy": [8, 16, 32, 64, 100]}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def main(arguments=None):
    options = _options(arguments)
    if options.probe:
        memory.answer(options.probe, probe)
    results = measuring.Results(options.out / "output_code.json", measuring.machine())
    wanted = [key for part in options.parts for key in _keys(part, options)]
    for key in rich.progress.track(wanted, "output code"):
        if results.get(*key) is None:
            results.put(*key, memory.in_fresh_process(__file__, key[-1], environment=memory.WITHOUT_ARENA))
    text = "\n".join(_table(part, options, results) for part in options.parts)
    (options.out / "output_code.md").write_text(text)
    print(text)


def _keys(part, options):
    for k in options.ks or KS[part]:
        for rule in ("gevb",) if part == "cost" else ("gevb", "backprop"):
            settings = {"part": part, "k": k, "rule": rule, "size": getattr(options, part)}
            yield part, f"K = {k}, {rule}", settings


def network(inputs, widths, k, classes, rule):
    """Vector units of K numbers; a code behind the readout where there are more classes."""
    first, *later = widths
    return keras_gevb.Sequential(
        [
            keras.Input((inputs,)),
            layers.VectorDense(first, vector_dim=k),
            *map(layers.VectorDense, later),
            layers.VectorReadout(),
            *([layers.OutputCode(classes, seed=0)] if k < classes else []),
        ],
        learning_rule=rule,
    )


def probe(part, k, rule, size):
    """One point: of the cost `size` steps, of the accuracy `size` epochs."""
    keras.utils.set_random_seed(0)
    return cost(k, rule, size) if part == "cost" else accuracy(k, rule, size)


def cost(k, rule, steps, width=512, batch=256):
    model = network(width, [width] * 3, k, CLASSES["cost"], rule)
    model.compile(keras.optimizers.SGD(1e-9), LOSS)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(batch, width)).astype("float32")
    y = generator.integers(0, CLASSES["cost"], batch)
    found = memory.measure(model, x, y, batch, steps=2) if memory.why_not() is None else {}
    model.fit(x, y, batch_size=batch, verbose=0)
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        model.train_on_batch(x, y)
        times.append(1e3 * (time.perf_counter() - start))
    return {**found, "milliseconds": measuring.spread(times)}


def pairs(count, train):
    """Images of two digits side by side, scaled to [-1, 1], and the number that they make."""
    x, y = datasets.load("digits")[0 if train else 1]
    one, other = np.random.default_rng(int(train)).integers(0, len(x), (2, count))
    both = np.concatenate([x[one], x[other]], axis=2).reshape(count, -1)
    return (both / 8.0 - 1).astype("float32"), 10 * y[one] + y[other]


def accuracy(k, rule, epochs, width=256):
    (x, y), test = pairs(8000, train=True), pairs(2000, train=False)
    model = network(x.shape[1], [width] * 2, k, CLASSES["accuracy"], rule)
    model.compile(keras.optimizers.Adam(1e-3), LOSS, metrics=["accuracy"])
    model.fit(x[:256], y[:256], batch_size=64, verbose=0)  # compiles
    start = time.perf_counter()
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0)
    seconds = time.perf_counter() - start
    correct = model.evaluate(*test, verbose=0, return_dict=True)["accuracy"]
    return {"test error": round(100 * (1 - correct), 2), "seconds": round(seconds, 1)}


def _table(part, options, results):
    found = [(key[-1], results.get(*key)) for key in _keys(part, options)]
    found = [(settings, point) for settings, point in found if point]
    if part == "cost":
        head = "| K | weights (MB) | memory of a step (MB) | step (ms) |\n|---|---|---|---|"
        rows = [
            f"| {s['k']} | {p.get('weights', 0):.0f} | {p.get('steps', 0) - p.get('between steps', 0):.0f} "
            f"| {p['milliseconds']['median']:.0f} |"
            for s, p in found
        ]
    else:
        head = "| K | rule | test error (%) | seconds |\n|---|---|---|---|"
        rows = [f"| {s['k']} | {s['rule']} | {p['test error']:.1f} | {p['seconds']:.0f} |" for s, p in found]
    return "\n".join([f"{CLASSES[part]} classes, {part}\n", head, *rows, ""])


def _options(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="cost or accuracy; default: both")
    parser.add_argument(
        "--ks", nargs="+", type=measuring.positive, metavar="K", help="in place of each part's"
    )
    parser.add_argument("--cost", type=measuring.positive, default=6, metavar="STEPS", help="default 6")
    parser.add_argument("--accuracy", type=measuring.positive, default=8, metavar="EPOCHS", help="default 8")
    measuring.add_out(parser, out="runs/output_code")
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.parts) - set(CLASSES))
    if unknown:
        parser.error(f"unknown parts {unknown}; choose from {list(CLASSES)}")
    options.parts = options.parts or list(CLASSES)
    return options


if __name__ == "__main__":
    measuring.run(main)
