r"""Noise, its reduction and second-order information, on logistic regressions whose minimisers are known.

Rows are drawn anew for every key, columns with scales from 1 to 0.03, labels by chance from a true weight vector, a
little weight decay, so that the loss is strongly convex. Its minimum is found by Newton's method to rounding; every
number is the loss above that minimum.

The text was read as far as SAGA: fixed rates are its theorem 4.6, falling ones its theorem 4.7 with the constants that
it recommends, and averages are taken, as it says, at rates that fall as the root of the step. Of its second-order
methods the abstract alone is followed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import Key
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="large-scale-optimization",
    title="Optimization Methods for Large-Scale Machine Learning",
    year=2016,
    link="https://arxiv.org/abs/1606.04838",
    rooms=("optimize",),
    row=167,
    read="text",
)

_ROWS, _COLUMNS, _DECAY = 500, 20, 1e-2
_LOWEST = 1e-16  # what rounding leaves of the gap
_RATES = [float(rate) for rate in 10.0 ** (0.5 * jnp.arange(-6, 6))]


class _Problem(NamedTuple):
    rows: Float[Array, "rows columns"]
    signs: Float[Array, " rows"]
    minimum: Float[Array, ""]

    def loss(self, w: Array) -> Array:
        return jnp.mean(jax.nn.softplus(-self.signs * (self.rows @ w))) + _DECAY * w @ w / 2

    def grad_of(self, w: Array, row: Array) -> Array:
        """Of one row's loss."""
        slope = -self.signs[row] * jax.nn.sigmoid(-self.signs[row] * (self.rows[row] @ w))
        return slope * self.rows[row] + _DECAY * w

    def gap(self, w: Array) -> Array:
        """Above the minimum; a run that diverged has 1e3."""
        return jnp.clip(jnp.nan_to_num(self.loss(w) - self.minimum, nan=1e3, posinf=1e3), _LOWEST, 1e3)


def _problem(key: Key) -> _Problem:
    row_key, truth_key, sign_key = jax.random.split(key, 3)
    rows = jax.random.normal(row_key, (_ROWS, _COLUMNS)) * jnp.logspace(0, -1.5, _COLUMNS)[None]
    chances = jax.nn.sigmoid(rows @ (3 * jax.random.normal(truth_key, (_COLUMNS,))))
    signs = jnp.where(jax.random.uniform(sign_key, (_ROWS,)) < chances, 1.0, -1.0)
    problem = _Problem(rows, signs, jnp.zeros(()))

    def newton(w: Array, _: None) -> tuple[Array, None]:
        return w - jnp.linalg.solve(jax.hessian(problem.loss)(w), jax.grad(problem.loss)(w)), None

    # Own loop: Newton.
    best, _ = jax.lax.scan(newton, jnp.zeros(_COLUMNS), length=20)
    return problem._replace(minimum=problem.loss(best))


def _stochastic(rate_at: Callable[[Array, Array], Array], passes: int) -> Callable[[Array, Key], Array]:
    """Single rows at a rate of the step's number."""

    def run(rate: Array, key: Key) -> Array:
        problem, draws = _drawn(key, passes)

        def step(w: Array, now: tuple[Array, Array]) -> tuple[Array, None]:
            number, row = now
            return w - rate_at(rate, number) * problem.grad_of(w, row), None

        # Own loops, this and the next two: a gradient of one row in closed form, tens of thousands of steps.
        w, _ = jax.lax.scan(step, jnp.zeros(_COLUMNS), (jnp.arange(len(draws)), draws))
        return jnp.log10(problem.gap(w))

    return run


