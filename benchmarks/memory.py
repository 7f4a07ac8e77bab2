"""Peak memory of training, in a process of its own: Linux counts the most that a process has held.

Which peak, beyond what? Compiling takes memory too, once, and compiled programs stay, hundreds of
megabytes of both. So the peak is read twice, at the first steps and again at steps that were compiled
before; and what is held is read twice, of the built model and between two steps.

    first steps - built            what a machine must have beyond weights and optimizer, compiling included
    steps - built                  the same once compiled: programs, and what the steps need
    steps - between steps          what the steps need, programs not counted: activity, updates, copies

The last holds only where freed memory goes back to the system. XLA frees its one temporary buffer
after each step and TensorFlow each tensor, but two allocators would keep the pages. The C library is
told to give them back (`mallopt`, `malloc_trim`). TensorFlow's oneDNN build has an arena that never
does; without oneDNN it has none (`WITHOUT_ARENA`), which changes nothing in what XLA allocates: its plan
of the 16-layer network of growth.py by automatic differentiation says 103 MB, and 105 MB are seen.
"""

import ctypes
import gc
import json
import math
import os
import pathlib
import re
import signal
import subprocess
import sys

WITHOUT_ARENA = {"TF_ENABLE_ONEDNN_OPTS": "0"}

_STATUS = pathlib.Path("/proc/self/status")
_RESET = pathlib.Path("/proc/self/clear_refs")
_M_MMAP_THRESHOLD = -3  # of mallopt
_OUT_OF_MEMORY = ("bad_alloc", "RESOURCE_EXHAUSTED", "ResourceExhausted", "MemoryError")


def why_not():
    """Why peaks cannot be measured here; None where they can."""
    return None if _RESET.exists() else f"memory: there is no {_RESET}, by which Linux counts peaks anew"


def measure(model, x, y, batch_size, steps=5):
    """Megabytes: "weights", "optimizer"; held "built", "between steps"; peaks of "first steps", "steps".

    Args:
        model: A compiled model.
        x, y: One batch: an epoch is run for each step.
        batch_size: Samples in a batch.
        steps: How many are run for the second peak.
    """
    give_back_what_is_freed()
    model.optimizer.build(model.trainable_variables)
    measured = {
        "weights": _size(model.weights),
        "optimizer": _size(model.optimizer.variables),
        "built": _held(),
    }
    for name, epochs in (("first steps", 2), ("steps", steps)):
        _RESET.write_text("5")
        model.fit(x, y, batch_size=batch_size, epochs=epochs, verbose=0)
        measured[name] = _read("VmHWM")
        measured["between steps"] = _held()
    return {name: round(megabytes, 1) for name, megabytes in measured.items()}


def peak(function):
    """Megabytes that are held before a call of a function, and the most during it."""
    held = _held()
    _RESET.write_text("5")
    function()
    return held, _read("VmHWM")


def give_back_what_is_freed():
    """Have the C library give anything above 64 KiB pages of its own, which go back when it is freed."""
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 65536)


def _held():
    """Megabytes in use, once what was freed is given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _read("VmRSS")


def _read(field):
    return int(re.search(rf"{field}:\s+(\d+) kB", _STATUS.read_text())[1]) * 1024 / 1e6


def _size(variables):
    return sum(4 * math.prod(variable.shape) for variable in variables) / 1e6


def in_fresh_process(script, request, limit_seconds=None, environment=None):
    """What `script --probe REQUEST` prints last, as JSON.

    Returns:
        A dict: what was measured, or {"left out": why} where it does not fit into memory or time.
    """
    command = [sys.executable, script, "--probe", json.dumps(request)]
    environment = {**os.environ, **(environment or {})}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_seconds, env=environment)
    except subprocess.TimeoutExpired:
        return {"left out": f"> {limit_seconds:g} s"}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if done.returncode == -signal.SIGKILL or any(word in done.stderr for word in _OUT_OF_MEMORY):
        return {"left out": "out of memory"}
    raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")


def answer(request, probe):
    """The other side: print what `probe(**request)` returns, as JSON, and end."""
    # Should memory run out, Linux ends this process first, not one that someone waits for.
    score = pathlib.Path("/proc/self/oom_score_adj")
    if score.exists():
        score.write_text("1000")
    print(json.dumps(probe(**json.loads(request))), flush=True)
    os._exit(0)  # at once: unloading the frameworks takes seconds
