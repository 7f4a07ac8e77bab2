"""Keras and its backend, as tests find them: a plugin of the processes that run them."""

import keras
import pytest

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    # Graphs that run a few times are not worth optimizing.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(autouse=True)
def seeds():
    """Every test starts from the same seeds, whatever ran before it."""
    keras.utils.set_random_seed(20211)


@pytest.fixture
def float64():
    """Layers and data in float64, where an identity must hold to rounding: see `networks.EXACT`."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


@pytest.fixture
def eager_functions():
    """A few steps of small networks, also where `run_eagerly` cannot be said: quicker than to compile one."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
