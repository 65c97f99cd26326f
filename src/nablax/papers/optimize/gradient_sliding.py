"""Gradient sliding without restarts: a portfolio by its risk of loss, and a blurred signal of steps.

What counts is how many gradients of the smooth part it takes until little of the objective above its least is left: a
ten thousandth of the portfolio's, a thousandth of the signal's. The least is that of a long run of the accelerated
form. Sliding has the problem's constants and first rounds of 100 steps; the baselines are tuned.

What stood first: a portfolio whose variance had three factors, first rounds of 3 steps (restarts took a third as many
gradients) and then of 30 at a tuned share of the curvature (at which one key in nine did not arrive); a thousandth of
the portfolio's excess, which accelerated descent on a smoothed objective reached in as few (18 for 22); a signal whose
variation had a weight of 1, with which all methods took 7.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...optimize import GradientSliding, accelerated_gradient_sliding, gradient_sliding
from .._problems._training import trained
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="gradient-sliding",
    title="Restart-Free (Accelerated) Gradient Sliding Methods for Strongly Convex Composite Optimization",
    year=2026,
    link="https://arxiv.org/abs/2602.04161",
    rooms=("optimize",),
    row=78,
    read="abstract",
)

_MOST, _FIRST, _LONGEST = 500, 100, 1000
_PORTFOLIO = "a variance of three factors, a thousandth of the excess, first rounds of 3 and then of 30 steps"
_SIGNAL = "a variation of weight 1, with which all methods took as many"
_ROUNDS = {"portfolio": 60, "signal": 80, "restarted": 60, "reference": 150}
_CONVEXITY = 1.0


class _Problem(NamedTuple):
    """f + h + χ, with h the largest ⟨Kx, v⟩ of all v between two bounds, and what is known of them."""

    smooth: Callable[[Array], Array]
    matrix: Float[Array, "rows dim"]
    low: float
    high: float
    proximal: Callable[[Array, Array], Array]
    curvature: Float[Array, ""]
    start: Float[Array, " dim"]
    small: float

    def nonsmooth(self, x: Array) -> Array:
        z = self.matrix @ x
        return jnp.sum(jnp.maximum(self.low * z, self.high * z))

    def smoothed(self, x: Array, width: Array) -> Array:
        z = self.matrix @ x
        v = jnp.clip(z / width, self.low, self.high)
        return jnp.sum(v * z - width * v**2 / 2)

    def simple(self, x: Array) -> Array:
        return _CONVEXITY / 2 * jnp.sum(x**2)

    def value(self, x: Array) -> Array:
        return self.smooth(x) + self.nonsmooth(x) + self.simple(x)

    @property
    def coupling(self) -> Array:
        return jnp.linalg.eigvalsh(self.matrix.T @ self.matrix)[-1]

    def sliding(self, rounds: int) -> GradientSliding:
        given = self._given(rounds) | {"inner_steps": _FIRST, "throw": False}
        return gradient_sliding(self.smooth, self.nonsmooth, self.start, **given)

    def accelerated(self, rounds: int, width: Array | None = None) -> GradientSliding:
        return accelerated_gradient_sliding(
            self.smooth,
            self.nonsmooth,
            self.smoothed,
            self.start,
            coupling=self.coupling,
            width=width,
            **self._given(rounds),
            throw=False,
        )

    def _given(self, rounds: int) -> dict[str, Any]:
        constants = {"curvature": self.curvature, "convexity": _CONVEXITY, "steps": rounds}
        return constants | {"simple": self.simple, "proximal": self.proximal}


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Count gradients of the smooth part until little of the excess is left, baselines at the best of 8 settings.

    Args:
        key: of the problems.
        full: 100 assets and a signal of 200 numbers; the paper's data are at neither scale.

    Returns:
        Five checks.
    """
    assets, length = (100, 200) if full else (20, 60)
    smoothed, pairs = "accelerated descent on a smoothed objective", "primal-dual steps"
    rates = (2.0 ** np.arange(-9, -1)).tolist()
    least = (10.0 ** np.linspace(-3, 2.5, 8)).tolist()
    widths, dual_rates = (10.0 ** np.linspace(-4, 3, 8)).tolist(), (10.0 ** np.linspace(-4, 3, 8)).tolist()

    def portfolio(method: Callable[[_Problem, Array], dict[str, Array]]) -> Callable:
        return lambda setting, key: method(_portfolio(assets, key), setting)

    def signal(method: Callable[[_Problem, Array], dict[str, Array]]) -> Callable:
        return lambda setting, key: method(_signal(length, key), setting)

    shared = tuned(
        {
            "sliding": portfolio(lambda p, _: _counted(p, *_course(p.sliding(_ROUNDS["portfolio"])))),
            "sliding with restarts": portfolio(_restarted),
            "subgradient descent": portfolio(_subgradients),
            smoothed: portfolio(_smoothed),
            pairs: portfolio(_primal_dual),
        },
        {
            "sliding": rates,
            "sliding with restarts": (2.0 ** np.arange(-4, 4)).tolist(),
            "subgradient descent": rates,
            smoothed: widths,
            pairs: dual_rates,
        },
        "lower",
        key=key,
        keys=3,
        tuning=3,
        of="gradients",
        ends={8.0: "a phase is longer than the run then: no restart"},
    )
    blurred = tuned(
        {
            "accelerated sliding": signal(
                lambda p, width: _counted(p, *_course(p.accelerated(_ROUNDS["signal"], width)))
            ),
            "sliding": signal(lambda p, _: _counted(p, *_course(p.sliding(_ROUNDS["signal"])))),
            smoothed: signal(_smoothed),
            pairs: signal(_primal_dual),
        },
        {"accelerated sliding": least, "sliding": rates, smoothed: widths, pairs: dual_rates},
        "lower",
        key=jax.random.fold_in(key, 1),
        keys=3,
        tuning=3,
        of="gradients",
        ends={least[0]: "so small a width smooths nothing that counts: smaller ones cost gradients of the rough part"},
    )
    gradients = "gradients of the smooth part until little of the excess is left"
    products = "gradients of the rough part until then"
    return [
        Check(
            "On a portfolio sliding takes at most a fifth as many gradients of the smooth part as subgradient descent.",
            "O(log 1/ε) gradients where subgradient descent takes O(1/ε), in words",
            moved_from=_PORTFOLIO,
            contrasts=shared.contrast(gradients, "lower", of="gradients", against=("subgradient descent",), ratio=0.2),
        ),
        Check(
            "There it takes fewer than sliding with restarts, whose phases are tuned and which knows its first excess.",
            "as few as with restarts up to constants, and simpler, in words",
            expected=False,
            tried="first rounds of 3, 30 and 100 steps, and shares of the curvature: as few, not fewer",
            moved_from=_PORTFOLIO,
            contrasts=shared.contrast(gradients, "lower", of="gradients", against=("sliding with restarts",)),
        ),
        Check(
            "There it takes fewer than accelerated descent on the objective smoothed, or than primal-dual steps.",
            "not among the baselines of the abstract; what one would use here",
            expected=False,
            tried="fewer than primal-dual steps; what smoothing takes varies by key, with a width tuned on others",
            moved_from=_PORTFOLIO,
            contrasts=shared.contrast(gradients, "lower", of="gradients", against=(smoothed, pairs)),
        ),
        Check(
            "On a blurred signal accelerated sliding takes fewer gradients of the smooth part than accelerated descent "
            "on a smoothed objective, or than primal-dual steps.",
            "O(log 1/ε) gradients, in words",
            moved_from=f"at most half as many; {_SIGNAL}",
            contrasts=blurred.contrast(gradients, "lower", of="gradients", against=(smoothed, pairs)),
        ),
        Check(
            "There it takes at most half as many gradients of the rough part as sliding that is not accelerated.",
            "O(1/√ε) of them for O(1/ε), in words",
            moved_from=_SIGNAL,
            contrasts=blurred.contrast(products, "lower", of="products", against=("sliding",), ratio=0.5),
        ),
    ]


