"""Gradients of a variational bound through the draws of a location and a scale."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._core import (
    Key,
    check_callable,
    check_count,
    check_floats,
    check_instance,
    check_key,
    check_loss,
    check_loss_and_aux,
    check_shape,
    fault,
)
from .._frame import Objective, ValueAndGrad, estimator, required_key

CONDITIONERS = {"softplus": jax.nn.softplus, "exponential": jnp.exp, "identity": lambda c: c}


class LocationScale(eqx.Module):
    r"""Gaussian approximations :math:`z=m+Cu,\ u\sim N(0,I)`, by what is trained of them.

    .. math:: C = \operatorname{diag}\varphi(c) + L

    Mean field where there is no L, and full (Cholesky's factor) where there is one, below the diagonal.

    Args:
        location: m ``[dim]``.
        diagonal: c ``[dim]``, before the conditioner φ.
        lower: ``[dim, dim]``, of which the entries below the diagonal are L; None for mean field.
        conditioner: φ, "softplus" (the default), "exponential" or "identity". The first and last change by no more than
            c does, which keeps the gradient's variance within a square of the distance from the optimum; the
            exponential, for all that its scale is never zero, has no such bound.

    Raises:
        ValueError: an argument makes no sense.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> family = estimate.LocationScale(jnp.zeros(2), jnp.ones(2), conditioner="identity")
        >>> family.sample(5, key=jax.random.key(0)).shape, round(float(family.entropy()), 3)  # log(2πe)
        ((5, 2), 2.838)

    Cost: a product with C a draw.
    """

    location: Float[Array, " dim"]
    diagonal: Float[Array, " dim"]
    lower: Float[Array, "dim dim"] | None = None
    conditioner: Literal["softplus", "exponential", "identity"] = eqx.field(static=True, default="softplus")

    def __check_init__(self) -> None:
        if self.conditioner not in CONDITIONERS:
            raise fault(
                expected=f"a conditioner among {', '.join(CONDITIONERS)}",
                got=repr(self.conditioner),
                fix="Choose one of these names.",
            )

    def scale(self) -> Float[Array, " dim"] | Float[Array, "dim dim"]:
        """C: its diagonal for mean field, the whole triangle otherwise."""
        diagonal = CONDITIONERS[self.conditioner](self.diagonal)
        return diagonal if self.lower is None else jnp.diag(diagonal) + jnp.tril(self.lower, -1)

    def sample(self, count: int, *, key: Key) -> Float[Array, "count dim"]:
        """Draw points, differentiable in what is trained.

        Args:
            count: of points.
            key: of the draws.

        Returns:
            A row each.
        """
        check_count(count, what="count")
        check_key(key)
        u = jax.random.normal(key, (count, len(self.location)), self.location.dtype)
        scale = self.scale()
        return self.location[None] + (u * scale[None] if self.lower is None else u @ scale.T)

    def entropy(self) -> Float[Array, ""]:
        r"""Its entropy, nats: :math:`\sum_i\log|\varphi(c_i)|+\tfrac d2\log 2\pi e`."""
        sizes = jnp.log(jnp.abs(CONDITIONERS[self.conditioner](self.diagonal)))
        return jnp.sum(sizes) + 0.5 * len(self.location) * float(np.log(2 * np.pi * np.e))


def reparametrised_gradient(loss: Callable[..., Any], *, has_aux: bool = False, draws: int = 1) -> ValueAndGrad:
    r"""Estimate a variational bound's gradient through its draws; the entropy's part is exact.

    .. math:: F(\lambda)=\operatorname{E}\,\ell(m+Cu) - H(\lambda), \qquad
        \hat g=\frac1n\sum_k\nabla_\lambda\,\ell(m+Cu_k)-\nabla_\lambda H

    where :math:`\ell=-\log p(z,x)`, so that F is the negative evidence lower bound. It is unbiased. For a target of
    Hessian A and mode :math:`\bar z`, with :math:`B=AC` and :math:`a=A(m-\bar z)`, one draw's second moment is, entry
    by entry of the scale, :math:`\operatorname{E}\hat g_{ij}^2=a_i^2+\lVert B_i\rVert^2+2B_{ij}^2`, of the location
    :math:`a_i^2+\lVert B_i\rVert^2`: a full scale adds up dim (dim + 1) / 2 of these, mean field dim.

    Args:
        loss: ``loss(z, *args) -> scalar``, of one point, such as a negative log posterior, differentiable.
        has_aux: whether it returns ``(scalar, aux)``.
        draws: n, 1 by default.

    Returns:
        ``(family, *args, key=key) -> (value, grads)`` with a `LocationScale`; auxiliary values have the draws as
        leading axis.

    Raises:
        ValueError: an argument makes no sense; when called: no `LocationScale`, shapes that do not fit, no key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> family = estimate.LocationScale(jnp.zeros(3), jnp.zeros(3))
        >>> bound = estimate.reparametrised_gradient(lambda z: jnp.sum((z - 1.0) ** 2) / 2, draws=10_000)
        >>> value, grads = bound(family, key=jax.random.key(0))
        >>> bool(jnp.allclose(grads.location, -1.0, atol=0.05))
        True

    Cost: one forward and backward pass of the loss a draw, side by side.

    References:
        - Kim, Wu, Oh and Gardner, "Practical and Matching Gradient Variance Bounds for Black-Box Variational Bayesian
          Inference", 2023, https://arxiv.org/abs/2303.10472 (after the abstract; the second moments are derived here,
          and tested, as is that the exponential has no bound)
    """
    check_callable(loss, what="loss", fix="Pass loss(z, *args) -> scalar.")
    check_count(draws, what="draws")

    def value_and_grad(params: LocationScale, *args: Any, key: Key | None = None, **kwargs: Any) -> tuple[Any, PyTree]:
        key = required_key(key, by="reparametrised_gradient")
        _check_family(params)

        def of(z: Float[Array, " dim"]) -> tuple[Array, PyTree]:
            found = loss(z, *args, **kwargs)
            return check_loss_and_aux(found) if has_aux else (check_loss(found), None)

        def bound(family: LocationScale) -> Any:
            values, aux = jax.vmap(of)(family.sample(draws, key=key))
            value = jnp.mean(values) - family.entropy()
            return (value, aux) if has_aux else value

        return estimator(bound, _exact, has_aux=has_aux, by=None)(params)

    return value_and_grad


def _exact(objective: Objective, trained: PyTree, key: object) -> tuple[Array, PyTree, PyTree]:
    (value, aux), grads = jax.value_and_grad(objective, has_aux=True)(trained)
    return value, aux, grads


def _check_family(family: Any) -> None:
    check_instance(family, LocationScale, what="an estimate.LocationScale", fix="Pass LocationScale(m, c).")
    location = check_shape(family.location, (None,), what="location", fix="Pass a vector.")
    dim = len(location)
    check_shape(family.diagonal, (dim,), what="diagonal", fix="Pass a number for each of the location's.")
    for leaf in jax.tree.leaves(family):
        check_floats(leaf, what="a family's parameters", fix="Pass arrays of floats.")
    if family.lower is not None:
        check_shape(family.lower, (dim, dim), what="lower", fix="Pass a square matrix as wide as the location.")


__all__ = ["LocationScale", "reparametrised_gradient"]
