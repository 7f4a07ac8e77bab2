"""Plants mistakes in a copy of the project, one at a time, and tells which of them the tests catch.

    python tests/mutants.py                                      # all
    python tests/mutants.py --only data "*strides*"              # kinds, or patterns of sentences
    python tests/mutants.py --list
    python tests/mutants.py --report docs/results/mutants.md

Each mistake is small and plausible: a line of a file in another wording, and the tests that concern
it. What is planted by others than the tests' authors is worth more: add rows. A mistake whose line
is gone is an error; find where the line went, and write the row anew.
"""

import argparse
import dataclasses
import fnmatch
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time

from rich.console import Console
from rich.progress import track

ROOT = pathlib.Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "runs", "build", "dist")
SETTINGS = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "1",
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
}
# pytest's exit status: what it means for a mistake.
STATUS = {0: "survived", 1: "caught", 2: "caught", 3: "caught"}


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A mistake.

    Attributes:
        kind: What it concerns.
        sentence: What is wrong.
        file: The file, from the project's root.
        old, new: A text that stands there once, and what stands there instead.
        tests: Arguments of pytest: the tests that concern it.
    """

    kind: str
    sentence: str
    file: str
    old: str
    new: str
    tests: tuple

    def check(self, folder):
        """What is wrong with the row: its text must stand in the file once. Empty if nothing is."""
        path = folder / self.file
        count = path.read_text().count(self.old) if path.exists() else 0
        if count == 1:
            return ""
        return (
            f"'{self.sentence}' ({self.kind}): its text stands {count} times in {self.file}, not once. "
            f"Received: {self.old!r}. Write the row anew."
        )

    def plant(self, folder):
        """Write the mistake; returns the file and its text without it."""
        path = folder / self.file
        text = path.read_text()
        path.write_text(text.replace(self.old, self.new))
        return path, text


# kind, the tests that concern it: rows (sentence, file, old, new)
TABLE = {
    ("data", "tests/test_datasets.py"): [
        (
            "all digits are training images",
            "keras_gevb/datasets.py",
            "return (images[~test], labels[~test])",
            "return (images, labels)",
        ),
        (
            "test images are the training images",
            "keras_gevb/datasets.py",
            "(images[test], labels[test])",
            "(images[~test], labels[~test])",
        ),
        (
            "the splits are exchanged",
            "keras_gevb/datasets.py",
            'for split in ("train", "test")',
            'for split in ("test", "train")',
        ),
        ("labels are of another type", "keras_gevb/datasets.py", 'astype("int64")', 'astype("int32")'),
        (
            "labels are in another order than images",
            "keras_gevb/datasets.py",
            '(train["image"], train["label"])',
            '(train["image"], train["label"][::-1])',
        ),
        ("every fourth is a test image", "keras_gevb/datasets.py", "% 5 == 4", "% 4 == 3"),
        (
            "the environment goes before the argument",
            "keras_gevb/datasets.py",
            'data_dir or os.environ.get("TFDS_DATA_DIR")',
            'os.environ.get("TFDS_DATA_DIR") or data_dir',
        ),
    ],
    ("experiments", "tests/test_protocol.py -k 'representations or goes_on'"): [
        (
            "a convolutional run is not measured so",
            "keras_gevb/experiments/run.py",
            'self.files.cell.architecture == "conv"',
            'self.files.cell.architecture == "cnn"',
        ),
        (
            "trained weights are not put back after the representation is measured",
            "keras_gevb/experiments/run.py",
            "        self._set(trained)\n",
            "",
        ),
        (
            "before is measured after",
            "keras_gevb/experiments/run.py",
            "representation, before, after, images[1])",
            "representation, after, before, images[1])",
        ),
        (
            "representations are of training images",
            "keras_gevb/experiments/run.py",
            "self.x_test[: representation.IMAGES], self.y_test[: representation.IMAGES]",
            "self.x[: representation.IMAGES], self.y[: representation.IMAGES]",
        ),
    ],
    ("experiments", "tests/test_protocol.py -k 'written_out and gevb'"): [
        (
            "the order of the data is the same in every epoch",
            "keras_gevb/experiments/run.py",
            "data_order(self.result.seed, self.result.epochs,",
            "data_order(self.result.seed, 0,",
        ),
        (
            "the order of the data ignores the seed",
            "keras_gevb/experiments/run.py",
            "data_order(self.result.seed,",
            "data_order(0,",
        ),
        (
            "labels are not put in order",
            "keras_gevb/experiments/run.py",
            "self.y[order],",
            "self.y[: len(order)],",
        ),
        (
            "epsilon is not handed on",
            "keras_gevb/experiments/run.py",
            "Adam(protocol.learning_rate, epsilon=protocol.epsilon)",
            "Adam(protocol.learning_rate)",
        ),
        (
            "the learning rate is not handed on",
            "keras_gevb/experiments/run.py",
            "Adam(protocol.learning_rate,",
            "Adam(3e-4,",
        ),
        (
            "the batch size is not handed on",
            "keras_gevb/experiments/run.py",
            "batch_size=self.protocol.batch_size,\n            shuffle",
            "batch_size=128,\n            shuffle",
        ),
        (
            "losses of training and test are exchanged",
            "keras_gevb/experiments/run.py",
            '"train_loss": train_loss,\n                "test_loss": test_loss,',
            '"train_loss": test_loss,\n                "test_loss": train_loss,',
        ),
        (
            "the weights ignore the seed",
            "keras_gevb/experiments/run.py",
            "keras.utils.set_random_seed(seed)",
            "keras.utils.set_random_seed(0)",
        ),
    ],
    ("experiments", "tests/test_protocol.py -k 'option or before_training or last_hidden'"): [
        (
            "--first-seed trains nothing",
            "keras_gevb/experiments/__main__.py",
            "range(options.first_seed, options.first_seed + options.seeds)",
            "range(options.first_seed, options.seeds)",
        ),
        (
            "--evaluate-every does not arrive",
            "keras_gevb/experiments/__main__.py",
            "Protocol(epochs=options.epochs, evaluate_every=options.evaluate_every)",
            "Protocol(epochs=options.epochs)",
        ),
        (
            "alignment before training is of one seed",
            "keras_gevb/experiments/initial.py",
            'keras.utils.set_random_seed(row["seed"])',
            "keras.utils.set_random_seed(0)",
        ),
        (
            "cluster quality takes the overall distance for the one within",
            "keras_gevb/experiments/representation.py",
            "np.sqrt(within / overall)",
            "np.sqrt(overall / within)",
        ),
    ],
    ("report", "tests/test_report.py"): [
        (
            "rules are compared across the signs of weights",
            "keras_gevb/experiments/statistics.py",
            "(cell.dataset, cell.architecture, cell.weights)",
            "(cell.dataset, cell.architecture)",
        ),
        (
            "rules are compared across architectures",
            "keras_gevb/experiments/statistics.py",
            "(cell.dataset, cell.architecture, cell.weights)",
            "(cell.dataset, cell.weights)",
        ),
        (
            "a difference has the other sign",
            "keras_gevb/experiments/statistics.py",
            "float(np.mean(a - b)), p)",
            "float(np.mean(b - a)), p)",
        ),
        (
            "train panels show test errors",
            "keras_gevb/experiments/figures.py",
            'f"{which}_error_percent")\n            style',
            '"test_error_percent")\n            style',
        ),
        (
            "cluster quality after training is drawn as before",
            "keras_gevb/experiments/representation_figures.py",
            'for when in ("before", "after")\n            )',
            'for when in ("after", "before")\n            )',
        ),
        (
            "maps before and after training are the same",
            "keras_gevb/experiments/representation_figures.py",
            'arrays[f"map_{when}"]',
            'arrays["map_after"]',
        ),
        (
            "the order begins with the highest error",
            "keras_gevb/experiments/tables.py",
            'key=lambda summary: summary.mean("test"))',
            'key=lambda summary: -summary.mean("test"))',
        ),
    ],
    ("zoo", "tests/test_zoo.py"): [
        (
            "conventional cifar10-lc has half the width",
            "keras_gevb/zoo.py",
            '("dense", 512)]}',
            '("dense", 256)]}',
        ),
        ("mnist-conv has half the filters", "keras_gevb/zoo.py", '("conv", 64, 3, 1', '("conv", 32, 3, 1'),
        (
            "cifar10-conv ends without stride",
            "keras_gevb/zoo.py",
            '("conv", 64, 2, 2, "valid")',
            '("conv", 64, 2, 1, "valid")',
        ),
        (
            "digits-lc has no padding",
            "keras_gevb/zoo.py",
            '("lc", 16, 3, 1, "same")',
            '("lc", 16, 3, 1, "valid")',
        ),
        (
            "cifar10-conv has smaller windows",
            "keras_gevb/zoo.py",
            '("conv", 64, 5, 1',
            '("conv", 64, 3, 1',
        ),
        (
            "pixels are scaled to between 0 and 1",
            "keras_gevb/zoo.py",
            "keras.layers.Rescaling(2 / brightest, offset=-1)",
            "keras.layers.Rescaling(1 / brightest)",
        ),
        (
            "a conventional readout has one sign where hidden layers have both",
            "keras_gevb/zoo.py",
            "layers.Dense(outputs, gated=False, **later)",
            "layers.Dense(outputs, gated=False, nonnegative=True)",
        ),
        (
            "pools overlap",
            "keras_gevb/zoo.py",
            "yield kinds[kind](size)",
            "yield kinds[kind](size, strides=1, padding='same')",
        ),
    ],
    ("model", "tests/test_keras_features.py -k weighted_metrics"): [
        (
            "weighted metrics know no sample weights",
            "keras_gevb/learning.py",
            "return self.compute_metrics(x, y, outputs, sample_weight=sample_weight)",
            "return self.compute_metrics(x, y, outputs, sample_weight=None)",
        ),
        (
            "the loss knows no sample weights",
            "keras_gevb/step.py",
            "targets.compute_loss(model, self.x, y, outputs, sample_weight)",
            "targets.compute_loss(model, self.x, y, outputs, None)",
        ),
    ],
    ("model", "tests/test_saving.py -k 'built_by or every_argument or changed'"): [
        (
            "a rule's weights of a model built late are not loaded",
            "keras_gevb/saving.py",
            "    def load_own_variables(self, store):\n        self._build_rule()\n",
            "    def load_own_variables(self, store):\n",
        ),
        (
            "low_memory is lost on save",
            "keras_gevb/rules/base.py",
            'return {"low_memory": self.low_memory}',
            "return {}",
        ),
        (
            "DFA's range is lost on save",
            "keras_gevb/rules/dfa.py",
            '"nonnegative": self.nonnegative, "seed": self.seed}',
            '"seed": self.seed}',
        ),
        (
            "FA's seed is lost on save",
            "keras_gevb/rules/backprop.py",
            'return {"seed": self.seed}',
            "return {}",
        ),
    ],
    ("rules", "tests/test_feedback.py -k 'shape or seed or chosen or uniform'"): [
        (
            "FA has one seed for all layers",
            "keras_gevb/rules/backprop.py",
            "layer.feedback(self.seed + n)",
            "layer.feedback(self.seed)",
        ),
        (
            "FA's feedback ignores its seed",
            "keras_gevb/layers/base.py",
            "functools.partial(self.initial_kernel, seed=seed)",
            "self.initial_kernel",
        ),
        (
            "DFA ignores the range that it is given",
            "keras_gevb/rules/dfa.py",
            "        nonnegative = self.nonnegative\n",
            "        nonnegative = None\n",
        ),
        (
            "DFA's feedback has the seed 0 where none is given",
            "keras_gevb/rules/dfa.py",
            "random.randint(1, 10**9) if seed is None else seed",
            "0 if seed is None else seed",
        ),
    ],
    ("rules", "tests/test_initializers.py -k 'different or seed'"): [
        (
            "all layers draw from one seed",
            "keras_gevb/initializers.py",
            "self.seed = random.randint(1, 10**9) if seed is None else seed",
            "self.seed = 1 if seed is None else seed",
        ),
        (
            "all positions draw one kernel",
            "keras_gevb/layers/weights.py",
            "flat = initializer((*inputs, math.prod(positions + outputs)), dtype=dtype)",
            "flat = ops.tile(initializer((*inputs, math.prod(outputs)), dtype=dtype), "
            "(*(1,) * len(inputs), math.prod(positions)))",
        ),
    ],
    ("export", "tests/test_export.py -k 'frozen_stock or pools or windows or edge or inference'"): [
        (
            "weights of frozen stock layers are lost",
            "keras_gevb/export.py",
            "        return copy.deepcopy(layer)\n",
            "        return type(layer).from_config(layer.get_config())\n",
        ),
        (
            "strides of pools are lost",
            "keras_gevb/export.py",
            "layer.pool_size, layer.strides, layer.padding,",
            "layer.pool_size, None, layer.padding,",
        ),
        (
            "paddings of pools are lost",
            "keras_gevb/export.py",
            "layer.pool_size, layer.strides, layer.padding,",
            'layer.pool_size, layer.strides, "valid",',
        ),
        (
            "hidden units are those of training",
            "keras_gevb/export.py",
            "        model(inputs, training=False)\n    units",
            "        model(inputs, training=True)\n    units",
        ),
        (
            "served logits are those of training",
            "keras_gevb/export.py",
            "functools.partial(model, training=False)",
            "functools.partial(model, training=True)",
        ),
        (
            "a unit at its gate's edge is closed",
            "keras_gevb/export.py",
            "ops.expand_dims(aligned >= 0, -2)",
            "ops.expand_dims(aligned > 0, -2)",
        ),
        (
            "biases of vector convolutions are lost",
            "keras_gevb/export.py",
            "        if not bias:\n            return h\n",
            "        return h\n",
        ),
        (
            "strides of vector convolutions are lost",
            "keras_gevb/export.py",
            "(*layer.kernel_size, 1), (*layer.strides, 1)\n        convolution",
            "(*layer.kernel_size, 1), 1\n        convolution",
        ),
        (
            "biases of dense layers are lost",
            "keras_gevb/export.py",
            "_einsum(layer, equation, shape, _weights(layer), bias_axes)(inputs)",
            "_einsum(layer, equation, shape, _weights(layer)[:1])(inputs)",
        ),
    ],
    ("checks", "tests/test_errors.py -k 'refused_before_training or branch or ignored'"): [
        (
            "models of several inputs are not checked to be linear",
            "keras_gevb/learning.py",
            "        structure.check_linear(self, x, forward)\n",
            "        if not isinstance(x, (list, tuple)):\n"
            "            structure.check_linear(self, x, forward)\n",
        ),
        (
            "beside an ignored class any label will do",
            "keras_gevb/targets.py",
            "valid = ops.logical_or(valid, numbers == ignored)",
            "valid = ops.ones_like(valid)",
        ),
        (
            "the ignored class is a bad label",
            "keras_gevb/targets.py",
            "    if ignored is not None:",
            "    if False:",
        ),
    ],
    ("checks", "tests/test_workflows.py -k inputs_may_be_a_list"): [
        (
            "linear networks are refused, if they have several inputs",
            "keras_gevb/structure.py",
            "    rounding = 0.05 if",
            "    rounding = -1 if isinstance(x, (list, tuple)) else 0.05 if",
        ),
    ],
    ("checks", "tests/test_errors.py -k refused_before_training"): [
        (
            "stock layers with weights are not seen in nested models",
            "keras_gevb/structure.py",
            "    orphans = [v for v in model.trainable_variables if",
            "    own = [v for layer in model.layers for v in getattr(layer, '_trainable_variables', ())]\n"
            "    orphans = [v for v in own if",
        ),
        (
            "losses that layers add are served by any rule",
            "keras_gevb/structure.py",
            "    if not added or rule.is_exact:",
            "    if not added or True:",
        ),
        (
            "a readout may be followed by other layers",
            "keras_gevb/structure.py",
            "if not last.is_readout or outputs[0] is not records[-1].outputs:",
            "if not last.is_readout:",
        ),
    ],
    ("checks", "tests/test_hostile_files.py -k 'wrong_entries or older'"): [
        (
            "only another major version is newer",
            "keras_gevb/version.py",
            'version.split(".")[:2])',
            'version.split(".")[:1])',
        ),
        (
            "versions are compared as words",
            "keras_gevb/version.py",
            "tuple(int(number) for number in",
            "tuple(str(number) for number in",
        ),
        (
            "older files are refused",
            "keras_gevb/version.py",
            "_release(version) > _release(__version__)",
            "_release(version) != _release(__version__)",
        ),
    ],
    ("layers", "tests/test_layers.py -k 'pooling or restored'"): [
        (
            "fused pools cover a width that they do not divide",
            "keras_gevb/layers/shaping.py",
            "height % rows == width % columns == 0",
            "height % rows == 0",
        ),
        (
            "fused pools cover a height that they do not divide",
            "keras_gevb/layers/shaping.py",
            "height % rows == width % columns == 0",
            "width % columns == 0",
        ),
        (
            "fused pools do not overlap where they should",
            "keras_gevb/layers/shaping.py",
            "tuple(self.strides) == (rows, columns) and",
            "",
        ),
        (
            "constraints are lost on save",
            "keras_gevb/layers/weights.py",
            'for kind in ("initializer", "regularizer", "constraint"):',
            'for kind in ("initializer", "regularizer"):',
        ),
        (
            "gated=False is lost on save",
            "keras_gevb/layers/weights.py",
            '            "gated": self.gated,\n',
            "",
        ),
        (
            "nonnegative is lost on save",
            "keras_gevb/layers/weights.py",
            '            "nonnegative": self.nonnegative,\n',
            "",
        ),
        (
            "strides are lost on save",
            "keras_gevb/layers/convolutional.py",
            '            "strides": self.strides,\n',
            "",
        ),
        (
            "the gates' initializer is lost on save",
            "keras_gevb/layers/weights.py",
            "keras.initializers.serialize(self.gates_initializer)",
            "None",
        ),
    ],
    ("layers", "tests/test_precision.py -k gates"): [
        (
            "a contracted gate is decided in half precision, from kernels",
            "keras_gevb/layers/base.py",
            "kernel = ops.sum(ops.cast(self.kernel, dtype) * gates, axis=-2)",
            "kernel = ops.cast(ops.sum(self.kernel * ops.cast(gates, self.compute_dtype), axis=-2), dtype)",
        ),
        (
            "a contracted gate is decided in half precision, from biases",
            "keras_gevb/layers/base.py",
            "aligned + ops.sum(ops.cast(self.bias, dtype) * gates, axis=-2)",
            "aligned + ops.cast(ops.sum(self.bias * ops.cast(gates, self.compute_dtype), axis=-2), dtype)",
        ),
        (
            "a gate is decided in half precision",
            "keras_gevb/layers/base.py",
            "return ops.sum(ops.cast(h, dtype) * gates, axis=-2) >= 0",
            "return ops.sum(h * ops.cast(gates, h.dtype), axis=-2) >= 0",
        ),
    ],
    ("layers", "tests/test_hostile_files.py -k loops"): [
        (
            "windows that need an odd padding begin one too early",
            "keras_gevb/layers/convolutional.py",
            "missing // 2, missing - missing // 2",
            "missing - missing // 2, missing // 2",
        ),
    ],
    (
        "execution",
        "tests/test_execution.py -k 'compiled_is or little_memory or twice or parts or one_sample'",
    ): [
        (
            "jit_compile=False is compiled all the same",
            "keras_gevb/backend/compiling.py",
            "if tf.executing_eagerly() or self._jit is False or not",
            "if tf.executing_eagerly() or not",
        ),
        (
            "dense networks are compiled in parts",
            "keras_gevb/backend/compiling.py",
            "return self._jit is True or not spatial or",
            "return self._jit is True or",
        ),
        (
            "locally connected networks are compiled as a whole",
            "keras_gevb/backend/compiling.py",
            '_IN_PARTS = "Conv", "LocallyConnected"',
            '_IN_PARTS = ("Conv",)',
        ),
        (
            "convolutions are compiled as a whole",
            "keras_gevb/backend/compiling.py",
            '_IN_PARTS = "Conv", "LocallyConnected"',
            '_IN_PARTS = ("LocallyConnected",)',
        ),
        (
            "convolutions are compiled in their parts",
            "keras_gevb/backend/compiling.py",
            '_OUTSIDE = "Conv", "BatchMatMul",',
            '_OUTSIDE = "BatchMatMul",',
        ),
        (
            "with little memory nothing waits, uncompiled",
            "keras_gevb/backend/tensorflow.py",
            "        return [tf.identity(tensor) for tensor in tensors]",
            "        return list(tensors)",
        ),
        (
            "with little memory nothing waits, compiled",
            "keras_gevb/backend/tensorflow.py",
            "return [tensor + tf.cast(nothing, tensor.dtype) for tensor in tensors]",
            "return list(tensors)",
        ),
        (
            "low_memory is ignored",
            "keras_gevb/step.py",
            "        if self.rule.low_memory:\n            updating",
            "        if False:\n            updating",
        ),
        (
            "the optimizer is not compiled as one",
            "keras_gevb/backend/compiling.py",
            "if not fusing() or tf.distribute.has_strategy():",
            "if True:",
        ),
    ],
    (
        "tuning",
        "tests/test_tuning.py -k 'logarithm or evenly or table or fitted or batch_size or compiled_as or "
        "brightest or seed_makes'",
    ): [
        (
            "every trial has batches of 32",
            "keras_gevb/tuning/hypermodel.py",
            'kwargs.setdefault("batch_size", batch_size)',
            'kwargs.setdefault("batch_size", 32)',
        ),
        *(
            (
                f"{name} is drawn evenly",
                "keras_gevb/tuning/hypermodel.py",
                '"log" if name in _LOGARITHMIC else "linear"',
                f'"log" if name in _LOGARITHMIC - {{"{name}"}} else "linear"',
            )
            for name in ("parameters", "batch_size", "initial_scale")
        ),
        (
            "whole numbers are drawn as fractions",
            "keras_gevb/tuning/hypermodel.py",
            "ask = hp.Int if isinstance(low, int) and isinstance(high, int) else hp.Float",
            "ask = hp.Float",
        ),
        (
            "the learning rate of a trial is not handed on",
            "keras_gevb/tuning/hypermodel.py",
            '"config": {"learning_rate": learning_rate}',
            '"config": {}',
        ),
        ("depth is at most 2", "keras_gevb/tuning/hypermodel.py", '"depth": (1, 3)', '"depth": (1, 2)'),
        (
            "inputs are scaled to between 0 and 2",
            "keras_gevb/tuning/hypermodel.py",
            "keras.layers.Rescaling(2 / self.brightest, offset=-1)",
            "keras.layers.Rescaling(2 / self.brightest)",
        ),
    ],
    ("tuning", "tests/test_tuning_survival.py -k failed"): [
        (
            "failed trials run again after a restart",
            "keras_gevb/tuning/tuners.py",
            "_ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)",
            "_ENDED = (TrialStatus.COMPLETED,)",
        ),
    ],
    ("diagnostics", "tests/test_diagnostics.py -k 'loops_signals or zero_weights'"): [
        (
            "backpropagation's signal is the rule's own",
            "keras_gevb/diagnostics/measures.py",
            "zip(step.records, step.backward(), step.signals(), strict=True)",
            "zip(step.records, step.signals(), step.signals(), strict=True)",
        ),
        (
            "the rule's signal is backpropagation's",
            "keras_gevb/diagnostics/measures.py",
            "zip(step.records, step.backward(), step.signals(), strict=True)",
            "zip(step.records, step.backward(), step.backward(), strict=True)",
        ),
        (
            "negative weights count as zero",
            "keras_gevb/diagnostics/measures.py",
            "ops.convert_to_numpy(layer.kernel) == 0)",
            "ops.convert_to_numpy(layer.kernel) <= 0)",
        ),
        (
            "biases count as weights that are zero",
            "keras_gevb/diagnostics/measures.py",
            "ops.convert_to_numpy(layer.kernel) == 0)",
            "np.append(layer.kernel, layer.bias) == 0)",
        ),
    ],
    ("examples", "tests/test_examples.py -k 'train or first_command or tuning'"): [
        (
            "the table shows the training error",
            "examples/train.py",
            'histories[rule]["val_accuracy"][-1]',
            'histories[rule]["accuracy"][-1]',
        ),
        (
            "the smallest kernel is the first layer's",
            "examples/train.py",
            "for layer in weighty[1:])",
            "for layer in weighty)",
        ),
        (
            "the learning rate of the command line does not arrive",
            "examples/train.py",
            "keras.optimizers.Adam(options.learning_rate, epsilon=1e-8)",
            "keras.optimizers.Adam(epsilon=1e-8)",
        ),
        (
            "the tuner sees test images",
            "examples/tune.py",
            "return hypermodel, (x_train, y_train), (x_val, y_val), (x, y), test",
            "return hypermodel, (x_train, y_train), test, (x, y), test",
        ),
    ],
    ("docstrings", "tests/test_docstrings.py -k 'zoo or dense or rules'"): [
        ("an example shows another shape", "keras_gevb/zoo.py", "    (None, 10)\n", "    (None, 11)\n"),
        (
            "an example calls what is not there",
            "keras_gevb/rules/__init__.py",
            '>>> keras_gevb.rules.get("gevb")',
            '>>> keras_gevb.rules.find("gevb")',
        ),
    ],
}
MUTANTS = [Mutant(kind, *row, tests) for (kind, tests), rows in TABLE.items() for row in rows]


def run_tests(folder, tests, seconds):
    """pytest's exit status in a folder; None where it took longer.

    In a fork of this process, which has TensorFlow and Keras imported and has computed nothing.
    """
    child = os.fork()
    if not child:
        os.setsid()
        output = os.open(folder / "pytest.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(folder)
        import pytest

        options = ["-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder)]
        os._exit(pytest.main([*options, "-m", "long or not long", *tests]))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def split(tests):
    """pytest's arguments, from a line such as "tests/test_zoo.py -k 'one or two'"."""
    import shlex

    return shlex.split(tests)


