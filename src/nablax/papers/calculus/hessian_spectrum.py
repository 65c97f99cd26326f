"""Empirical Analysis of the Hessian of Over-Parametrized Neural Networks: a bulk of parameters, outliers of data.

The authors' code, https://github.com/leventsagun/hessian-for-basicDL, differentiates twice for the whole Hessian, of
networks of some ten hidden units on points in the plane, where full-batch descent at a rate of 0.1 has brought the
gradient's norm below 1e-4. Here the networks are larger, the images are digits and the spectrum is from products.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import Key
from ...calculus import gauss_newton_product, hessian_product, top_eigenvalues
from .._contrast import Contrast
from .._problems._classifier import cross_entropy, logits, loss, network, pooled_digits
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="hessian-spectrum",
    title="Empirical Analysis of the Hessian of Over-Parametrized Neural Networks",
    year=2017,
    link="https://arxiv.org/abs/1706.04454",
    rooms=("calculus",),
    row=144,
    read="code",
)

_FOUND, _STEPS = 80, 140
_IMAGES = 200


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train small networks on 200 digits of two, five or ten classes and look at the eigenvalues of their Hessians.

    An outlier is an eigenvalue above a twentieth of the largest, and the bulk is what lies below a hundredth of it in
    magnitude. Both limits and the criteria were set after a look at one seed.

    Args:
        key: of all randomness.
        full: images of 64 pixels, hidden layers of 32 and 256 units and five seeds, instead of 16 pixels, 8 and 64
            units and two seeds. The paper's networks for MNIST and CIFAR are run at neither scale.

    Returns:
        Four checks.
    """
    small, large, seeds = (32, 256, 5) if full else (8, 64, 2)
    images, labels = pooled_digits(full)
    sizes = {hidden: (images.shape[1] + 1) * hidden + (hidden + 1) * 10 for hidden in (small, large)}

    def spectra(classes: int, hidden: int, *mixtures: tuple[float, float]) -> list[np.ndarray]:
        chosen = np.flatnonzero(np.asarray(labels) < classes)[:_IMAGES]
        data, width = (images[chosen], labels[chosen]), jnp.array(hidden)
        params = _trained(jax.random.split(key, seeds), large, width, *data)
        return [np.asarray(_largest(params, width, *data, jnp.array(mixture, jnp.float32))) for mixture in mixtures]

    # Both ends of the rest, since it has no sign.
    hessian, gauss_newton, upper, lower = spectra(10, large, (1, 0), (0, 1), (1, -1), (-1, 1))
    two, five, narrow = (spectra(c, hidden, (1, 0))[0] for c, hidden in ((2, large), (5, large), (10, small)))
    noise = _wigner(sizes[large])[None, ::-1]
    growth = _outliers(hessian) / _outliers(narrow)
    more = f"{sizes[large] / sizes[small]:.1f} times the parameters"

    def gap(part: np.ndarray) -> float:
        return float(np.abs(part[:, :5] / hessian[:, :5] - 1).max())

    bulks = {"trained network": _bulk(hessian, sizes[large]), "random symmetric matrix": _bulk(noise, sizes[large])}
    factors = {
        "trained network": max(growth, 1 / growth),
        "random symmetric matrix": _outliers(noise) / _outliers(_wigner(sizes[small])[None, ::-1]),
    }
    growths = [
        (f"factor of the outliers' number, {b} classes for {a}", _outliers(second) / _outliers(first), threshold)
        for a, b, first, second, threshold in ((2, 5, two, five, 2.0), (5, 10, five, hessian, 1.5))
    ]
    gaps = {"Gauss-Newton part": gap(gauss_newton), "the rest": gap(upper)}
    largest = {
        "the rest": np.max(np.maximum(upper, lower)[:, 0] / hessian[:, 0]),
        "Gauss-Newton part": np.max(gauss_newton[:, 0] / hessian[:, 0]),
    }
    return [
        Check(
            "the spectrum is a bulk at zero and a few outliers",
            "stated in words",
            contrasts=Contrast(
                "share of the eigenvalues below a hundredth of the largest", bulks, "higher", threshold=0.9
            ),
        ),
        Check(
            "more parameters make the bulk larger and leave the outliers as many",
            "stated in words",
            contrasts=Contrast(f"factor of the outliers' number, {more}", factors, "lower", threshold=2.0),
        ),
        Check(
            "more classes make more outliers",
            "stated in words",
            contrasts=[
                Contrast(metric, {"classes": factor, f"{more} instead": growth}, "higher", threshold=threshold)
                for metric, factor, threshold in growths
            ],
        ),
        Check(
            "the outliers are those of the Gauss-Newton part, the covariance of the outputs' gradients",
            "stated in words",
            contrasts=[
                Contrast("largest relative gap of five eigenvalues to the Hessian's", gaps, "lower", threshold=0.1),
                Contrast("largest eigenvalue, over the Hessian's", largest, "lower", threshold=0.2),
            ],
        ),
    ]


