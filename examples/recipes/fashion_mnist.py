"""Fashion-MNIST by a fully connected network: images shifted and mirrored, a rate that falls to 0."""

import recipe

RECIPE = recipe.Recipe("fashion_mnist", [("dense", 1024), ("dense", 512)], shift=1, flip=True)

if __name__ == "__main__":
    recipe.main(RECIPE, __doc__, "fashion_mnist")
