"""keras-tuner's tuners, made to survive the death of any of their processes.

keras-tuner 1.4.8 keeps finished trials over a restart, but a grid search ends there, the
last trial of a search with a chief runs again, and the trial of a worker that died is lost
while its chief waits for ever. Here a trial ends exactly once:

- The chief knows which workers live, and hands the trial of a dead one to another
  (`keras_gevb.tuning.chief`).
- Which trials remain after a restart is read from the trials' own files.
"""

import functools
import json
import os
import pathlib
import time
from concurrent import futures

import grpc
import keras_tuner
from keras_tuner.src import protos
from keras_tuner.src.distribute import oracle_chief
from keras_tuner.src.distribute import utils as roles
from keras_tuner.src.engine.trial import TrialStatus

from keras_gevb.tuning.chief import Chief, forget_results, hold, is_held

_ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)
_POLL_SECONDS = 1.0
_ANOTHER_SEED = 2**20


class _Lasting(keras_tuner.Tuner):
    """What the tuners below add to those of keras-tuner."""

    def __init__(self, *args, seed=None, max_consecutive_failed_trials=None, **kwargs):
        # keras-tuner takes 0 for no seed, and ends a search at the third failure in a row.
        kwargs["max_consecutive_failed_trials"] = max_consecutive_failed_trials
        super().__init__(*args, seed=_ANOTHER_SEED if seed == 0 else seed, **kwargs)

    @property
    def is_worker(self):
        """Whether this process takes its trials from a chief."""
        return self._is_worker()

    @property
    def trials(self):
        """All trials so far, in the order of their start. A worker does not know them."""
        return [self.oracle.trials[trial_id] for trial_id in sorted(self.oracle.trials, key=int)]

    def search(self, *fit_args, **fit_kwargs):
        """Search, or on a chief: hand out trials to workers until all have ended.

        Args:
            *fit_args, **fit_kwargs: What `fit` of every trial is given.

        Raises:
            RuntimeError: if no trial completed.
        """
        if roles.is_chief_oracle():
            self.oracle.verbose = fit_kwargs.get("verbose", "auto")
            self.save()
            if self.remaining_trials != 0 or self._unended():
                self._serve()
        else:
            with hold(self._presence_file(self.tuner_id)):
                super().search(*fit_args, **fit_kwargs)
        if self.is_worker:
            return
        if not any(trial.status == TrialStatus.COMPLETED for trial in self.trials):
            messages = [trial.message for trial in self.trials if trial.message]
            reason = messages[0] if messages else "no message; see the output of the workers"
            raise RuntimeError(f"No trial completed. Received, from the first: {reason}")

    # One process.

    def on_search_begin(self):
        super().on_search_begin()
        self._idle = False

    def pre_create_trial(self):
        super().pre_create_trial()
        if self._idle:
            time.sleep(_POLL_SECONDS)
        self._idle = True

    def on_trial_begin(self, trial):
        super().on_trial_begin(trial)
        self._idle = False

    def on_trial_end(self, trial):
        if trial.message:
            print(f"Trial {trial.trial_id} failed: {trial.message.strip().splitlines()[-1]}")
        super().on_trial_end(trial)

    def reload(self):
        super().reload()
        if self.is_worker:
            return
        oracle = self.oracle
        state = json.loads(pathlib.Path(oracle._get_oracle_fname()).read_text())
        if roles.is_chief_oracle():
            # A chief that comes back finds its workers at their trials.
            oracle.ongoing_trials = {
                tuner_id: oracle.trials[trial_id]
                for tuner_id, trial_id in state["ongoing_trials"].items()
                if oracle.trials[trial_id].status not in _ENDED and self._is_present(tuner_id)
            }
            oracle.tuner_ids = set(oracle.ongoing_trials)
        running = {trial.trial_id for trial in oracle.ongoing_trials.values()}
        waiting = [trial for trial in self._unended() if trial.trial_id not in running]
        for trial in waiting:
            oracle._record_values(trial)
            forget_results(trial)
        oracle._retry_queue = [trial.trial_id for trial in reversed(waiting)]

    def _unended(self):
        return [trial for trial in self.trials if trial.status not in _ENDED]

    def _get_tuner_fname(self):
        # One file for a process of its own and for a chief: each continues what the other began.
        if self.is_worker:
            return super()._get_tuner_fname()
        return os.path.join(self.project_dir, "tuner.json")

    # Chief and workers.

    def _presence_file(self, tuner_id):
        return pathlib.Path(self.project_dir) / f"{tuner_id}.lock"

    def _is_present(self, tuner_id):
        return is_held(self._presence_file(tuner_id))

    def _serve(self):
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
        chief = Chief(self.oracle, self._is_present)
        protos.get_service_grpc().add_OracleServicer_to_server(chief, server)
        address = f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
        server.add_insecure_port(address)
        server.start()
        while not (chief.stop_triggered and oracle_chief.exit_chief(self.oracle)):
            time.sleep(_POLL_SECONDS)
            chief.reclaim()
        server.stop(grace=_POLL_SECONDS).wait()


class RandomSearch(_Lasting, keras_tuner.RandomSearch):
    """`keras_tuner.RandomSearch`, made to last."""


class BayesianOptimization(_Lasting, keras_tuner.BayesianOptimization):
    """`keras_tuner.BayesianOptimization`, made to last."""


class Hyperband(_Lasting, keras_tuner.Hyperband):
    """`keras_tuner.Hyperband`, made to last, with an optional limit on its trials."""

    def __init__(self, *args, max_trials=None, **kwargs):
        super().__init__(*args, **kwargs)
        if not self.is_worker:
            self.oracle.max_trials = max_trials


class GridSearch(_Lasting, keras_tuner.GridSearch):
    """`keras_tuner.GridSearch`, made to last."""

    def reload(self):
        super().reload()
        if self.is_worker:
            return
        # Not part of keras-tuner's saved state: without it a search ends where it was interrupted.
        oracle = self.oracle
        in_order = functools.cmp_to_key(
            lambda a, b: oracle._compare(a.hyperparameters.values, b.hyperparameters.values)
        )
        for trial in sorted(self.trials, key=in_order):
            oracle._ordered_ids.insert(trial.trial_id)
            oracle._populate_next.append(trial.trial_id)


TUNERS = {
    "random": RandomSearch,
    "hyperband": Hyperband,
    "bayesian": BayesianOptimization,
    "grid": GridSearch,
}