def _bulk(values: np.ndarray, size: int) -> float:
    """Share, mean over seeds, of eigenvalues below a hundredth of the largest."""
    return float(1 - np.mean(np.sum(np.abs(values) > 0.01 * values[:, :1], axis=1)) / size)


def _outliers(values: np.ndarray) -> float:
    """How many, mean over seeds, of eigenvalues that fall from the largest on."""
    return float(np.mean(np.sum(values > 0.05 * values[:, :1], axis=1)))


def _living(params: PyTree, width: Array) -> PyTree:
    """A narrow network is a wide one whose other units are zero, which they stay: one program for all widths."""
    (inner, shift), (outer, last) = params
    alive = (jnp.arange(len(shift)) < width).astype(inner.dtype)
    return [(inner * alive[None], shift * alive), (outer * alive[:, None], last)]


@functools.partial(jax.jit, static_argnums=1)
def _trained(
    keys: Key, hidden: int, width: Array, images: Float[Array, "images pixels"], labels: Int[Array, " images"]
) -> PyTree:
    def one(key: Key) -> PyTree:
        first, (outer, last) = network(key, (images.shape[1], hidden, 10))
        begin = _living([first, (outer * jnp.sqrt(hidden / width), last)], width)
        return trained(
            lambda params, batch: loss(params, *batch),
            begin,
            optax.sgd(0.3),
            lambda step, key: (images, labels),
            1500,
            key=key,
        )[0]

    return jax.lax.map(one, keys)


@jax.jit
def _largest(
    params: PyTree,
    width: Array,
    images: Float[Array, "images pixels"],
    labels: Int[Array, " images"],
    mixture: Float[Array, "2"],
) -> Float[Array, "seeds found"]:
    """Largest eigenvalues of a sum of the Hessian and of its Gauss-Newton part, network by network."""
    whole = hessian_product(loss)
    part = gauss_newton_product(lambda p, x, y: logits(p, x), lambda scores, x, y: cross_entropy(scores, y))

    def one(params: PyTree) -> Array:
        def product(v: PyTree) -> PyTree:
            both = (of(params, _living(v, width), images, labels) for of in (whole, part))
            return _living(jax.tree.map(lambda h, g: mixture[0] * h + mixture[1] * g, *both), width)

        return top_eigenvalues(product, params, count=_FOUND, steps=_STEPS, key=jax.random.key(0)).values

    return jax.lax.map(one, params)


def _wigner(size: int) -> np.ndarray:
    """Eigenvalues of a large random symmetric matrix of norm one: quantiles of Wigner's semicircle law."""
    x = np.linspace(-1, 1, 20_001)
    below = 0.5 + (x * np.sqrt(1 - x**2) + np.arcsin(x)) / np.pi
    return np.interp((np.arange(size) + 0.5) / size, below, x)


__all__ = ["PAPER", "checks"]
