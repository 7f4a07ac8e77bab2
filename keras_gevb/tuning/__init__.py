"""Search for learning rates, widths and more with keras-tuner."""

from keras_gevb.tuning.compare import compare_rules
from keras_gevb.tuning.hypermodel import VNNHyperModel
from keras_gevb.tuning.parameters import count_parameters
from keras_gevb.tuning.tuners import TUNERS, BayesianOptimization, GridSearch, Hyperband, RandomSearch

__all__ = [
    "TUNERS",
    "BayesianOptimization",
    "GridSearch",
    "Hyperband",
    "RandomSearch",
    "VNNHyperModel",
    "compare_rules",
    "count_parameters",
]
