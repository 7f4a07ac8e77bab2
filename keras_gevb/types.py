"""The types of annotations. Keras has none of its own: what is its stands here as `Any`, in one place."""

import os
from collections.abc import Callable
from typing import Any, TypeAlias

Array: TypeAlias = Any
"""What NumPy makes an array of: arrays, tensors, nested lists. Shapes stand in docstrings."""

Tensor: TypeAlias = Any
"""A tensor of the backend."""

Path: TypeAlias = str | os.PathLike[str]
"""The name of a file or a folder."""

Images: TypeAlias = tuple[Array, Array]
"""Images and their labels."""

Progress: TypeAlias = Callable[..., Any]
"""A function that is told how far something is."""
