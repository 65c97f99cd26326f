"""The gradient nearest to a field: a potential of quadratics and random cosines, fitted by ridge regression."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..._core import Field, Key, canonical_convolutions, nonzero

# Samples at which the field is evaluated at a time.
POINTS = 256
# A full quadratic is in the basis up to so many dimensions, above that squares of single coordinates only.
QUADRATIC = 24


class Potential(eqx.Module):
    """A scalar function of one sample whose gradient is the conservative part of a field.

    Attributes:
        weights: ``[functions]`` of the basis.
        centre: ``[dim]`` subtracted from a sample.
        scale: what it is then divided by.
        frequencies: ``[waves, dim]`` of the cosines.
        phases: ``[waves]`` of the cosines.
    """

    weights: Float[Array, " functions"]
    centre: Float[Array, " dim"]
    scale: Float[Array, ""]
    frequencies: Float[Array, "waves dim"]
    phases: Float[Array, " waves"]

    def __call__(self, y: PyTree) -> Float[Array, ""]:
        """Value at one sample, up to a constant, in units of the field times length."""
        flat = ravel_pytree(y)[0]
        return self.weights @ self.basis(flat)

    def basis(self, flat: Float[Array, " dim"]) -> Float[Array, " functions"]:
        """The functions of the basis at one flat sample: linear, quadratic, and cosines of several wavelengths."""
        z = (flat - self.centre) / self.scale
        if z.size <= QUADRATIC:
            rows, columns = np.triu_indices(z.size)
            squares = z[rows] * z[columns]
        else:
            squares = z**2
        waves = jnp.cos(self.frequencies @ z + self.phases)
        return jnp.concatenate([z, squares, waves])


def fit(
    field: Field,
    reference: Field | None,
    ys: PyTree,
    t: Array,
    args: PyTree,
    waves: int,
    tests: int,
    key: Key,
) -> tuple[Potential, Potential | None, Potential, PyTree]:
    """Fit on a random half of the samples.

    Returns:
        The potential of the field; that of its difference from the reference, None without one; one with ``tests``
        fresh cosines, not fitted; and the other half of the samples.
    """
    potential, trial, measured, gradients, values, right = _equations(field, reference, ys, t, args, waves, tests, key)
    psi = None if right is None else _with_weights(potential, gradients, np.asarray(values) - np.asarray(right))
    return _with_weights(potential, gradients, values), psi, trial, measured


@eqx.filter_jit
@canonical_convolutions
def _equations(
    field: Field,
    reference: Field | None,
    ys: PyTree,
    t: Array,
    args: PyTree,
    waves: int,
    tests: int,
    key: Key,
) -> tuple:
    """Both bases, the samples to measure on, and gradients and values at those to fit."""
    flat = jax.vmap(lambda y: ravel_pytree(y)[0])(ys)
    split_key, wave_key, test_key = jax.random.split(key, 3)
    potential, trial = random_potential(flat, waves, wave_key), random_potential(flat, tests, test_key)
    order = jax.random.permutation(split_key, len(flat))
    half = len(flat) // 2
    fitted, measured = (jax.tree.map(lambda leaf, p=part: leaf[p], ys) for part in (order[:half], order[half:]))

    def at(y: PyTree) -> tuple[Array, Array | None]:
        right = None if reference is None else ravel_pytree(reference(t, y, args))[0]
        return ravel_pytree(field(t, y, args))[0], right

    values, right = jax.lax.map(at, fitted, batch_size=POINTS)
    gradients = jax.vmap(lambda y: jax.jacfwd(potential.basis)(ravel_pytree(y)[0]).T)(fitted)
    return potential, trial, measured, gradients, values, right


def _with_weights(potential: Potential, gradients: Array, target: Array | np.ndarray) -> Potential:
    # On the host, for its double precision: many functions of the basis are nearly alike.
    matrix = np.asarray(gradients, np.float64).reshape(-1, gradients.shape[-1])
    sizes = np.sqrt((matrix**2).mean(axis=0))
    sizes[sizes == 0] = 1
    scaled, values = matrix / sizes, np.asarray(target, np.float64).ravel()
    modes, vectors = np.linalg.eigh(scaled.T @ scaled)
    sides, square = vectors.T @ (scaled.T @ values), values @ values
    # Generalised cross-validation. Modes below single precision's square are noise of the gradients.
    ridges = len(values) * 10.0 ** np.arange(-8, 1)[:, None]
    shrunk = 1 / (modes + ridges)
    left = square - np.sum(sides**2 * (modes + 2 * ridges) * shrunk**2, axis=1)
    freedom = len(values) - np.sum(modes * shrunk, axis=1)
    best = np.argmin(np.maximum(left, 1e-14 * square) / freedom**2)
    weights = vectors @ (sides * shrunk[best]) / sizes
    return eqx.tree_at(lambda p: p.weights, potential, jnp.asarray(weights, potential.weights.dtype))


def least_samples(dim: int, waves: int) -> int:
    """Samples that `gauge` asks for: half of them give twice as many equations as there are functions."""
    return 2 * -(-2 * functions(dim, waves) // dim)


def functions(dim: int, waves: int) -> int:
    """How many functions the basis has."""
    return dim + (dim * (dim + 1) // 2 if dim <= QUADRATIC else dim) + waves


def random_potential(flat: Float[Array, "samples dim"], waves: int, key: Key) -> Potential:
    """A basis whose wavelengths run from half to four times the samples' spread."""
    dim = flat.shape[1]
    keys = jax.random.split(key, 3)
    scale = jnp.sqrt(jnp.mean(jnp.var(flat, axis=0)))
    directions = jax.random.normal(keys[0], (waves, dim), flat.dtype) / jnp.sqrt(jnp.asarray(dim, flat.dtype))
    numbers = 2.0 ** jax.random.uniform(keys[1], (waves, 1), flat.dtype, -1.0, 2.0)
    return Potential(
        weights=jnp.zeros((functions(dim, waves),), flat.dtype),
        centre=jnp.mean(flat, axis=0),
        scale=nonzero(scale),
        frequencies=directions * numbers,
        phases=jax.random.uniform(keys[2], (waves,), flat.dtype, 0, 2 * jnp.pi),
    )
