"""The README's first code block in a folder of its own, and what it leaves, loaded again.

Prints the versions that it ran with.
"""

import contextlib
import io
import os
import pathlib
import platform
import re
import tempfile

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"

code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL).group(1)
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    names = {}
    with contextlib.redirect_stdout(io.StringIO()):  # the progress of its epochs
        exec(code, names)

    import keras
    import keras_tuner
    import numpy as np
    import tensorflow as tf

    model, (x, _) = names["model"], names["test"]
    logits = model.predict(x, verbose=0)
    loaded = keras.models.load_model("digits.keras")
    assert repr(loaded.learning_rule) == repr(model.learning_rule)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), logits, rtol=0, atol=1e-6)
    served = tf.saved_model.load("digits_savedmodel")
    np.testing.assert_allclose(served.serve(x.astype("float32")), logits, rtol=0, atol=1e-5)
    constrained = [layer for layer in model.layers if getattr(layer, "constrained", False)]
    assert constrained
    assert all(np.min(layer.kernel) >= 0 for layer in constrained)
    # The digits are ten kinds: five epochs teach more than guessing does, by far.
    accuracy = model.evaluate(*names["test"], verbose=0, return_dict=True)["accuracy"]
    assert accuracy > 0.8, accuracy
    os.chdir(README.parent)

print(
    f"main job: accuracy {accuracy:.3f}; Python {platform.python_version()}, Keras {keras.__version__}, "
    f"TensorFlow {tf.__version__}, keras-tuner {keras_tuner.__version__}, NumPy {np.__version__}"
)
