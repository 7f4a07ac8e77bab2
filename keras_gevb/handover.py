"""What stands as a layer's call while passes run."""

import contextlib
import inspect
import threading

from keras_gevb import backend


class _StandIn:
    """What stands as a layer's `call`, also in replicas, each of which is a thread.

    Attributes:
        own: What stood there in the layer's attributes, or None.
        uses: In how many scopes it stands there.
    """

    def __init__(self, function, own):
        self._function, self.own, self.uses = function, own, 0

    def __call__(self, *args, **kwargs):
        return self._function(*args, **kwargs)


_lock = threading.Lock()


def own_call(layer):
    """A layer's own call, whatever stands in for it; of a function that is traced, what it was made of."""
    name = _name(layer)
    call = vars(layer).get(name)
    call = call.own if isinstance(call, _StandIn) else call
    if call is not None:
        return backend.untraced(call)
    call = backend.untraced(inspect.getattr_static(type(layer), name))
    return call.__get__(layer, type(layer))


def is_traced(layer):
    """Whether a layer's call is a function that is traced: it would keep what a pass did the first time."""
    call = (
        getattr(type(layer), _name(layer)) if _name(layer) not in vars(layer) else vars(layer)[_name(layer)]
    )
    return backend.untraced(call) is not call


@contextlib.contextmanager
def standing_in(layer, function):
    """The scope in which a function stands for a layer's call."""
    attributes, name = vars(layer), _name(layer)
    with _lock:
        if not isinstance(attributes.get(name), _StandIn):
            attributes[name] = _StandIn(function, attributes.get(name))
        attributes[name].uses += 1
    try:
        yield
    finally:
        with _lock:
            stand_in = attributes[name]
            stand_in.uses -= 1
            if not stand_in.uses:
                del attributes[name]
                attributes |= {} if stand_in.own is None else {name: stand_in.own}


def _name(layer):
    return "call" if layer.quantization_mode is None else "quantized_call"
