"""CAGrad's toy problem: two losses of two parameters, three starts, Adam. The peer runs the first 500 steps only, ours 100 000 as well."""

import time
from functools import partial
from pathlib import Path

import numpy as np

TITLE = "CAGrad's two-task toy, three starts"
PEER = "torchjd 0.18.0"
UNIT = "steps/s"
TARGET = "10×"
BETTER = "higher"
STARTS = np.array([[-8.5, 7.5], [-8.5, 5.0], [9.0, 9.0]], np.float32)
STEPS, SHORT, RATE, RADIUS = 100_000, 500, 1e-3, 0.4


def _losses(xp, x, maximum, log, absolute, tanh):
    first, second = x[0], x[1]
    upper = maximum(tanh(0.5 * second), 0.0)
    lower = maximum(tanh(-0.5 * second), 0.0)
    left = log(maximum(absolute(0.5 * (-first - 7) - tanh(-second)), 5e-6)) + 6
    right = log(maximum(absolute(0.5 * (-first + 3) + tanh(-second) + 2), 5e-6)) + 6
    left_bowl = ((-first + 7) ** 2 + 0.1 * (-second - 8) ** 2) / 10 - 20
    right_bowl = ((-first - 7) ** 2 + 0.1 * (-second - 8) ** 2) / 10 - 20
    return xp.stack([left * upper + left_bowl * lower, right * upper + right_bowl * lower])


def _words(name: str, ends: list) -> str:
    return f"{name} " + ", ".join(f"({a:.2f}, {b:.2f})" for a, b in np.asarray(ends))


def ours(folder: Path) -> dict:
    import jax
    import jax.numpy as jnp
    import optax

    from nablax import regulate

    def losses(x):
        return _losses(jnp, x, jnp.maximum, jnp.log, jnp.abs, jnp.tanh)

    gradients = regulate.multi_value_and_grad(losses)
    optimizer = optax.chain(regulate.cagrad(RADIUS), optax.adam(RATE))

    @partial(jax.jit, static_argnums=1)
    def run(start, steps):
        def step(carry, _):
            x, state = carry
            updates, state = optimizer.update(gradients(x)[1], state, x)
            return (optax.apply_updates(x, updates), state), None

        return jax.lax.scan(step, (start, optimizer.init(start)), length=steps)[0][0]

    short = [np.asarray(run(jnp.asarray(start), SHORT)) for start in STARTS]
    begin = time.perf_counter()
    jax.block_until_ready(run(jnp.asarray(STARTS[0]), STEPS))
    first = time.perf_counter() - begin
    rates, ends = [], []
    for start in STARTS:
        begin = time.perf_counter()
        ends.append(np.asarray(run(jnp.asarray(start), STEPS)))
        rates.append(STEPS / (time.perf_counter() - begin))
    words = (
        f"{_words(f'after {SHORT}, where alone the sides are compared,', short)}; {_words('limits, ours only,', ends)}"
    )
    return {"values": rates, "compile": max(first - STEPS / rates[0], 0), "accuracy": words}


def peer(folder: Path) -> dict:
    import torch
    from torchjd.aggregation import CAGrad

    cagrad = CAGrad(RADIUS)

    def maximum(a, b):
        return torch.clamp(a, min=b)

    def run(start, steps):
        x = torch.tensor(start, requires_grad=True)
        optimizer = torch.optim.Adam([x], lr=RATE)
        for _ in range(steps):
            losses = _losses(torch, x, maximum, torch.log, torch.abs, torch.tanh)
            rows = [torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in losses]
            x.grad = cagrad(torch.stack(rows))
            optimizer.step()
        return x.detach().numpy()

    begin = time.perf_counter()
    run(STARTS[0], 1)  # what is set up once is no part of the rate
    first = time.perf_counter() - begin
    rates, ends = [], []
    for start in STARTS:
        begin = time.perf_counter()
        ends.append(run(start, SHORT))
        rates.append(SHORT / (time.perf_counter() - begin))
    return {"values": rates, "compile": first, "accuracy": _words(f"after {SHORT}", ends)}
