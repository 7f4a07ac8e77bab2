"""PyTorch: derivatives of the few functions that need them; all else runs without a graph."""

import keras
import torch

from keras_gevb.backend import defaults
from keras_gevb.backend.defaults import (  # noqa: F401
    add_up,
    apply,
    as_one,
    assign,
    assigned,
    build_now,
    creating_variables,
    dense,
    graph,
    integers,
    is_sparse,
    now,
    of_any_batch,
    replica,
    replicas,
    stand_in,
    stand_ins,
    uncompiled,
    untraced,
    writes_weights,
)


class Moment(defaults.Moment):
    """PyTorch's generators besides: by these Keras draws what is dropped, where no seed is given."""

    def __init__(self):
        super().__init__()
        self._of_torch, self._of_gpus = torch.get_rng_state(), torch.cuda.get_rng_state_all()

    def bring_back(self):
        super().bring_back()
        torch.set_rng_state(self._of_torch)
        torch.cuda.set_rng_state_all(self._of_gpus)


def vjp(function, primals, cotangent):
    """The vector-Jacobian product of `function(*primals)` with `cotangent`, a list."""
    primals = [primal.detach().requires_grad_() for primal in primals]
    with torch.enable_grad():
        outputs = function(*primals)
    return list(torch.autograd.grad(outputs, primals, cotangent, allow_unused=True))


def jvp(function, primals, tangents):
    """The derivative of `function(*primals)` along `tangents`."""
    # The pullback, which is linear, pulled back: functions of `with_pullback` have no other derivative.
    primals = [primal.detach().requires_grad_() for primal in primals]
    with torch.enable_grad():
        outputs = function(*primals)
        cotangent = [torch.zeros_like(output).requires_grad_() for output in outputs]
        pulled = torch.autograd.grad(outputs, primals, cotangent, create_graph=True, allow_unused=True)
    reached = [(s, along) for s, along in zip(pulled, tangents) if s is not None and s.requires_grad]
    signals, along = zip(*reached) if reached else ((), ())
    found = (
        torch.autograd.grad(signals, cotangent, along, allow_unused=True)
        if reached
        else [None] * len(outputs)
    )
    return [torch.zeros_like(o) if f is None else f for f, o in zip(found, outputs)]


def draw(distribution, shape, dtype, seed):
    """Random numbers from a seed of two integers."""
    first, second = (int(part) for part in seed)
    # As Keras has it, whose own seeds are no tensors.
    return getattr(keras.random, distribution)(shape, dtype=dtype, seed=(first + 2**31 * second) % 2**62)


@torch.compiler.disable  # what is compiled has one derivative, taken once
def linearized(function, primals):
    """The tensor that `function(*primals)` returns, what it returns besides, and the pullback."""
    # An optimizer writes into weights; a rule that remembers asks for the pullback of what they were.
    copied = [p.clone() if isinstance(p, torch.nn.Parameter) else p for p in primals]
    primals = [primal.detach().requires_grad_() for primal in copied]
    with torch.enable_grad():
        outputs, rest = function(*primals)

    def pullback(cotangent):
        if not outputs.requires_grad:
            return [None] * len(primals)
        # Within another derivative the pullback has one in the cotangent too.
        settings = {"retain_graph": True, "create_graph": torch.is_grad_enabled(), "allow_unused": True}
        return list(torch.autograd.grad(outputs, primals, cotangent, **settings))

    return outputs.detach(), keras.tree.map_structure(_detached, rest), pullback


def _detached(part):
    return part.detach() if isinstance(part, torch.Tensor) else part


def with_pullback(value, primals, pullback):
    """The value, as a function of the primals whose derivative is the pullback."""

    class Constant(torch.autograd.Function):
        @staticmethod
        def forward(context, *primals):
            return value.clone()

        @staticmethod
        def backward(context, cotangent):
            return tuple(pullback(cotangent))

    return Constant.apply(*primals) if primals else value


def depends(function, primals):
    """For each primal, whether any of the tensors that `function(*primals)` returns depends on it."""
    primals = [primal.detach().requires_grad_() for primal in primals]
    with torch.enable_grad():
        outputs = [output for output in function(*primals) if output.requires_grad]
    if not outputs:
        return [False] * len(primals)
    found = torch.autograd.grad(outputs, primals, [torch.ones_like(o) for o in outputs], allow_unused=True)
    return [gradient is not None for gradient in found]


def loss_gradients(scaled_loss, outputs, variables):
    """The loss, its gradients in the outputs, and in the variables that it reads itself."""
    outputs = [output.detach().requires_grad_() for output in outputs]
    with torch.enable_grad():
        scaled, loss = scaled_loss(*outputs)
        values = [variable.value for variable in variables]
        if not scaled.requires_grad:
            return loss.detach(), [None] * len(outputs), [None] * len(values)
        read = [n for n, value in enumerate(values) if value.requires_grad]
        found = torch.autograd.grad(scaled, [*outputs, *(values[n] for n in read)], allow_unused=True)
    gradients = dict(zip(read, found[len(outputs) :]))
    return loss.detach(), found[: len(outputs)], [gradients.get(n) for n in range(len(values))]


def check_labels(labels, valid, message):
    """The labels; raises if one is not valid, with `message` and the first bad one."""
    if not valid.all():
        raise ValueError(f"{message}{labels[~valid][0].item()}")
    return labels


def fusing():
    """Whether XLA compiles what is traced now, so that elementwise operations fuse."""
    return False


def after(tensors, others):
    """The tensors, none of which is computed before the others are: so it is, line by line."""
    return tensors


def accelerator():
    """What computes, where it is no CPU."""
    if not torch.cuda.is_available():
        return {}
    exact = torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.allow_tf32
    return {"device": torch.cuda.get_device_name(), "products": "float32" if exact else "tensorfloat32"}


class StepMixin:
    """The step of Keras's PyTorch trainer, with a learning rule's updates."""

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with torch.no_grad():
            self._prepare(x)
            y = self._check_labels(x, y)
            loss, outputs = self._learn(x, y, sample_weight)
            return self._log(loss, outputs, x, y, sample_weight)
