"""keras_gevb: layers of this package, one of its rules, `fit`."""

import keras

import keras_gevb
from keras_gevb import layers


def build(weights, rate, rule):
    model = keras_gevb.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            layers.VectorDense(1024, vector_dim=10),
            layers.VectorDense(512),
            layers.VectorReadout(),
        ],
        learning_rule=rule,
    )
    for layer, (kernel, gates) in zip(model.layers[1:], weights):
        layer.kernel.assign(kernel)
        if gates is not None:
            layer.gates.assign(gates)
    model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def train(x, y, batch):
        return model.fit(x, y, batch_size=batch, shuffle=False, verbose=0).history["loss"][0]

    return train
