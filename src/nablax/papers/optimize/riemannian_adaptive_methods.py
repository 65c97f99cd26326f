"""A tree embedded in the hyperbolic disc, by Riemannian rules with and without adapted rates.

The closure of a complete binary tree of depth five, 63 nodes and 258 pairs of ancestor and descendant: of each pair the
distance is to be less than those to ten nodes drawn at random, as in embeddings of taxonomies.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._core import Key
from ...optimize import riemannian_adam, riemannian_sgd
from ...spaces import PoincareBall
from .._problems._training import trained
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="riemannian-adaptive-methods",
    title="Riemannian Adaptive Optimization Methods",
    year=2018,
    link="https://arxiv.org/abs/1810.00760",
    rooms=("optimize", "spaces"),
    row=147,
    read="text",
)

_NODES, _BATCH, _NEGATIVES, _STEPS = 63, 32, 10, 500
_DISC = PoincareBall(2)


def _closure() -> Int[np.ndarray, "pairs 2"]:
    """Every node with each of its ancestors; the children of i are 2i + 1 and 2i + 2."""
    pairs = []
    for node in range(1, _NODES):
        above = node
        while above:
            above = (above - 1) // 2
            pairs.append((node, above))
    return np.array(pairs)


def _loss(points: Float[Array, "nodes 2"], pairs: Int[Array, "batch 2"], others: Int[Array, "batch k"]) -> Array:
    """Nats to tell the ancestor from the others by the distance."""

    def one(pair: Int[Array, " 2"], rest: Int[Array, " k"]) -> Array:
        near = _DISC.distance(points[pair[0]], points[pair[1]])
        far = jax.vmap(lambda node: _DISC.distance(points[pair[0]], points[node]))(rest)
        return near + jax.nn.logsumexp(-jnp.append(far, near))

    return jnp.mean(jax.vmap(one)(pairs, others))


def _embedded(make: Callable[[Array], Any]) -> Callable[[Array, Key], Array]:
    """The loss of all pairs at the end, with forty nodes drawn for each."""
    closure = jnp.asarray(_closure())

    def run(rate: Array, key: Key) -> Array:
        start_key, step_key, judge_key = jax.random.split(key, 3)
        points = 1e-3 * jax.random.uniform(start_key, (_NODES, 2), minval=-1, maxval=1)

        def batches(step: Array, key: Key) -> tuple[Array, Array]:
            pair_key, other_key = jax.random.split(key)
            pairs = closure[jax.random.randint(pair_key, (_BATCH,), 0, len(closure))]
            return pairs, jax.random.randint(other_key, (_BATCH, _NEGATIVES), 0, _NODES)

        points, _ = trained(
            lambda points, batch: _loss(points, *batch), points, make(rate), batches, _STEPS, key=step_key
        )
        others = jax.random.randint(judge_key, (len(closure), 4 * _NEGATIVES), 0, _NODES)
        return jnp.nan_to_num(_loss(points, closure, others), nan=10.0, posinf=10.0)

    return run


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Embed the tree by each rule at its best of ten rates.

    Args:
        key: of starts, batches and what they are held against.
        full: four times as many repetitions. The paper's taxonomy, WordNet, is at neither scale.

    Returns:
        One check.
    """
    adaptive = "Riemannian AMSGrad"
    rates = [float(rate) for rate in 10.0 ** (0.4 * np.arange(-7, 3))]
    steps = [float(rate) for rate in 10.0 ** (0.4 * np.arange(-4, 6))]
    methods = {
        adaptive: _embedded(lambda rate: riemannian_adam(rate, _DISC, amsgrad=True)),
        "Riemannian SGD": _embedded(lambda rate: riemannian_sgd(rate, _DISC)),
        "Riemannian SGD, momentum .9": _embedded(lambda rate: riemannian_sgd(rate, _DISC, momentum=0.9)),
    }
    grid = {name: steps if "SGD" in name else rates for name in methods}
    runs = tuned(methods, grid, "lower", key=key, keys=32 if full else 8)
    metric = "loss of all pairs, nats"
    stated = "faster convergence, and to a lower value of the training loss than the rules without, in the abstract"
    return [
        Check(
            "After as many steps the loss is lower by adapted rates than without, with momentum or not.",
            stated,
            expected=False,
            tried="500 and 3,000 steps; Adam, AMSGrad, Adagrad, without momentum too: plain descent is lower than each",
            contrasts=runs.contrast(metric, "lower"),
        ),
    ]


__all__ = ["PAPER", "checks"]
