"""Plants mistakes in a copy of the project, one at a time, and tells which of them the tests catch.

    python tests/mutants.py                                      # all
    python tests/mutants.py --only data "*strides*"              # kinds, or patterns of sentences
    python tests/mutants.py --list
    python tests/mutants.py --report docs/results/mutants.md
    python tests/mutants.py --report docs/results/mutants.md --new   # what it does not have yet
    python tests/mutants.py --daily                              # by what `pytest` runs, without -m long

Each mistake is small and plausible: a line of a file in another wording, and the tests that concern
it. What is planted by others than the tests' authors is worth more: add rows. A mistake whose line
is gone is an error; find where the line went, and write the row anew.
"""

import argparse
import dataclasses
import fnmatch
import importlib.metadata
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time

import settings  # noqa: F401  those of the tests
from rich.console import Console
from rich.progress import track

ROOT = pathlib.Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "runs", "build", "dist")
# pytest's exit status: what it means for a mistake.
STATUS = {0: "survived", 1: "caught", 2: "caught", 3: "caught", 5: "no test"}


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

    @property
    def row(self):
        """Its columns in the report, which tell mistakes apart."""
        return self.kind, self.sentence, f"`{self.file}`"

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
    ("others, diagnostics", "tests/test_diagnostics.py -k 'peeks'"): [
        (
            "the audit does not move what is zero",
            "keras_gevb/diagnostics/locality.py",
            'np.mean(np.square(value, dtype="float64")))) or 1.0',
            'np.mean(np.square(value, dtype="float64"))))',
        ),
    ],
    ("others, labels", "tests/test_errors.py -k 'which_label'"): [
        (
            "NaN is named as the integer that it is taken for",
            "keras_gevb/backend/tensorflow.py",
            "tf.boolean_mask(labels, ~valid)",
            'tf.boolean_mask(tf.cast(labels, "int64"), ~valid)',
        ),
    ],
    ("others, rows", "tests/test_rows.py"): [
        (
            "a loop waits for what it makes itself",
            "keras_gevb/export/rows.py",
            "depths[b] + (b in groups and not shape)",
            "depths[b]",
        ),
        (
            "what is large takes all else row by row",
            "keras_gevb/export/rows.py",
            "s == shape or len(s) < len(shape) for s",
            "s == shape or len(s) <= len(shape) for s",
        ),
        (
            "what one loop makes for others is forgotten",
            "keras_gevb/export/rows.py",
            "elsewhere |= {output.name for output in graph.output}",
            "elsewhere = {output.name for output in graph.output}",
        ),
        (
            "groups that meet stay two loops",
            "keras_gevb/export/rows.py",
            "group = groups[b] + group",
            "group = [*groups[b], node]",
        ),
        (
            "nodes stand before what they read",
            "keras_gevb/export/rows.py",
            "*(makers[name] for name in read(node) if name in makers))",
            ")",
        ),
        (
            "rows are as small as may be",
            "keras_gevb/export/rows.py",
            "math.prod(shape[1:]) >= ROW",
            "True",
        ),
    ],
    ("others, first calls", "tests/test_beside_stock.py -k 'made_in_the_first_call'"): [
        (
            "layers are built by four samples, and by what is not given",
            "keras_gevb/preparation.py",
            "if tensor is None else backend.stand_in(tensor, tensor.shape[0] or 4)",
            "if tensor is not None else backend.stand_in(tensor, tensor.shape[0] or 4)",
        ),
    ],
    ("others, inputs", "tests/test_beside_stock.py -k 'is_missing'"): [
        (
            "an input that is missing has a shape",
            "keras_gevb/places.py",
            "    if tensor is None or tensor.shape[0] is not None:\n",
            "    if False:\n",
        ),
    ],
    (
        "others, drawn for the daily run",
        "tests/test_private.py tests/test_diagnostics.py tests/test_backends.py tests/test_experiments.py "
        "tests/test_beside_stock.py -k 'symbolic_inputs or change_of_nothing or sparse_where or "
        "progress_is or open_extents'",
    ): [
        (
            "a model outside of a graph has no shapes of inputs",
            "keras_gevb/private.py",
            'shapes = (model.get_build_config() or {}).get("input_shape")',
            'shapes = (model.get_build_config() and {}).get("input_shape")',
        ),
        (
            "a change of nothing counts by half",
            "keras_gevb/diagnostics/locality.py",
            "(np.linalg.norm(before) or 1.0)",
            "(np.linalg.norm(before) or 2.0)",
        ),
        (
            "no symbolic tensor is sparse",
            "keras_gevb/backend/tensorflow.py",
            'isinstance(tensor, tf.SparseTensor) or bool(getattr(tensor, "sparse", False))',
            "isinstance(tensor, tf.SparseTensor)",
        ),
        (
            "progress is a batch ahead",
            "keras_gevb/experiments/run.py",
            "(batch + 1) / self.batches",
            "(batch + 2) / self.batches",
        ),
        (
            "all time steps are known where there are several outputs",
            "keras_gevb/layer_call.py",
            "size = -1 if None in part.shape[1:] else math.prod",
            "size = -1 if None in part.shape[2:] else math.prod",
        ),
    ],
    (
        "others, drawn again",
        "tests/test_beside_stock.py tests/test_export.py tests/test_zoo.py tests/test_certificate.py "
        "tests/test_trainable_exports.py -k 'was_given_after or nothing_of_ours or places_own or "
        "learns_nothing or fails_to_convert'",
    ): [
        (
            "a layer loses the call that it was given",
            "keras_gevb/handover.py",
            "attributes |= {} if stand_in.own is None else {name: stand_in.own}",
            "pass",
        ),
        (
            "exported layers lose their names",
            "keras_gevb/export/stock.py",
            "return keras.Model(inputs, function(inputs), name=layer.name)",
            "return keras.Model(inputs, function(inputs))",
        ),
        (
            "the first place has none of the vectors of places",
            "keras_gevb/stock.py",
            'dtype="int32"), axis=1) - 1',
            'dtype="int32"), axis=1) - 2',
        ),
        (
            "the table of a certificate has no columns",
            "keras_gevb/diagnostics/certificate.py",
            '"|:--" * (1 + len(PROBES))',
            '"|:--" * (1 - len(PROBES))',
        ),
        (
            "what LiteRT fails to convert is not named",
            "keras_gevb/export/litert.py",
            """op is neither", said) or re""",
            """op is neither", said) and re""",
        ),
    ],
    (
        "others, drawn at random",
        "tests/test_execution.py tests/test_protocol.py tests/test_beside_stock.py "
        "-k 'pooling or stopped or one_number or much_activity'",
    ): [
        (
            "pooling tiles a space that is open",
            "keras_gevb/layers/shaping.py",
            "return None not in space and",
            "return None in space and",
        ),
        (
            "pooling tiles any space",
            "keras_gevb/layers/shaping.py",
            "tuple(self.strides) == sizes and tiled",
            "tuple(self.strides) == sizes",
        ),
        (
            "outputs without axes have samples",
            "keras_gevb/backend/tensorflow.py",
            "isinstance(tensor, tf.Tensor) or not tensor.shape.rank:",
            "isinstance(tensor, tf.Tensor):",
        ),
        (
            "who stops a command is not told how to go on",
            "keras_gevb/experiments/__main__.py",
            '        print("Stopped. The same command goes on with what is missing.", file=sys.stderr)\n',
            "",
        ),
        (
            "maps of representations are drawn at random",
            "keras_gevb/experiments/representation.py",
            "PCA(components, random_state=0)",
            "PCA(components)",
        ),
    ],
    ("others, traces", "tests/test_execution.py -k 'traces_a_step_once'"): [
        (
            "an optimizer is built by the thread that traces",
            "keras_gevb/backend/tensorflow.py",
            "    if tf.executing_eagerly() or tf.distribute.has_strategy():\n        with now():",
            "    if True:\n        with now():",
        ),
        (
            "named metrics make their variables in the step",
            "keras_gevb/backend/compiling.py",
            "                _build_metrics(self._model, batch)\n",
            "",
        ),
    ],
    ("others, spans", "tests/test_spans.py"): [
        (
            "what others read of a product is dropped",
            "keras_gevb/export/spans.py",
            "readers[name] == 1",
            "readers[name] >= 1",
        ),
        (
            "outputs have no readers",
            "keras_gevb/export/spans.py",
            "    readers.update(output.name for output in graph.output)\n",
            "",
        ),
        (
            "any order of two axes is a swap",
            "keras_gevb/export/spans.py",
            "return swapped and small and",
            "return small and",
        ),
        (
            "large factors are transposed",
            "keras_gevb/export/spans.py",
            "sum(map(math.prod, factors)) < math.prod(shape) and",
            "",
        ),
        (
            "a batch may be the shorter span",
            "keras_gevb/export/spans.py",
            " and shape[-1] < shape[0]",
            "",
        ),
        (
            "any two axes are the first and the rest",
            "keras_gevb/export/spans.py",
            " and flat == (shape[0], math.prod(shape[1:]))",
            "",
        ),
        (
            "factors may lack axes",
            "keras_gevb/export/spans.py",
            " or {len(factor) for factor in factors} != {len(shape)}",
            "",
        ),
        (
            "any operation is one on elements",
            "keras_gevb/export/spans.py",
            "if product.op_type not in ELEMENTWISE or",
            "if",
        ),
        (
            "numbers get axes beside any tensor",
            "keras_gevb/export/spans.py",
            " and shapes[0][-1] == 1",
            "",
        ),
        (
            "a number gets one axis",
            "keras_gevb/export/spans.py",
            "(1,) * len(shape)",
            "(1,)",
        ),
    ],
    ("others, operations", "tests/test_trainable_operations.py -k 'roots'"): [
        (
            "in ONNX a choice is made by products",
            "keras_gevb/export/onnx.py",
            'dict.fromkeys(("Select", "SelectV2"), (_where, []))',
            "{}",
        ),
        (
            "the derivative of a root is taken where nothing asks for it",
            "keras_gevb/export/lowering.py",
            "tf.where(dy == 0, dy, 0.5 * dy / y)",
            "0.5 * dy / y",
        ),
    ],
    ("others, replicas", "tests/test_workflows.py -k 'several_replicas'"): [
        (
            "added losses count on each replica",
            "keras_gevb/step.py",
            "sum(map(ops.sum, losses)) / backend.replicas()",
            "sum(map(ops.sum, losses))",
        ),
    ],
    ("others, pages", "tests/test_report.py -k 'hours_are or lists_of_their_own'"): [
        (
            "hours are minutes",
            "keras_gevb/experiments/report.py",
            "total / 3600:.2f",
            "total / 60:.2f",
        ),
        (
            "cells of different epochs are ordered together",
            "keras_gevb/experiments/tables.py",
            "or '.join(map(str, summary.limits))}",
            "or '.join(map(str, summary.limits[-1:]))}",
        ),
    ],
    ("others, traced", "tests/test_beside_stock.py -k 'are_traced'"): [
        (
            "a call of an instance's own is not taken apart",
            "keras_gevb/handover.py",
            "        return backend.untraced(call)\n    call",
            "        return call\n    call",
        ),
        (
            "what a traced method is made of is bound to nothing",
            "keras_gevb/backend/tensorflow.py",
            "converted if own is None else",
            "converted if True else",
        ),
    ],
    (
        "others, export",
        "tests/test_export.py -k 'causal_window'",
    ): [
        (
            "a stock model's causal padding forgets the gaps",
            "keras_gevb/export/stock.py",
            "before = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]",
            "before = layer.kernel_size[0] - 1",
        ),
    ],
    (
        "others, layers",
        "tests/test_layers.py -k 'parts_of_a_layer or bias_is_constrained or acts_at_each'",
    ): [
        (
            "parts of a separable layer compute in the default precision",
            "keras_gevb/layers/separable.py",
            'shared = {"nonnegative": nonnegative, "dtype": self.dtype_policy}',
            'shared = {"nonnegative": nonnegative}',
        ),
        (
            "a bias is not constrained",
            "keras_gevb/layers/weights.py",
            "                constraint=self.bias_constraint,\n            )",
            "            )",
        ),
        (
            "dropout drops masks",
            "keras_gevb/layers/shaping.py",
            "SeedGenerator(seed)\n        self.supports_masking = True\n",
            "SeedGenerator(seed)\n",
        ),
        (
            "a code drops masks",
            "keras_gevb/layers/coding.py",
            "        self.supports_masking = True\n",
            "",
        ),
        (
            "strides keep a mask of other positions",
            "keras_gevb/layers/windows.py",
            "self.supports_masking = set(self.kernel_size) == set(self.strides) == {1}",
            "self.supports_masking = set(self.kernel_size) == {1}",
        ),
    ],
    (
        "others, vectorize",
        "tests/test_vectorize.py -k 'slope_below or said_of_a_layer or precision_is_that'",
    ): [
        (
            "a slope below zero is taken for a ReLU",
            "keras_gevb/vectorization.py",
            "layer.max_value is None and not layer.negative_slope and",
            "layer.max_value is None and",
        ),
        (
            "a frozen layer's counterpart learns",
            "keras_gevb/vectorization.py",
            '*("name", "trainable", "units"',
            '*("name", "units"',
        ),
        (
            "a dropout's seed is lost between units",
            "keras_gevb/vectorization.py",
            "layers.VectorDropout(layer.rate, layer.seed, name",
            "layers.VectorDropout(layer.rate, name",
        ),
        (
            "a code has the default precision",
            "keras_gevb/vectorization.py",
            "layers.OutputCode(self._classes, dtype=layer.dtype_policy)",
            "layers.OutputCode(self._classes)",
        ),
        (
            "a vectorized model loses its policy",
            "keras_gevb/vectorization.py",
            "    vectorized.dtype_policy = model.dtype_policy\n",
            "",
        ),
    ],
    (
        "others, convert",
        "tests/test_convert.py -k 'wrapped_layer_makes or frozen_model_stays or activation_with_weights "
        "or of_each_part_starts or same_everywhere'",
    ): [
        (
            "a wrapped layer's own mask is lost",
            "keras_gevb/layers/local.py",
            "return self.layer.compute_mask(inputs, previous_mask)",
            "return previous_mask",
        ),
        (
            "a frozen model converts to one that learns",
            "keras_gevb/conversion.py",
            "    if not model.trainable:\n        converted.trainable = False\n",
            "",
        ),
        (
            "an activation with weights is taken from its layer",
            "keras_gevb/layer_call.py",
            '        or getattr(activation, "weights", ())\n',
            "",
        ),
        (
            "feedback starts as another part's weight of its name",
            "keras_gevb/any_layer.py",
            " and any(v is variable for v in owner.variables):",
            ":",
        ),
        (
            "feedback without a seed of its own ignores the rule's",
            "keras_gevb/any_layer.py",
            "return keras.initializers.GlorotUniform(seed)",
            "return keras.initializers.GlorotUniform()",
        ),
    ],
    (
        "others, tuning",
        "tests/test_tuning.py -k 'seed_of_zero or costs_nothing'",
    ): [
        (
            "a seed of zero is none",
            "keras_gevb/tuning/hypermodel.py",
            "        if self.seed is not None:\n            keras.utils.set_random_seed(self.seed)\n",
            "        if self.seed:\n            keras.utils.set_random_seed(self.seed)\n",
        ),
        (
            "failed trials are counted in seconds",
            "keras_gevb/tuning/compare.py",
            "for t in tuner.trials if t.score is not None)",
            "for t in tuner.trials)",
        ),
    ],
    (
        "others, memory",
        "tests/test_memory.py -k 'one_size_have or covariances_are or one_hot_targets_of_binary'",
    ): [
        (
            "layers share magnitudes of signs",
            "keras_gevb/rules/signs.py",
            "seed=self.seed + n)",
            "seed=self.seed)",
        ),
        (
            "layers share learned feedback",
            "keras_gevb/rules/learned.py",
            "self.nonnegative, self.seed + n)",
            "self.nonnegative, self.seed)",
        ),
        (
            "layers share EBD's feedback",
            "keras_gevb/rules/decorrelation.py",
            "None, self.seed + n, self.start)",
            "None, self.seed, self.start)",
        ),
        (
            "layers share a classifier's start",
            "keras_gevb/rules/local_error.py",
            "GlorotUniform(seed=self.seed + n)",
            "GlorotUniform(seed=self.seed)",
        ),
        (
            "covariances are summed over a layer's uses",
            "keras_gevb/rules/decorrelation.py",
            " / len(uses[key]))",
            ")",
        ),
        (
            "binary cross-entropy is no loss of classes",
            "keras_gevb/targets.py",
            "    keras.losses.binary_crossentropy,\n    keras.losses.binary_focal",
            "    keras.losses.binary_focal",
        ),
    ],
    (
        "others, several_outputs",
        "tests/test_several_outputs.py -k 'by_the_mean'",
    ): [
        (
            "weights of several outputs are summed",
            "keras_gevb/step.py",
            "weight = sum(means) / len(means) if means",
            "weight = sum(means) if means",
        ),
    ],
    (
        "others, certificate",
        "tests/test_certificate.py -k 'zero_or_one_number'",
    ): [
        (
            "what is zero is not perturbed",
            "keras_gevb/diagnostics/perturbations.py",
            'np.mean(np.square(value, dtype="float64")))) or 1.0',
            'np.mean(np.square(value, dtype="float64"))))',
        ),
        (
            "the loss stays as it is in later activity",
            "keras_gevb/diagnostics/probes.py",
            "None if step.loss is None else step.loss + 1.0",
            "step.loss",
        ),
    ],
    (
        "others, gevb",
        "tests/test_gevb.py -k 'no_activity_is_kept'",
    ): [
        (
            "with little memory activity is kept",
            "keras_gevb/passes.py",
            "return dataclasses.replace(self, inputs=None, gate=None, call=call)",
            "return dataclasses.replace(self, call=call)",
        ),
    ],
    (
        "others, extending",
        "tests/test_extending.py -k 'another_size_than'",
    ): [
        (
            "a signal of fewer units will do",
            "keras_gevb/passes.py",
            "pair[0] not in (1, pair[1])",
            "pair[0] > pair[1]",
        ),
    ],
    (
        "others, trainable_exports",
        "tests/test_trainable_exports.py -k 'leaves_no_unit'",
    ): [
        (
            "an exported evaluation drops units",
            "keras_gevb/export/trainable.py",
            "self.model._assess(x, y, None), x, y, None)",
            "self.model._assess(x, y, None, training=True), x, y, None)",
        ),
    ],
    (
        "others, experiments",
        "tests/test_experiments.py -k 'without_training_error'",
    ): [
        (
            "a run without training error is run again",
            "keras_gevb/experiments/continuing.py",
            'enough = result.finished == "no training error" or result.epochs',
            "enough = result.epochs",
        ),
    ],
    (
        "others, report",
        "tests/test_report.py -k 'without_a_signal or at_the_ends'",
    ): [
        (
            "alignment without a signal is averaged",
            "keras_gevb/experiments/statistics.py",
            "if angles and None not in angles:",
            "if angles:",
        ),
        (
            "a width without a signal is reported",
            "keras_gevb/experiments/initial.py",
            'return [row for row in rows if None not in row["alignment_degrees"]]',
            "return rows",
        ),
        (
            "published angles stand at the other end",
            "keras_gevb/experiments/figures.py",
            '((0, "init", -1), (last_epoch, "last", 1))',
            '((0, "last", -1), (last_epoch, "init", 1))',
        ),
    ],
    (
        "others, protocol",
        "tests/test_protocol.py -k 'of_a_width_is'",
    ): [
        (
            "a mixed-sign first layer starts mirrored",
            "keras_gevb/experiments/initial.py",
            "vector_dim=10, nonnegative=None if nonnegative else False)",
            "vector_dim=10)",
        ),
    ],
    (
        "others, zoo",
        "tests/test_zoo.py -k 'default_residual or attention_drops'",
    ): [
        (
            "a stage adds width in place of doubling",
            "keras_gevb/stock.py",
            "width = filters * 2**stage",
            "width = filters * (stage + 1)",
        ),
        (
            "attention never drops",
            "keras_gevb/stock.py",
            "layers.MultiHeadAttention(heads, width // heads, dropout=dropout)",
            "layers.MultiHeadAttention(heads, width // heads)",
        ),
    ],
    (
        "others, workflows",
        "tests/test_workflows.py -k 'outputs_alone'",
    ): [
        (
            "outputs alone, named, make a subclassed model",
            "keras_gevb/model.py",
            'and (len(args) == 1 or "inputs" in kwargs))',
            'and "inputs" in kwargs)',
        ),
    ],
    (
        "others, keras_features",
        "tests/test_keras_features.py -k 'frozen_network_is'",
    ): [
        (
            "a frozen network's step is told that it is no training",
            "keras_gevb/learning.py",
            "return self._assess(x, y, sample_weight, training=True)",
            "return self._assess(x, y, sample_weight)",
        ),
    ],
    (
        "others, heads",
        "tests/test_heads.py -k 'with_a_head_is or head_is_taken'",
    ): [
        (
            "a network without places has no head",
            "keras_gevb/places.py",
            "    if not of(model):\n        return True\n",
            "",
        ),
        (
            "a head that is taken away is still seen",
            "keras_gevb/preparation.py",
            "widths=None, has_head=None)",
            "widths=None)",
        ),
    ],
    (
        "others, cli",
        "tests/test_cli.py -k 'wrong_use or is_for_the_shell or reaches_the_model or seed_of_tune'",
    ): [
        (
            "a rate of zero will do",
            "keras_gevb/cli/kinds.py",
            'if not 0 < number < float("inf"):',
            'if not 0 <= number < float("inf"):',
        ),
        (
            "zsh is given bash's completion",
            "keras_gevb/cli/completion.py",
            'if options.shell == "zsh" else ""',
            'if options.shell == "bash" else ""',
        ),
        (
            "--mixed-sign is ignored",
            "keras_gevb/cli/train.py",
            "nonnegative=not options.mixed_sign,",
            "nonnegative=True,",
        ),
        (
            "--seed is ignored in training",
            "keras_gevb/cli/train.py",
            "keras.utils.set_random_seed(options.seed)",
            "keras.utils.set_random_seed(0)",
        ),
        (
            "digits are trained by MNIST's settings",
            "keras_gevb/cli/train.py",
            '(DIGITS if options.dataset == "digits" else DEFAULTS).items()',
            "DEFAULTS.items()",
        ),
        (
            "--seed is ignored in a search",
            "keras_gevb/cli/tune.py",
            "        seed=options.seed,\n        directory",
            "        directory",
        ),
    ],
    ("padding", "tests/test_padding.py"): [
        (
            "padding is told what units are",
            "keras_gevb/rules/base.py",
            "record.without_padding(signal)",
            "signal",
        ),
        (
            "with little memory padding is told what units are",
            "keras_gevb/step.py",
            "self.rule.told(record, self)",
            "self.rule.signal(record, self)",
        ),
        (
            "a mask given as an argument is not seen",
            "keras_gevb/passes.py",
            "keras.tree.map_structure(private.mask, first) if mask is None else mask",
            "keras.tree.map_structure(private.mask, first)",
        ),
        (
            "any mask is taken for one of the outputs",
            "keras_gevb/passes.py",
            "len(positions) >= len(shape) or any(",
            "any(",
        ),
        (
            "direct Kolen-Pollack learns from padding",
            "keras_gevb/rules/learned.py",
            "record.activity",
            "record.outputs",
        ),
        (
            "local classifiers read padding",
            "keras_gevb/rules/local_error.py",
            "record.activity",
            "record.outputs",
        ),
        (
            "a correlation with the error counts padding",
            "keras_gevb/rules/decorrelation.py",
            "ops.cast(record.activity, error.dtype)",
            "ops.cast(record.outputs, error.dtype)",
        ),
    ],
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
            "targets.compute_loss(self.model, self.x, self.targets, outputs, self.sample_weight)",
            "targets.compute_loss(self.model, self.x, self.targets, outputs, None)",
        ),
    ],
    ("model", "tests/test_workflows.py -k 'built_late'"): [
        (
            "a rule is not built before its weights are looked for in a file",
            "keras_gevb/saving.py",
            "        self._build_rule()\n        rule = ",
            "        rule = ",
        ),
    ],
    ("model", "tests/test_saving.py -k 'built_by or every_argument or changed'"): [
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
            "keras_gevb/rules/feedback.py",
            "layer.feedback(seed + len(pairs))",
            "layer.feedback(seed)",
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
            "feedback.uniform(layers, self.nonnegative, self.seed, self.sign)",
            "feedback.uniform(layers, None, self.seed, self.sign)",
        ),
        (
            "feedback has the seed 0 where none is given",
            "keras_gevb/rules/feedback.py",
            "random.randint(1, 10**9) if seed is None else seed",
            "0 if seed is None else seed",
        ),
    ],
    ("rules", "tests/test_feedback.py -k column"): [
        (
            "a layer has feedback for its smallest use alone",
            "keras_gevb/rules/feedback.py",
            "return max(_known(layer, use)",
            "return min(_known(layer, use)",
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
            "flat = self._drawn((*inputs, math.prod(positions + outputs)), dtype, seed)",
            "flat = ops.tile(self._drawn((*inputs, math.prod(outputs)), dtype, seed), "
            "(*(1,) * len(inputs), math.prod(positions)))",
        ),
    ],
    ("export", "tests/test_export.py -k 'frozen_stock or pools or windows or edge or inference'"): [
        (
            "weights of frozen stock layers are lost",
            "keras_gevb/conversion.py",
            "        variable.assign(value)\n",
            "        pass\n",
        ),
        (
            "strides of pools are lost",
            "keras_gevb/export/stock.py",
            '{**layer.get_config(), "name": None}',
            '{**layer.get_config(), "name": None, "strides": None}',
        ),
        (
            "paddings of pools are lost",
            "keras_gevb/export/stock.py",
            '{**layer.get_config(), "name": None}',
            '{**layer.get_config(), "name": None, "padding": "valid"}',
        ),
        (
            "hidden units are those of training",
            "keras_gevb/export/serving.py",
            "        model(inputs, training=False)\n    units",
            "        model(inputs, training=True)\n    units",
        ),
        (
            "served logits are those of training",
            "keras_gevb/export/serving.py",
            "functools.partial(model, training=False)",
            "functools.partial(model, training=True)",
        ),
        (
            "a unit at its gate's edge is closed",
            "keras_gevb/export/stock.py",
            "ops.expand_dims(aligned >= 0, -2)",
            "ops.expand_dims(aligned > 0, -2)",
        ),
        (
            "biases of vector convolutions are lost",
            "keras_gevb/export/stock.py",
            "    if not bias:\n        return h\n",
            "    return h\n",
        ),
        (
            "strides of vector convolutions are lost",
            "keras_gevb/export/stock.py",
            "(*v, 1) for k, v in window.items()",
            '(*v, 1) for k, v in {**window, "strides": (1, 1)}.items()',
        ),
        (
            "biases of dense layers are lost",
            "keras_gevb/export/stock.py",
            "_einsum(layer, equation, shape, _weights(layer), bias_axes)(inputs)",
            "_einsum(layer, equation, shape, _weights(layer)[:1])(inputs)",
        ),
    ],
    ("checks", "tests/test_errors.py -k 'refused_before_training or branch or ignored'"): [
        (
            "models of several inputs are not checked to be linear",
            "keras_gevb/preparation.py",
            "        structure.check_linear(self, x, forward)\n",
            "        if not isinstance(x, (list, tuple)):\n"
            "            structure.check_linear(self, x, forward)\n",
        ),
        (
            "beside an ignored class any label will do",
            "keras_gevb/targets.py",
            "valid = valid | (numbers == ignored)",
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
            "a weight beside layers is not seen in the model itself",
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
            "a gated layer may reach the outputs",
            "keras_gevb/structure.py",
            "    if gated:\n        advice",
            "    if False:\n        advice",
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
            "fused pools cover an extent that they do not divide",
            "keras_gevb/layers/shaping.py",
            "tuple(self.strides) == sizes and tiled",
            "tuple(self.strides) == sizes",
        ),
        (
            "fused pools cover a width that they do not divide",
            "keras_gevb/layers/shaping.py",
            "zip(space, sizes) if extent",
            "zip(space[:1], sizes) if extent",
        ),
        (
            "fused pools do not overlap where they should",
            "keras_gevb/layers/shaping.py",
            "tuple(self.strides) == sizes and",
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
            "keras_gevb/layers/windows.py",
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
            "keras_gevb/layers/windows.py",
            "missing // 2, missing - missing // 2",
            "missing - missing // 2, missing // 2",
        ),
    ],
    (
        "execution",
        "tests/test_execution.py -k 'compiled or little_memory or twice or parts or one_sample'",
    ): [
        (
            "a first layer's convolution is compiled for each batch size",
            "keras_gevb/layers/base.py",
            "(*ops.shape(inputs)[:-2], channels))",
            "(*ops.shape(inputs)[:-2], -1))",
        ),
        (
            "jit_compile=False is compiled all the same",
            "keras_gevb/backend/compiling.py",
            "if tf.executing_eagerly() or self._jit is False or not",
            "if tf.executing_eagerly() or not",
        ),
        (
            "dense networks are compiled in parts",
            "keras_gevb/backend/compiling.py",
            "return not spatial and not random",
            "return False",
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
            '*("Conv", "BatchMatMul", ',
            '*("BatchMatMul", ',
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
                "n in _LOGARITHMIC)",
                f'n in _LOGARITHMIC - {{"{name}"}})',
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
            "np.mean(np.concatenate(all_of) == 0)",
            "np.mean(np.concatenate(all_of) <= 0)",
        ),
        (
            "biases count as weights that are zero",
            "keras_gevb/diagnostics/measures.py",
            "ops.convert_to_numpy(v).ravel() for v in place.kernels]",
            "ops.convert_to_numpy(v).ravel() for v in place.trainable_variables]",
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
    (
        "learning",
        "tests/test_workflows.py -k 'without_a_trace or averaged_by_hand or empty_data or exchanged'",
    ): [
        (
            "measuring updates moves averages and seeds",
            "keras_gevb/learning.py",
            "with scopes.holding(values):\n            return self._step(x, self._check",
            "if True:\n            return self._step(x, self._check",
        ),
        (
            "averages are not constrained",
            "keras_gevb/learning.py",
            "        _constrain_averages(self.optimizer)\n",
            "",
        ),
        (
            "an empty data set is fitted",
            "keras_gevb/learning.py",
            "        targets.check_not_empty(x)\n",
            "",
        ),
        (
            "a model is ready for others of as many layers",
            "keras_gevb/preparation.py",
            "list(map(id, parts)) == list(map(id, others))",
            "len(parts) == len(others)",
        ),
    ],
    ("learning", "tests/test_saving.py -k 'one_rule_given or another_rule or clone or built_by'"): [
        (
            "models share a rule that both are given",
            "keras_gevb/preparation.py",
            "copy.copy(rules.get(learning_rule))\n        self._ready",
            "rules.get(learning_rule)\n        self._ready",
        ),
        (
            "a model takes over a rule that it is asked about",
            "keras_gevb/learning.py",
            "            rule = copy.copy(rules.get(learning_rule))\n            rule.build",
            "            rule = self._learning_rule = rules.get(learning_rule)\n            rule.build",
        ),
        (
            "a clone forgets the rule",
            "keras_gevb/saving.py",
            "            if repr(rule) != repr(self.learning_rule):",
            "            if False:",
        ),
        (
            "a compiled clone may be a stock model",
            "keras_gevb/saving.py",
            'return {**config, "learning_rule": rule} if config else config',
            "return config",
        ),
        (
            "a model built late is saved without the weights of its rule",
            "keras_gevb/saving.py",
            "    def save_own_variables(self, store: Any) -> None:\n        self._build_rule()\n",
            "    def save_own_variables(self, store: Any) -> None:\n",
        ),
    ],
    ("learning", "tests/test_execution.py -k 'reported_loss'"): [
        (
            "a ragged batch counts as a whole one in the loss",
            "keras_gevb/learning.py",
            "sample_weight=samples)",
            "sample_weight=None)",
        ),
        (
            "evaluation counts the loss twice",
            "keras_gevb/learning.py",
            "update_state(loss * backend.replicas(),",
            "update_state(loss * 2 * backend.replicas(),",
        ),
    ],
    (
        "learning",
        "tests/test_keras_features.py -k 'random_layers or frozen or weight_regularizers'",
    ): [
        (
            "evaluation runs as training",
            "keras_gevb/learning.py",
            "outputs = forward(self, x, training=training)",
            "outputs = forward(self, x, training=True)",
        ),
        (
            "random layers draw anew when the pass runs again",
            "keras_gevb/step.py",
            "        values = [*self._before, *values]\n",
            "        values = [*values]\n",
        ),
        (
            "a loss of weights counts twice",
            "keras_gevb/step.py",
            "*self.rule.own_updates(self), *self._gradients]",
            "*self.rule.own_updates(self), *self._gradients, *self._gradients]",
        ),
    ],
    ("saving", "tests/test_memory.py -k 'a_file_of'"): [
        (
            "feedback of another rule that fits is loaded",
            "keras_gevb/saving.py",
            'if saved not in ("", _name(rule)):',
            "if False:",
        ),
        (
            "weights of another rule are an error without advice",
            "keras_gevb/saving.py",
            "        except ValueError as error:\n            raise ValueError(",
            "        except KeyError as error:\n            raise ValueError(",
        ),
    ],
    ("tuning", "tests/test_tuning.py -k 'own_settings or several_rules or kolen_pollack'"): [
        (
            "a rule's own settings are drawn and forgotten",
            "keras_gevb/tuning/hypermodel.py",
            "**rule.get_config(), **found}",
            "**rule.get_config()}",
        ),
        (
            "a setting is searched in every rule's trials",
            "keras_gevb/tuning/hypermodel.py",
            'hp.conditional_scope("learning_rule", [rule]) if rule is not given else nullcontext()',
            "nullcontext()",
        ),
    ],
    ("saving", "tests/test_workflows.py -k 'rule_to_rule or legacy or of_its_own or without_a_rule'"): [
        (
            "a file without a rule's weights leaves them without a word",
            "keras_gevb/saving.py",
            "        if rule.variables and not store.keys():\n            warnings.warn(",
            "        if rule.variables and not store.keys():\n            (lambda *_, **__: None)(",
        ),
        (
            "a legacy file loses feedback",
            "keras_gevb/saving.py",
            "if private.saves_legacy_config() and self.learning_rule.variables:",
            "if False:",
        ),
        (
            "a legacy file comes back as a stock model",
            "keras_gevb/saving.py",
            "        if not private.saves_legacy_config() or getattr",
            "        if True or getattr",
        ),
        (
            "a config without a rule is one of the default rule",
            "keras_gevb/saving.py",
            "        rule = rules.get(rule) if saved else None\n",
            '        rule, saved = rules.get(rule if saved else "gevb"), True\n',
        ),
    ],
    ("stateless", "tests/test_extending.py -k 'pure_function or no_state'"): [
        (
            "a pure step knows no sample weights",
            "keras_gevb/stateless.py",
            "self._log(*self._learn(x, y, sample_weight), x, y, sample_weight)",
            "self._log(*self._learn(x, y, None), x, y, sample_weight)",
        ),
        (
            "the metrics of a pure step know no sample weights",
            "keras_gevb/stateless.py",
            "self._log(*self._learn(x, y, sample_weight), x, y, sample_weight)",
            "self._log(*self._learn(x, y, sample_weight), x, y, None)",
        ),
        (
            "a pure step returns the state before",
            "keras_gevb/stateless.py",
            "return result, tuple([variable.value for variable in part] for part in parts)",
            "return result, state",
        ),
        (
            "a pure step changes the model",
            "keras_gevb/stateless.py",
            "        with scopes.holding(pairs):\n",
            "        for variable, value in pairs:\n            variable.assign(value)\n        if True:\n",
        ),
        (
            "the state is in another order than Keras's",
            "keras_gevb/stateless.py",
            "            self.optimizer.variables,\n            self.metrics_variables,",
            "            self.metrics_variables,\n            self.optimizer.variables,",
        ),
        (
            "a model that is not compiled has a state",
            "keras_gevb/stateless.py",
            "if not self.built or not self.compiled:",
            "if not self.built:",
        ),
        (
            "the state is that of an optimizer that is not built",
            "keras_gevb/stateless.py",
            "        self._build_optimizer()\n        return tuple",
            "        return tuple",
        ),
    ],
    ("structure", "tests/test_errors.py -k 'refused_before_training or branch'"): [
        (
            "a model may have two readouts",
            "keras_gevb/structure.py",
            "if len(ungated) > 1:",
            "if len(ungated) > 2:",
        ),
        (
            "outputs may depend on no weight",
            "keras_gevb/structure.py",
            "    if not ends:\n",
            "    if False:\n",
        ),
        (
            "vector units and conventional ones may be mixed",
            "keras_gevb/structure.py",
            "if len(by_kind) > 1:",
            "if len(by_kind) > 2:",
        ),
        (
            "conventional networks are told to end in a vector readout",
            "keras_gevb/structure.py",
            'advice = "VectorReadout()" if last.place.vectorized else',
            'advice = "VectorReadout()" if True else',
        ),
        (
            "the error names an outer model instead of the layer",
            "keras_gevb/structure.py",
            "        ][-1]\n        names",
            "        ][0]\n        names",
        ),
    ],
    (
        "structure",
        "tests/test_workflows.py -k 'bends or never_called or added_losses or number_of_components'",
    ): [
        (
            "the error about an added loss names the first of all layers",
            "keras_gevb/structure.py",
            "Layer {names[-1]} adds a loss",
            "Layer {private.flat_layers(model)[0].name} adds a loss",
        ),
        (
            "a network is looked at near zero alone",
            "keras_gevb/structure.py",
            "[0.01, 1.0, 30.0, 1000.0]",
            "[0.01, 0.01, 0.01, 0.01]",
        ),
        (
            "the error about a bend names the layers that are ours",
            "keras_gevb/structure.py",
            "        and not is_ours(layer)\n",
            "        and is_ours(layer)\n",
        ),
        (
            "a layer that fixes K is a raw error",
            "keras_gevb/structure.py",
            '        except Exception as error:\n            raise ValueError(\n                "What stands',
            '        except KeyError as error:\n            raise ValueError(\n                "What stands',
        ),
    ],
    (
        "targets",
        "tests/test_errors.py tests/test_workflows.py -k 'label or probabilities or compute_loss or "
        "overridden or empty_data or refused_before_training or cross_entropy'",
    ): [
        (
            "labels below zero will do",
            "keras_gevb/targets.py",
            "(numbers >= 0) &",
            "(numbers >= -9) &",
        ),
        ("the label K will do", "keras_gevb/targets.py", "numbers < classes)", "numbers <= classes)"),
        (
            "what a compute_loss of one's own hands on is taken for logits",
            "keras_gevb/targets.py",
            "is False and _has_compute_loss_of_keras(model)",
            "is False",
        ),
        (
            "labels under the name of cross-entropy are not checked",
            "keras_gevb/targets.py",
            "and takes_labels(loss, flat[n], classes)",
            "and takes_labels(loss)",
        ),
        (
            "labels in a column are taken for one-hot targets",
            "keras_gevb/targets.py",
            "(len(y.shape) > 1 and y.shape[-1] == classes)",
            "len(y.shape) > 1",
        ),
        (
            "labels are compared in a small dtype of their own",
            "keras_gevb/backend/defaults.py",
            'return keras.ops.cast(labels, "int64")',
            'return labels if "int" in str(labels.dtype) else keras.ops.cast(labels, "int64")',
        ),
        (
            "a loss in a list is not looked at",
            "keras_gevb/targets.py",
            "    for part in keras.tree.flatten(model.loss):\n        if _setting",
            "    for part in [model.loss]:\n        if _setting",
        ),
        (
            "a partial hides its function",
            "keras_gevb/targets.py",
            "    while isinstance(loss, functools.partial):",
            "    while False:",
        ),
        (
            "compute_loss is told that evaluation is training",
            "keras_gevb/targets.py",
            '        arguments["training"] = training',
            '        arguments["training"] = True',
        ),
        (
            "compute_loss without `training` is given it",
            "keras_gevb/targets.py",
            '    if "training" in inspect.signature(model.compute_loss).parameters:',
            "    if True:",
        ),
        (
            "targets of another width get the wrong advice",
            "keras_gevb/targets.py",
            'f"{widths[0]} outputs, by the units',
            'f"{widths[1]} outputs, by the units',
        ),
        (
            "an array without samples is not empty",
            "keras_gevb/targets.py",
            "empty = any(0 in getattr",
            "empty = all(None in getattr",
        ),
        (
            "a loss of the targets alone is no error",
            "keras_gevb/targets.py",
            "    if all(error is None for error in errors) and not adds_losses:",
            "    if False:",
        ),
    ],
    (
        "compiling",
        "tests/test_workflows.py -k 'few_shapes or calls_python or counts_in_full or mended or as_asked or "
        "refused_label'",
    ): [
        (
            "any number of shapes is compiled",
            "keras_gevb/backend/compiling.py",
            "if again and len(self._shapes) < _SHAPES:",
            "if again:",
        ),
        (
            "a shape is compiled when it is first met",
            "keras_gevb/backend/compiling.py",
            "again = shapes == self._last or (self._last is None and self._model._cuts_arrays)",
            "again = True",
        ),
        (
            "the first batch counts in part where XLA refuses the step",
            "keras_gevb/backend/compiling.py",
            "                metric.reset_state()\n",
            "                pass\n",
        ),
        (
            "a trace that failed is kept",
            "keras_gevb/backend/compiling.py",
            "        setattr(model, name, None)\n",
            "        pass\n",
        ),
        (
            "a refused step runs less compiled without a word",
            "keras_gevb/backend/compiling.py",
            "                raise\n            warnings.warn(",
            "                raise\n            (lambda *_, **__: None)(",
        ),
        (
            "a compiler's error does not say what to do",
            "keras_gevb/backend/compiling.py",
            "Compile the model with jit_compile=False. Received",
            "Received",
        ),
        (
            "the label check is compiled, so dropped",
            "keras_gevb/backend/compiling.py",
            "self._jit, self.jit_compile = self.jit_compile, False",
            "self._jit = self.jit_compile",
        ),
    ],
    (
        "tuning",
        "tests/test_tuning.py -k 'decide or counted or widths or rule_says or winners or compared or "
        "too_large or scale_multiplies or share'",
    ): [
        (
            "the objective does not decide",
            "keras_gevb/tuning/tuners.py",
            '[o.name for o in getattr(objective, "objectives", [objective])]',
            "[]",
        ),
        (
            "one of several objectives decides",
            "keras_gevb/tuning/tuners.py",
            '[o.name for o in getattr(objective, "objectives", [objective])])',
            '[getattr(objective, "objectives", [objective])[0].name])',
        ),
        (
            "whatever is logged decides",
            "keras_gevb/tuning/hypermodel.py",
            "for name in names if name in logs and not",
            "for name in logs if not",
        ),
        (
            "the loss on validation data does not decide",
            "keras_gevb/tuning/hypermodel.py",
            '_LOSSES = "loss", "val_loss"',
            '_LOSSES = ("loss",)',
        ),
        (
            "a search ends at the third failure in a row",
            "keras_gevb/tuning/tuners.py",
            'kwargs["max_consecutive_failed_trials"] = max_consecutive_failed_trials\n',
            'kwargs["max_consecutive_failed_trials"] = max_consecutive_failed_trials or 3\n',
        ),
        (
            "a network that just fits the budget is too large",
            "keras_gevb/tuning/hypermodel.py",
            "bisect.bisect_right(widths",
            "bisect.bisect_left(widths",
        ),
        (
            "every layer is as wide as the first",
            "keras_gevb/tuning/hypermodel.py",
            '_even(width * values["taper"] ** i)',
            '_even(width * values["taper"] ** 0)',
        ),
        (
            "the scale multiplies the deviation",
            "keras_gevb/tuning/hypermodel.py",
            'layer.kernel * ops.sqrt(values["initial_scale"])',
            'layer.kernel * values["initial_scale"]',
        ),
        (
            "errors of a comparison are accuracies",
            "keras_gevb/tuning/compare.py",
            '"errors": 1 - best.score',
            '"errors": best.score',
        ),
        (
            "the spread of a comparison divides by n",
            "keras_gevb/tuning/compare.py",
            "np.std(errors, ddof=1)",
            "np.std(errors)",
        ),
        (
            "winners are evaluated on validation images",
            "keras_gevb/tuning/compare.py",
            "model.evaluate(*test_data,",
            "model.evaluate(*validation_data,",
        ),
        (
            "the seconds of a comparison are those of one search",
            "keras_gevb/tuning/compare.py",
            '"seconds": sum(summary["seconds"])',
            '"seconds": summary["seconds"][0]',
        ),
        (
            "biases are no parameters",
            "keras_gevb/tuning/parameters.py",
            "(copies * fan_in + components)",
            "copies * fan_in",
        ),
    ],
    (
        "tuning",
        "tests/test_tuning_survival.py -k 'dead_worker or at_once or lock_is_not_seen or comes_back or "
        "refused'",
    ): [
        (
            "a worker that is missed once is dead",
            "keras_gevb/tuning/chief.py",
            "for tuner_id in missing & self._missing:",
            "for tuner_id in missing:",
        ),
        (
            "a worker whose lock was never seen may be dead",
            "keras_gevb/tuning/chief.py",
            "        if self._is_present(request.tuner_id):  # else",
            "        if True:  # else",
        ),
        (
            "a trial that runs again keeps its results",
            "keras_gevb/tuning/chief.py",
            "    trial.metrics = type(trial.metrics)()\n",
            "    pass\n",
        ),
        (
            "the trial of a dead worker is lost",
            "keras_gevb/tuning/chief.py",
            '[*state["retry_queue"], trial.trial_id]',
            'state["retry_queue"]',
        ),
        (
            "two searches share one name",
            "keras_gevb/tuning/chief.py",
            "            if time.monotonic() > until:\n",
            "            if True:\n                return file\n            if time.monotonic() > until:\n",
        ),
        (
            "a chief that comes back takes its workers' trials",
            "keras_gevb/tuning/tuners.py",
            "if oracle.trials[trial_id].status not in _ENDED and self._is_present(tuner_id)",
            "if False",
        ),
    ],
    (
        "experiments",
        "tests/test_report.py -k 'paired or spread or p_value or finished_runs or seed_once or under_way or "
        "quality'",
    ): [
        (
            "the spread divides by n",
            "keras_gevb/experiments/statistics.py",
            "np.std(errors, ddof=1)",
            "np.std(errors)",
        ),
        (
            "tests are not paired",
            "keras_gevb/experiments/statistics.py",
            "stats.ttest_rel(a, b)",
            "stats.ttest_ind(a, b)",
        ),
        (
            "runs of two protocols are compared",
            "keras_gevb/experiments/statistics.py",
            "(r.seed, r.protocol): r.last",
            "(r.seed, None): r.last",
        ),
        (
            "alignment of a seed counts twice where it was measured twice",
            "keras_gevb/experiments/statistics.py",
            "found[result.cell][result.seed] = angles",
            "found[result.cell][result.seed, None] = angles",
        ),
        (
            "a batch of activity replaces those before",
            "keras_gevb/experiments/representation.py",
            "self.sums = self.sums + members.T @ activity",
            "self.sums = members.T @ activity",
        ),
    ],
    (
        "experiments",
        "tests/test_experiments.py -k 'order_of_the_data or measures_and_stops or protocol or share or "
        "disk_is_full or order_of_the_list or other_packages or added or published or pattern or "
        "not_run_again or no_training or 48'",
    ): [
        (
            "two seeds share the order of the data in other epochs",
            "keras_gevb/experiments/run.py",
            "np.random.default_rng([seed, epoch])",
            "np.random.default_rng(seed + epoch)",
        ),
        (
            "a finished run is run again",
            "keras_gevb/experiments/continuing.py",
            "    return result.finished and enough\n",
            "    return False\n",
        ),
        (
            "a run without training error goes on to the last epoch",
            "keras_gevb/experiments/run.py",
            'if self.result.last["train_error_percent"] == 0:',
            'if self.result.last["train_error_percent"] < 0:',
        ),
        (
            "a run continues under another protocol",
            "keras_gevb/experiments/continuing.py",
            "    if but_epochs(result.protocol) != but_epochs(protocol):",
            "    if False:",
        ),
        (
            "a run continues under other versions",
            "keras_gevb/experiments/continuing.py",
            "        if result.versions != versions():",
            "        if False:",
        ),
        (
            "two processes are at one run",
            "keras_gevb/experiments/run.py",
            "        if not ours:\n            return None\n",
            "",
        ),
        (
            "a full disk leaves half a file",
            "keras_gevb/experiments/files.py",
            '    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.writing")',
            "    temporary = path",
        ),
        (
            "cells stand in the order of the alphabet",
            "keras_gevb/experiments/cells.py",
            "for name, cell in CELLS.items()\n        if name in chosen",
            "for name, cell in sorted(CELLS.items())\n        if name in chosen",
        ),
        (
            "published angles are of another sign of weights",
            "keras_gevb/experiments/cells.py",
            'f"{self.learning_rule} {self.weights}")',
            'f"{self.learning_rule} {WEIGHTS[0]}")',
        ),
        (
            "a longer run keeps a measurement that it would not make",
            "keras_gevb/experiments/run.py",
            '[m for m in measured if self.protocol.measures(m["epoch"])]',
            "measured",
        ),
    ],
    ("export", "tests/test_export.py"): [
        (
            "a layer that is called twice has one entry",
            "keras_gevb/export/serving.py",
            'f"{name}_{calls[name]}" if calls[name] else name',
            "name",
        ),
        (
            "raw pixels are not taken",
            "keras_gevb/export/serving.py",
            "dtype=input_dtype or tensor.dtype",
            "dtype=tensor.dtype",
        ),
        (
            "gates of a stock model learn",
            "keras_gevb/export/stock.py",
            "[gates], dtype=dtype, trainable=False)(h)",
            "[gates], dtype=dtype)(h)",
        ),
        (
            "a stock model computes in full precision",
            "keras_gevb/export/stock.py",
            '**{"dtype": layer.dtype_policy, **settings}',
            "**settings",
        ),
        (
            "strides of locally connected layers are lost",
            "keras_gevb/export/stock.py",
            "        (*layer.strides, 1)[:rank],\n",
            "        1,\n",
        ),
        (
            "windows of locally connected layers learn",
            "keras_gevb/export/stock.py",
            "        use_bias=False,\n        trainable=False,\n",
            "        use_bias=False,\n",
        ),
        (
            "the readout is listed among hidden units",
            "keras_gevb/export/serving.py",
            "        if not record.layer.is_readout:\n            name",
            "        if True:\n            name",
        ),
        (
            "the stock model shares layers with the model",
            "keras_gevb/export/stock.py",
            "    return copied(layer)\n",
            "    return layer\n",
        ),
        (
            "reshaped units keep their components first",
            "keras_gevb/export/stock.py",
            "**policy)(shaped) if target else shaped",
            "**policy)(shaped) if False else shaped",
        ),
        (
            "units are flattened component last",
            "keras_gevb/export/stock.py",
            "Permute((rank - 1, *range(1, rank - 1), rank), **policy)",
            "Permute(tuple(range(1, rank + 1)), **policy)",
        ),
    ],
    ("diagnostics", "tests/test_diagnostics.py -k 'not large'"): [
        (
            "an audit leaves a layer changed",
            "keras_gevb/diagnostics/locality.py",
            "        for variable, value in weights:\n            variable.assign(value)\n",
            "        for variable, value in weights[1:]:\n            variable.assign(value)\n",
        ),
        (
            "an audit changes biases alone",
            "keras_gevb/diagnostics/locality.py",
            "for v in (*place.kernels, *place.trainable_variables)}",
            "for v in place.trainable_variables if v.name == 'bias'}",
        ),
        (
            "a unit that is closed once is dead",
            "keras_gevb/diagnostics/measures.py",
            "ops.convert_to_numpy(ops.max(ops.abs(gate),",
            "ops.convert_to_numpy(ops.min(ops.abs(gate),",
        ),
        (
            "units of a locally connected layer die together",
            "keras_gevb/diagnostics/measures.py",
            "space = 0 if layer.positions_rank else layer.space_rank",
            "space = layer.space_rank",
        ),
        (
            "positions of a convolution die one by one",
            "keras_gevb/diagnostics/measures.py",
            "space = 0 if layer.positions_rank else layer.space_rank",
            "space = 0",
        ),
        (
            "a layer that is used twice is dead if its last use is",
            "keras_gevb/diagnostics/measures.py",
            "np.maximum(opened.get(layer.name, 0), gate)",
            "gate",
        ),
        (
            "the monitor measures one epoch early",
            "keras_gevb/diagnostics/monitor.py",
            "(epoch + 1) % self.every == 0",
            "epoch % self.every == 0",
        ),
        (
            "in epochs between, the logs lack columns",
            "keras_gevb/diagnostics/monitor.py",
            "else self._not_measured())",
            "else {})",
        ),
        (
            "a sample without a signal has a right angle",
            "keras_gevb/diagnostics/measures.py",
            "seen = (lengths[0] > 0) & (lengths[1] > 0)",
            "seen, lengths = lengths[0] > -1, np.maximum(lengths, 1e-30)",
        ),
        (
            "an update of zero opposes the gradient",
            "keras_gevb/diagnostics/measures.py",
            "np.sign(gradients[name]) >= 0",
            "np.sign(gradients[name]) > 0",
        ),
        (
            "signs are those of the whole batch",
            "keras_gevb/diagnostics/measures.py",
            "example = slice(n, n + 1)",
            "example = slice(None)",
        ),
        (
            "uses of a layer are not added up",
            "keras_gevb/diagnostics/measures.py",
            "totals[name] = totals.get(name, 0) + np.concatenate(flat)",
            "totals[name] = np.concatenate(flat)",
        ),
    ],
    (
        "data",
        "tests/test_datasets.py tests/test_errors.py -k 'datasets or data_set or interrupted or digits or "
        "folder'",
    ): [
        (
            "what an interrupted download left counts as prepared",
            "keras_gevb/datasets.py",
            'any((folder / name).glob("[0-9]*"))',
            "(folder / name).exists()",
        ),
        (
            "what lies prepared is downloaded again",
            "keras_gevb/datasets.py",
            "download=not lies_prepared",
            "download=True",
        ),
        (
            "digits are of another shape",
            "keras_gevb/datasets.py",
            "reshape(-1, 8, 8, 1)",
            'reshape(-1, 8, 8, 1, order="F")',
        ),
    ],
    ("initializers", "tests/test_initializers.py"): [
        (
            "both units of a pair have one gate",
            "keras_gevb/initializers.py",
            "ops.stack([signs, -signs], axis=-1)",
            "ops.stack([signs, signs], axis=-1)",
        ),
        (
            "ON and OFF are connected alike",
            "keras_gevb/initializers.py",
            "ops.stack([off, on], axis=-1)], axis=-3)",
            "ops.stack([on, off], axis=-1)], axis=-3)",
        ),
        (
            "OFF is that of ON",
            "keras_gevb/initializers.py",
            "on, off = ops.relu(z), ops.relu(-z)",
            "on, off = ops.relu(z), ops.relu(z)",
        ),
        (
            "nonnegative kernels are scaled as mixed ones",
            "keras_gevb/initializers.py",
            "scale: float = 4.0",
            "scale: float = 1.0",
        ),
        (
            "the scale is that of the deviation",
            "keras_gevb/initializers.py",
            "stddev = math.sqrt(self.scale / fan_in)",
            "stddev = self.scale / math.sqrt(fan_in)",
        ),
        (
            "the fan-in of a window is that of one position",
            "keras_gevb/initializers.py",
            "z = self._draw(pairs, math.prod(shape[:-1]), dtype)",
            "z = self._draw(pairs, inputs, dtype)",
        ),
        (
            "the scale is lost on save",
            "keras_gevb/initializers.py",
            'return {"scale": self.scale, **super().get_config()}',
            "return super().get_config()",
        ),
        (
            "gates are of one sign in all components",
            "keras_gevb/initializers.py",
            "keras.random.randint((*components, pairs), 0, 2, seed=self.seed)",
            "keras.random.randint((*components, pairs), 1, 2, seed=self.seed)",
        ),
        (
            "an odd number of inputs passes",
            "keras_gevb/initializers.py",
            '        _require_even(inputs, "inputs")\n',
            "",
        ),
    ],
    (
        "optimizers",
        "tests/test_optimizers.py -k 'equation or range or embedding or half_precision or moves or alike'",
    ): [
        (
            "epsilon stands before the correction, as in Keras",
            "keras_gevb/optimizers.py",
            "rate * m / (deviation + self.epsilon)",
            "rate * m / (deviation + self.epsilon / ops.sqrt(self._correction(self.beta_2, variable)))",
        ),
        (
            "the second moment is not corrected",
            "keras_gevb/optimizers.py",
            "deviation = ops.sqrt(v) / ops.sqrt(self._correction(self.beta_2, variable))",
            "deviation = ops.sqrt(v)",
        ),
        (
            "the betas are exchanged",
            "keras_gevb/optimizers.py",
            "ops.subtract(gradient, m), 1 - self.beta_1",
            "ops.subtract(gradient, m), 1 - self.beta_2",
        ),
        (
            "corrections are one step late",
            "keras_gevb/optimizers.py",
            "t = ops.cast(self.iterations + 1, variable.dtype)",
            "t = ops.cast(ops.maximum(self.iterations, 1), variable.dtype)",
        ),
        (
            "amsgrad is ignored",
            "keras_gevb/optimizers.py",
            "        if self.amsgrad:\n",
            "        if False:\n",
        ),
        (
            "amsgrad keeps the last deviation",
            "keras_gevb/optimizers.py",
            "ops.maximum(largest, v)",
            "v",
        ),
        (
            "a beta of 1 passes",
            "keras_gevb/optimizers.py",
            "if not 0 <= beta < 1:",
            "if not 0 <= beta <= 1:",
        ),
        (
            "corrections lose digits",
            "keras_gevb/optimizers.py",
            "return -ops.expm1(t * (math.log(beta) if beta else -math.inf))",
            "return 1 - ops.power(ops.cast(beta, variable.dtype), t)",
        ),
    ],
    (
        "any layer",
        "tests/test_convert.py -k 'automatic_differentiation and (recurrent or shared or two_outputs)'",
    ): [
        (
            "masks do not reach a layer of Keras",
            "keras_gevb/any_layer.py",
            "passes.current().run(self, (args, kwargs))",
            "passes.current().run(self, (args, kwargs | {'mask': None} if 'mask' in kwargs else kwargs))",
        ),
        (
            "a layer of Keras runs as in inference",
            "keras_gevb/any_layer.py",
            "passes.current().run(self, (args, kwargs))",
            "passes.current().run(self, (args, kwargs | {'training': False} if 'training' in kwargs "
            "else kwargs))",
        ),
        (
            "one of two calls of a layer is forgotten",
            "keras_gevb/step.py",
            "totals[key] = backend.add_up([totals[key], update]) if key in totals else update",
            "totals[key] = update",
        ),
        (
            "the activation of a readout is taken off twice",
            "keras_gevb/layer_call.py",
            "if self.has_activation and not is_readout:",
            "if self.has_activation:",
        ),
        (
            "a readout's own activation is left out behind it",
            "keras_gevb/layer_call.py",
            "return self._activation(outputs) if is_readout else outputs",
            "return outputs",
        ),
        (
            "every readout is told the error of the first",
            "keras_gevb/step.py",
            "start = sum(sizes[:place])",
            "start = 0",
        ),
        (
            "one of several readouts is none",
            "keras_gevb/step.py",
            "[record for record in self.records if record.is_readout]",
            "[record for record in self.records if record.is_readout][:1]",
        ),
        (
            "errors of several readouts stand in another order",
            "keras_gevb/targets.py",
            "-1)) for error in errors]",
            "-1)) for error in errors[::-1]]",
        ),
    ],
    ("any layer", "tests/test_convert.py -k 'steps_of_fit and (residual or recurrent)'"): [
        (
            "moving statistics go twice as far",
            "keras_gevb/any_layer.py",
            "            variable.assign(value)\n        for loss",
            "            twice = 2 * value - variable.value if 'moving' in variable.name else value\n"
            "            variable.assign(twice)\n"
            "        for loss",
        ),
        (
            "moving statistics and seeds stay where they were",
            "keras_gevb/any_layer.py",
            "for variable, value in call.changed if backend.writes_weights else call.after:",
            "for variable, value in ():",
        ),
    ],
    ("any layer", "tests/test_convert.py -k 'feedback'"): [
        (
            "feedback does not stand for weights of Keras on the way back",
            "keras_gevb/any_layer.py",
            "if not passes.current().changed.isdisjoint(map(id, self.layer.variables)):",
            "if False:",
        ),
        (
            "feedback stands for weights in the update of their own layer too",
            "keras_gevb/any_layer.py",
            "            call = call.at_weights_in_force()\n",
            "            call._pull_h = call.at_weights_in_force()._pull_h\n",
        ),
        (
            "a call with feedback draws other random numbers",
            "keras_gevb/layer_call.py",
            "        with scopes.holding(self.before):\n            call._pull_h",
            "        if True:\n            call._pull_h",
        ),
        (
            "kernels of one layer of Keras have one feedback",
            "keras_gevb/any_layer.py",
            "_like(self.layer, v, seed + n)",
            "_like(self.layer, v, seed)",
        ),
        (
            "biases of Keras have feedback too",
            "keras_gevb/any_layer.py",
            "[v for v in private.weights_that_learn(self.layer) if v.ndim > 1]",
            "[v for v in private.weights_that_learn(self.layer) if v.ndim > 0]",
        ),
    ],
    (
        "any layer",
        "tests/test_convert.py -k 'adds_are_exact or several_outputs'",
    ): [
        (
            "losses that a layer adds in its call are lost",
            "keras_gevb/any_layer.py",
            "for loss in call.losses:",
            "for loss in ():",
        ),
        (
            "added losses do not know the scale of the optimizer",
            "keras_gevb/step.py",
            "return self._scaled(ops.cast(found, keras.config.floatx()))",
            "return ops.cast(found, keras.config.floatx())",
        ),
        (
            "the third of several outputs of a layer begins at the second",
            "keras_gevb/layer_call.py",
            "            start = start + size\n",
            "            start = size\n",
        ),
    ],
    ("any layer", "tests/test_convert.py -k states"): [
        (
            "states that no layer lists are lost",
            "keras_gevb/layer_call.py",
            "state = [*state, *{id(v): v for v in unlisted}.values()]",
            "pass",
        ),
        (
            "a pass runs again from states that the first one changed",
            "keras_gevb/step.py",
            "for pair in (*call.before, *call.weights_before)]",
            "for pair in ()]",
        ),
    ],
    ("any layer", "tests/test_convert.py -k without_a_derivative"): [
        (
            "a layer without a derivative stays as it is",
            "keras_gevb/any_layer.py",
            "        if not pairs and not record.call.losses:",
            "        if False:",
        ),
    ],
    ("what converts", "tests/test_convert.py -k 'adapted or open_extents or losses_that'"): [
        (
            "weights that learn from their layer's own loss alone are refused",
            "keras_gevb/any_layer.py",
            "if not pairs and not record.call.losses:",
            "if not pairs:",
        ),
        (
            "an adapter counts by its rank",
            "keras_gevb/conversion.py",
            "mine.lora_alpha = theirs.lora_alpha",
            "pass",
        ),
        (
            "layers are called where extents are open",
            "keras_gevb/conversion.py",
            "for place in found if places.are_known(converted.inputs) else ():",
            "for place in found:",
        ),
        (
            "what goes wrong where extents are open is not explained",
            "keras_gevb/places.py",
            "if isinstance(error, ValueError) or are_known(inputs):",
            "if True:",
        ),
    ],
    ("few channels", "tests/test_execution.py -k 'left_to_tensorflow'"): [
        (
            "oneDNN is turned on where TensorFlow leaves it off",
            "keras_gevb/__init__.py",
            "import importlib\n",
            "import importlib, os\nos.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')\n",
        ),
    ],
    ("places", "tests/test_convert.py -k 'block_in_local'"): [
        (
            "a block in Local is as many places as it has layers",
            "keras_gevb/places.py",
            "    if _says_its_place(layer):\n",
            "    if _says_its_place(layer) and not hasattr(layer, 'layer'):\n",
        ),
    ],
    ("data files", "tests/test_datasets.py -k 'file'"): [
        (
            "a file of arrays gives the test images for training",
            "keras_gevb/datasets.py",
            'for part in ("train", "test")',
            'for part in ("test", "train")',
        ),
        (
            "images of a file have no channels",
            "keras_gevb/datasets.py",
            "].reshape(-1, *shape)",
            "]",
        ),
        (
            "a file of arrays is left aside",
            "keras_gevb/datasets.py",
            "    if file.is_file():",
            "    if False:",
        ),
    ],
    ("targets", "tests/test_several_outputs.py"): [
        (
            "labels of the first output alone are checked",
            "keras_gevb/targets.py",
            "in zip(places, owners, sizes, losses)",
            "in [*zip(places, owners, sizes, losses)][:1]",
        ),
        (
            "labels of all outputs are compared with the units of the last",
            "keras_gevb/targets.py",
            "in zip(places, owners, sizes, losses)",
            "in zip(places, owners, sizes[-1:] * len(sizes), losses)",
        ),
        (
            "losses of outputs are weighed by what a trace knows of a batch",
            "keras_gevb/targets.py",
            "    if len(keras.tree.flatten(outputs)) > 1:\n        # Keras",
            "    if False:\n        # Keras",
        ),
        (
            "every output counts by the weights of the first",
            "keras_gevb/targets.py",
            "    of_samples = _by_output(sample_weight, outputs, names)\n",
            "    of_samples = _by_output(sample_weight, outputs, names)[:1]\n",
        ),
        (
            "what a loss is weighed with is forgotten with the size of e",
            "keras_gevb/step.py",
            "ones = of_loss * targets",
            "ones = targets",
        ),
        (
            "time steps are added up, not averaged",
            "keras_gevb/step.py",
            "/ functools.reduce(operator.mul, shape[1:-1], 1)",
            "",
        ),
        (
            "rows that no sample has are told what the first samples are",
            "keras_gevb/rules/feedback.py",
            "    if use.rows != 1:",
            "    if False:",
        ),
    ],
    ("feedback", "tests/test_freezing.py -k asked_anew"): [
        (
            "a layer that is frozen or freed is not noticed",
            "keras_gevb/preparation.py",
            "return learn == learned and list",
            "return learned is not None and list",
        ),
    ],
    ("feedback", "tests/test_freezing.py"): [
        (
            "a layer that is frozen is no place",
            "keras_gevb/places.py",
            " or p in known]",
            "]",
        ),
        (
            "a file does not say for which layers a rule has weights",
            "keras_gevb/saving.py",
            "        if len(has) == len(may):",
            "        if False:",
        ),
        (
            "a rule's weights are drawn anew where layers change",
            "keras_gevb/preparation.py",
            "            value[both] = had[both]\n",
            "            pass\n",
        ),
        (
            "adapters have no feedback",
            "keras_gevb/preparation.py",
            "if found == self._ready.rule and _kernels(found) == self._ready.kernels:",
            "if found == self._ready.rule:",
        ),
    ],
    ("workflow", "tests/test_beside_stock.py"): [
        (
            "the end of the data is an error",
            "keras_gevb/backend/compiling.py",
            "except (StopIteration, tf.errors.OutOfRangeError):",
            "except StopIteration:",
        ),
        (
            "a batch has no size",
            "keras_gevb/preparation.py",
            "keras.KerasTensor(tuple(tensor.shape), dtype",
            "keras.KerasTensor((None, *tensor.shape[1:]), dtype",
        ),
        (
            "a call that is traced keeps what a pass did",
            "keras_gevb/places.py",
            "and handover.is_traced(layer):",
            "and False:",
        ),
        (
            "nothing is called before it learns but by shapes",
            "keras_gevb/preparation.py",
            "for values in (inputs, None):",
            "for values in (inputs,):",
        ),
        (
            "a kernel that a call changes is seen as it is afterwards",
            "keras_gevb/step.py",
            "for pair in (*call.before, *call.weights_before)]",
            "for pair in call.before]",
        ),
        (
            "a kernel that a call changes has the derivative of the change",
            "keras_gevb/step.py",
            "                scope.primals = frozenset(map(id, variables))\n",
            "",
        ),
        (
            "random layers draw what XLA draws",
            "keras_gevb/backend/compiling.py",
            "return not spatial and not random",
            "return not spatial",
        ),
        (
            "weights that a model reads itself get what their layer gets",
            "keras_gevb/step.py",
            "between = set(map(id, self._between))",
            "between = set()",
        ),
        (
            "a rule without a way back trains what a model reads itself",
            "keras_gevb/structure.py",
            "    if found and not rule.is_exact:",
            "    if False:",
        ),
        (
            "losses of activity are lost before a head",
            "keras_gevb/step.py",
            "        with private.keeping_losses(self.model):",
            "        if True:",
        ),
    ],
    (
        "conversion",
        "tests/test_convert.py -k 'several or precisions or quantized or apart or inputs_of or part_of'",
    ): [
        (
            "each sample has the whole of what is no sample's",
            "keras_gevb/layer_call.py",
            "part = ops.reshape(part, (1, -1)) / ops.cast(self._samples, part.dtype)",
            "part = ops.reshape(part, (1, -1))",
        ),
        (
            "the rule's weights of a model within are nobody's",
            "keras_gevb/structure.py",
            "known |= {id(v) for rule in rules for v",
            "known |= {id(v) for rule in rules[:1] for v",
        ),
        (
            "parts of outputs come back in another format",
            "keras_gevb/layer_call.py",
            "yield ops.cast(ops.reshape(flat, ops.shape(part)), part.dtype)",
            "yield ops.reshape(flat, ops.shape(part))",
        ),
        (
            "quantized layers are not asked",
            "keras_gevb/handover.py",
            'return "call" if layer.quantization_mode is None else "quantized_call"',
            'return "call"',
        ),
        (
            "weights are copied in the order of a layer that is built so",
            "keras_gevb/conversion.py",
            "    if sorted(map(_name, mine)) == sorted(map(_name, theirs)):",
            "    if False:",
        ),
        (
            "calls within a loop are records",
            "keras_gevb/passes.py",
            "        if backend.graph() != self.began_in:",
            "        if False:",
        ),
        (
            "inputs of a converted model forget what they may be",
            "keras_gevb/private.py",
            "return type(layer).from_config(layer.get_config()).output",
            "return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=layer.name)",
        ),
    ],
    ("passes", "tests/test_heads.py -k 'differentiation and code'"): [
        (
            "what stands behind a readout of vectors is given one component",
            "keras_gevb/passes.py",
            "record.outputs if place.vectorized and place.is_readout else outputs)",
            "outputs)",
        ),
        (
            "the error is taken at the outputs behind the readout",
            "keras_gevb/step.py",
            "        outputs = [record.outputs for record in self.readouts]\n        self.loss",
            "        outputs = keras.tree.flatten(self.outputs)\n        self.loss",
        ),
    ],
    ("passes", "tests/test_rules.py -k 'kp-fc-momentum or sdfa-fc-momentum or ebd-fc-momentum'"): [
        (
            "what a rule may count of a sample knows no weights",
            "keras_gevb/step.py",
            "weight = sum(means) / len(means) if means else",
            "weight =",
        ),
        (
            "a rule is told the weights for their change",
            "keras_gevb/step.py",
            "return variable.value - next(before for v, before in self._before if v is variable)",
            "return variable.value",
        ),
    ],
    ("passes", "tests/test_memory.py -k 'kp and (adding_up or scale)'"): [
        (
            "a rule remembers where gradients are only added up",
            "keras_gevb/learning.py",
            "ops.where(taken, value, v.value)",
            "value",
        ),
    ],
    ("passes", "tests/test_memory.py -k 'dkp and scale'"): [
        (
            "a rule's own error has the scale of the optimizer",
            "keras_gevb/step.py",
            "return ops.cast(self.error, self._exact()) / self._scale()",
            "return ops.cast(self.error, self._exact())",
        ),
    ],
    (
        "conversion",
        "tests/test_convert.py -k '(names or saved) and (two_outputs or separable or nested) or frozen'",
    ): [
        (
            "a converted model has weights of its own",
            "keras_gevb/conversion.py",
            "        variable.assign(value)\n",
            "        pass\n",
        ),
        (
            "a converted chain has another name",
            "keras_gevb/conversion.py",
            "Sequential(chain, learning_rule=learning_rule, name=model.name)",
            "Sequential(chain, learning_rule=learning_rule)",
        ),
        (
            "a converted graph has another name",
            "keras_gevb/conversion.py",
            "Model(*ends, learning_rule=learning_rule, name=model.name)",
            "Model(*ends, learning_rule=learning_rule)",
        ),
        (
            "what is frozen learns once it is converted",
            "keras_gevb/conversion.py",
            "mine.trainable = theirs.trainable  #",
            "pass  #",
        ),
        (
            "a converted model shares layers with the stock model",
            "keras_gevb/conversion.py",
            "chain = [inputs, *map(copied, model.layers)]",
            "chain = [inputs, *model.layers]",
        ),
    ],
    ("conversion", "tests/test_convert.py -k 'refused or cannot_be_converted'"): [
        (
            "a rule of vector units converts a stock model",
            "keras_gevb/conversion.py",
            "    converted.learning_rule.check([passes.Record(place) for place in found])\n",
            "",
        ),
        (
            "weights beside layers are lost",
            "keras_gevb/conversion.py",
            "    if outside:\n",
            "    if False:\n",
        ),
    ],
    (
        "vectorization",
        "tests/test_vectorize.py -k 'seed or relus or mixed_signs or pooling or numbers or windows'",
    ): [
        (
            "max pooling becomes average pooling without a word",
            "keras_gevb/vectorization.py",
            "    if average != type(layer).__name__:",
            "    if False:",
        ),
        (
            "vector_dim is the number of classes, whatever was asked for",
            "keras_gevb/vectorization.py",
            "self._vector_dim = classes if vector_dim is None else vector_dim",
            "self._vector_dim = classes",
        ),
        (
            "later kernels are nonnegative though mixed signs were asked for",
            "keras_gevb/vectorization.py",
            'settings = {"nonnegative": self._nonnegative} if on_vectors else first',
            "settings = {} if on_vectors else first",
        ),
        (
            "a layer without ReLU is gated",
            "keras_gevb/vectorization.py",
            'settings["gated"] = bool(gated)',
            'settings["gated"] = True',
        ),
        (
            "strides of a stock layer are lost",
            "keras_gevb/vectorization.py",
            '"kernel_size", "strides", "padding",',
            '"kernel_size", "padding",',
        ),
        (
            "gaps of a stock layer's windows are lost",
            "keras_gevb/vectorization.py",
            '"dilation_rate", "groups",',
            '"groups",',
        ),
        (
            "regularizers of an embedding are lost",
            "keras_gevb/vectorization.py",
            '"pointwise", "embeddings")',
            '"pointwise")',
        ),
        (
            "the seed is not what initializers draw from",
            "keras_gevb/vectorization.py",
            "        random.seed(seed)\n",
            "        pass\n",
        ),
        (
            "a seed is left behind in Python's generator",
            "keras_gevb/vectorization.py",
            "            random.setstate(state)\n",
            "            pass\n",
        ),
    ],
    (
        "vector layers",
        "tests/test_layers.py -k 'each_component or scalar_input or separable_convolution_is'",
    ): [
        (
            "causal windows see what comes",
            "keras_gevb/layers/windows.py",
            "widths[first + i] = reach - 1, 0",
            "widths[first + i] = 0, reach - 1",
        ),
        (
            "windows with gaps are counted as windows without",
            "keras_gevb/layers/windows.py",
            "return tuple((k - 1) * d + 1 for",
            "return tuple(k + 0 * d for",
        ),
        (
            "volumes of vectors are convolved without strides",
            "keras_gevb/layers/windows.py",
            "outputs = self._conv(samples, kernel, self.strides, self.dilation_rate)",
            "outputs = self._conv(samples, kernel, 1, self.dilation_rate)",
        ),
        (
            "volumes of vectors are convolved without gaps",
            "keras_gevb/layers/windows.py",
            "outputs = self._conv(samples, kernel, self.strides, self.dilation_rate)",
            "outputs = self._conv(samples, kernel, self.strides, 1)",
        ),
        (
            "sequences of vectors are convolved without gaps",
            "keras_gevb/layers/windows.py",
            "(*self.strides, 1), (*self.dilation_rate, 1))",
            "(*self.strides, 1), 1)",
        ),
        (
            "channels of a depthwise convolution stand component by component",
            "keras_gevb/layers/windows.py",
            "h = ops.moveaxis(ops.reshape(h, (*rest, channels, -1, multiplier)), -2, -3)",
            "h = ops.reshape(h, (*rest, channels, -1, multiplier))",
        ),
        (
            "a group sees the channels of another one",
            "keras_gevb/layers/windows.py",
            "for group, part in enumerate(ops.split(inputs, self.groups, axis=-1)):",
            "for group, part in enumerate(ops.split(inputs, self.groups, axis=-1)[::-1]):",
        ),
        (
            "channels of a separable convolution are gated before they are summed",
            "keras_gevb/layers/separable.py",
            "            gated=False,\n",
            "",
        ),
    ],
    (
        "vector layers",
        "tests/test_layers.py tests/test_initializers.py -k 'dropout or embedding or mean_over or "
        "mirrored_channels or reshape'",
    ): [
        (
            "reshaped vectors keep their component where one axis was",
            "keras_gevb/layers/shaping.py",
            "sizes)), 1, -2)",
            "sizes)), 1, 2)",
        ),
        (
            "components of a unit are dropped one by one",
            "keras_gevb/layers/shaping.py",
            "noise_shape=(*rest, 1, channels)",
            "noise_shape=None",
        ),
        (
            "dropped activity is not scaled up",
            "keras_gevb/layers/shaping.py",
            "return keras.random.dropout(inputs,",
            "return keras.random.dropout((1 - self.rate) * inputs,",
        ),
        (
            "units are dropped in inference too",
            "keras_gevb/layers/shaping.py",
            "if not training or not self.rate:",
            "if not self.rate:",
        ),
        (
            "padding counts in a mean over words",
            "keras_gevb/layers/shaping.py",
            "return super().call(inputs, mask=mask)",
            "return super().call(inputs)",
        ),
        (
            "an embedding has the fan-in of all its tokens",
            "keras_gevb/layers/embedding.py",
            "self._drawn((1, math.prod(shape)), dtype, seed)",
            "self._drawn((shape[0], math.prod(shape[1:])), dtype, seed)",
        ),
        (
            "channels of a pair have kernels of their own",
            "keras_gevb/layers/windows.py",
            "ops.repeat(ops.abs(kernel), 2, axis=rank)",
            "ops.concatenate([ops.abs(kernel)] * 2, axis=rank)",
        ),
    ],
    ("vector layers", "tests/test_backprop.py -k 'differentiation and (tokens or depthwise)'"): [
        (
            "a token that stands twice is told once",
            "keras_gevb/layers/embedding.py",
            "ops.segment_sum(told,",
            "ops.segment_max(told,",
        ),
        (
            "one of K copies of a channel is told to a depthwise kernel",
            "keras_gevb/layers/windows.py",
            "h = ops.sum(ops.reshape(h, (*rest, channels, -1, outputs)), axis=-2)",
            "h = ops.reshape(h, (*rest, channels, -1, outputs))[..., 0, :]",
        ),
    ],
    ("vector layers", "tests/test_heads.py -k 'orthogonal_rows or without_a_seed or through_the_code'"): [
        (
            "a code is not scaled",
            "keras_gevb/layers/coding.py",
            "math.sqrt(classes / numbers) * orthogonal.T",
            "orthogonal.T",
        ),
        (
            "a code ignores its seed",
            "keras_gevb/layers/coding.py",
            "np.random.default_rng(self.seed)",
            "np.random.default_rng(0)",
        ),
        (
            "a code's seed is lost on save",
            "keras_gevb/layers/coding.py",
            '"classes": self.classes, "seed": self.seed}',
            '"classes": self.classes}',
        ),
        (
            "a code learns",
            "keras_gevb/layers/coding.py",
            "initializer=self._drawn, trainable=False",
            "initializer=self._drawn",
        ),
    ],
    ("rules", "tests/test_rules.py -k 'kp-fc-momentum or do_not_decay'"): [
        (
            "the weights of KP do not decay",
            "keras_gevb/rules/kolen_pollack.py",
            "yield kernel, (1 - self.decay) * kernel",
            "yield kernel, 1 * kernel",
        ),
        (
            "the feedback of KP goes against the weights",
            "keras_gevb/rules/kolen_pollack.py",
            "(feedback + change(kernel))",
            "(feedback - change(kernel))",
        ),
        (
            "frozen weights decay under KP",
            "keras_gevb/rules/kolen_pollack.py",
            "            if kernel.trainable:\n",
            "            if True:\n",
        ),
        (
            "the feedback of DKP has the other sign",
            "keras_gevb/rules/learned.py",
            "(1 - self.decay) * weights - ops.cast",
            "(1 - self.decay) * weights + ops.cast",
        ),
        (
            "the feedback of DKP does not decay",
            "keras_gevb/rules/learned.py",
            "return (1 - self.decay) * weights",
            "return weights",
        ),
    ],
    ("rules", "tests/test_rules.py -k 'fdfa-fc-momentum or function_of_the_state or more_samples'"): [
        (
            "the feedback of FDFA adds up what is seen",
            "keras_gevb/rules/learned.py",
            "return weights - self.rate * (weights - ops.cast(observed, weights.dtype))",
            "return weights + self.rate * ops.cast(observed, weights.dtype)",
        ),
        (
            "noise is the same in every step",
            "keras_gevb/rules/noise.py",
            "+ 131_071 * replica, steps + 1",
            "+ 131_071 * replica, 1",
        ),
        (
            "noise is the same in every layer",
            "keras_gevb/rules/noise.py",
            "+ 8191 * place",
            "",
        ),
        (
            "draws are added up, not averaged",
            "keras_gevb/rules/perturbation.py",
            "ops.cast(effects, u.dtype) * u / self.samples",
            "ops.cast(effects, u.dtype) * u",
        ),
        (
            "all draws of a step are one",
            "keras_gevb/rules/perturbation.py",
            "directions(step, self.noise, n * len(step.records))",
            "directions(step, self.noise)",
        ),
    ],
    (
        "rules",
        "tests/test_rules.py tests/test_feedback.py "
        "-k 'sdfa-fc-momentum or drtp-fc-momentum or sign_against'",
    ): [
        (
            "the sign of e is not averaged over a batch",
            "keras_gevb/rules/dfa.py",
            "return step.shares() * ops.sign(step.error)",
            "return ops.sign(step.error)",
        ),
        (
            "DRTP sends what is no target",
            "keras_gevb/rules/dfa.py",
            "step.shares() * ops.cast(targets.classes(step, self), step.error.dtype)",
            "step.share() * (1 - ops.cast(targets.classes(step, self), step.error.dtype))",
        ),
        (
            "feedback of targets has the sign of that of errors",
            "keras_gevb/rules/dfa.py",
            "    sign = -1\n",
            "    sign = 1\n",
        ),
    ],
    ("rules", "tests/test_rules.py -k 'ebd-fc-momentum'"): [
        (
            "EBD forgets what it should keep",
            "keras_gevb/rules/decorrelation.py",
            "self.memory * variable + (1 - self.memory) * ops.cast(seen, variable.dtype)",
            "(1 - self.memory) * variable + self.memory * ops.cast(seen, variable.dtype)",
        ),
        (
            "EBD lowers entropy",
            "keras_gevb/rules/decorrelation.py",
            "wanted = wanted - self.entropy *",
            "wanted = wanted + self.entropy *",
        ),
        (
            "EBD silences units",
            "keras_gevb/rules/decorrelation.py",
            "(ops.diag(covariance) - self.level)",
            "ops.diag(covariance)",
        ),
        (
            "EBD knows the weight of no sample",
            "keras_gevb/rules/decorrelation.py",
            "return signal + ops.reshape(step.share(), (-1, *[1] * (len(wanted.shape) - 1))) * wanted",
            "return signal + wanted / len(wanted)",
        ),
    ],
    ("rules", "tests/test_rules.py -k 'usf-fc or usf-conv-adam or frsf-fc or signs_of_the_weights'"): [
        (
            "uniform feedback knows no signs",
            "keras_gevb/rules/signs.py",
            "[(w, m * ops.sign(w.value))",
            "[(w, m * ops.ones_like(w.value))",
        ),
        (
            "magnitudes are by the fan-in alone",
            "keras_gevb/rules/signs.py",
            "(math.prod(window) * (inputs + outputs))",
            "(math.prod(window) * inputs)",
        ),
        (
            "the fan of a window is that of one position",
            "keras_gevb/rules/signs.py",
            "math.sqrt(2 / (math.prod(window) * (inputs + outputs)))",
            "math.sqrt(2 / (inputs + outputs))",
        ),
        (
            "magnitudes of a batch are those of the first",
            "keras_gevb/rules/signs.py",
            "            yield m, 3**0.5 * c * (2 * self.noise.uniform(m.shape, n, m.dtype) - 1)\n",
            "            pass\n",
        ),
        (
            "fixed magnitudes have signs of their own",
            "keras_gevb/rules/signs.py",
            "ops.cast(ops.abs(m), w.dtype) for m",
            "ops.cast(m, w.dtype) for m",
        ),
    ],
    ("rules", "tests/test_rules.py -k 'local_error-fc-momentum'"): [
        (
            "a local classifier is told the target's opposite",
            "keras_gevb/rules/local_error.py",
            "ops.cast(step.shares(), h.dtype) * (chances - y)",
            "ops.cast(step.shares(), h.dtype) * (chances + y)",
        ),
        (
            "a local classifier does not learn",
            "keras_gevb/rules/local_error.py",
            "update = ops.cast(ops.matmul(ops.transpose(h), error), variable.dtype)",
            "update = 0 * ops.cast(ops.matmul(ops.transpose(h), error), variable.dtype)",
        ),
        (
            "a local error counts all samples alike",
            "keras_gevb/rules/local_error.py",
            "ops.cast(step.shares(), h.dtype) * (chances - y)",
            "(1 / len(h)) * (chances - y)",
        ),
    ],
    ("certificate", "tests/test_certificate.py -k 'planted_cheat'"): [
        (
            "a probe moves no weight",
            "keras_gevb/diagnostics/perturbations.py",
            "variable.assign(value + size * random.uniform",
            "variable.assign(value + 0 * size * random.uniform",
        ),
        (
            "a probe leaves later activity as it was",
            "keras_gevb/diagnostics/probes.py",
            "[another(r, random) if r.number > last else r for",
            "[r for",
        ),
        (
            "a probe leaves the outputs as they were",
            "keras_gevb/diagnostics/probes.py",
            "                step.outputs = keras.tree.map_structure(\n"
            "                    functools.partial(redrawn, random=random), step.outputs\n"
            "                )\n",
            "",
        ),
        (
            "a probe leaves other samples as they were",
            "keras_gevb/diagnostics/probes.py",
            "[joined(r, another(r, random), first) for r in step.records]",
            "list(step.records)",
        ),
        (
            "a probe gives every sample its own target",
            "keras_gevb/diagnostics/probes.py",
            "np.roll(np.arange(samples), 1)).targets",
            "np.roll(np.arange(samples), 0)).targets",
        ),
        (
            "small changes are none",
            "keras_gevb/diagnostics/certificate.py",
            'if entry["change"] > 0 and not',
            'if entry["change"] > 1 and not',
        ),
        (
            "updates by another door are not looked at",
            "keras_gevb/diagnostics/probes.py",
            "for variable, update in self.rule.own_updates(step):",
            "for variable, update in ():",
        ),
        (
            "what a rule remembers is not looked at",
            "keras_gevb/diagnostics/probes.py",
            "        if self.rule.remembers():\n",
            "        if False:\n",
        ),
        (
            "targets may be known to any rule",
            "keras_gevb/diagnostics/certificate.py",
            '(on == "targets" and rule.reads_targets)',
            '(on == "targets")',
        ),
    ],
    ("certificate", "tests/test_cli.py -k certify_prints"): [
        (
            "the command ends well where a rule is not local",
            "keras_gevb/cli/certify.py",
            'result["status"] = 1',
            'result["status"] = 0',
        ),
    ],
    ("certificate", "tests/test_certificate.py -k 'honest and (gevb or drtp) or repeated or schema'"): [
        (
            "a rule that reads targets may not",
            "keras_gevb/diagnostics/certificate.py",
            '(on == "targets" and rule.reads_targets)',
            "False",
        ),
        (
            "a certificate leaves weights moved",
            "keras_gevb/diagnostics/perturbations.py",
            "        for variable, value in before:\n            variable.assign(value)\n",
            "        pass\n",
        ),
        (
            "a certificate ignores its seed",
            "keras_gevb/diagnostics/probes.py",
            "return np.random.default_rng(self.seed)",
            "return np.random.default_rng()",
        ),
    ],
    (
        "export",
        "tests/test_trainable_exports.py -k 'saved_model-fc-adam or saved_model and out_of_range or "
        "state_of_another or as_it_was'",
    ): [
        (
            "an exported step leaves the state as it was",
            "keras_gevb/export/trainable.py",
            "return result, {name: after[id(v)] for name, v in self.variables.items()}",
            "return result, {name: values[name] for name, v in self.variables.items()}",
        ),
        (
            "an exported step takes values in another order",
            "keras_gevb/export/trainable.py",
            "by_variable = {id(v): values[name] for name, v in self.variables.items()}",
            "by_variable = dict(zip(map(id, self.variables.values()), [values[n] for n in sorted(values)]))",
        ),
        (
            "an exported step knows no weights of samples",
            "keras_gevb/export/trainable.py",
            "self.model._log(*self.model._learn(x, y, sample_weight), x, y, sample_weight)",
            "self.model._log(*self.model._learn(x, y, None), x, y, sample_weight)",
        ),
        (
            "labels out of range are learned from",
            "keras_gevb/export/trainable.py",
            "    return tf.cond(valid, step, refused)\n",
            "    return step()\n",
        ),
        (
            "labels out of range give a loss",
            "keras_gevb/export/trainable.py",
            'tf.cast(float("nan"), spec.dtype)',
            "tf.cast(0.0, spec.dtype)",
        ),
        (
            "what the optimizer keeps is no part of the state",
            "keras_gevb/export/trainable.py",
            "removeprefix(prefix), v) for v in optimizer]",
            "removeprefix(prefix), v) for v in optimizer[:2]]",
        ),
        (
            "a state of other shapes is taken",
            "keras_gevb/export/trainable.py",
            "    if missing or unknown or shapes:\n",
            "    if missing or unknown:\n",
        ),
        (
            "a state that lacks something is taken",
            "keras_gevb/export/trainable.py",
            "    if missing or unknown or shapes:\n",
            "    if shapes:\n",
        ),
        (
            "an export leaves metrics that began to count",
            "keras_gevb/export/trainable.py",
            "            variable.assign(before.get(id(variable), value))\n",
            "            pass\n",
        ),
    ],
    (
        "command line",
        "tests/test_cli.py -k 'ctrl_c_keeps or not_finite or wrong_use or no_network or goes_on or fails'",
    ): [
        (
            "a command that was stopped is one that failed",
            "keras_gevb/cli/__init__.py",
            "return _end(options, 130,",
            "return _end(options, 1,",
        ),
        (
            "a wrong use is a failure",
            "keras_gevb/cli/__init__.py",
            "return _end(options, 2,",
            "return _end(options, 1,",
        ),
        (
            "a failure is a wrong use",
            "keras_gevb/cli/__init__.py",
            "return _end(options, 1,",
            "return _end(options, 2,",
        ),
        (
            "a wrong argument ends with 1",
            "keras_gevb/cli/__init__.py",
            "self.exit(2, f",
            "self.exit(1, f",
        ),
        (
            "an error is not told as JSON",
            "keras_gevb/cli/__init__.py",
            "    if options.json:\n        print(json.dumps({",
            "    if False:\n        print(json.dumps({",
        ),
        (
            "epochs that are done are done again",
            "keras_gevb/cli/train.py",
            "initial_epoch=min(done, options.epochs)",
            "initial_epoch=0",
        ),
        (
            "a model that is there is written over",
            "keras_gevb/cli/outputs.py",
            "    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):\n",
            "    if False:\n",
        ),
        (
            "a loss that is not finite is kept",
            "keras_gevb/cli/train.py",
            '        if not math.isfinite(logs["loss"]):\n            return\n',
            "",
        ),
        (
            "what was there is gone where an export fails",
            "keras_gevb/cli/outputs.py",
            "    try:\n        yield written\n        if path.is_dir():",
            "    path.unlink(missing_ok=True)\n    try:\n        yield written\n        if path.is_dir():",
        ),
    ],
    (
        "states",
        "tests/test_backends.py tests/test_beside_stock.py -k 'stock_layers or derivative or wrapper'",
    ): [
        (
            "a second pass sees what the first wrote into states",
            "keras_gevb/step.py",
            "kept = set(map(id, private.weights_that_learn(model)))",
            "kept = set(map(id, model.weights))",
        ),
        (
            "a signal runs through what a state was assigned",
            "keras_gevb/scopes.py",
            "backend.assigned(value, before)",
            "value if before is None else backend.assigned(value, before)",
        ),
        (
            "a derivative along directions leaves layers of Keras out",
            "keras_gevb/backend/tensorflow.py",
            "return outer.gradient(signals, cotangent, along, unconnected",
            "return outer.gradient(signals[-1:], cotangent, along[-1:], unconnected",
        ),
    ],
    ("masks", "tests/test_backends.py -k 'padded or masks'"): [
        (
            "a pass with little memory drops masks",
            "keras_gevb/passes.py",
            "return private.masked(waiting, private.mask(part))",
            "return waiting",
        ),
    ],
    ("files", "tests/test_saving.py -k 'never_built or checkpoint_of_tensorflow'"): [
        (
            "a checkpoint leaves the rule out",
            "keras_gevb/preparation.py",
            'private.checkpoint(self, f"learning_rule_{len(self._learning_rule.variables)}", variable)',
            "pass",
        ),
        (
            "a checkpoint keeps the weights of the rule before",
            "keras_gevb/preparation.py",
            'private.checkpoint(self, f"learning_rule_{number}", None)',
            "pass",
        ),
    ],
    (
        "errors",
        "tests/test_errors.py -k 'embeddings_rows or channels or extents or diagnostics or eager_step'",
    ): [
        (
            "rows of embeddings are looked up by XLA",
            "keras_gevb/backend/compiling.py",
            '_IN_PARTS = "Conv", "LocallyConnected", "Embedding"',
            '_IN_PARTS = "Conv", "LocallyConnected"',
        ),
        (
            "rows are looked up inside of the parts",
            "keras_gevb/backend/compiling.py",
            '*("Gather", "ResourceGather"),',
            "",
        ),
        (
            "pooling takes channels that come first",
            "keras_gevb/layers/shaping.py",
            'if data_format not in (None, "channels_last"):',
            "if False:",
        ),
        (
            "several open extents are converted",
            "keras_gevb/export/stock.py",
            "if list(shape).count(None) > 1:",
            "if list(shape).count(None) > 9:",
        ),
    ],
    ("layers", "tests/test_layers.py -k 'channels_are or keras_default'"): [
        (
            "a convolution goes by Keras's default of where channels are",
            "keras_gevb/layers/windows.py",
            ', "data_format": "channels_last"}',
            "}",
        ),
        (
            "pooling goes by Keras's default of where channels are",
            "keras_gevb/layers/shaping.py",
            'super().__init__(*args, data_format="channels_last", **kwargs)',
            "super().__init__(*args, **kwargs)",
        ),
    ],
    ("vectorize", "tests/test_vectorize.py -k 'sum or refused'"): [
        (
            "gates of a sum learn weights",
            "keras_gevb/vectorization.py",
            '"trainable": False, "use_bias": False}',
            '"use_bias": False}',
        ),
        (
            "gates of a sum mix its units",
            "keras_gevb/vectorization.py",
            'vectors.shape[-1], kernel_initializer="identity"',
            'vectors.shape[-1], kernel_initializer="ones"',
        ),
        (
            "a ReLU of a sum is left out",
            "keras_gevb/vectorization.py",
            "if id(given[0]) in self._gated else self._gate(layer, given[0])",
            "",
        ),
    ],
    ("drawing", "tests/test_drawing.py"): [
        (
            "NumPy's generator is not brought back",
            "keras_gevb/backend/defaults.py",
            "        np.random.set_state(self._of_numpy)",
            "        np.random.set_state(np.random.get_state())",
        ),
        (
            "generators stay where a second pass left them",
            "keras_gevb/backend/defaults.py",
            "            end.bring_back()",
            "            pass",
        ),
        (
            "what a layer with weights drew is drawn by the next",
            "keras_gevb/passes.py",
            "        record.pass_by()\n        self.outputs",
            "        self.outputs",
        ),
        (
            "the state without a seed is where the last layer left it",
            "keras_gevb/step.py",
            "known = (*weights, *changed, *before, *unseeded)",
            "known = (*weights, *changed, *before)",
        ),
        (
            "operations draw anew",
            "keras_gevb/backend/tensorflow.py",
            "    return drawn\n",
            "    return None\n",
        ),
        (
            "truncated normals draw anew",
            "keras_gevb/backend/tensorflow.py",
            '"RandomUniformInt", "TruncatedNormal"',
            '"RandomUniformInt"',
        ),
        (
            "an eager step draws anew",
            "keras_gevb/backend/tensorflow.py",
            "    if drawn is None:\n",
            "    if drawn is None and graph is not None:\n",
        ),
    ],
}
MUTANTS = [Mutant(kind, *row, tests) for (kind, tests), rows in TABLE.items() for row in rows]


def run_tests(folder, tests, seconds, which="long or not long"):
    """pytest's exit status in a folder, of the tests of these markers; None where it took longer.

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

        options = ["-n", "0", "-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder)]
        os._exit(pytest.main([*options, "-m", which, *tests]))
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


def reported(path):
    """The outcomes in a report, by row."""
    lines = path.read_text().splitlines() if path and path.exists() else []
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return {tuple(row[:3]): row[3] for row in rows}


def report(path, outcomes):
    """Write the report in Markdown; mistakes that were not planted this time keep their outcomes in it."""
    known = reported(path)
    known |= {mutant.row: outcome for mutant, outcome in outcomes.items()}
    kept = {mutant: known[mutant.row] for mutant in MUTANTS if mutant.row in known}
    caught = sum(outcome.startswith("caught") for outcome in kept.values())
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("tensorflow", "keras")]
    lines = [
        "# Mistakes planted on purpose",
        "",
        f"`python tests/mutants.py` knows {len(MUTANTS)} mistakes. It planted {len(kept)} of them in a copy "
        "of the project, one at a time, and ran the tests that concern each: "
        f"{caught} were caught, {len(kept) - caught} not ({' and '.join(versions)}).",
        "",
        "| concerns | mistake | file | outcome |",
        "| :-- | :-- | :-- | :-- |",
        *(f"| {' | '.join(mutant.row)} | {outcome} |" for mutant, outcome in kept.items()),
    ]
    path.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="PATTERN", help="kinds, or patterns of sentences"
    )
    parser.add_argument("--list", action="store_true", help="name the mistakes, and plant none")
    parser.add_argument("--check", action="store_true", help="see that each text stands in its file once")
    parser.add_argument(
        "--report", type=pathlib.Path, metavar="FILE", help="add the outcomes to this Markdown"
    )
    parser.add_argument("--new", action="store_true", help="only mistakes that the report does not have")
    parser.add_argument(
        "--seconds", type=float, default=600, help="for the tests of one mistake; more is caught too"
    )
    parser.add_argument(
        "--daily", action="store_true", help="plant them before the tests that pytest runs without -m long"
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
    known = reported(options.report) if options.new else {}
    mutants = [mutant for mutant in mutants if mutant.row not in known]
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(shutil.copytree(ROOT, pathlib.Path(temporary) / "mutant", ignore=LEFT_OUT))
        return plant_all(folder, mutants, options, console)


def plant_all(folder, mutants, options, console):
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (folder, folder / "tests")))
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(folder), str(folder / "tests")]
    import keras  # noqa: F401  once for all forks

    outcomes, sound = {}, {}
    which = "not long" if options.daily else "long or not long"
    for mutant in track(mutants, "mistakes", console=console):
        tests = split(mutant.tests)
        if mutant.tests not in sound:
            sound[mutant.tests] = run_tests(folder, tests, 10 * options.seconds, which) in (0, 5)
            if not sound[mutant.tests]:
                log = (folder / "pytest.log").read_text()[-3000:]
                message = f"error: without a mistake these tests fail: {mutant.tests}"
                console.print(f"{message}\n{log}", markup=False)
        if not sound[mutant.tests]:
            continue
        path, text = mutant.plant(folder)
        started = time.monotonic()
        status = run_tests(folder, tests, options.seconds, which)
        path.write_text(text)
        outcomes[mutant] = (
            "caught (too slow)" if status is None else STATUS.get(status, f"pytest said {status}")
        )
        seconds = time.monotonic() - started
        console.print(
            f"{outcomes[mutant]}: {mutant.kind}: {mutant.sentence} ({seconds:.0f} s)",
            highlight=False,
            soft_wrap=True,
        )
        if options.report:
            report(options.report, outcomes)
    survivors = [mutant for mutant, outcome in outcomes.items() if not outcome.startswith("caught")]
    console.print(f"{len(outcomes) - len(survivors)} of {len(outcomes)} mistakes were caught.")
    return 1 if survivors or not all(sound.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
