"""BO-REP where the upper loss grows like an exponential, beside the same hypergradients without the normalisation.

Cleaning of data: a third of the rows of a regression have targets of another, and a weight for each row is learnt by a
validation loss, the mean of cosh(3 r) - 1 over residuals r, whose curvature grows with its gradient. All on batches.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...optimize import bo_rep
from .._problems._tuning import Run, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="bo-rep",
    title="Bilevel Optimization under Unbounded Smoothness: A New Algorithm and Convergence Analysis",
    year=2024,
    link="https://arxiv.org/abs/2401.09587",
    rooms=("optimize",),
    row=184,
    read="code",
)

_ROWS, _DIM, _BATCH, _STEPS, _DECAY = 90, 6, 30, 1000, 0.05
Loss = Callable[[Array, Array, Key], Array]


def _problem(key: Key) -> tuple[Loss, Loss, Callable[[Array], Array]]:
    """Upper and lower losses on batches, and the upper loss of all rows at the lower level's minimum."""
    a, b, c, d, e = jax.random.split(key, 5)
    true, other = jax.random.normal(a, (2, _DIM)) * jnp.array([[1.0], [2.0]])
    inputs, validation = jax.random.normal(b, (2, _ROWS, _DIM))
    targets = jnp.where(jnp.arange(_ROWS) % 3 == 0, inputs @ other, inputs @ true)
    targets = targets + 0.1 * jax.random.normal(c, (_ROWS,))
    wanted = validation @ true + 0.1 * jax.random.normal(d, (_ROWS,))

    def rows(key: Key) -> Array:
        return jax.random.randint(key, (_BATCH,), 0, _ROWS)

    def upper(x: Array, params: Array, key: Key) -> Array:
        at = rows(key)
        return jnp.mean(jnp.cosh(3 * (validation[at] @ x - wanted[at])) - 1)

    def lower(x: Array, params: Array, key: Key) -> Array:
        at = rows(key)
        errors = (inputs[at] @ x - targets[at]) ** 2
        return jnp.mean(jax.nn.sigmoid(params[at]) * errors) / 2 + _DECAY * jnp.sum(x**2) / 2

    def whole(params: Array) -> Array:
        weights = jax.nn.sigmoid(params) / _ROWS
        hessian = (inputs.T * weights[None]) @ inputs + _DECAY * jnp.eye(_DIM)
        x = jnp.linalg.solve(hessian, inputs.T @ (weights * targets))
        return jnp.mean(jnp.cosh(3 * (validation @ x - wanted)) - 1)

    return upper, lower, whole


def _normalised(setting: Float[Array, "2"], key: Key) -> Array:
    problem_key, key = jax.random.split(key)
    upper, lower, whole = _problem(problem_key)
    rate, system_rate = setting
    found = bo_rep(
        upper,
        lower,
        jnp.zeros(_ROWS),
        jnp.zeros(_DIM),
        steps=_STEPS,
        rate=rate,
        lower_rate=0.2,
        system_rate=system_rate,
        key=key,
        throw=False,
    )
    return _cut(whole(found.params), whole)


def _cut(value: Array, whole: Callable[[Array], Array]) -> Array:
    """Over the loss with all rows alike, as a decimal logarithm, at most 1."""
    ratio = jnp.log10(value / whole(jnp.zeros(_ROWS)))
    return jnp.where(ratio < 1, ratio, 1.0)


def _with(rule: Callable[[Array], optax.GradientTransformation]) -> Run:
    """The same loops and averages, with another rule for the upper level."""

    def run(setting: Float[Array, "2"], key: Key) -> Array:
        problem_key, key = jax.random.split(key)
        upper, lower, whole = _problem(problem_key)
        rate, system_rate = setting
        optimizer = rule(rate)

        def descend(x: Array, now: tuple[Array, Key]) -> tuple[Array, None]:
            params, key = now
            return x - 0.2 * jax.grad(lower)(x, params, key), None

        def step(carry: tuple, now: tuple[Array, Key]) -> tuple[tuple, None]:
            params, x, z, state = carry
            number, key = now
            one, two, three = jax.random.split(key, 3)

            def moved(x: Array) -> Array:
                keys = jax.random.split(one, 10)
                # Own loops: the lower level between steps of the upper one.
                return jax.lax.scan(lambda x, key: descend(x, (params, key)), x, keys)[0]

            x = jax.lax.cond(number % 2 == 0, moved, lambda x: x, x)
            pull, direct = jax.grad(upper, argnums=(0, 1))(x, params, two)

            def slope(x: Array, params: Array) -> Array:
                return jax.grad(lower)(x, params, three)

            z = z - system_rate * (jax.jvp(lambda x: slope(x, params), (x,), (z,))[1] - pull)
            hyper = direct - jax.grad(lambda params: slope(x, params) @ z)(params)
            updates, state = optimizer.update(hyper, state, params)
            return (optax.apply_updates(params, updates), x, z, state), None

        start = jnp.zeros(_ROWS)
        first, key = jax.random.split(key)
        # Own loops: as above.
        x, _ = jax.lax.scan(lambda x, key: descend(x, (start, key)), jnp.zeros(_DIM), jax.random.split(first, 100))
        begin = (start, x, jnp.zeros(_DIM), optimizer.init(start))
        (params, *_), _ = jax.lax.scan(step, begin, (jnp.arange(_STEPS), jax.random.split(key, _STEPS)))
        return _cut(whole(params), whole)

    return run


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Clean regressions of which each key draws one.

    Args:
        key: of the regressions and batches.
        full: eight times the regressions. The paper's recurrent nets on text are at neither scale.

    Returns:
        Two checks.
    """
    system_rates = (0.2,)  # the authors' 0.01 follows more slowly; the same for all
    plain, clipped = "hypergradients with momentum", "the same, clipped at a norm of 1"
    runs = tuned(
        {
            "BO-REP": _normalised,
            plain: _with(lambda rate: optax.sgd(rate, momentum=0.9)),
            clipped: _with(lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate, momentum=0.9))),
            "Adam": _with(lambda rate: optax.adam(rate)),
        },
        {
            "BO-REP": (tuple(0.005 * 3.0**k for k in range(7)), system_rates),
            plain: (tuple(1e-6 * 10.0**k for k in range(7)), system_rates),
            clipped: (tuple(0.0005 * 3.0**k for k in range(7)), system_rates),
            "Adam": (tuple(0.005 * 3.0**k for k in range(7)), system_rates),
        },
        "lower",
        key=key,
        keys=64 if full else 8,
        tuning=2,
    )
    metric = "validation loss over that of all rows alike, decades"
    return [
        Check(
            "It comes to a lower validation loss, by a tenth of a decade or more, than the same hypergradients with "
            "momentum alone.",
            "in words: current algorithms are unsuitable where smoothness is unbounded",
            contrasts=runs.contrast(metric, "lower", margin=0.1, against=(plain,)),
        ),
        Check(
            "And than clipped ones and Adam.",
            "effectiveness in words",
            contrasts=runs.contrast(metric, "lower", against=(clipped, "Adam")),
        ),
    ]


__all__ = ["PAPER", "checks"]
