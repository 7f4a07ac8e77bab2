"""Losses, weights, regularizers, optimizers, frozen layers, metrics and callbacks of Keras.

Where an equality is claimed, it is with Keras's own step: automatic differentiation of a stock model
with the same layers and weights.
"""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf
from workflows import (
    CLASSES,
    IMAGE,
    assert_same_weights,
    chain,
    compiled,
    conventional,
    data,
    graph,
    sequential,
    twin,
)

import keras_gevb
from keras_gevb import layers

onehot = np.eye(CLASSES, dtype="float32")


def pairwise(y_true, y_pred):
    """A loss of our own, which mixes the outputs."""
    differences = y_pred[:, :, None] - y_pred[:, None, :] - (y_true[:, :, None] - y_true[:, None, :])
    return keras.ops.mean(keras.ops.log(keras.ops.cosh(differences)), axis=(1, 2))


def labels(samples):
    return data(samples)[1]


def many_labels(samples):
    return np.random.default_rng(1).integers(0, 2, (samples, CLASSES)).astype("float32")


def numbers(samples):
    return np.random.default_rng(1).standard_normal((samples, CLASSES)).astype("float32")


def one_of_many(samples):
    return onehot[labels(samples)]


# name: (loss, targets)
losses = keras.losses
LOSSES = {
    "softmax": (losses.SparseCategoricalCrossentropy(from_logits=True), labels),
    "softmax-sum": (losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"), labels),
    "ignored-class": (losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0), labels),
    "label-smoothing": (losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2), one_of_many),
    "focal": (losses.CategoricalFocalCrossentropy(from_logits=True), one_of_many),
    "multi-label": (losses.BinaryCrossentropy(from_logits=True), many_labels),
    "multi-label-smoothing": (losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1), many_labels),
    "mean-squared-error": (losses.MeanSquaredError(), numbers),
    "mse-by-name": ("mse", numbers),
    "huber": (losses.Huber(), numbers),
    "hinge": (losses.CategoricalHinge(), one_of_many),
    "custom": (pairwise, numbers),
}
loss_rows = pytest.mark.parametrize(("loss", "targets"), LOSSES.values(), ids=LOSSES)


def autodiff(model, x, y, sample_weight=None):
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True), sample_weight, training=True)
    return tape.gradient(loss, model.trainable_variables)


def assert_all_close(updates, expected, rtol=1e-5):
    for update, exact in zip(updates, expected, strict=True):
        exact = np.asarray(exact)
        np.testing.assert_allclose(update, exact, rtol=0, atol=rtol * max(np.abs(exact).max(), 1e-3))


@loss_rows
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("make", [sequential, conventional], ids=["vectorized", "conventional"])
def test_backprop_of_every_loss_is_automatic_differentiation(loss, targets, weighted, make):
    model = compiled(make("backprop"), loss=loss)
    x, y = data(10)[0].astype("float32"), targets(10)
    sample_weight = np.linspace(0, 2, 10, dtype="float32") if weighted else None
    # Different order of the same sums in float32.
    assert_all_close(model.compute_updates(x, y, sample_weight), autodiff(model, x, y, sample_weight))


