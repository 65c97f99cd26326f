"""Where a state may end and what that says of an observation: the normal steps of twisted sequential Monte Carlo."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._paths._affine import AbstractAffinePath, affine
from .._transport import Transport

_BLEND = 0.15  # below this a(t), the Jacobian is too small to say what the covariance is
_FLOOR = 1e-3  # smallest eigenvalue of the covariance, in units of an isotropic one's


class Foreseen(NamedTuple):
    """Where one particle may end, N(mean, basis diag(spectrum) basisᵀ), and what it says of the observation.

    Attributes:
        mean: the denoiser.
        basis: of the covariance, eigenvectors in columns.
        spectrum: of the covariance, positive.
        factor: Cholesky factor of the observation's covariance.
        log_twist: the observation's log-density, in nats.
    """

    mean: Float[Array, " dim"]
    basis: Float[Array, "dim dim"]
    spectrum: Float[Array, " dim"]
    factor: Float[Array, "observed observed"]
    log_twist: Float[Array, ""]


class Chain(eqx.Module):
    """The chain of normal steps to the data, given ``matrix @ x + noise = observation``; all arrays flat.

    Args:
        transport: with a defined denoiser.
        matrix: of the observation.
        variance: of its noise, component by component.
        observation: what was observed.
        args: condition of the field, or None.
    """

    transport: Transport
    matrix: Float[Array, "observed dim"]
    variance: Float[Array, " observed"]
    observation: Float[Array, " observed"]
    args: PyTree

    @property
    def path(self) -> AbstractAffinePath:
        """The transport's."""
        return affine(self.transport.path, what="its normal steps")

    def look(self, t: Array, y: Float[Array, " dim"]) -> Foreseen:
        """Foresee the end from a state: Tweedie's mean and covariance."""

        def denoise(y: Array) -> Array:
            return self.transport.denoiser(t, y.reshape(self.transport.space.shape), self.args).reshape(-1)

        mean, push = jax.linearize(denoise, y)
        jacobian = jax.vmap(push)(jnp.eye(y.size, dtype=y.dtype))
        a, b, _, _ = self.path.coefficients(t)
        # (b²/a) J is 0/0 at the prior; there, and near it, blend into the covariance of standardised data.
        trust = a**4 / (a**4 + _BLEND**4)
        isotropic = b**2 / (a**2 + b**2)
        raw = (a**3 / (a**4 + _BLEND**4)) * b**2 * 0.5 * (jacobian + jacobian.T)
        spectrum, basis = jnp.linalg.eigh(raw, symmetrize_input=False)
        spectrum = jnp.maximum(spectrum + (1 - trust) * isotropic, _FLOOR * isotropic)
        factor = self._factor(basis, spectrum)
        return Foreseen(mean, basis, spectrum, factor, self._log_density(factor, mean))

    def end(self, ahead: Foreseen, noise: Float[Array, " dim+observed"]) -> Float[Array, " dim"]:
        """Draw the end given the observation, by Matheron's rule.

        The end and its observation are drawn jointly, then corrected by what was observed instead.
        """
        dim = ahead.mean.size
        drawn = ahead.mean + ahead.basis @ (jnp.sqrt(ahead.spectrum) * noise[:dim])
        error = jnp.sqrt(self.variance) * noise[dim:]
        gap = jax.scipy.linalg.cho_solve((ahead.factor, True), self.observation - self.matrix @ drawn - error)
        return drawn + ahead.basis @ (ahead.spectrum * (ahead.basis.T @ (self.matrix.T @ gap)))

    def move(
        self, t: Array, s: Array, y: Float[Array, " dim"], ahead: Foreseen, noise: Float[Array, " 2*dim+observed"]
    ) -> tuple[Float[Array, " dim"], Foreseen, Float[Array, ""]]:
        """Draw the state at ``s`` given that at ``t`` and the observation.

        Returns:
            The state; what is foreseen from it; what its log-weight gains.
        """
        dim = y.size
        a_t, b_t, _, _ = self.path.coefficients(t)
        a_s, b_s, _, _ = self.path.coefficients(s)
        ratio = a_t / a_s
        added = b_t**2 - ratio**2 * b_s**2
        to_end, to_now, spread = a_s * added / b_t**2, ratio * b_s**2 / b_t**2, added * b_s**2 / b_t**2
        moved = to_end * self.end(ahead, noise[dim:]) + to_now * y + jnp.sqrt(spread) * noise[:dim]
        # The observation's density given both states, under the law foreseen at t.
        shrink = to_end**2 * ahead.spectrum + spread
        innovation = ahead.basis.T @ (moved - to_end * ahead.mean - to_now * y)
        mean = ahead.mean + ahead.basis @ (to_end * ahead.spectrum / shrink * innovation)
        factor = self._factor(ahead.basis, _after(ahead.spectrum * spread / shrink, innovation))
        foreseen = self._log_density(factor, mean)
        then = self.look(s, _after(moved, foreseen))
        return moved, then, then.log_twist - foreseen

    def _log_density(self, factor: Array, mean: Array) -> Array:
        whitened = jax.scipy.linalg.solve_triangular(factor, self.observation - self.matrix @ mean, lower=True)
        constant = 0.5 * self.observation.size * jnp.log(2 * jnp.pi)
        return -0.5 * jnp.sum(jnp.square(whitened)) - jnp.sum(jnp.log(jnp.diagonal(factor))) - constant

    def _factor(self, basis: Array, spectrum: Array) -> Array:
        half = (self.matrix @ basis) * jnp.sqrt(spectrum)[None]
        return jnp.linalg.cholesky(half @ half.T + jnp.diag(self.variance), symmetrize_input=False)


def _after(value: Array, first: Array) -> Array:
    # On processors two batched factorisations at once may deadlock: each blocks a thread of the pool whose threads the
    # other needs (jaxlib 0.10). So they are chained. A float times zero is not folded away, for it may be NaN.
    return value + 0.0 * jnp.nan_to_num(first, nan=0.0, posinf=0.0, neginf=0.0)


__all__ = ["Chain", "Foreseen"]
