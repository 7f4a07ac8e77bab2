"""How the tests run what they compile, a few times only, in two processes: where nothing else is set."""

import atexit
import importlib.metadata
import os
import shutil
import tempfile

SETTINGS = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_NUM_INTRAOP_THREADS": "1",
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
}
# Loops by XLA's older emitters are compiled in half the time. XLA ends at a flag that it does not know.
package, versions = {"jax": ("jaxlib", "0.10.")}.get(
    os.environ.get("KERAS_BACKEND"), ("tensorflow", ("2.20.", "2.21."))
)
if importlib.metadata.version(package).startswith(versions):
    SETTINGS["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

# JAX compiles every operation for every shape: once, for all processes of a run.
if package == "jaxlib" and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    folder = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    SETTINGS |= {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)
