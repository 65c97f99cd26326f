"""The forward gradient beside backpropagation, both at the same number of floating-point operations.

The paper measures time: a forward gradient is a Jacobian-vector product, which it finds quicker than a backward pass.
Operations as the compiler counts them stand for time here, so that the outcome does not hang on the machine's load.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...estimate import forward_gradient
from .._problems._classifier import digits, loss, network
from .._problems._training import trained
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="forward-gradient",
    title="Gradients without Backpropagation",
    year=2022,
    link="https://arxiv.org/abs/2202.08587",
    rooms=("estimate",),
    row=95,
    read="code",
)

_BATCH = 32
_RATES = {
    "Beale": {
        "forward gradient": [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1],
        "backpropagation": [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1],
    },
    "digits": {
        "forward gradient": [1e-3, 3e-3, 1e-2, 3e-2],
        "backpropagation": [1e-1, 3e-1, 1.0, 3.0],
    },
}


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Descend Beale's function and a net's loss, for as many operations as backpropagation takes for its steps.

    Args:
        key: of starts, batches and directions.
        full: ten times the steps.

    Returns:
        Two checks.
    """
    steps = 2000 if full else 200
    checks = []
    for number, (problem, keys) in enumerate({"Beale": 12, "digits": 4}.items()):
        costs = {name: _operations(problem, name) for name in _RATES[problem]}
        budget = steps * costs["backpropagation"]
        runs = tuned(
            {name: _run(problem, name, max(1, round(budget / cost))) for name, cost in costs.items()},
            _RATES[problem],
            "lower",
            key=jax.random.fold_in(key, number),
            keys=keys,
        )
        share = costs["forward gradient"] / costs["backpropagation"]
        where = "On Beale's function" if problem == "Beale" else "On a net of the digits"
        checks.append(
            Check(
                f"{where} the forward gradient is further down after as much work as backpropagation.",
                "abstract: training up to twice as fast in some cases",
                contrasts=runs.contrast("log10 of the loss after the same number of operations", "lower"),
                expected=False,
                tried=f"{len(_RATES[problem]['backpropagation'])} rates each; a forward gradient takes {share:.2f} of "
                "backpropagation's operations, drawing not counted, and its variance grows with the parameters",
            )
        )
    return checks


def _problem(problem: str) -> tuple[Callable[[Key], PyTree], Callable[..., Array], Callable[..., PyTree]]:
    """Start, loss, and batches."""
    if problem == "Beale":

        def beale(point: Float[Array, " 2"], batch: None) -> Float[Array, ""]:
            x, y = point
            terms = jnp.stack([1.5 - x + x * y, 2.25 - x + x * y**2, 2.625 - x + x * y**3])
            return jnp.sum(terms**2)

        # Within a valley that leads to the minimum at (3, 1/2).
        return lambda key: jax.random.uniform(key, (2,), minval=-0.5, maxval=0.5), beale, lambda step, key: None
    images, labels = digits()

    def batches(step: Array, key: Key) -> tuple[Array, Array]:
        rows = jax.random.randint(key, (_BATCH,), 0, len(images))
        return images[rows], labels[rows]

    return lambda key: network(key, (64, 64, 10)), lambda net, batch: loss(net, *batch), batches


def _run(problem: str, name: str, steps: int) -> Callable[[Array, Key], Array]:
    start, objective, batches = _problem(problem)
    gradient = forward_gradient if name == "forward gradient" else jax.value_and_grad

    def run(rate: Float[Array, ""], key: Key) -> Float[Array, ""]:
        start_key, run_key = jax.random.split(key)
        begin = start(start_key)
        params, _ = trained(objective, begin, optax.sgd(rate), batches, steps, key=run_key, value_and_grad=gradient)
        whole = digits() if problem == "digits" else None
        found, first = objective(params, whole), objective(begin, whole)
        # A run that diverged has got nowhere.
        return jnp.log10(jnp.maximum(jnp.where(found < first, found, first), 1e-12))

    return run


def _operations(problem: str, name: str) -> float:
    """Floating-point operations of one gradient, as the compiler counts them; those of drawing a direction do not."""
    start, objective, batches = _problem(problem)
    key = jax.random.key(0)
    params, batch = start(key), batches(jnp.array(0), key)

    def gradient(params: PyTree, direction: PyTree) -> PyTree:
        if name == "backpropagation":
            return jax.value_and_grad(objective)(params, batch)
        value, slope = jax.jvp(lambda params: objective(params, batch), (params,), (direction,))
        return value, jax.tree.map(lambda v: slope * v, direction)

    return float(jax.jit(gradient).lower(params, params).compile().cost_analysis()["flops"])  # type: ignore[index]


__all__ = ["PAPER", "checks"]
