"""Spectral decoupling on two examples that can be solved in closed form, and on two moons with a gap between them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key, require
from ...regulate import spectral_decoupling
from .._records import Check, Paper

PAPER = Paper(
    slug="gradient-starvation",
    title="Gradient Starvation: A Learning Proclivity in Neural Networks",
    year=2021,
    link="https://arxiv.org/abs/2011.09468",
    rooms=("regulate",),
    row=232,
    read="text",
)

# Strengths were chosen on other seeds among 1e-3 to 1e-1 (ours) and 1e-4 to 1e-2 (weight decay, and none).
_STRENGTH, _DECAY = 3e-3, 1e-4
_GAP, _HIDDEN, _RATE = 0.35, 100, 1e-2


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Strengthen one of two features, and close the gap between two moons after training.

    Args:
        key: of all randomness.
        full: four times the seeds and twice the steps. The paper's images of digits and faces are not used.

    Returns:
        Two checks.
    """
    seeds, steps = (16, 3000) if full else (4, 1500)
    ours, decayed, closed = (np.asarray(x) for x in _responses(jnp.array([1.0, 2.0, 4.0, 8.0])))
    worst = np.abs(ours - closed).max() / closed
    lost = 1 - decayed[-1] / decayed[0]
    accuracy = 100 * np.asarray(_moons(key, seeds, steps))
    none, decay, decoupled = accuracy.min(0)
    return [
        Check(
            "Strengthening one feature does not lower the response to the other.",
            "proved (theorem on starvation, and its removal by spectral decoupling)",
            f"weak response stays within {100 * worst:.2f} % of its closed form {closed:.3f}, the other's "
            "strength being 1 to 8 times its own",
            "within 1 % at all strengths",
            bool(worst <= 0.01 < lost),
            f"weight decay of the same strength: the response falls by {100 * lost:.0f} %",
        ),
        Check(
            "Both features of the moons are learnt, position and shape, where position alone would do for training.",
            "shown (first figure)",
            f"accuracy when the gap is closed {accuracy[:, 2].mean():.1f} %, worst of {seeds} seeds {decoupled:.1f} %",
            "at least 98 % for every seed",
            bool(decoupled >= 98 > max(none, decay)),
            f"no regularisation {accuracy[:, 0].mean():.1f} %, worst {none:.1f} %; weight decay "
            f"{accuracy[:, 1].mean():.1f} %, worst {decay:.1f} %",
        ),
    ]


@jax.jit
def _responses(strengths: Float[Array, " n"]) -> tuple[Array, Array, Array]:
    """Response to the weak feature under either penalty, by strength of the strong one, and in closed form."""
    penalty, angle = 0.1, 0.3
    # Two examples, labels included: rows of U S, and margins U z of responses z = S w to the features.
    mixing = jnp.array([[jnp.cos(angle), jnp.sin(angle)], [jnp.cos(angle + 0.9), jnp.sin(angle + 0.9)]])

    def solve(strength: Array) -> tuple[Array, Array]:
        data = mixing * jnp.stack([strength, jnp.ones(())])[None]
        regulator = spectral_decoupling(lambda w, rows: rows @ w, penalty)

        def slope(w: Array, decouple: Array) -> Array:
            plain = jax.grad(lambda w: jnp.mean(jax.nn.softplus(-(data @ w))))(w)
            added, _ = regulator.update(plain, regulator.init(w), w, inputs=data)
            return jnp.where(decouple, added, plain + penalty * w)

        def newton(w: Array, decouple: Array) -> Array:
            def step(_: int, w: Array) -> Array:
                return w - jnp.linalg.solve(jax.jacfwd(slope)(w, decouple), slope(w, decouple))

            return jax.lax.fori_loop(0, 20, step, w)

        ends = [newton(jnp.zeros(2), jnp.asarray(decouple)) for decouple in (True, False)]
        weak = [jnp.linalg.solve(mixing, data @ w)[1] for w in ends]
        return weak[0], weak[1]

    def bisect(_: int, bounds: Array) -> Array:
        middle = jnp.mean(bounds)
        low = penalty * middle < jax.nn.sigmoid(-middle)
        return jnp.where(low, jnp.stack([middle, bounds[1]]), jnp.stack([bounds[0], middle]))

    margin = jnp.mean(jax.lax.fori_loop(0, 40, bisect, jnp.array([0.0, 20.0])))
    closed = jnp.linalg.solve(mixing, jnp.full(2, margin))[1]
    ours, decayed = jax.vmap(solve)(strengths)
    return ours, decayed, closed


def _moons(key: Key, seeds: int, steps: int) -> Float[Array, "seeds methods"]:
    """Accuracy on moons without a gap, trained with one: plain, weight decay, spectral decoupling."""
    draw = require("sklearn.datasets", extra="app").make_moons
    starts = np.asarray(jax.random.randint(key, (seeds, 2), 0, 2**30))

    def moons(seed: int, gap: float) -> tuple[np.ndarray, np.ndarray]:
        points, classes = draw(300, noise=0.05, random_state=int(seed))
        signs = 1.0 - 2 * classes
        points = points - np.array([0.5, 0.25]) + np.stack([np.zeros(300), gap * signs], 1)
        return points.astype(np.float32), signs.astype(np.float32)

    sets = [(*moons(a, _GAP), *moons(b, 0.0)) for a, b in starts]
    run = jax.vmap(partial(_fit, steps=steps), in_axes=(None, None, 0, 0))
    settings = jnp.array([0.0, 0.0, _STRENGTH]), jnp.array([0.0, _DECAY, 0.0])
    arrays = [jnp.asarray(np.stack(part)) for part in zip(*sets)]
    return jax.jit(jax.vmap(run, in_axes=(0, 0, None, None)))(jax.random.split(key, seeds), arrays, *settings)


def _network(params: PyTree, x: Array) -> Array:
    return jax.nn.relu(x @ params[0] + params[1][None]) @ params[2]


def _fit(key: Key, data: list[Array], strength: Array, decay: Array, *, steps: int) -> Float[Array, ""]:
    x, y, test_x, test_y = data
    regulator, optimizer = spectral_decoupling(_network, strength), optax.adam(_RATE)
    first, last = jax.random.split(key)
    width = (2, _HIDDEN)
    params = [jax.random.normal(first, width), jnp.zeros(_HIDDEN), jax.random.normal(last, (_HIDDEN,)) / _HIDDEN**0.5]

    def loss(params: PyTree) -> Array:
        return jnp.mean(jax.nn.softplus(-y * _network(params, x))) + decay / 2 * optax.tree.norm(params, squared=True)

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        params, state, inner = carry
        grads, inner = regulator.update(jax.grad(loss)(params), inner, params, inputs=x)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state, inner), None

    (params, _, _), _ = jax.lax.scan(step, (params, optimizer.init(params), regulator.init(params)), None, length=steps)
    return jnp.mean((test_y * _network(params, test_x) > 0).astype(jnp.float32))
