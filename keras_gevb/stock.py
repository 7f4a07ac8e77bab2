"""Stock Keras models to convert: a residual network, a vision transformer, a classifier of tokens."""

from collections import abc

import keras
from keras import layers

Shape = abc.Sequence[int]


def residual_network(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    blocks: int = 3,
    filters: int = 16,
    scale: float = 255,
) -> keras.Model:
    """A residual network for small images, of stock Keras layers: by default ResNet-20.

    A convolution, then three stages of `blocks` blocks, x + f(x), each with two 3x3 convolutions and batch
    normalization: 6 blocks + 2 layers with weights. From stage to stage half the size, twice the filters; a
    1x1 convolution fits the shortcut there, where the paper pads.

    Args:
        input_shape: `(height, width, channels)`.
        classes: The number of logits.
        blocks: Of each stage.
        filters: Of the first stage.
        scale: The brightest pixel; inputs become [-1, 1].

    Returns:
        A `keras.Model`, from raw pixels to logits.

    Example:

    >>> stock = zoo.residual_network((8, 8, 1), blocks=1, filters=8, scale=16)
    >>> model = keras_gevb.convert(stock, learning_rule="dfa")

    Reference: He et al. 2016, section 4.2.
    """
    inputs = keras.Input(input_shape)
    x = layers.Rescaling(2 / scale, offset=-1)(inputs)
    x = layers.ReLU()(_normalized_convolution(filters)(x))
    for stage in range(3):
        for block in range(blocks):
            strides = 2 if stage and not block else 1
            width = filters * 2**stage
            y = layers.ReLU()(_normalized_convolution(width, strides=strides)(x))
            y = _normalized_convolution(width)(y)
            if strides == 2:
                x = _normalized_convolution(width, 1, strides)(x)
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes)(x), name="residual_network")


def _normalized_convolution(filters, window=3, strides=1):
    convolution = layers.Conv2D(
        filters, window, strides, padding="same", use_bias=False, kernel_initializer="he_normal"
    )
    normalization = layers.BatchNormalization()
    return lambda x: normalization(convolution(x))


def vision_transformer(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    patch: int = 4,
    width: int = 64,
    heads: int = 4,
    blocks: int = 4,
    dropout: float = 0.1,
    scale: float = 255,
) -> keras.Model:
    """A small vision transformer, of stock Keras layers; the mean over patches goes to the logits.

    Args:
        input_shape, classes, scale: As in `residual_network`.
        patch: Side of a patch, which divides the height and the width.
        width: Of a patch's vector; inside a block four times as wide.
        heads: Of the attention, which divide the width.
        blocks: Of attention and two dense layers each.
        dropout: In the attention and behind each part of a block.

    Returns:
        A `keras.Model`, from raw pixels to logits.

    Example:

    >>> stock = zoo.vision_transformer((8, 8, 1), patch=2, width=16, heads=2, blocks=1, scale=16)

    Reference: Dosovitskiy et al. 2021.
    """
    inputs = keras.Input(input_shape)
    x = layers.Rescaling(2 / scale, offset=-1)(inputs)
    x = layers.Conv2D(width, patch, patch)(x)
    x = layers.Reshape((-1, width))(x)
    x = _transformer(layers.Add()([x, _positions(x[:, :, 0], width)]), heads, blocks, dropout)
    return keras.Model(inputs, layers.Dense(classes)(x), name="vision_transformer")


def token_classifier(
    length: int,
    vocabulary: int,
    classes: int,
    width: int = 64,
    heads: int = 4,
    blocks: int = 2,
    dropout: float = 0.1,
) -> keras.Model:
    """A classifier of texts, or of any sequences of tokens: a small transformer of stock Keras layers.

    Args:
        length: Of a sequence.
        vocabulary: The number of tokens.
        classes: The number of logits.
        width, heads, blocks, dropout: As in `vision_transformer`.

    Returns:
        A `keras.Model`, from integer tokens `(batch, length)` to logits.

    Example:

    >>> stock = zoo.token_classifier(64, 17, 10, width=16, heads=2, blocks=1)

    Reference: Vaswani et al. 2017, the encoder.
    """
    inputs = keras.Input((length,), dtype="int32")
    x = layers.Add()([layers.Embedding(vocabulary, width)(inputs), _positions(inputs, width)])
    x = _transformer(x, heads, blocks, dropout)
    return keras.Model(inputs, layers.Dense(classes)(x), name="token_classifier")


def _positions(sequence, width):
    """A learned vector for each place of a sequence, `(batch, length)`."""
    places = keras.ops.cumsum(keras.ops.ones_like(sequence, dtype="int32"), axis=1) - 1
    return layers.Embedding(sequence.shape[1], width)(places)


def _transformer(x, heads, blocks, dropout):
    width = x.shape[-1]
    for _ in range(blocks):
        y = layers.LayerNormalization()(x)
        y = layers.MultiHeadAttention(heads, width // heads, dropout=dropout)(y, y)
        x = layers.Add()([x, layers.Dropout(dropout)(y)])
        y = layers.Dense(4 * width, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dropout(dropout)(layers.Dense(width)(y))])
    return layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
