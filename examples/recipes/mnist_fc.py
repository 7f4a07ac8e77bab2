"""MNIST by a fully connected network: images shifted and turned, a rate that falls to 0."""

import recipe

RECIPE = recipe.Recipe("mnist", [("dense", 1024), ("dense", 512)], shift=1, rotation=5)

if __name__ == "__main__":
    recipe.main(RECIPE, __doc__, "mnist_fc")
