"""CLASSP against elastic weight consolidation and plain descent, on permuted digits."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import Key
from ...regulate import classp
from .._contrast import Contrast
from .._problems._continual import Tasks, Weights, accuracies, cross_entropy, initial_weights, permuted_digits
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="classp",
    title="CLASSP: a Biologically-Inspired Approach to Continual Learning through Adjustment Suppression and Sparsity "
    "Promotion",
    year=2024,
    link="https://arxiv.org/abs/2405.09637",
    rooms=("regulate",),
    row=265,
    read="code",
)

_BATCH = 32
_SIZES = (64, 64, 64, 10)
# Each method takes the setting of its own that is best at the end, on the test sets of sequences not used below.
_RATE, _POWER, _THRESHOLD = 0.1, 1.0, 1e-2
_CONSOLIDATION = 100.0
# Tolerances: of the share of adjustments that are not zero, and of the accuracy lost, percentage points.
_SHARE, _LOSS = 1 / 3, 2.0


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Learn three permutations of the digits in sequence, and ask what is known at the end.

    Args:
        key: of all randomness.
        full: ten tasks, eight seeds in place of six and four times the epochs. The paper's image and sentiment data
            are not used at either scale.

    Returns:
        Two checks.
    """
    seeds, tasks, epochs = (8, 10, 20) if full else (6, 3, 5)
    data_key, start_key, order_key = jax.random.split(key, 3)
    data = permuted_digits(data_key, seeds=seeds, tasks=tasks)
    starts = jax.jit(jax.vmap(lambda k: initial_weights(k, _SIZES)))(jax.random.split(start_key, seeds))
    samples = data.labels.shape[-1] // _BATCH * _BATCH
    orders = jnp.tile(jnp.arange(samples), (seeds, tasks * epochs, 1))
    rows = jax.random.permutation(order_key, orders, axis=-1, independent=True).reshape(seeds, tasks, -1, _BATCH)

    suppressed = jax.jit(jax.vmap(jax.vmap(_suppressed, (0, None, None, None)), (None, 0, 0, 0)))
    known, share = suppressed(jnp.array([_THRESHOLD, 0.0]), data, starts, rows)
    consolidated = jax.jit(jax.vmap(jax.vmap(_consolidated, (0, None, None, None)), (None, 0, 0, 0)))
    others = consolidated(jnp.array([_CONSOLIDATION, 0.0]), data, starts, rows)
    (ours, without), (elastic, plain) = 100 * known.T, 100 * others.T
    return [
        Check(
            "It keeps more over all tasks than elastic weight consolidation.",
            "stated in words and figures, for images and texts",
            contrasts=Contrast(
                "mean accuracy at the end, %",
                {"CLASSP": ours, "elastic weight consolidation": elastic, "plain descent": plain},
                "higher",
            ),
        ),
        Check(
            "The threshold makes updates sparse: less than a third are not zero, at no more than 2 points of accuracy.",
            "stated in words",
            contrasts=Contrast(
                "largest miss of both, tolerances",
                {
                    "with threshold": np.maximum(share[:, 0] / _SHARE, (without - ours) / _LOSS),
                    "no threshold": share[:, 1] / _SHARE,
                },
                "lower",
                threshold=1.0,
            ),
        ),
    ]


class _Counted(NamedTuple):
    """How many updates were not zero, on average a weight."""

    moved: Float[Array, ""]


def _counted() -> optax.GradientTransformation:
    """Changes nothing, and counts."""

    def update(updates: PyTree, state: _Counted, params: PyTree = None) -> tuple[PyTree, _Counted]:
        flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(updates)])
        return updates, _Counted(state.moved + jnp.mean(flat != 0))

    return optax.GradientTransformation(lambda params: _Counted(jnp.zeros(())), update)


def _objective(weights: Weights, batch: tuple[Array, Array]) -> Float[Array, ""]:
    return cross_entropy(weights, *batch)


def _suppressed(
    threshold: Float[Array, ""], data: Tasks, start: Weights, rows: Int[Array, "tasks steps batch"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean accuracy after all tasks, of which the rule is told nothing, and the share of updates that are not zero."""
    tasks, each, _ = rows.shape
    weights, (moved,) = trained(
        _objective,
        start,
        optax.chain(classp(threshold, power=_POWER), _counted(), optax.sgd(_RATE)),
        lambda step, key: tuple(part[step // each][rows[step // each, step % each]] for part in data[:2]),
        tasks * each,
        key=jax.random.key(0),  # the rows are given
        record=lambda weights, state, value: state[1].moved,
        every=tasks * each,
    )
    return jnp.mean(accuracies(weights, *data[2:])), moved / (tasks * each)


def _consolidated(
    strength: Float[Array, ""], data: Tasks, start: Weights, rows: Int[Array, "tasks steps batch"]
) -> Float[Array, ""]:
    """Mean accuracy after all tasks; strength 0 is plain descent."""

    def task(known: tuple[Weights, Weights], part: tuple) -> tuple[tuple[Weights, Weights], None]:
        start, precision = known
        x, y, order = part

        # One Gaussian for all tasks so far. Where the penalty alone would overshoot, the step is shortened, as with an
        # implicit one.
        def consolidate(gradient: Array, weight: Array, mean: Array, precise: Array) -> Array:
            stiffness = strength * precise
            return (gradient + stiffness * (weight - mean)) / (1 + _RATE * stiffness)

        penalised = optax.stateless(lambda g, w: jax.tree.map(consolidate, g, w, start, precision))
        weights, _ = trained(
            _objective,
            start,
            optax.chain(penalised, optax.sgd(_RATE)),
            lambda step, key: (x[order[step]], y[order[step]]),
            len(order),
            key=jax.random.key(0),  # the rows are given
        )
        return (weights, optax.tree.add(precision, _fisher(weights, x, y))), None

    (weights, _), _ = jax.lax.scan(task, (start, optax.tree.zeros_like(start)), (*data[:2], rows))
    return jnp.mean(accuracies(weights, *data[2:]))


def _fisher(weights: Weights, x: Array, y: Array) -> PyTree:
    """Mean of the squared gradients of single samples."""

    def square(x: Array, y: Array) -> PyTree:
        return jax.tree.map(jnp.square, jax.grad(cross_entropy)(weights, x[None], y[None]))

    return jax.tree.map(lambda g: jnp.mean(g, axis=0), jax.vmap(square)(x[:256], y[:256]))
