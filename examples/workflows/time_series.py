"""Time series: windows of the past in, the next six hours out.

A forecast of K hours is a regression with K outputs: the vector units are K wide, and the error vector
that is broadcast has one number for each hour. Windows come from
`keras.utils.timeseries_dataset_from_array`. The series is made up: a daily curve of temperature, on
weather that comes and goes.
"""

import argparse
import pathlib

import keras
import numpy as np

import keras_gevb
from keras_gevb import layers

PAST, FUTURE = 24, 6


def data(hours=2000, seed=0):
    """Two datasets of batches (past, future), in standard deviations: for training and for the test."""
    rng = np.random.default_rng(seed)
    weather = np.convolve(rng.normal(size=hours + 35), np.hanning(36), mode="valid")
    series = 4 * np.sin(2 * np.pi * np.arange(hours) / 24) + weather + 0.2 * rng.normal(size=hours)
    series = ((series - series[:1500].mean()) / series[:1500].std()).astype("float32")[:, None]
    # The future of the window that starts at hour i: the hours i + PAST to i + PAST + FUTURE.
    futures = np.lib.stride_tricks.sliding_window_view(series[PAST:, 0], FUTURE)

    def windows(start, end, **settings):
        return keras.utils.timeseries_dataset_from_array(
            series[start : end + PAST - 1], futures[start:end], PAST, batch_size=32, **settings
        )

    return windows(0, 1500, shuffle=True, seed=0), windows(1550, len(futures))


def build():
    return keras_gevb.Sequential(
        [
            keras.Input((PAST, 1)),
            keras.layers.Flatten(),
            layers.VectorDense(64, vector_dim=FUTURE),
            layers.VectorDense(32),
            layers.VectorReadout(),
        ],
        learning_rule="gevb",
    )


def main(out="runs/workflows/time_series", epochs=15):
    keras.utils.set_random_seed(0)
    train, test = data()
    model = build()
    model.compile(keras.optimizers.Adam(3e-3), "mse", metrics=["mae"])
    model.fit(train, epochs=epochs, validation_data=test, verbose=0)
    _, error = model.evaluate(test, verbose=0)
    # What one would say without a model: as yesterday at that hour.
    yesterday = np.mean([np.abs(past[:, :FUTURE, 0] - future).mean() for past, future in test])
    print(f"mean error {error:.3f} standard deviations; as yesterday: {yesterday:.3f}")

    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    model.save(out / "model.keras")
    model.export(out / "saved_model", verbose=False)
    return model, yesterday / error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/workflows/time_series", help="folder for what is saved")
    parser.add_argument("--epochs", type=int, default=15)
    main(**vars(parser.parse_args()))
