"""CIFAR-10 by a fully connected network: images shifted and mirrored, a rate that falls to 0."""

import recipe

RECIPE = recipe.Recipe("cifar10", [("dense", 1024), ("dense", 512), ("dense", 512)], shift=2, flip=True)

if __name__ == "__main__":
    recipe.main(RECIPE, __doc__, "cifar10")
