"""The README's Python runs as it stands, in order."""

import pathlib
import re

README = pathlib.Path(__file__).parent.parent / "README.md"


def test_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) == 5
    names = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)

    # What the text around the blocks claims of them.
    import keras
    import numpy as np

    assert (tmp_path / "digits_savedmodel").is_dir()
    assert keras.models.load_model(tmp_path / "digits.keras").learning_rule.vectorized
    assert len(names["gevb"]) == len(names["exact"]) == len(names["model"].trainable_variables)
    assert min(np.min(share) for share in names["agreement"].values()) == 1.0
    units = names["VectorShift"](6, nonnegative=False)
    inputs = np.random.default_rng(0).normal(size=(2, 3, 6)).astype("float32")
    ours = np.array(units.project(inputs, np.eye(6, dtype="float32") * 2))
    np.testing.assert_array_equal(ours, 2 * inputs)
    noisy, x, y = (names[name] for name in ("noisy", "x", "y"))
    noisy.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert np.isfinite(noisy.fit(x[:64], y[:64], verbose=0).history["loss"][0])
