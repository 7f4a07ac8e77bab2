"""How much of a TensorFlow step XLA compiles, and for which shapes of batches."""

import contextlib
import re
import threading
import warnings
from typing import Any

import keras
import tensorflow as tf

from keras_gevb import private

_scope = threading.local()

# Layers that are faster in parts, or right, and operations outside of the parts: theirs, which are faster
# there; what reads or writes variables, of which one that is read inside of a part and written in another may
# be written first; random numbers, of which XLA draws others; rows by an index, which XLA does not check. The
# call is that of the optimizer (`as_one`).
_IN_PARTS = "Conv", "LocallyConnected", "Embedding"
_OUTSIDE = (
    *("Conv", "BatchMatMul", "ReadVariable", "Assign", "StatefulPartitionedCall", "Stateless"),
    *("Gather", "ResourceGather"),
)

# A compilation takes as long as many steps, so no more shapes of batches are compiled than these.
_SHAPES = 4

# What TensorFlow says where the check of labels, which is an assertion, fails: the message and the label.
_BAD_LABEL = re.compile(r"assertion failed: \[(Labels must be .*?: )\] \[(.*?)\]", re.DOTALL)


def fusing():
    """Whether XLA compiles what is traced now, so that elementwise operations fuse."""
    return getattr(_scope, "compiles", False)


@contextlib.contextmanager
def _compiling():
    """The scope of what XLA compiles."""
    before, _scope.compiles = fusing(), True
    try:
        yield
    finally:
        _scope.compiles = before


def as_one(function):
    """The function, compiled as a whole where XLA compiles, on one device: so it updates in place."""
    if not fusing() or tf.distribute.has_strategy():
        return function
    return tf.function(function, jit_compile=True, autograph=False)


class CompiledSteps:
    """The functions of Keras's TensorFlow trainer, in which the step says what is compiled.

    `jit_compile` means: True, XLA compiles the whole step; False, nothing; "auto", what was measured to be
    fastest on CPU, of what can be compiled. XLA is faster at elementwise passes, contractions and
    optimizer updates, and only what it compiles as a whole updates the weights in place; but oneDNN is faster
    at convolutions and at batches of matrix products, so a network of convolutional or locally connected
    layers is compiled in parts, the optimizer as one. So is one with random layers, which draw as in stock
    Keras there; one with embeddings, where an index beyond the rows is an error as there; and one with layers
    that Keras marks as not compilable, with text or sparse inputs: a part has no operation that XLA does not
    know.

    A shape of batch is compiled when two batches in a row have it, or at once where arrays are cut into
    batches; others run uncompiled.
    """

    _cuts_arrays = False  # whether the batches come from arrays
    _compiles_shape = True  # whether the batch at hand has a shape that is compiled
    _refused = False  # whether XLA was seen to refuse the step as a whole

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        with self._fed_by(x):
            return super().fit(x, *args, **kwargs)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        with self._fed_by(x):
            return super().evaluate(x, *args, **kwargs)

    @contextlib.contextmanager
    def _fed_by(self, x):
        before, self._cuts_arrays = (
            self._cuts_arrays,
            all(hasattr(part, "__array__") for part in keras.tree.flatten(x)),
        )
        try:
            yield
        finally:
            self._cuts_arrays = before

    def _compiled(self, step, *args):
        """What the step returns, with as much of it compiled as can and shall be."""
        if tf.executing_eagerly() or self._jit is False or not self._compiles_shape:
            return step(*args)
        if not self._compiles_whole(args):
            clusters = tf.xla.experimental.jit_scope(lambda node: not node.op.startswith(_OUTSIDE))
            with _compiling(), clusters:
                return step(*args)

        def whole(*args):
            with _compiling():
                result = step(*args)
            return result, list(map(private.mask, keras.tree.flatten(result)))

        # A mask does not pass a function's end with its tensor.
        result, masks = tf.function(whole, jit_compile=True, autograph=False)(*args)
        for tensor, mask in zip(keras.tree.flatten(result), masks, strict=True):
            private.masked(tensor, mask)
        return result

    def _compiles_whole(self, args):
        layers = private.flat_layers(self)
        known = all(layer.supports_jit for layer in layers) and all(map(_is_number, tf.nest.flatten(args)))
        if tf.distribute.has_strategy() or not known or self._refused:
            return False
        names = [type(layer).__name__ for layer in layers]
        spatial = any(part in name for name in names for part in _IN_PARTS)
        random = any(variable.name == "seed_generator_state" for variable in self.variables)
        if self._jit is True or tf.config.list_physical_devices("GPU"):
            return True
        return not spatial and not random

    def _resolve_auto_jit_compile(self):
        # Not resolved to True or False: so a saved model is compiled as fits where it is loaded.
        return None

    def make_train_function(self, force: bool = False) -> Any:
        if self.train_function is None or force:
            self._refused = False
            self.train_function = self._by_shape(super().make_train_function, "train_function")
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        if self.test_function is None or force:
            self.test_function = self._by_shape(super().make_test_function, "test_function")
        return self.test_function

    def _by_shape(self, make, name):
        """Keras's function of an iterator, by `make`: one for shapes that are compiled, one for others."""

        def made():
            # XLA drops assertions, so the label check must stay outside of what it compiles:
            # the step compiles what follows the check, and Keras compiles nothing around it.
            self._jit, self.jit_compile = self.jit_compile, False
            try:
                make(force=True)
            finally:
                self.jit_compile = self._jit
            return getattr(self, name)

        function = made()
        several = self.steps_per_execution > 1 or self.distribute_strategy.num_replicas_in_sync > 1
        if self.run_eagerly or self._jit is not None or several or self._distribute_strategy is not None:
            return self._explained(function, name)
        return _ByShape(self, function, made, name)

    def _explained(self, function, name):
        """The function, whose compiler's errors say what to do."""

        def explained(iterator):
            with _forgotten_on_error(self, name):
                try:
                    return function(iterator)
                except tf.errors.OpError as error:
                    if not _is_of_compiler(error):
                        raise
                    raise RuntimeError(
                        "XLA cannot compile this step: a layer, a loss or a metric does what it does not "
                        f"know. Compile the model with jit_compile=False. Received: {_reason(error)}"
                    ) from error

        return explained


