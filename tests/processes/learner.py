"""Learn by an exported step, in a process that can import neither Keras nor keras_gevb.

Arguments: "saved_model", "litert" or "onnx"; the file; batches (x, y, sample_weight), the state to start
from or "", and the file for losses and the state. For LiteRT and ONNX there is no TensorFlow either.
"""

import sys

if __name__ == "__main__":
    missing = ["keras", "keras_gevb", "tf_keras"]
    missing += [] if sys.argv[1] == "saved_model" else ["tensorflow"]
    sys.modules.update(dict.fromkeys(missing))

import numpy as np

NAMES = "x", "y", "sample_weight"


class SavedModel:
    def __init__(self, file):
        import tensorflow as tf

        self.learner = tf.saved_model.load(str(file))

    def train(self, *batch):
        train = self.learner.train if len(batch) == 2 else self.learner.train_weighted
        return {name: float(value) for name, value in train(*batch).items()}

    def infer(self, x):
        return self.learner.serve(x).numpy()

    def get_state(self):
        return {name: value.numpy() for name, value in self.learner.get_state().items()}

    def set_state(self, state):
        self.learner.signatures["set_state"](**state)


class LiteRT:
    def __init__(self, file):
        from ai_edge_litert.interpreter import Interpreter

        self.runner = Interpreter(str(file)).get_signature_runner

    def train(self, *batch):
        name = "train" if len(batch) == 2 else "train_weighted"
        return self.runner(name)(**dict(zip(NAMES, batch)))

    def infer(self, x):
        return self.runner("infer")(x=x)["logits"]

    def get_state(self):
        return self.runner("get_state")()

    def set_state(self, state):
        self.runner("set_state")(**state)


class ONNX:
    def __init__(self, file):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # not a warning for each default
        self.session = onnxruntime.InferenceSession(str(file), options)
        self.state = {}

    def train(self, *batch):
        values = self.session.run(None, {**dict(zip(NAMES, batch)), **self.state})
        # Scalars come as numbers.
        found = {o.name: np.asarray(value) for o, value in zip(self.session.get_outputs(), values)}
        self.state = {name.removesuffix("_new"): v for name, v in found.items() if name.endswith("_new")}
        return found

    def get_state(self):
        return self.state

    def set_state(self, state):
        self.state = dict(state)


RUNTIMES = {"saved_model": SavedModel, "litert": LiteRT, "onnx": ONNX}


def main(kind, file, batches, before, after):
    learner = RUNTIMES[kind](file)
    if before:
        learner.set_state({name: value for name, value in np.load(before).items() if name != "loss"})
    batches = np.load(batches)
    losses = [float(learner.train(*batch)["loss"]) for batch in zip(*(batches[name] for name in NAMES))]
    np.savez(after, loss=losses, **learner.get_state())


if __name__ == "__main__":
    main(*sys.argv[1:])
