"""Stock models under a rule: under Backprop equal to automatic differentiation, else as they were."""

import keras
import numpy as np
import pytest
import stock_models
import tensorflow as tf
from workflows import outputs, start_python

import keras_gevb
from keras_gevb import layers, rules


def gradients(model, x, y, sample_weight=None):
    """Automatic differentiation's, of the whole stock model."""
    x = keras.tree.map_structure(tf.convert_to_tensor, x)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True), sample_weight)
    found = tape.gradient(loss, [v.value for v in model.trainable_variables])
    return [tf.convert_to_tensor(gradient) for gradient in found]


def own_gradient(record, signal):
    """The derivative of a layer's own call along a signal."""
    args, kwargs = record.inputs
    with tf.GradientTape() as tape:
        told = tf.reduce_sum(type(record.layer).call(record.layer, *args, **kwargs) * signal)
    return tape.gradient(told, [v.value for v in record.layer.trainable_variables])


def pair(name, learning_rule="backprop", **settings):
    stock = stock_models.MODELS[name]()
    converted = keras_gevb.convert(stock, learning_rule)
    for model in (stock, converted):
        model.compile(keras.optimizers.Adam(0.01), stock_models.loss(model), run_eagerly=True, **settings)
    return stock, converted, *stock_models.data(stock)