def chosen(patterns):
    """The mutants of these kinds, or whose sentences match these patterns."""
    return [
        mutant
        for mutant in MUTANTS
        if any(pattern == mutant.kind or fnmatch.fnmatch(mutant.sentence, pattern) for pattern in patterns)
    ]


def table(outcomes):
    """The report in Markdown."""
    caught = sum(outcome.startswith("caught") for outcome in outcomes.values())
    lines = [
        "# Mistakes planted on purpose",
        "",
        f"`python tests/mutants.py` planted {len(outcomes)} mistakes in a copy of the project, one at a "
        f"time, and ran the tests that concern each: {caught} were caught, {len(outcomes) - caught} not.",
        "",
        "| concerns | mistake | file | outcome |",
        "| :-- | :-- | :-- | :-- |",
    ]
    for mutant, outcome in outcomes.items():
        lines.append(f"| {mutant.kind} | {mutant.sentence} | `{mutant.file}` | {outcome} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="PATTERN", help="kinds, or patterns of sentences"
    )
    parser.add_argument("--list", action="store_true", help="name the mistakes, and plant none")
    parser.add_argument("--check", action="store_true", help="see that each text stands in its file once")
    parser.add_argument("--report", type=pathlib.Path, metavar="FILE", help="write the outcomes as Markdown")
    parser.add_argument(
        "--seconds", type=float, default=600, help="for the tests of one mistake; more is caught too"
    )
    options = parser.parse_args()
    console, mutants = Console(), chosen(options.only)
    if not mutants:
        parser.error(f"no mistake is named so. Received: {options.only}")
    if options.list:
        for mutant in mutants:
            console.print(f"{mutant.kind}: {mutant.sentence} ({mutant.file})", highlight=False)
        return 0
    wrong = [problem for problem in (mutant.check(ROOT) for mutant in mutants) if problem]
    for problem in wrong:
        console.print(f"error: {problem}", highlight=False, soft_wrap=True, markup=False)
    if wrong or options.check:
        return 2 if wrong else 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(shutil.copytree(ROOT, pathlib.Path(temporary) / "mutant", ignore=LEFT_OUT))
        return plant_all(folder, mutants, options, console)


