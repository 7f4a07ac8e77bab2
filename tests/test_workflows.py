"""What users do every day: right, as stock Keras run beside, or refused in one clear sentence."""

import functools
import warnings

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

import keras_gevb
from keras_gevb import layers

K = 3
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def x(samples=8, features=6):
    return np.random.default_rng(0).normal(size=(samples, features)).astype("float32")


def y(samples=8):
    return np.arange(samples) % K


def network(*between, first=(), shape=(6,), vector_dim=K):
    """The layers of a small network, an Input first where a shape is given."""
    start = [] if shape is None else [keras.Input(shape)]
    return [
        *start,
        *first,
        layers.VectorDense(8, vector_dim=vector_dim, name="lower"),
        *between,
        layers.VectorDense(4, name="upper"),
        layers.VectorReadout(name="readout"),
    ]


def sequential(*between, rule="gevb", **settings):
    return keras_gevb.Sequential(network(*between, **settings), learning_rule=rule)


def compiled(model, loss=CROSS_ENTROPY, **settings):
    """Run eagerly: where nothing is said of what is traced or compiled, small networks trace slowly."""
    return traced(model, loss, **{"run_eagerly": True, **settings})


def traced(model, loss=CROSS_ENTROPY, **settings):
    """As Keras runs a model by default, unless the settings say otherwise."""
    model.compile(keras.optimizers.SGD(0.1), loss, **settings)
    return model


class Net(keras_gevb.Model):
    """A subclassed model."""

    def __init__(self, between=None, learning_rule="gevb", **kwargs):
        super().__init__(learning_rule=learning_rule, **kwargs)
        self.lower, self.upper = layers.VectorDense(8, vector_dim=K), layers.VectorDense(4)
        self.readout = layers.VectorReadout()
        self.between = between or (lambda units: units)

    def call(self, inputs, training=None):
        return self.readout(self.upper(self.between(self.lower(inputs))))


def gradients(model, inputs, targets):
    """Automatic differentiation of the whole model and loss."""
    with tf.GradientTape() as tape:
        loss = model.compute_loss(inputs, targets, model(inputs, training=True))
    return tape.gradient(loss, model.trainable_variables)


def assert_exact(model, inputs, targets):
    updates = model.compute_updates(inputs, targets)
    for update, gradient in zip(updates, gradients(model, inputs, targets), strict=True):
        # float32, two orders of summation of numbers of order 1
        np.testing.assert_allclose(update, gradient, rtol=1e-5, atol=1e-6)


def refused(model, fit, words):
    """A fit is refused with these words; weights and optimizer are as they were, and a right fit works."""
    before = [np.array(v) for v in [*model.variables, *model.optimizer.variables]]
    with pytest.raises(Exception, match=words) as raised:
        fit(model)
    assert type(raised.value) is ValueError
    after = [*model.variables, *model.optimizer.variables][: len(before)]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, np.array(new))


# 1. What XLA cannot compile stays outside of what is compiled.

AUGMENTATIONS = {
    "rotation": lambda: keras.layers.RandomRotation(0.1),
    "zoom": lambda: keras.layers.RandomZoom(0.2),
    "translation": lambda: keras.layers.RandomTranslation(0.1, 0.1),
    "shear": lambda: keras.layers.RandomShear(0.1, 0.1),
    "contrast": lambda: keras.layers.RandomContrast(0.1),
    "augment": lambda: keras.layers.RandAugment((0, 1), num_ops=1),
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.sampled(1)
def test_augmentation_in_the_model_trains_by_default(name):
    stack = network(first=[AUGMENTATIONS[name](), keras.layers.Flatten()], shape=(8, 8, 3))
    model = traced(keras_gevb.Sequential(stack))
    images = np.random.default_rng(0).random((8, 8, 8, 3)).astype("float32")
    before = model.get_weights()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # RandAugment says that it can be compiled; it cannot
        assert np.isfinite(model.fit(images, y(), verbose=0).history["loss"][0])
        assert np.isfinite(model.evaluate(images, y(), verbose=0))
    assert any(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))


TEXT = np.array(["a b", "c d", "a c", "b b"] * 2, dtype=object)


def lookups():
    yield keras.layers.StringLookup(vocabulary=["a b", "c d"], output_mode="one_hot")
    yield keras.layers.StringLookup(
        vocabulary=list(dict.fromkeys(TEXT)), num_oov_indices=0, output_mode="one_hot"
    )
    encoding = keras.layers.CategoryEncoding(5, output_mode="multi_hot")
    yield keras.Sequential([keras.Input((1,), dtype="string"), keras.layers.Hashing(num_bins=5), encoding])
    vectorization = keras.layers.TextVectorization(output_mode="tf_idf", max_tokens=8)
    vectorization.adapt(TEXT)
    yield vectorization


@pytest.fixture(scope="module")
def another_was_compiled():
    traced(sequential()).fit(x(), y(), verbose=0)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.sampled(1)
def test_text_inside_the_model_trains_after_another_model_was_compiled(number, another_was_compiled):
    layer = list(lookups())[number]
    shape = () if isinstance(layer, keras.layers.TextVectorization) else (1,)
    words = keras.Input(shape, dtype="string")
    stack = network(shape=None)
    units = layer(words)
    for part in stack:
        units = part(units)
    model = traced(keras_gevb.Model(words, units), metrics=["accuracy"])
    data = tf.data.Dataset.from_tensor_slices((TEXT.astype(str).reshape(-1, *shape), y())).batch(2)
    assert np.isfinite(model.fit(data, epochs=2, verbose=0).history["loss"]).all()
    assert np.isfinite(model.evaluate(data, verbose=0)).all()


