"""What a mask leaves out teaches nothing, under rules that see no way back from the outputs."""

import keras
import numpy as np
import pytest
from networks import arrays

import keras_gevb
from keras_gevb import Sequential, layers, rules

K, TOKENS = 4, 7
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RULES = {
    "gevb": "gevb",
    "gevb, little memory": rules.GEVB(low_memory=True),
    "learned gevb": rules.DKP(rate=0.01),
    "dfa": rules.DFA(seed=1),
    "dfa, little memory": rules.DFA(seed=1, low_memory=True),
    "sdfa": rules.SDFA(seed=1),
    "drtp": rules.DRTP(seed=1),
    "dkp": rules.DKP(rate=0.01, seed=1),
    "ebd": rules.EBD(seed=1),
    "local_error": rules.LocalError(seed=1),
}


def vectors(rule, steps):
    return Sequential(
        [
            keras.Input((steps,), dtype="int32"),
            layers.VectorEmbedding(TOKENS, 6, vector_dim=K, mask_zero=True, name="embedding"),
            layers.VectorConv1D(6, 1),
            layers.VectorGlobalAveragePooling1D(),
            layers.VectorDense(6),
            layers.VectorReadout(),
        ],
        learning_rule=rule,
    )


def stock(rule, steps):
    return Sequential(
        [
            keras.Input((steps,), dtype="int32"),
            keras.layers.Embedding(TOKENS, 6, mask_zero=True, name="embedding"),
            keras.layers.Dense(6, activation="relu"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(K),
        ],
        learning_rule=rule,
    )


def compiled(make, rule, steps=5, eager=True):
    keras.utils.set_random_seed(3)
    model = make(RULES[rule], steps)
    model.compile(keras.optimizers.SGD(0.1), CROSS_ENTROPY, run_eagerly=eager)
    return model


def batch():
    x = np.random.default_rng(2).integers(1, TOKENS, (4, 5))
    x[1, 3:] = x[2, 1:] = x[3, 4:] = 0
    return x.astype("int32"), np.arange(4)


def embedded(model):
    """The weight that has a row for each token, and the axis of these rows."""
    weight = model.get_layer("embedding").weights[0]
    return weight, tuple(weight.shape).index(TOKENS)


@pytest.mark.parametrize(
    ("rule", "eager"), [*((rule, True) for rule in RULES), ("gevb, little memory", False), ("dfa", False)]
)
def test_what_padding_holds_changes_nothing_that_is_learned(rule, eager):
    make = vectors if "gevb" in rule else stock
    models = [compiled(make, rule, eager=eager) for _ in range(2)]
    weight, axis = embedded(models[1])
    value = np.array(keras.ops.convert_to_numpy(weight.value))
    value.swapaxes(0, axis)[0] += 1.0  # the row of the padding
    weight.assign(value)
    padding = value.swapaxes(0, axis)[0].copy()
    for model in models:
        for _ in range(2):
            model.train_on_batch(*batch())
    after = keras.ops.convert_to_numpy(weight.value)
    np.testing.assert_array_equal(after.swapaxes(0, axis)[0], padding)
    for one, other, v in zip(*(arrays(m.variables) for m in models), models[1].variables, strict=True):
        if v is weight:
            one, other = (w.swapaxes(0, axis)[1:] for w in (one, other))
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-6)  # float32, two steps


class Asked(keras.layers.Dense):
    def call(self, inputs, mask=None):
        return super().call(inputs)


def test_a_mask_given_as_an_argument_leaves_padding_out():
    tokens = keras.Input((5,), dtype="int32")
    embedded = keras.layers.Embedding(TOKENS, 6, name="embedding")(tokens)
    units = Asked(6, activation="relu")
    pooled = keras.layers.GlobalAveragePooling1D()(units(embedded, mask=keras.ops.not_equal(tokens, 0)))
    model = keras_gevb.Model(tokens, keras.layers.Dense(K)(pooled), learning_rule=rules.DFA(seed=1))
    model.compile("sgd", CROSS_ENTROPY, run_eagerly=True)
    weight, found = model.get_layer("embedding").embeddings, []
    for _ in range(2):
        updates = dict(zip((v.path for v in model.trainable_variables), model.compute_updates(*batch())))
        found.append([keras.ops.convert_to_numpy(updates[v.path]) for v in units.trainable_variables])
        weight.assign(weight + keras.ops.one_hot(0, TOKENS)[:, None])  # the row of the padding
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-6)  # float32


class Pooling(keras.layers.Dense):
    """Passes on a mask that does not fit what it returns, which Keras does not mind."""

    def call(self, inputs):
        return keras.ops.mean(super().call(inputs), axis=1)

    def compute_output_shape(self, input_shape):
        return input_shape[0], self.units


@pytest.mark.parametrize("units", [5, 6], ids=["as many as positions", "more"])
def test_a_mask_of_other_positions_than_the_outputs_is_none_of_theirs(units):
    found = []
    for masked in (False, True):
        keras.utils.set_random_seed(3)
        hidden = keras.layers.Embedding(TOKENS, 6, mask_zero=masked), Pooling(units, activation="relu")
        ends = keras.layers.Flatten(), keras.layers.Dense(K)  # of which the first drops it
        rule = rules.DFA(seed=1)
        model = Sequential([keras.Input((5,), dtype="int32"), *hidden, *ends], learning_rule=rule)
        model.compile("sgd", CROSS_ENTROPY, run_eagerly=True)
        found.append(arrays(model.compute_updates(*batch()))[1:])  # all but the embedding's
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(other, one)


@pytest.mark.parametrize("rule", [rule for rule in RULES if "gevb" in rule])
def test_a_padded_sequence_teaches_what_a_short_one_does(rule):
    x, y = batch()
    x[:, 3:] = 0
    padded, short = (compiled(vectors, rule, steps) for steps in (5, 3))
    given = (padded.compute_updates(x, y), short.compute_updates(x[:, :3], y))
    for one, other in zip(*map(arrays, given), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)  # float32
