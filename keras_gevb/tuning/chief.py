"""A search's chief, and how it knows which of its workers live.

A worker holds a lock on a file of the search's folder while it lives. The operating system
releases the lock when the process ends, however it ends: no heartbeat, no clock, and a slow
worker is never taken for a dead one. Chief and workers share that folder in any case. On a
file system without locks between machines a death goes unnoticed, as in keras-tuner itself.
"""

import contextlib
import os
import time

import keras_tuner

from keras_gevb.tuning import private

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def is_chief():
    """Whether this process hands out trials: keras-tuner's environment variables say so."""
    return "KERASTUNER_ORACLE_IP" in os.environ and "chief" in os.environ.get("KERASTUNER_TUNER_ID", "")


def is_worker():
    """Whether this process takes its trials from a chief."""
    return "KERASTUNER_ORACLE_IP" in os.environ and not is_chief()


class Chief(private.OracleServicer):
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
        stopped = response.trial.status == private.message_status("STOPPED")
        if stopped and self.oracle.ongoing_trials:
            # Those that still run may yet come back: stay for them.
            self.stop_triggered = False
            self.oracle.tuner_ids.add(request.tuner_id)
            response.trial.status = private.message_status("IDLE")
        return response

    def serve(self, poll_seconds=1.0):
        """Answer the workers until all trials have ended and every worker knows it."""
        address = f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
        server = private.start_server(self, address)
        while not (self.stop_triggered and _nothing_left(self.oracle)):
            time.sleep(poll_seconds)
            self.reclaim()
        server.stop(grace=poll_seconds).wait()

    def reclaim(self):
        """Put the trials of workers that died back into the queue."""
        # Missed twice in a row: whatever a worker sent before it died has been handled by then.
        missing = {tuner_id for tuner_id in self._known if not self._is_present(tuner_id)}
        for tuner_id in missing & self._missing:
            _requeue(self.oracle, tuner_id)
            self._known.discard(tuner_id)
        self._missing = missing


@keras_tuner.synchronized
def _nothing_left(oracle):
    return not oracle.ongoing_trials and not oracle.tuner_ids


@keras_tuner.synchronized
def _requeue(oracle, tuner_id):
    oracle.tuner_ids.discard(tuner_id)
    trial = oracle.ongoing_trials.pop(tuner_id, None)
    if trial is not None:
        print(f"Worker {tuner_id} died; trial {trial.trial_id} will run again.", flush=True)
        forget_results(trial)
        state = oracle.get_state()
        oracle.set_state({**state, "retry_queue": [*state["retry_queue"], trial.trial_id]})
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
