"""Train one cell by the paper's protocol, so that it may be killed at any moment and started again."""

import time

import keras
import numpy as np

from keras_gevb import datasets
from keras_gevb.diagnostics import alignment_angles
from keras_gevb.experiments import files, representation
from keras_gevb.experiments.cells import Cell
from keras_gevb.experiments.continuing import is_done, last_state
from keras_gevb.experiments.files import ExperimentError
from keras_gevb.experiments.results import Protocol, Result, RunFiles, versions
from keras_gevb.types import Path, Progress

ALIGNMENT_EXAMPLES = 128


def run_cell(
    cell: Cell,
    seed: int,
    out: Path,
    protocol: Protocol | None = None,
    data_dir: Path | None = None,
    keep_state: bool = False,
    progress: Progress | None = None,
    runner: type | None = None,
) -> Result | None:
    """Train one cell with one seed, or go on where it stopped.

    After every epoch weights, optimizer and measurements are written as one file, atomically. The
    order of the data is a function of the seed and the epoch alone. So a run that is killed
    and started again ends with the same result, bit by bit, as one left alone (on CPU, with the
    same versions and `TF_ENABLE_ONEDNN_OPTS`).

    Args:
        cell: A `Cell`.
        seed: Integer: of the initial weights, the feedback and the order of the data.
        out: The output folder.
        protocol: A `Protocol`; the paper's by default.
        data_dir: See `keras_gevb.datasets.load`.
        keep_state: Keep the last state of a finished run, so that it can go on to more epochs.
        progress: A function that is told `(result, share of the epoch done)` as the run goes on.
        runner: The class that trains, a subclass of `Run`, which is the default.

    Returns:
        The `Result`; None if another process is at this run.

    Raises:
        ExperimentError: if a file is corrupt, of another version or protocol, or cannot be written.

    Example:

    >>> cell = CELLS["digits-fc-vectorized-gevb-nonnegative"]
    >>> result = run_cell(cell, seed=0, out="runs", protocol=Protocol(epochs=2, evaluate_every=1))
    >>> [measurement["epoch"] for measurement in result.measurements]
    [0, 1, 2]
    >>> result.last["test_error_percent"] < result.measurements[0]["test_error_percent"]
    True
    """
    protocol = protocol or Protocol()
    run_files = RunFiles(files.open_folder(out, create=True), cell, seed)
    with files.locked(run_files.lock) as ours:
        if not ours:
            return None
        result = run_files.read_result()
        if result is None or not is_done(result, protocol, run_files):
            run = (runner or Run)(run_files, protocol, data_dir, progress or (lambda *_: None))
            result = run.to_the_end()
        if not keep_state:
            run_files.state.unlink(missing_ok=True)
    return result


def load(dataset, data_dir):
    """The data set; where it is missing, an error that ends the command."""
    try:
        return datasets.load(dataset, data_dir)
    except RuntimeError as error:
        raise ExperimentError(str(error)) from error


def alignment(model, x, y):
    """Degrees on the first examples, first hidden layer to last; None where there is no signal."""
    angles = alignment_angles(model, x[:ALIGNMENT_EXAMPLES], y[:ALIGNMENT_EXAMPLES])
    return [_finite(angle, 3) for angle in angles.values()]


def data_order(seed, epoch, samples):
    """The order of the training samples in an epoch, a permutation."""
    return np.random.default_rng([seed, epoch]).permutation(samples)