class _ByShape:
    """A function of an iterator that runs its next batch compiled or not, by the batch's shape."""

    def __init__(self, model, compiled, make, name):
        self._model, self._compiled, self._make, self._name = model, compiled, make, name
        self._plain = {}
        self._shapes, self._last = set(), None

    def __call__(self, iterator):
        batch = next(iterator)
        with _forgotten_on_error(self._model, self._name):
            if self._last is None:  # no batch was before
                _build_metrics(self._model, batch)
            return self._run(batch)

    def _run(self, batch):
        parts = keras.tree.flatten(batch)
        shapes = tuple(tuple(getattr(part, "shape", ())) for part in parts)
        if self._compiles(shapes):
            return self._run_compiled(batch)
        return self._run_plain(batch, parts)

    def _run_compiled(self, batch):
        try:
            return self._compiled(iter([batch]))
        except tf.errors.OpError as error:
            if not _is_of_compiler(error):
                raise
            warnings.warn(
                "XLA cannot compile this step, so it runs compiled in parts. Compile the model with "
                f"jit_compile=False to have nothing compiled. Received: {_reason(error)}",
                stacklevel=2,
            )
        for metric in self._model.metrics:
            # One that the refused trace created has no value yet.
            if not all(bool(variable.value.is_initialized()) for variable in metric.variables):
                metric.reset_state()
        self._model._refused = True
        self._compiled = self._model._explained(self._remade(), self._name)
        return self._compiled(iter([batch]))

    def _remade(self):
        function = self._make()
        setattr(self._model, self._name, self)
        return function

    def _compiles(self, shapes):
        again = shapes == self._last or (self._last is None and self._model._cuts_arrays)
        self._last = shapes
        if again and len(self._shapes) < _SHAPES:
            self._shapes.add(shapes)
        return shapes in self._shapes

    def _run_plain(self, batch, parts):
        """One trace for all shapes."""
        model = self._model
        if not all(map(_is_dense, parts)):
            signature, specs = "other", None
        else:
            specs = [None if p is None else tf.TensorSpec((None, *p.shape[1:]), p.dtype) for p in parts]
            signature = tuple(specs), repr(keras.tree.map_structure(lambda _: 0, batch))
        if signature not in self._plain:
            self._plain[signature] = self._traced(batch, specs)
        model._compiles_shape = False
        try:
            return self._plain[signature](batch)
        finally:
            model._compiles_shape = True

    def _traced(self, batch, specs):
        function = self._remade()
        if specs is None:
            return lambda batch: function(iter([batch]))
        given = [n for n, spec in enumerate(specs) if spec is not None]

        @tf.function(input_signature=[[specs[n] for n in given]], autograph=False)
        def traced(tensors):
            parts = [None] * len(specs)
            for n, tensor in zip(given, tensors):
                parts[n] = tensor
            return function(iter([keras.tree.pack_sequence_as(batch, parts)]))

        def run(batch):
            parts = keras.tree.flatten(batch)
            return traced([parts[n] for n in given])

        return run


def _build_metrics(model, batch):
    """Named metrics make their variables: a step that makes some is traced twice."""
    unbuilt = [metric for metric in model.metrics if not getattr(metric, "built", True)]
    outputs = private.symbolic_outputs(model) if unbuilt else None
    if outputs is not None:
        _, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        for metric in unbuilt:
            with contextlib.suppress(Exception):  # the step says what is wrong
                metric.build(y, outputs)


@contextlib.contextmanager
def _forgotten_on_error(model, name):
    """A function whose trace or run fails is made anew for the next call, which may be a right one."""
    try:
        yield
    except (StopIteration, tf.errors.OutOfRangeError):
        raise  # the end of the data
    except Exception as error:
        setattr(model, name, None)
        bad_label = _BAD_LABEL.search(str(error))
        if bad_label is None:
            raise
        raise ValueError("".join(bad_label.groups())) from error


def _is_of_compiler(error):
    return any(word in str(error) for word in ("XLA", "tf2xla", "when trying to compile"))


def _reason(error):
    """The line of a compiler's error that says what it does not know."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    told = (line for line in lines if ("compil" in line or "XLA" in line) and not line.startswith("File "))
    return next(told, lines[0])


def _is_number(part):
    """Whether XLA takes a part of a step's arguments."""
    return part is None or (isinstance(part, tf.Tensor) and part.dtype not in (tf.string, tf.variant))


def _is_dense(part):
    return part is None or (hasattr(part, "__array__") and hasattr(part, "dtype"))
