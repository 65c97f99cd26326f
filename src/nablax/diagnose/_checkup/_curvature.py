"""Curvature in the optimiser's own coordinates: top of the spectrum, trace, and products with the Hessian."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..._core import Key
from ...calculus import SpectralDensity, hessian_product, lanczos
from ._along import Moved, afresh, rescaled

# With fewer a standard error is too often far too small.
TRACE_PROBES = 6


class Curvature(eqx.Module):
    r"""The Hessian in the optimiser's own coordinates, :math:`R^{1/2}HR^{1/2}` with :math:`R=\eta P^{-1}`; no unit.

    Attributes:
        values: largest eigenvalues first.
        residuals: an eigenvalue lies within this distance of each value.
        vectors: orthonormal rows, in those coordinates.
        spectrum: nodes and weights of stochastic Lanczos quadrature; one probe.
    """

    values: Float[Array, " count"]
    residuals: Float[Array, " count"]
    vectors: Float[Array, "count dim"]
    spectrum: SpectralDensity


def hessian(value: Moved, at: Float[Array, " dim"]) -> Callable[[Array], Array]:
    """Products with the Hessian at a point, nothing of which is kept from one to the next."""
    product = hessian_product(value)

    @jax.custom_jvp
    def of(v: Array) -> Array:
        return product(*afresh(at, v))

    # A linear map is its own derivative: who linearises it, as Lanczos' iteration does, gets it back as it is.
    of.defjvp(lambda primals, tangents: (of(*primals), of(*tangents)))
    return of


def curvature(
    product: Callable[[Array], Array],
    rates: Float[Array, " dim"],
    *,
    count: int,
    steps: int,
    key: Key,
    added: Float[Array, " dim"] | None = None,
) -> Curvature:
    """Top eigenpairs and spectrum in the optimiser's coordinates, from one Lanczos run.

    ``added`` stands on the diagonal: what decay adds.
    """
    steps = min(steps, rates.size)
    count = min(count, steps)

    def preconditioned(v: Float[Array, " dim"]) -> Float[Array, " dim"]:
        image = rescaled(product(rescaled(v, rates, 0.5)), rates, 0.5)
        return image if added is None else image + added * v

    run = lanczos(preconditioned, jax.random.normal(key, rates.shape, rates.dtype), steps=steps)
    nodes, coordinates = jnp.linalg.eigh(run.tridiagonal())
    top = coordinates[:, ::-1][:, :count]
    spectrum = SpectralDensity(nodes[None], coordinates[:1] ** 2, rates.size)
    return Curvature(nodes[::-1][:count], jnp.abs(run.remainder * top[-1]), top.T @ run.basis, spectrum)


def top_direction(found: Curvature, rates: Float[Array, " dim"]) -> Float[Array, " dim"]:
    """The first eigenvector as a change of the parameters; its curvature is the eigenvalue."""
    return rescaled(found.vectors[0], rates, 0.5)


def trace_probe(
    found: Curvature, rates: Float[Array, " dim"], key: Key
) -> Callable[[Int[Array, ""]], Float[Array, " dim"]]:
    """Directions, by number, whose curvature on average is the trace of rate times Hessian beside the eigenvectors.

    Within these it is the sum of their values: what varies from probe to probe is the rest.
    """
    keys = jax.random.split(key, TRACE_PROBES)

    def probe(index: Int[Array, ""]) -> Float[Array, " dim"]:
        signs = jax.random.rademacher(keys[index], rates.shape, rates.dtype)
        return (signs - (found.vectors @ signs) @ found.vectors) * jnp.sqrt(rates)

    return probe


def within(found: Curvature, added: Float[Array, " dim"] | None = None) -> Float[Array, ""]:
    """Trace of rate times Hessian within the eigenvectors found; without what decay added to the diagonal."""
    total = jnp.sum(found.values)
    return total if added is None else total - jnp.sum(found.vectors**2 @ added)
