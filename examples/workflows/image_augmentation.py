"""Images: augmentation inside the model, convolutions of vector units behind it.

The random layers act in training alone; in `evaluate`, `predict` and the exported model they let images
pass. The images are the 8 x 8 digits that come with scikit-learn.
"""

import argparse
import pathlib

import keras

import keras_gevb
from keras_gevb import layers


def data():
    """Raw pixels and labels: (training, test)."""
    return keras_gevb.datasets.load("digits")


def build():
    augment = [
        keras.layers.RandomTranslation(0.05, 0.05, fill_mode="nearest"),
        keras.layers.RandomRotation(0.02, fill_mode="nearest"),
    ]
    return keras_gevb.Sequential(
        [
            keras.Input((8, 8, 1)),
            *augment,
            keras.layers.Rescaling(1 / 8, offset=-1),
            layers.VectorConv2D(16, 3, padding="same", vector_dim=10),
            layers.VectorAveragePooling2D(2),
            layers.VectorFlatten(),
            layers.VectorDense(32),
            layers.VectorReadout(),
        ],
        learning_rule="gevb",
    )


def main(out="runs/workflows/image_augmentation", epochs=15):
    keras.utils.set_random_seed(0)
    (x, y), (x_test, y_test) = data()
    model = build()
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x, y, batch_size=32, epochs=epochs, validation_data=(x_test, y_test), verbose=0)
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f"test accuracy {accuracy:.3f}")

    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    model.save(out / "model.keras")
    # Not model.export, which would serve with the augmentation on, as it does in any Keras model.
    keras_gevb.export.to_saved_model(model, out / "saved_model")
    return model, accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/workflows/image_augmentation", help="folder for what is saved")
    parser.add_argument("--epochs", type=int, default=15)
    main(**vars(parser.parse_args()))
