"""Empirical Analysis of the Hessian of Over-Parametrized Neural Networks: a bulk of parameters, outliers of data."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._core import Key
from ...calculus import gauss_newton_product, hessian_product, top_eigenvalues
from .._problems._classifier import (
    cross_entropy,
    logits,
    loss,
    network,
    pooled_digits,
)
from .._records import Check, Paper

PAPER = Paper(
    slug="hessian-spectrum",
    title="Empirical Analysis of the Hessian of Over-Parametrized Neural Networks",
    year=2017,
    link="https://arxiv.org/abs/1706.04454",
    rooms=("calculus",),
    row=144,
    read="abstract",
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
    keys = jax.random.split(key, seeds)
    images, labels = pooled_digits(full)

    def some(classes: int) -> tuple[Array, Array]:
        chosen = np.flatnonzero(np.asarray(labels) < classes)[:_IMAGES]
        return images[chosen], labels[chosen]

    sets = [jnp.stack(arrays) for arrays in zip(*(some(classes) for classes in (2, 5, 10, 10)))]
    # Only of the wide network for ten classes is more asked for than the Hessian itself.
    parts = jnp.array([[True, False, False, False]]).repeat(4, axis=0).at[2].set(True)
    spectra = np.asarray(_spectra(keys, large, jnp.array([large, large, large, small]), *sets, parts)).swapaxes(0, 1)
    wide, narrow = dict(zip((2, 5, 10), spectra)), spectra[3, :, 0]
    pixels = images.shape[1]
    sizes = {hidden: (pixels + 1) * hidden + (hidden + 1) * 10 for hidden in (small, large)}
    noise = _wigner(sizes[large])

    hessian, gauss_newton, upper, lower = (wide[10][:, i] for i in range(4))
    top = hessian[:, :1]
    # Both ends of the remainder, since it has no sign.
    remainder = np.maximum(upper[:, 0], lower[:, 0]) / top[:, 0]
    agreement = np.abs(gauss_newton[:, :5] / hessian[:, :5] - 1).max(1)

    def outliers(values: np.ndarray) -> float:
        return float(np.mean(np.sum(values > 0.05 * values[:, :1], axis=1)))

    bulk = 1 - np.mean(np.sum(hessian > 0.01 * top, axis=1)) / sizes[large]
    bulk_of_noise = np.mean(np.abs(noise) < 0.01 * noise.max())
    counts = {classes: outliers(values[:, 0]) for classes, values in wide.items()}
    few = outliers(narrow)
    by_noise = np.sum(noise > 0.05 * noise.max()) / np.sum(_wigner(sizes[small]) > 0.05 * noise.max())

    def spectrum(axes: Any, curves: dict[str, np.ndarray]) -> None:
        for (name, values), colour in zip(curves.items(), ("C0", "C1", "C2")):
            ranks = 1 + np.arange(values.shape[1])
            for seed, row in enumerate(values):
                axes.plot(ranks, row / row[0], color=colour, lw=1.2, label="" if seed else name)
        axes.axhline(0.05, color="C2", lw=1, ls="--")
        axes.annotate("outliers above", (1.0, 0.05), xytext=(2, 3), textcoords="offset points")
        axes.set(xscale="log", yscale="log", ylim=(1e-3, 1.5), xlabel="rank", ylabel="eigenvalue over the largest")
        axes.legend(loc="lower left")

    return [
        Check(
            "the spectrum is a bulk at zero and a few outliers",
            "stated in words",
            f"{bulk:.3f} of the {sizes[large]} eigenvalues lie below a hundredth of the largest",
            "at least 0.9",
            bool(bulk >= 0.9 > bulk_of_noise),
            f"a random symmetric matrix of the same size: {bulk_of_noise:.3f}",
        ),
        Check(
            "more parameters make the bulk larger and leave the outliers as many",
            "stated in words",
            f"{few:.1f} outliers of {sizes[small]} parameters, {counts[10]:.1f} of {sizes[large]}",
            "their number changes by less than a factor of 2",
            bool(0.5 < counts[10] / few < 2 <= by_noise),
            f"a random symmetric matrix, from the one size to the other: a factor of {by_noise:.1f}",
            figure=lambda axes: spectrum(
                axes, {f"{sizes[large]} parameters": hessian, f"{sizes[small]} parameters": narrow}
            ),
        ),
        Check(
            "more classes make more outliers",
            "stated in words",
            ", ".join(f"{count:.1f} for {classes} classes" for classes, count in counts.items()),
            "at least twice as many for 5 classes as for 2, and for 10 at least 1.5 times as many as for 5",
            bool(counts[5] >= 2 * counts[2] and counts[10] >= 1.5 * counts[5] and not counts[10] >= 2 * few),
            f"{sizes[large] / sizes[small]:.1f} times the parameters instead: {counts[10] / few:.2f} times as many",
            figure=lambda axes: spectrum(
                axes, {f"{classes} classes": wide[classes][:, 0] for classes in sorted(wide, reverse=True)}
            ),
        ),
        Check(
            "the outliers are those of the Gauss-Newton part, the covariance of the outputs' gradients",
            "stated in words",
            f"its five largest eigenvalues differ from the Hessian's by at most {agreement.max():.3f} of themselves",
            "at most 0.1; of the rest of the Hessian the largest is below a fifth of the Hessian's",
            bool(agreement.max() <= 0.1 and remainder.max() <= 0.2),
            f"the rest, the networks' own curvature: {remainder.max():.3f} of the Hessian's largest",
        ),
    ]


@functools.partial(jax.jit, static_argnums=1)
def _spectra(
    keys: Key,
    hidden: int,
    widths: Int[Array, " sets"],
    images: Float[Array, "sets images pixels"],
    labels: Int[Array, "sets images"],
    parts: Bool[Array, "sets 4"],
) -> Float[Array, "seeds sets 4 found"]:
    """Largest eigenvalues after training: of the Hessian, its Gauss-Newton part, the rest, and minus the rest.

    Zeros stand where ``parts`` does not ask for them. A narrow network is a wide one whose other units are zero, which
    they stay, with the Hessian of the living alone: one program serves all widths.
    """
    whole = hessian_product(loss)
    part = gauss_newton_product(lambda p, x, y: logits(p, x), lambda scores, x, y: cross_entropy(scores, y))

    def spectra(key: Key, width: Array, x: Array, y: Array, wanted: Array) -> Array:
        (inner, shift), (outer, last) = network(key, (x.shape[1], hidden, 10))
        alive = (jnp.arange(hidden) < width).astype(x.dtype)
        outer = outer * jnp.sqrt(hidden / width)
        living = [(jnp.zeros_like(inner) + alive[None], alive), (jnp.zeros_like(outer) + alive[:, None], last + 1)]
        begin = jax.tree.map(jnp.multiply, [(inner, shift), (outer, last)], living)

        def step(params: PyTree, _: None) -> tuple[PyTree, None]:
            return jax.tree.map(lambda p, g: p - 0.3 * g, params, jax.grad(loss)(params, x, y)), None

        params, _ = jax.lax.scan(step, begin, None, length=1500)

        def largest(mixture: Float[Array, "2"]) -> Array:
            def product(v: PyTree) -> PyTree:
                v = jax.tree.map(jnp.multiply, v, living)
                both = whole(params, v, x, y), part(params, v, x, y)
                return jax.tree.map(lambda a, h, g: a * (mixture[0] * h + mixture[1] * g), living, *both)

            return top_eigenvalues(product, params, count=_FOUND, steps=_STEPS, key=key).values

        def asked(run: tuple[Array, Array]) -> Array:
            return jax.lax.cond(run[0], largest, lambda _: jnp.zeros(_FOUND), run[1])

        return jax.lax.map(asked, (wanted, jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0], [-1.0, 1.0]])))

    sets = widths, images, labels, parts
    return jax.lax.map(lambda key: jax.lax.map(lambda data: spectra(key, *data), sets), keys)


def _wigner(size: int) -> np.ndarray:
    """Eigenvalues of a large random symmetric matrix of norm one: quantiles of Wigner's semicircle law."""
    x = np.linspace(-1, 1, 20_001)
    below = 0.5 + (x * np.sqrt(1 - x**2) + np.arcsin(x)) / np.pi
    return np.interp((np.arange(size) + 0.5) / size, below, x)


__all__ = ["PAPER", "checks"]