@pytest.mark.parametrize("name", stock_models.MODELS)
def test_backprop_of_a_converted_model_is_automatic_differentiation(name, float64):
    stock, converted, x, y = pair(name)
    for ours, theirs in zip(*(keras.tree.flatten(m(x)) for m in (converted, stock)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    exact = gradients(stock, x, y)
    for update, gradient in zip(converted.compute_updates(x, y), exact, strict=True):
        # float64, sums in another order
        np.testing.assert_allclose(update, gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["residual", "recurrent", "attention", "two_outputs", "spectral"])
@pytest.mark.sampled(1)
def test_steps_of_fit_change_weights_seeds_and_statistics_as_in_stock_keras(name, float64):
    stock, converted, x, y = pair(name)
    for model in (stock, converted):
        model.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0)
    for ours, theirs in zip(converted.variables, stock.variables, strict=True):
        # float64, six steps of Adam
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.long
def test_twenty_compiled_steps_of_adam_follow_stock_keras():
    stock = stock_models.separable()
    converted = keras_gevb.convert(stock)
    x, y = stock_models.data(stock, 40)
    for model in (stock, converted):
        model.compile("adam", stock_models.loss(model))
        model.fit(x, y, batch_size=8, epochs=4, shuffle=False, verbose=0)
    for ours, theirs in zip(converted.get_weights(), stock.get_weights(), strict=True):
        # float32, Adam divides by small square roots
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", stock_models.MODELS)
def test_a_converted_model_has_the_names_and_gives_the_stock_model_back(name):
    stock, converted, x, y = pair(name)
    before = stock.get_weights()
    assert converted.name == stock.name
    assert [layer.name for layer in converted.layers] == [layer.name for layer in stock.layers]
    assert [(v.name, v.shape) for v in converted.weights] == [(v.name, v.shape) for v in stock.weights]
    assert getattr(converted, "output_names", None) == getattr(stock, "output_names", None)
    converted.train_on_batch(x, y)
    for kept, value in zip(stock.get_weights(), before, strict=True):
        np.testing.assert_array_equal(kept, value)
    back = keras_gevb.export.to_keras(converted)
    assert not any("keras_gevb" in type(part).__module__ for part in (back, *back._flatten_layers()))
    for ours, theirs in zip(*(keras.tree.flatten(m(x)) for m in (back, converted)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)  # the same operations


ELSEWHERE = """
import pathlib, sys
sys.modules["keras_gevb"] = None  # so that importing it fails
import keras, numpy as np
for path in pathlib.Path({folder!r}).glob("*.keras"):
    x = np.load(path.with_suffix(".x.npy"))
    np.save(path.with_suffix(".y.npy"), keras.models.load_model(path)(x))
"""


@pytest.mark.long
def test_a_process_without_the_package_loads_what_was_converted_trained_and_given_back(tmp_path):
    trained = {}
    for name in ("residual", "recurrent", "nested", "attention"):
        _, trained[name], x, y = pair(name)
        trained[name].fit(x, y, verbose=0)
        keras_gevb.export.to_keras(trained[name]).save(tmp_path / f"{name}.keras")
        np.save(tmp_path / f"{name}.x.npy", x)
    outputs(start_python("-c", ELSEWHERE.format(folder=str(tmp_path))))
    for name, model in trained.items():
        x, found = (np.load(tmp_path / f"{name}.{kind}.npy") for kind in "xy")
        # The same float32 operations.
        np.testing.assert_allclose(found, model(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["residual", "masked_convolution", "nested", "two_outputs", "custom"])
@pytest.mark.sampled(1)
def test_a_converted_model_is_saved_loaded_in_safe_mode_and_goes_on(name, tmp_path):
    _, converted, x, y = pair(name, rules.FA(seed=3))
    converted.train_on_batch(x, y)
    converted.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.compile(loaded.optimizer, loaded.loss, run_eagerly=True)
    for model in (converted, loaded):
        model.train_on_batch(x, y)
    for ours, theirs in zip(loaded.get_weights(), converted.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)  # float32


HIDDEN = ["residual", "masked_convolution", "recurrent", "attention", "shared_tower", "transposed"]
# How many of the first layers pass the mask of their tokens on.
MASKED = {"masked_convolution": 1, "recurrent": 2}


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.sampled(1)
def test_dfa_tells_each_layer_of_keras_the_projected_error_and_no_weight_of_others(name):
    """The update of a layer is the derivative of its own call along e B, which is 0 at padding."""
    _, converted, x, y = pair(name, rules.DFA(seed=3))
    step = converted.compute_step(x, y)
    feedback = np.array(converted.learning_rule.feedback)
    for n, (record, signal) in enumerate(zip(step.records, step.signals(), strict=True)):
        if not record.is_readout:
            size = np.prod(signal.shape[1:])
            expected = np.reshape(np.array(step.error) @ feedback[:, :size], signal.shape)
            if n < MASKED.get(name, 0):
                expected = expected * (x != 0)[..., None]
            np.testing.assert_allclose(signal, expected, rtol=1e-5, atol=1e-6)  # float32
    first = step.records[0]
    exact = own_gradient(first, step.signals()[0])
    for (_, update), gradient in zip(first.updates(step.signals()[0], step.error), exact, strict=True):
        update, gradient = map(tf.convert_to_tensor, (update, gradient))
        np.testing.assert_allclose(update, gradient, rtol=1e-4, atol=1e-5)  # float32
    assert keras_gevb.diagnostics.audit(converted, x, y).is_local


@pytest.mark.parametrize("name", ["residual", "recurrent"])
def test_feedback_of_fa_stands_for_every_weight_between_units(name, float64):
    """W on the way back is another one: with the network's own weights in its place FA is backprop."""
    _, converted, x, y = pair(name, rules.FA(seed=3))
    wide = [v for v in converted.trainable_variables if v.ndim > 1]
    feedback = converted.learning_rule.variables
    assert [v.shape for v in feedback] == [v.shape for v in wide]
    exact = converted.compute_updates(x, y, learning_rule="backprop")
    sent = converted.compute_updates(x, y)
    assert not np.allclose(sent[0], exact[0])
    for mine, own in zip(feedback, wide, strict=True):
        mine.assign(own)
    for update, gradient in zip(converted.compute_updates(x, y), exact, strict=True):
        np.testing.assert_allclose(update, gradient, rtol=1e-10, atol=1e-12)  # float64


@pytest.mark.parametrize("name", ["recurrent", "attention"])
@pytest.mark.sampled(1)
def test_a_step_of_fit_by_fa_through_the_networks_own_weights_is_that_of_stock_keras(name, float64):
    """Dropout of the layers on the way back is that of the step, whose seeds have since gone on."""
    stock, converted, x, y = pair(name, rules.FA(seed=3))
    wide = [v for v in converted.trainable_variables if v.ndim > 1]
    feedback = converted.learning_rule.variables
    for mine, own in zip(feedback, wide, strict=True):
        mine.assign(own)
    for model in (stock, converted):
        model.compile("sgd", stock_models.loss(model), run_eagerly=True)
        model.fit(x, y, batch_size=len(y), verbose=0)
    ours = [v for v in converted.variables if not any(v is one for one in feedback)]
    for mine, theirs in zip(ours, stock.variables, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-12)  # float64


def test_feedback_of_a_shared_layer_draws_what_each_of_its_calls_drew(float64):
    inputs = keras.Input((5, 4))
    x, shared = keras.layers.Dense(4)(inputs), keras.layers.LSTM(3, dropout=0.5)
    stock = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Concatenate()([shared(x), shared(x)])))
    converted = keras_gevb.convert(stock, rules.FA(seed=3))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    converted.compile("sgd", loss, run_eagerly=True)
    x, y = stock_models.data(stock)
    wide = [v for v in converted.trainable_variables if v.ndim > 1]
    for mine, own in zip(converted.learning_rule.variables, wide, strict=True):
        mine.assign(own)
    exact = converted.compute_updates(x, y, learning_rule="backprop")
    for update, gradient in zip(converted.compute_updates(x, y), exact, strict=True):
        np.testing.assert_allclose(update, gradient, rtol=1e-10, atol=1e-12)  # float64


def test_feedback_leaves_a_layers_update_that_of_its_own_weights(float64):
    _, converted, x, y = pair("recurrent", rules.FA(seed=3))
    step = converted.compute_step(x, y)
    signals = step.signals()
    lstm = step.records[1]
    exact = own_gradient(lstm, signals[1])
    updates = {id(v): u for v, u in zip(converted.trainable_variables, step.updates(), strict=True)}
    for variable, gradient in zip(lstm.layer.trainable_variables, exact, strict=True):
        update = updates[id(variable)]
        np.testing.assert_allclose(update, gradient, rtol=1e-10, atol=1e-12)  # float64


def test_kernels_inside_of_layers_have_feedback_of_their_own():
    x = inputs = keras.Input((7, 6))
    for _ in range(2):
        x = keras.layers.MultiHeadAttention(2, 3, use_bias=False)(x, x)
    stock = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(x)))
    feedback = [v.numpy() for v in keras_gevb.convert(stock, "fa").learning_rule.variables]
    assert len(feedback) == 2 * 4 + 1
    for n, one in enumerate(feedback):
        assert not any(np.array_equal(one, other) for other in feedback[:n])