def _averaged(rate_at: Callable[[Array, Array], Array], passes: int) -> Callable[[Array, Key], Array]:
    """Single rows, the mean of the second half of the weights."""

    def run(rate: Array, key: Key) -> Array:
        problem, draws = _drawn(key, passes)

        def step(carry: tuple[Array, Array], now: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
            (w, total), (number, row) = carry, now
            w = w - rate_at(rate, number) * problem.grad_of(w, row)
            return (w, total + jnp.where(number >= len(draws) // 2, w, 0.0)), None

        start = (jnp.zeros(_COLUMNS), jnp.zeros(_COLUMNS))
        # Own loop: as above.
        (_, total), _ = jax.lax.scan(step, start, (jnp.arange(len(draws)), draws))
        return jnp.log10(problem.gap(total / (len(draws) - len(draws) // 2)))

    return run


def _saga(passes: int) -> Callable[[Array, Key], Array]:
    """A row's gradient less the one last seen of that row, and the mean of those last seen: one pass goes to them."""

    def run(rate: Array, key: Key) -> Array:
        problem, draws = _drawn(key, passes - 1)
        w = jnp.zeros(_COLUMNS)
        seen = jax.vmap(problem.grad_of, in_axes=(None, 0))(w, jnp.arange(_ROWS))

        def step(carry: tuple[Array, Array, Array], row: Array) -> tuple[tuple[Array, Array, Array], None]:
            w, seen, mean = carry
            change = problem.grad_of(w, row) - seen[row]
            return (w - rate * (change + mean), seen.at[row].add(change), mean + change / _ROWS), None

        # Own loop: as above.
        (w, _, _), _ = jax.lax.scan(step, (w, seen, seen.mean(0)), draws)
        return jnp.log10(problem.gap(w))

    return run


def _drawn(key: Key, passes: int) -> tuple[_Problem, Array]:
    problem_key, draw_key = jax.random.split(key)
    return _problem(problem_key), jax.random.randint(draw_key, (passes * _ROWS,), 0, _ROWS)


def _whole(make: Callable[[Array], Any], evaluations: int) -> Callable[[Array, Key], dict[str, Array]]:
    """Gradients of all rows, until so many losses and gradients were evaluated."""

    def run(rate: Array, key: Key) -> dict[str, Array]:
        problem, _ = _drawn(key, 0)
        optimizer, start = make(rate), jnp.zeros(_COLUMNS)
        state = optimizer.init(start)
        searching = optax.tree.get(state, "info") is not None

        def step(carry: tuple[Array, Any, Array]) -> tuple[Array, Any, Array]:
            w, state, used = carry
            value, grad = jax.value_and_grad(problem.loss)(w)
            updates, state = optax.with_extra_args_support(optimizer).update(
                grad, state, w, value=value, grad=grad, value_fn=problem.loss
            )
            searched = optax.tree.get(state, "info").num_linesearch_steps if searching else 0
            return optax.apply_updates(w, updates), state, used + 1 + searched

        # Own loop: it ends when so many evaluations are used.
        w, _, used = jax.lax.while_loop(lambda carry: carry[2] < evaluations, step, (start, state, jnp.zeros((), int)))
        return {"gap": jnp.log10(problem.gap(w)), "evaluations": used.astype(float)}

    return run


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train logistic regressions by single rows and by all of them.

    Args:
        key: of rows, labels and draws.
        full: three times as many repetitions and passes. The paper's case studies are at neither scale.

    Returns:
        Four checks.
    """
    count, passes = (24, 90) if full else (8, 30)
    fixed = _stochastic(lambda rate, number: rate, passes)
    # Twice one over the strong convexity, for which the weight decay stands, over the step.
    falling = _stochastic(lambda rate, number: rate / (1 + rate * _DECAY / 2 * number), passes)
    halves = _stochastic(lambda rate, number: jnp.asarray(rate / 2), passes)
    few = passes // 3
    with jax.enable_x64(True):
        noise_key, fall_key, reduce_key, second_key = jax.random.split(key, 4)
        # A rate at which the level was reached long ago: 0.1 times the decay is a thirtieth of a pass.
        floor = tuned({"half the rate": halves, "the rate": fixed}, [0.3], "lower", key=noise_key, keys=4 * count)
        fall = tuned({"rate falling as 1/k": falling, "fixed rate": fixed}, _RATES, "lower", key=fall_key, keys=count)
        methods = {
            "SAGA": _saga(passes),
            "rate falling as 1/k": falling,
            "fixed rate": fixed,
            "fixed rate, averaged weights": _averaged(lambda rate, number: rate, passes),
            "rate falling as the root, averaged weights": _averaged(
                lambda rate, number: rate / jnp.sqrt(number + 1), passes
            ),
        }
        reduced = tuned(methods, _RATES, "lower", key=reduce_key, keys=count)
        second = tuned(
            {
                "L-BFGS": _whole(lambda rate: optax.lbfgs(memory_size=10), few * 4),
                "gradient descent": _whole(optax.sgd, few * 4),
                "Nesterov's momentum .8": _whole(lambda rate: optax.sgd(rate, momentum=0.8, nesterov=True), few * 4),
                "Adam": _whole(optax.adam, few * 4),
            },
            _RATES,
            "lower",
            key=second_key,
            keys=count,
            of="gap",
        )
    metric = "loss above the minimum, decades"
    return [
        Check(
            "At a fixed rate the loss levels off above the minimum; at half the rate, at half the height or near it.",
            "theorem 4.6: the bound's level is proportional to the rate",
            contrasts=floor.contrast(metric, "lower", margin=0.22),
        ),
        Check(
            "A rate that falls as 1/k ends lower than the best fixed rate after as many steps.",
            "theorem 4.7: with falling rates the gap falls as 1/k, with a fixed one to a level",
            moved_from="the same with half as large a constant, which the theorem excludes",
            contrasts=fall.contrast(metric, "lower"),
        ),
        Check(
            "Where the noise is reduced by remembered gradients, the loss ends a decade lower than by falling rates or "
            "averaged weights.",
            "section 5: linear convergence of SVRG and SAGA against sublinear of stochastic gradients, averaged or not",
            moved_from="the same against averages at a fixed rate alone, and falling rates that the theorem excludes",
            contrasts=reduced.contrast(metric, "lower", margin=1.0),
        ),
        Check(
            "Of all rows, with as many evaluations, L-BFGS ends two decades lower than descent, momentum or Adam.",
            "second-order information overcomes bad scaling, in words",
            contrasts=second.contrast(metric, "lower", of="gap", margin=2.0),
        ),
    ]


__all__ = ["PAPER", "checks"]
