"""Stock Keras models of many shapes: what `convert` is tried on. One function is one row of its tests."""

import keras
import numpy as np
from keras import layers

from keras_gevb import zoo


def chain(*parts):
    return keras.Sequential([*parts])


def residual():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Activation("relu")(layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same")(x)))
    y = layers.Conv2D(6, 3, padding="same", activation="tanh")(y)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(3)(x))


def separable():
    return chain(
        keras.Input((8, 8, 3)),
        layers.DepthwiseConv2D(3, depth_multiplier=2),
        layers.SeparableConv2D(6, 3, activation="gelu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(3),
    )


def masked_convolution():
    return chain(
        keras.Input((7,)),
        layers.Embedding(12, 6, mask_zero=True),
        layers.Conv1D(5, 3, padding="causal", activation="relu"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(3),
    )


def recurrent():
    return chain(
        keras.Input((7,)),
        layers.Embedding(12, 6, mask_zero=True),
        layers.LSTM(5, return_sequences=True),
        layers.LSTM(4, dropout=0.2),
        layers.Dense(3),
    )


def bidirectional():
    return chain(
        keras.Input((7,)), layers.Embedding(12, 6), layers.Bidirectional(layers.GRU(4)), layers.Dense(3)
    )


def attention():
    inputs = keras.Input((7,))
    x = layers.Embedding(12, 6)(inputs)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 3, dropout=0.1)(x, x))
    x = layers.EinsumDense("abc,cd->abd", (None, 6), activation="gelu")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def shared_tower():
    tower = chain(keras.Input((6,)), layers.Dense(5, "relu"), layers.Dropout(0.3), layers.Dense(4, "tanh"))
    inputs = {name: keras.Input((6,), name=name) for name in ("left", "right")}
    x = layers.Concatenate()([tower(inputs["left"]), tower(inputs["right"])])
    return keras.Model(inputs, layers.Dense(3)(x))


def nested():
    inner = chain(keras.Input((5,)), layers.Dense(5, "elu"), layers.UnitNormalization())
    middle_inputs = keras.Input((5,))
    middle = keras.Model(middle_inputs, inner(middle_inputs))
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(3)(middle(layers.PReLU()(layers.Dense(5)(inputs)))))


def transposed():
    return chain(
        keras.Input((4, 4, 3)),
        layers.Conv2DTranspose(4, 3, strides=2, activation="relu"),
        layers.GroupNormalization(2),
        layers.PReLU(),
        layers.GlobalMaxPooling2D(),
        layers.Dense(3),
    )


def two_outputs():
    inputs = keras.Input((6,))
    x = layers.Dense(5, "selu")(inputs)
    outputs = [layers.Dense(3, "softmax", name="kind")(x), layers.Dense(2, "softmax", name="side")(x)]
    return keras.Model(inputs, outputs)


def probabilities():
    return chain(keras.Input((6,)), layers.Dense(5, "relu"), layers.Dense(3), layers.Softmax())


def spectral():
    return chain(
        keras.Input((6, 6, 4)),
        layers.SpectralNormalization(layers.Conv2D(4, 3)),
        layers.LayerNormalization(),
        layers.Flatten(),
        layers.Dense(3),
    )


def per_time_step():
    return chain(
        keras.Input((5, 6)),
        layers.TimeDistributed(layers.Dense(4, "relu")),
        layers.SimpleRNN(4),
        layers.Dense(3),
    )


def volumes():
    return chain(
        keras.Input((4, 4, 4, 2)), layers.Conv3D(3, 2, activation="swish"), layers.Flatten(), layers.Dense(3)
    )


def convolutional_lstm():
    return chain(
        keras.Input((3, 6, 6, 2)), layers.ConvLSTM2D(3, 3), layers.GlobalAveragePooling2D(), layers.Dense(3)
    )


def grouped_attention():
    inputs = keras.Input((7, 6))
    x = layers.GroupQueryAttention(4, 4, 2)(inputs, inputs)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


