"""A search's chief, and how it knows which of its workers live.

A worker holds a lock on a file of the search's folder while it lives. The operating system
releases the lock when the process ends, however it ends: no heartbeat, no clock, and a slow
worker is never taken for a dead one. Chief and workers share that folder in any case. On a
file system without locks between machines a death goes unnoticed, as in keras-tuner itself.
"""

import contextlib
import time

import keras_tuner
from keras_tuner.src import protos
from keras_tuner.src.distribute import oracle_chief

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class Chief(oracle_chief.OracleServicer):
    """A chief's side of the conversation, that notices when a worker has died."""

    def __init__(self, oracle, is_present):
        super().__init__(oracle)
        self._is_present = is_present
        self._known = set(oracle.tuner_ids)
        self._missing = set()

    def CreateTrial(self, request, context):
        if self._is_present(request.tuner_id):  # else no lock of this worker is seen from here
            self._known.add(request.tuner_id)
        restarted = self.oracle.ongoing_trials.get(request.tuner_id)
        if restarted:
            forget_results(restarted)
        response = super().CreateTrial(request, context)
        status = protos.get_proto().TrialStatus
        if response.trial.status == status.STOPPED and self.oracle.ongoing_trials:
            # Those that still run may yet come back: stay for them.
            self.stop_triggered = False
            self.oracle.tuner_ids.add(request.tuner_id)
            response.trial.status = status.IDLE
        return response

    def reclaim(self):
        """Put the trials of workers that died back into the queue."""
        # Missed twice in a row: whatever a worker sent before it died has been handled by then.
        missing = {tuner_id for tuner_id in self._known if not self._is_present(tuner_id)}
        for tuner_id in missing & self._missing:
            _requeue(self.oracle, tuner_id)
            self._known.discard(tuner_id)
        self._missing = missing


@keras_tuner.synchronized
def _requeue(oracle, tuner_id):
    oracle.tuner_ids.discard(tuner_id)
    trial = oracle.ongoing_trials.pop(tuner_id, None)
    if trial is not None:
        print(f"Worker {tuner_id} died; trial {trial.trial_id} will run again.", flush=True)
        forget_results(trial)
        oracle._retry_queue.append(trial.trial_id)
        oracle.save()


def forget_results(trial):
    """Let a trial that is to run again be scored by what it will do, not by what it left."""
    trial.metrics = type(trial.metrics)()


def hold(path, patience=5.0):
    """Lock a file until the returned object is closed, or this process ends.

    Where files cannot be locked, nothing is.
    """
    if fcntl is None or not path.parent.is_dir():
        return contextlib.ExitStack()
    file = path.open("a")
    until = time.monotonic() + patience  # a chief that looks holds the lock for a moment
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() > until:
                file.close()
                raise RuntimeError(
                    "Another process searches in this folder under the same name. Give each worker "
                    f"its own KERASTUNER_TUNER_ID, and each search its own folder. Received: {path}"
                ) from None
            time.sleep(0.05)
        except OSError:
            return file


def is_held(path):
    """Whether a living process holds the lock of a file."""
    if fcntl is None or not path.exists():
        return False
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False
