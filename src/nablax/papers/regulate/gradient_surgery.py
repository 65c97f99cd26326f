"""PCGrad: the valley that the sum of two gradients cannot follow, and the step that theorem 2 says is better."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ... import regulate
from ..._core import Key
from .._contrast import Contrast
from .._problems._paths import draw_landscape, draw_paths, finish
from .._problems._training import trained
from .._problems._tuning import Run, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="gradient-surgery",
    title="Gradient Surgery for Multi-Task Learning",
    year=2020,
    link="https://arxiv.org/abs/2001.06782",
    rooms=("regulate",),
    row=135,
    read="code",
)

_FLOOR = 5e-6
_EVERY = 100  # steps from one place that is looked at to the next
_START = (0.5, -3.0)  # the paper's
_RATES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1]  # of Adam; the paper's is 1e-3
_LARGE = {0.3: "such steps jump from valley to valley, and larger ones out of them"}


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Put the paper's didactic problem and its theorem on single steps to the test.

    Both methods start about the paper's starting point, and each takes steps of its own best size.

    Args:
        key: of all randomness.
        full: the didactic problem for the paper's 500 000 steps in place of 60 000. Vision and control are
            not attempted.

    Returns:
        Two checks.
    """
    valley_key, step_key = jax.random.split(key)
    with jax.enable_x64(True):  # the theorem is about inequalities that are nearly equalities for some pairs
        shares = _single_steps(step_key)
    steps = 500_000 if full else 60_000

    def run(name: str) -> Run:
        return lambda rate, key: _along(_descent(name, rate, _start(key), key, steps))

    runs = tuned({name: run(name) for name in _METHODS}, _RATES, "higher", key=valley_key, keys=5, ends=_LARGE)

    def figure(axes: Any) -> None:
        start = jnp.array(_START)
        rates = {name: jnp.float32(chosen[0]) for name, chosen in runs.settings.items()}
        drawn = np.stack([_descent(name, rate, start, valley_key, steps) for name, rate in rates.items()])
        # The first place that is looked at lies many steps on: a line begins where its descent does.
        drawn = np.concatenate([np.broadcast_to(start, (len(drawn), 1, 2)), drawn], axis=1)
        low, high = drawn.min((0, 1)) - 1.0, drawn.max((0, 1)) + 1.0
        draw_landscape(axes, _height, (low[0], high[0]), (low[1], high[1]))
        draw_paths(axes, drawn[1:], "C1", "sum of the gradients")
        draw_paths(axes, drawn[:1], "C0", "PCGrad")
        axes.plot(*_START, "k.")
        axes.annotate("start", _START, xytext=(-4, -4), textcoords="offset points", ha="right", va="top")
        finish(axes, xlabel="first parameter", ylabel="second parameter")

    return [
        Check(
            "Where valleys are deep and curved and gradients conflict, PCGrad gets further down than the sum.",
            "stated in words and by figure 1",
            contrasts=runs.contrast(
                "share of the last tenth of the steps in a valley past the crest, where both meet",
                "higher",
                threshold=0.5,
            ),
            moved_from="the sum of both losses lower by 10, from the paper's starting point alone, both at the paper's "
            "rate of 0.001; with steps small enough either is as deep in the one valley that it is in",
            figure=figure,
        ),
        Check(
            "One step of PCGrad gives a lower loss than one of the sum wherever conflict, curvature and step "
            "size meet the theorem's bounds.",
            "proved (theorem 2)",
            contrasts=Contrast("pairs of losses for which it does, %", shares, "higher", threshold=100.0),
        ),
    ]


def _losses(x: Float[Array, "2"]) -> Float[Array, "2"]:
    """The paper's two losses: deep curved valleys that meet far out on the second axis."""
    first = 20 * jnp.log(jnp.maximum(jnp.abs(0.5 * x[0] + jnp.tanh(x[1])), _FLOOR))
    second = 25 * jnp.log(jnp.maximum(jnp.abs(0.5 * x[0] - jnp.tanh(x[1]) + 2), _FLOOR))
    return jnp.stack([first, second])


def _height(x: Float[Array, "2"]) -> Float[Array, ""]:
    return jnp.sum(_losses(x))


_METHODS: dict[str, Callable[[Key], optax.GradientTransformation]] = {
    "PCGrad": lambda key: regulate.pcgrad(key=key),
    "sum of the gradients": lambda key: regulate.sum(),
}


def _start(key: Key) -> Float[Array, "2"]:
    return jnp.array(_START) + 0.3 * jax.random.normal(key, (2,))


def _descent(name: str, rate: Float[Array, ""], start: Float[Array, "2"], key: Key, steps: int) -> Array:
    """Places, every so many steps."""
    _, places = trained(
        lambda x, _: _losses(x),
        start,
        optax.chain(_METHODS[name](jax.random.fold_in(key, 1)), optax.adam(rate)),
        lambda step, key: None,
        steps,
        key=key,
        record=lambda x, state, values: x,
        every=_EVERY,
        value_and_grad=regulate.multi_value_and_grad,
    )
    return places


def _along(path: Float[Array, "times 2"]) -> Float[Array, ""]:
    """Past the crest and in a valley; floors are at minus infinity, but for rounding, so that depth says little."""
    last = path[-len(path) // 10 :]
    return jnp.mean((last[:, 1] > 0) & (jax.vmap(_height)(last) < 0))


def _single_steps(key: Key) -> dict[str, float]:
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

        return conditions, better(length), better(length / 10)

    met, better, short = (np.asarray(found) for found in compare(turns, curvatures, grads))
    return {
        "within the bounds": 100 * better[met].mean(),
        "the same pairs, a tenth of the step": 100 * short[met].mean(),
        "outside the bounds on conflict or curvature": 100 * better[~met].mean(),
    }


__all__ = ["PAPER", "checks"]
