"""Mixed precision: arithmetic in half precision, weights and logits in single.

`keras.config.set_dtype_policy` says it for all layers, and the readout keeps float32, so that the loss
and the error vector are exact. mixed_bfloat16 suits CPUs, TPUs and newer GPUs; mixed_float16 works too,
and Keras then scales the loss. The images are scikit-learn's digits; here the network is conventional
and learns by direct feedback alignment.
"""

import argparse
import pathlib

import keras

import keras_gevb
from keras_gevb import layers


def data():
    """Raw pixels and labels: (training, test)."""
    return keras_gevb.datasets.load("digits")


def build(policy):
    keras.config.set_dtype_policy(policy)
    try:
        network = [
            keras.Input((8, 8, 1)),
            keras.layers.Rescaling(1 / 8, offset=-1),
            keras.layers.Flatten(),
            layers.VectorDense(64, vector_dim=10),
            layers.VectorDense(32),
            layers.VectorReadout(dtype="float32"),
        ]
        return keras_gevb.Sequential(network, learning_rule="gevb")
    finally:
        keras.config.set_dtype_policy("float32")


def main(out="runs/workflows/mixed_precision", epochs=10, policy="mixed_bfloat16"):
    keras.utils.set_random_seed(0)
    (x, y), (x_test, y_test) = data()
    model = build(policy)
    model.compile(
        keras.optimizers.Adam(2e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    lower = model.layers[2]
    print(f"{lower.name} computes in {lower.compute_dtype} and keeps {lower.variable_dtype}")
    print(f"optimizer {type(model.optimizer).__name__}; test accuracy {accuracy:.3f}")

    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    model.save(out / "model.keras")
    model.export(out / "saved_model", verbose=False)
    return model, accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/workflows/mixed_precision", help="folder for what is saved")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument(
        "--policy", default="mixed_bfloat16", choices=["mixed_bfloat16", "mixed_float16", "float32"]
    )
    main(**vars(parser.parse_args()))
