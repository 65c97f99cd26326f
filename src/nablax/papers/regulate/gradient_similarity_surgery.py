"""SAM-GS on the two-task problem of two parameters, from starts where the sum of the gradients gets stuck."""

from functools import partial
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
from .._records import Check, Paper

PAPER = Paper(
    slug="gradient-similarity-surgery",
    title="Gradient Similarity Surgery in Multi-Task Deep Learning",
    year=2025,
    link="https://arxiv.org/abs/2506.06130",
    rooms=("regulate",),
    row=266,
    read="code",
)

# The authors' settings for the plane, of their code; a key moves each start by a quarter.
_STARTS = jnp.array([[-8.0, 5.0], [-3.0, 7.5], [0.0, 10.0], [3.0, 7.5], [8.0, 5.0], [-10.0, -3.0], [10.0, -3.0]])
_SETTINGS: Any = {"threshold": 0.1, "decay": 0.9, "similarity_decay": 0.99}
_SCALES = jnp.array([[1.0, 1.0], [0.1, 1.0]])
# Tolerances: of the distance from the Pareto set, and from the optimum of the larger loss.
_NEAR, _FAR = 0.5, 3.0


def losses(x: Float[Array, "2"]) -> Float[Array, "2"]:
    """Two valleys with a kink above, two bowls below; Pareto-optimal are the points between the bowls' bottoms."""
    upper, lower = jnp.maximum(jnp.tanh(0.5 * x[1]), 0), jnp.maximum(jnp.tanh(-0.5 * x[1]), 0)
    left = jnp.log(jnp.maximum(jnp.abs(0.5 * (-x[0] - 7) - jnp.tanh(-x[1])), 5e-6)) + 6
    right = jnp.log(jnp.maximum(jnp.abs(0.5 * (-x[0] + 3) + jnp.tanh(-x[1]) + 2), 5e-6)) + 6
    bowls = jnp.stack([(7 - x[0]) ** 2, (x[0] + 7) ** 2]) + 0.1 * (x[1] + 8) ** 2
    return jnp.stack([left, right]) * upper + (bowls / 10 - 20) * lower


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Follow SAM-GS, the sum and PCGrad from about the authors' starts, the losses alike and one ten times the other.

    Args:
        key: of the starts.
        full: 200 000 steps in place of 100 000. The paper's vision and control tasks are not attempted.

    Returns:
        Two checks.
    """
    steps = 200_000 if full else 100_000
    starts = _STARTS + 0.25 * jax.random.normal(key, _STARTS.shape)

    def follow(rule: optax.GradientTransformation, scale: Array, start: Array) -> Float[Array, "times 2"]:
        _, path = trained(
            lambda x, batch: losses(x) * scale,
            start,
            optax.chain(rule, optax.adam(1e-3)),
            lambda step, key: None,
            steps,
            key=key,
            value_and_grad=regulate.multi_value_and_grad,
            record=lambda x, state, values: x,
            every=steps // 400,
        )
        return path

    rules = {
        "SAM-GS": regulate.sam_gs(objectives=2, **_SETTINGS),
        "sum of the gradients": regulate.sum(),
        "PCGrad": regulate.pcgrad(key=key),
    }
    paths = {
        name: np.asarray(jax.jit(jax.vmap(jax.vmap(partial(follow, rule), (None, 0)), (0, None)))(_SCALES, starts))
        for name, rule in rules.items()
    }

    def figure(axes: Any, case: int) -> None:
        draw_landscape(axes, lambda x: losses(x) @ _SCALES[case], (-11.0, 11.0), (-11.0, 11.0))
        axes.plot([-7, 7], [-8, -8], color="C2", lw=5, alpha=0.6, label="Pareto set")
        for colour, (name, both) in zip(("C0", "C1", "C3"), paths.items()):
            draw_paths(axes, both[case], colour, name)
        axes.plot(*starts.T, "k.", label="starts")
        finish(axes, xlabel="first parameter", ylabel="second parameter")

    ends = {name: both[:, :, -1] for name, both in paths.items()}  # [scales, starts, 2]
    off = {name: np.hypot(np.maximum(np.abs(x[..., 0]) - 7, 0), x[..., 1] + 8) for name, x in ends.items()}
    misses = {
        name: np.maximum(off[name] / _NEAR, _FAR / np.maximum(np.abs(x[..., 0] + 7), 1e-3)) for name, x in ends.items()
    }
    return [
        Check(
            "It reaches the Pareto set from every start, as PCGrad does, where the sum of the gradients gets stuck.",
            "stated in words, with figures",
            contrasts=Contrast(
                "distance from the Pareto set, worst of seven starts",
                {name: off[name][0].max() for name in ("SAM-GS", "sum of the gradients")},
                "lower",
                threshold=_NEAR,
            ),
            figure=lambda axes: figure(axes, 0),
            moved_from="the same after 40 000 and 60 000 steps, when it was still under way from some starts; at a "
            "threshold of our own",
        ),
        Check(
            "With one loss ten times the other it reaches the Pareto set too, off the larger loss's optimum "
            f"by {_FAR:g} or more.",
            "stated in words, with figures",
            contrasts=Contrast(
                "largest miss of both distances, tolerances, worst of seven starts",
                {name: both[1].max() for name, both in misses.items()},
                "lower",
                threshold=1.0,
            ),
            figure=lambda axes: figure(axes, 1),
            moved_from="ends within 3.5 of the middle, which one on the other side misses; at a threshold of our own",
            expected=False,
            tried="the authors' threshold of 0.1, at which from every start it ends 1.3 from that optimum: lengths ten "
            "times apart are too little for it. At 0.9, ours, it stops short of that",
        ),
    ]


__all__ = ["PAPER", "checks"]