def test_integers_are_looked_up_inside_the_model():
    numbers = keras.Input((1,), dtype="int64")
    units = keras.layers.IntegerLookup(vocabulary=[10, 20, 30], output_mode="one_hot")(numbers)
    for part in network(shape=None):
        units = part(units)
    model = traced(keras_gevb.Model(numbers, units))
    assert np.isfinite(model.fit(np.array([[10], [20], [30], [40]]), y(4), verbose=0).history["loss"][0])


def calls_python(truth, outputs):
    value = tf.py_function(lambda t, o: 0 * tf.reduce_sum(o) + 7, [truth, outputs], tf.float32)
    value.set_shape(())
    return value


def test_a_metric_that_calls_python_works_by_default():
    model = traced(sequential(), metrics=[calls_python])
    assert model.fit(x(), y(), verbose=0).history["calls_python"] == [7]
    assert model.evaluate(x(), y(), verbose=0)[1] == 7


def loss_that_calls_python(truth, outputs):
    return keras.ops.mean(CROSS_ENTROPY(truth, outputs)) + calls_python(truth, outputs)


def test_a_loss_that_calls_python_is_left_out_of_what_is_compiled_with_a_warning():
    model, expected = traced(sequential(), loss_that_calls_python), compiled(sequential())
    expected.set_weights(model.get_weights())
    with pytest.warns(UserWarning, match="jit_compile=False"):
        model.fit(x(), y(), verbose=0)
    expected.fit(x(), y(), verbose=0)
    for mine, theirs in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)  # one float32 step


def test_what_xla_does_not_know_is_first_left_out_of_what_is_compiled():
    """A layer of random numbers that XLA has no operation for: the rest is compiled, in parts."""
    from keras_gevb import backend

    fused = []

    class Drawing(keras.layers.Layer):
        def call(self, inputs):
            if not isinstance(inputs, keras.KerasTensor):
                fused.append(backend.fusing())
            return inputs + 0 * tf.random.gamma((), 1.0)

    stack = [keras.Input((6,)), keras.layers.Dense(5), Drawing(), keras.layers.Dense(K)]
    model = traced(keras_gevb.Sequential(stack, learning_rule="dfa"))
    fused.clear()
    with pytest.warns(UserWarning, match="runs compiled in parts"):
        model.fit(x(), y(), epochs=2, verbose=0)
    assert fused[-1]
    assert model._refused


def test_what_fails_in_parts_too_says_how_to_leave_the_compiler_out():
    def refused(truth, outputs):
        def fail(t):
            raise ValueError("XLA has no such operation")

        return tf.reshape(tf.py_function(fail, [truth], tf.float32), ())

    model = traced(sequential(), metrics=[refused])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RuntimeError, match=r"(?s)jit_compile=False.*no such operation"):
            model.fit(x(), y(), verbose=0)


def test_what_cannot_be_compiled_as_asked_is_named():
    model = traced(sequential(), loss_that_calls_python, jit_compile=True)
    with pytest.raises(RuntimeError, match="jit_compile=False"):
        model.fit(x(), y(), verbose=0)


def test_few_shapes_of_batches_are_compiled():
    """Two batches of a shape in a row are compiled, as many shapes as are allowed; all learn alike."""
    from keras_gevb.backend import compiling

    model = traced(sequential(rule="backprop"))
    stock = compiled(keras.Sequential(network()))
    stock.set_weights(model.get_weights())
    sizes = [1, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 3]

    def batches():
        for n, size in enumerate(sizes):
            generator = np.random.default_rng(n)
            yield generator.normal(size=(size, 6)).astype("float32"), generator.integers(0, K, size)

    ours = model.fit(batches(), steps_per_epoch=len(sizes), verbose=0)
    theirs = stock.fit(batches(), steps_per_epoch=len(sizes), verbose=0)
    np.testing.assert_allclose(ours.history["loss"], theirs.history["loss"], rtol=1e-6)
    assert isinstance(model.train_function, compiling._ByShape)
    assert [shapes[0][0] for shapes in sorted(model.train_function._shapes)] == [3, 4, 5, 6]


# 2. Nothing is skipped where a model is built late.

BENDING = {
    "ReLU": lambda: keras.layers.ReLU(name="bend"),
    "tanh": lambda: keras.layers.Activation("tanh", name="bend"),
    "Dropout": lambda: keras.layers.Dropout(0.5, name="bend"),
}


def deferred(bend):
    return keras_gevb.Sequential(network(bend, shape=None), learning_rule="backprop")


def subclassed(bend):
    return Net(bend, learning_rule="backprop")


def of_integers(bend):
    first = [keras.layers.Rescaling(1 / 255)]
    stack = [keras.Input((6,), dtype="uint8"), *network(bend, first=first, shape=None)]
    return keras_gevb.Sequential(stack, learning_rule="backprop")


@pytest.mark.parametrize(
    ("run", "bend"),
    [*(("compute_updates", bend) for bend in BENDING), ("fit", "ReLU"), ("train_on_batch", "ReLU")],
)
@pytest.mark.parametrize("make", [deferred, subclassed, of_integers])
def test_a_network_that_bends_is_refused_however_it_is_built(make, bend, run):
    model = compiled(make(BENDING[bend]()))
    inputs = x().astype("uint8") if make is of_integers else x()
    with pytest.raises(ValueError, match=r"linear.*bend"):
        getattr(model, run)(inputs, y())


@pytest.mark.parametrize(
    "make", [lambda rule: sequential(rule=rule, shape=None), lambda rule: Net(learning_rule=rule)]
)
@pytest.mark.sampled(1)
def test_a_wrong_label_is_an_error_where_the_model_is_built_late(make):
    for run in ("fit", "train_on_batch", "evaluate", "test_on_batch"):
        model = traced(make("gevb"), jit_compile=False)
        with pytest.raises(Exception, match=r"(?s)from 0 to 2.*K=3.*7"):
            getattr(model, run)(x(), np.full(8, 7))


