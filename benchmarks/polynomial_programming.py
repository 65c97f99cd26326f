"""Polynomial programming over 128 binary choices by all estimators through categorical draws, 40 × 200 steps of Adam."""

import functools
from pathlib import Path

import numpy as np

from . import _one_thread

TITLE = "polynomial programming, 128 choices: ReinMax, straight-through, Gumbel softmax"
PEER = "reinmax 0.1.0; PyTorch's gumbel_softmax; straight-through in four lines of PyTorch"
UNIT = "ms of processor time for a step of each of the three, one thread"
TARGET = "10×, losses of p = 2 and 1.5 at the end"
BETTER = "lower"
CHOICES, TARGETED, DRAWS, ROUNDS, STEPS, RATE, TIMED = 128, 0.45, 256, 40, 200, 1e-3, 3
POWERS = (2.0, 1.5)


def _expected(share: np.ndarray, power: float) -> float:
    """The objective where choices are made with these probabilities, without draws."""
    return float(np.mean(share * (1 - TARGETED) ** power + (1 - share) * TARGETED**power))


def _words(found: dict[tuple[str, float], float], power: float) -> str:
    return ", ".join(f"{name} {value:.4f}" for (name, p), value in found.items() if p == power)


def ours(folder: Path) -> dict:
    _one_thread.jax_alone()
    import jax
    import jax.numpy as jnp
    import optax

    from nablax import estimate, follow

    methods = {
        "ReinMax": estimate.reinmax,
        "straight-through": estimate.categorical_straight_through,
        "Gumbel": estimate.gumbel,
    }
    optimizer, early, found, compiling, times = optax.adam(RATE), {}, {}, 0.0, np.zeros(TIMED)
    ends = folder / "ends.npy"
    for name, method in methods.items():
        for power in POWERS[: 1 if ends.exists() else None]:

            def loss(logits, batch, *, key, method=method, power=power):
                drawn = jax.vmap(lambda key: method(logits, key=key))(jax.random.split(key, DRAWS))
                return jnp.mean(jnp.abs(drawn[..., 1] - TARGETED) ** power)

            step = follow.train_step(loss, optimizer)

            @jax.jit
            def train(carry, key, step=step):
                def one(carry, key):
                    *carry, _ = step(*carry, None, key=key)
                    return tuple(carry), None

                return jax.lax.scan(one, carry, jax.random.split(key, STEPS))[0]

            def reached(carry, power=power):
                return _expected(np.asarray(jax.nn.softmax(carry[0])[:, 1], np.float64), power)

            logits, keys = jnp.zeros((CHOICES, 2)), jax.random.split(jax.random.key(0), ROUNDS)
            start, compiled = (logits, optimizer.init(logits)), []
            compiling += sum(
                _one_thread.seconds(lambda: compiled.append(train.lower(start, keys[0]).compile()), 1)  # noqa: B023
            )
            carry = compiled[0](start, keys[0])
            early[name, power] = reached(carry)
            if power == POWERS[0]:
                run = functools.partial(compiled[0], start, keys[0])
                times += _one_thread.seconds(lambda: jax.block_until_ready(run()), TIMED)  # noqa: B023
            if not ends.exists():  # 48,000 steps, which are not repeated in every round
                for key in keys[1:]:
                    carry = compiled[0](carry, key)
                found[name, power] = reached(carry)
    if found:
        np.save(ends, np.array("; ".join(f"p = {power:g}: {_words(found, power)}" for power in POWERS)))
    words = f"after {STEPS} steps, p = 2: {_words(early, 2.0)}; after {ROUNDS * STEPS}, "
    return {"values": [1e3 * min(times) / STEPS], "compile": compiling, "accuracy": words + str(np.load(ends))}


def peer(folder: Path) -> dict:
    _one_thread.torch_alone()
    import torch
    from reinmax import reinmax

    def straight_through(logits):
        # One table of probabilities serves all draws.
        soft = logits.softmax(-1)
        drawn = torch.multinomial(soft.detach(), DRAWS, replacement=True).T
        return torch.nn.functional.one_hot(drawn, 2).to(soft.dtype) + (soft - soft.detach())

    methods = {
        "ReinMax": lambda logits: reinmax(logits.expand(DRAWS, CHOICES, 2).contiguous(), 1.0)[0],
        "straight-through": straight_through,
        "Gumbel": lambda logits: torch.nn.functional.gumbel_softmax(logits.expand(DRAWS, CHOICES, 2), hard=True),
    }

    def train(method, steps):
        logits = torch.zeros(CHOICES, 2, requires_grad=True)
        optimizer = torch.optim.Adam([logits], RATE)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = ((method(logits)[..., 1] - TARGETED) ** 2).mean()
            loss.backward()
            optimizer.step()
        return logits.detach().softmax(-1)[:, 1].numpy()

    early, times, first = {}, np.zeros(TIMED), 0.0
    for name, method in methods.items():
        first += sum(_one_thread.seconds(lambda method=method: train(method, 1), 1))
        ends: list = []
        times += _one_thread.seconds(lambda method=method, ends=ends: ends.append(train(method, STEPS)), TIMED)
        early[name, 2.0] = float(np.mean([_expected(share.astype(np.float64), 2.0) for share in ends]))
    words = f"after {STEPS} steps, p = 2: {_words(early, 2.0)}"
    return {"values": [1e3 * min(times) / STEPS], "compile": first, "accuracy": words}
