"""Two-layer ReLU networks by convex optimisation: the objective against descent's, and the gap that is certified.

Twelve points of two features and a constant, all patterns; networks by Adam have five units or ten, and its best rate.
Robust ones are trained for the worst of a box's corners, convex or not, and compared there.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...optimize import convex_relu, relu_patterns, robust_relu
from .._contrast import Contrast
from .._problems._descent import descended
from .._records import Check, Paper

PAPER = Paper(
    slug="convex-relu",
    title="Efficient Global Optimization of Two-layer ReLU Networks: Quadratic-time Algorithms and Adversarial "
    "Training",
    year=2022,
    link="https://arxiv.org/abs/2201.01965",
    rooms=("optimize",),
    row=59,
    read="code",
)

_ROWS, _PENALTY, _STARTS, _STEPS = 12, 0.1, 20, 3000
_RADIUS, _ROBUST = 0.1, 4  # of boxes, by each feature; problems that are solved for them
_RATES = 2.0 ** -np.arange(2, 12)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Solve small problems to a certified gap, and train networks of five and of ten units from twenty starts.

    Args:
        key: of the problems and starts.
        full: 24 points, 500 patterns of which are drawn. The paper's images are at neither scale.

    Returns:
        Six checks.
    """
    metric = "objective above the certified bound, as a share of it"
    names = ("convex", "a tenth of the patterns", "Adam, 5 units", "Adam, 10 units", "Adam, 10 units, best of 20")
    found: dict[str, list[float]] = {name: [] for name in names}
    robust: dict[str, list[float]] = {
        name: [] for name in ("convex, robust", "convex", "Adam on the worst corners, 10 units")
    }
    for number, one in enumerate(jax.random.split(key, 16)):
        data_key, few_key, train_key, pattern_key = jax.random.split(one, 4)
        x, y = _problem(data_key, 2 * _ROWS if full else _ROWS)
        patterns = relu_patterns(x)
        some = np.asarray(jax.random.permutation(pattern_key, len(patterns)))[: len(patterns) // 10]
        best, fewer = (
            convex_relu(x, y, on, penalty=_PENALTY, tolerance=1e-3, throw=False) for on in (patterns, patterns[some])
        )
        few, trained = (np.asarray(_trained(x, y, k, units)) for k, units in ((few_key, 5), (train_key, 10)))
        values = (best.value, fewer.value, *(np.mean(run, axis=1).min() for run in (few, trained)), trained.min())
        for name, value in zip(names, values):
            found[name].append(float(value) / float(best.bound) - 1)
        if number < _ROBUST:
            radius = jnp.array([_RADIUS, _RADIUS, 0.0])
            safe = robust_relu(x, y, patterns, radius=radius, penalty=_PENALTY, throw=False)
            by_adam = np.mean(np.asarray(_trained(x, y, train_key, 10, _RADIUS)), axis=1).min()
            convex = [_objective(net.weights, net.outputs, _corners(x, _RADIUS), y) for net in (safe, best)]
            for name, value in zip(robust, (*convex, by_adam)):
                robust[name].append(float(value) / float(safe.bound) - 1)

    def against(method: str, baseline: str, threshold: float) -> Contrast:
        return Contrast(metric, {name: found[name] for name in (method, baseline)}, "lower", threshold=threshold)

    def in_corners(baseline: str) -> Contrast:
        values = {name: robust[name] for name in ("convex, robust", baseline)}
        return Contrast("objective in the worst corners above the robust bound, as a share", values, "lower")

    return [
        Check(
            "By all patterns a network comes within two thousandths of what no network is below; networks of five "
            "units by Adam, at its best rate and from one start, do not.",
            "global convergence, in words; descent can become stuck",
            contrasts=against("convex", "Adam, 5 units", 2e-3),
            moved_from="of ten units alone, which is the next claim, over three problems",
        ),
        Check(
            "Networks of ten units do not either.",
            "global convergence, in words; descent can become stuck",
            contrasts=against("convex", "Adam, 10 units", 2e-3),
        ),
        Check(
            "Nor does the best of twenty of them.",
            "global convergence, in words",
            expected=False,
            tried="ten rates with a cosine decay, 3,000 steps: the best of twenty starts is the optimum, without a "
            "certificate",
            contrasts=against("convex", "Adam, 10 units, best of 20", 2e-3),
        ),
        Check(
            "A tenth of the patterns, drawn at random, come within a tenth of it, and Adam from one start does not.",
            "approximately globally optimal by sampled programs, in words",
            expected=False,
            tried="a tenth of all patterns of twelve points, sixteen problems: a quarter to a half above the bound",
            contrasts=against("a tenth of the patterns", "Adam, 10 units", 0.1),
        ),
        Check(
            f"In the worst corners of boxes of {_RADIUS:g} round the points, the network of the robust problem has a "
            "lower objective than that of the plain one.",
            "convex formulations train networks robust to adversarial inputs, in words and figures",
            contrasts=in_corners("convex"),
            moved_from="lower than adversarial training by Adam too, which is the next claim",
        ),
        Check(
            "It has a lower one than adversarial training by Adam, at its best rate and from one start.",
            "more robust than by gradient attacks, in words and figures",
            expected=False,
            tried="four problems, ten rates: units that change sides within a box, which the convex problem forbids, "
            "reach less than any that do not",
            contrasts=in_corners("Adam on the worst corners, 10 units"),
        ),
    ]


def _problem(key: Key, rows: int) -> tuple[Float[Array, "rows 3"], Float[Array, " rows"]]:
    features, noise = (jax.random.normal(k, shape) for k, shape in zip(jax.random.split(key), ((rows, 2), (rows,))))
    x = jnp.concatenate([features, jnp.ones((rows, 1))], axis=1)
    return x, jnp.sin(2 * features[:, 0]) + 0.5 * features[:, 1] + 0.1 * noise


def _corners(x: Array, radius: float) -> Float[Array, "rows corners 3"]:
    """Each row with both features moved by the radius, either way."""
    moves = radius * jnp.array([[a, b, 0.0] for a in (-1.0, 1.0) for b in (-1.0, 1.0)])
    return x[:, None] + moves[None]


def _objective(weights: Array, outputs: Array, x: Float[Array, "rows corners 3"], y: Array) -> Float[Array, ""]:
    """What is minimised, where of each row's corners the worst counts."""
    left = jax.nn.relu(x @ weights.T) @ outputs - y[:, None]
    return jnp.sum(jnp.max(left**2, axis=1)) / 2 + _PENALTY / 2 * (jnp.sum(weights**2) + jnp.sum(outputs**2))


@partial(jax.jit, static_argnums=(3, 4))
def _trained(x: Array, y: Array, key: Key, units: int, radius: float = 0.0) -> Float[Array, "rates starts"]:
    """Final objectives, at every rate from the same starts."""
    at = _corners(x, radius) if radius else x[:, None]

    def objective(params: tuple[Array, Array]) -> Array:
        return _objective(*params, at, y)

    def run(rate: Array, key: Key) -> Array:
        first, second = jax.random.split(key)
        params = jax.random.normal(first, (units, 3)) / 3**0.5, jax.random.normal(second, (units,)) / units**0.5
        rule = optax.adam(optax.cosine_decay_schedule(rate, _STEPS))
        return objective(descended(objective, params, rule, _STEPS)[0])

    keys = jax.random.split(key, _STARTS)
    return jax.vmap(lambda rate: jax.vmap(lambda k: run(rate, k))(keys))(jnp.asarray(_RATES, jnp.float32))


__all__ = ["PAPER", "checks"]
