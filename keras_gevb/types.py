"""The types of annotations. Keras has none of its own: what is its stands here as `Any`, in one place."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from keras_gevb.passes import Record as Record
    from keras_gevb.rules.base import LearningRule
    from keras_gevb.step import Step as Step

    Rule: TypeAlias = str | dict[str, Any] | LearningRule
else:  # they import what is annotated by them
    Record = Rule = Step = Any
"""A learning rule where models take one is its name, its config or a `LearningRule`: `Rule`."""

Array: TypeAlias = Any
"""What NumPy makes an array of: arrays, tensors, nested lists. Shapes stand in docstrings."""

Tensor: TypeAlias = Any
"""A tensor of the backend."""

Shape: TypeAlias = tuple[Any, ...]
"""The extents of a tensor, None where they are not known."""

Pairs: TypeAlias = Sequence[tuple[Any, Any]]
"""Variables, each with a value, an update or an initializer."""

Path: TypeAlias = str | os.PathLike[str]
"""The name of a file or a folder."""

Images: TypeAlias = tuple[Array, Array]
"""Images and their labels."""

Progress: TypeAlias = Callable[..., Any]
"""A function that is told how far something is."""
