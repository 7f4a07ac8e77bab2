"""Whether a run is over, and whether it can go on from what lies in its folder."""

from keras_gevb.experiments import files
from keras_gevb.experiments.files import ExperimentError
from keras_gevb.experiments.results import RunFiles, versions


def check_run(cell, seed, out, protocol):
    """Raise, before any work, what `run_cell` would raise about the files that it goes on from."""
    run_files = RunFiles(files.open_folder(out, create=True), cell, seed)
    result = run_files.read_result()
    if result is None or not is_done(result, protocol, run_files):
        last_state(run_files, protocol)


def is_done(result, protocol, run_files):
    """Whether a result needs no more epochs; raises where they cannot be added."""
    _check_protocol(result, protocol, run_files.result)
    enough = result.finished == "no training error" or result.epochs >= protocol.epochs
    if result.finished and not enough and not run_files.state.exists():
        raise ExperimentError(
            f"'{run_files.result}' ended after {result.epochs} epochs and its state was not kept, so it "
            f"cannot go on. Received: epochs={protocol.epochs}. Give another --out folder, or move the "
            "file away (and use --keep-state to be able to add epochs later)."
        )
    return result.finished and enough


def last_state(run_files, protocol):
    """`(result, seconds, arrays)` to go on from, or None; raises where that would be another run."""
    state = run_files.read_state()
    if state is not None:
        result, _, _ = state
        _check_protocol(result, protocol, run_files.state)
        if result.versions != versions():
            raise ExperimentError(
                f"'{run_files.state}' was written with {result.versions}, but installed are "
                f"{versions()}. Install those to go on, or delete the file to start this run anew."
            )
    return state


def _check_protocol(result, protocol, path):
    def but_epochs(protocol):
        return {**vars(protocol), "epochs": None}

    if but_epochs(result.protocol) != but_epochs(protocol):
        raise ExperimentError(
            f"'{path}' follows another protocol, so this run would not continue it. It has: "
            f"{result.protocol}. Received: {protocol}. Give the same options, or another --out folder."
        )
