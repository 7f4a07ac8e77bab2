"""keras.distribution on four virtual devices against one: prints how far they are apart, as JSON.

Arguments: a folder, and rows "MODEL RULE" of which a step is compared.
"""

import json
import os
import sys

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"

import keras
import numpy as np
from keras import distribution
from workflows import build, data, distance, traced

folder, rows = sys.argv[1], [row.split() for row in sys.argv[2:]]
measured = {"devices": len(distribution.list_devices())}


def data_parallel():
    return distribution.DataParallel(auto_shard_dataset=False)


def model_parallel(model):
    """Two shards of the batch, and every weight of an even number of units over two devices."""
    layout = distribution.LayoutMap(distribution.DeviceMesh((2, 2), ("batch", "units")))
    for weight in model.weights:
        name = "/".join(weight.path.split("/")[-2:])  # the layer's and its own
        if weight.shape and weight.shape[-1] % 2 == 0:
            layout[f"(.*/)?{name}"] = (None,) * (len(weight.shape) - 1) + ("units",)
    return distribution.ModelParallel(layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False)


def made(name, rule, devices=None, weights=None):
    distribution.set_distribution(devices)
    keras.utils.set_random_seed(20211)  # of the rule's noise, too
    model = traced(build(name, rule), keras.optimizers.SGD(0.1, momentum=0.9), metrics=["accuracy"])
    if weights is not None:
        model.set_weights(weights)
    return model


def fit(model, x, y, **settings):
    logs = model.fit(x, y, batch_size=16, shuffle=False, verbose=0, **settings).history
    return {name: values[-1] for name, values in logs.items()}


def apart(logs, other):
    return max(abs(logs[name] - other[name]) for name in logs)


def placed(model):
    """On how many devices the weights are, and how many of them are split."""
    places = [weight.value.sharding for weight in model.weights]
    return min(len(p.device_set) for p in places), sum(not p.is_fully_replicated for p in places)


# One global step of 16.
x, y = data(16)
for name, rule in rows:
    single = made(name, rule)
    start = single.get_weights()
    logs = fit(single, x, y)
    measured[f"moved {name} {rule}"] = max(
        np.abs(a - b).max() for a, b in zip(start, single.get_weights(), strict=True)
    )
    for kind, devices in {"data": data_parallel(), "model": model_parallel(single)}.items():
        several = made(name, rule, devices, start)
        measured[f"logs {kind} {name} {rule}"] = apart(logs, fit(several, x, y))
        measured[f"step {kind} {name} {rule}"] = distance(single, several)
        measured[f"devices {kind} {name} {rule}"], measured[f"split {kind} {name} {rule}"] = placed(several)

# A model that is trained on four devices: nonnegative, evaluated, saved, and on one device again.
x, y = data(64)
several = made("graph", "gevb", data_parallel())
fit(several, x, y)
measured["negative"] = -min(
    float(np.min(layer.kernel)) for layer in several.layers if getattr(layer, "constrained", False)
)
evaluated = several.evaluate(x, y, batch_size=16, verbose=0, return_dict=True)
predicted = several.predict(x, batch_size=16, verbose=0)
several.save(f"{folder}/several.keras")
distribution.set_distribution(None)
single = keras.models.load_model(f"{folder}/several.keras")
measured["loaded"] = distance(several, single)
measured["evaluate"] = apart(evaluated, single.evaluate(x, y, batch_size=16, verbose=0, return_dict=True))
measured["predict"] = np.abs(predicted - single.predict(x, batch_size=16, verbose=0)).max()

# Batches of 16 and 5, which four devices cannot share.
try:
    fit(made("sequential", "gevb", data_parallel()), *data(21))
except ValueError as error:
    measured["refused"] = "divisible" in str(error) or "evenly divide" in str(error)
print(json.dumps({name: float(value) for name, value in measured.items()}))
