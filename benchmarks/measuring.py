"""What the benchmarks share: a clock for `fit`, the machine's limits, results written as they come."""

import concurrent.futures
import importlib
import os
import pathlib
import platform
import sys
import time

import keras
import numpy as np
from keras import ops

from keras_gevb.cli.kinds import positive
from keras_gevb.experiments import ExperimentError, files


class StepClock(keras.callbacks.Callback):
    """The times at which the steps of a `fit` are done.

    A step is done when its loss can be read. Keras reads it in another thread, since this callback is
    `async_safe`: so `fit` runs as it does without callbacks, also on a GPU, where steps are queued.
    """

    async_safe = True

    def on_train_begin(self, logs=None):
        self._ends = []

    def on_train_batch_end(self, batch, logs=None):
        self._ends.append(time.perf_counter())

    @property
    def milliseconds(self):
        """Of each step but the first, which waits for the data."""
        return 1e3 * np.diff(sorted(self._ends))


# JAX returns before a step is done and runs ahead, so that steps are seen to end in bursts.
QUEUED = keras.backend.backend() == "jax"


def interleaved_steps(models, x, y, batch_size, repeats, advance, queued=QUEUED, compiled=lambda: None):
    """Milliseconds of each step of each model through `fit`, in turns, so that a drifting machine hits all.

    Args:
        models: A dict of compiled models.
        x, y: Data of as many batches as a repeat has steps, and one more.
        batch_size: Samples in a batch.
        repeats: How often each model takes its turn.
        advance: A function that is called after each turn.
        queued: Whether steps are queued: then only their mean over a turn is a time.
        compiled: A function that is called when all steps are compiled, before the first is timed.
    """
    warm_up = 3 * batch_size
    for model in models.values():
        model.fit(x[:warm_up], y[:warm_up], batch_size=batch_size, verbose=0)
    compiled()
    times = {name: [] for name in models}
    for _ in range(repeats):
        for name, model in models.items():
            clock = StepClock()
            model.fit(x, y, batch_size=batch_size, verbose=0, callbacks=[clock])
            times[name].extend([clock.milliseconds.mean()] if queued else clock.milliseconds)
            advance()
    return times


class Turns:
    """Processes that share a device: they compile side by side, and then each measures alone.

    Args:
        path: Of a file that they have in common; None where there is one process only. Its lock dies
            with a process.
    """

    def __init__(self, path):
        self._file = path and open(path, "w")  # noqa: SIM115 (held as long as the process)

    def compile(self):
        """Wait until no process measures."""
        self._lock("LOCK_SH")

    def measure(self):
        """Wait until no other process compiles or measures."""
        self._lock("LOCK_EX")

    def _lock(self, kind):
        if self._file:
            import fcntl  # not there on Windows

            fcntl.flock(self._file, getattr(fcntl, kind))


def spread(values):
    """The median, and the 10th and 90th percentile."""
    quantiles = np.quantile(values, (0.1, 0.5, 0.9)).round(3).tolist()
    return dict(zip(("p10", "median", "p90"), quantiles))


def matrix_product_peak(size=3000, repeats=8):
    """Billions of floating-point operations a second of a large matrix product, by the Keras backend."""
    a, b = (keras.random.normal((size, size)) for _ in range(2))

    def product():
        ops.convert_to_numpy(ops.matmul(a, b)[0, 0])  # reading one entry waits for all

    return 2 * size**3 / _fastest(product, repeats) / 1e9


def memory_bandwidth(size=30_000_000, repeats=8):
    """Billions of bytes a second, read and written, when every core copies memory."""
    cores = os.cpu_count()
    pairs = [(np.zeros(size, "float32"), np.ones(size, "float32")) for _ in range(cores)]
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:

        def copy():
            list(pool.map(lambda pair: np.copyto(*pair), pairs))

        return 8 * size * cores / _fastest(copy, repeats) / 1e9


def limits():
    """What the processor can do now."""
    return {"gflops": matrix_product_peak(), "gbytes": memory_bandwidth()}


def _fastest(function, repeats):
    """Seconds of the fastest call, after one to warm up."""
    function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


class Results:
    """Measurements by part and name, in a JSON file that is rewritten, atomically, with each of them.

    Args:
        path: The file; what stands there is gone on with.
        machine: What `machine()` returns: results of two machines do not mix.
    """

    def __init__(self, path, machine):
        self.path = pathlib.Path(path)
        self._content = {"schema": files.SCHEMA, "machine": machine}
        if self.path.exists():
            self._content = files.read_json(self.path)
        if self._content["machine"] != machine:
            raise ExperimentError(
                f"'{self.path}' was measured on {self._content['machine']}, but this is {machine}. Give "
                "another --out folder."
            )

    def get(self, part, name, settings):
        """What was measured with the same settings, or None."""
        entry = self._content.get(part, {}).get(name)
        return entry["measured"] if entry and entry["settings"] == settings else None

    def put(self, part, name, settings, measured):
        entry = {"settings": settings, "measured": measured}
        if self.path.exists():  # another process may have added to it
            self._content = files.read_json(self.path)
        self._content.setdefault(part, {})[name] = entry
        files.write_json(self.path, self._content)


def machine():
    """What times depend on."""
    backend = keras.backend.backend()
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "keras": keras.__version__,
        backend: importlib.import_module(backend).__version__,
    }


def _processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def add_learners(parser, learners):
    """The option on what is compared."""
    parser.add_argument(
        "--learners",
        nargs="+",
        choices=learners,
        default=learners,
        metavar="LEARNER",
        help=f"of {', '.join(map(repr, learners))}; default: all",
    )


def add_repeats(parser, steps, repeats):
    """The options on how often a step is timed."""
    parser.add_argument("--steps", type=positive, default=steps, help="of a repeat; default %(default)s")
    parser.add_argument("--repeats", type=positive, default=repeats, help="interleaved; default %(default)s")


def add_folders(parser, out):
    """The options on where data and results are."""
    parser.add_argument(
        "--data-dir",
        type=lambda text: pathlib.Path(text).expanduser(),
        default=os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"),
        metavar="DIR",
        help="folder with the data sets prepared by TensorFlow Datasets; default %(default)s",
    )
    add_out(parser, out)


def add_out(parser, out):
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=out,
        metavar="DIR",
        help="folder of the results; default %(default)s",
    )


def run(main):
    """Run a script's `main`, and end it by a message where a user can mend what is wrong."""
    try:
        main()
    except ExperimentError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command goes on where it was.")
