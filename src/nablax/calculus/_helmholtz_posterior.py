"""What scattered velocities say about a planar field: posteriors of velocity, divergence and vorticity."""

import jax.numpy as jnp
import jax.scipy.linalg as linalg
from jaxtyping import Array, Float

from .._core import AbstractRecord
from ._helmholtz_kernel import Part, Potential, turn, velocities


class Gaussian(AbstractRecord):
    """Joint normal distribution of some quantity at several points.

    Attributes:
        mean: shape ``[points, ...]``.
        covariance: the same shape twice; of the quantity itself, without observation noise.
    """

    mean: Float[Array, "points ..."]
    covariance: Float[Array, "points ..."]

    @property
    def deviation(self) -> Float[Array, "points ..."]:
        """Standard deviation of each number, shaped like ``mean``."""
        size = self.mean.size
        variance = jnp.diagonal(self.covariance.reshape(size, size)).reshape(self.mean.shape)
        return jnp.sqrt(jnp.maximum(variance, 0))


class HelmholtzPosterior(AbstractRecord):
    """What velocities at some places say about the field everywhere. Made by `HelmholtzProcess.condition`.

    Attributes:
        potential: prior of φ.
        stream: prior of ψ.
        positions: where the velocities were measured, shape ``[n, 2]``.
        factor: lower Cholesky factor of the data's covariance, noise included, shape ``[2n, 2n]``.
        weights: that covariance's inverse times the data, shape ``[n, 2]``.
    """

    potential: Potential
    stream: Potential
    positions: Float[Array, "n 2"]
    factor: Float[Array, "two_n two_n"]
    weights: Float[Array, "n 2"]

    def velocity(self, points: Float[Array, "m 2"], part: Part = "both") -> Gaussian:
        r"""Posterior of the velocity, or of one part of its Helmholtz decomposition.

        Args:
            points: where, shape ``[m, 2]``.
            part: ``"both"`` (default), ``"potential"`` for :math:`\nabla\phi` alone or ``"stream"`` for the
                divergence-free part alone.

        Returns:
            Mean ``[m, 2]`` and covariance ``[m, 2, m, 2]``. Its diagonal alone, for many points, comes from
            ``jax.vmap(lambda point: posterior.velocity(point[None]).deviation[0])(points)``.
        """
        cross = velocities(self.potential, self.stream, points, self.positions, part)
        return self._given(cross, velocities(self.potential, self.stream, points, points, part))

    def divergence(self, points: Float[Array, "m 2"]) -> Gaussian:
        r"""Posterior of :math:`\partial_x u + \partial_y v = \Delta\phi`, in units of velocity over length.

        Args:
            points: where, shape ``[m, 2]``.

        Returns:
            Mean ``[m]`` and covariance ``[m, m]``.
        """
        cross = self.potential.laplacian_gradient(points, self.positions)
        return self._given(cross, self.potential.laplacians(points, points))

    def vorticity(self, points: Float[Array, "m 2"]) -> Gaussian:
        r"""Posterior of :math:`\partial_x v - \partial_y u = -\Delta\psi`, positive for counter-clockwise turning.

        Args:
            points: where, shape ``[m, 2]``.

        Returns:
            Mean ``[m]`` and covariance ``[m, m]``, in units of velocity over length.
        """
        cross = -turn(self.stream.laplacian_gradient(points, self.positions))
        return self._given(cross, self.stream.laplacians(points, points))

    def _given(self, cross: Float[Array, "..."], prior: Float[Array, "..."]) -> Gaussian:
        shape = cross.shape[:-2]
        flat = cross.reshape(-1, self.weights.size)
        mean = flat @ self.weights.reshape(-1)
        whitened = linalg.solve_triangular(self.factor, flat.T, lower=True)
        covariance = prior.reshape(len(flat), len(flat)) - whitened.T @ whitened
        return Gaussian(mean.reshape(shape), covariance.reshape(prior.shape))
