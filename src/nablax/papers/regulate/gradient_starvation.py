"""Spectral decoupling on two examples that can be solved in closed form, and on two moons with a gap between them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...regulate import spectral_decoupling
from .._contrast import Contrast
from .._problems._training import trained
from .._problems._tuning import Run, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="gradient-starvation",
    title="Gradient Starvation: A Learning Proclivity in Neural Networks",
    year=2021,
    link="https://arxiv.org/abs/2011.09468",
    rooms=("regulate",),
    row=232,
    read="code",
)

_RATES = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0)
_STRENGTHS = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
_DECAYS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
# As many settings as the others have, of rates alone.
_PLAIN = tuple(float(f"{rate:.2g}") for rate in np.geomspace(1e-4, 10.0, len(_RATES) * len(_STRENGTHS)))
_GAP, _HIDDEN, _POINTS = 0.35, 100, 300


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Strengthen one of two features eightfold, and close the gap between two moons after training.

    Args:
        key: of all randomness.
        full: twice the seeds and twice the steps. The paper's images of digits and faces are not used.

    Returns:
        Two checks.
    """
    seeds, steps = (14, 3000) if full else (7, 1500)
    ours, decayed, closed = (np.asarray(x) for x in _responses(jnp.array([1.0, 2.0, 4.0, 8.0])))
    moved = {
        "spectral decoupling": np.abs(ours / closed - 1).max(),
        "weight decay, as strong a response to equal features": np.abs(decayed / closed - 1).max(),
    }
    methods = {
        "spectral decoupling": lambda at: optax.chain(spectral_decoupling(_network, at[0]), optax.adam(at[1])),
        "weight decay": lambda at: optax.chain(optax.add_decayed_weights(at[0]), optax.adam(at[1])),
        "no regularisation": optax.adam,
    }
    grids = ((_STRENGTHS, _RATES), (_DECAYS, _RATES), _PLAIN)
    moons = tuned(
        {name: _run(regularised, steps) for name, regularised in methods.items()},
        dict(zip(methods, grids)),
        "higher",
        key=key,
        keys=seeds,
        ends={
            _DECAYS[0]: "less decay is none, which stands beside it",
            _RATES[-1]: "Adam's first step outweighs all that was drawn: a larger one scales the same network up",
        },
    )
    return [
        Check(
            "Strengthening one feature does not lower the response to the other, which has a closed form.",
            "proved (theorem on starvation, and its removal by spectral decoupling)",
            contrasts=Contrast("largest relative change of the response", moved, "lower", threshold=0.01),
            moved_from="the same against weight decay of the same strength, which responds less from the start",
        ),
        Check(
            "Both features of the moons are learnt, position and shape, where position alone would do for training.",
            "shown (first figure)",
            contrasts=moons.contrast("accuracy when the gap is closed, %", "higher", threshold=98.0),
            moved_from="the same with strengths chosen by hand, on other grids for each method, and no rate tuned; "
            "then with strengths tuned at one rate, 0.01; then rates up to 0.1, to 1, and to 10 with that end refused, "
            "where weight decay was best",
        ),
    ]


@jax.jit
def _responses(strengths: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, ""]]:
    """Response to the weak feature under either penalty, by strength of the strong one, and in closed form."""
    penalty, angle = 0.1, 0.3
    # Two examples, labels included: rows of U S, and margins U z of responses z = S w to the features.
    mixing = jnp.array([[jnp.cos(angle), jnp.sin(angle)], [jnp.cos(angle + 0.9), jnp.sin(angle + 0.9)]])

    def plain(w: Array, strength: Array) -> Array:
        data = mixing * jnp.stack([strength, jnp.ones(())])[None]
        return jax.grad(lambda w: jnp.mean(jax.nn.softplus(-(data @ w))))(w)

    def decoupled(strength: Array) -> Array:
        data = mixing * jnp.stack([strength, jnp.ones(())])[None]
        regulator = spectral_decoupling(lambda w, rows: rows @ w, penalty)
        return _root(
            lambda w: regulator.update(plain(w, strength), regulator.init(w), w, inputs=data)[0], jnp.zeros(2)
        )[1]

    def decayed(strength: Array, decay: Array) -> Array:
        return _root(lambda w: plain(w, strength) + decay * w, jnp.zeros(2))[1]

    margin = _root(lambda m: penalty * m - jax.nn.sigmoid(-m), jnp.zeros(1))
    closed = jnp.linalg.solve(mixing, jnp.repeat(margin, 2))[1]

    # A strong decay leaves no response that could fall, and so it is held to the same one where the features are equal.
    def halved(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = jnp.sqrt(low * high)
        stronger = decayed(jnp.ones(()), middle) > closed
        return jnp.where(stronger, middle, low), jnp.where(stronger, high, middle)

    # Own loop: bisection.
    low, high = jax.lax.fori_loop(0, 40, halved, (jnp.asarray(1e-3), jnp.asarray(10.0)))
    decay = jnp.sqrt(low * high)
    return jax.vmap(decoupled)(strengths), jax.vmap(lambda s: decayed(s, decay))(strengths), closed


def _root(slope: Callable[[Array], Array], start: Float[Array, " n"]) -> Float[Array, " n"]:
    """By Newton's method: optima are wanted to rounding, not what training comes to."""
    # Own loop: Newton.
    return jax.lax.fori_loop(0, 20, lambda _, w: w - jnp.linalg.solve(jax.jacfwd(slope)(w), slope(w)), start)


def _data(key: Key, gap: float) -> tuple[Float[Array, "points 2"], Float[Array, " points"]]:
    """Two moons, the classes moved apart by a gap, and labels."""
    angles = jnp.linspace(0, jnp.pi, _POINTS // 2)
    upper = jnp.stack([jnp.cos(angles) - 0.5, jnp.sin(angles) - 0.25 + gap], axis=1)
    points = jnp.concatenate([upper, -upper])  # the lower is the upper one, turned by half a turn
    signs = jnp.repeat(jnp.array([1.0, -1.0]), _POINTS // 2)
    return points + 0.05 * jax.random.normal(key, points.shape), signs


def _run(regularised: Callable[[Array], optax.GradientTransformation], steps: int) -> Run:
    """Accuracy, in percent, on moons without a gap of a network that was trained on moons with one."""

    def run(setting: Array, key: Key) -> Float[Array, ""]:
        first, last, draw, test_draw = jax.random.split(key, 4)
        train, test = _data(draw, _GAP), _data(test_draw, 0.0)
        params, _ = trained(
            lambda params, batch: jnp.mean(jax.nn.softplus(-batch[1] * _network(params, batch[0]))),
            [
                jax.random.normal(first, (2, _HIDDEN)),
                jnp.zeros(_HIDDEN),
                jax.random.normal(last, (_HIDDEN,)) / _HIDDEN**0.5,
            ],
            regularised(setting),
            lambda step, key: train,
            steps,
            key=key,
            extra=lambda params, batch, grads: {"inputs": batch[0]},
        )
        return 100 * jnp.mean((test[1] * _network(params, test[0]) > 0).astype(jnp.float32))

    return run


def _network(params: PyTree, x: Float[Array, "points 2"]) -> Float[Array, " points"]:
    return jax.nn.relu(x @ params[0] + params[1][None]) @ params[2]
