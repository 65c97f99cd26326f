"""Spectral decoupling on two examples that can be solved in closed form, and on two moons with a gap between them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key, require
from ...regulate import spectral_decoupling
from .._contrast import Contrast
from .._problems._training import trained
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
    """Strengthen one of two features eightfold, and close the gap between two moons after training.

    Args:
        key: of all randomness.
        full: four times the seeds and twice the steps. The paper's images of digits and faces are not used.

    Returns:
        Two checks.
    """
    seeds, steps = (16, 3000) if full else (4, 1500)
    ours, decayed, closed = (np.asarray(x) for x in _responses(jnp.array([1.0, 2.0, 4.0, 8.0])))
    moved = {
        "spectral decoupling": np.abs(ours / closed - 1).max(),
        "weight decay of the same strength": 1 - decayed[-1] / decayed[0],
    }
    names = "spectral decoupling", "no regularisation", "weight decay"
    return [
        Check(
            "Strengthening one feature does not lower the response to the other, which has a closed form.",
            "proved (theorem on starvation, and its removal by spectral decoupling)",
            contrasts=Contrast("largest relative change of the response", moved, "lower", threshold=0.01),
        ),
        Check(
            "Both features of the moons are learnt, position and shape, where position alone would do for training.",
            "shown (first figure)",
            contrasts=Contrast(
                "accuracy when the gap is closed, %",
                dict(zip(names, 100 * _moons(key, seeds, steps))),
                "higher",
                threshold=98.0,
            ),
        ),
    ]


@jax.jit
def _responses(strengths: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, ""]]:
    """Response to the weak feature under either penalty, by strength of the strong one, and in closed form."""
    penalty, angle = 0.1, 0.3
    # Two examples, labels included: rows of U S, and margins U z of responses z = S w to the features.
    mixing = jnp.array([[jnp.cos(angle), jnp.sin(angle)], [jnp.cos(angle + 0.9), jnp.sin(angle + 0.9)]])

    def solve(strength: Array) -> tuple[Array, Array]:
        data = mixing * jnp.stack([strength, jnp.ones(())])[None]
        regulator = spectral_decoupling(lambda w, rows: rows @ w, penalty)

        def plain(w: Array) -> Array:
            return jax.grad(lambda w: jnp.mean(jax.nn.softplus(-(data @ w))))(w)

        ends = (
            _root(lambda w: regulator.update(plain(w), regulator.init(w), w, inputs=data)[0], jnp.zeros(2)),
            _root(lambda w: plain(w) + penalty * w, jnp.zeros(2)),
        )
        return tuple(jnp.linalg.solve(mixing, data @ w)[1] for w in ends)

    margin = _root(lambda m: penalty * m - jax.nn.sigmoid(-m), jnp.zeros(1))
    return *jax.vmap(solve)(strengths), jnp.linalg.solve(mixing, jnp.repeat(margin, 2))[1]


def _root(slope: Callable[[Array], Array], start: Float[Array, " n"]) -> Float[Array, " n"]:
    """By Newton's method: optima are wanted to rounding, not what training comes to."""
    return jax.lax.fori_loop(0, 20, lambda _, w: w - jnp.linalg.solve(jax.jacfwd(slope)(w), slope(w)), start)


def _moons(key: Key, seeds: int, steps: int) -> Float[Array, "methods seeds"]:
    """Accuracy on moons without a gap, trained with one: spectral decoupling, plain, weight decay."""
    draw = require("sklearn.datasets", extra="app").make_moons

    def moons(seed: int, gap: float) -> tuple[np.ndarray, np.ndarray]:
        points, classes = draw(300, noise=0.05, random_state=int(seed))
        signs = 1.0 - 2 * classes
        points = points - np.array([0.5, 0.25]) + np.stack([np.zeros(300), gap * signs], 1)
        return points.astype(np.float32), signs.astype(np.float32)

    draws = np.asarray(jax.random.randint(key, (seeds, 2), 0, 2**30))
    train, test = (
        [np.stack(part) for part in zip(*(moons(s, gap) for s in draws[:, i]))] for i, gap in ((0, _GAP), (1, 0))
    )

    def fit(key: Key, train: list[Array], test: list[Array], strength: Array, decay: Array) -> Float[Array, ""]:
        first, last = jax.random.split(key)
        params, _ = trained(
            lambda params, batch: jnp.mean(jax.nn.softplus(-batch[1] * _network(params, batch[0]))),
            [
                jax.random.normal(first, (2, _HIDDEN)),
                jnp.zeros(_HIDDEN),
                jax.random.normal(last, (_HIDDEN,)) / _HIDDEN**0.5,
            ],
            optax.chain(spectral_decoupling(_network, strength), optax.add_decayed_weights(decay), optax.adam(_RATE)),
            lambda step, key: train,
            steps,
            key=key,
            extra=lambda params, batch, grads: {"inputs": batch[0]},
        )
        return jnp.mean((test[1] * _network(params, test[0]) > 0).astype(jnp.float32))

    over_seeds = jax.vmap(fit, (0, 0, 0, None, None))
    run = jax.jit(jax.vmap(over_seeds, (None, None, None, 0, 0)))
    settings = jnp.array([[_STRENGTH, 0.0, 0.0], [0.0, 0.0, _DECAY]])
    return run(jax.random.split(key, seeds), train, test, *settings)


def _network(params: PyTree, x: Float[Array, "points 2"]) -> Float[Array, " points"]:
    return jax.nn.relu(x @ params[0] + params[1][None]) @ params[2]