@loss_rows
def test_gevb_broadcasts_the_derivative_of_every_loss(loss, targets):
    """The readout's bias update is the sum of the error vectors, by finite differences of the loss."""
    model = compiled(sequential(), loss=loss)
    x, y = data(6)[0].astype("float32"), targets(6)
    bias = model.layers[-1].bias
    update = np.asarray(model.compute_updates(x, y)[-1])[:, 0]
    width = 1e-2
    for k in range(CLASSES):
        step = np.zeros((CLASSES, 1), "float32")
        step[k] = width
        values = []
        for sign in (1, -1):
            bias.assign_add(sign * step)
            values.append(float(model.compute_loss(x, y, model(x))))
            bias.assign_sub(sign * step)
        slope = (values[0] - values[1]) / (2 * width)
        # Rounding of the loss over the width, and the third derivative times its square.
        np.testing.assert_allclose(update[k], slope, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("make", [sequential, graph])
@pytest.mark.sampled(1)
def test_class_weights_weight_samples_by_their_class(make):
    model, other = compiled(make()), compiled(make())
    other.set_weights(model.get_weights())
    x, y = data(12)
    weights = {0: 0.5, 1: 2.0, 2: 0.0, 3: 1.0}
    model.fit(x, y, batch_size=12, class_weight=weights, verbose=0)
    other.fit(x, y, batch_size=12, sample_weight=np.array([weights[label] for label in y]), verbose=0)
    assert_same_weights(model, other, atol=1e-7)


def test_loss_weights_scale_the_updates():
    model = compiled(sequential())
    x, y = data(12)
    once = [np.asarray(u) for u in model.compute_updates(x, y)]
    compiled(model, loss_weights=[3.0])
    assert_all_close(model.compute_updates(x, y), [3 * u for u in once])


REGULARIZERS = {
    "l2": keras.regularizers.L2(0.1),
    "l1": keras.regularizers.L1(0.1),
    "l1-l2": keras.regularizers.L1L2(0.1, 0.2),
}


@pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=REGULARIZERS)
@pytest.mark.parametrize("rule", ["gevb", "backprop"])
def test_weight_regularizers_add_their_own_gradient(regularizer, rule):
    x, y = data(10)
    plain = compiled(sequential(rule))
    regularized = compiled(sequential(rule, kernel_regularizer=regularizer, bias_regularizer=regularizer))
    rng = np.random.default_rng(0)
    for variable in plain.trainable_variables:
        variable.assign(variable + rng.uniform(0.1, 0.2, variable.shape))
    regularized.set_weights(plain.get_weights())
    with tf.GradientTape() as tape:
        penalty = sum(regularized.losses)
    own = tape.gradient(penalty, regularized.trainable_variables)
    expected = [
        np.asarray(u) + (0 if g is None else np.asarray(g))
        for u, g in zip(plain.compute_updates(x, y), own, strict=True)
    ]
    assert sum(g is not None for g in own) == 4
    assert_all_close(regularized.compute_updates(x, y), expected)


def test_activity_regularizers_are_refused_by_name():
    with pytest.raises(ValueError, match=r"activity regularizer is not local.*Received"):
        layers.VectorDense(4, activity_regularizer="l2")
    inputs, *below, readout = chain()
    model = compiled(
        keras_gevb.Sequential(
            [inputs, keras.layers.ActivityRegularization(0.1, name="penalty"), *below, readout]
        )
    )
    with pytest.raises(ValueError, match=r"'penalty'.*activity regularizer"):
        model.fit(*data(), verbose=0)


schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
optimizers = keras.optimizers
OPTIMIZERS = {
    "adam": lambda: optimizers.Adam(0.01),
    "adamw": lambda: optimizers.AdamW(0.01, weight_decay=0.1),
    "momentum": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda: optimizers.RMSprop(0.01),
    "clip-by-value": lambda: optimizers.SGD(0.1, clipvalue=1e-3),
    "clip-by-norm": lambda: optimizers.SGD(0.1, clipnorm=1e-2),
    "clip-by-global-norm": lambda: optimizers.SGD(0.1, global_clipnorm=1e-2),
    "accumulation": lambda: optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "moving-average": lambda: optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2),
    "schedule": lambda: optimizers.SGD(schedule),
    "loss-scale": lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.1), dynamic_growth_steps=2),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.sampled(2)
def test_backprop_with_every_optimizer_follows_keras(optimizer):
    """Five steps of fit end with the weights of the stock model: clipping, accumulation, averages and all."""
    model = compiled(sequential("backprop"), optimizer(), metrics=["accuracy"])
    stock = compiled(twin(model), optimizer(), metrics=["accuracy"])
    x, y = data(20)
    mine = model.fit(x, y, batch_size=4, shuffle=False, verbose=0).history
    theirs = stock.fit(x, y, batch_size=4, shuffle=False, verbose=0).history
    for variable, other in zip(model.trainable_variables, stock.trainable_variables, strict=True):
        # Averages of weights are constrained too, which Keras leaves out.
        expected = other if other.constraint is None else other.constraint(other)
        # Five float32 steps; Adam divides small numbers by small ones.
        np.testing.assert_allclose(variable, expected, rtol=0, atol=2e-5, err_msg=variable.path)
    for name, values in theirs.items():
        np.testing.assert_allclose(mine[name], values, rtol=1e-5)


