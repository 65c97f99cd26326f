"""A planar vector field from scattered, noisy velocities: gradient of one Gaussian process, rotation of another."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as linalg
import optimistix
from jaxtyping import Array, ArrayLike, Float, Int

from .._core import AbstractRecord, fault
from ._helmholtz_kernel import Part, Potential, velocities
from ._helmholtz_posterior import HelmholtzPosterior


class HelmholtzFit(AbstractRecord):
    """Outcome of `HelmholtzProcess.fit`.

    Attributes:
        process: the process with the parameters found.
        log_likelihood: of the data under it, in nats.
        gradient: largest derivative of the log-likelihood by the logarithm of a parameter, in nats; near zero at
            a maximum.
        steps: iterations taken.
        result: ``optimistix.RESULTS.successful`` or what went wrong.
    """

    process: "HelmholtzProcess"
    log_likelihood: Float[Array, ""]
    gradient: Float[Array, ""]
    steps: Int[Array, ""]
    result: optimistix.RESULTS


class HelmholtzProcess(eqx.Module):
    r"""Gaussian process prior on planar vector fields through their Helmholtz decomposition.

    .. math:: (u, v) = \nabla\phi + (\partial_y\psi, -\partial_x\psi) + \varepsilon,\qquad
              \phi\sim\mathcal{GP}(0, \sigma_\phi^2e^{-r^2/2\ell_\phi^2}),\quad
              \psi\sim\mathcal{GP}(0, \sigma_\psi^2e^{-r^2/2\ell_\psi^2}),\quad
              \varepsilon\sim\mathcal{N}(0, \tau^2)

    Each part has its own strength and scale, so that divergence and vorticity need not look alike, and both get
    posteriors with uncertainty. All covariances are closed-form derivatives of the kernel. The data's covariance
    gets :math:`10^2` machine epsilons of the prior velocity's variance on its diagonal besides the noise; double
    precision is advisable when the noise is below a hundredth of the velocities.

    Attributes:
        potential: prior of φ: ``length`` in units of length, ``deviation`` in units of velocity × length.
        stream: prior of ψ, likewise.
        noise: standard deviation of an observation's error per component, units of velocity.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.calculus import HelmholtzProcess
        >>> positions = jax.random.uniform(jax.random.key(0), (20, 2), minval=-1)
        >>> rotation = jnp.stack([-positions[:, 1], positions[:, 0]], axis=1)
        >>> process = HelmholtzProcess.make(potential=(1.0, 0.1), stream=(2.0, 4.0), noise=0.01)
        >>> vorticity = process.condition(positions, rotation).vorticity(jnp.zeros((1, 2)))
        >>> bool(abs(vorticity.mean[0] - 2) < 0.1)
        True

    Cost:
        O(n³) for n observations, once per `condition` and per step of `fit`; O(n²m) for m points.

    References:
        - Berlinghieri, Trippe, Burt, Giordano, Srinivasan, Özgökmen, Xia and Broderick, "Gaussian processes at
          the Helm(holtz): A more fluid model for ocean currents", 2023, https://arxiv.org/abs/2302.10364 (the
          model; the closed forms are derived here, and vorticity has the usual sign, which is the opposite of
          the paper's code)
    """

    potential: Potential
    stream: Potential
    noise: Float[Array, ""]

    @staticmethod
    def make(
        *, potential: tuple[ArrayLike, ArrayLike], stream: tuple[ArrayLike, ArrayLike], noise: ArrayLike
    ) -> "HelmholtzProcess":
        """Set the five parameters.

        Args:
            potential: ``(length, deviation)`` of φ.
            stream: ``(length, deviation)`` of ψ.
            noise: standard deviation of the observations' error.

        Returns:
            The process.
        """
        return HelmholtzProcess(
            Potential(*map(jnp.asarray, potential)), Potential(*map(jnp.asarray, stream)), jnp.asarray(noise)
        )

    @staticmethod
    def guess(positions: Float[Array, "n 2"], velocities: Float[Array, "n 2"]) -> "HelmholtzProcess":
        """Parameters to start a fit from: lengths like the data's spread, both parts alike, a tenth of noise.

        Args:
            positions: where, shape ``[n, 2]``.
            velocities: what was measured there, shape ``[n, 2]``.

        Returns:
            The process.
        """
        length = jnp.sqrt(jnp.mean(jnp.var(positions, axis=0)))
        speed = jnp.sqrt(jnp.mean(velocities**2) / 2)
        scales = (length, length * speed)
        return HelmholtzProcess.make(potential=scales, stream=scales, noise=speed / 10)

    def velocities(
        self, left: Float[Array, "n 2"], right: Float[Array, "m 2"], part: Part = "both"
    ) -> Float[Array, "n 2 m 2"]:
        """Prior covariance of the velocity at ``left`` with that at ``right``, without noise.

        Args:
            left: points, shape ``[n, 2]``.
            right: points, shape ``[m, 2]``. Where the two parts are independent, so is each from the other's.
            part: ``"both"``, ``"potential"`` or ``"stream"``.

        Returns:
            Covariance, shape ``[n, 2, m, 2]``.

        Raises:
            ValueError: no such part.
        """
        return velocities(self.potential, self.stream, left, right, part)

    def log_likelihood(self, positions: Float[Array, "n 2"], velocities: Float[Array, "n 2"]) -> Float[Array, ""]:
        """Log-density of the observed velocities under the prior with noise.

        Args:
            positions: where, shape ``[n, 2]``.
            velocities: what was measured there, shape ``[n, 2]``.

        Returns:
            Nats, in total; NaN when the covariance is not positive definite in the precision at hand.
        """
        factor = self._factor(positions)
        whitened = linalg.solve_triangular(factor, velocities.reshape(-1), lower=True)
        log_determinant = 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))
        return -(whitened @ whitened + log_determinant + velocities.size * jnp.log(2 * jnp.pi)) / 2

    def condition(self, positions: Float[Array, "n 2"], velocities: Float[Array, "n 2"]) -> HelmholtzPosterior:
        """Take in observations.

        Args:
            positions: where, shape ``[n, 2]``.
            velocities: what was measured there, shape ``[n, 2]``.

        Returns:
            The posterior.

        Raises:
            ValueError: the shapes are not ``[n, 2]`` both.
            RuntimeError: the covariance is not positive definite in the precision at hand.
        """
        _check(positions, velocities)
        factor = self._factor(positions)
        factor = eqx.error_if(
            factor,
            ~jnp.all(jnp.isfinite(factor)),
            "the data's covariance is not positive definite in this precision: raise the noise or use x64.",
        )
        weights = linalg.cho_solve((factor, True), velocities.reshape(-1))
        return HelmholtzPosterior(self.potential, self.stream, positions, factor, weights.reshape(velocities.shape))

    def fit(
        self,
        positions: Float[Array, "n 2"],
        velocities: Float[Array, "n 2"],
        *,
        tolerance: float | None = None,
        max_steps: int = 256,
        throw: bool = True,
    ) -> HelmholtzFit:
        """Maximise the log-likelihood over the logarithms of all five parameters, starting from this process.

        The likelihood may have several maxima; the one found depends on the start (see `guess`).

        Args:
            positions: where, shape ``[n, 2]``.
            velocities: what was measured there, shape ``[n, 2]``.
            tolerance: change of the log-parameters and of the mean log-likelihood per number, absolute and
                relative, at which to stop. Default 1e-7 in double and 1e-4 in single precision.
            max_steps: at most this many iterations of BFGS, 256 by default.
            throw: raise when the fit fails (default), or only report it in ``result``.

        Returns:
            The fitted process, its log-likelihood, the gradient that is left, and how the search ended.

        Raises:
            ValueError: the shapes are not ``[n, 2]`` both.
            RuntimeError: the search failed and ``throw`` is true.
        """
        _check(positions, velocities)
        if tolerance is None:
            tolerance = 1e-7 if positions.dtype == jnp.float64 else 1e-4
        fit = _fit(self, positions, velocities, tolerance, max_steps)
        if throw:
            fit = fit.result.error_if(fit, fit.result != optimistix.RESULTS.successful)
        return fit

    def _factor(self, positions: Float[Array, "n 2"]) -> Float[Array, "two_n two_n"]:
        size = positions.size
        covariance = self.velocities(positions, positions).reshape(size, size)
        rounding = 100 * jnp.finfo(covariance.dtype).eps * covariance[0, 0]
        return jnp.linalg.cholesky(covariance + (self.noise**2 + rounding) * jnp.eye(size, dtype=covariance.dtype))


@eqx.filter_jit
def _fit(
    start: HelmholtzProcess,
    positions: Float[Array, "n 2"],
    velocities: Float[Array, "n 2"],
    tolerance: float,
    max_steps: int,
) -> HelmholtzFit:
    def loss(logarithms: HelmholtzProcess, args: None) -> Float[Array, ""]:
        process = jax.tree.map(jnp.exp, logarithms)
        return -process.log_likelihood(positions, velocities) / velocities.size

    logarithms = jax.tree.map(lambda leaf: jnp.log(jnp.asarray(leaf, positions.dtype)), start)
    solver: optimistix.AbstractMinimiser = optimistix.BFGS(rtol=tolerance, atol=tolerance)
    solution: optimistix.Solution = optimistix.minimise(loss, solver, logarithms, max_steps=max_steps, throw=False)
    value, slope = jax.value_and_grad(lambda p: loss(p, None))(solution.value)
    return HelmholtzFit(
        process=jax.tree.map(jnp.exp, solution.value),
        log_likelihood=-value * velocities.size,
        gradient=jnp.max(jnp.abs(jnp.stack(jax.tree.leaves(slope)))) * velocities.size,
        steps=solution.stats["num_steps"],
        result=solution.result,
    )


def _check(positions: Array, velocities: Array) -> None:
    if positions.ndim != 2 or positions.shape[1] != 2 or velocities.shape != positions.shape:
        raise fault(
            expected="positions and velocities of shape [n, 2]",
            got=f"{positions.shape} and {velocities.shape}",
            fix="The process lives in the plane; stack the components on the last axis.",
        )
