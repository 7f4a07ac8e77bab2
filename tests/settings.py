"""How the tests run what they compile, a few times only, in two processes: where nothing else is set."""

import importlib.metadata
import os

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

for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)
