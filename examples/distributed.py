"""Train one network on several workers that each see a part of every batch.

On this machine, two workers on loopback:

    python examples/distributed.py

On several machines, the same command on each, told by TF_CONFIG who is who:

    export TF_CONFIG='{"cluster": {"worker": ["alpha:12345", "beta:12345"]},
                       "task": {"type": "worker", "index": 0}}'
    python examples/distributed.py --epochs 20

with index 1 on the second machine, and so on. Every worker computes the updates on its share of
the batch; they are summed over the workers, and all apply the same sum.
"""

import argparse
import json
import os
import socket
import subprocess
import sys


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="processes to start where TF_CONFIG is not set"
    )
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=128, help="samples of a step, over all workers")
    parser.add_argument("--samples", type=int, default=None, help="train on so many only")
    parser.add_argument("--learning-rule", default="gevb")
    parser.add_argument("--save", help="file for the trained model, written by the first worker")
    arguments = parser.parse_args()
    if "TF_CONFIG" in os.environ:
        train(arguments)
    else:
        sys.exit(start_workers(arguments.workers))


def start_workers(count):
    """Start this script `count` times on loopback, and wait. Returns the worst exit status."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    workers = []
    for index in range(count):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(config)}
        workers.append(subprocess.Popen([sys.executable, *sys.argv], env=environment))
    return max(abs(worker.wait()) for worker in workers)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def train(arguments):
    import keras_gevb  # first, so that TensorFlow starts with oneDNN

    # isort: split
    import keras
    import tensorflow as tf

    # Before any operation of TensorFlow: it starts this worker's server.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()

    keras.utils.set_random_seed(0)
    (x, y), test = keras_gevb.datasets.load("digits")
    x, y = x[: arguments.samples], y[: arguments.samples]
    with strategy.scope():
        model = keras_gevb.zoo.build("digits", "fc", learning_rule=arguments.learning_rule)
        model.compile(
            keras.optimizers.Adam(3e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    first = strategy.cluster_resolver.task_id == 0
    history = model.fit(
        shards(x, y, arguments.batch_size, shuffle=True),
        epochs=arguments.epochs,
        validation_data=shards(*test, arguments.batch_size),
        verbose=2 if first else 0,
    ).history
    if first:
        print(f"{strategy.num_replicas_in_sync} workers, test accuracy {history['val_accuracy'][-1]:.3f}")
        if arguments.save:
            model.save(arguments.save)


def shards(x, y, batch_size, shuffle=False):
    """Batches of which every worker takes its share, by auto-sharding of the data."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    if shuffle:
        dataset = dataset.shuffle(len(x), seed=0)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.batch(batch_size).with_options(options)


if __name__ == "__main__":
    main()
