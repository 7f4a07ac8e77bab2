"""Answer requests from a SavedModel, in a process that can import neither Keras nor keras_gevb.

Arguments: the SavedModel's folder, a file of pixels, the file for the answers.
"""

import sys

sys.modules.update(dict.fromkeys(["keras", "keras_gevb", "tf_keras"]))

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

folder, requests, answers = sys.argv[1:]
served = tf.saved_model.load(folder)
pixels = np.load(requests)
logits, units = served.signatures["serving_default"], served.signatures["hidden_units"]
(name,) = logits.structured_input_signature[1]
results = {}
for size in (1, 3, len(pixels)):
    batch = {name: tf.constant(pixels[:size])}
    (results[f"logits/{size}"],) = logits(**batch).values()
    results |= {f"{layer}/{size}": activity for layer, activity in units(**batch).items()}
np.savez(answers, **results)
