"""A custom metric, and a model as a class of its own.

Where one class is rare, accuracy flatters. The metric counts, over all batches of an epoch, how many of
each class are found, and gives the mean over the classes. The model is subclassed, as one writes it when
a graph is not enough; the data are scikit-learn's wines, with few left of the third kind.
"""

import argparse
import pathlib

import keras
import numpy as np
import sklearn.datasets
from keras import ops

import keras_gevb
from keras_gevb import layers

CLASSES = 3


@keras.saving.register_keras_serializable(package="workflows")
class BalancedAccuracy(keras.metrics.Metric):
    """The mean over the classes of the part of them that is found."""

    def __init__(self, num_classes, name="balanced_accuracy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.num_classes = num_classes
        self.found = self.add_weight(shape=(num_classes,), initializer="zeros", name="found")
        self.seen = self.add_weight(shape=(num_classes,), initializer="zeros", name="seen")

    def update_state(self, y_true, y_pred, sample_weight=None):
        classes = ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), self.num_classes)
        if sample_weight is not None:
            classes = classes * ops.reshape(ops.cast(sample_weight, "float32"), (-1, 1))
        answers = ops.one_hot(ops.argmax(y_pred, axis=-1), self.num_classes)
        self.found.assign_add(ops.sum(classes * answers, axis=0))
        self.seen.assign_add(ops.sum(classes, axis=0))

    def result(self):
        present = ops.cast(self.seen > 0, "float32")
        return ops.sum(self.found / ops.maximum(self.seen, 1e-7)) / ops.maximum(ops.sum(present), 1.0)

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes}


@keras.saving.register_keras_serializable(package="workflows")
class Taster(keras_gevb.Model):
    """Two layers of vector units, the second of which sees the first twice as often in training."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.scale = keras.layers.Normalization()
        self.lower = layers.VectorDense(units, vector_dim=CLASSES)
        self.drop = keras.layers.SpatialDropout1D(0.1)
        self.upper = layers.VectorDense(units)
        self.readout = layers.VectorReadout()

    def call(self, inputs, training=False):
        units = self.lower(self.scale(inputs))
        units = units + self.upper(self.drop(units, training=training))
        return self.readout(units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def data(seed=0):
    """Thirteen measurements and the kind of wine, few of the third: (training, test)."""
    x, y = sklearn.datasets.load_wine(return_X_y=True)
    x, y = x.astype("float32"), y.astype("int32")
    order = np.random.default_rng(seed).permutation(len(y))
    train, test = order[:110], order[110:]
    rare = train[y[train] == 2]
    train = np.setdiff1d(train, rare[8:])
    return (x[train], y[train]), (x[test], y[test])


def main(out="runs/workflows/custom_metric", epochs=30):
    keras.utils.set_random_seed(0)
    (x, y), (x_test, y_test) = data()
    model = Taster(16, learning_rule="gevb")
    model.scale.adapt(x)
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy", BalancedAccuracy(CLASSES)],
    )
    model.fit(x, y, batch_size=16, epochs=epochs, class_weight={0: 1.0, 1: 1.0, 2: 4.0}, verbose=0)
    scores = model.evaluate(x_test, y_test, return_dict=True, verbose=0)
    print(f"test accuracy {scores['accuracy']:.3f}, balanced {scores['balanced_accuracy']:.3f}")

    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    model.save(out / "model.keras")
    model.export(out / "saved_model", verbose=False)
    return model, scores["balanced_accuracy"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/workflows/custom_metric", help="folder for what is saved")
    parser.add_argument("--epochs", type=int, default=30)
    main(**vars(parser.parse_args()))
