r"""PCGrad: the valley that the sum of two gradients cannot follow, and the step that theorem 2 says is better."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ... import regulate
from ..._core import Key
from .._problems._paths import draw_landscape, draw_paths, finish
from .._records import Check, Paper

PAPER = Paper(
    slug="gradient-surgery",
    title="Gradient Surgery for Multi-Task Learning",
    year=2020,
    link="https://arxiv.org/abs/2001.06782",
    rooms=("regulate",),
    row=135,
    read="text",
)

_FLOOR = 5e-6


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Put the paper's didactic problem and its theorem on single steps to the test.

    After 50 000 steps of the former PCGrad is no better than the sum: it takes some 200 000 to pass the crest between
    the valleys.

    Args:
        key: of all randomness.
        full: the didactic problem for the paper's 500 000 steps in place of 300 000. Vision and control are
            not attempted.

    Returns:
        Two checks.
    """
    valley_key, step_key = jax.random.split(key)
    with jax.enable_x64(True):  # the theorem is about inequalities that are nearly equalities for some pairs
        steps = _single_steps(step_key)
    return [_valley(valley_key, 500_000 if full else 300_000), steps]


def _losses(x: Float[Array, "2"]) -> Float[Array, "2"]:
    """The paper's two losses: deep curved valleys that meet far out on the second axis."""
    first = 20 * jnp.log(jnp.maximum(jnp.abs(0.5 * x[0] + jnp.tanh(x[1])), _FLOOR))
    second = 25 * jnp.log(jnp.maximum(jnp.abs(0.5 * x[0] - jnp.tanh(x[1]) + 2), _FLOOR))
    return jnp.stack([first, second])


def _valley(key: Key, steps: int) -> Check:
    gradients = regulate.multi_value_and_grad(_losses)

    @jax.jit
    def run() -> tuple[Array, Array]:
        # Both methods in one loop, a row of x each: Adam works number by number, so the rows do not meet.
        surgery, total, adam = regulate.pcgrad(key=key), regulate.sum(), optax.adam(1e-3)
        start = jnp.array([0.5, -3.0])
        rows = jnp.stack([start, start])

        def step(carry: tuple, _: None) -> tuple[tuple, tuple[Array, Array]]:
            x, (first, second, state) = carry
            values, grads = jax.vmap(gradients)(x)
            ours, first = surgery.update(grads[0], first, x[0])
            plain, second = total.update(grads[1], second, x[1])
            updates, state = adam.update(jnp.stack([ours, plain]), state, x)
            return (optax.apply_updates(x, updates), (first, second, state)), (jnp.sum(values, axis=1), x)

        states = surgery.init(start), total.init(start), adam.init(rows)
        _, (totals, places) = jax.lax.scan(step, (rows, states), length=steps)
        return jnp.mean(totals[-steps // 10 :], axis=0), jnp.swapaxes(places, 0, 1)

    means, paths = (np.asarray(x) for x in run())
    ours, plain = (float(loss) for loss in means)

    def figure(axes: Any) -> None:
        low, high = paths.min((0, 1)) - 1.0, paths.max((0, 1)) + 1.0
        draw_landscape(axes, lambda x: jnp.sum(_losses(x)), (low[0], high[0]), (low[1], high[1]))
        draw_paths(axes, paths[1:], "C1", "sum of the gradients")
        draw_paths(axes, paths[:1], "C0", "PCGrad")
        axes.plot(*paths[0, 0], "k.")
        axes.annotate("start", paths[0, 0], xytext=(-4, -4), textcoords="offset points", ha="right", va="top")
        finish(axes, xlabel="first parameter", ylabel="second parameter")

    return Check(
        statement="Where valleys are deep and curved and gradients conflict, PCGrad gets further down than the sum.",
        stated="stated in words and by figure 1",
        measured=f"sum of both losses, mean over the last tenth of {steps} Adam steps: {ours:.1f}",
        criterion="below the baseline's by 10 or more",
        holds=bool(ours < plain - 10),
        baseline=f"the sum of the gradients: {plain:.1f}",
        figure=figure,
    )


def _single_steps(key: Key) -> Check:
    """Theorem 2 on random pairs of quadratic losses in the plane, with both steps of the size that it asks for."""
    count = 5_000
    turn_key, size_key, grad_key, length_key = jax.random.split(key, 4)
    angles = jax.random.uniform(turn_key, (count,), maxval=jnp.pi)
    turns = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    curvatures = jnp.exp(jax.random.uniform(size_key, (count, 2), minval=-3.0, maxval=3.0))
    grads = jax.random.normal(grad_key, (count, 2, 2)) * jnp.exp(2 * jax.random.normal(length_key, (count, 2, 1)))
    surgery = regulate.pcgrad(key=key)

    @jax.jit
    @jax.vmap
    def compare(turn: Array, curvature: Array, pair: Array) -> tuple[Array, Array, Array]:
        axes = jnp.stack([turn, jnp.array([-turn[1], turn[0]])])
        hessian = axes.T @ (curvature[:, None] * axes)
        total = pair[0] + pair[1]
        update, _ = surgery.update(pair, surgery.init(total))
        sizes = jnp.linalg.norm(pair, axis=1)
        cosine = pair[0] @ pair[1] / (sizes[0] * sizes[1])
        similarity = 2 * sizes[0] * sizes[1] / jnp.sum(sizes**2)
        bend = total @ hessian @ total / (total @ total)
        excess = (1 - cosine**2) * jnp.sum((pair[0] - pair[1]) ** 2) / jnp.sum(total**2) * jnp.max(curvature)
        conditions = (cosine <= -similarity) & (bend > excess)
        length = 2 / jnp.where(conditions, bend - excess, bend)

        def change(direction: Array, length: Array) -> Array:
            return -length * total @ direction + length**2 / 2 * direction @ hessian @ direction

        def better(length: Array) -> Array:
            ours, plain = change(update, length), change(total, length)
            return ours <= plain + 1e-9 * (jnp.abs(ours) + jnp.abs(plain))

        # The same pairs with a step of a tenth, for which the theorem says nothing.
        return conditions, better(length), better(length / 10)

    met, better, short = (np.asarray(found) for found in compare(turns, curvatures, grads))
    share, others, small = (float(100 * part.mean()) for part in (better[met], better[~met], short[met]))
    return Check(
        statement="One step of PCGrad gives a lower loss than one of the sum wherever conflict, curvature and step "
        "size meet the theorem's bounds.",
        stated="proved (theorem 2)",
        measured=f"{share:.2f} % of {int(met.sum())} random pairs of quadratic losses that meet them",
        criterion="all of them",
        holds=bool(met.sum() > 500 and share == 100 and small < 100 and others < 100),
        baseline=f"{small:.1f} % of the same pairs with a tenth of that step; {others:.1f} % of {int((~met).sum())} "
        "pairs outside the bounds on conflict or curvature",
    )


__all__ = ["PAPER", "checks"]
