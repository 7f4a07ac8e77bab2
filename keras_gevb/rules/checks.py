"""Arguments of rules that cannot be meant."""

import numbers


def check_rate(rule, name, value, most=None):
    """A rate, as a float.

    Raises:
        ValueError: if it is no number, negative, not finite, or larger than `most`.
    """
    limit = float("inf") if most is None else most
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= limit or value == float("inf"):
        range_ = "a number of at least 0" if most is None else f"a number between 0 and {most}"
        raise ValueError(f"{rule}: {name} must be {range_}. Received: {name}={value!r}")
    return float(value)


def check_count(rule, name, value):
    """A positive integer.

    Raises:
        ValueError: if it is none.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{rule}: {name} must be a positive integer. Received: {name}={value!r}")
    return int(value)
