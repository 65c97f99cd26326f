"""How noisy black-box variational inference is: by the dimension, and by how far it stands from the optimum.

A Bayesian logistic regression on drawn data, whose posterior is smooth and strongly log-concave with constants that do
not depend on the dimension.
"""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...estimate import LocationScale, reparametrised_gradient
from .._contrast import Contrast, Curve
from .._problems._descent import descended
from .._records import Check, Paper

PAPER = Paper(
    slug="variational-gradient-variance",
    title="Practical and Matching Gradient Variance Bounds for Black-Box Variational Bayesian Inference",
    year=2023,
    link="https://arxiv.org/abs/2303.10472",
    rooms=("estimate",),
    row=133,
    read="abstract",
)

_FAMILIES = ("mean field", "full")
_DIMENSIONS = (4, 16, 64)
_CONDITIONERS: tuple[Literal["softplus", "exponential"], ...] = ("softplus", "exponential")
_WIDTHS = (4.0, 8.0, 16.0)  # of every unit, before the conditioner


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Measure variances of the gradient over dimensions, and over distances from the optimum.

    Args:
        key: of the data, and the draws.
        full: a dimension of 256 besides, and eight data sets in place of four.

    Returns:
        Two checks.
    """
    dimensions = (*_DIMENSIONS, 256) if full else _DIMENSIONS
    keys = jax.random.split(key, 8 if full else 4)
    found = [{name: np.asarray(v) for name, v in _by_family(d)(keys).items()} for d in dimensions]
    by_dimension = {name: np.log10(np.stack([one[name] for one in found], axis=1)) for name in _FAMILIES}
    wide: dict[str, np.ndarray] = {name: np.log10(np.asarray(_by_width(name)(keys))) for name in _CONDITIONERS}
    return [
        Check(
            "Mean field's gradient grows noisier with the dimension more slowly than that of a full scale.",
            "stated in words: the variance of mean field has provably superior dimensional dependence",
            contrasts=Contrast(
                "power of the dimension with which the gradient's variance grows",
                {name: _powers(dimensions, rows) for name, rows in by_dimension.items()},
                "lower",
                margin=0.5,
                curve=Curve("log10 of the dimension", np.log10(dimensions), by_dimension),
            ),
        ),
        Check(
            "With a nonlinear scale, too, the variance grows no faster than the distance from the optimum squared.",
            "stated in words: the bound generalises to nonlinear covariance parameterisations in use",
            contrasts=Contrast(
                "power of the distance with which the gradient's variance grows",
                {name: _powers(_WIDTHS, rows) for name, rows in wide.items()},
                "lower",
                threshold=2.2,
                curve=Curve("log10 of the width, before the conditioner", np.log10(_WIDTHS), wide),
            ),
        ),
    ]


def _powers(x: tuple, logs: np.ndarray) -> list[float]:
    return [float(np.polyfit(np.log10(np.array(x, float)), row, 1)[0]) for row in logs]


def _posterior(dimension: int, key: Key) -> tuple[Array, Array]:
    """Inputs of length about one times their labels' signs, two rows a dimension, and the posterior's mode."""
    row_key, weight_key, label_key = jax.random.split(key, 3)
    x = jax.random.normal(row_key, (2 * dimension, dimension)) / dimension**0.5
    share = jax.nn.sigmoid(2 * x @ jax.random.normal(weight_key, (dimension,)))
    signed = x * jnp.where(jax.random.bernoulli(label_key, share), 1.0, -1.0)[:, None]

    # The curvature lies between 1 and 3.
    return signed, descended(lambda z: _loss(z, signed), jnp.zeros(dimension), optax.sgd(0.4), 100)[0]


def _loss(z: Float[Array, " dim"], signed: Array) -> Float[Array, ""]:
    """Negative log posterior, with a standard normal prior."""
    return jnp.sum(jax.nn.softplus(-signed @ z)) + jnp.sum(z**2) / 2


def _variance(family: LocationScale, signed: Array, key: Key) -> Array:
    """Trace of the covariance of one draw's gradient."""
    estimate = reparametrised_gradient(_loss)
    drawn = jax.vmap(lambda key: estimate(family, signed, key=key)[1])(jax.random.split(key, 256))
    return sum((jnp.sum(jnp.var(leaf, axis=0)) for leaf in jax.tree.leaves(drawn)), start=jnp.zeros(()))


@functools.cache
def _by_family(dimension: int) -> Callable[[Key], dict[str, Array]]:
    def variances(key: Key) -> dict[str, Array]:
        data_key, way_key, draw_key = jax.random.split(key, 3)
        signed, mode = _posterior(dimension, data_key)
        way = jax.random.normal(way_key, (dimension,))
        # As far from the optimum in any dimension: the location by 1, and all of the scale's entries by 1 together.
        location, scale = mode + way / jnp.linalg.norm(way), jnp.full(dimension, dimension**-0.5)
        families = {
            "mean field": LocationScale(location, scale, conditioner="identity"),
            "full": LocationScale(location, scale, jnp.zeros((dimension, dimension)), "identity"),
        }
        return {name: _variance(family, signed, draw_key) for name, family in families.items()}

    return jax.jit(jax.vmap(variances))


@functools.cache
def _by_width(conditioner: Literal["softplus", "exponential"]) -> Callable[[Key], Array]:
    def variances(key: Key) -> Array:
        data_key, draw_key = jax.random.split(key)
        signed, mode = _posterior(4, data_key)
        widths = jnp.asarray(_WIDTHS)
        return jax.vmap(
            lambda width: _variance(LocationScale(mode, jnp.full(4, width), None, conditioner), signed, draw_key)
        )(widths)

    return jax.jit(jax.vmap(variances))


__all__ = ["PAPER", "checks"]
