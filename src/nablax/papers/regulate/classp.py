"""CLASSP against elastic weight consolidation and plain descent, on permuted digits."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...regulate import classp
from .._problems._continual import (
    Tasks,
    Weights,
    accuracies,
    cross_entropy,
    initial_weights,
    mean_and_error,
    permuted_digits,
)
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
_CONSOLIDATION = {"rate": 0.1, "strength": 100.0}


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
    data_key, run_key = jax.random.split(key)
    data, keys = permuted_digits(data_key, seeds=seeds, tasks=tasks), jax.random.split(run_key, seeds)
    # With and without threshold, plain descent, elastic weight consolidation: one program with other numbers.
    strength = _CONSOLIDATION["strength"]
    settings = {
        "suppress": jnp.array([True, True, False, False]),
        "threshold": jnp.array([_THRESHOLD, 0.0, 0.0, 0.0]),
        "rate": jnp.array([_RATE, _RATE, _CONSOLIDATION["rate"], _CONSOLIDATION["rate"]]),
        "consolidate": jnp.array([0.0, 0.0, 0.0, strength]),
    }
    methods = jax.vmap(partial(_learn, epochs=epochs), in_axes=(None, None, 0))
    tables, moved = jax.jit(jax.vmap(methods, in_axes=(0, 0, None)))(data, keys, settings)

    ends = [np.asarray(100 * t[:, -1].mean(1)) for t in np.moveaxis(np.asarray(tables), 1, 0)]
    ours, without, plain, consolidated = ("{:.1f} ± {:.1f} %".format(*mean_and_error(end)) for end in ends)
    gain, error = mean_and_error(ends[0] - ends[3])
    shares = [100 * float(share) for share in moved.mean(0)]
    return [
        Check(
            "It keeps more over all tasks than elastic weight consolidation.",
            "stated in words and figures, for images and texts",
            f"mean accuracy at the end {ours}, {gain:+.1f} ± {error:.1f} percentage points, with one number of "
            f"memory a "
            "weight in place of two",
            "above elastic weight consolidation by more than two standard errors, which itself is above plain descent",
            bool(gain > 2 * error and ends[3].mean() > ends[2].mean()),
            f"elastic weight consolidation {consolidated}; plain descent {plain}",
        ),
        Check(
            "The threshold makes updates sparse.",
            "stated in words",
            f"{shares[0]:.0f} % of all adjustments are not zero, at {ours} accuracy",
            "less than a third of all adjustments, and accuracy no more than 2 percentage points below that without",
            bool(shares[0] < 100 / 3 <= shares[1] and ends[0].mean() > ends[1].mean() - 2),
            f"no threshold: {shares[1]:.0f} %, at {without}",
        ),
    ]


def _learn(
    data: Tasks, key: Key, setting: dict[str, Array], *, epochs: int
) -> tuple[Float[Array, "tasks tasks"], Float[Array, ""]]:
    """Accuracy on every task after each, and the share of adjustments made that are not zero."""
    rate, consolidate = setting["rate"], setting["consolidate"]
    regulator = classp(setting["threshold"], power=_POWER)
    first, order_key = jax.random.split(key)
    weights = initial_weights(first, _SIZES)
    zeros = jax.tree.map(jnp.zeros_like, weights)

    def task(carry: tuple, part: tuple) -> tuple[tuple, tuple]:
        number, x, y = part
        _, _, precision, mean = carry

        def objective(weights: Weights, x: Array, y: Array) -> Array:
            # Elastic weight consolidation with one Gaussian for all tasks so far.
            gap = jax.tree.map(lambda p, w, m: jnp.sum(p * jnp.square(w - m)), precision, weights, mean)
            return cross_entropy(weights, x, y) + 0.5 * consolidate * optax.tree.sum(gap)

        def step(carry: tuple, rows: Array) -> tuple[tuple, Array]:
            weights, state = carry
            gradient = jax.grad(objective)(weights, x[rows], y[rows])
            suppressed, state = regulator.update(gradient, state, weights)
            updates = jax.tree.map(partial(jnp.where, setting["suppress"]), suppressed, gradient)
            moved = sum(jnp.sum(u != 0) for u in updates) / sum(u.size for u in updates)
            # Where the penalty alone would overshoot, the step is shortened, as with an implicit one.
            damped = jax.tree.map(lambda u, p: rate * u / (1 + rate * consolidate * p), updates, precision)
            return (optax.tree.sub(weights, damped), state), moved

        keys = jax.random.split(jax.random.fold_in(order_key, number), epochs)
        samples = y.size // _BATCH * _BATCH
        rows = jax.vmap(lambda k: jax.random.permutation(k, samples))(keys).reshape(-1, _BATCH)
        (weights, state), moved = jax.lax.scan(step, carry[:2], rows)
        more = _fisher(weights, x, y)
        carry = weights, state, optax.tree.add(precision, more), weights
        return carry, (accuracies(weights, data.test_inputs, data.test_labels), jnp.mean(moved))

    parts = (jnp.arange(data.labels.shape[0]), data.inputs, data.labels)
    _, (table, moved) = jax.lax.scan(task, (weights, regulator.init(weights), zeros, weights), parts)
    return table, jnp.mean(moved)


def _fisher(weights: Weights, x: Array, y: Array) -> PyTree:
    """Mean of the squared gradients of single samples."""

    def square(x: Array, y: Array) -> PyTree:
        return jax.tree.map(jnp.square, jax.grad(cross_entropy)(weights, x[None], y[None]))

    return jax.tree.map(lambda g: jnp.mean(g, axis=0), jax.vmap(square)(x[:256], y[:256]))
