"""One process of two under PyTorch: the documented step on its half of a batch, into a file.

Arguments: this process's index, the port of the first, the documented code, and the folder of the results.
"""

import sys

import keras
import numpy as np
import torch
from workflows import compiled, data, graph

index, port, code, folder = sys.argv[1:]
torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=int(index), world_size=2)
keras.utils.set_random_seed(20211)
model = compiled(graph(), keras.optimizers.SGD(0.1, momentum=0.9))
start = model.get_weights()
x, y = data(16)
half = slice(8 * int(index), 8 * int(index) + 8)
exec(code, {"torch": torch, "model": model, "x": x[half], "y": y[half]})
results = {f"weights/{i}": w for i, w in enumerate(model.get_weights())}
np.savez(f"{folder}/{index}.npz", **results, **{f"start/{i}": w for i, w in enumerate(start)})
