"""How much of the gradient, and of the step, lies in the few directions of large curvature."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._core import (
    AbstractRecord,
    Finding,
    Key,
    canonical_convolutions,
    check_callable,
    check_count,
    check_key,
    nonzero,
    peak,
    table,
)
from ..._pages import Card, Series, figure, markup, plot
from ...calculus import SpectralDensity
from ._along import Point, rescaled
from ._curvature import Curvature, curvature, hessian
from ._part import Part, Setting
from ._shared import Shared


class Subspace(AbstractRecord):
    r"""The top of the Hessian's spectrum and what lives there; in the optimiser's coordinates if it has any.

    Attributes:
        values: largest eigenvalues first; of :math:`R^{1/2}HR^{1/2}`, without unit, where rates were given.
        residuals: an eigenvalue lies within this distance of each value.
        gradient_share: share of the gradient's squared length in the span of the first 1, 2, … eigenvectors.
        update_share: the same of the update; NaN without one.
        random_share: what a random direction has there, for comparison.
        lowest: the smallest eigenvalue is at most this, in the unit of ``values``.
        spectrum: nodes and weights of the quadrature; ``spectrum.density(grid, width)`` draws it.
    """

    values: Float[Array, " count"]
    residuals: Float[Array, " count"]
    gradient_share: Float[Array, " count"]
    update_share: Float[Array, " count"]
    random_share: Float[Array, " count"]
    lowest: Float[Array, ""]
    spectrum: SpectralDensity

    def rows(self) -> list[tuple[str, Any, str]]:
        """Lines of the table."""
        count = self.values.shape[0]
        return [
            (f"gradient in the top {count} directions", self.gradient_share[-1], "share"),
            (f"update in the top {count} directions", self.update_share[-1], "share"),
            ("a random direction there", self.random_share[-1], "share"),
            ("smallest eigenvalue, at most", self.lowest, "as below"),
        ]

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, and the eigenvalues.
        """
        values = ", ".join(f"{v:.3g} ± {r:.1g}" for v, r in zip(np.asarray(self.values), np.asarray(self.residuals)))
        return table("Top of the spectrum", self.rows(), [f"eigenvalues (± residual): {values}"])


def subspace(
    loss: Callable[..., Float[Array, ""]],
    params: PyTree,
    *args: Any,
    update: PyTree | None = None,
    rates: PyTree | None = None,
    key: Key,
    count: int = 5,
    steps: int = 40,
) -> Subspace:
    r"""Measure the share of gradient and update in the top Hessian subspace.

    .. math::
        \frac{\lVert V_k^{\top}R^{1/2}g\rVert^2}{\lVert R^{1/2}g\rVert^2},\qquad
        \frac{\lVert V_k^{\top}R^{-1/2}u\rVert^2}{\lVert R^{-1/2}u\rVert^2},\qquad
        R^{1/2}HR^{1/2}V = V\Lambda

    In these coordinates the optimiser is plain gradient descent of rate one; without ``rates``, R is the identity
    and the spectrum is the Hessian's own. A share near one says that the step goes to and fro across the ravine
    rather than along it.

    Args:
        loss: ``loss(params, *args) -> scalar``.
        params: any pytree; inexact leaves move.
        *args: passed on to the loss.
        update: the step, shaped like the inexact leaves, or None.
        rates: of the optimiser, ``update_rule(...).rates``; None for the bare Hessian.
        key: of the random start.
        count: directions, 5 by default.
        steps: Hessian products, 40 by default.

    Returns:
        A `Subspace`.

    Raises:
        ValueError: fewer than one direction or product, or a loss that is not one real number.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.diagnose import subspace
        >>> loss = lambda p: jnp.sum(jnp.array([9.0, 1.0, 1.0]) * p**2) / 2
        >>> record = subspace(loss, jnp.ones(3), key=jax.random.key(0), count=1)
        >>> round(float(record.gradient_share[0]), 3)  # 81 / 83
        0.976

    Cost:
        One gradient and ``steps`` Hessian products.

    References:
        - Gur-Ari, Roberts and Dyer, "Gradient Descent Happens in a Tiny Subspace", 2018,
          https://arxiv.org/abs/1812.04754, and the first author's code, https://github.com/guygurari/scope (the share,
          of the whole training set's gradient, by Lanczos from a random start; ten eigenvectors there. The optimiser's
          coordinates are ours)
    """
    check_callable(loss, what="loss", fix="Pass loss(params, *args) -> scalar.", takes=1 + len(args))
    check_key(key)
    check_count(count, what="count")
    check_count(steps, what="steps")
    return _subspace(loss, params, args, update, rates, key, count, steps)


@eqx.filter_jit
@canonical_convolutions
def _subspace(
    loss: Callable,
    params: PyTree,
    args: tuple,
    update: PyTree | None,
    rates: PyTree | None,
    key: Key,
    count: int,
    steps: int,
) -> Subspace:
    point = Point.of(params)
    value = point.loss(loss, *args)
    scale = jnp.ones_like(point.vector) if rates is None else point.like(rates, "rates")
    found = curvature(hessian(value, point.vector), scale, count=count, steps=steps, key=key)
    step = None if update is None else point.like(update, "an update")
    return shares(found, scale, jax.grad(value)(point.vector), step)


def shares(
    found: Curvature,
    rates: Float[Array, " dim"],
    gradient: Float[Array, " dim"],
    update: Float[Array, " dim"] | None,
) -> Subspace:
    """Project gradient and update on the eigenvectors."""
    count = found.values.shape[0]

    def share(direction: Float[Array, " dim"]) -> Float[Array, " count"]:
        unit = direction / peak(direction)
        total = unit @ unit
        return jnp.cumsum((found.vectors @ unit) ** 2) / nonzero(total)

    return Subspace(
        values=found.values,
        residuals=found.residuals,
        gradient_share=share(rescaled(gradient, rates, 0.5)),
        update_share=jnp.full((count,), jnp.nan) if update is None else share(rescaled(update, rates, -0.5)),
        random_share=jnp.arange(1, count + 1, dtype=found.values.dtype) / found.spectrum.dimension,
        lowest=jnp.min(found.spectrum.nodes),
        spectrum=found.spectrum,
    )


def measure(shared: Shared) -> Subspace:
    """Of a check-up."""
    return shares(shared.curvature, shared.rates, shared.gradient, shared.update)


def judge(part: Subspace, setting: Setting) -> list[Finding]:
    """Nothing: where gradients lie is no fault of theirs."""
    return []


def card(part: Subspace, setting: Setting) -> Card | None:
    """The spectrum, and how much of gradient and step lies at its top."""
    nodes, weights = np.asarray(part.spectrum.nodes[0], float), np.asarray(part.spectrum.weights[0], float)
    if not np.isfinite(nodes).all():
        return None
    width = max(float(np.max(np.abs(nodes))) * 1e-3, 1e-300)
    picture = plot(
        [Series("quadrature of the spectrum", nodes, np.maximum(weights * part.spectrum.dimension, 1e-3), "stems")],
        x_label="eigenvalue of rate × Hessian",
        y_label="eigenvalues there",
        log_y=True,
        x_symlog=width,
    )
    top = part.values.shape[0]
    small = f"of the gradient lies in the top {top} of {part.spectrum.dimension:,} directions"
    said = f"Of the update: {figure(100 * part.update_share[-1], ' %')}. "
    said += f"The smallest eigenvalue is at most {figure(part.lowest)}."
    return Card("Spectrum", figure(100 * part.gradient_share[-1], " %"), small, said, markup(picture))


PART = Part("subspace", measure, judge, card)
