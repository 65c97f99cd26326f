r"""How weights changed tells by which geometry they were learnt: the change is normal in the right potential's dual.

Mirror descent on a linear regression with far more weights than rows moves :math:`\nabla\phi(w)` by sums of the rows,
whatever the loss was on the way. With rows of independent numbers these sums are normal over the weights, and what
another potential makes of the same two sets of weights is not.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.stats import kstest

from ..._core import Key
from ...optimize import Potential, mirror_descent, negative_entropy, p_norm
from .._contrast import Contrast
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="geometry-of-plasticity",
    title="Synaptic Weight Distributions Depend on the Geometry of Plasticity",
    year=2023,
    link="https://arxiv.org/abs/2305.19394",
    rooms=("optimize",),
    row=154,
    read="code",
)

_WEIGHTS, _ROWS, _STEPS = 10_000, 50, 400
# It fits the targets by all three; by trial on a key that no record has.
_RATE = 1e-3


def _potentials() -> dict[str, Potential]:
    return {"2-norm": p_norm(2.0), "3-norm": p_norm(3.0), "negative entropy": negative_entropy()}


def _weights(potential: Potential, key: Key) -> tuple[Float[Array, " weights"], Float[Array, " weights"]]:
    """Weights before and after learning: lognormal sizes and random signs at first, as synapses have them."""
    size_key, sign_key, row_key, target_key = jax.random.split(key, 4)
    sizes = jnp.exp(0.5 * jax.random.normal(size_key, (_WEIGHTS,)))
    start = sizes * jax.random.rademacher(sign_key, (_WEIGHTS,), sizes.dtype)
    rows = jax.random.normal(row_key, (_ROWS, _WEIGHTS)) / _WEIGHTS**0.5
    targets = rows @ start + 30 * jax.random.normal(target_key, (_ROWS,))
    after, _ = trained(
        lambda w, _: jnp.sum((rows @ w - targets) ** 2) / 2,
        start,
        mirror_descent(_RATE * _WEIGHTS / _ROWS, potential),
        lambda step, key: (),
        _STEPS,
        key=key,
    )
    return start, after


def _distance(before: Array, after: Array, dual: Callable[[Array], Array]) -> float:
    """Of the change in the dual from a normal distribution of its mean and variance, by Kolmogorov and Smirnov."""
    change = np.asarray(dual(after) - dual(before))
    return float(kstest((change - change.mean()) / change.std(), "norm").statistic)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Learn by each of three potentials, and look at the change by all three.

    Args:
        key: of weights, rows and targets.
        full: four times as many repetitions. The paper's deep networks are at neither scale.

    Returns:
        Three checks, one a potential.
    """
    potentials = _potentials()
    listed = []
    with jax.enable_x64(True):
        for name, one in zip(potentials, jax.random.split(key, len(potentials))):
            learn = jax.jit(jax.vmap(lambda key, name=name: _weights(potentials[name], key)))
            before, after = learn(jax.random.split(one, 16 if full else 4))
            others = [name, *(other for other in potentials if other != name)]
            found = {
                f"in the dual of the {other}" + (", by which it learnt" if other == name else ""): [
                    _distance(b, a, potentials[other].gradient) for b, a in zip(before, after)
                ]
                for other in others
            }
            listed.append(
                Check(
                    f"What was learnt by the {name} is normal in its dual, and in no other's by far.",
                    "a theorem of wide networks, and a test between geometries of synapses",
                    contrasts=Contrast("distance of the change from a normal distribution", found, "lower", ratio=0.5),
                )
            )
    return listed


__all__ = ["PAPER", "checks"]
