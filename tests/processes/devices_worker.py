"""One process of two, each with two virtual devices: a global step and an evaluation, into a file.

Arguments: this process's index, the address of the first, and the folder of the results.
"""

import os
import sys

index, address, folder = sys.argv[1:]
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"

import keras  # noqa: E402

keras.distribution.initialize(address, num_processes=2, process_id=int(index))

import numpy as np  # noqa: E402
from workflows import data, graph, traced  # noqa: E402

keras.utils.set_random_seed(20211)
keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
model = traced(graph(), keras.optimizers.SGD(0.1, momentum=0.9), metrics=["accuracy"])
start = model.get_weights()
x, y = data(16)
mine = slice(8 * int(index), 8 * int(index) + 8)  # each process is given its own share of the batch
x, y = x[mine], y[mine]
history = model.fit(x, y, batch_size=8, shuffle=False, verbose=0).history
results = {f"weights/{i}": w for i, w in enumerate(model.get_weights())}
results |= {f"start/{i}": w for i, w in enumerate(start)}
results |= {f"logs/{name}": values[-1] for name, values in history.items()}
evaluated = model.evaluate(x, y, batch_size=8, verbose=0, return_dict=True)
results |= {f"evaluated/{name}": value for name, value in evaluated.items()}
results["devices"] = len(keras.distribution.list_devices())

# A wrong label in the last share is an error in every process, not a wait for ever.
wrong = np.where(np.arange(8) == 7, 99, y) if index == "1" else y
try:
    model.fit(x, wrong, batch_size=8, shuffle=False, verbose=0)
except ValueError as error:
    results["refused"] = str(error)
np.savez(f"{folder}/{index}.npz", **results)
