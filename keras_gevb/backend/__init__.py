"""The glue to the Keras backend; everything else is `keras.ops`.

A module for each backend keeps this contract:

StepMixin
    The training step as Keras's trainer for the backend wants it: `train_step` calls the model's
    `_prepare`, `_check_labels`, `_learn` and `_log`.
vjp(function, primals, cotangent)
    The vector-Jacobian product of `function(*primals)`, a list; None where the outputs do not
    depend on a primal.
jvp(function, primals, tangents)
    The derivative of `function(*primals)` along `tangents`.
linearized(function, primals)
    Where `function(*primals)` returns a tensor and anything besides: both, and the pullback from a
    cotangent of the tensor to a list, None for primals that it does not depend on.
with_pullback(value, primals, pullback)
    The value, as a function of the primals whose derivative is the pullback.
depends(function, primals)
    For each primal, whether any of the tensors that `function(*primals)` returns depends on it.
loss_gradients(scaled_loss, outputs, variables)
    Where `scaled_loss(*outputs)` returns the loss to differentiate and the one to report: the reported
    loss, a list of dLoss/doutputs, and a gradient (or None) for each variable that the loss reads itself.
    What `scaled_loss` assigns to other variables stays.
apply(optimizer, updates, variables)
    One step of the optimizer, also where variables have values for a while.
assign(pairs)
    Give variables their values, pairs (variable, value): over several replicas the means of theirs.
assigned(value, before=None)
    What a variable that was assigned a value is read as in a derivative, in variables that were `before`.
writes_weights
    Whether a weight that learns keeps what a layer assigns it in a call.
untraced(function)
    The function, or what a function that the backend traces once for all was made of.
graph()
    What tells the function that is being traced now from others, such as the body of a loop in it.
now()
    A scope of computations that happen now, though a step is being traced.
build_now(optimizer, variables)
    Build the optimizer for the variables now, though a step is being traced.
stand_in(tensor, samples=4), stand_ins(variables)
    Numbers of a tensor's shape and dtype, to run a model on; pairs (variable, value) with which
    variables can be read now.
creating_variables(model)
    The scope in which weights of a built model are created.
integers(labels)
    Labels as integers wide enough to compare, where comparing them costs least.
of_any_batch(tensor)
    The tensor, its number of samples as known to what is traced as in Keras's own functions.
check_labels(labels, valid, message)
    The labels; an error with `message` and the first bad one if one is not valid.
dense(tensor)
    The tensor with its zeros, where an update has some rows alone.
is_sparse(tensor), is_numbers(part)
    Whether a tensor keeps its zeros implicit; whether a part of a structure is a tensor with a derivative.
fusing(), uncompiled(), as_one(function)
    Whether XLA compiles what is traced now, so that elementwise operations fuse; a scope of operations
    that are not fused with others; the function, compiled as a whole where only parts of a step are.
add_up(terms)
    The sum of tensors of one shape.
after(tensors, others)
    The tensors, none of which is computed before the others are.
replicas(), replica()
    The number of replicas whose losses add up, and which of them this is, from 0.
Moment()
    What layers draw from now on by other generators than Keras's seeds: `bring_back()` goes on from there,
    `again()` is a scope that does.
draw(distribution, shape, dtype, seed)
    "normal" or "uniform" random numbers, from a seed of two integers that may be tensors.
accelerator()
    The "device" that computes and the format of its "products" of float32, a dict; empty on a CPU.
"""

import importlib

import keras

from keras_gevb.backend import defaults

_glue = importlib.import_module(f"keras_gevb.backend.{keras.backend.backend()}")

Moment = _glue.Moment
StepMixin = _glue.StepMixin
accelerator = _glue.accelerator
add_up = _glue.add_up
after = _glue.after
apply = _glue.apply
assign = _glue.assign
assigned = _glue.assigned
as_one = _glue.as_one
build_now = _glue.build_now
check_labels = _glue.check_labels
creating_variables = _glue.creating_variables
dense = _glue.dense
draw = _glue.draw
depends = _glue.depends
fusing = _glue.fusing
graph = _glue.graph
integers = _glue.integers
is_numbers = defaults.is_numbers
is_sparse = _glue.is_sparse
jvp = _glue.jvp
linearized = _glue.linearized
loss_gradients = _glue.loss_gradients
now = _glue.now
of_any_batch = _glue.of_any_batch
replica = _glue.replica
replicas = _glue.replicas
stand_in = _glue.stand_in
stand_ins = _glue.stand_ins
uncompiled = _glue.uncompiled
untraced = _glue.untraced
vjp = _glue.vjp
with_pullback = _glue.with_pullback
writes_weights = _glue.writes_weights
