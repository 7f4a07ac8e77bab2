"""Data that do not fit into memory: a `PyDataset` that reads one file for each batch.

Several workers read ahead while the model learns. The files are made here, from the digits that come
with scikit-learn, so that there is something to read.
"""

import argparse
import pathlib

import keras
import numpy as np

import keras_gevb
from keras_gevb import layers


class Shards(keras.utils.PyDataset):
    """A folder of .npz files, each a batch, in a new order every epoch."""

    def __init__(self, folder, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.files = sorted(pathlib.Path(folder).glob("*.npz"))
        self.random = np.random.default_rng(seed)

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        with np.load(self.files[index]) as shard:
            return shard["x"].astype("float32") / 16, shard["y"]

    def on_epoch_end(self):
        self.random.shuffle(self.files)


def data():
    """Raw pixels and labels: (training, test)."""
    return keras_gevb.datasets.load("digits")


def write(folder, x, y, batch_size=32):
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(y), batch_size):
        part = slice(start, start + batch_size)
        np.savez(folder / f"{start:06d}.npz", x=x[part], y=y[part])


def build():
    network = [
        keras.layers.Flatten(),
        layers.VectorDense(64, vector_dim=10),
        layers.VectorDense(32),
        layers.VectorReadout(),
    ]
    return keras_gevb.Sequential(network, learning_rule="gevb")  # built by its first batch


def main(out="runs/workflows/pydataset", epochs=15):
    keras.utils.set_random_seed(0)
    out = pathlib.Path(out)
    for name, part in zip(("train", "test"), data()):
        write(out / name, *part)
    train, test = Shards(out / "train", workers=2), Shards(out / "test")
    model = build()
    model.compile(
        keras.optimizers.Adam(2e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(train, epochs=epochs, validation_data=test, verbose=0)
    _, accuracy = model.evaluate(test, verbose=0)
    print(f"{len(train)} files; test accuracy {accuracy:.3f}")

    model.save(out / "model.keras")
    model.export(out / "saved_model", verbose=False)
    return model, accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", default="runs/workflows/pydataset", help="folder for the files and what is saved"
    )
    parser.add_argument("--epochs", type=int, default=15)
    main(**vars(parser.parse_args()))
