"""Every private name of Keras that the package leans on is there, and is what it stands for."""

import inspect
import random

import keras
import numpy as np
import pytest

import keras_gevb
from keras_gevb import layers, private


def model():
    inputs = keras.Input((4,))
    hidden = layers.VectorDense(2, vector_dim=3, name="hidden")
    nested = keras.Sequential([keras.Input((3, 2)), layers.VectorDense(2, name="inner")], name="nested")
    outputs = layers.VectorReadout(name="readout")(nested(hidden(inputs)))
    net = keras_gevb.Model(inputs, outputs, learning_rule="fa")
    net.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return net


def functional():
    inputs = keras.Input((1,))
    assert private.Functional is type(keras.Model(inputs, keras.layers.Identity()(inputs)))


def flat_layers():
    names = [layer.name for layer in private.flat_layers(model())]
    assert {"hidden", "nested", "inner", "readout"} < set(names)


def output_shapes():
    conv = layers.Conv2D(2, 1)
    for size in (3, 5):
        conv(keras.Input((size, size, 1)))
    assert [tuple(shape) for shape in private.output_shapes(conv)] == [(None, 3, 3, 2), (None, 5, 5, 2)]
    alone = layers.Dense(2)
    alone.build((None, 4))
    assert [tuple(shape) for shape in private.output_shapes(alone)] == [(None, 2)]


def symbolic_inputs():
    """Outside of a graph too, where Keras has the shapes that a model was built on."""

    class Twice(keras.Model):
        def call(self, x):
            return x["a"] + x["b"]

    outside = Twice()
    outside.build({"a": (None, 3), "b": (None, 1)})
    found = private.symbolic_inputs(outside)
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {"a": (None, 3), "b": (None, 1)}
    assert tuple(private.symbolic_inputs(model()).shape) == tuple(model().input_shape)


def run_graph():
    inputs = keras.Input((2,))
    net = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Dense(3)(inputs)))
    for graph, given in ((net, inputs), (keras.Sequential([keras.Input((2,)), net]), keras.Input((2,)))):
        called = []

        def call(layer, *args, called=called, **_):
            called.append(layer)
            return layer(*args)

        assert private.run_graph(graph, [given], call).shape == (None, 4)
        assert called == [layer for layer in graph.layers if not isinstance(layer, keras.layers.InputLayer)]


def producer():
    inputs = keras.Input((2,))
    hidden = keras.layers.Dense(3)
    outputs = keras.layers.ReLU()(hidden(inputs))
    operation, givens = private.producer(outputs)
    assert type(operation) is keras.layers.ReLU
    assert private.producer(*givens)[0] is hidden


def consumers():
    hidden = keras.layers.Dense(3)
    units = hidden(keras.Input((2,)))
    one, other = keras.layers.ReLU(), keras.layers.Softmax()
    one(units), other(units)
    assert private.consumers(hidden) == [one, other]


def saves_legacy_config():
    seen = []

    class Watching(keras.layers.Layer):
        def get_config(self):
            seen.append(private.saves_legacy_config())
            return super().get_config()

    stock = keras.Sequential([keras.Input((2,)), Watching()])
    stock.get_config()
    assert seen == [False]


def saves_legacy_config_in_a_legacy_file(tmp_path):
    with pytest.raises(ValueError, match=r"\.keras"):
        keras.saving.save_model(model(), tmp_path / "model.h5")


def loss_tracker():
    net = model()
    assert private.loss_tracker(net) is net.metrics[0]
    assert net.metrics[0].name == "loss"


def untrack():
    layer = keras.layers.Layer()
    weight = layer.add_weight(shape=(2,), name="weight")
    private.untrack(layer, weight)
    assert not layer.weights


def masks():
    found = []

    class Reads(keras.layers.Layer):
        supports_masking = True

        def call(self, inputs, mask=None):
            found.append(mask)
            return inputs

    numbers, mask = keras.ops.ones((2, 3)), keras.ops.ones((2, 3), "bool")
    outputs = Reads()(private.masked(numbers, mask))
    np.testing.assert_array_equal(found[0], mask)
    np.testing.assert_array_equal(private.mask(outputs), mask)


def unseeded():
    """What is drawn without a seed is told by its state; having it takes no number of Python's."""
    keras.utils.set_random_seed(1)
    before = random.getstate()
    private.make_unseeded()
    assert random.getstate() == before
    with private.watching_unseeded() as drawn:
        keras.random.normal((2,), seed=1)
        assert not drawn
        first = keras.random.normal((2,))
        keras.random.normal((2,))
    ((state, value),) = drawn
    assert np.any(keras.ops.convert_to_numpy(state) != keras.ops.convert_to_numpy(value))
    state.assign(value)
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (keras.random.normal((2,)), first)))


def drawn_operations():
    """TensorFlow tells of its operations, and takes others' results in their place."""
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf
    from tensorflow.python.framework import op_callbacks

    names = []

    def ones(name, inputs, attributes, outputs, op_name=None, graph=None):
        names.append(name)
        return [tf.ones((2,))] if name == "RandomStandardNormal" else None

    @tf.function
    def drawn():
        op_callbacks.add_op_callback(ones)
        try:
            return tf.random.normal((2,))
        finally:
            op_callbacks.remove_op_callback(ones)

    np.testing.assert_array_equal(drawn(), np.ones(2))
    assert "RandomStandardNormal" in names


def overridden():
    """What is overridden under these names is called by Keras."""
    trainer = keras.Model.__mro__[1]
    for name in ("_resolve_auto_jit_compile", "_maybe_symbolic_build"):
        if keras.backend.backend() == "tensorflow":
            assert any(name in vars(cls) for cls in trainer.__mro__), name
    assert "_lock_state" in inspect.getsource(keras.layers.Layer)


CHECKS = [
    functional,
    flat_layers,
    output_shapes,
    symbolic_inputs,
    run_graph,
    producer,
    consumers,
    saves_legacy_config,
    saves_legacy_config_in_a_legacy_file,
    loss_tracker,
    untrack,
    masks,
    unseeded,
    drawn_operations,
    overridden,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_private_name_is_what_it_stands_for(check, tmp_path):
    try:
        check(*([tmp_path] if inspect.signature(check).parameters else []))
    except (AttributeError, ImportError, AssertionError) as error:
        pytest.fail(
            f"Keras {keras.__version__} has moved or changed what keras_gevb.private.{check.__name__} stands "
            f"for: {error!r}. Mend keras_gevb/private.py."
        )


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="under JAX alone a fit keeps a model's values")
def test_the_state_of_a_fit_can_be_given_back():
    net = model()
    net.optimizer.build(net.trainable_variables)
    values = [np.array(v) + 1 for v in net.trainable_variables]
    others = net.non_trainable_variables, net.optimizer.variables, net.metrics_variables
    private.give_back_state(net, (values, *([v.value for v in part] for part in others)))
    for variable, value in zip(net.trainable_variables, values, strict=True):
        np.testing.assert_array_equal(variable, value)
