"""JAX: the vector network and Adam as functions, `jax.grad`, one `jax.jit` around the step."""

import jax
import jax.numpy as jnp


def build(weights, rate):
    gates = [jnp.asarray(gates) for _, gates in weights[:2]]
    parameters = {f"w{i}": jnp.asarray(kernel) for i, (kernel, _) in enumerate(weights)}
    parameters |= {"b0": jnp.zeros((10, 1024)), "b1": jnp.zeros((10, 512)), "b2": jnp.zeros((10, 1))}

    def gated(h, gates):
        return h * (jnp.sum(gates * h, axis=1, keepdims=True) >= 0)

    def loss_of(p, x, y):
        x = x.astype("float32") / 127.5 - 1
        a = gated(jnp.einsum("bj,jki->bki", x, p["w0"]) + p["b0"], gates[0])
        a = gated(a @ p["w1"] + p["b1"], gates[1])
        logits = (a @ p["w2"] + p["b2"])[..., 0]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1))

    def step(state, x, y):
        p, m, v, t = state
        loss, g = jax.value_and_grad(loss_of)(p, x, y)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        scale = rate * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        p = jax.tree.map(lambda p, m, v: p - scale * m / (jnp.sqrt(v) + 1e-7), p, m, v)
        p |= {name: jnp.maximum(p[name], 0) for name in ("w1", "w2")}
        return (p, m, v, t + 1), loss

    step = jax.jit(step, donate_argnums=0)
    zeros = [jax.tree.map(jnp.zeros_like, parameters) for _ in range(2)]
    state = parameters, *zeros, 1.0

    def train(x, y, batch):
        nonlocal state
        losses = []
        for i in range(0, len(x), batch):
            state, loss = step(state, x[i : i + batch], y[i : i + batch])
            losses.append(loss)
        return float(sum(losses)) / len(losses)

    return train
