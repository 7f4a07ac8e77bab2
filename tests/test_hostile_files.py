"""Broken and hostile files, and arguments at random: a clear error, or the right answer."""

import json
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import translation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workflows import build, compiled, data, graph, sequential

import keras_gevb
from keras_gevb import layers

MAJOR, MINOR = (int(number) for number in keras_gevb.__version__.split(".")[:2])
# Versions whose files this one cannot know.
NEWER = {
    "minor": f"{MAJOR}.{MINOR + 1}.0",
    "tenth-minor": f"{MAJOR}.{MINOR + 10}.0",  # as numbers, not as words
    "major": f"{MAJOR + 1}.0.0",
    "far": "99.0.0",
}

# What Keras and zipfile raise for a file that is not what it should be.
REFUSED = (ValueError, TypeError, OSError, KeyError, zipfile.BadZipFile)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    keras.utils.set_random_seed(1)
    model = compiled(graph("backprop"))
    model.train_on_batch(*data())
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    return path


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(share, saved, tmp_path):
    content = saved.read_bytes()
    path = tmp_path / "truncated.keras"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(REFUSED):
        keras.models.load_model(path)


@pytest.mark.parametrize("seed", range(8))
def test_a_file_with_altered_bytes_is_refused_or_still_the_model(seed, saved, tmp_path):
    rng = np.random.default_rng(seed)
    content = bytearray(saved.read_bytes())
    for place in rng.integers(0, len(content), 20):
        content[place] ^= int(rng.integers(1, 256))
    path = tmp_path / "altered.keras"
    path.write_bytes(content)
    try:
        loaded = keras.models.load_model(path)
    except (*REFUSED, NotImplementedError, EOFError):
        return
    x, _ = data(3)
    original = keras.models.load_model(saved)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), original.predict(x, verbose=0))