def _portfolio(assets: int, key: Key) -> _Problem:
    """Variance, losses beyond what is expected over scenarios (four fifths of a pinball), shares."""
    basis_key, return_key = jax.random.split(key)
    scenarios, variances = 5 * assets, 100 * _CONVEXITY * jnp.geomspace(1.0, 1e-3, assets)
    basis, _ = jnp.linalg.qr(jax.random.normal(basis_key, (assets, assets)))
    covariance = (basis * variances[None]) @ basis.T
    returns = 0.2 + 0.2 * jax.random.normal(return_key, (scenarios, assets)) * jnp.sqrt(variances)[None] @ basis.T

    def proximal(x: Array, rate: Array) -> Array:
        return optax.projections.projection_simplex(x / (1 + _CONVEXITY * rate))

    start = jnp.zeros(assets).at[0].set(1.0)
    weight = 10 / scenarios
    return _Problem(
        lambda x: x @ covariance @ x / 2,
        -returns,
        -0.2 * weight,
        0.8 * weight,
        proximal,
        jnp.float32(100 * _CONVEXITY),
        start,
        1e-4,
    )


def _signal(length: int, key: Key) -> _Problem:
    """Steps, blurred and noisy, by their total variation."""
    step_key, noise_key = jax.random.split(key)
    steps = jnp.repeat(jax.random.normal(step_key, (length // 10,)), 10)
    places = jnp.arange(length)
    blur = jnp.exp(-((places[:, None] - places[None]) ** 2) / 8.0)
    blur = blur * jnp.sqrt(100 * _CONVEXITY / jnp.linalg.eigvalsh(blur.T @ blur)[-1])
    seen = blur @ steps + 0.3 * jax.random.normal(noise_key, (length,))
    return _Problem(
        lambda x: jnp.sum((blur @ x - seen) ** 2) / 2,
        jnp.eye(length - 1, length, k=1) - jnp.eye(length - 1, length),
        -10.0,
        10.0,
        lambda x, rate: x / (1 + _CONVEXITY * rate),
        jnp.float32(100 * _CONVEXITY),
        jnp.zeros(length),
        1e-3,
    )


def _counted(problem: _Problem, values: Array, products: Array) -> dict[str, Array]:
    """From the objective after so many gradients of the smooth part, and of the rough part."""
    least = jnp.min(problem.accelerated(_ROUNDS["reference"]).values)
    small = values - least <= problem.small * (problem.value(problem.start) - least)
    first = jnp.argmax(small)
    reached = jnp.any(small)
    # Where it was not, there are so many at least.
    count = jnp.where(reached, products[first], products[-1]).astype(jnp.float32)
    return {"gradients": jnp.where(reached, first + 1.0, 1.0 * _MOST), "products": count}


def _course(found: GradientSliding) -> tuple[Array, Array]:
    return found.values[1:], found.subgradients


def _by_rule(problem: _Problem, loss: Callable, rule: optax.GradientTransformation, read: Callable) -> dict[str, Array]:
    """Of a rule that has the proximal step in it, and one gradient of either part a step."""
    _, values = trained(
        lambda x, _: loss(x),
        problem.start,
        rule,
        lambda step, key: (),
        _MOST,
        key=jax.random.key(0),
        record=lambda x, state, value: problem.value(read(x, state)),
    )
    return _counted(problem, values, jnp.arange(1, _MOST + 1))


def _subgradients(problem: _Problem, rate: Array) -> dict[str, Array]:
    """Proximal steps of rates that fall as 2/(μt), averaged with weights t."""

    def init(x: Array) -> tuple[Array, Array]:
        return jnp.array(0.0), x

    def update(gradient: Array, state: tuple[Array, Array], x: Array) -> tuple[Array, tuple[Array, Array]]:
        t, average = state
        now = rate / (1 + rate * _CONVEXITY * t / 2)
        following = problem.proximal(x - now * gradient, now)
        return following - x, (t + 1, average + 2 / (t + 2) * (following - average))

    rule = optax.GradientTransformation(init, update)
    return _by_rule(problem, lambda x: problem.smooth(x) + problem.nonsmooth(x), rule, lambda x, state: state[1])


def _smoothed(problem: _Problem, width: Array) -> dict[str, Array]:
    """Nesterov's method for what is strongly convex, with proximal steps."""
    curved = problem.curvature + problem.coupling / width
    root = jnp.sqrt((curved + _CONVEXITY) / _CONVEXITY)
    inertia = (root - 1) / (root + 1)

    def update(gradient: Array, last: Array, x: Array) -> tuple[Array, Array]:
        following = problem.proximal(x - gradient / curved, 1 / curved)
        return following + inertia * (following - last) - x, following

    rule = optax.GradientTransformation(lambda x: x, update)
    return _by_rule(problem, lambda x: problem.smooth(x) + problem.smoothed(x, width), rule, lambda x, state: state)


def _primal_dual(problem: _Problem, rate: Array) -> dict[str, Array]:
    """Condat's and Vũ's steps: the dual variable goes up by as much as the primal one's rate allows."""
    norm2 = problem.coupling
    primal = 1 / (problem.curvature / 2 + rate * norm2)

    def update(gradient: Array, dual: Array, x: Array) -> tuple[Array, Array]:
        following = problem.proximal(x - primal * (gradient + problem.matrix.T @ dual), primal)
        dual = jnp.clip(dual + rate * (problem.matrix @ (2 * following - x)), problem.low, problem.high)
        return following - x, dual

    rule = optax.GradientTransformation(lambda x: jnp.zeros(len(problem.matrix)), update)
    return _by_rule(problem, problem.smooth, rule, lambda x, state: x)


def _restarted(problem: _Problem, share: Array) -> dict[str, Array]:
    """Lan's sliding in phases, each for half of the excess, of a share of the rounds that his theorem has.

    Rounds are cut off at a length that no run which arrives needs.
    """
    curvature = problem.curvature
    rounds = jnp.ceil(share * 2 * jnp.sqrt(5 * curvature / _CONVEXITY))
    slope = jnp.maximum(-problem.low, problem.high) * jnp.sum(jnp.linalg.norm(problem.matrix, axis=1))
    excess = problem.value(problem.start) - jnp.min(problem.accelerated(_ROUNDS["reference"]).values)

    def one(carry: tuple[Array, ...], _: None) -> tuple[tuple[Array, ...], tuple[Array, Array]]:
        x, average, k, phase, count = carry
        beta, gamma = 2 * curvature / k, 2 / (k + 1)
        pull = jax.grad(problem.smooth)((1 - gamma) * average + gamma * x)
        distance = excess / (_CONVEXITY * 2**phase)
        length = jnp.ceil(jnp.clip(slope**2 * rounds * k**2 / (distance * curvature**2), 1, _LONGEST))

        def step(t: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            u, mean = carry
            near = beta * t / 2
            moved = (beta * x + near * u - pull - jax.grad(problem.nonsmooth)(u)) / (beta + near)
            u = problem.proximal(moved, 1 / (beta + near))
            return u, mean + 2 * (t + 1) / (t * (t + 3)) * (u - mean)

        # Own loops: the restarted baseline, inner steps of a length of their own.
        u, mean = jax.lax.fori_loop(1, length.astype(int) + 1, step, (x, x))
        average = average + gamma * (mean - average)
        ended = k >= rounds
        carry = (jnp.where(ended, average, u), average, jnp.where(ended, 1.0, k + 1), phase + ended, count + length)
        return carry, (problem.value(average), carry[-1])

    begin: tuple[Array, ...] = (problem.start, problem.start, jnp.array(1.0), jnp.array(0.0), jnp.array(0.0))
    # Own loop: as above.
    _, (values, products) = jax.lax.scan(one, begin, length=_ROUNDS["restarted"])
    return _counted(problem, values, products)


__all__ = ["PAPER", "checks"]
