"""How step time and peak memory grow with depth, width, K and batch.

    python benchmarks/growth.py
    python benchmarks/growth.py depth --depths 8 64

Networks of equal layers on 512 inputs, along one axis at a time; the others at depth 3, 512 units,
K = 10, batches of 256. XLA compiles every step. Step times of a point are measured in one process, the
learners in interleaved repeats; peak memory of steps in a process for each learner (how: memory.py).

Every point goes to growth.json in --out as it ends; started again, the same command does what is
missing. At the end it writes growth.md and the picture, growth.png and growth.svg.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import contestants
import growth_report
import keras
import measuring
import memory
import numpy as np
import rich.progress

import keras_gevb
from keras_gevb import layers

INPUTS = 512
BASE = {"depth": 3, "width": 512, "K": 10, "batch": 256}
AXES = {
    "depth": [2, 4, 8, 16, 32, 64],
    "width": [256, 512, 1024, 2048, 4096, 8192],
    "K": [10, 30, 100, 300, 1000],
    "batch": [32, 64, 128, 256, 512, 1024],
}
PARTS = ["times", "memory"]
LEARNERS = ["GEVB", "GEVB, low memory", "Backprop rule", "autodiff, XLA"]


def main(arguments=None):
    options = _options(arguments)
    if options.probe:
        memory.answer(options.probe, probe)
    results = measuring.Results(options.out / "growth.json", measuring.machine())
    points = {axis: [{**BASE, axis: value} for value in getattr(options, axis)] for axis in AXES}
    wanted = [key for axis in options.axes for sizes in points[axis] for key in _keys(sizes, options)]
    for key in rich.progress.track(wanted, "growth"):
        found = results.get(*key)
        limit = options.limit_seconds
        if found is None or ("left out" in found and found["after"] < limit):
            results.put(*key, _measured(*key, limit))
    found = {
        axis: [(sizes[axis], _found(sizes, options, results)) for sizes in of_axis]
        for axis, of_axis in points.items()
    }
    found = {axis: [(value, point) for value, point in found[axis] if point] for axis in AXES}
    if "memory" in options.parts and memory.why_not():
        print(f"Left out: {memory.why_not()}.")
    print(growth_report.write(options.out, found, options.learners))


def _keys(sizes, options):
    """Part, name and settings of what is measured at a point."""
    name = ", ".join(f"{axis} {value}" for axis, value in sizes.items())
    common = {**sizes, "optimizer": options.optimizer}
    timing = {"learners": options.learners, "steps": options.steps, "repeats": options.repeats}
    if "times" in options.parts:
        yield "times", name, {**common, **timing}
    if "memory" in options.parts and memory.why_not() is None:
        for learner in options.learners:
            yield "memory", f"{name}, {learner}", {**common, "learners": [learner]}


def _measured(part, name, settings, limit_seconds):
    environment = memory.WITHOUT_ARENA if part == "memory" else None
    measured = memory.in_fresh_process(__file__, settings, limit_seconds, environment)
    return {**measured, "after": limit_seconds} if "left out" in measured else measured


def _found(sizes, options, results):
    """What was measured at a point: "times" and "memory" by learner, words where left out; "gflops"."""
    found = {"times": {}, "memory": {}}
    for part, name, settings in _keys(sizes, options):
        measured = results.get(part, name, settings)
        if measured and "gflops" in measured:
            found["gflops"] = measured["gflops"]
        for learner in settings["learners"] if measured else ():
            if "left out" in measured:
                found[part][learner] = measured["left out"]
            elif part == "times":
                found[part][learner] = measured["milliseconds"][learner]["median"]
            else:
                found[part][learner] = measured["steps"] - measured["between steps"]
    return found if any(found.values()) else None


def probe(learners, depth, width, K, batch, optimizer, steps=None, repeats=None):
    """Step times of the learners, or without `steps` the peak memory of the one."""

    def network(rule):
        # Half of the units are open, so each adds up about as much as one holds: however deep the network,
        # neither its activity nor g overflows.
        even = keras.initializers.RandomUniform(0.0, 4 / width)
        hidden = [layers.VectorDense(width, kernel_initializer=even) for _ in range(depth - 1)]
        first = layers.VectorDense(width, vector_dim=K)
        stack = [keras.Input((INPUTS,)), first, *hidden, layers.VectorReadout()]
        return keras_gevb.Sequential(stack, learning_rule=rule)

    def model(learner):
        # So slow that the network stays what it is, however deep.
        slow = {"class_name": optimizer, "config": {"learning_rate": 1e-9}}
        return contestants.build(learner, network, keras.optimizers.get(slow))

    generator = np.random.default_rng(0)
    samples = batch * (steps + 1 if steps else 1)
    x = generator.normal(size=(samples, INPUTS)).astype("float32")
    y = generator.integers(0, K, samples)
    if not steps:
        (learner,) = learners
        return memory.measure(model(learner), x, y, batch)
    models = {learner: model(learner) for learner in learners}
    times = measuring.interleaved_steps(models, x, y, batch, repeats, lambda: None)
    spreads = {learner: measuring.spread(t) for learner, t in times.items()}
    return {"gflops": measuring.matrix_product_peak(), "milliseconds": spreads}


def _options(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "axes", nargs="*", default=list(AXES), metavar="AXIS", help=f"of {', '.join(AXES)}; default: all"
    )
    for flag, axis in zip(("--depths", "--widths", "--ks", "--batches"), AXES):
        parser.add_argument(
            flag,
            dest=axis,
            nargs="+",
            type=measuring.positive,
            default=AXES[axis],
            metavar="N",
            help=f"points along {axis}; default {' '.join(map(str, AXES[axis]))}",
        )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="measure and report these; default: both"
    )
    measuring.add_learners(parser, LEARNERS)
    measuring.add_repeats(parser, steps=6, repeats=2)
    parser.add_argument("--optimizer", choices=["sgd", "adam"], default="sgd", help="default %(default)s")
    parser.add_argument(
        "--limit-seconds",
        type=measuring.positive,
        default=1200,
        metavar="SECONDS",
        help="a process that takes longer is stopped, and the report says so; default %(default)s",
    )
    measuring.add_out(parser, out="runs/growth")
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.axes) - set(AXES))
    if unknown:
        parser.error(f"unknown axes {unknown}; choose from {list(AXES)}")
    return options


if __name__ == "__main__":
    measuring.run(main)
