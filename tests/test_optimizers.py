"""The paper's Adam is its closed form."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from workflows import compiled, data, sequential, traced

from keras_gevb.optimizers import Adam


@pytest.mark.parametrize(
    "settings", [{}, {"beta_1": 0.5, "beta_2": 0.9}, {"epsilon": 0.1}, {"amsgrad": True}]
)
def test_ten_steps_are_the_equation(settings, float64):
    rate, b1, b2, epsilon = (
        0.1,
        settings.get("beta_1", 0.9),
        settings.get("beta_2", 0.999),
        settings.get("epsilon", 1e-8),
    )
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, 2))
    variable, optimizer = keras.Variable(weights, dtype="float64"), Adam(rate, **settings)
    m, v, largest = np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((3, 2))
    for t in range(1, 11):
        gradient = rng.normal(size=(3, 2)) / t
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        m, v = b1 * m + (1 - b1) * gradient, b2 * v + (1 - b2) * gradient**2
        largest = np.maximum(largest, v)
        second = largest if settings.get("amsgrad") else v
        weights = weights - rate / (1 - b1**t) * m / (np.sqrt(second) / np.sqrt(1 - b2**t) + epsilon)
        # float64, but for the learning rate, which Keras keeps in floatx
        np.testing.assert_allclose(variable.numpy(), weights, rtol=0, atol=1e-14)


@pytest.mark.parametrize("settings", [{"jit_compile": True}, {"jit_compile": False}])
def test_a_compiled_step_is_an_eager_one(settings):
    models = [sequential(), sequential()]
    models[1].set_weights(models[0].get_weights())
    for model, compile_model, how in zip(models, (traced, compiled), (settings, {})):
        compile_model(model, Adam(0.01), **how).fit(*data(16), batch_size=8, shuffle=False, verbose=0)
    for mine, theirs in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)  # two float32 steps


def test_it_is_saved_with_its_arguments_and_goes_on(tmp_path):
    model = compiled(sequential(), Adam(0.01, beta_1=0.8, beta_2=0.99, epsilon=1e-3))
    model.fit(*data(), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is Adam
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    for each in (model, loaded):
        each.fit(*data(), shuffle=False, verbose=0)
    for mine, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("beta", ["beta_1", "beta_2"])
def test_a_wrong_beta_is_named(beta):
    with pytest.raises(ValueError, match=rf"{beta}.*Received: {beta}=1.0"):
        Adam(**{beta: 1.0})


def test_rows_without_gradient_of_an_embedding_are_served():
    table = keras.layers.Embedding(4, 2)
    table.build((None,))
    before = table.get_weights()[0]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(table(tf.constant([1, 1, 3])))
    Adam(0.1).apply([tape.gradient(loss, table.embeddings.value)], [table.embeddings])
    changed = np.any(table.get_weights()[0] != before, axis=1)
    np.testing.assert_array_equal(changed, [False, True, False, True])
