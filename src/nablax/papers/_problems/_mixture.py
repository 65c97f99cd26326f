"""A mixture of round normal distributions: data whose every quantity is known, for claims that need no training."""

from collections.abc import Callable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float
from scipy.spatial.distance import cdist

from ..._core import Field, Key
from ...spaces import Euclidean
from ...transport import AbstractAffinePath, Normal, Transport


class Mixture(eqx.Module):
    r"""Equal parts of $N(\mu_k, \mathrm{scale}^2 I)$, and what a path makes of them, $x = a x_1 + b x_0$.

    Args:
        means: one row for each component.
        scale: standard deviation of every component, in units of the data.
    """

    means: Float[Array, "components dim"]
    scale: float = eqx.field(static=True)

    def sample(self, key: Key, count: int) -> Float[Array, "count dim"]:
        """Draw from the data's law."""
        choice_key, noise_key = jax.random.split(key)
        index = jax.random.randint(choice_key, (count,), 0, self.means.shape[0])
        return self.means[index] + self.scale * jax.random.normal(noise_key, (count, self.means.shape[1]))

    def log_parts(self, y: Float[Array, " dim"], a: Array | float = 1.0, b: Array | float = 0.0) -> Array:
        """Joint log-density of the point and each component, in nats."""
        components, dim = self.means.shape
        variance = a**2 * self.scale**2 + b**2
        squares = jnp.sum(jnp.square(y[None] - a * self.means), axis=1)
        return -0.5 * squares / variance - 0.5 * dim * jnp.log(2 * jnp.pi * variance) - np.log(components)

    def log_density(self, y: Float[Array, " dim"], a: Array | float = 1.0, b: Array | float = 0.0) -> Array:
        """Log-density in nats."""
        return logsumexp(self.log_parts(y, a, b))

    def transport(self, path: AbstractAffinePath) -> Transport:
        """The exact transport along a path, by the gradient of the log-density."""

        def score(t: Array, y: Array, args: None) -> Array:
            a, b, _, _ = path.coefficients(t)
            return jax.grad(self.log_density)(y, a, b)

        return score_transport(score, path, self.means.shape[1])


def score_transport(score: Field, path: AbstractAffinePath, dim: int) -> Transport:
    """A transport from the path's own prior by a score."""
    return Transport(score, path, Normal((dim,), path.prior_scale), Euclidean((dim,)), "score")


def ring(components: int = 8, radius: float = 2.0, scale: float = 0.2) -> Mixture:
    """Components spread evenly on a circle in the plane."""
    angles = 2 * np.pi * np.arange(components) / components
    return Mixture(jnp.asarray(radius * np.stack([np.cos(angles), np.sin(angles)], axis=1), jnp.float32), scale)


def energy_distance(x: Float[Array, "rows dim"], y: Float[Array, "rows dim"]) -> float:
    """Energy distance of two samples of one length, in units of the data; zero on average when they share their law."""
    a, b = np.asarray(x), np.asarray(y)
    factor = len(a) / (len(a) - 1)  # a row's distance to itself does not count
    return float(2 * cdist(a, b).mean() - factor * (cdist(a, a).mean() + cdist(b, b).mean()))


def energy_distances(
    samplers: Mapping[str, Callable[[Key], Array]], truth: Callable[[Key], Array], key: Key, repeats: int
) -> dict[str, list[float]]:
    """Energy distances of several samplers to the truth, by name, one a repetition; all share its keys."""
    found: dict[str, list[float]] = {name: [] for name in samplers}
    for repeat in jax.random.split(key, repeats):
        truth_key, sampler_key = jax.random.split(repeat)
        exact = truth(truth_key)
        for name, sampler in samplers.items():
            found[name].append(energy_distance(sampler(sampler_key), exact))
    return found


__all__ = ["Mixture", "energy_distance", "energy_distances", "ring", "score_transport"]
