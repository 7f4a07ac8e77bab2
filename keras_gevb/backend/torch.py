"""PyTorch: derivatives of the few functions that need them; all else runs without a graph."""

import keras
import torch

from keras_gevb.backend.defaults import add_up, as_one, replicas, uncompiled  # noqa: F401


def vjp(function, primals, cotangent):
    """The vector-Jacobian product of `function(*primals)` with `cotangent`, a list."""
    primals = [primal.detach().requires_grad_() for primal in primals]
    with torch.enable_grad():
        outputs = function(*primals)
    return list(torch.autograd.grad(outputs, primals, cotangent, allow_unused=True))


def loss_gradients(scaled_loss, logits, variables):
    """The loss, its gradient in the logits, and in the variables that it reads itself.

    Args, returns: as in `keras_gevb.backend.tensorflow`.
    """
    logits = logits.detach().requires_grad_()
    with torch.enable_grad():
        scaled, loss = scaled_loss(logits)
        values = [variable.value for variable in variables]
        error, *gradients = torch.autograd.grad(scaled, [logits, *values], allow_unused=True)
    return loss.detach(), error, gradients


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
    """The "device" that computes and the format of its "products" of float32; empty on a CPU."""
    if not torch.cuda.is_available():
        return {}
    exact = torch.get_float32_matmul_precision() == "highest"
    return {"device": torch.cuda.get_device_name(), "products": "float32" if exact else "tensorfloat32"}


class StepMixin:
    """The step of Keras's PyTorch trainer, with a learning rule's updates."""

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with torch.no_grad():
            return self._train_on(x, self._check_targets(y), sample_weight)
