"""Covariances of the derivatives of a planar squared-exponential process, in closed form."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import AbstractRecord, fault

Part = Literal["both", "potential", "stream"]


class Potential(AbstractRecord):
    r"""A scalar process in the plane, with covariance :math:`\sigma^2e^{-|x-x'|^2/2\ell^2}`.

    With :math:`q = (x-x')/\ell` and :math:`k` the covariance, the three derivatives that a vector field made
    from the process needs are

    .. math::
        \operatorname{cov}(\partial_i, \partial_j') = \tfrac{k}{\ell^2}(\delta_{ij} - q_iq_j),\quad
        \operatorname{cov}(\partial_i, \Delta') = \tfrac{k}{\ell^3}\,q_i(4 - |q|^2),\quad
        \operatorname{cov}(\Delta, \Delta') = \tfrac{k}{\ell^4}(|q|^4 - 8|q|^2 + 8)

    Attributes:
        length: scale over which the process varies.
        deviation: standard deviation of the process.
    """

    length: Float[Array, ""]
    deviation: Float[Array, ""]

    def gradients(self, left: Float[Array, "n 2"], right: Float[Array, "m 2"]) -> Float[Array, "n 2 m 2"]:
        """Covariance of the gradient at ``left`` with the gradient at ``right``."""
        q, _, k = self._parts(left, right)
        scale = k / self.length**2
        x, y = q[..., 0], q[..., 1]
        mixed = -scale * x * y
        first = jnp.stack([scale * (1 - x**2), mixed], axis=-1)
        second = jnp.stack([mixed, scale * (1 - y**2)], axis=-1)
        return jnp.stack([first, second], axis=1)

    def laplacian_gradient(self, left: Float[Array, "n 2"], right: Float[Array, "m 2"]) -> Float[Array, "n m 2"]:
        """Covariance of the Laplacian at ``left`` with the gradient at ``right``."""
        q, square, k = self._parts(left, right)
        # Odd in q: the derivative on the right turns the sign.
        return -(k / self.length**3 * (4 - square))[..., None] * q

    def laplacians(self, left: Float[Array, "n 2"], right: Float[Array, "m 2"]) -> Float[Array, "n m"]:
        """Covariance of the Laplacian at ``left`` with the Laplacian at ``right``."""
        _, square, k = self._parts(left, right)
        return k / self.length**4 * (square**2 - 8 * square + 8)

    def _parts(
        self, left: Float[Array, "n 2"], right: Float[Array, "m 2"]
    ) -> tuple[Float[Array, "n m 2"], Float[Array, "n m"], Float[Array, "n m"]]:
        q = (left[:, None, :] - right[None, :, :]) / self.length
        square = jnp.sum(q**2, axis=-1)
        return q, square, self.deviation**2 * jnp.exp(-square / 2)


def turn(gradient: Float[Array, "*shape 2"]) -> Float[Array, "*shape 2"]:
    """Velocity of a stream function from its gradient, (∂ψ/∂y, −∂ψ/∂x), along the last axis."""
    return jnp.stack([gradient[..., 1], -gradient[..., 0]], axis=-1)


def velocities(
    potential: Potential, stream: Potential, left: Float[Array, "n 2"], right: Float[Array, "m 2"], part: Part
) -> Float[Array, "n 2 m 2"]:
    """Covariance of the velocity ∇φ + (∂ψ/∂y, −∂ψ/∂x), or one of its parts, at ``left`` with that at ``right``."""
    if part not in ("both", "potential", "stream"):
        raise fault(expected="part 'both', 'potential' or 'stream'", got=repr(part), fix="Pass one of them.")
    if part == "potential":
        return potential.gradients(left, right)
    turned = turn(jnp.moveaxis(turn(stream.gradients(left, right)), 1, -1))
    rotation = jnp.moveaxis(turned, -1, 1)
    return rotation if part == "stream" else potential.gradients(left, right) + rotation