@pytest.mark.parametrize("make", [lambda: sequential(rule="fa", shape=None), lambda: Net(learning_rule="fa")])
@pytest.mark.parametrize("call_first", [False, True])
@pytest.mark.sampled(1)
def test_feedback_is_there_where_the_model_is_built_late(make, call_first, tmp_path):
    model = traced(make(), jit_compile=False)
    if call_first:
        model(x())
        with pytest.raises(Exception, match="from 0 to 2"):
            model.fit(x(), np.full(8, 7), verbose=0)  # a fit that fails leaves nothing half built
    model.fit(x(), y(), verbose=0)
    feedback = [v for v in model.non_trainable_variables if v.name.startswith("feedback")]
    assert len(feedback) == 3
    exact = model.compute_updates(x(), y(), learning_rule="backprop")
    assert any(
        np.any(a != b) for a, b in zip(map(np.array, exact), map(np.array, model.compute_updates(x(), y())))
    )
    if not isinstance(model, Net):
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        for mine, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)


class Partly(Net):
    """A model that never calls one of its layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.unused = layers.VectorDense(4, name="unused")


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("rule", ["gevb", "fa"])
@pytest.mark.sampled(2)
def test_a_layer_that_is_never_called_stays_as_it_is(rule, built):
    # Which would decay also what has an update of zero.
    model = Partly(learning_rule=rule)
    model.compile(keras.optimizers.AdamW(0.1, weight_decay=0.5), CROSS_ENTROPY, run_eagerly=True)
    if built:
        model.unused.build((None, K, 8))
        before = model.unused.get_weights()
        with pytest.warns(UserWarning, match="unused"):
            model.fit(x(), y(), verbose=0)
        for old, new in zip(before, model.unused.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
    else:
        assert np.isfinite(model.fit(x(), y(), verbose=0).history["loss"][0])


class Trained(Net):
    """A model with a layer that it calls in training alone."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.extra = layers.VectorDense(4)

    def call(self, inputs, training=None):
        units = self.upper(self.lower(inputs))
        return self.readout(self.extra(units) if training else units)


def test_a_layer_may_be_called_in_training_alone():
    model = traced(Trained())
    model.fit(x(), y(), verbose=0)
    assert model.extra.built


class Shifted(keras.losses.SparseCategoricalCrossentropy):
    """Of classes that are counted from 1."""

    def call(self, y_true, y_pred):
        return super().call(y_true - 1, y_pred)


def test_labels_are_what_a_loss_of_ones_own_makes_of_them():
    models = [traced(sequential(), loss=loss) for loss in (Shifted(from_logits=True), CROSS_ENTROPY)]
    models[1].set_weights(models[0].get_weights())
    models[1].layers[0].gates.assign(models[0].layers[0].gates)
    ours, theirs = (m.evaluate(x(), y() + more, verbose=0) for m, more in zip(models, (1, 0), strict=True))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert np.isfinite(models[0].fit(x(), y() + 1, verbose=0).history["loss"][0])


