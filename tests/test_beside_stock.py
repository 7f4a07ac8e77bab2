"""What people write, under stock Keras and under the rule "backprop": weights and logs are the same."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_gevb

layers = keras.layers
SAMPLES = 20
STOCK = {"Model": keras.Model, "Sequential": keras.Sequential, "graph": keras.Model}
OURS = {
    name: functools.partial(getattr(keras_gevb, name), learning_rule="backprop") for name in ("Sequential",)
}


class Backprop(keras_gevb.Model):
    def __init__(self, **kwargs):
        super().__init__(learning_rule="backprop", **kwargs)


OURS |= {"Model": Backprop, "graph": functools.partial(keras_gevb.Model, learning_rule="backprop")}


def rows(*shape, samples=SAMPLES):
    return np.random.default_rng(0).standard_normal((samples, *shape)).astype("float32")


def labels(*shape, samples=SAMPLES):
    return np.random.default_rng(1).integers(0, 3, (samples, *shape))


def assert_alike(make, train, **settings):
    """Both are made from the same seeds, compiled alike and trained; then their weights and logs agree."""
    results = []
    for classes in (STOCK, OURS):
        keras.utils.set_random_seed(1)
        model = make(classes)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), **{"loss": loss, "jit_compile": False, **settings})
        logs = [train(model)]
        results.append((logs, [np.array(v) for v in model.weights]))
    (expected, theirs), (logs, ours) = results
    # float32, a few steps; sums in another order
    for log, other in zip(*map(keras.tree.flatten, (logs, expected)), strict=True):
        np.testing.assert_allclose(log, other, rtol=1e-5)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)


def fit(x, y, batch_size=8, epochs=2, **settings):
    if batch_size is not None:
        settings |= {"batch_size": batch_size, "shuffle": False}
    return lambda model: model.fit(x, y, epochs=epochs, verbose=0, **settings).history


def chain(*parts):
    """Made by a function, since a layer belongs to one model."""
    return lambda classes: classes["Sequential"]([part() for part in parts])


dense = functools.partial(layers.Dense, 3)

# Data whose end nobody knows, in all ways to run a step.


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "settings",
    [{"jit_compile": j} for j in ("auto", True, False)] + [{"run_eagerly": True}, {"steps_per_execution": 2}],
    ids=str,
)
def test_data_of_unknown_size_end_as_in_keras(settings, known):
    def train(model):
        data = tf.data.Dataset.from_tensor_slices((rows(6), labels()))
        data = data if known else data.filter(lambda *pair: True)
        data = data.batch(8)
        history = model.fit(data, epochs=3, validation_data=data, verbose=0).history
        return [history, model.evaluate(data, verbose=0)]

    assert_alike(chain(lambda: keras.Input((6,)), lambda: layers.Dense(5, "tanh"), dense), train, **settings)


# Shapes that vary from batch to batch, and shapes that must not.


@pytest.mark.parametrize("jit_compile", [False, "auto"])
@pytest.mark.parametrize("kind", ["states", "words", "images"])
@pytest.mark.sampled(1)
def test_outputs_of_open_extents_learn_from_batches_of_any(kind, jit_compile):
    def make(classes):
        if kind == "states":
            words = keras.Input((None,))
            sequence, state = layers.GRU(5, return_sequences=True, return_state=True)(
                layers.Embedding(9, 4)(words)
            )
            state = layers.Reshape((1, 5))(state)
            return classes["graph"](words, dense()(layers.Multiply()([sequence, state])))
        if kind == "words":
            parts = (
                keras.Input((None,)),
                layers.Embedding(9, 4),
                layers.GRU(5, return_sequences=True),
                dense(),
            )
        else:
            convolution = functools.partial(layers.Conv2D, kernel_size=3, padding="same")
            parts = keras.Input((None, None, 2)), convolution(4, activation="relu"), convolution(3)
        return classes["Sequential"]([*parts])

    def train(model):
        losses = []
        for size in (4, 7, 5, 4):
            shape = (size, size + 1) if kind == "images" else (size,)
            x = rows(*shape, 2, samples=6) if kind == "images" else labels(*shape, samples=6)
            losses.append(model.train_on_batch(x, labels(*shape, samples=6)))
        return losses

    assert_alike(make, train, jit_compile=jit_compile)


class OfThisBatch(layers.Layer):
    """Reads the number of samples as a number."""

    def call(self, x):
        return x * (1.0 / x.shape[0])


@pytest.mark.parametrize("made_of", ["a state", "a shape"])
@pytest.mark.sampled(1)
def test_a_batch_of_a_known_size_is_known_to_the_layers(made_of):
    if made_of == "a state":
        make = chain(lambda: layers.GRU(4, stateful=True), dense)
        train = fit(rows(7, 4), labels(), batch_size=5)
    else:
        make = chain(OfThisBatch, lambda: layers.Dense(5, "tanh"), dense)
        data = tf.data.Dataset.from_tensor_slices((rows(6), labels())).batch(8, drop_remainder=True)
        train = fit(data, None, batch_size=None)
    assert_alike(make, train)


# Calls that are traced by themselves.


class Traced(layers.Layer):
    """A `tf.function` with a branch and a loop on tensors, which learns as one place."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Dense(6), layers.Dense(6)

    def build(self, shape):
        self.first.build(shape)
        self.second.build(shape)

    @tf.function
    def call(self, x):
        h = self.first(x)
        if tf.reduce_sum(h) > 0:
            h = 2.0 * h
        for n in tf.range(3):
            h = h + tf.cast(n, h.dtype) * self.second(x)
        return h


