"""The recipes on one GPU under JAX: `examples/recipes/NAME.py`, its epochs compiled loops.

    KERAS_BACKEND=jax python benchmarks/gpu_recipes.py mnist_conv --rule gevb --seeds 0 1 2 --data-dir FOLDER

Options and results are the recipe's. A run that is killed starts anew. Where TensorFlow is not installed,
`gpu.py --make-data` has made the files of data.
"""

import importlib
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "examples" / "recipes"))

import recipe

# isort: split
import keras
import numpy as np
from scanning import Scan


def train(recipe_, run, data, folder):
    """Train one network and measure it, once."""
    training, test = recipe.split(data, run["images"])
    x, y = training
    keras.utils.set_random_seed(run["seed"])
    model = recipe_.build(run["rule"], run["units"], run["width"])
    recipe_.compile(model, len(x))
    scan = Scan(model, x, keras.utils.to_categorical(y, 10), recipe_.batch_size)
    orders = np.random.default_rng(run["seed"])
    losses, seconds = [], []
    for epoch in range(recipe_.epochs):
        start = time.perf_counter()
        losses.append(scan.train(orders.permutation(len(x)))["loss"])
        seconds.append(time.perf_counter() - start)
        print(f"epoch {epoch + 1}: loss {losses[-1]:.4f}, {seconds[-1]:.2f} s", flush=True)
    return recipe.measured(model, training, test, losses, seconds)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    name, *argv = sys.argv[1:]
    script = importlib.import_module(name)
    recipe.main(script.RECIPE, script.__doc__, name, train, argv)
