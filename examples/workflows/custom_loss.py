"""Custom losses: a class with settings, and a plain function.

A rule needs of a loss its derivative in the outputs alone, so any loss will do. Here the K = 3 outputs
are quantiles of ONE number, the score that a patient has a year later (scikit-learn's diabetes data):
the class asks for given quantiles; the function asks for the middle one and that the three do not cross.
"""

import argparse
import pathlib

import keras
import sklearn.datasets
from keras import ops

import keras_gevb
from keras_gevb import layers

QUANTILES = [0.1, 0.5, 0.9]


@keras.saving.register_keras_serializable(package="workflows")
class PinballLoss(keras.losses.Loss):
    """Each output is a quantile: too low costs q, too high 1 - q, for each unit of distance."""

    def __init__(self, quantiles, name="pinball", **kwargs):
        super().__init__(name=name, **kwargs)
        self.quantiles = list(quantiles)

    def call(self, y_true, y_pred):
        quantiles = ops.cast(self.quantiles, y_pred.dtype)
        distance = y_true - y_pred  # (batch, 1) - (batch, 3)
        return ops.mean(ops.maximum(quantiles * distance, (quantiles - 1) * distance), axis=-1)

    def get_config(self):
        return {**super().get_config(), "quantiles": self.quantiles}


@keras.saving.register_keras_serializable(package="workflows")
def ordered(y_true, y_pred):
    """The middle output by absolute error; neighbours by how far they are in the wrong order."""
    crossed = ops.sum(ops.relu(y_pred[:, :-1] - y_pred[:, 1:]), axis=-1)
    return ops.abs(y_true[:, 0] - y_pred[:, 1]) + crossed


def data():
    """Ten measurements and the score, as a column, in hundreds: (training, test)."""
    x, y = sklearn.datasets.load_diabetes(return_X_y=True)
    x, y = (20 * x).astype("float32"), (y / 100).astype("float32")[:, None]
    return (x[:342], y[:342]), (x[342:], y[342:])


def build():
    return keras_gevb.Sequential(
        [
            keras.Input((10,)),
            layers.VectorDense(32, vector_dim=len(QUANTILES)),
            layers.VectorDense(16),
            layers.VectorReadout(),
        ],
        learning_rule="gevb",
    )


def main(out="runs/workflows/custom_loss", epochs=30):
    keras.utils.set_random_seed(0)
    (x, y), (x_test, y_test) = data()
    model = build()
    model.compile(keras.optimizers.Adam(2e-3), ordered)
    model.fit(x, y, batch_size=32, epochs=epochs // 3, verbose=0)  # to begin with
    model.compile(keras.optimizers.Adam(2e-3), PinballLoss(QUANTILES))
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    low, _, high = model.predict(x_test, verbose=0).T
    inside = ((low < y_test[:, 0]) & (y_test[:, 0] < high)).mean()
    loss = model.evaluate(x_test, y_test, verbose=0)
    constant = ops.broadcast_to(ops.quantile(y, ops.array(QUANTILES, "float32")), (len(y_test), 3))
    without = float(PinballLoss(QUANTILES)(y_test, constant))
    print(f"between the outer quantiles: {inside:.2f}, where 0.80 is meant")
    print(f"pinball loss {loss:.4f}; of the same quantiles for everybody {without:.4f}")

    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    model.save(out / "model.keras")
    model.export(out / "saved_model", verbose=False)
    return model, without / loss


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/workflows/custom_loss", help="folder for what is saved")
    parser.add_argument("--epochs", type=int, default=30)
    main(**vars(parser.parse_args()))