LAYERS = {
    "dense": lambda: [keras.layers.Flatten(), layers.VectorDense(6, vector_dim=CLASSES)],
    "local": lambda: [
        layers.VectorLocallyConnected2D(2, 3, strides=3, vector_dim=CLASSES),
        layers.VectorFlatten(),
    ],
}
COMPILED = [
    ("local", "adam"),
    ("local", "clip-by-global-norm"),
    ("local", "accumulation"),
    ("local", "moving-average"),
    ("local", "loss-scale"),
    ("dense", "loss-scale"),
]


@pytest.mark.parametrize(("first", "name"), COMPILED)
@pytest.mark.sampled(1)
def test_a_compiled_step_does_with_an_optimizer_what_an_eager_one_does(first, name):
    """Dense networks are compiled as a whole, others in parts, their optimizer as one."""
    trained = []
    for run_eagerly in (True, False):
        keras.utils.set_random_seed(0)
        hidden = [*LAYERS[first](), layers.VectorDense(4)]
        model = keras_gevb.Sequential([keras.Input(IMAGE), *hidden, layers.VectorReadout()])
        compiled(model, OPTIMIZERS[name](), run_eagerly=run_eagerly)
        x, y = data(20)
        model.fit(x / 255, y, batch_size=4, shuffle=False, verbose=0)
        trained.append(model)
    # Five float32 steps; Adam divides small numbers by small ones.
    assert_same_weights(*trained, atol=2e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.sampled(2)
def test_kernels_stay_nonnegative_under_every_optimizer(optimizer):
    model = compiled(graph(), optimizer())
    model.fit(*data(20), batch_size=4, epochs=2, verbose=0)
    for layer in model.layers:
        if getattr(layer, "constrained", False):
            assert np.min(layer.kernel) >= 0, layer.name


@pytest.mark.parametrize("rule", ["gevb", "backprop", "fa"])
@pytest.mark.sampled(2)
def test_frozen_layers_keep_their_weights_and_the_others_learn_as_before(rule):
    x, y = data(10)
    model = compiled(sequential(rule))
    whole = dict(zip([v.path for v in model.trainable_variables], model.compute_updates(x, y), strict=True))
    frozen = model.get_layer("upper")
    frozen.trainable = False
    compiled(model)
    assert len(model.trainable_variables) == 4
    assert_all_close(model.compute_updates(x, y), [whole[v.path] for v in model.trainable_variables])
    before = frozen.get_weights()
    model.fit(x, y, verbose=0)
    for mine, theirs in zip(frozen.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("make", ["nothing to train", "all frozen"])
def test_a_model_without_trainable_weights_is_fitted_as_keras_does(make):
    def network(chained):
        parts = {
            "nothing to train": [keras.Input(IMAGE), keras.layers.Flatten(), keras.layers.Rescaling(2.0)],
            "all frozen": [keras.Input(IMAGE), keras.layers.Flatten(), keras.layers.Dense(3, "tanh")],
        }[make]
        model = chained(parts)
        model.trainable = False
        model.compile("adam", "mse", run_eagerly=True)
        return model

    x, _ = data(8)
    logs = []
    for chained in (keras.Sequential, keras_gevb.Sequential):
        keras.utils.set_random_seed(0)
        model = network(chained)
        y = np.ones(model.compute_output_shape(x.shape), "float32")
        with pytest.warns(UserWarning, match="does not have any trainable weights"):
            logs.append(model.fit(x, y, verbose=0).history["loss"] + [model.evaluate(x, y, verbose=0)])
    np.testing.assert_allclose(logs[1], logs[0], rtol=1e-6)  # the same sums in another order


def test_labels_are_those_of_the_outputs_that_a_changed_model_has():
    model = keras_gevb.Sequential([keras.Input((4,)), keras.layers.Dense(3)], learning_rule="backprop")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    x = np.ones((5, 4), "float32")
    for classes in (3, 5):
        model.pop()
        model.add(keras.layers.Dense(classes))
        model.compile("adam", loss, run_eagerly=True)
        model.fit(x, np.arange(5) % classes, verbose=0)
        with pytest.raises(Exception, match=f"from 0 to {classes - 1}"):
            model.fit(x, np.arange(5) % classes + 1, verbose=0)


def test_random_layers_between_weight_layers_learn_by_the_gates_they_were_trained_with():
    """Backprop through dropped units equals automatic differentiation with the same mask."""
    *below, readout = chain()
    dropout = keras.layers.SpatialDropout1D(0.5, seed=3)  # of whole units, all components together
    model = keras_gevb.Sequential([*below, dropout, readout], learning_rule="backprop")
    compiled(model)
    x, y = data(10)
    x = x.astype("float32")
    seed = dropout.seed_generator.state
    start = keras.ops.convert_to_numpy(seed).copy()
    updates = model.compute_updates(x, y)
    seed.assign(start)
    exact = autodiff(model, x, y)
    assert_all_close(updates, exact)
    seed.assign(start)
    expected = [v - 0.1 * gradient for v, gradient in zip(model.trainable_variables, exact, strict=True)]
    model.train_on_batch(x, y)
    for variable, value in zip(model.trainable_variables, expected, strict=True):
        value = variable.constraint(value) if variable.constraint else value
        np.testing.assert_allclose(variable, value, rtol=0, atol=1e-6)  # float32, weights of order 1


def test_random_layers_rest_in_evaluation():
    *below, readout = chain()
    model = compiled(keras_gevb.Sequential([*below, keras.layers.SpatialDropout1D(0.5), readout]))
    x, y = data(10)
    likelihood = keras.losses.sparse_categorical_crossentropy(
        y, model.predict(x, verbose=0), from_logits=True
    )
    np.testing.assert_allclose(model.evaluate(x, y, verbose=0), np.mean(likelihood), rtol=1e-5)
    np.testing.assert_allclose(model.test_on_batch(x, y), np.mean(likelihood), rtol=1e-5)


METRICS = {
    "softmax": (LOSSES["softmax"], ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top")]),
    "multi-label": (
        LOSSES["multi-label"],
        [keras.metrics.BinaryAccuracy(threshold=0.0), keras.metrics.AUC(multi_label=True, from_logits=True)],
    ),
    "regression": (LOSSES["mean-squared-error"], ["mae", keras.metrics.R2Score()]),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.sampled(1)
def test_metrics_are_those_of_a_stock_model(name):
    (loss, targets), metrics = METRICS[name]
    model = sequential()
    stock = twin(model)
    x, y = data(20)[0], targets(20)
    results = []
    for each in (model, stock):
        fresh = [m if isinstance(m, str) else type(m).from_config(m.get_config()) for m in metrics]
        compiled(each, keras.optimizers.SGD(0.0), loss=loss, metrics=fresh)
        history = each.fit(x, y, batch_size=8, shuffle=False, verbose=0).history
        results.append(
            ({k: v[0] for k, v in history.items()}, each.evaluate(x, y, verbose=0, return_dict=True))
        )
    for mine, theirs in zip(*results, strict=True):
        assert [k.rstrip("_0123456789") for k in mine] == [k.rstrip("_0123456789") for k in theirs]
        np.testing.assert_allclose(list(mine.values()), list(theirs.values()), rtol=1e-5)


@pytest.mark.parametrize("weighting", ["sample_weight", "class_weight"])
@pytest.mark.parametrize("make", [sequential, conventional], ids=["vectorized", "conventional"])
@pytest.mark.sampled(1)
def test_weighted_metrics_and_losses_are_those_of_a_stock_model(make, weighting):
    """In training, in validation and in evaluation, where the weights are given; plain metrics know none."""
    model = make("backprop")
    stock = twin(model)
    x, y = data(20)
    weights = np.linspace(0, 3, 20, dtype="float32")
    given = {"sample_weight": weights} if weighting == "sample_weight" else {"class_weight": {0: 3.0, 1: 0.0}}
    kinds = keras.metrics.SparseCategoricalAccuracy, keras.metrics.SparseCategoricalCrossentropy
    results = []
    for each in (model, stock):
        weighted = [kinds[0](name="weighted"), kinds[1](name="likelihood", from_logits=True)]
        metrics = {"metrics": [kinds[0](name="plain")], "weighted_metrics": weighted}
        compiled(each, keras.optimizers.SGD(0.0), **metrics)
        history = each.fit(
            x, y, batch_size=8, shuffle=False, validation_data=(x, y, weights), verbose=0, **given
        ).history
        results.append({name: values[0] for name, values in history.items()})
        evaluated = each.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
        results[-1] |= {f"evaluated_{name}": value for name, value in evaluated.items()}
        results[-1]["on_batch"] = each.train_on_batch(x, y, sample_weight=weights, return_dict=True)["loss"]
    mine, theirs = results
    assert list(mine) == list(theirs)
    np.testing.assert_allclose(list(mine.values()), list(theirs.values()), rtol=1e-5)
    assert mine["weighted"] != mine["plain"]


def test_callbacks_see_and_steer_the_fit(tmp_path):
    model = compiled(sequential(), metrics=["accuracy"])
    rates = [0.1, 0.0, 0.0, 0.0, 0.0, 0.0]
    callbacks = [
        keras.callbacks.LearningRateScheduler(lambda epoch: rates[epoch]),
        # At learning rate 0 nothing improves: two epochs of it end the fit.
        keras.callbacks.EarlyStopping("val_loss", patience=2),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.TensorBoard(tmp_path / "board", histogram_freq=1, write_graph=False),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
        keras.callbacks.TerminateOnNaN(),
    ]
    x, y = data(20)
    history = model.fit(
        x, y, epochs=6, batch_size=8, validation_data=data(8, seed=1), callbacks=callbacks, verbose=0
    ).history
    epochs = len(history["loss"])
    assert epochs == 3
    np.testing.assert_allclose(history["learning_rate"], rates[:epochs], rtol=1e-6)
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_allclose([float(row["loss"]) for row in rows], history["loss"], rtol=1e-5)
    assert list((tmp_path / "board" / "train").iterdir())
    assert_same_weights(keras.models.load_model(tmp_path / f"{epochs}.keras"), model, atol=0)


def test_a_rate_that_is_reduced_on_a_plateau_is_that_of_a_stock_model():
    model = sequential("backprop")
    stock = twin(model)
    histories = []
    for each in (model, stock):
        reduce = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e3)
        compiled(each, keras.optimizers.SGD(0.1))
        histories.append(each.fit(*data(), shuffle=False, epochs=4, callbacks=[reduce], verbose=0).history)
    mine, theirs = histories
    # Nothing improves by 1000 but the first epoch on infinity.
    np.testing.assert_allclose(mine["learning_rate"], [0.1, 0.1, 0.05, 0.025], rtol=1e-6)
    for name, values in theirs.items():
        np.testing.assert_allclose(mine[name], values, rtol=1e-5)
    for variable, other in zip(model.trainable_variables, stock.trainable_variables, strict=True):
        np.testing.assert_allclose(variable, other, rtol=0, atol=2e-5)  # four float32 steps


def test_swapped_weights_are_the_averages_of_a_stock_model(tmp_path):
    """On test batches the averages, in training the weights: the checkpoint holds averages."""
    model = sequential("backprop")
    stock = twin(model)
    validations = []
    for number, each in enumerate((model, stock)):
        for variable in each.trainable_variables:
            variable.constraint = None  # averages of weights are constrained too, which Keras leaves out
        compiled(each, keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5))
        callbacks = [
            keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
            keras.callbacks.ModelCheckpoint(tmp_path / f"{number}.weights.h5", save_weights_only=True),
        ]
        history = each.fit(
            *data(), shuffle=False, validation_data=data(8, seed=1), epochs=3, callbacks=callbacks, verbose=0
        ).history
        validations.append(history["val_loss"])
    np.testing.assert_allclose(*validations, rtol=1e-4)
    ends = [[np.asarray(v) for v in each.trainable_variables] for each in (model, stock)]
    for each, number in ((model, 0), (stock, 1)):
        each.load_weights(tmp_path / f"{number}.weights.h5")
    averages = [[np.asarray(v) for v in each.trainable_variables] for each in (model, stock)]
    for found in (ends, averages):
        for mine, theirs in zip(*found, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-5)  # nine float32 steps


def test_a_step_of_a_frozen_network_is_a_step_of_training():
    told = []

    class Told(keras_gevb.Sequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            told.append(training)
            return super().compute_loss(x, y, y_pred, sample_weight, training)

    model = Told([keras.Input((6,)), layers.VectorDense(4, vector_dim=3), layers.VectorReadout()])
    model.trainable = False
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    with pytest.warns(UserWarning, match="trainable"):
        model.train_on_batch(np.ones((4, 6), "float32"), np.arange(4) % 3)
    assert told == [True]
