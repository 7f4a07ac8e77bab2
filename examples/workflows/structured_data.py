"""Structured data: rows of numbers, words and categories, encoded by a `FeatureSpace` inside the model.

The model takes raw rows, a dict with one array for each column, so what is saved and exported does too.
The rows are made up: whether somebody cycles to work follows from the distance, the weather, the age and
the town.
"""

import argparse
import pathlib

import keras
import numpy as np
import tensorflow as tf
from keras.utils import FeatureSpace

import keras_gevb
from keras_gevb import layers

CHOICES = ["bicycle", "train", "car"]


def data(rows=1000, seed=0):
    """Columns, a dict of tensors `(rows, 1)`, and choices: (training, test)."""
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 66, rows)
    distance = rng.exponential(8, rows).astype("float32")
    town = rng.choice(["Bern", "Zug", "Chur", "Genf"], rows)
    weather = rng.choice(["dry", "rain", "snow"], rows, p=[0.6, 0.3, 0.1])
    effort = distance / 5 + (age > 50) + (weather != "dry")
    choice = np.where(effort < 1.5, 0, np.where(np.isin(town, ["Bern", "Genf"]), 1, 2))
    columns = {"age": age, "distance": distance, "town": town, "weather": weather}
    columns = {name: tf.constant(column)[:, None] for name, column in columns.items()}

    def part(start, end):
        return {name: column[start:end] for name, column in columns.items()}, choice[start:end]

    return part(0, 800), part(800, rows)


def build(columns):
    space = FeatureSpace(
        {
            "age": FeatureSpace.float_discretized(num_bins=5),
            "distance": FeatureSpace.float_normalized(),
            "town": FeatureSpace.string_categorical(num_oov_indices=1),
            "weather": FeatureSpace.string_categorical(num_oov_indices=0),
        },
        output_mode="concat",
    )
    space.adapt(tf.data.Dataset.from_tensor_slices(columns).batch(100))
    features = space.get_encoded_features()
    units = layers.VectorDense(32, vector_dim=len(CHOICES))(features)
    units = layers.VectorDense(32)(units)
    return keras_gevb.Model(dict(space.get_inputs()), layers.VectorReadout()(units), learning_rule="gevb")


def main(out="runs/workflows/structured_data", epochs=15):
    keras.utils.set_random_seed(0)
    (x, y), (x_test, y_test) = data()
    model = build(x)
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)

    someone = {"age": 30, "distance": 2.5, "town": "Bern", "weather": "dry"}
    someone = {name: tf.constant([[value]]) for name, value in someone.items()}
    choice = CHOICES[np.argmax(model.predict(someone, verbose=0))]
    print(f"test accuracy {accuracy:.3f}; at 30, 2.5 km in Bern, dry: by {choice}")

    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    model.save(out / "model.keras")
    model.export(out / "saved_model", verbose=False)
    return model, accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/workflows/structured_data", help="folder for what is saved")
    parser.add_argument("--epochs", type=int, default=15)
    main(**vars(parser.parse_args()))
