"""Time of a training step through `fit`, of each learning rule beside automatic differentiation.

    python benchmarks/step_time.py mnist-fc mnist-conv --out step_time.json

Repeats are interleaved, so that a machine whose speed drifts hits all alike. Beside the
times stand the machine's own limits, measured in the same run.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import platform
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import rich.console
import rich.progress
import rich.table
import tensorflow as tf

import keras_gevb

NETWORKS = [f"{d}-{a}" for d in ("mnist", "cifar10") for a in ("fc", "conv", "lc")]


def matrix_product_peak(size=3000, repeats=8):
    """Billions of floating-point operations a second of a large matrix product."""
    a, b = (tf.random.normal((size, size)) for _ in range(2))
    product = tf.function(tf.matmul)
    product(a, b)
    return 2 * size**3 / min(_seconds(lambda: product(a, b).numpy()) for _ in range(repeats)) / 1e9


def memory_bandwidth(size=30_000_000, repeats=8):
    """Billions of bytes a second, read and written, when every core copies memory."""
    cores = os.cpu_count()
    pairs = [(np.zeros(size, "float32"), np.ones(size, "float32")) for _ in range(cores)]
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:

        def copy():
            list(pool.map(lambda pair: np.copyto(*pair), pairs))

        copy()
        return 8 * size * cores / min(_seconds(copy) for _ in range(repeats)) / 1e9


def _seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


LEARNERS = ["GEVB", "Backprop rule", "autodiff", "autodiff, XLA"]


def contestants(network, learners):
    """Compiled models on the same network, by label."""
    dataset, architecture = network.split("-")

    def compiled(model, jit_compile="auto"):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(3e-4), loss, metrics=["accuracy"], jit_compile=jit_compile)
        return model

    def network_of(rule):
        return keras_gevb.zoo.build(dataset, architecture, learning_rule=rule)

    def stock():
        vnn = network_of("backprop")
        return keras.Sequential([keras.Input(vnn.input_shape[1:]), *vnn.layers])

    build = {
        "GEVB": lambda: compiled(network_of("gevb")),
        "Backprop rule": lambda: compiled(network_of("backprop")),
        "autodiff": lambda: compiled(stock()),
        "autodiff, XLA": lambda: compiled(stock(), jit_compile=True),
    }
    return {label: build[label]() for label in learners}


class StepClock(keras.callbacks.Callback):
    """The time between the ends of successive batches."""

    def on_train_begin(self, logs=None):
        self._ends = []

    def on_train_batch_end(self, batch, logs=None):
        self._ends.append(time.perf_counter())

    @property
    def milliseconds(self):
        return 1e3 * np.diff(self._ends)


def measure(network, options, advance):
    models = contestants(network, options.learners)
    batch_size = options.batch_size
    shape = next(iter(models.values())).input_shape[1:]
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (batch_size * (options.steps + 1), *shape), dtype="uint8")
    y = generator.integers(0, 10, len(x))
    times = {label: [] for label in models}
    warm_up = 3 * batch_size
    for model in models.values():
        model.fit(x[:warm_up], y[:warm_up], batch_size=batch_size, verbose=0)
    for _ in range(options.repeats):
        for label, model in models.items():
            clock = StepClock()
            model.fit(x, y, batch_size=batch_size, verbose=0, callbacks=[clock])
            times[label].extend(clock.milliseconds)
            advance()
    return {
        label: dict(zip(("p10", "median", "p90"), np.quantile(t, (0.1, 0.5, 0.9)).round(1)))
        for label, t in times.items()
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "networks", nargs="*", default=NETWORKS, help=f"of {', '.join(NETWORKS)} (default: all)"
    )
    parser.add_argument("--steps", type=int, default=10, help="timed steps of a repeat (default: 10)")
    parser.add_argument("--repeats", type=int, default=4, help="interleaved repeats (default: 4)")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=LEARNERS, help="which to time")
    parser.add_argument("--out", type=pathlib.Path, help="write the figures here as JSON")
    options = parser.parse_args()
    unknown = sorted(set(options.networks) - set(NETWORKS))
    if unknown:
        parser.error(f"unknown networks {unknown}; choose from {NETWORKS}")

    results = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
        "batch_size": options.batch_size,
        "networks": {},
    }
    console = rich.console.Console()
    with rich.progress.Progress(console=console) as progress:
        for network in options.networks:
            task = progress.add_task(network, total=len(options.learners) * options.repeats)
            limits = {"gflops": matrix_product_peak(), "gbytes": memory_bandwidth()}
            steps = measure(network, options, lambda t=task: progress.advance(t))
            limits = {
                "gflops": round((limits["gflops"] + matrix_product_peak()) / 2),
                "gbytes": round((limits["gbytes"] + memory_bandwidth()) / 2),
            }
            results["networks"][network] = {"limits": limits, "milliseconds": steps}
            keras.backend.clear_session()
            if options.out:
                options.out.write_text(json.dumps(results, indent=1))

    table = rich.table.Table(
        title=f"ms per step, batch {options.batch_size}: median (10th to 90th percentile)"
    )
    for heading in ("network", "GFLOP/s", "GB/s", *options.learners):
        table.add_column(heading, justify="right")
    for network, result in results["networks"].items():
        cells = [
            f"{t['median']:.0f} ({t['p10']:.0f} to {t['p90']:.0f})" for t in result["milliseconds"].values()
        ]
        table.add_row(network, *map(str, result["limits"].values()), *cells)
    console.print(table)


if __name__ == "__main__":
    main()