class Reconstructs(keras_gevb.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean((x - y_pred) ** 2)


def test_a_loss_of_ones_own_needs_no_targets():
    inputs = keras.Input((6,))
    outputs = layers.VectorReadout()(layers.VectorDense(8, vector_dim=6)(inputs))
    model = Reconstructs(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    losses = model.fit(x(), epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_a_layer_that_is_exchanged_for_one_that_bends_is_refused():
    model = compiled(sequential(keras.layers.Rescaling(0.5)))
    model.fit(x(), y(), verbose=0)
    for _ in range(3):
        model.pop()
    for layer in (keras.layers.ReLU(name="bend"), layers.VectorDense(4), layers.VectorReadout()):
        model.add(layer)  # as many layers as before
    with pytest.raises(ValueError, match=r"linear.*bend"):
        compiled(model).fit(x(), y(), verbose=0)


def test_a_network_that_bends_far_from_zero_is_refused():
    bend = keras.layers.ReLU(max_value=6.0, negative_slope=1.0)
    with pytest.raises(ValueError, match="linear"):
        compiled(sequential(bend)).fit(x(), y(), verbose=0)


def test_a_layer_that_fixes_the_number_of_components_is_named():
    with pytest.raises(ValueError, match=r"(?s)one component.*Reshape"):
        compiled(sequential(keras.layers.Reshape((K, 8)))).fit(x(), y(), verbose=0)
    open_ended = compiled(sequential(layers.VectorReshape((8,))))
    assert np.isfinite(open_ended.fit(x(), y(), verbose=0).history["loss"][0])


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_with_a_float32_readout_trains(precision):
    units = [keras.Input((6,)), layers.VectorDense(8, vector_dim=K, dtype=precision)]
    model = traced(keras_gevb.Sequential([*units, layers.VectorReadout(dtype="float32")]))
    assert np.isfinite(model.fit(x(), y(), verbose=0).history["loss"][0])


def test_a_file_without_a_rules_weights_says_so_where_the_rule_is_built_late(tmp_path):
    plain, with_feedback = Net(None, learning_rule="gevb"), Net(None, learning_rule="fa")
    for model in (plain, with_feedback):
        model(x())
    path = str(tmp_path / "all.weights.h5")
    plain.save_weights(path)
    with pytest.warns(UserWarning, match="stay as drawn"):
        with_feedback.load_weights(path)


def test_weights_go_from_rule_to_rule(tmp_path):
    path = str(tmp_path / "all.weights.h5")
    plain, with_feedback = sequential(), sequential(rule="fa")
    plain.save_weights(path)
    feedback = [np.array(v) for v in with_feedback.learning_rule.variables]
    with pytest.warns(UserWarning, match="stay as drawn"):
        with_feedback.load_weights(path)
    np.testing.assert_array_equal(with_feedback.predict(x(), verbose=0), plain.predict(x(), verbose=0))
    for old, new in zip(feedback, with_feedback.learning_rule.variables, strict=True):
        np.testing.assert_array_equal(old, new)
    with_feedback.save_weights(path)
    with pytest.raises(ValueError, match="another learning rule"):
        plain.load_weights(path)


REFUSED = {
    "a stock weight layer": (
        lambda: network(first=[keras.layers.Dense(8, name="stock")]),
        lambda model: setattr(model.get_layer("stock"), "trainable", False),
        "stock",
    ),
    "no readout": (
        lambda: network()[:-1],
        lambda model: model.add(layers.VectorReadout()),
        "readout",
    ),
}


@pytest.mark.parametrize("jit_compile", ["auto", False])
@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_network_is_mended_and_fitted_without_compiling_anew(name, jit_compile):
    stack, mend, words = REFUSED[name]
    model = keras_gevb.Sequential(stack())
    model.compile("adam", CROSS_ENTROPY, jit_compile=jit_compile)
    with pytest.raises(ValueError, match=words):
        model.fit(x(), y(), verbose=0)
    assert not model.optimizer.built
    mend(model)
    assert np.isfinite(model.fit(x(), y(), verbose=0).history["loss"][0])


@pytest.mark.parametrize("jit_compile", ["auto", True, False])
def test_a_refused_label_changes_nothing_at_all(jit_compile):
    first = [keras.layers.BatchNormalization(center=False, scale=False)]
    model = sequential(first=first)
    model.compile("adam", CROSS_ENTROPY, jit_compile=jit_compile)
    for _ in range(2):
        model.fit(x(), y(), verbose=0)
    refused(model, lambda model: model.fit(x(), np.full(8, 7), verbose=0), r"(?s)from 0 to 2.*7")


def test_the_first_batch_counts_in_full_where_xla_refuses_the_step():
    model = traced(sequential(rule="backprop"), loss_that_calls_python, metrics=["accuracy"])
    stock = compiled(keras.Sequential(network()), loss_that_calls_python, metrics=["accuracy"])
    stock.set_weights(model.get_weights())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours, theirs = (
            m.fit(x(), y(), batch_size=4, verbose=0, shuffle=False).history for m in (model, stock)
        )
    for key, values in theirs.items():
        np.testing.assert_allclose(ours[key], values, rtol=1e-6)


# 3. Both styles of Keras.


def test_subclassed_and_functional_models_live_side_by_side(tmp_path):
    before = Net()
    before(x())
    inputs = keras.Input((6,))
    graph = keras_gevb.Model(inputs, layers.VectorReadout()(layers.VectorDense(8, vector_dim=K)(inputs)))
    assert isinstance(graph, keras_gevb.Model)
    assert isinstance(graph, type(keras.Model(inputs, keras.layers.Identity()(inputs))))
    after = Net()
    for model in (before, after, graph):
        compiled(model).fit(x(), y(), verbose=0)
        model.summary(print_fn=lambda *_: None)
        model.save(tmp_path / "model.keras")
        model.save_weights(tmp_path / "model.weights.h5")


@keras.saving.register_keras_serializable(package="tests")
class Graph(keras_gevb.Model):
    """A subclass that makes its own graph."""

    def __init__(self, units=8, learning_rule="fa", **kwargs):
        inputs = keras.Input((6,))
        hidden = layers.VectorDense(units, vector_dim=K)(inputs)
        super().__init__(inputs, layers.VectorReadout()(hidden), learning_rule=learning_rule, **kwargs)
        self.units = units

    def get_config(self):
        return {"units": self.units}  # as stock Keras allows: without the rule, or the name

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def test_a_subclass_with_a_graph_and_a_config_of_its_own(tmp_path):
    model = traced(Graph())
    assert sum("feedback" in v.path for v in model.variables) == 2
    model.fit(x(), y(), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert repr(loaded.learning_rule).startswith("FA")
    np.testing.assert_array_equal(loaded.predict(x(), verbose=0), model.predict(x(), verbose=0))
    for mine, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


class Quiet(keras_gevb.Sequential):
    """A subclass with a rule of its own, of which its config says nothing."""

    def __init__(self, *args, learning_rule="fa", **kwargs):
        super().__init__(*args, learning_rule=learning_rule, **kwargs)

    def get_config(self):
        config = super().get_config()
        return {k: v for k, v in config.items() if k not in ("learning_rule", "keras_gevb_version")}


def test_a_config_without_a_rule_gets_that_of_the_constructor():
    model = Quiet(network())
    assert repr(Quiet.from_config(model.get_config()).learning_rule).startswith("FA")
    stock = keras.Sequential(network())
    assert repr(keras_gevb.Sequential.from_config(stock.get_config()).learning_rule).startswith("GEVB")


@pytest.mark.parametrize("make", [keras.Sequential, keras_gevb.Sequential])
def test_a_model_that_is_not_built_yet_can_be_saved(make, tmp_path):
    make(network(shape=None)).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert np.isfinite(compiled(loaded).fit(x(), y(), verbose=0).history["loss"][0])


# 4. The rule, and every term of the loss, stay.


@pytest.mark.parametrize("rule", ["gevb", "backprop", "fa"])
@pytest.mark.sampled(2)
def test_layers_may_be_added_and_taken_away(rule, tmp_path):
    model = sequential(rule=rule)
    compiled(model).fit(x(), y(), verbose=0)
    model.pop()
    model.add(layers.VectorDense(6))
    model.add(layers.VectorReadout())
    compiled(model).fit(x(), y(), verbose=0)
    assert sum("feedback" in v.path for v in model.variables) == (4 if rule == "fa" else 0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for mine, theirs in zip(loaded.compute_updates(x(), y()), model.compute_updates(x(), y()), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_feedback_follows_layers_that_are_exchanged():
    model = compiled(sequential(rule="fa"))
    model.fit(x(), y(), verbose=0)
    for _ in range(2):
        model.pop()
    model.add(layers.VectorDense(6))  # as many layers as before
    model.add(layers.VectorReadout())
    compiled(model).fit(x(), y(), verbose=0)
    kernels = [v.shape for v in model.trainable_variables if v.name == "kernel"]
    assert [v.shape for v in model.learning_rule.variables] == kernels


def test_direct_feedback_follows_the_layers():
    stack = [keras.Input((6,)), layers.Dense(4), layers.Dense(K, gated=False)]
    model = keras_gevb.Sequential(stack, learning_rule="dfa")
    model.pop()
    model.add(layers.Dense(10))
    model.add(layers.Dense(K, gated=False))
    compiled(model).fit(x(), y(), verbose=0)
    (feedback,) = (v for v in model.variables if "feedback" in v.path)
    assert feedback.shape == (K, 10)


LEGACY = {
    "save": lambda model, path: model.save(path),
    "save_model": lambda model, path: keras.saving.save_model(model, path),
    "checkpoint": lambda model, path: model.fit(
        x(), y(), verbose=0, callbacks=[keras.callbacks.ModelCheckpoint(path)]
    ),
}


def graph(rule):
    inputs = keras.Input((6,))
    units = layers.VectorDense(8, vector_dim=K)(inputs)
    return keras_gevb.Model(inputs, layers.VectorReadout()(units), learning_rule=rule)


@pytest.mark.parametrize("save", LEGACY)
@pytest.mark.parametrize("make", [lambda rule: sequential(rule=rule), graph])
@pytest.mark.sampled(2)
def test_legacy_files_come_back_with_their_rule(make, save, tmp_path):
    """They hold a class by its bare name, and ours have those of Keras's own."""
    path = str(tmp_path / "model.h5")
    model = compiled(make("backprop"))
    LEGACY[save](model, path)
    loaded = keras.models.load_model(path)
    assert type(loaded) is type(model)
    assert repr(loaded.learning_rule) == "Backprop()"
    np.testing.assert_array_equal(loaded.predict(x(), verbose=0), model.predict(x(), verbose=0))
    # Compiled anew, since Keras's optimizers come back from such a file without variables.
    compiled(loaded).fit(x(), y(), verbose=0)


@pytest.mark.parametrize("save", LEGACY)
def test_a_legacy_file_that_would_lose_feedback_is_refused(save, tmp_path):
    with pytest.raises(ValueError, match=r"FA\(.*\.keras"):
        LEGACY[save](compiled(sequential(rule="fa")), str(tmp_path / "model.h5"))


class Penalty(keras.layers.Layer):
    """Adds a loss of the activity."""

    def call(self, inputs):
        self.add_loss(0.1 * keras.ops.mean(keras.ops.square(inputs)))
        return inputs


ADDED = {
    "add_loss": lambda: [Penalty(name="penalty")],
    "twice": lambda: [Penalty(name="penalty"), Penalty(name="penalty_too")],
    "activity regularizer": lambda: [
        keras.layers.Activation("linear", activity_regularizer="l2", name="penalty")
    ],
    "regularization layer": lambda: [keras.layers.ActivityRegularization(l2=0.01, name="penalty")],
}


@pytest.mark.parametrize("name", ADDED)
@pytest.mark.parametrize("make", ["sequential", "deferred", "subclassed"])
def test_added_losses_are_exact_under_backpropagation_and_refused_by_name_under_local_rules(name, make):
    def build(rule):
        if make == "subclassed":
            return Net(keras.Sequential(ADDED[name]()), learning_rule=rule)
        return sequential(*ADDED[name](), rule=rule, shape=(6,) if make == "sequential" else None)

    exact = traced(build("backprop"), run_eagerly=name != "add_loss")
    exact(x())
    assert_exact(exact, x(), y())
    if make != "sequential":
        return
    before = exact.get_weights()
    wanted = [
        v - 0.1 * g for v, g in zip(map(np.array, exact.trainable_variables), gradients(exact, x(), y()))
    ]
    exact.fit(x(), y(), verbose=0)
    for variable, value in zip(exact.trainable_variables, wanted, strict=True):
        value = variable.constraint(value) if variable.constraint else value
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-5, atol=1e-6)
    local = compiled(build("gevb"))
    local.set_weights(before)
    refused(local, lambda model: model.fit(x(), y(), verbose=0), r"penalty.*backprop")


def test_added_losses_count_once_on_several_replicas(monkeypatch):
    """Each replica adds its own, and what they find is added up."""
    stack = [keras.Input((6,)), layers.Dense(8), Penalty(), layers.Dense(K, gated=False)]
    model = compiled(keras_gevb.Sequential(stack, learning_rule="backprop"))
    penalty = model.layers[1]
    found = []
    for replicas, weight in ((1, 1.0), (2, 1.0), (2, 0.0)):
        monkeypatch.setattr(keras_gevb.backend, "replicas", lambda replicas=replicas: replicas)
        monkeypatch.setattr(penalty, "add_loss", lambda loss, w=weight: Penalty.add_loss(penalty, w * loss))
        found.append(model.compute_updates(x(), y())[0])
    monkeypatch.undo()
    one, two, bare = map(np.array, found)
    np.testing.assert_allclose(two - bare, (one - bare) / 2, rtol=0, atol=1e-6)  # float32
    assert np.abs(one - bare).max() > 1e-3


def test_added_losses_of_conventional_units_are_exact_too():
    stack = [keras.Input((6,)), layers.Dense(8), Penalty(), layers.Dense(K, gated=False)]
    assert_exact(compiled(keras_gevb.Sequential(stack, learning_rule="backprop")), x(), y())


@pytest.mark.parametrize("jit_compile", ["auto", False])
@pytest.mark.sampled(1)
def test_an_overridden_apply_gradients_is_called(jit_compile):
    calls = []

    class Halving(keras.optimizers.SGD):
        def apply_gradients(self, grads_and_vars):
            calls.append(1)
            return super().apply_gradients([(0.5 * g, v) for g, v in grads_and_vars])

    model, half = sequential(), compiled(sequential())
    model.compile(Halving(0.2), CROSS_ENTROPY, jit_compile=jit_compile)
    half.set_weights(model.get_weights())
    for each in (model, half):
        each.fit(x(), y(), verbose=0)
    assert calls
    for mine, theirs in zip(model.get_weights(), half.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)  # one float32 step


SIGNATURES = {
    "without training": lambda self, x, y, y_pred, sample_weight: keras.ops.mean((y_pred - y) ** 2),
    "with training": lambda self, x, y, y_pred, sample_weight, training=True: keras.ops.mean(
        (y_pred - y) ** 2
    ),
    "other names": lambda self, a, b, c, d=None: keras.ops.mean((c - b) ** 2),
    "without the regularizers": lambda self, x=None, y=None, y_pred=None, sample_weight=None, training=True: (
        keras.ops.mean(y_pred**2)
    ),
}


@pytest.mark.parametrize("name", SIGNATURES)
@pytest.mark.sampled(1)
def test_an_overridden_compute_loss_is_called_as_keras_calls_it(name):
    ours = type("Ours", (keras_gevb.Sequential,), {"compute_loss": SIGNATURES[name]})
    theirs = type("Theirs", (keras.Sequential,), {"compute_loss": SIGNATURES[name]})
    regularized = [layers.VectorDense(4, kernel_regularizer="l2")]
    model, stock = (
        ours(network(*regularized), learning_rule="backprop"),
        theirs(network(layers.VectorDense(4))),
    )
    stock.set_weights(model.get_weights())
    targets = np.random.default_rng(1).normal(size=(8, K)).astype("float32")
    losses = []
    for each in (model, stock):
        each.compile(keras.optimizers.SGD(0.1), run_eagerly=each is stock, jit_compile=False)
        losses.append(each.fit(x(), targets, epochs=2, verbose=0).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_an_overridden_compute_loss_is_told_whether_the_model_trains():
    told = []

    class Told(keras_gevb.Sequential):
        def compute_loss(self, x, y, y_pred, sample_weight, training=True):
            told.append(training)
            return keras.ops.mean(y_pred**2)

    model = compiled(Told(network()), None)
    model.fit(x(), y(), verbose=0)
    assert told == [True]
    model.evaluate(x(), y(), verbose=0)
    assert told == [True, False]


# 5. Guards by what a loss is, not by its name.


def pinball(truth, outputs):
    quantiles = np.array([0.1, 0.5, 0.9], "float32")
    return keras.ops.mean(
        keras.ops.maximum(quantiles * (truth - outputs), (quantiles - 1) * (truth - outputs))
    )


def gaussian(truth, outputs):
    mean, spread = outputs[:, 0:1], keras.ops.softplus(outputs[:, 1:2]) + 0.1
    return keras.ops.log(spread) + 0.5 * keras.ops.square((truth - mean) / spread)


def survival(truth, outputs):
    time, seen = truth[:, :1], truth[:, 1:]
    return keras.ops.mean(keras.ops.exp(outputs) * time - seen * outputs, axis=-1)


class Callable:
    def __call__(self, truth, outputs):
        return keras.ops.mean(keras.ops.square(truth - outputs), axis=-1)


class WithoutConfig(keras.losses.Loss):
    def call(self, truth, outputs):
        return keras.ops.mean(keras.ops.square(truth - outputs), axis=-1)

    def get_config(self):
        raise NotImplementedError


sparse = keras.losses.sparse_categorical_crossentropy
# name: (loss, targets)
LOSSES = {
    "pinball, one target": (pinball, x(8, 1)),
    "Gaussian likelihood, one target": (gaussian, x(8, 1)),
    "survival, two targets": (survival, abs(x(8, 2))),
    "a callable object": (Callable(), x(8, K)),
    "a Loss without config": (WithoutConfig(), x(8, K)),
    "a renamed sparse cross-entropy on (n, 1)": (
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, name="mine"),
        y()[:, None],
    ),
    "a partial": (functools.partial(sparse, from_logits=True), y()),
    "a loss in a list": ([CROSS_ENTROPY], y()),
    "bool labels": (CROSS_ENTROPY, y() > 0),
    "float labels": (CROSS_ENTROPY, y().astype("float32")),
    "int8 labels": (CROSS_ENTROPY, y().astype("int8")),
    "uint8 labels": (CROSS_ENTROPY, y().astype("uint8")),
    "one-hot bool": (keras.losses.CategoricalCrossentropy(from_logits=True), np.eye(K)[y()].astype(bool)),
    "focal": (keras.losses.CategoricalFocalCrossentropy(from_logits=True), np.eye(K)[y()]),
    "Poisson of one target": (keras.losses.Poisson(), abs(x(8, 1))),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.sampled(3)
def test_any_loss_that_stock_keras_trains_trains_alike(name):
    loss, targets = LOSSES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Keras's, on the structure of a loss in a list
        # Labels are checked outside of what is compiled.
        model = traced(sequential(rule="backprop"), loss, run_eagerly="labels" not in name, jit_compile=False)
        stock = compiled(keras.Sequential(network()), loss)
        stock.set_weights(model.get_weights())
        losses = [m.fit(x(), targets, epochs=2, verbose=0).history["loss"] for m in (model, stock)]
    np.testing.assert_allclose(*losses, rtol=1e-6)


# What Keras finds out by the targets: (targets, a wrong label)
CROSSENTROPIES = {
    "one number": (x(8, 1) > 0, None),
    "one-hot": (np.eye(K)[y()], None),
    "labels": (y(), y() + K),
    "labels in a column": (y()[:, None], y()[:, None] + K),
}


@pytest.mark.parametrize("loss", ["crossentropy", "CE"])
@pytest.mark.parametrize("name", CROSSENTROPIES)
@pytest.mark.sampled(2)
def test_cross_entropy_is_that_of_the_targets_as_in_stock_keras(name, loss):
    targets, wrong = CROSSENTROPIES[name]
    units, activation = (1, "sigmoid") if name == "one number" else (K, "softmax")
    models = []
    for cls, settings in ((keras_gevb.Sequential, {"learning_rule": "backprop"}), (keras.Sequential, {})):
        keras.utils.set_random_seed(1)
        layers = keras.Input((6,)), keras.layers.Dense(5), keras.layers.Dense(units, activation=activation)
        models.append(compiled(cls(layers, **settings), loss))
    losses = [model.fit(x(), targets, epochs=2, verbose=0).history["loss"] for model in models]
    np.testing.assert_allclose(*losses, rtol=1e-6)  # float32
    np.testing.assert_allclose(*(model.evaluate(x(), targets, verbose=0) for model in models), rtol=1e-6)
    if wrong is not None:
        with pytest.raises(ValueError, match=f"Labels must be integers from 0 to {K - 1}"):
            models[0].fit(x(), wrong, verbose=0)


@pytest.mark.parametrize("loss", ["crossentropy", "sparse_categorical_crossentropy"])
def test_a_compute_loss_may_make_the_probabilities_that_its_loss_takes(loss):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return super(type(self), self).compute_loss(x, y, keras.ops.softmax(y_pred), sample_weight)

    losses = []
    for cls, settings in ((keras_gevb.Sequential, {"learning_rule": "backprop"}), (keras.Sequential, {})):
        keras.utils.set_random_seed(1)
        layers = keras.Input((6,)), keras.layers.Dense(5), keras.layers.Dense(K)
        model = compiled(type("Own", (cls,), {"compute_loss": compute_loss})(layers, **settings), loss)
        losses.append([*model.fit(x(), y(), verbose=0).history["loss"], model.evaluate(x(), y(), verbose=0)])
    np.testing.assert_allclose(*losses, rtol=1e-6)  # float32


def test_a_sequential_is_a_model_as_in_keras():
    model = sequential()
    assert isinstance(model, keras_gevb.Model)
    assert isinstance(model, keras.Sequential)
    assert not isinstance(model, keras_gevb.model.Functional)


@pytest.mark.parametrize(("dtype", "outputs"), [("uint8", 256), ("int8", 128), ("bool", 2)])
@pytest.mark.sampled(2)
def test_labels_of_small_dtypes_are_compared_as_numbers(dtype, outputs):
    model = traced(sequential(vector_dim=outputs), jit_compile=False)
    assert np.isfinite(model.fit(x(), (y() % 2).astype(dtype), verbose=0).history["loss"][0])


PROBABILITIES = {
    "object": keras.losses.SparseCategoricalCrossentropy(),
    "renamed": keras.losses.SparseCategoricalCrossentropy(name="mine"),
    "name": "sparse_categorical_crossentropy",
    "list": ["sparse_categorical_crossentropy"],
    "partial": functools.partial(sparse, ignore_class=-1),
    "function": keras.losses.binary_crossentropy,
    "focal": keras.losses.BinaryFocalCrossentropy(),
}


@pytest.mark.parametrize("name", PROBABILITIES)
def test_a_loss_on_probabilities_is_refused_however_it_is_given(name):
    model = compiled(sequential(), PROBABILITIES[name])
    refused(model, lambda model: model.fit(x(), y(), verbose=0), "from_logits=True")
    compiled(model).fit(x(), y(), verbose=0)


LABELS = {
    "object": CROSS_ENTROPY,
    "renamed": keras.losses.SparseCategoricalCrossentropy(from_logits=True, name="mine"),
    "list": [CROSS_ENTROPY],
    "partial": functools.partial(sparse, from_logits=True),
}


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.sampled(2)
def test_a_label_outside_the_outputs_is_refused_however_the_loss_is_given(name):
    model = traced(sequential(), LABELS[name], run_eagerly=name != "object")
    refused(model, lambda model: model.fit(x(), np.full(8, 7), verbose=0), r"(?s)from 0 to 2.*7")
    assert np.isfinite(model.fit(x(), y(), verbose=0).history["loss"][0])


def test_one_output_may_have_a_name():
    inputs = keras.Input((6,))
    stack = network(shape=None)
    units = inputs
    for part in stack:
        units = part(units)
    model = keras_gevb.Model(inputs, {"out": units}, learning_rule="backprop")
    stock = keras.Model(inputs, {"out": units})
    start = model.get_weights()
    losses = []
    for each in (model, stock):
        each.set_weights(start)
        traced(each, {"out": CROSS_ENTROPY}, metrics={"out": ["accuracy"]}, run_eagerly=each is stock)
        losses.append(each.fit(x(), {"out": y()}, epochs=2, verbose=0).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-6)


# 6. Stock models have all state.


def adapted():
    normalization = keras.layers.Normalization()
    normalization.adapt(5 * x(64) + 3)
    yield normalization, x()
    # Keras 3.12 takes one-hot bins for one number each.
    discretization = keras.layers.Discretization(num_bins=4)
    discretization.adapt(x(64, 1))
    yield discretization, x(8, 1)
    lookup = keras.layers.StringLookup(output_mode="one_hot")
    lookup.adapt(TEXT)
    yield lookup, TEXT.astype(str)[:, None]
    vectorization = keras.layers.TextVectorization(output_mode="multi_hot", max_tokens=8)
    vectorization.adapt(TEXT)
    yield vectorization, TEXT.astype(str)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.sampled(2)
def test_a_stock_model_has_what_preprocessing_layers_have_learned(number, tmp_path):
    layer, inputs = list(adapted())[number]
    inputs = tf.constant(inputs)
    start = keras.Input(inputs.shape[1:], dtype=inputs.dtype.name)
    units = layer(start)
    for part in network(shape=None):
        units = part(units)
    model = keras_gevb.Model(start, units)
    stock = keras_gevb.export.to_keras(model)
    stock.save(tmp_path / "stock.keras")
    for other in (stock, keras.models.load_model(tmp_path / "stock.keras")):
        # float32, the same sums in another order
        np.testing.assert_allclose(
            other.predict(inputs, verbose=0), model.predict(inputs, verbose=0), atol=1e-5
        )


# 7. Structures.


@pytest.mark.parametrize("names", [("b", "a"), ("a", "b")])
@pytest.mark.parametrize("feed", ["arrays", "dataset", "train_on_batch"])
@pytest.mark.sampled(3)
def test_inputs_may_have_names_in_any_order(names, feed, recwarn):
    inputs = {name: keras.Input((6,), name=name) for name in names}
    units = keras.layers.Concatenate()(list(inputs.values()))
    for part in network(shape=None):
        units = part(units)
    model = traced(keras_gevb.Model(inputs, units), jit_compile=False)
    data = {name: x() for name in names}
    match feed:
        case "arrays":
            model.fit(data, y(), verbose=0)
        case "dataset":
            model.fit(tf.data.Dataset.from_tensor_slices((data, y())).batch(4), verbose=0)
        case "train_on_batch":
            model.train_on_batch(data, y())
    assert not [w for w in recwarn if "structure" in str(w.message)]


@pytest.mark.parametrize("structure", [list, tuple])
def test_inputs_may_be_a_list(structure):
    inputs = [keras.Input((6,)), keras.Input((4, 4, 1))]
    units = keras.layers.Concatenate()([inputs[0], keras.layers.Flatten()(inputs[1])])
    for part in network(shape=None):
        units = part(units)
    model = traced(keras_gevb.Model(inputs, units))
    data = structure([x(), np.ones((8, 4, 4, 1), "float32")])
    assert np.isfinite(model.train_on_batch(data, y()))
    assert np.isfinite(model.fit(list(data), y(), verbose=0).history["loss"][0])


def test_sparse_inputs_train_as_dense_ones():
    matrix = x() * (np.arange(6) % 3 > 0)
    of_sparse = traced(keras_gevb.Sequential([keras.Input((6,), sparse=True), *network(shape=None)]))
    model = compiled(sequential())
    model.set_weights(of_sparse.get_weights())
    given = scipy.sparse.csr_matrix(matrix)
    for each, inputs in ((of_sparse, given), (model, matrix)):
        each.fit(inputs, y(), verbose=0, shuffle=False)
    for mine, theirs in zip(of_sparse.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)  # one float32 step
    predictions = [each.predict(i, verbose=0) for each, i in ((of_sparse, given), (model, matrix))]
    np.testing.assert_allclose(*predictions, atol=1e-6)


@pytest.mark.parametrize("how", ["dataset", "function"])
@pytest.mark.sampled(1)
def test_distributed_datasets_are_fitted(how):
    strategy = tf.distribute.MirroredStrategy(["cpu:0"])
    with strategy.scope():
        model = traced(sequential(rule="fa", shape=None))
    data = tf.data.Dataset.from_tensor_slices((x(), y())).batch(4)
    if how == "dataset":
        distributed = strategy.experimental_distribute_dataset(data)
    else:
        distributed = strategy.distribute_datasets_from_function(lambda context: data)
    assert np.isfinite(model.fit(distributed, verbose=0).history["loss"][0])
    assert sum("feedback" in v.path for v in model.variables) == 3


def test_an_empty_data_set_is_an_error_however_it_is_given():
    for empty in (x(0), tf.data.Dataset.from_tensor_slices((x(0), y(0))).batch(4)):
        with pytest.raises(ValueError, match="empty"):
            compiled(sequential()).fit(empty, *([y(0)] if isinstance(empty, np.ndarray) else []))


@pytest.mark.parametrize("name", ["export", "tuning"])
def test_modules_are_found_when_first_used(name):
    assert getattr(keras_gevb, name).__name__ == f"keras_gevb.{name}"
    assert name in dir(keras_gevb)


def test_weights_averaged_by_hand_stay_nonnegative():
    model = sequential()
    model.compile(keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5), CROSS_ENTROPY)
    for _ in range(5):
        model.train_on_batch(x(), y())
    model.optimizer.finalize_variable_values(model.trainable_variables)
    assert min(np.min(layer.kernel) for layer in model.layers if getattr(layer, "constrained", False)) >= 0


def test_updates_are_measured_without_a_trace_on_the_model():
    """Random layers draw, metrics count and averages move in training alone."""
    first = [keras.layers.GaussianNoise(0.1), keras.layers.BatchNormalization(center=False, scale=False)]
    model = compiled(sequential(first=first), metrics=["accuracy"])
    before = [np.array(v) for v in model.variables]
    model.compute_updates(x(), y())
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, np.array(new))


def test_outputs_alone_may_be_named():
    inputs = keras.Input((6,))
    model = keras_gevb.Model(inputs, outputs=keras.layers.Dense(K)(inputs), learning_rule="backprop")
    assert type(model) is keras_gevb.model.Functional
    assert keras_gevb.Model.__bases__[-1] is keras.Model  # which stays free for subclasses
