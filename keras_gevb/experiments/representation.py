"""What hidden layers make of the classes: t-SNE maps and cluster quality, before and after training."""

import keras
import numpy as np

from keras_gevb.experiments import files
from keras_gevb.passes import Recording

IMAGES = 1000
BATCH = 50
COMPONENTS = 50
ARRAYS = "labels", "map_before", "quality_before", "map_after", "quality_after"


def measure(model, x, y):
    """The last hidden layer's map, and how each hidden layer clusters the classes.

    Args:
        model: A model of weight layers.
        x: Images.
        y: Their labels, `(n,)`.

    Returns:
        `(coordinates, quality)`: t-SNE of the leading principal components of the last hidden
        layer, `(n, 2)`; the cluster quality of each hidden layer, first to last.
    """
    statistics, last = None, []
    for start in range(0, len(x), BATCH):
        activity = _hidden_activity(model, x[start : start + BATCH])
        statistics = statistics or [ClusterQuality(len(np.unique(y))) for _ in activity]
        for layer, one in zip(statistics, activity, strict=True):
            layer.update(one, y[start : start + BATCH])
        last.append(activity[-1])
    return _map(np.concatenate(last)), np.array([layer.result() for layer in statistics])


class ClusterQuality:
    """Within-class over overall RMS distance: 1 for no clusters, 0 for points.

        sqrt( sum |x - mean of its class|^2 / sum |x - mean of all|^2 )

    Adds up batches, so that no layer's activity must stand in memory as a whole.
    """

    def __init__(self, classes):
        self.counts = np.zeros(classes)
        self.sums = 0.0
        self.squares = 0.0

    def update(self, activity, labels):
        """Add a batch, `(n, features)` and `(n,)`."""
        members = np.eye(len(self.counts))[labels]
        self.counts += members.sum(axis=0)
        self.sums = self.sums + members.T @ activity
        self.squares += np.square(activity, dtype="float64").sum()

    def result(self):
        seen = self.counts > 0
        within = self.squares - (np.square(self.sums[seen]).sum(axis=1) / self.counts[seen]).sum()
        overall = self.squares - np.square(self.sums.sum(axis=0)).sum() / self.counts.sum()
        return float(np.sqrt(within / overall))


def write(path, before, after, labels):
    """Write both measurements atomically."""
    arrays = {"labels": labels}
    for when, (coordinates, quality) in (("before", before), ("after", after)):
        arrays |= {f"map_{when}": coordinates.astype("float32"), f"quality_{when}": quality}
    files.write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def read(path):
    """The arrays of `write`, or None where there is no file."""
    if not path.exists():
        return None
    try:
        with np.load(path) as archive:
            return {name: archive[name] for name in ARRAYS}
    except Exception as error:
        raise files.corrupt(path, error, files.WITHOUT) from error


def _hidden_activity(model, x):
    with Recording().in_force() as recording:
        model(keras.ops.convert_to_tensor(x), training=False)
    hidden = [record for record in recording.records if not record.layer.is_readout]
    return [keras.ops.convert_to_numpy(record.outputs).reshape(len(x), -1) for record in hidden]


def _map(activity):
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    components = min(COMPONENTS, *activity.shape)
    leading = PCA(components, random_state=0).fit_transform(activity)
    return TSNE(init="pca", random_state=0).fit_transform(leading)