def traced_model(classes):
    class Net(classes["Model"]):
        def __init__(self):
            super().__init__()
            self.first, self.last = Traced(), layers.Dense(3)

        @tf.function
        def call(self, x, training=None):
            return self.last(self.first(x))

    model = Net()
    model(rows(6))  # what it has traced then must not be what it learns by
    return model


def subclassed(classes):
    class Net(classes["Model"]):
        def __init__(self):
            super().__init__()
            self.first, self.last = layers.Dense(5, "tanh"), layers.Dense(3)

        def call(self, x):
            return self.last(self.first(x))

    return Net()


def model_traced_later(classes):
    """The call of one model, and of one layer, is traced as its own attribute."""
    model = subclassed(classes)
    model(rows(6))
    for part in (model, model.first):
        part.call = tf.function(part.call)
    model(rows(6))
    return model


TRACED = [chain(lambda: keras.Input((6,)), Traced, dense), traced_model, model_traced_later]


@pytest.mark.parametrize("settings", [{}, {"run_eagerly": True}, {"jit_compile": "auto"}], ids=str)
@pytest.mark.parametrize("make", TRACED)
@pytest.mark.sampled(2)
def test_calls_that_are_traced_learn_as_in_keras(make, settings):
    assert_alike(make, fit(rows(6), labels()), **settings)


def test_a_call_that_is_traced_between_two_fits_learns_as_in_keras():
    def train(model):
        logs = fit(rows(6), labels())(model)
        model.call = tf.function(model.call)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
        return logs, fit(rows(6), labels())(model)

    assert_alike(subclassed, train, run_eagerly=True)


def test_a_layer_has_the_call_that_it_was_given_after_a_step():
    model = model_traced_later(OURS)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    given = [part.call for part in (model, model.first)]
    model.train_on_batch(rows(6), labels())
    assert [part.call for part in (model, model.first)] == given
    assert "call" not in vars(model.last)


# Weights that a layer makes when it is first called.


class Lazy(layers.Layer):
    """Says what it returns, so nothing calls it before there are numbers."""

    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(5, kernel_initializer=keras.initializers.GlorotUniform(2))

    def build(self, shape):
        initializer = keras.initializers.GlorotUniform(1)
        self.kernel = self.add_weight(shape=(shape[-1], 4), initializer=initializer)

    def call(self, x):
        return self.inner(keras.ops.matmul(x, self.kernel))

    def compute_output_shape(self, shape):
        return (*shape[:-1], 5)


