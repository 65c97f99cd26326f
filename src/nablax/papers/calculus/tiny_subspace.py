"""Gradient Descent Happens in a Tiny Subspace: the gradient lies in one Hessian eigenvector a class.

Shares and overlaps are those of the first author's code, https://github.com/guygurari/scope: squared projections of the
unit gradient, and the mean squared length of one subspace's eigenvectors in the other, there of successive marks.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...calculus import hessian_product, top_eigenvalues
from .._contrast import Contrast, Curve
from .._problems._classifier import loss, network, pooled_digits
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="tiny-subspace",
    title="Gradient Descent Happens in a Tiny Subspace",
    year=2018,
    link="https://arxiv.org/abs/1812.04754",
    rooms=("calculus",),
    row=90,
    read="code",
)

_CLASSES = 10
_MARKS = 6
_IMAGES = 600


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train on the digits, stop at six marks, and project the gradient on the leading eigenvectors of the Hessian.

    The criteria were written after a look
    at one seed, which is not among those that are run. The first two checks run at a rate of 0.5, the third at 0.1 for
    five times the steps, so that training gets as far.

    Args:
        key: of all randomness.
        full: all 1797 images, of 64 pixels, 64 hidden units and ten times the steps, instead of 600 images of 16
            pixels, 16 units and 200 steps between marks. The paper's networks for CIFAR are run at neither scale.

    Returns:
        Three checks.
    """
    every, hidden, seeds = (2000, 64, 5) if full else (200, 16, 3)
    keys = jax.random.split(key, seeds)
    fast, overlaps = map(np.asarray, _train(keys, jnp.full(seeds, 0.5), every, hidden, full))
    slow, _ = map(np.asarray, _train(keys, jnp.full(seeds, 0.1), 5 * every, hidden, full))
    top, following = f"top {_CLASSES} eigenvectors", f"next {_CLASSES}"

    def lies_there(shares: np.ndarray, every: int) -> Contrast:
        found = {top: shares[..., 0], following: shares[..., 1]}
        return Contrast(
            "share of the squared gradient",
            {name: values[:, 1:].mean(1) for name, values in found.items()},
            "higher",
            threshold=0.7,
            curve=Curve("steps", every * np.arange(_MARKS), found),
        )

    kept = {
        f"{top} after {every} steps": overlaps[:, 0, 1, -1],
        f"{top} before training": overlaps[:, 0, 0, -1],
        f"{following} after {every} steps": overlaps[:, 1, 1, -1],
    }
    return [
        Check(
            "after a short time most of the gradient lies in the span of as many eigenvectors as there are classes",
            "stated in words",
            contrasts=lies_there(fast, every),
        ),
        Check(
            "that subspace is preserved over most of the training",
            "stated in words",
            contrasts=Contrast("overlap with the like subspace at the end", kept, "higher", threshold=0.7),
        ),
        Check(
            "the gradient lies there at a small rate too",
            "stated for a variety of scenarios",
            contrasts=lies_there(slow, 5 * every),
            moved_from="the same after as many steps at a rate of 0.1 as at 0.5, when training had not come as far",
        ),
    ]


@functools.partial(jax.jit, static_argnames=("every", "hidden", "full"))
def _train(
    keys: Key, rates: Float[Array, " runs"], every: int, hidden: int, full: bool
) -> tuple[Float[Array, "runs marks 2"], Float[Array, "runs 2 marks marks"]]:
    """Shares of the gradient in the leading and in the following eigenvectors, and overlaps of each between marks."""
    images, labels = (part if full else part[:_IMAGES] for part in pooled_digits(full))
    product = hessian_product(loss)

    def look(params: PyTree) -> tuple[Array, Array]:
        gradient, _ = ravel_pytree(jax.grad(loss)(params, images, labels))
        found = top_eigenvalues(
            lambda v: product(params, v, images, labels), params, count=2 * _CLASSES, steps=60, key=keys[0]
        )
        vectors = jax.vmap(lambda vector: ravel_pytree(vector)[0])(found.vectors).reshape(2, _CLASSES, -1)
        return vectors, jnp.sum((vectors @ gradient) ** 2, axis=1) / jnp.sum(gradient**2)

    def run(setting: tuple[Key, Array]) -> tuple[Array, Array]:
        key, rate = setting
        start, later = jax.random.split(key)
        begin = network(start, (images.shape[1], hidden, _CLASSES))
        _, after = trained(
            lambda params, rows: loss(params, images[rows], labels[rows]),
            begin,
            optax.sgd(rate),
            lambda step, key: jax.random.choice(key, len(images), (64,)),
            every * (_MARKS - 1),
            key=later,
            record=lambda params, *_: params,
            every=every,
        )
        marks = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), begin, after)
        vectors, shares = jax.lax.map(look, marks)
        overlaps = jnp.einsum("spin,tpjn->pstij", vectors, vectors) ** 2
        return shares, jnp.sum(overlaps, axis=(3, 4)) / _CLASSES

    return jax.lax.map(run, (keys, rates))


__all__ = ["PAPER", "checks"]
