"""MirroredStrategy on two logical CPUs against one device: prints how far they are apart, as JSON.

Arguments: a folder, and rows "MODEL RULE" of which a step is compared.
"""

import json
import sys
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from workflows import (
    NOISY,
    build,
    compiled,
    data,
    distance,
    sequential,
    traced,
    twin,
)

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
folder, rows = sys.argv[1], [row.split() for row in sys.argv[2:]]
measured = {}


def made(name, rule, scope, weights=None):
    keras.utils.set_random_seed(20211)  # of the rule's noise, too
    with scope:
        model = build(name, rule)
        settings = {"metrics": ["accuracy"], "run_eagerly": not tf.distribute.has_strategy()}
        if (name, rule) != ("graph", "gevb"):
            settings["jit_compile"] = False  # XLA draws other random numbers, and takes longer
        compiled(model, keras.optimizers.SGD(0.1, momentum=0.9), **settings)
    if weights is not None:
        model.set_weights(weights)
    return model


def one_device():
    return tf.device("CPU:0")


def fit(model, x, y, **settings):
    logs = model.fit(x, y, batch_size=16, shuffle=False, verbose=0, **settings).history
    return {name: values[-1] for name, values in logs.items()}


def apart(logs, other):
    return max(abs(logs[name] - other[name]) for name in logs)


def halves(name, rule, start):
    """The mean of two models, each after a step on its half of the batch, with the noise of its replica."""
    weights = []
    for replica, part in enumerate((slice(0, 8), slice(8, 16))):
        with mock.patch("keras_gevb.backend.replica", lambda replica=replica: replica):
            half = made(name, rule, one_device(), start)
            half.train_on_batch(x[part], y[part])
        weights.append(half.get_weights())
    return [(a + b) / 2 for a, b in zip(*weights, strict=True)]


# One global step of 16, two shards of 8.
x, y = data(16)
pair = None
for name, rule in rows:
    single = made(name, rule, one_device())
    start = single.get_weights()
    double = made(name, rule, strategy.scope(), start)
    if (name, rule) == ("graph", "gevb"):
        pair = single, double
    validation = {"validation_data": (x, y)} if (name, rule) == ("graph", "gevb") else {}
    logs = fit(single, x, y, **validation), fit(double, x, y, **validation)
    measured[f"logs {name} {rule}"] = apart(*logs)
    pairs = zip(start, double.get_weights(), strict=True)
    measured[f"moved {name} {rule}"] = max(np.abs(a - b).max() for a, b in pairs)
    if rule in NOISY:
        single.set_weights(halves(name, rule, start))
    measured[f"step {name} {rule}"] = distance(single, double)


def uneven():
    """16 + 5 samples: the uneven last batch is weighted as Keras's own autodiff step weights it."""
    x, y = data(21)
    with strategy.scope():
        ours = traced(sequential("backprop"), metrics=["accuracy"], jit_compile=False)
        stock = traced(twin(ours), metrics=["accuracy"], jit_compile=False)
    measured["logs uneven"] = apart(fit(ours, x, y), fit(stock, x, y))
    pairs = zip(ours.trainable_variables, stock.trainable_variables, strict=True)
    measured["step uneven"] = max(np.abs(a - b).max() for a, b in pairs)


def afterwards(single, double):
    """What is asked of trained models."""
    # A checkpoint of one continues on the other.
    for way, model, target in (
        ("two to one", double, one_device()),
        ("one to two", single, strategy.scope()),
    ):
        path = f"{folder}/{way}.keras"
        model.save(path)
        with target:
            resumed = keras.models.load_model(path)
        measured[f"loaded {way}"] = distance(model, resumed)
        fit(model, *data(16, seed=1))
        fit(resumed, *data(16, seed=1))
        measured[f"resumed {way}"] = distance(model, resumed)

    # Nonnegative under two replicas.
    fit(double, *data(64), epochs=2)
    measured["negative"] = -min(
        float(np.min(layer.kernel)) for layer in double.layers if getattr(layer, "constrained", False)
    )

    # Predict and evaluate run under the strategy.
    x, y = data(32)
    single.set_weights(double.get_weights())
    measured["predict"] = float(np.abs(double.predict(x, verbose=0) - single.predict(x, verbose=0)).max())
    logs = [model.evaluate(x, y, verbose=0, return_dict=True) for model in (double, single)]
    measured["evaluate"] = apart(*logs)


if pair is not None:
    uneven()
    afterwards(*pair)
print(json.dumps({name: float(value) for name, value in measured.items()}))