@pytest.mark.parametrize(
    "lazy", [Lazy, lambda: layers.Dense(5, activation=layers.PReLU())], ids=["layer", "activation"]
)
@pytest.mark.parametrize("way", ["fit", "train_on_batch"])
@pytest.mark.sampled(2)
def test_weights_made_in_the_first_call_learn(lazy, way):
    def train(model):
        if way == "train_on_batch":
            model.train_on_batch(rows(6), labels())
        return fit(rows(6), labels())(model)

    last = functools.partial(dense, kernel_initializer=keras.initializers.GlorotUniform(3))
    assert_alike(chain(lambda: keras.Input((6,)), lazy, last), train)


class Scaled(layers.Layer):
    """A weight for each sample of a batch."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[0], 1), initializer="ones")

    def call(self, x):
        return x * self.scale


class LazilyScaled(layers.Layer):
    """The same behind a first call, and a second input that may be missing."""

    def __init__(self):
        super().__init__()
        self.inner = Scaled()

    def call(self, x, other=None):
        return self.inner(x if other is None else x + other)

    def compute_output_shape(self, x_shape, other_shape=None):
        return x_shape


def test_weights_made_in_the_first_call_are_for_as_many_samples_and_for_what_is_given():
    def make(classes):
        x, other = keras.Input((6,)), keras.Input((6,), optional=True)
        outputs = dense(kernel_initializer=keras.initializers.GlorotUniform(3))(LazilyScaled()(x, other))
        return classes["graph"]([x, other], outputs)

    assert_alike(make, lambda model: [model.train_on_batch([rows(6), None], labels()) for _ in range(3)])


def test_an_output_may_be_one_number():
    def make(classes):
        x = keras.Input((6,))
        hidden = layers.Dense(5, "tanh", kernel_initializer=keras.initializers.GlorotUniform(1))(x)
        logits = layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(2))(hidden)
        return classes["graph"](x, {"logits": logits, "mean": keras.ops.mean(hidden)})

    loss = {"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "mean": None}
    assert_alike(make, fit(rows(6), {"logits": labels()}), loss=loss)


class StockPair(keras.Model):
    """Of two inputs, one of which may be missing."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.hidden, self.last = layers.Dense(5, "tanh"), layers.Dense(3)

    def call(self, inputs):
        x, *rest = [given for given in inputs if given is not None]
        return self.last(self.hidden(sum(rest, x)))


class Pair(keras_gevb.Model, StockPair):
    pass


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("rule", ["dfa", "backprop", "fa", "kp"])
@pytest.mark.sampled(2)
def test_an_input_that_is_missing_is_as_one_of_zeros(rule, first):
    try:
        StockPair()([None, rows(6)])
    except AttributeError:  # of the shape of None
        pytest.skip(f"Keras {keras.__version__} builds no model that is called with None in a list")
    losses = []
    for missing in (None, np.zeros((SAMPLES, 6), "float32")):
        keras.utils.set_random_seed(1)
        model = Pair(learning_rule=rule)
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        inputs = [missing, rows(6)] if first else [rows(6), missing]
        losses.append([model.train_on_batch(inputs, labels()) for _ in range(3)])
    np.testing.assert_allclose(*losses, rtol=1e-6)  # float32
    assert losses[0][2] < losses[0][0]


# Weights that a layer changes in its call, beside losses that layers add.


