"""How wrong a hypergradient is at most, from what is at hand where it was taken."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import AbstractRecord, fault, space, tree_norm
from ._implicit import DENSE


class Smoothness(eqx.Module):
    r"""Constants of a lower level h and an upper level g, between the state at hand and the minimum.

    Args:
        convexity: μ, the least eigenvalue of :math:`\nabla^2_{xx}h`, above 0.
        hessian: Lipschitz constant of :math:`\nabla^2_{xx}h` in x; 0 for a quadratic.
        mixed: Lipschitz constant of :math:`\nabla_x\partial_\theta h` in x.
        upper: Lipschitz constant of :math:`\nabla_xg` in x.
        direct: Lipschitz constant of :math:`\partial_\theta g` in x; 0 by default, where g knows θ through x alone.
        mixed_norm: the largest singular value of :math:`\nabla_x\partial_\theta h` at hand; found where there are at
            most 256 unknowns or as many hyperparameters, asked for otherwise.

    Raises:
        ValueError: a constant is negative, or there is no convexity.

    Example:
        >>> from nablax import estimate
        >>> ridge = estimate.Smoothness(convexity=0.5, hessian=0.0, mixed=1.0, upper=2.0)
    """

    convexity: float | Float[Array, ""]
    hessian: float | Float[Array, ""]
    mixed: float | Float[Array, ""]
    upper: float | Float[Array, ""]
    direct: float | Float[Array, ""] = 0.0
    mixed_norm: float | Float[Array, ""] | None = None

    def __check_init__(self) -> None:
        for name in ("convexity", "hessian", "mixed", "upper", "direct", "mixed_norm"):
            value = getattr(self, name)
            if isinstance(value, float | int) and not (value > 0 or (value == 0 and name != "convexity")):
                least = "above 0" if name == "convexity" else "of 0 or more"
                raise fault(expected=f"{name}, a constant {least}", got=value, fix="See the arguments of Smoothness.")


class HypergradientError(AbstractRecord):
    r"""How far off a hypergradient is at most, and why.

    Attributes:
        state: :math:`\varepsilon=\lVert\nabla_xh\rVert/\mu`, at least the distance from x to the minimum.
        residual: :math:`\delta=\lVert Aq-\nabla_xg\rVert` of the linear system.
        gradient: ω, at least the distance to the gradient at the minimum. Where it is below the gradient's own length,
            a small step against it goes down.
    """

    state: Float[Array, ""]
    residual: Float[Array, ""]
    gradient: Float[Array, ""]


def error_bound(
    smoothness: Smoothness,
    mixed: Callable[[PyTree], tuple[PyTree]],
    unknown: PyTree,
    trained: PyTree,
    q: PyTree,
    slope: Float[Array, ""],
    residual: Float[Array, ""],
) -> HypergradientError:
    r"""Bound the error of :math:`\partial_\theta g-B^{\top}q`.

    With :math:`s=\lVert q\rVert+\delta/\mu\ge\lVert A^{-1}\nabla_xg\rVert` and Lipschitz constants L,

    .. math:: \omega = \frac{\lVert B\rVert\delta}{\mu}
        + (\lVert B\rVert+L_B\varepsilon)\,\frac{L_g+L_As}{\mu}\,\varepsilon
        + L_B\,s\,\varepsilon + L_{\partial g}\,\varepsilon

    Args:
        smoothness: the constants.
        mixed: ``q -> (B^T q,)``.
        unknown: x.
        trained: θ.
        q: that solves the system, nearly.
        slope: length of the lower level's gradient at x.
        residual: δ.

    References:
        - Salehi, Mukherjee, Roberts and Ehrhardt, "An adaptively inexact first-order method for bilevel optimization
          with application to hyperparameter learning", 2023, https://arxiv.org/abs/2308.10098 (a bound of the same
          three parts; this one is derived here with the length of q itself, and with the direct term)
    """
    mu = smoothness.convexity
    norm = _spectral_norm(mixed, unknown, trained) if smoothness.mixed_norm is None else smoothness.mixed_norm
    state, short = slope / mu, residual / mu
    length = tree_norm(q) + short
    moved = (smoothness.upper + smoothness.hessian * length) / mu * state
    bound = norm * short + (norm + smoothness.mixed * state) * moved
    bound = bound + (smoothness.mixed * length + smoothness.direct) * state
    return HypergradientError(state, residual, jnp.asarray(bound))


def _spectral_norm(mixed: Callable[[PyTree], tuple[PyTree]], unknown: PyTree, trained: PyTree) -> Array:
    """The largest singular value, by the Gramian over the shorter side."""
    above, below = space(trained), space(unknown)
    shorter = min(above.flat.size, below.flat.size)
    if shorter > DENSE:
        raise fault(
            expected=f"mixed_norm, where there are more than {DENSE} unknowns and hyperparameters",
            got="none",
            fix="Pass Smoothness(mixed_norm=...), a bound on the mixed derivative's largest singular value.",
        )

    def transposed(vector: Array) -> Array:
        return space(mixed(below.tree(vector))[0]).flat

    if below.flat.size == shorter:
        matrix = jax.vmap(transposed)(jnp.eye(shorter, dtype=below.flat.dtype))
    else:
        product = jax.linear_transpose(transposed, below.flat)
        matrix = jax.vmap(lambda row: product(row)[0])(jnp.eye(shorter, dtype=above.flat.dtype))
    return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(matrix @ matrix.T)[-1], 0))


__all__ = ["HypergradientError", "Smoothness", "error_bound"]