def test_a_layer_of_several_outputs_is_told_each(float64):
    inputs = keras.Input((5, 4))
    parts = keras.layers.LSTM(3, return_sequences=True, return_state=True)(inputs)
    parts = [keras.layers.GlobalAveragePooling1D()(parts[0]), *parts[1:]]
    stock = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Concatenate()(parts)))
    converted = keras_gevb.convert(stock)
    for model in (stock, converted):
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    x, y = stock_models.data(stock)
    for update, gradient in zip(converted.compute_updates(x, y), gradients(stock, x, y), strict=True):
        np.testing.assert_allclose(update, gradient, rtol=1e-10, atol=1e-12)  # float64
    (feedback,) = keras_gevb.convert(stock, "dfa").learning_rule.variables
    assert feedback.shape == (3, 5 * 3 + 3 + 3)


def test_the_outputs_of_a_layer_keep_their_precisions():
    class Halved(keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 4))

        def call(self, x):
            h = x @ self.kernel
            return h, keras.ops.cast(h, "float16")

    class Seen(keras.layers.Layer):
        def call(self, parts):
            seen.append([keras.backend.standardize_dtype(part.dtype) for part in parts])
            return parts[0] + keras.ops.cast(parts[1], "float32")

    seen, inputs = [], keras.Input((6,))
    outputs = keras.layers.Dense(3)(Seen(autocast=False)(Halved()(inputs)))
    model = keras_gevb.Model(inputs, outputs, learning_rule="backprop")
    model.compile("sgd", "mse", run_eagerly=True)
    model.train_on_batch(np.ones((2, 6)), np.ones((2, 3)))
    assert len(seen) > 1
    assert all(dtypes == ["float32", "float16"] for dtypes in seen)