class Run:
    """One run under way."""

    def __init__(self, run_files, protocol, data_dir, progress):
        self.files, self.protocol, self.progress = run_files, protocol, progress
        cell, seed = run_files.cell, run_files.seed
        self.result, self.seconds = Result(cell, seed, protocol, versions()), []
        left = self._take_up()
        (self.x, self.y), (self.x_test, self.y_test) = load(cell.dataset, data_dir)
        keras.utils.set_random_seed(seed)
        self.model = cell.build()
        self.model.compile(
            keras.optimizers.Adam(protocol.learning_rate, epsilon=protocol.epsilon),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        self.model.optimizer.build(self.model.trainable_variables)
        self.variables = [*self.model.weights, *self.model.optimizer.variables]
        self.initial = self._values()
        self._compile()
        self._set(self.initial if left is None else left)

    def to_the_end(self):
        self._report(0.0)
        if not self.result.measurements:
            self._measure()
        while not self.result.finished:
            # A killed run may have come as far as a lower limit on epochs that is given now.
            if self.result.epochs < self.protocol.epochs:
                self._epoch()
            self._take_stock()
            self._save()
        self._write_results()
        return self.result

    def _epoch(self):
        order = data_order(self.result.seed, self.result.epochs, len(self.x))
        start = time.perf_counter()
        self._fit(order, [_Batches(self._report, len(self.x) / self.protocol.batch_size)])
        self.seconds.append(round(time.perf_counter() - start, 3))
        self.result.epochs += 1

    def _take_stock(self):
        """Measure, if it is time to, and see whether the run is over."""
        if self.protocol.measures(self.result.epochs):
            if self.result.last["epoch"] != self.result.epochs:
                self._measure()
            if self.result.last["train_error_percent"] == 0:
                self.result.finished = "no training error"
        if self.result.epochs >= self.protocol.epochs and not self.result.finished:
            self.result.finished = "last epoch"
        if self.result.finished and self.files.cell.architecture == "conv":
            self._measure_representation()
        self._report(0.0)

    def _fit(self, order, callbacks=()):
        self.model.fit(
            self.x[order],
            self.y[order],
            batch_size=self.protocol.batch_size,
            shuffle=False,
            verbose=0,
            callbacks=list(callbacks),
        )

    def _measure(self):
        train_loss, train_error = self._evaluate(self.x, self.y)
        test_loss, test_error = self._evaluate(self.x_test, self.y_test)
        self.result.measurements.append(
            {
                "epoch": self.result.epochs,
                "train_error_percent": train_error,
                "test_error_percent": test_error,
                "train_loss": train_loss,
                "test_loss": test_loss,
                "alignment_degrees": self._alignment(),
            }
        )

    def _evaluate(self, x, y):
        """The loss, and the error in percent, from a whole number of wrong samples."""
        scores = self._scores(x, y)
        wrong = round((1 - scores["accuracy"]) * len(x))
        return _finite(scores["loss"]), 100 * wrong / len(x)

    def _scores(self, x, y):
        return self.model.evaluate(x, y, batch_size=self.protocol.batch_size, verbose=0, return_dict=True)

    def _alignment(self):
        backprop = self.files.cell.learning_rule == "backprop"
        return None if backprop else alignment(self.model, self.x, self.y)

    def _measure_representation(self):
        images = self.x_test[: representation.IMAGES], self.y_test[: representation.IMAGES]
        after = representation.measure(self.model, *images)
        trained = self._values()
        self._set(self.initial)
        before = representation.measure(self.model, *images)
        self._set(trained)
        representation.write(self.files.representation, before, after, images[1])

    # Compiled steps and state.

    def _compile(self):
        """Meet every shape of batch twice, before anything counts.

        XLA compiles a shape when it meets it again, and compiled arithmetic rounds otherwise. Without
        this the first epoch of a process would differ from the same epoch later in another.
        """
        size = self.protocol.batch_size
        for _ in range(2):
            self._fit(np.arange(min(len(self.x), size + len(self.x) % size)))
            for x, y in ((self.x, self.y), (self.x_test, self.y_test)):
                few = min(len(x), size + len(x) % size)
                self._evaluate(x[:few], y[:few])

    def _take_up(self):
        """Go on from the state that an earlier run left; the values in it, or None where there is none."""
        state = last_state(self.files, self.protocol)
        if state is None:
            return None
        self.result, self.seconds, arrays = state
        self.result.protocol = self.protocol
        if self.result.finished == "last epoch" and self.result.epochs < self.protocol.epochs:
            self.result.finished = None
            # The last measurement may be one that the longer run does not make.
            measured = self.result.measurements
            self.result.measurements = [m for m in measured if self.protocol.measures(m["epoch"])]
        return arrays

    def _save(self):
        self.files.write_state(self.result, self.seconds, self._values())
        self._write_results()

    def _write_results(self):
        self.files.write_timing(self.seconds)
        self.files.write_result(self.result)

    def _values(self):
        return [keras.ops.convert_to_numpy(variable) for variable in self.variables]

    def _set(self, values):
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)

    def _report(self, share):
        self.progress(self.result, share)


class _Batches(keras.callbacks.Callback):
    """Tells how far the epoch is."""

    def __init__(self, report, batches):
        super().__init__()
        self.report, self.batches = report, batches

    def on_train_batch_end(self, batch, logs=None):
        self.report(min(1.0, (batch + 1) / self.batches))


def _finite(number, digits=None):
    """For JSON, which has no NaN."""
    if not np.isfinite(number):
        return None
    return float(number) if digits is None else round(float(number), digits)