def rewritten(source, target, config=None, weights=None):
    """The file with its config or its weights changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json" and config is not None:
                tree = json.loads(content)
                config(tree)
                content = json.dumps(tree).encode()
            new.writestr(name, content)
    if weights is not None:
        folder = target.with_suffix("")
        with zipfile.ZipFile(target) as archive:
            archive.extractall(folder)
        with h5py.File(folder / "model.weights.h5", "r+") as file:
            weights(file)
        target.unlink()
        shutil.make_archive(str(folder), "zip", folder)
        folder.with_suffix(".zip").rename(target)
    return target


def layer_config(tree, name):
    return next(layer for layer in tree["config"]["layers"] if layer["config"]["name"] == name)["config"]


def in_layer(name, **entries):
    return lambda tree: layer_config(tree, name).update(entries)


def in_model(**entries):
    return lambda tree: tree["config"].update(entries)


CANARY = {"module": "os", "class_name": "function", "config": "system", "registered_name": "function"}
LAMBDA = {
    "class_name": "__lambda__",
    "config": {"value": ["4wEAAAAAAAAAAA==", None, None]},
    "module": "builtins",
    "registered_name": None,
}

# name: (change of the config, what the error says)
CONFIGS = {
    "units-negative": (in_layer("hidden", units=-3), "units must be a positive integer.*Received: -3"),
    "units-word": (in_layer("hidden", units="many"), "units must be a positive integer.*Received: 'many'"),
    "units-fraction": (in_layer("hidden", units=2.5), "units must be a positive integer"),
    "units-none": (in_layer("hidden", units=None), "units must be a positive integer"),
    "filters-list": (in_layer("stem", filters=[1]), "must be a positive integer"),
    "vector-dim-zero": (in_layer("stem", vector_dim=0), "vector_dim must be a positive integer"),
    "window-word": (in_layer("stem", kernel_size="wide"), "kernel_size must be"),
    "window-triple": (in_layer("stem", kernel_size=[3, 3, 3]), "kernel_size must be"),
    "strides-zero": (in_layer("stem", strides=[0, 1]), "strides must be"),
    "padding-word": (in_layer("stem", padding="mirror"), "padding must be"),
    "initializer-unknown": (in_layer("hidden", kernel_initializer="exec"), "exec"),
    "initializer-of-os": (in_layer("hidden", kernel_initializer=CANARY), "system|[Cc]ould not"),
    "constraint-lambda": (in_layer("hidden", kernel_constraint=LAMBDA), "lambda|[Cc]ould not"),
    "rule-unknown": (in_model(learning_rule="hebb"), "Unknown learning rule.*Received: 'hebb'"),
    "rule-number": (in_model(learning_rule=3), "Unknown learning rule.*Received: 3"),
    "rule-missing": (
        lambda tree: tree["config"].pop("learning_rule"),
        "Unknown learning rule.*Received: None",
    ),
    "rule-of-os": (in_model(learning_rule=CANARY), "[Cc]ould not|Unknown learning rule"),
    "rule-is-a-layer": (
        in_model(learning_rule={"module": "keras.layers", "class_name": "ReLU", "config": {}}),
        "Unknown learning rule",
    ),
    **{
        f"newer-{name}": (in_model(keras_gevb_version=version), f"keras_gevb_version='{version}'")
        for name, version in NEWER.items()
    },
    "version-word": (in_model(keras_gevb_version="newest"), "keras_gevb_version='newest'"),
    "version-number": (in_model(keras_gevb_version=7), "keras_gevb_version=7"),
}


@pytest.mark.parametrize(
    "version", [f"{MAJOR}.{MINOR}.99", f"{MAJOR}.{MINOR}.0", "0.0.1", keras_gevb.__version__]
)
def test_files_of_older_versions_and_of_other_patches_are_read(version, saved, tmp_path):
    path = rewritten(saved, tmp_path / "changed.keras", config=in_model(keras_gevb_version=version))
    x, _ = data(2)
    expected = keras.models.load_model(saved).predict(x, verbose=0)
    np.testing.assert_array_equal(keras.models.load_model(path).predict(x, verbose=0), expected)


@pytest.mark.parametrize(("change", "message"), CONFIGS.values(), ids=CONFIGS)
def test_a_config_with_wrong_entries_is_refused_by_name(change, message, saved, tmp_path):
    path = rewritten(saved, tmp_path / "changed.keras", config=change)
    with pytest.raises((ValueError, TypeError), match=f"(?s){message}"):
        keras.models.load_model(path)


def test_loading_runs_no_code_of_the_file(tmp_path):
    canary = tmp_path / "canary"

    inputs = keras.Input((3,))
    touch = keras.layers.Lambda(
        lambda x, path=str(canary): (open(path, "w").close(), x)[1], output_shape=(3,)
    )
    hidden = layers.VectorDense(4, vector_dim=2)(touch(inputs))
    model = keras_gevb.Model(inputs, layers.VectorReadout()(hidden))
    model.save(tmp_path / "model.keras")
    canary.unlink(missing_ok=True)
    with pytest.raises((ValueError, TypeError), match="safe_mode"):
        keras.models.load_model(tmp_path / "model.keras")
    assert not canary.exists()


def kernel_of(file, layer):
    return file[f"layers/{layer}/vars/0"]


def set_kernel(value):
    def change(file):
        names = [name for name in file["layers"] if name.startswith("vector_dense")]
        kernel = kernel_of(file, names[0])
        kernel[0, 0] = value

    return change


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(value, saved, tmp_path):
    path = rewritten(saved, tmp_path / "changed.keras", weights=set_kernel(value))
    with pytest.raises(ValueError, match=r"'hidden'.*kernel.*not finite.*Received"):
        keras.models.load_model(path)


def test_negative_weights_of_a_nonnegative_layer_are_told_and_clipped_by_the_first_step(saved, tmp_path):
    path = rewritten(saved, tmp_path / "changed.keras", weights=set_kernel(-0.5))
    with pytest.warns(UserWarning, match=r"'hidden' is nonnegative.*Received: a smallest entry of -0\.5"):
        model = keras.models.load_model(path)
    model.train_on_batch(*data())
    assert np.min(model.get_layer("hidden").kernel) >= 0


def test_weights_of_another_shape_are_refused(tmp_path):
    compiled(sequential()).save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(ValueError):  # noqa: PT011 - Keras's own message
        graph().load_weights(tmp_path / "other.weights.h5")


@pytest.mark.parametrize("victim", ["saved_model.pb", "variables/variables.index"])
def test_a_truncated_saved_model_is_refused(victim, tmp_path):
    build("sequential", "gevb").export(tmp_path / "model", verbose=False)
    path = tmp_path / "model" / victim
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises((OSError, tf.errors.OpError)):
        tf.saved_model.load(tmp_path / "model")


# Arguments at random: either the NumPy loops' answer, or a ValueError that names the argument.

sizes = st.integers(1, 6)
windows = st.tuples(st.integers(1, 4), st.integers(1, 4))
arguments = st.fixed_dictionaries(
    {
        "units": st.integers(1, 5),
        "vector_dim": st.integers(1, 3),
        "nonnegative": st.sampled_from([None, True, False]),
        "use_bias": st.booleans(),
        "gated": st.booleans(),
    }
)
windowed = st.fixed_dictionaries(
    {
        "kernel_size": windows,
        "strides": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "padding": st.sampled_from(["valid", "same"]),
    }
)
KINDS = {
    "dense": layers.VectorDense,
    "convolution": layers.VectorConv2D,
    "local": layers.VectorLocallyConnected2D,
}
quick = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def two_layers(kind, extent, channels, first, window):
    """The layer on scalars, the layer on vectors, and a readout."""
    later = {name: first[name] for name in ("nonnegative", "use_bias")}
    shape = (channels,) if kind == "dense" else (*extent, channels)
    settings = {} if kind == "dense" else window
    chain = [keras.Input(shape), KINDS[kind](**named(kind, first), **settings)]
    second = {**later, "units": 2 * first["units"]}
    chain.append(KINDS[kind](**named(kind, second), **({**settings, "strides": 1} if settings else {})))
    if kind != "dense":
        chain.append(layers.VectorFlatten())
    return keras_gevb.Sequential([*chain, layers.VectorReadout(nonnegative=False)])


def named(kind, settings):
    settings = dict(settings)
    if kind != "dense":
        settings["filters"] = settings.pop("units")
    return settings


@pytest.mark.parametrize("kind", KINDS)
@quick
@given(extent=st.tuples(sizes, sizes), channels=sizes, first=arguments, window=windowed)
@pytest.mark.sampled(2)
def test_layers_are_built_or_name_the_argument(kind, extent, channels, first, window):
    try:
        two_layers(kind, extent, channels, first, window)
    except ValueError as error:
        refusal = str(error)
    else:
        return
    assert any(word in refusal for word in ("units", "input channels", "kernel_size")), refusal
    assert "Received" in refusal


@st.composite
def fitting(draw):
    """Arguments that can be: pairs come out even, and windows fit."""
    first = draw(arguments)
    first["units"] *= 2
    channels = draw(sizes)
    if first["nonnegative"]:
        channels *= 2
    extent, window = draw(st.tuples(sizes, sizes)), draw(windowed)
    if window["padding"] == "valid":
        # The second layer's window is the first one's, on what is left of the space.
        strides, size = window["strides"], window["kernel_size"]
        extent = tuple(max(n, k + (k - 1) * s) for n, k, s in zip(extent, size, strides, strict=True))
    return extent, channels, first, window


@pytest.mark.parametrize("kind", KINDS)
@quick
@given(given_arguments=fitting())
def test_layers_compute_what_the_loops_compute(kind, given_arguments):
    model = two_layers(kind, *given_arguments)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.standard_normal(layer.bias.shape))
    x = rng.standard_normal((2, *model.input_shape[1:])).astype("float32")
    _, expected = translation.translate(model, x.astype("float64"))
    np.testing.assert_allclose(model(x), expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))


junk = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 0), st.floats(), st.text(max_size=3), st.lists(st.none())
)


@pytest.mark.parametrize(
    ("layer", "argument"),
    [
        (layers.VectorDense, "units"),
        (layers.Dense, "units"),
        (layers.VectorConv2D, "filters"),
        (layers.VectorConv2D, "kernel_size"),
        (layers.VectorConv2D, "strides"),
        (layers.VectorConv2D, "padding"),
        (layers.VectorConv2D, "vector_dim"),
        (layers.LocallyConnected2D, "kernel_size"),
        (layers.VectorDense, "vector_dim"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
@quick
@given(value=junk)
@pytest.mark.sampled(5)
def test_an_argument_that_makes_no_sense_is_refused_by_name(layer, argument, value):
    sensible = {"units": 2} if "Dense" in layer.__name__ else {"filters": 2, "kernel_size": 1}
    if argument == "vector_dim" and value is None:
        return
    word = "units" if argument == "filters" else argument
    with pytest.raises(ValueError, match=rf"{word}.*Received"):
        layer(**{**sensible, argument: value})


@quick
@given(shape=st.lists(st.integers(1, 4), min_size=0, max_size=5), kind=st.sampled_from(list(KINDS)))
def test_inputs_of_a_wrong_rank_are_refused_with_the_layers_name(shape, kind):
    settings = {"units": 2} if kind == "dense" else {"filters": 2, "kernel_size": 1}
    layer = KINDS[kind](**settings, vector_dim=3, name="the_layer")
    if len(shape) == (1 if kind == "dense" else 3):
        layer(keras.Input(shape))
        return
    with pytest.raises(ValueError, match=r"'the_layer'.*rank|vector_dim"):
        layer(keras.Input(shape))
