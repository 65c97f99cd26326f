"""Linear networks trained by the Bures–Wasserstein loss: where they end, what stops them, and how the loss bends.

The data's covariance has eight eigenvalues, each 0.6 of the one before up to chance, of which a network of width three
can have three; it is taken along its own axes.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...calculus import hessian_product, top_eigenvalues
from ...optimize import bures_wasserstein_loss
from .._contrast import Contrast, Curve
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="bures-wasserstein",
    title="Critical Points and Convergence Analysis of Generative Deep Linear Networks Trained with Bures-Wasserstein "
    "Loss",
    year=2023,
    link="https://arxiv.org/abs/2303.03027",
    rooms=("optimize",),
    row=96,
    read="code",
)

_DIM, _WIDTH, _SMOOTHING, _KEYS = 8, 3, 0.01, 8
_STEPS, _EVERY, _SHARE = 1000, 20, 0.1
_LEAST = 1e-6  # of an excess, as a share of all variance, in single precision
_NEAR = 1e-3  # of a singular value that is nearly zero


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train networks of one to four layers by descent, and look at the loss's curvatures where they are known.

    Args:
        key: of spectra and starts.
        full: ten times as many steps.

    Returns:
        Three checks.
    """
    keys = jax.random.split(key, _KEYS)
    return [
        Check(
            "Descent from a balanced start of full rank comes within a ten-thousandth of the least loss of all, the "
            "same number for one to four layers; from one that lacks the largest direction it does not.",
            "gradient flow and descent converge under conditions on the initial weights, in words",
            contrasts=[_descents(keys, depth, _STEPS * (10 if full else 1)) for depth in (1, 2, 3, 4)],
        ),
        Check(
            "A cut to other eigenvectors than the largest, where the gradient is zero, is a saddle; that to the "
            "largest is none.",
            "critical points and minimisers are characterised, in words",
            contrasts=Contrast(
                "least curvature, by Lanczos",
                {
                    name: np.asarray(jax.jit(jax.vmap(partial(_least_curvature, kept=kept)))(keys))
                    for name, kept in (("cut to others", (0, 1, 3)), ("cut to the largest", (0, 1, 2)))
                },
                "lower",
                threshold=-0.1,
            ),
        ),
        Check(
            "Near a loss of rank the smoothed loss bends a tenth as much as the loss itself, or less.",
            "the Hessian can theoretically blow up; a smooth perturbative version",
            contrasts=Contrast(
                f"largest curvature where a singular value is {_NEAR:g}, decades",
                {
                    name: np.asarray(jax.jit(jax.vmap(partial(_largest_curvature, smoothing=smoothing)))(keys))
                    for name, smoothing in ((f"smoothed by {_SMOOTHING:g}", _SMOOTHING), ("not smoothed", 0.0))
                },
                "lower",
                margin=1.0,
            ),
        ),
    ]


def _spectrum(key: Key) -> Float[Array, " dim"]:
    return 4 * 0.6 ** jnp.arange(_DIM) * jnp.exp(0.1 * jax.random.normal(key, (_DIM,)))


def _frame(key: Key, lacking: int) -> Float[Array, "dim width"]:
    """Orthonormal columns, drawn, zero in so many of the first rows."""
    drawn = jnp.linalg.qr(jax.random.normal(key, (_DIM - lacking, _WIDTH)))[0]
    return jnp.concatenate([jnp.zeros((lacking, _WIDTH)), drawn])


def _descents(keys: Key, depth: int, steps: int) -> Contrast:
    """The excess over the least loss at the end, from both starts, at one rate."""

    def run(key: Key, lacking: int) -> Array:
        spectrum_key, start_key, train_key = jax.random.split(key, 3)
        values = _spectrum(spectrum_key)
        root = jnp.diag(jnp.sqrt(values))

        def loss(layers: list[Array], batch: Any) -> Array:
            product = layers[0]
            for layer in layers[1:]:
                product = product @ layer
            return bures_wasserstein_loss(product, root, smoothing=_SMOOTHING)

        # All singular values are one: each layer's Gram matrix is its neighbour's.
        layers = [_frame(start_key, lacking), *[jnp.eye(_WIDTH)] * (depth - 1)]
        least = jnp.sum((jnp.sqrt(values) - _SMOOTHING**0.5)[_WIDTH:] ** 2)
        _, excess = trained(
            loss,
            layers,
            optax.sgd(_SHARE / (depth * 4.0 ** (1 - 1 / depth))),
            lambda step, key: None,
            steps,
            key=train_key,
            record=lambda params, state, value: (value - least) / jnp.sum(values),
            every=steps // (_STEPS // _EVERY),
        )
        return jnp.log10(jnp.clip(excess, _LEAST, 1e3))

    names = {"with every direction": 0, "without the largest": 1}
    curves = {name: np.asarray(jax.jit(jax.vmap(partial(run, lacking=n)))(keys)) for name, n in names.items()}
    marks = np.arange(1, _STEPS // _EVERY + 1) * (steps // (_STEPS // _EVERY))
    return Contrast(
        f"excess loss over the variance, decades, {depth} layer{'s' if depth > 1 else ''}",
        {name: curve[:, -1] for name, curve in curves.items()},
        "lower",
        threshold=-4.0,
        curve=Curve("steps", marks, curves),
    )


def _bent(values: Array, at: Array, smoothing: float, sign: float, key: Key) -> Array:
    """The largest eigenvalue of the Hessian, times the sign."""
    product = hessian_product(partial(bures_wasserstein_loss, target=jnp.diag(jnp.sqrt(values)), smoothing=smoothing))
    return top_eigenvalues(lambda v: sign * product(at, v), at, count=1, steps=_DIM * _WIDTH, key=key).values[0]


def _least_curvature(key: Key, kept: tuple[int, ...]) -> Array:
    spectrum_key, lanczos_key = jax.random.split(key)
    values = _spectrum(spectrum_key)
    cut = jnp.diag(jnp.sqrt(values))[:, jnp.array(kept)]
    return -_bent(values, cut, 0.0, -1.0, lanczos_key)


def _largest_curvature(key: Key, smoothing: float) -> Array:
    spectrum_key, start_key, *both = jax.random.split(key, 4)
    values = _spectrum(spectrum_key)
    at = _frame(start_key, 0) * jnp.array([[1.0, 1.0, _NEAR]])
    ends = jnp.stack([_bent(values, at, smoothing, sign, k) for sign, k in zip((1.0, -1.0), both)])
    return jnp.log10(jnp.max(ends))


__all__ = ["PAPER", "checks"]
