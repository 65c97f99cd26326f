"""The spectrum of a symmetric linear map on pytrees, by stochastic Lanczos quadrature."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import AbstractRecord, Estimate, Key, Product, check_count, check_key, flat_product, scaled_estimate, space
from ._lanczos import checked_symmetric, iterate, tridiagonal


class SpectralDensity(AbstractRecord):
    r"""Weighted points that stand for the spectrum; one quadrature rule a probe.

    Attributes:
        nodes: ascending in each row, units of the map.
        weights: share of the spectrum at each node; each row sums to one.
        dimension: number of eigenvalues.
    """

    nodes: Float[Array, "probes steps"]
    weights: Float[Array, "probes steps"]
    dimension: int = eqx.field(static=True)

    def integral(self, function: Callable[[Array], Array]) -> Estimate:
        r"""Sum of a function over the eigenvalues, :math:`\operatorname{tr} f(A)`; standard error over probes.

        Args:
            function: elementwise, of the eigenvalue.

        Returns:
            The estimate, in units of the function; exact on each probe for polynomials of degree below twice the steps,
            up to the probe's own noise.
        """
        return scaled_estimate(self.dimension * jnp.sum(self.weights * function(self.nodes), axis=1))

    def trace(self) -> Estimate:
        """Sum of the eigenvalues, units of the map; standard error over probes (NaN for one)."""
        return self.integral(lambda eigenvalue: eigenvalue)

    def density(self, grid: Float[Array, " grid"], width: Float[Array, ""] | float) -> Estimate:
        """The density of the eigenvalues, smoothed by a Gaussian; integrates to one.

        Args:
            grid: where, units of the map.
            width: standard deviation of the Gaussian, same units.

        Returns:
            Share of the spectrum per unit of the map at each point of the grid, standard error over probes.
        """
        apart = (grid[:, None, None] - self.nodes[None]) / width
        bumps = jnp.exp(-(apart**2) / 2) / (width * jnp.sqrt(jnp.asarray(2 * jnp.pi, self.nodes.dtype)))
        return Estimate.from_samples(jnp.sum(self.weights[None] * bumps, axis=2).T)


def spectral_density(product: Product, like: PyTree, *, steps: int = 80, probes: int = 3, key: Key) -> SpectralDensity:
    r"""Estimate the spectrum of a symmetric linear map.

    .. math:: \frac1n \sum_i f(\lambda_i) = \mathbb{E}\,q^{\top} f(A)\,q
              \approx \frac1m \sum_{k=1}^{m} \sum_j w_{kj}\,f(\theta_{kj}), \qquad w_{kj} = s_{kj,1}^2

    for :math:`q` uniform on the sphere; :math:`\theta, s` are the eigenpairs of the tridiagonal matrix of
    :func:`lanczos` started from :math:`q`, whose nodes and weights are a Gauss quadrature of the measure that
    :math:`q` sees. On CPUs the map's convolutions are as fast as outside of the iteration's loop.

    Args:
        product: the map, ``product(v) -> Av``, linear and symmetric; JAX must be able to differentiate it.
        like: a tree with the structure, shapes and dtypes of the argument, for instance the parameters.
        steps: nodes a probe, 80 by default; no more than the number of parameters are used.
        probes: random starts, 3 by default.
        key: of the random starts.

    Returns:
        A :class:`SpectralDensity`; ``density`` draws it, ``trace`` and ``integral`` sum over it.

    Raises:
        ValueError: ``probes`` or ``steps`` is no positive whole number, ``key`` is none; and as :func:`lanczos`.
        equinox.EquinoxRuntimeError: the map is not symmetric; see :func:`top_eigenvalues`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.calculus import spectral_density
        >>> spectrum = spectral_density(lambda v: 2 * v, jnp.zeros(6), steps=4, key=jax.random.key(0))
        >>> round(float(spectrum.trace().value), 4)
        12.0

    Cost:
        ``probes * steps`` products, as :func:`lanczos`; one probe after another, memory of one.

    References:
        - Ubaru, Chen and Saad, "Fast Estimation of tr(f(A)) via Stochastic Lanczos Quadrature", 2017,
          https://doi.org/10.1137/16M1104974
        - Ghorbani, Krishnan and Xiao, "An Investigation into Neural Net Optimization via Hessian Eigenvalue
          Density", 2019, https://arxiv.org/abs/1901.10159
    """
    probes, steps = check_count(probes, what="probes"), check_count(steps, what="steps")
    check_key(key)
    vectors = space(like)
    steps = min(steps, vectors.flat.size)
    flat = flat_product(product, like, vectors)

    def rule(key: Key) -> tuple[Float[Array, " steps"], Float[Array, " steps"], Float[Array, "steps steps"]]:
        start = jax.random.normal(key, vectors.flat.shape, vectors.flat.dtype)
        result = iterate(flat, start, start, steps)
        nodes, coordinates = jnp.linalg.eigh(tridiagonal(result.diagonal, result.off_diagonal))
        return nodes, coordinates[0] ** 2, result.projected

    nodes, weights, projections = jax.lax.map(rule, jax.random.split(key, probes))
    nodes = checked_symmetric(nodes, projections, like)
    return SpectralDensity(nodes, weights, vectors.flat.size)
