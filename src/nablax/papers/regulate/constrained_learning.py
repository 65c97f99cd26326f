"""Dual ascent: Lagrangian minimisers of growing richness, and a network with a loss that it must keep."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...regulate import dual_ascent, multi_value_and_grad
from .._contrast import Contrast
from .._problems._classifier import cross_entropy, digits, logits, network
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="constrained-learning",
    title="Near-Optimal Solutions of Constrained Learning Problems",
    year=2024,
    link="https://arxiv.org/abs/2403.11844",
    rooms=("regulate",),
    row=231,
    read="abstract",
)

_POINTS, _LEVELS, _BOUND = 4, (2, 257), 0.15
_CLASSES, _KEPT, _STEPS = 10, 0.03, 400


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Minimise Lagrangians exactly over quantised predictors, and train a network on five digits with five to keep.

    Args:
        key: of all randomness.
        full: eight times the problems and the seeds. The paper's fair classification of its tables is not run.

    Returns:
        Two checks.
    """
    problems, seeds = (160, 24) if full else (20, 3)
    first, second = jax.random.split(key)
    poor, rich = np.asarray(jax.jit(jax.vmap(_quantised))(jax.random.split(first, problems))).T
    images, labels = digits()
    data = images[:800], labels[:800]
    starts = jax.jit(jax.vmap(lambda k: network(k, (64, 32, _CLASSES))))(jax.random.split(second, seeds))

    @jax.jit
    @jax.vmap
    def fixed(weight: Array) -> Array:
        rule = optax.stateless(lambda grads, params: jax.tree.map(lambda g: g[0] + weight * g[1], grads))
        return jax.vmap(partial(_violation, optax.chain(rule, optax.sgd(0.2)), data))(starts)

    # Half the baselines' rate, for multipliers make the Lagrangian steeper than the losses.
    ours = optax.chain(dual_ascent(0.2, jnp.array([_KEPT])), optax.sgd(0.1))
    violations = {
        "dual ascent": jax.jit(jax.vmap(partial(_violation, ours, data)))(starts),
        **dict(zip(("no constraint", "equal weights"), fixed(jnp.array([0.0, 1.0])))),
    }
    return [
        Check(
            "Rich parametrisations make the last iterates nearly feasible.",
            "proved: the violation is bounded by the parametrisation's richness",
            contrasts=Contrast(
                f"mean violation of the last iterates of a bound of {_BOUND}",
                {f"predictors of {_LEVELS[1]} levels": rich, f"{_LEVELS[0]} levels": poor},
                "lower",
                threshold=0.005,
            ),
        ),
        Check(
            "The last iterate of a network trained by dual ascent is feasible.",
            "shown for fair learning (figures)",
            contrasts=Contrast(f"violation of a bound of {_KEPT} nats, nats", violations, "lower", threshold=0.005),
            moved_from="the same for a bound of 0.05 nats, which equal weights met; at the baselines' rate, where "
            "dual ascent diverged from one start of fifteen",
        ),
    ]


def _quantised(key: Key) -> Float[Array, " levels"]:
    """Mean violation over the last half of the iterates, Lagrangians minimised exactly, by number of levels."""
    goal, other = jax.random.uniform(key, (2, _POINTS), minval=-1, maxval=1)

    def run(count: Array) -> Array:
        # One grid for all counts, those beyond the last level doubled.
        grid = -1 + 2 * jnp.minimum(jnp.arange(_LEVELS[-1]), count - 1) / (count - 1)
        # The bound is added to what the grid's own best predictor leaves, so that every problem is feasible.
        least = jnp.mean(jnp.min(jnp.square(grid[:, None] - other[None]), axis=0))
        aggregator = dual_ascent(0.05, jnp.array([_BOUND]))

        # No loop of training: between two ascents the Lagrangian is minimised exactly, which needs no gradient.
        def ascend(state: PyTree, _: None) -> tuple[PyTree, Array]:
            weight = state.multipliers[0]
            costs = jnp.square(grid[:, None] - goal[None]) + weight * jnp.square(grid[:, None] - other[None])
            best = grid[jnp.argmin(costs, axis=0)]
            values = jnp.stack([jnp.mean(jnp.square(best - goal)), jnp.mean(jnp.square(best - other)) - least])
            _, state = aggregator.update(jnp.zeros((2, _POINTS)), state, values=values)
            return state, jnp.maximum(state.violation[0], 0)

        _, violations = jax.lax.scan(ascend, aggregator.init(goal), length=2000)
        return jnp.mean(violations[1000:])

    return jax.vmap(run)(jnp.array(_LEVELS))


def _violation(optimizer: optax.GradientTransformation, data: tuple[Array, Array], start: PyTree) -> Float[Array, ""]:
    """Of the last iterate, of the bound on the loss of digits below five, while the others' is minimised."""
    images, labels = data
    low = labels < _CLASSES // 2

    def losses(params: PyTree, batch: None) -> Float[Array, "2"]:
        nats = jax.vmap(cross_entropy)(logits(params, images)[:, None], labels[:, None])
        return jnp.stack([jnp.mean(nats, where=~low), jnp.mean(nats, where=low)])

    params, _ = trained(
        losses,
        start,
        optimizer,
        lambda step, key: None,
        _STEPS,
        key=jax.random.key(0),  # nothing is drawn
        value_and_grad=multi_value_and_grad,
    )
    return losses(params, None)[1] - _KEPT
