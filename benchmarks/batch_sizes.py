"""The first epoch where no two batches have one size: `fit` against stock Keras, same network, in turns.

python benchmarks/batch_sizes.py --sizes 40 --turns 3
"""

import argparse
import time

import keras

import keras_gevb


def first_epoch(model, sizes):
    """Seconds of an epoch, compiling included."""
    (x, y), _ = keras_gevb.datasets.load("digits")
    model.compile(keras.optimizers.Adam(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batches = ((x[:size], y[:size]) for size in range(1, sizes + 1))
    start = time.perf_counter()
    model.fit(batches, steps_per_epoch=sizes, verbose=0)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, default=40)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    for _ in range(options.turns):
        for architecture in keras_gevb.zoo.ARCHITECTURES:
            model = keras_gevb.zoo.build("digits", architecture)
            stock = keras_gevb.export.to_keras(model)
            ours, theirs = (first_epoch(m, options.sizes) for m in (model, stock))
            print(
                f"{architecture}: {ours:.2f} s, stock {theirs:.2f} s, ratio {ours / theirs:.2f}", flush=True
            )


if __name__ == "__main__":
    main()
