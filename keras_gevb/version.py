"""The package's version, and whether a file is of one that this package reads."""

__version__ = "0.2.0"


def check_version(version: str) -> None:
    """Raise if a newer version of the package wrote a file.

    Raises:
        ValueError: naming both versions.
    """
    try:
        newer = _release(version) > _release(__version__)
    except (AttributeError, ValueError):
        newer = True
    if newer:
        raise ValueError(
            f"The model was saved by another version of keras_gevb than this one, {__version__}: install "
            f"that version or a later one. Received: keras_gevb_version={version!r}"
        )


def _release(version):
    """Major and minor version, within which files do not change."""
    return tuple(int(number) for number in version.split(".")[:2])
