"""Train one network on several workers that each see a part of every batch.

On this machine, two workers on loopback:

    python examples/distributed.py
    python examples/distributed.py --backend jax

On several machines, the same command on each, told by its environment who is who. TensorFlow:

    export TF_CONFIG='{"cluster": {"worker": ["alpha:12345", "beta:12345"]},
                       "task": {"type": "worker", "index": 0}}'
    python examples/distributed.py --epochs 20

JAX, where a worker trains on every device of its machine:

    export KERAS_DISTRIBUTION_JOB_ADDRESSES=alpha:12345,beta:12345
    export KERAS_DISTRIBUTION_NUM_PROCESSES=2 KERAS_DISTRIBUTION_PROCESS_ID=0
    python examples/distributed.py --backend jax --epochs 20

with index or id 1 on the second machine, and so on. Every worker computes the updates on its share of
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
        "--backend", choices=["tensorflow", "jax"], default=os.environ.get("KERAS_BACKEND", "tensorflow")
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="processes to start where the environment names none"
    )
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=128, help="samples of a step, over all workers")
    parser.add_argument("--samples", type=int, default=None, help="train on so many only")
    parser.add_argument("--learning-rule", default="gevb")
    parser.add_argument("--save", help="file for the trained model, written by the first worker")
    arguments = parser.parse_args()
    os.environ["KERAS_BACKEND"] = arguments.backend
    train, told = {
        "tensorflow": (train_on_tensorflow, "TF_CONFIG"),
        "jax": (train_on_jax, "KERAS_DISTRIBUTION_PROCESS_ID"),
    }[arguments.backend]
    if told in os.environ:
        train(arguments)
    else:
        sys.exit(start_workers(arguments.backend, arguments.workers))


def start_workers(backend, count):
    """Start this script `count` times on loopback, and wait. Returns the worst exit status."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    workers = []
    for index in range(count):
        if backend == "jax":
            cluster = {
                "KERAS_DISTRIBUTION_JOB_ADDRESSES": ",".join(addresses),
                "KERAS_DISTRIBUTION_NUM_PROCESSES": str(count),
                "KERAS_DISTRIBUTION_PROCESS_ID": str(index),
            }
        else:
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            cluster = {"TF_CONFIG": json.dumps(task)}
        workers.append(subprocess.Popen([sys.executable, *sys.argv], env={**os.environ, **cluster}))
    return max(abs(worker.wait()) for worker in workers)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def train_on_tensorflow(arguments):
    import tensorflow as tf

    import keras_gevb

    # Before any operation of TensorFlow: it starts this worker's server.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()

    (x, y), test = keras_gevb.datasets.load("digits")
    with strategy.scope():
        model = compiled(arguments)
    report(
        arguments,
        model,
        strategy.cluster_resolver.task_id,
        strategy.num_replicas_in_sync,
        shards(x[: arguments.samples], y[: arguments.samples], arguments.batch_size, shuffle=True),
        validation_data=shards(*test, arguments.batch_size),
    )


def train_on_jax(arguments):
    from keras import distribution

    # Before any operation of JAX: it connects this worker to the others.
    distribution.initialize()

    import keras_gevb

    devices = len(distribution.list_devices())
    index, workers = (
        int(os.environ[f"KERAS_DISTRIBUTION_{name}"]) for name in ("PROCESS_ID", "NUM_PROCESSES")
    )

    def share(values):
        """This worker's part of what all devices can have alike."""
        return values[: len(values) // devices * devices][index::workers]

    distribution.set_distribution(distribution.DataParallel(auto_shard_dataset=False))
    (x, y), test = keras_gevb.datasets.load("digits")
    report(
        arguments,
        compiled(arguments),
        index,
        workers,
        share(x[: arguments.samples]),
        share(y[: arguments.samples]),
        batch_size=arguments.batch_size // workers,
        validation_data=tuple(map(share, test)),
    )


def compiled(arguments):
    import keras

    import keras_gevb

    keras.utils.set_random_seed(0)
    model = keras_gevb.zoo.build("digits", "fc", learning_rule=arguments.learning_rule)
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def report(arguments, model, index, workers, *data, **settings):
    """Fit, and let the first worker tell."""
    verbose = 2 if index == 0 else 0
    history = model.fit(*data, epochs=arguments.epochs, verbose=verbose, **settings).history
    if index == 0:
        print(f"{workers} workers, test accuracy {history['val_accuracy'][-1]:.3f}")
        if arguments.save:
            import keras

            keras.distribution.set_distribution(None)  # under JAX saving would wait for the others
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
