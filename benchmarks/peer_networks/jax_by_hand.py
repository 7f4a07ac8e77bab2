"""JAX: the vector network, backpropagation by its scalar signal g, Adam, by hand, in one `jax.jit`."""

import jax
import jax.numpy as jnp


def build(weights, rate):
    gates = [jnp.asarray(gates) for _, gates in weights[:2]]
    parameters = {f"w{i}": jnp.asarray(kernel) for i, (kernel, _) in enumerate(weights)}
    parameters |= {"b0": jnp.zeros((10, 1024)), "b1": jnp.zeros((10, 512)), "b2": jnp.zeros((10, 1))}

    def is_open(h, gates):
        return (jnp.sum(gates * h, axis=1) >= 0).astype("float32")

    def gradients(p, x, y):
        x = x.astype("float32") / 127.5 - 1
        h = jnp.einsum("bj,jki->bki", x, p["w0"]) + p["b0"]
        m0 = is_open(h, gates[0])
        a0 = h * m0[:, None]
        h = a0 @ p["w1"] + p["b1"]
        m1 = is_open(h, gates[1])
        a1 = h * m1[:, None]
        logits = (a1 @ p["w2"] + p["b2"])[..., 0]
        log_p = jax.nn.log_softmax(logits)
        labels = jax.nn.one_hot(y, 10)
        e = (jnp.exp(log_p) - labels) / len(y)
        g1 = m1 * p["w2"][:, 0]
        g0 = m0 * (g1 @ p["w1"].T)
        g = {
            "w2": jnp.einsum("bk,bkj->j", e, a1)[:, None],
            "w1": jnp.einsum("bk,bkj->bj", e, a0).T @ g1,
            "w0": jnp.einsum("bj,bki->jki", x, e[:, :, None] * g0[:, None]),
            "b2": e.sum(0)[:, None],
            "b1": e.T @ g1,
            "b0": e.T @ g0,
        }
        return -jnp.mean(jnp.sum(labels * log_p, axis=1)), g

    def step(state, x, y):
        p, m, v, t = state
        loss, g = gradients(p, x, y)
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
