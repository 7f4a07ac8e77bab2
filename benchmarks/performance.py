"""The paper's networks: time of a training step, share of the machine's limit, peak memory.

    python benchmarks/performance.py
    python benchmarks/performance.py mnist-fc mnist-conv --parts steps --learners GEVB autodiff

One vectorized nonnegative network by every learner, and its conventional twin, in four parts:

    steps      time of a step through `fit`, in interleaved repeats; the machine's matrix-product peak and
               memory bandwidth in the same minutes; the counted operations and bytes
    memory     peak memory, each learner in a process of its own
    fit        what `fit` takes more than the bare compiled step (TensorFlow)
    pipeline   steps per second with data in memory and streamed from TensorFlow Datasets

Every measurement goes to performance.json in --out as it ends; started again, the same command does
what is missing. At the end it writes performance.md and pictures beside it.
"""

import argparse
import dataclasses
import os
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import contestants
import counting
import keras
import measuring
import memory
import performance_report
import rich.progress

NETWORKS = [*contestants.NETWORKS, *contestants.SMALL_NETWORKS]
PIPELINED = ("mnist-fc", "mnist-conv", "cifar10-fc", "cifar10-conv")


def main(arguments=None):
    options = _options(arguments)
    if options.probe:
        memory.answer(options.probe, memory_of)
    results = measuring.Results(options.out / "performance.json", measuring.machine())
    jobs = [job for network in NETWORKS for part in PARTS.values() for job in part(network, options)]
    wanted = [job for job in jobs if job.part in options.parts and job.network in options.networks]
    missing = [job for job in wanted if not job.why_not and results.get(*job.key) is None]
    with rich.progress.Progress() as bars:
        whole = bars.add_task("all measurements", total=len(missing))
        for job in missing:
            task = bars.add_task(f"{job.part}, {job.name}", total=job.turns)
            results.put(*job.key, job.measure(lambda task=task: bars.advance(task)))
            keras.backend.clear_session()
            bars.remove_task(task)
            bars.advance(whole)
    measured = {part: {} for part in PARTS}
    for job in jobs:
        found = results.get(*job.key)
        if found is not None:
            measured[job.part][job.name] = found
    left_out = list(dict.fromkeys(job.why_not for job in wanted if job.why_not))
    print(performance_report.write(options.out, measured, options, left_out))


@dataclasses.dataclass
class Job:
    """One measurement.

    Attributes:
        part, network: What of which.
        name, settings: By which, and the part, its result is found again.
        turns: How often `measure` calls the function that it is given.
        measure: Returns what was measured, for JSON.
        why_not: Why it cannot be measured here, if so.
    """

    part: str
    network: str
    name: str
    settings: dict
    turns: int
    measure: Callable
    why_not: str | None = None

    @property
    def key(self):
        return self.part, self.name, self.settings


def steps_jobs(network, options):
    settings = _settings(options, "batch_size", "steps", "repeats", "learners")
    turns = len(options.learners) * options.repeats
    yield Job("steps", network, network, settings, turns, lambda advance: steps_of(network, options, advance))


def steps_of(network, options, advance):
    """Milliseconds of a step, limits, operations and bytes, by learner."""
    models = {learner: _model(learner, network) for learner in options.learners}
    data = contestants.random_images(models[options.learners[0]], options.batch_size * (options.steps + 1))
    before = measuring.limits()
    times = measuring.interleaved_steps(models, *data, options.batch_size, options.repeats, advance)
    after = measuring.limits()

    def count(function):
        return {learner: function(model, learner, options.batch_size) for learner, model in models.items()}

    return {
        "limits": {name: round((before[name] + after[name]) / 2, 1) for name in before},
        "milliseconds": {learner: measuring.spread(t) for learner, t in times.items()},
        "operations": count(counting.operations),
        "bytes": count(counting.unavoidable_bytes),
    }


def memory_jobs(network, options):
    settings = _settings(options, "batch_size")
    for learner in options.learners:
        request = {"network": network, "learner": learner, **settings}

        def measure(advance, request=request):
            return memory.in_fresh_process(__file__, request)

        yield Job("memory", network, f"{network} {learner}", settings, 1, measure, memory.why_not())


def memory_of(network, learner, batch_size):
    model = _model(learner, network)
    return memory.measure(model, *contestants.random_images(model, batch_size), batch_size)


def fit_jobs(network, options):
    why_not = None
    if keras.backend.backend() != "tensorflow":
        why_not = "fit overhead: the bare step is called as Keras's TensorFlow trainer calls it"

    def measure(advance):
        from feeding import fit_overhead

        model = _model("GEVB", network)
        data = contestants.random_images(model, options.batch_size * (options.steps + 1))
        return fit_overhead(model, *data, options.batch_size, options.repeats, advance)

    settings = _settings(options, "batch_size", "steps", "repeats")
    yield Job("fit", network, network, settings, options.repeats, measure, why_not)


def pipeline_jobs(network, options):
    if network not in PIPELINED:
        return
    dataset = network.split("-")[0]
    why_not = None
    if keras.backend.backend() != "tensorflow":
        why_not = "input pipeline: it is measured with TensorFlow"
    elif not (options.data_dir / dataset).is_dir():
        why_not = f"input pipeline: {dataset} is not prepared in '{options.data_dir}'"

    def measure(advance):
        from feeding import pipeline

        sizes = options.batch_size, options.steps, options.repeats
        return pipeline(_model("GEVB", network), dataset, options.data_dir, *sizes, advance)

    settings = _settings(options, "batch_size", "steps", "repeats")
    yield Job("pipeline", network, network, settings, 3 * options.repeats, measure, why_not)


PARTS = {"steps": steps_jobs, "memory": memory_jobs, "fit": fit_jobs, "pipeline": pipeline_jobs}


def _model(learner, network):
    return contestants.build(learner, network, keras.optimizers.Adam(3e-4))


def _settings(options, *names):
    return {name: getattr(options, name) for name in names}


def _options(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "networks",
        nargs="*",
        default=contestants.NETWORKS,
        metavar="NETWORK",
        help=f"of {', '.join(NETWORKS)}; default: those of MNIST and CIFAR-10",
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    measuring.add_learners(parser, contestants.LEARNERS)
    measuring.add_repeats(parser, steps=10, repeats=4)
    parser.add_argument("--batch-size", type=measuring.positive, default=128, help="default %(default)s")
    measuring.add_folders(parser, out="runs/performance")
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.networks) - set(NETWORKS))
    if unknown:
        parser.error(f"unknown networks {unknown}; choose from {NETWORKS}")
    return options


if __name__ == "__main__":
    measuring.run(main)