@keras.saving.register_keras_serializable(package="tests")
class Doubling(keras.layers.Layer):
    """A layer of one's own, with layers inside and a weight that it multiplies."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units, self.dense = units, layers.Dense(units)

    def build(self, shape):
        self.dense.build(shape)
        self.scale = self.add_weight(shape=(self.units,), initializer="ones", name="scale")

    def call(self, x, training=False):
        return self.scale * keras.ops.sin(self.dense(x)) * (2.0 if training else 1.0)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def custom():
    return chain(keras.Input((6,)), Doubling(5), Doubling(4), layers.Dense(3))


@keras.saving.register_keras_serializable(package="tests")
class Parts(keras.layers.Layer):
    """A layer that returns what is of each sample, of none, of another format, and what has no derivative."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")

    def call(self, x):
        h = keras.ops.matmul(x, self.kernel)
        half = keras.ops.cast(h[:, :2], "float16")
        mean, among = keras.ops.mean(h**2), keras.ops.mean(h, axis=0)
        parts = {"h": h, "half": half, "mean": mean, "among": among, "most": keras.ops.argmax(h, axis=-1)}
        return {**parts, "kernel": 2.0 * self.kernel}


def several_parts():
    inputs = keras.Input((6,))
    parts = Parts()(inputs)
    x = keras.ops.matmul(parts["h"] * parts["mean"] + parts["among"], parts["kernel"])
    x = x + keras.ops.cast(parts["half"][:, :1], x.dtype)
    return keras.Model(inputs, layers.Dense(3)(x))


def quantized():
    model = chain(keras.Input((6,)), layers.Dense(5, "relu"), layers.Dense(4), layers.Dense(3))
    for layer in model.layers[:2]:
        layer.quantize("int8")
    model.layers[0].enable_lora(2)
    return model


def small_residual_network():
    return zoo.residual_network((8, 8, 1), 3, blocks=1, filters=4, scale=1)


def small_vision_transformer():
    return zoo.vision_transformer((8, 8, 1), 3, patch=4, width=8, heads=2, blocks=1, scale=1)


def small_token_classifier():
    return zoo.token_classifier(6, 12, 3, width=8, heads=2, blocks=1)


def adapted():
    """Adapters that count by another factor than their rank."""
    inputs = keras.Input((5,), dtype="int32")
    tokens = layers.Embedding(12, 4)(inputs)
    hidden = layers.EinsumDense("btc,cd->btd", (5, 6), activation="tanh")(tokens)
    hidden = layers.Conv1D(6, 3, activation="relu")(hidden)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(hidden)))
    random = np.random.default_rng(0)
    for layer in model.layers:
        if hasattr(layer, "enable_lora"):
            layer.enable_lora(2, lora_alpha=7)
            for weight in layer.trainable_weights:
                weight.assign(random.normal(size=weight.shape))
    return model


MODELS = {
    model.__name__: model
    for model in (
        residual,
        separable,
        masked_convolution,
        recurrent,
        bidirectional,
        attention,
        shared_tower,
        nested,
        transposed,
        two_outputs,
        probabilities,
        spectral,
        per_time_step,
        volumes,
        convolutional_lstm,
        grouped_attention,
        custom,
        several_parts,
        quantized,
        adapted,
        small_residual_network,
        small_vision_transformer,
        small_token_classifier,
    )
}


def data(model, samples=8):
    """A batch for such a model: inputs in its structure, integer labels of each output."""
    random = np.random.default_rng(0)

    def drawn(tensor):
        shape = (samples, *tensor.shape[1:])
        first = model.layers[:2]
        tokens = tensor.dtype == "int32" or any(isinstance(part, layers.Embedding) for part in first)
        return random.integers(0, 12, shape) if tokens else random.normal(size=shape).astype(tensor.dtype)

    structure = model.inputs[0] if len(model.inputs) == 1 else model.input
    labels = [random.integers(0, tensor.shape[-1], samples) for tensor in model.outputs]
    return keras.tree.map_structure(drawn, structure), labels if len(labels) > 1 else labels[0]


def loss(model):
    """Cross-entropy of each output, of logits or of probabilities as they are."""
    ends = model.layers[-len(model.outputs) :]
    probable = [
        getattr(end, "activation", None) is keras.activations.softmax or isinstance(end, layers.Softmax)
        for end in ends
    ]
    losses = [keras.losses.SparseCategoricalCrossentropy(from_logits=not known) for known in probable]
    return losses if len(losses) > 1 else losses[0]
