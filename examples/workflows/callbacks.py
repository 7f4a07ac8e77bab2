"""Callbacks: stop early, learn more slowly, keep the best, log, and go on after an interruption.

Start it, stop it by Ctrl-C in the middle, start it again: `BackupAndRestore` goes on with the epoch that
was not finished. The data are scikit-learn's breast tumours.
"""

import argparse
import pathlib

import keras
import numpy as np
import sklearn.datasets

import keras_gevb
from keras_gevb import layers


def data(seed=0):
    """Thirty measurements of tumours, and whether they are benign: (training, test)."""
    x, y = sklearn.datasets.load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    x, y = x[order].astype("float32"), y[order]
    return (x[:400], y[:400]), (x[400:], y[400:])


def build(x):
    scale = keras.layers.Normalization()
    scale.adapt(x)
    hidden = [layers.VectorDense(16, vector_dim=2), layers.VectorDense(16)]
    return keras_gevb.Sequential(
        [keras.Input((30,)), scale, *hidden, layers.VectorReadout()], learning_rule="gevb"
    )


def watchers(out):
    return [
        keras.callbacks.EarlyStopping("val_loss", patience=5, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.3, patience=2),
        keras.callbacks.ModelCheckpoint(out / "best.keras", monitor="val_accuracy", save_best_only=True),
        keras.callbacks.CSVLogger(out / "epochs.csv", append=True),
        keras.callbacks.TensorBoard(out / "tensorboard"),
        keras.callbacks.BackupAndRestore(out / "backup"),
    ]


def main(out="runs/workflows/callbacks", epochs=30):
    keras.utils.set_random_seed(0)
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (x, y), test = data()
    model = build(x)
    model.compile(
        keras.optimizers.Adam(5e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(x, y, epochs=epochs, validation_split=0.2, callbacks=watchers(out), verbose=0).history
    rates = history["learning_rate"]
    print(f"stopped after {len(rates)} epochs; learning rate from {rates[0]:.1e} to {rates[-1]:.1e}")
    best = keras.models.load_model(out / "best.keras")
    _, accuracy = best.evaluate(*test, verbose=0)
    print(f"test accuracy of the best model {accuracy:.3f}; tensorboard --logdir {out / 'tensorboard'}")

    best.save(out / "model.keras")
    best.export(out / "saved_model", verbose=False)
    return best, accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/workflows/callbacks", help="folder for what is saved")
    parser.add_argument("--epochs", type=int, default=30)
    main(**vars(parser.parse_args()))
