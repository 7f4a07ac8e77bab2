"""Text classification: sentences in, the text's words and pairs of words counted inside the model.

`TextVectorization` is a layer of the model, so the file and the SavedModel take plain sentences. The
sentences are made up: remarks on food, on rooms or on travel, some of them turned round by a "not".
"""

import argparse
import pathlib

import keras
import numpy as np
import tensorflow as tf

import keras_gevb
from keras_gevb import layers

OPINIONS = ["complaint", "praise"]
THINGS = ["soup", "bread", "coffee", "room", "bed", "shower", "bus", "train", "breakfast", "view", "staff"]
GOOD = ["good", "lovely", "warm", "clean", "friendly", "fresh"]
BAD = ["bad", "awful", "cold", "dirty", "rude", "stale"]


def data(samples=1500, seed=0):
    """Sentences, an array of text, and their opinions: (training, test)."""
    rng = np.random.default_rng(seed)
    sentences, opinions = [], []
    for _ in range(samples):
        praise, negated = rng.integers(0, 2, 2)
        word = rng.choice(GOOD if praise != negated else BAD)
        denied = " not" if negated else ""
        filler = rng.choice(["really", "today", "again", "as we said", "to be honest"])
        sentences.append(f"The {rng.choice(THINGS)} was{denied} {word}, {filler}!")
        opinions.append(praise)
    x, y = tf.constant(sentences), np.array(opinions)
    return (x[:1200], y[:1200]), (x[1200:], y[1200:])


def build(sentences):
    words = keras.layers.TextVectorization(max_tokens=500, ngrams=2, output_mode="multi_hot")
    words.adapt(sentences)
    return keras_gevb.Sequential(
        [
            keras.Input((), dtype="string"),
            words,
            layers.VectorDense(32, vector_dim=len(OPINIONS)),
            layers.VectorDense(16),
            layers.VectorReadout(),
        ],
        learning_rule="gevb",
    )


def main(out="runs/workflows/text_classification", epochs=5):
    keras.utils.set_random_seed(0)
    (x, y), (x_test, y_test) = data()
    model = build(x)
    model.compile(
        keras.optimizers.Adam(2e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x, y, batch_size=32, epochs=epochs, validation_data=(x_test, y_test), verbose=0)
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f"test accuracy {accuracy:.3f}")
    for sentence in ("The view was lovely.", "The soup was not warm, really."):
        logits = model.predict(tf.constant([sentence]), verbose=0)
        print(f"{sentence!r}: {OPINIONS[np.argmax(logits)]}")

    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    model.save(out / "model.keras")
    model.export(out / "saved_model", verbose=False)
    return model, accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", default="runs/workflows/text_classification", help="folder for what is saved"
    )
    parser.add_argument("--epochs", type=int, default=5)
    main(**vars(parser.parse_args()))