def plant_all(folder, mutants, options, console):
    os.environ.update({name: os.environ.get(name, value) for name, value in SETTINGS.items()})
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (folder, folder / "tests")))
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(folder), str(folder / "tests")]
    import keras  # noqa: F401  once for all forks

    outcomes, sound = {}, {}
    for mutant in track(mutants, "mistakes", console=console):
        tests = split(mutant.tests)
        if mutant.tests not in sound:
            sound[mutant.tests] = run_tests(folder, tests, 10 * options.seconds)
        if sound[mutant.tests] != 0:
            log = (folder / "pytest.log").read_text()[-3000:]
            raise SystemExit(f"error: without a mistake these tests fail: {mutant.tests}\n{log}")
        path, text = mutant.plant(folder)
        status = run_tests(folder, tests, options.seconds)
        path.write_text(text)
        outcomes[mutant] = (
            "caught (too slow)" if status is None else STATUS.get(status, f"pytest said {status}")
        )
        console.print(f"{outcomes[mutant]}: {mutant.kind}: {mutant.sentence}", highlight=False)
    if options.report:
        options.report.write_text(table(outcomes))
    survivors = [mutant for mutant, outcome in outcomes.items() if not outcome.startswith("caught")]
    console.print(f"{len(outcomes) - len(survivors)} of {len(outcomes)} mistakes were caught.")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
