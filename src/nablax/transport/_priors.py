"""Where a transport starts: a normal distribution, or whatever a set of samples came from."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import Key, check_finite, check_floats, check_shape, check_shape_of_one, described, fault


class Normal(eqx.Module):
    r"""The isotropic normal $N(0, \mathrm{scale}^2 I)$ over arrays of one shape.

    Args:
        shape: of one sample; a whole number stands for a vector of that length.
        scale: standard deviation of every component, in units of the data. Default 1.

    Raises:
        ValueError: ``scale`` is no positive number; a side of the shape is not a positive whole number; a sample has
            another shape than ``shape``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.transport import Normal
        >>> prior = Normal((2,))
        >>> prior.sample(jax.random.key(0)).shape
        (2,)
        >>> round(float(prior.log_prob(jnp.zeros(2))), 4)
        -1.8379

    Cost:
        None of the model.
    """

    shape: tuple[int, ...] = eqx.field(static=True, converter=check_shape_of_one)
    scale: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        check_shape(self.scale, (), what="scale", fix="It is one number; scale the data where their components differ.")
        if not 0 < self.scale < math.inf:
            raise fault(expected="scale > 0 and finite", got=self.scale, fix="It is a standard deviation.")

    def sample(self, key: Key) -> Float[Array, "*shape"]:
        """Draw one sample."""
        return self.scale * jax.random.normal(key, self.shape)

    def log_prob(self, y: Float[Array, "*shape"]) -> Float[Array, ""]:
        """Log-density of one sample, in nats."""
        y = check_shape(y, self.shape, what="one sample", fix="For a batch, wrap the call in jax.vmap.")
        constant = y.size * (0.5 * math.log(2 * math.pi) + math.log(self.scale))
        return -0.5 * jnp.sum(jnp.square(y / self.scale)) - constant


class Empirical(eqx.Module):
    """The distribution that a set of samples came from: it can be drawn from, and has no density.

    Args:
        samples: leading axis over samples, finite; drawn with replacement.

    Raises:
        ValueError: no samples, or not an array of finite floats.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.transport import Empirical
        >>> float(Empirical(jnp.ones((5, 2))).sample(jax.random.key(0)).sum())
        2.0

    Cost:
        None of the model.
    """

    samples: Float[Array, " samples *shape"]

    def __check_init__(self) -> None:
        fix = "Give an array of floats of shape (samples, ...)."
        check_floats(self.samples, what="samples", fix=fix)
        if not isinstance(self.samples, (jax.Array, np.ndarray)) or self.samples.ndim < 1 or not len(self.samples):
            raise fault(expected="at least one sample along the leading axis", got=described(self.samples), fix=fix)
        check_finite(self.samples, what="samples", fix="Leave those rows out.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.samples.shape[1:]

    def sample(self, key: Key) -> Float[Array, "*shape"]:
        """Draw one of the samples."""
        return self.samples[jax.random.randint(key, (), 0, self.samples.shape[0])]


Prior = Normal | Empirical

__all__ = ["Empirical", "Normal", "Prior"]
