"""How a command ends that does not do what it was asked."""


class WrongUse(Exception):
    """The arguments cannot be used: nothing was done."""


class Failed(Exception):
    """Something went wrong on the way."""