class Shrinking(layers.Layer):
    """A dense layer that takes a tenth of its kernel away in each call in training."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 8), initializer="glorot_uniform")

    def call(self, inputs, training=False):
        if training:
            self.kernel.assign(0.9 * self.kernel)
        return keras.ops.matmul(inputs, self.kernel)


@pytest.mark.parametrize("changing", [lambda: layers.SpectralNormalization(layers.Dense(8)), Shrinking])
@pytest.mark.parametrize("settings", [{}, {"run_eagerly": True}], ids=str)
def test_a_kernel_that_its_layer_changes_beside_a_loss_of_activity(changing, settings):
    active = lambda: layers.Dense(4, activity_regularizer=keras.regularizers.L2(0.05))  # noqa: E731
    make = chain(lambda: keras.Input((6,)), changing, active, dense)
    assert_alike(make, fit(rows(6), labels(), epochs=2), **settings)


def test_a_loss_of_activity_before_a_head():
    active = lambda: layers.Dense(4, activity_regularizer="l2")  # noqa: E731
    doubled = lambda: layers.Rescaling(2.0)  # noqa: E731
    assert_alike(chain(lambda: keras.Input((6,)), active, dense, doubled), fit(rows(6), labels(), epochs=4))


# Random layers draw what they draw in stock Keras, at Keras's defaults and for a last batch of any size.


@pytest.mark.parametrize("jit_compile", ["auto", True, False])
@pytest.mark.sampled(1)
def test_seeded_layers_draw_the_same_numbers(jit_compile):
    make = chain(
        *(
            lambda: keras.Input((6,)),
            lambda: layers.GaussianNoise(0.1, seed=1),
            lambda: layers.Dense(8, "relu"),
        ),
        *(lambda: layers.Dropout(0.3, seed=2), dense),
    )
    # XLA is asked for a whole number of batches: stock Keras compiles a smaller one too.
    assert_alike(make, fit(rows(6), labels(), batch_size=10), jit_compile=jit_compile)


# Weights that a model reads itself.


def tied(way):
    def make(classes):
        class Net(classes["Model"]):
            def __init__(self):
                super().__init__()
                self.first = layers.Dense(6, "tanh", kernel_regularizer="l2", name="first")
                self.second = layers.Dense(6, activity_regularizer="l2")
                self.last = layers.Dense(6 if way == "behind" else 3)

            def call(self, x):
                x = self.second(self.first(x))
                kernel = keras.ops.transpose(self.first.kernel)
                if way == "between":
                    return self.last(keras.ops.matmul(x, kernel))
                return keras.ops.matmul(self.last(x), kernel)[:, :3]

        return Net()

    return make


@pytest.mark.parametrize("settings", [{}, {"run_eagerly": True}, {"jit_compile": "auto"}], ids=str)
@pytest.mark.parametrize("way", ["between", "behind"])
@pytest.mark.sampled(3)
def test_weights_that_the_model_reads_itself_get_their_whole_gradient(way, settings):
    assert_alike(tied(way), fit(rows(6), labels()), **settings)


def test_a_rule_without_a_way_back_says_which_weight_the_model_reads_itself():
    class DFA(keras_gevb.Model):
        def __init__(self):
            super().__init__(learning_rule="dfa")

    model = tied("between")({"Model": DFA})
    model.second.activity_regularizer = None
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match=r"first/kernel.*backprop"):
        model.fit(rows(6), labels(), verbose=0)


@pytest.mark.parametrize("settings", [{}, {"run_eagerly": True}, {"jit_compile": "auto"}], ids=str)
@pytest.mark.sampled(1)
def test_a_wrapper_that_normalizes_a_layer_of_the_package(settings):
    def make(classes):
        ours = classes is OURS
        Dense = keras_gevb.layers.Dense if ours else layers.Dense
        last = {"gated": False} if ours else {}
        hidden = layers.SpectralNormalization(
            Dense(8, activation="tanh", kernel_initializer="glorot_uniform")
        )
        model = classes["Sequential"]([keras.Input((6,)), hidden, Dense(3, **last)])
        random = np.random.default_rng(0)
        model.set_weights([random.normal(size=v.shape) * (v.ndim > 1) for v in model.weights])
        return model

    assert_alike(make, fit(rows(6), labels()), **settings)


def test_an_optimizer_that_reads_weights_when_it_is_built_is_built_by_a_single_step():
    model = OURS["Sequential"]([keras.Input((6,)), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = getattr(keras.optimizers, "ScheduleFreeAdamW", keras.optimizers.Adam)(0.01)
    model.compile(optimizer, loss)
    kernel = model.layers[0].kernel
    with tf.GradientTape() as tape:
        expected = tape.gradient(loss(labels(), model(rows(6))), kernel.value)
    np.testing.assert_allclose(model.compute_updates(rows(6), labels())[0], expected, rtol=0, atol=1e-6)
    assert optimizer.built
