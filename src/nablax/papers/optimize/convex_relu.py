"""Two-layer ReLU networks by convex optimisation: the objective against descent's, and the gap that is certified.

Twelve points of two features and a constant, all patterns; networks of Adam have ten units and its best rate.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...optimize import convex_relu, relu_patterns
from .._contrast import Contrast
from .._records import Check, Paper

PAPER = Paper(
    slug="convex-relu",
    title="Efficient Global Optimization of Two-layer ReLU Networks: Quadratic-time Algorithms and Adversarial "
    "Training",
    year=2022,
    link="https://arxiv.org/abs/2201.01965",
    rooms=("optimize",),
    row=59,
    read="abstract",
)

_ROWS, _PENALTY, _UNITS, _STARTS, _STEPS = 12, 0.1, 10, 20, 3000
_RATES = 2.0 ** -np.arange(2, 12)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Solve small problems to a certified gap, and train networks of ten units on them from twenty starts.

    Args:
        key: of the problems and starts.
        full: 24 points, 500 patterns of which are drawn. The paper's images are at neither scale.

    Returns:
        Three checks.
    """
    problems = 3
    found: dict[str, list[float]] = {"convex": [], "Adam, one start": [], "Adam, best of 20 starts": []}
    gaps: dict[str, list[float]] = {"all patterns": [], "a tenth of them": []}
    for one in jax.random.split(key, problems):
        data_key, train_key, pattern_key = jax.random.split(one, 3)
        rows = 2 * _ROWS if full else _ROWS
        x, y = _problem(data_key, rows)
        patterns = relu_patterns(x)
        best = convex_relu(x, y, patterns, penalty=_PENALTY, tolerance=1e-3, throw=False)
        trained = np.asarray(_trained(x, y, train_key))
        rate = np.argmin(np.mean(trained, axis=1))
        bound = float(best.bound)
        found["convex"].append(float(best.value) / bound - 1)
        found["Adam, one start"].append(float(np.mean(trained[rate])) / bound - 1)
        found["Adam, best of 20 starts"].append(float(trained.min()) / bound - 1)
        some = np.asarray(jax.random.permutation(pattern_key, len(patterns)))[: len(patterns) // 10]
        fewer = convex_relu(x, y, patterns[some], penalty=_PENALTY, tolerance=1e-3, throw=False)
        gaps["all patterns"].append(float(best.value) / bound - 1)
        gaps["a tenth of them"].append(float(fewer.value) / bound - 1)
    metric = "objective above the certified bound, as a share of it"
    first, one_start, best_of = found
    return [
        Check(
            "By all patterns a network comes within two thousandths of what no network is below; a network of ten "
            "units by Adam, at its best rate and from one start, does not.",
            "global convergence, in words; descent can become stuck",
            contrasts=Contrast(metric, {name: found[name] for name in (first, one_start)}, "lower", threshold=2e-3),
        ),
        Check(
            "Nor does the best of twenty starts.",
            "in words: the same",
            contrasts=Contrast(metric, {name: found[name] for name in (first, best_of)}, "lower", threshold=2e-3),
        ),
        Check(
            "A tenth of the patterns, drawn at random, come within a tenth of it, and Adam from one start does not.",
            "approximately globally optimal by sampled programs, in words",
            contrasts=Contrast(
                metric,
                {"a tenth of the patterns": gaps["a tenth of them"], one_start: found[one_start]},
                "lower",
                threshold=0.1,
            ),
        ),
    ]


def _problem(key: Key, rows: int) -> tuple[Float[Array, "rows 3"], Float[Array, " rows"]]:
    features, noise = (jax.random.normal(k, shape) for k, shape in zip(jax.random.split(key), ((rows, 2), (rows,))))
    x = jnp.concatenate([features, jnp.ones((rows, 1))], axis=1)
    return x, jnp.sin(2 * features[:, 0]) + 0.5 * features[:, 1] + 0.1 * noise


@jax.jit
def _trained(x: Array, y: Array, key: Key) -> Float[Array, "rates starts"]:
    """Final objectives, at every rate from the same starts."""

    def objective(params: tuple[Array, Array]) -> Array:
        weights, outputs = params
        left = jax.nn.relu(x @ weights.T) @ outputs - y
        return jnp.sum(left**2) / 2 + _PENALTY / 2 * (jnp.sum(weights**2) + jnp.sum(outputs**2))

    def run(rate: Array, key: Key) -> Array:
        first, second = jax.random.split(key)
        params = jax.random.normal(first, (_UNITS, 3)) / 3**0.5, jax.random.normal(second, (_UNITS,)) / _UNITS**0.5
        rule = optax.adam(optax.cosine_decay_schedule(rate, _STEPS))

        def step(carry: tuple, _: None) -> tuple[tuple, None]:
            params, state = carry
            updates, state = rule.update(jax.grad(objective)(params), state)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, rule.init(params)), length=_STEPS)
        return objective(params)

    keys = jax.random.split(key, _STARTS)
    return jax.vmap(lambda rate: jax.vmap(lambda k: run(rate, k))(keys))(jnp.asarray(_RATES, jnp.float32))


__all__ = ["PAPER", "checks"]
