"""One worker of two: a global step, its logs, an evaluation, and the weights in a file.

Arguments: this worker's index, the addresses of all, and the folder of the results.
"""

import json
import os
import sys

index, folder, *addresses = sys.argv[1:]
os.environ["TF_CONFIG"] = json.dumps(
    {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": int(index)}}
)

import tensorflow as tf  # noqa: E402

strategy = tf.distribute.MultiWorkerMirroredStrategy()

import keras  # noqa: E402
import numpy as np  # noqa: E402
from workflows import data, graph, sequential, traced, twin  # noqa: E402


def shards(x, y, batch_size):
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size).with_options(options)


results = {}
keras.utils.set_random_seed(20211)
with strategy.scope():
    model = traced(graph(), metrics=["accuracy"])
x, y = data(64)
history = model.fit(shards(x, y, 64), validation_data=shards(x, y, 64), verbose=0).history
results |= {f"logs/{name}": values for name, values in history.items()}
results |= {f"weights/{i}": w for i, w in enumerate(model.get_weights())}
evaluated = model.evaluate(shards(x, y, 16), verbose=0, return_dict=True)
results |= {f"evaluated/{name}": value for name, value in evaluated.items()}

# Five batches of 16, the last of 5: on two workers 3 + 2.
with strategy.scope():
    ours = traced(sequential("backprop"))
before = ours.get_weights()
x, y = data(21)
ours.fit(shards(x, y, 16), verbose=0)
results |= {f"uneven/{i}": np.array(v) for i, v in enumerate(ours.trainable_variables)}


class Stock(keras.Sequential):
    """Keras's own step, with logs and build that this strategy can reduce."""

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        pass

    def train_step(self, batch):
        return {name: tf.expand_dims(value, 0) for name, value in super().train_step(batch).items()}


with strategy.scope():
    stock = traced(twin(ours, Stock))
stock.set_weights(before)
stock.fit(shards(x, y, 16), verbose=0)
results |= {f"stock/{i}": np.array(v) for i, v in enumerate(stock.trainable_variables)}
model.save(f"{folder}/{index}.keras")
np.savez(f"{folder}/{index}.npz", **results)
