"""Several inputs: a functional model with a branch for each, given as a dict.

Each half of a digit has a branch of vector units of its own, and a third input says how much ink there
is on each line. Branches are joined by ordinary Keras layers, which work on vector units as they are.
"""

import argparse
import pathlib

import keras
import tensorflow as tf

import keras_gevb
from keras_gevb import layers

CLASSES = 10


def data():
    """Two datasets of single digits, `({"top", "bottom", "ink"}, label)`: for training and for the test."""

    def parts(images, labels):
        images = images.astype("float32") / 16
        ink = images.sum(axis=(2, 3))
        inputs = {"top": images[:, :4], "bottom": images[:, 4:], "ink": ink}
        return tf.data.Dataset.from_tensor_slices((inputs, labels))

    train, test = keras_gevb.datasets.load("digits")
    return parts(*train), parts(*test)


def build():
    inputs = {
        "top": keras.Input((4, 8, 1), name="top"),
        "bottom": keras.Input((4, 8, 1), name="bottom"),
        "ink": keras.Input((8,), name="ink"),
    }
    halves = []
    for name in ("top", "bottom"):
        pixels = keras.layers.Flatten()(inputs[name])
        halves.append(layers.VectorDense(32, vector_dim=CLASSES, name=f"{name}_units")(pixels))
    ink = layers.VectorDense(8, vector_dim=CLASSES, name="ink_units")(inputs["ink"])
    joined = keras.layers.Concatenate()([*halves, ink])
    units = layers.VectorDense(32)(joined)
    units = keras.layers.Concatenate()([units, joined])  # past the last layer, too
    return keras_gevb.Model(inputs, layers.VectorReadout()(units), learning_rule="gevb")


def main(out="runs/workflows/several_inputs", epochs=15):
    keras.utils.set_random_seed(0)
    train, test = data()
    model = build()
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        train.shuffle(2000, seed=0).batch(32), epochs=epochs, validation_data=test.batch(100), verbose=0
    )
    _, accuracy = model.evaluate(test.batch(100), verbose=0)
    print(f"test accuracy {accuracy:.3f}")

    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    model.save(out / "model.keras")
    model.export(out / "saved_model", verbose=False)
    return model, accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/workflows/several_inputs", help="folder for what is saved")
    parser.add_argument("--epochs", type=int, default=15)
    main(**vars(parser.parse_args()))
