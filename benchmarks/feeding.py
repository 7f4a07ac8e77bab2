"""What surrounds a training step in TensorFlow: the loop of `fit`, and the data pipeline."""

import time

import tensorflow as tf
import tensorflow_datasets as tfds
from measuring import StepClock, spread

from keras_gevb import datasets

SHUFFLED = 10_000  # images in the buffer of the pipeline


def fit_overhead(model, x, y, batch_size, repeats, advance):
    """Milliseconds of a step through `fit` and of the bare compiled step, on the same data, in turns.

    The bare step is what `fit` calls, once per batch: the model's train function, on an iterator over
    batches that lie ready in memory. No callbacks, no shuffling, no logs are read.
    """
    model.fit(x[:batch_size], y[:batch_size], batch_size=batch_size, verbose=0)
    # Batches of known size, as `fit` makes them here: else another program would be compiled.
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size, drop_remainder=True)
    ready = iter(batches.cache().repeat().prefetch(tf.data.AUTOTUNE))
    steps = len(x) // batch_size
    times = {"fit": [], "bare step": []}
    for _ in range(steps):
        model.train_function(ready)
    for _ in range(repeats):
        clock = StepClock()
        model.fit(x, y, batch_size=batch_size, verbose=0, callbacks=[clock])
        times["fit"].extend(clock.milliseconds)
        for _ in range(steps):
            start = time.perf_counter()
            model.train_function(ready)
            times["bare step"].append(1e3 * (time.perf_counter() - start))
        advance()
    return {name: spread(values) for name, values in times.items()}


def pipeline(model, dataset, data_dir, batch_size, steps, repeats, advance):
    """Steps per second through `fit`, by the way its data comes, in turns.

    "memory" is arrays; "first epoch" a stream that reads files, decodes, shuffles and batches while the
    model learns; "later epochs" the same from the cache that the first one leaves. The first batch,
    which waits until the shuffle buffer is full, is not counted.
    """
    (x, y), _ = datasets.load(dataset, data_dir)
    samples = batch_size * (steps + 1)
    reading = tfds.ReadConfig(try_autocache=False)
    images = tfds.load(
        dataset, split="train", data_dir=data_dir, as_supervised=True, download=False, read_config=reading
    )
    cached = images.cache()
    for _ in cached:
        pass

    def stream(images):
        batches = images.shuffle(SHUFFLED).batch(batch_size, drop_remainder=True)
        return {"x": batches.take(steps + 1).prefetch(tf.data.AUTOTUNE), "shuffle": False}

    ways = {
        "memory": {"x": x[:samples], "y": y[:samples], "batch_size": batch_size},
        "first epoch": stream(images),
        "later epochs": stream(cached),
    }
    model.fit(x[:batch_size], y[:batch_size], batch_size=batch_size, verbose=0)
    rates = {way: [] for way in ways}
    for _ in range(repeats):
        for way, fed in ways.items():
            clock = StepClock()
            model.fit(**fed, verbose=0, callbacks=[clock])
            rates[way].append(1e3 / clock.milliseconds.mean())
            advance()
    return {way: spread(values) for way, values in rates.items()}