@pytest.mark.parametrize("around", ["loop", "branch", "function"])
def test_a_layer_called_where_calls_cannot_be_told_apart_is_named(around):
    class Net(keras_gevb.Model):
        def __init__(self):
            super().__init__(learning_rule="backprop")
            self.again, self.last = keras.layers.Dense(6, name="again"), keras.layers.Dense(3)

        def call(self, x):
            ways = {
                "loop": lambda: keras.ops.fori_loop(0, 3, lambda n, h: self.again(h), x),
                "branch": lambda: keras.ops.cond(
                    keras.ops.sum(x) > 0, lambda: self.again(x), lambda: self.again(-x)
                ),
                "function": lambda: tf.function(self.again)(x),
            }
            return self.last(ways[around]())

    model = Net()
    x = np.ones((8, 6), "float32")
    assert model(x).shape == (8, 3)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match=r"(?s)'again'.*loop, a branch or a function.*one layer"):
        model.fit(x, np.arange(8) % 3, verbose=0)


def test_quantized_layers_learn_scales_and_biases_as_in_stock_keras():
    stock = stock_models.chain(keras.Input((6,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(3))
    stock.layers[0].quantize("float8")
    converted = keras_gevb.convert(stock)
    x, y = stock_models.data(stock)
    for model in (stock, converted):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=False)
        model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    theirs = {v.path.split("/", 1)[1]: np.array(v) for v in stock.weights}
    for variable in converted.weights:
        # float32, the same operations
        expected = theirs[variable.path.split("/", 1)[1]]
        np.testing.assert_allclose(np.array(variable), expected, rtol=1e-5, atol=1e-6, err_msg=variable.path)


def test_inputs_of_a_converted_model_are_what_they_were():
    first = keras.Input((6,), name="pixels")
    second = keras.Input((6,), name="words", sparse=True)
    third = keras.Input((6,), name="more", optional=True, dtype="float16")
    ends = [keras.layers.Dense(3)(first), keras.layers.Dense(2)(second), keras.layers.Identity()(third)]
    stock = keras.Model([first, second, third], ends)
    for ours, theirs in zip(keras_gevb.convert(stock).inputs, stock.inputs, strict=True):
        ours, theirs = (tensor._keras_history.operation.get_config() for tensor in (ours, theirs))
        assert ours == theirs


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.sampled(1)
def test_mixed_precision_trains_as_stock_keras_does(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        stock, converted, x, y = pair("residual")
    finally:
        keras.config.set_dtype_policy(before)
    for model in (stock, converted):
        for _ in range(3):
            loss = model.train_on_batch(x, y)
        assert np.isfinite(loss)
    for ours, theirs in zip(converted.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.02)  # 3 steps of 0.01; roundings may turn a sign


@pytest.mark.parametrize("chain", [True, False])
def test_a_model_of_half_precision_stays_one_under_another_policy(chain):
    """By the model's own policy Keras decides whether it scales the loss."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    stock = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), keras.layers.ReLU()])
    stock.add(keras.layers.Dense(3))
    stock = stock if chain else keras.Model(stock.inputs, stock.outputs)
    keras.config.set_dtype_policy(before)
    converted = keras_gevb.convert(stock)
    for model in (stock, converted, keras_gevb.export.to_keras(converted), keras_gevb.vectorize(stock)):
        model.compile("sgd", "mse")
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


@pytest.mark.long
@pytest.mark.parametrize("name", ["ResNet50V2", "MobileNetV2", "EfficientNetV2B0", "ConvNeXtTiny"])
def test_a_network_of_keras_applications_is_what_it_was_and_learns_as_it_did(name):
    stock = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3), classes=5)
    converted = keras_gevb.convert(stock)
    for model in (stock, converted):
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(), run_eagerly=True)
    x = np.random.default_rng(0).uniform(0, 1, (4, 32, 32, 3)).astype("float32")
    y = np.arange(4)
    np.testing.assert_allclose(converted(x), stock(x), atol=1e-6)
    updates, exact = converted.compute_updates(x, y), gradients(stock, x, y)  # moves stock's statistics
    sizes = [np.abs(gradient).max() for gradient in exact]
    for update, gradient, size in zip(updates, exact, sizes, strict=True):
        # Biases before a normalization have a gradient of rounding alone.
        if size > 1e-6 * max(sizes):
            np.testing.assert_allclose(update, gradient, rtol=0, atol=2e-4 * size)
    converted.train_on_batch(x, y)
    for ours, theirs in zip(converted.non_trainable_variables, stock.non_trainable_variables, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)  # float32, the same operations


def test_a_model_that_learned_by_a_rule_is_part_of_another():
    """As a stock model is; the weights of its own rule rest."""
    inner = [keras.Input((6,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(4)]
    encoder = keras_gevb.Sequential(inner, learning_rule="local_error")
    x, y = np.random.default_rng(0).normal(size=(8, 6)).astype("float32"), np.arange(8) % 3
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    encoder.compile("sgd", cross_entropy, run_eagerly=True)
    encoder.fit(x, y, verbose=0)
    rests = [v.numpy() for v in encoder.learning_rule.variables]
    chain = [keras.Input((6,)), *encoder.layers, keras.layers.Dense(3)]
    stock = keras.models.clone_model(keras.Sequential(chain))
    model = keras_gevb.Sequential([chain[0], encoder, chain[-1]], learning_rule="backprop")
    stock.set_weights([v for layer in chain[1:] for v in layer.get_weights()])
    for each in (stock, model):
        each.compile(keras.optimizers.SGD(0.1), cross_entropy, run_eagerly=True)
        each.fit(x, y, epochs=2, verbose=0)
    for ours, theirs in zip((v for layer in chain[1:] for v in layer.get_weights()), stock.get_weights()):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)  # two float32 steps
    assert rests
    for v, before in zip(encoder.learning_rule.variables, rests, strict=True):
        np.testing.assert_array_equal(v, before)


@pytest.mark.parametrize("inside", [keras.layers.Dense, layers.Dense], ids=["Keras", "ours"])
def test_a_block_in_local_is_one_place(inside):
    block = keras.Sequential([inside(6, activation="tanh"), inside(4)])
    chain = [keras.Input((6,)), layers.Local(block), keras.layers.Dense(3)]
    model = keras_gevb.Sequential(chain, learning_rule="dfa")
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    x, y = np.random.default_rng(0).normal(size=(8, 6)).astype("float32"), np.arange(8) % 3
    step = model.compute_step(x, y)
    assert [type(record.layer).__name__ for record in step.records] == ["Local", "Dense"]
    with tf.GradientTape() as tape:
        told = tf.reduce_sum(block(x) * step.signals()[0])
    exact = tape.gradient(told, [v.value for v in block.trainable_variables])
    for update, gradient in zip(step.updates(), exact):
        np.testing.assert_allclose(update, gradient, rtol=1e-5, atol=1e-6)  # float32


def test_what_is_frozen_stays_frozen_and_no_more_than_that():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="still"), keras.layers.Dense(4)])
    inner.get_layer("still").trainable = False
    inputs = keras.Input((6,))
    stock = keras.Model(inputs, keras.layers.Dense(3)(inner(keras.layers.Dense(4)(inputs))))
    converted = keras_gevb.convert(stock)
    names = [[v.path.split("/")[-2] for v in m.trainable_variables] for m in (stock, converted)]
    assert names[0] == names[1]
    converted.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    before = converted.get_weights()
    converted.train_on_batch(np.ones((2, 6), "float32"), np.arange(2))
    still = [w.path.split("/")[-2] == "still" for w in converted.weights]
    for frozen, old, new in zip(still, before, converted.get_weights(), strict=True):
        assert np.array_equal(old, new) == frozen


def test_a_part_of_a_layer_stays_frozen():
    stock = stock_models.custom()
    stock.layers[0].dense.trainable = False
    converted = keras_gevb.convert(stock)
    flags = [[v.trainable for v in model.weights] for model in (stock, converted)]
    assert flags[0].count(False) == 2
    assert flags[1] == flags[0]


def attention():
    inputs = keras.Input((3, 4))
    units = keras.layers.MultiHeadAttention(2, 2, name="attention")(inputs, inputs)
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(units)))


@pytest.mark.parametrize("rule", ["backprop", "dfa"])
def test_a_frozen_layer_of_several_parts_stays_frozen(rule):
    stock = attention()
    stock.get_layer("attention").trainable = False
    converted = keras_gevb.convert(stock, rule)
    models = stock, converted
    flags = [[v.trainable for layer in model.layers for v in layer.weights] for model in models]
    assert flags[0].count(True) == 2
    assert flags[1] == flags[0]


def test_what_keras_loads_unfrozen_learns_as_in_keras(tmp_path):
    """Keras loads a frozen attention with parts that are not, and trains them."""
    stock = attention()
    stock.get_layer("attention").trainable = False
    stock.save(tmp_path / "stock.keras")
    stock = keras.models.load_model(tmp_path / "stock.keras")
    converted = keras_gevb.convert(stock)
    x, y = np.random.default_rng(0).random((4, 3, 4), "float32"), np.zeros((4, 2), "float32")
    for model in (stock, converted):
        model.compile("sgd", "mse", run_eagerly=True)
        model.train_on_batch(x, y)
    assert len(converted.trainable_variables) == len(stock.trainable_variables)
    for ours, theirs in zip(converted.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)  # one float32 step


def test_a_network_that_no_rule_can_train_is_refused_in_the_rules_own_words():
    """Not in those of Keras, which calls the model to learn its shapes."""
    inputs = keras.Input((4,))
    outputs = layers.Dense(2)(keras.layers.Dense(3)(inputs))
    with pytest.raises(ValueError, match=r"^The model must end in a readout") as raised:
        keras_gevb.Model(inputs, outputs, learning_rule="dfa")
    assert "call" not in str(raised.value)


def test_attention_sees_the_mask_of_its_inputs_as_in_keras(float64):
    inputs = keras.Input((4,), dtype="int32")
    words = keras.layers.Embedding(5, 4, mask_zero=True)(inputs)
    units = keras.layers.MultiHeadAttention(2, 2)(words, words)
    stock = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalMaxPooling1D()(units)))
    converted = keras_gevb.convert(stock)
    x, y = np.array([[1, 2, 0, 0], [3, 4, 1, 0]]), np.ones((2, 2))
    for model in (stock, converted):
        model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    for ours, theirs in zip(converted.compute_updates(x, y), gradients(stock, x, y), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    np.testing.assert_allclose(converted.train_on_batch(x, y), stock.train_on_batch(x, y), rtol=1e-12)


@pytest.mark.parametrize("jit_compile", [True, False])
@pytest.mark.sampled(1)
def test_metrics_leave_out_what_is_masked_as_in_keras(jit_compile):
    chain = [keras.layers.Masking(), keras.layers.LSTM(3, return_sequences=True)]
    stock = keras.Sequential([keras.Input((4, 2)), *chain])
    converted = keras_gevb.convert(stock)
    x, y = np.random.default_rng(0).random((2, 4, 2)), np.array([[0, 1, 2, 0], [2, 1, 0, 0]])
    x[:, 2:] = 0
    for model in (stock, converted):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, metrics=["accuracy"], jit_compile=jit_compile)
    ours, theirs = (model.evaluate(x, y, verbose=0, return_dict=True) for model in (converted, stock))
    assert ours["accuracy"] == theirs["accuracy"]
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-6)


def test_the_input_of_a_chain_keeps_its_name():
    stock = keras.Sequential([keras.Input((3,), name="pixels"), keras.layers.Dense(2)])
    converted = keras_gevb.convert(stock)
    assert converted.inputs[0].name == "pixels"
    converted.compile("sgd", "mse", run_eagerly=True)
    converted.fit({"pixels": np.ones((2, 3))}, np.ones((2, 2)), verbose=0)


def stateful():
    gru = keras.layers.GRU(3, stateful=True)
    chain = [keras.layers.LSTM(4, stateful=True, return_sequences=True), gru, keras.layers.Dense(2)]
    return keras.Sequential([keras.Input(batch_shape=(4, 3, 2)), *chain])


def states(model):
    return [np.array(state) for layer in model.layers[:2] for state in layer.states]


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.sampled(1)
def test_recurrent_layers_go_on_from_their_states_as_in_keras(eager, float64):
    stock = stateful()
    converted = keras_gevb.convert(stock)
    x = np.random.default_rng(0).standard_normal((12, 3, 2))
    for model in (stock, converted):
        model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=eager, jit_compile=False)
        model.fit(x, np.ones((12, 2)), batch_size=4, shuffle=False, epochs=2, verbose=0)
        model.evaluate(x, np.ones((12, 2)), batch_size=4, verbose=0)
    assert all(np.abs(state).max() > 0.01 for state in states(converted))
    for ours, theirs in zip(converted.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    for ours, theirs in zip(states(converted), states(stock), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_a_pass_runs_again_from_the_states_that_the_first_one_had(float64):
    stock, (x, y) = stateful(), (np.random.default_rng(0).standard_normal((4, 3, 2)), np.ones((4, 2)))
    models = [keras_gevb.convert(stock, rules.DFA(seed=1, low_memory=each)) for each in (False, True)]
    for model in models:
        model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
        for _ in range(2):
            model.train_on_batch(x, y)
    for ours, theirs in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    before = states(models[0])
    models[0].compute_updates(x, y)
    for now, then in zip(states(models[0]), before, strict=True):
        np.testing.assert_array_equal(now, then)


class Costly(keras.layers.Layer):
    """Adds a loss of its outputs, which its weight scales."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        self.add_loss(keras.ops.mean(keras.ops.square(self.scale * x)))
        return self.scale * x


class Codebook(keras.layers.Layer):
    """The nearest of four codes, which learn by the layer's own loss alone."""

    def build(self, shape):
        self.codes = self.add_weight(shape=(4, shape[-1]), initializer="random_normal", name="codes")

    def call(self, x):
        ops = keras.ops
        distances = ops.sum((ops.expand_dims(x, -2) - self.codes) ** 2, axis=-1)
        code = ops.take(self.codes, ops.argmin(distances, axis=-1), axis=0)
        self.add_loss(
            ops.mean((ops.stop_gradient(x) - code) ** 2) + ops.mean((x - ops.stop_gradient(code)) ** 2)
        )
        return x + ops.stop_gradient(code - x)


@pytest.mark.parametrize("factor", [1, 2**10])
@pytest.mark.parametrize("costly", [Costly, Codebook])
def test_losses_that_a_layer_adds_are_exact_and_scaled_as_the_loss(costly, factor, float64):
    chain = [keras.Input((6,)), keras.layers.Dense(5), costly(), keras.layers.Dense(3)]
    model = keras_gevb.Sequential(chain, learning_rule="backprop")
    scaled = keras.optimizers.SGD(0.1, loss_scale_factor=factor)
    model.compile(scaled, keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    x, y = stock_models.data(model)
    for update, gradient in zip(model.compute_updates(x, y), gradients(model, x, y), strict=True):
        np.testing.assert_allclose(update / factor, gradient, rtol=1e-10, atol=1e-12)  # float64


class Rows(keras.layers.Layer):
    """Sums rows one by one, so that their number must be known to its call, but not to a graph of layers."""

    def compute_output_shape(self, shape):
        return (shape[0], *shape[2:])

    def call(self, x):
        return sum(x[:, row] for row in range(x.shape[1]))


@pytest.mark.parametrize(
    "layer", [Rows, lambda: keras.layers.UpSampling2D(interpolation="bilinear")], ids=["rows", "upsampling"]
)
def test_open_extents_are_those_of_a_batch(layer):
    """Keras calls no layer before they are known, where it says its output's shape."""
    chain = [keras.Input((None, None, 2)), keras.layers.Conv2D(3, 3), layer(), keras.layers.Dense(4)]
    stock = keras.Sequential(chain)
    x = np.random.default_rng(0).normal(size=(4, 6, 5, 2)).astype("float32")
    converted = keras_gevb.convert(stock)
    y = np.array(stock(x)) + 1
    for model in (stock, converted):
        model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
        model.fit(x, y, batch_size=4, verbose=0)
    for ours, theirs in zip(converted.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)  # float32, one step
    with pytest.raises(ValueError, match=r"Give keras\.Input its full shape"):
        keras_gevb.convert(stock, "dfa")


# Refusals.


class Rounded(keras.layers.Layer):
    """A layer whose outputs jump with its weights."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, x):
        return x + keras.ops.cast(keras.ops.cast(self.scale, "int32"), x.dtype)


@pytest.mark.parametrize("rule", ["backprop", "dfa"])
def test_a_layer_without_a_derivative_is_named(rule):
    model = keras_gevb.Sequential(
        [keras.Input((6,)), Rounded(name="jumps"), keras.layers.Dense(3)], learning_rule=rule
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    with pytest.raises(ValueError, match=r"(?s)jumps.*scale"):
        model.train_on_batch(np.ones((2, 6), "float32"), np.arange(2))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, x):
        return self.dense(x)


class OwnStep(keras.Model):
    def train_step(self, data):
        return {}


def graph(cls=keras.Model, layer=None):
    inputs = keras.Input((6,))
    x = keras.layers.Dense(4)(inputs)
    return cls(inputs, keras.layers.Dense(3)(x if layer is None else layer(x)))


def with_a_weight_outside():
    model = graph()
    model.temperature = model.add_weight(shape=(), name="temperature")
    return model


def called(model):
    model(np.ones((2, 6), "float32"))
    return model


REFUSALS = {
    "subclassed": (lambda: called(Subclassed()), "Subclass keras_gevb.Model"),
    "not built": (lambda: keras.Sequential([keras.layers.Dense(3)]), "not built"),
    "step of its own": (lambda: graph(OwnStep), "train_step"),
    "lambda": (lambda: graph(layer=keras.layers.Lambda(lambda x: x)), "Lambda"),
    "weight outside": (with_a_weight_outside, "temperature"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_converted_is_named(name):
    build, words = REFUSALS[name]
    with pytest.raises(ValueError, match=words):
        keras_gevb.convert(build())


def test_no_model_and_a_rule_of_vector_units_are_refused():
    with pytest.raises(TypeError, match="must be a Keras model"):
        keras_gevb.convert(keras.layers.Dense(3))
    with pytest.raises(ValueError, match="GEVB serves vector units"):
        keras_gevb.convert(graph(), "gevb")


def test_a_wrapped_layer_makes_its_mask():
    def network(wrap):
        inputs = keras.Input((None,), dtype="int32")
        embedding = keras.layers.Embedding(5, 3, mask_zero=True)
        pooled = keras.layers.GlobalAveragePooling1D()(wrap(embedding)(inputs))
        return inputs, keras.layers.Dense(3)(pooled)

    def trained(cls, wrap, **settings):
        keras.utils.set_random_seed(1)
        model = cls(*network(wrap), **settings)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(1.0), loss, run_eagerly=True)
        model.train_on_batch(np.array([[1, 2, 0, 0], [3, 0, 0, 0]]), np.array([0, 1]))
        return model.get_weights()

    ours = trained(keras_gevb.Model, layers.Local, learning_rule="backprop")
    for mine, theirs in zip(ours, trained(keras.Model, lambda layer: layer), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)  # float32, one step


def test_a_frozen_model_stays_frozen():
    stock = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    stock.trainable = False
    stock.layers[0].trainable = True
    converted = keras_gevb.convert(stock)
    assert not converted.trainable
    assert not converted.trainable_variables


def test_an_activation_with_weights_learns_with_its_layer():
    units = keras.layers.Dense(5, activation=keras.layers.PReLU("random_normal"))
    stock = keras.Sequential([keras.Input((6,)), units, keras.layers.Dense(3)])
    x, y = np.random.default_rng(0).standard_normal((8, 6)).astype("float32"), np.arange(8) % 3
    stock(x)  # builds the activation
    model = keras_gevb.convert(stock, "backprop")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for each in (model, stock):
        each.compile("sgd", loss, run_eagerly=True)
    for update, gradient in zip(model.compute_updates(x, y), gradients(stock, x, y), strict=True):
        np.testing.assert_allclose(update, gradient, rtol=0, atol=1e-6)  # float32


def test_feedback_of_each_part_starts_as_that_part_does():
    ranges = keras.initializers.RandomUniform(0.5, 1.0), keras.initializers.RandomUniform(-1.0, -0.5)
    block = keras.Sequential([keras.layers.Dense(50, kernel_initializer=drawn) for drawn in ranges])
    network = keras.Input((6,)), layers.Local(block), keras.layers.Dense(3)
    model = keras_gevb.Sequential(network, learning_rule=rules.FA(seed=1))
    feedback = {tuple(v.shape): np.asarray(v) for v in model.learning_rule.variables}
    assert feedback[6, 50].min() >= 0.5
    assert feedback[50, 50].max() <= -0.5


def test_feedback_of_a_kernel_that_starts_the_same_everywhere_follows_the_seed():
    units = keras.layers.Dense(5, kernel_initializer="ones")
    stock = keras.Sequential([keras.Input((6,)), units, keras.layers.Dense(3)])
    found = []
    for seed in (1, 1, 2):
        rule = keras_gevb.convert(stock, rules.FA(seed=seed)).learning_rule
        found.append(np.concatenate([np.ravel(v) for v in rule.variables]))
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
