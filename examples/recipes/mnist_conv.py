"""MNIST by the paper's convolutional network: images shifted and turned, a rate that falls to 0."""

import recipe

NETWORK = [
    ("conv", 64, 3, 1, "same"),
    ("pool", 2),
    ("conv", 32, 3, 1, "same"),
    ("pool", 2),
    ("dense", 1024),
]
RECIPE = recipe.Recipe("mnist", NETWORK, epochs=10, learning_rate=0.016, shift=2, rotation=8)

if __name__ == "__main__":
    recipe.main(RECIPE, __doc__, "mnist_conv")
