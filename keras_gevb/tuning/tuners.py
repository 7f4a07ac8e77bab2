"""keras-tuner's tuners, made to survive the death of any of their processes.

keras-tuner 1.4.8 keeps finished trials over a restart, but a grid search ends there, the
last trial of a search with a chief runs again, and the trial of a worker that died is lost
while its chief waits for ever. Here a trial ends exactly once:

- The chief knows which workers live, and hands the trial of a dead one to another
  (`keras_gevb.tuning.chief`).
- Which trials remain after a restart is read from the trials' own files.
"""

import json
import pathlib
import time
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import TrialStatus

from keras_gevb.tuning import private
from keras_gevb.tuning.chief import Chief, forget_results, hold, is_chief, is_held, is_worker
from keras_gevb.tuning.hypermodel import require_finite

_ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)
_POLL_SECONDS = 1.0
_ANOTHER_SEED = 2**20


class _Lasting(keras_tuner.Tuner):
    """What the tuners below add to those of keras-tuner."""

    def __init__(
        self,
        *args: Any,
        seed: int | None = None,
        max_consecutive_failed_trials: int | None = None,
        **kwargs: Any,
    ):
        # keras-tuner takes 0 for no seed, and ends a search at the third failure in a row.
        kwargs["max_consecutive_failed_trials"] = max_consecutive_failed_trials
        super().__init__(*args, seed=_ANOTHER_SEED if seed == 0 else seed, **kwargs)

    @property
    def is_worker(self) -> bool:
        """Whether this process takes its trials from a chief."""
        return is_worker()

    @property
    def tuner_id(self) -> str:
        """This process's name, and that of its file, which a process of its own and a chief share: each
        continues what the other began."""
        return self._tuner_id if self.is_worker else "tuner"

    @tuner_id.setter
    def tuner_id(self, name):
        self._tuner_id = name

    @property
    def trials(self) -> list[Any]:
        """All trials so far, in the order of their start. A worker does not know them."""
        return [self.oracle.trials[trial_id] for trial_id in sorted(self.oracle.trials, key=int)]

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Search, or on a chief: hand out trials to workers until all have ended.

        Args:
            *fit_args, **fit_kwargs: What `fit` of every trial is given.

        Raises:
            RuntimeError: if no trial completed.
        """
        if is_chief():
            self.oracle.verbose = fit_kwargs.get("verbose", "auto")
            self.save()
            if self.remaining_trials != 0 or self._unended():
                Chief(self.oracle, self._is_present).serve(_POLL_SECONDS)
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

    def on_search_begin(self) -> None:
        super().on_search_begin()
        self._idle = False

    def pre_create_trial(self) -> None:
        super().pre_create_trial()
        if self._idle:
            time.sleep(_POLL_SECONDS)
        self._idle = True

    def on_trial_begin(self, trial: Any) -> None:
        super().on_trial_begin(trial)
        self._idle = False

    def on_epoch_end(self, trial: Any, model: Any, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(trial, model, epoch, logs)
        objective = self.oracle.objective
        require_finite(epoch, logs or {}, [o.name for o in getattr(objective, "objectives", [objective])])

    def on_trial_end(self, trial: Any) -> None:
        if trial.message:
            print(f"Trial {trial.trial_id} failed: {trial.message.strip().splitlines()[-1]}")
        super().on_trial_end(trial)

    def reload(self) -> None:
        super().reload()
        if self.is_worker:
            return
        oracle = self.oracle
        ongoing = {}
        if is_chief():
            # A chief that comes back finds its workers at their trials.
            saved = json.loads((pathlib.Path(self.project_dir) / "oracle.json").read_text())
            ongoing = {
                tuner_id: trial_id
                for tuner_id, trial_id in saved["ongoing_trials"].items()
                if oracle.trials[trial_id].status not in _ENDED and self._is_present(tuner_id)
            }
            oracle.tuner_ids = set(ongoing)
        waiting = [trial for trial in self._unended() if trial.trial_id not in ongoing.values()]
        for trial in waiting:
            private.record_values(oracle, trial)
            forget_results(trial)
        queue = [trial.trial_id for trial in reversed(waiting)]
        oracle.set_state({**oracle.get_state(), "ongoing_trials": ongoing, "retry_queue": queue})

    def _unended(self):
        return [trial for trial in self.trials if trial.status not in _ENDED]

    # Chief and workers.

    def _presence_file(self, tuner_id):
        return pathlib.Path(self.project_dir) / f"{tuner_id}.lock"

    def _is_present(self, tuner_id):
        return is_held(self._presence_file(tuner_id))


class RandomSearch(_Lasting, keras_tuner.RandomSearch):
    """`keras_tuner.RandomSearch`, made to last."""


class BayesianOptimization(_Lasting, keras_tuner.BayesianOptimization):
    """`keras_tuner.BayesianOptimization`, made to last."""


class Hyperband(_Lasting, keras_tuner.Hyperband):
    """`keras_tuner.Hyperband`, made to last, with an optional limit on its trials."""

    def __init__(self, *args: Any, max_trials: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.is_worker:
            self.oracle.max_trials = max_trials


class GridSearch(_Lasting, keras_tuner.GridSearch):
    """`keras_tuner.GridSearch`, made to last."""

    def reload(self) -> None:
        super().reload()
        if not self.is_worker:
            # Not part of keras-tuner's saved state: without it a search ends where it was interrupted.
            private.continue_grid(self.oracle, self.trials)


TUNERS = {
    "random": RandomSearch,
    "hyperband": Hyperband,
    "bayesian": BayesianOptimization,
    "grid": GridSearch,
}
