r"""What every path answers: where it is between one noise and one data sample, how fast it moves, and when."""

import abc

import equinox as eqx
from jaxtyping import Array, Float

from ..._core import check_instance


class AbstractPath(eqx.Module):
    r"""A curve $x_t$ from a noise $x_0 \sim N(0, I)$ near $t=0$ to a data sample $x_1$ near $t=1$, one for each pair.

    It is all that flow matching and the flow itself ask for. Score, noise and denoiser, and what is made of them, need
    an `AbstractAffinePath`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.transport import AbstractPath, flow_matching
        >>> class Arc(AbstractPath):  # the polar angle of a point of the circle, the short way round
        ...     times = (0.0, 1.0)
        ...     def interpolate(self, t, x0, x1):
        ...         return x0 + t * jnp.arctan2(jnp.sin(x1 - x0), jnp.cos(x1 - x0))
        ...     def target(self, t, x0, x1):
        ...         return jnp.arctan2(jnp.sin(x1 - x0), jnp.cos(x1 - x0))
        >>> loss = flow_matching(Arc())
        >>> value = loss(lambda t, y, args: jnp.zeros_like(y), jnp.zeros((64, 1)), key=jax.random.key(0))
        >>> bool(value < jnp.pi**2)  # no way is longer than half of the circle
        True

    Cost:
        None of the model.
    """

    @property
    @abc.abstractmethod
    def times(self) -> tuple[float, float]:
        """The first and last time between which velocity and conversions are finite."""

    @abc.abstractmethod
    def interpolate(
        self, t: Float[Array, ""], x0: Float[Array, "*shape"], x1: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """Return the point $x_t$ of the path between one noise and one data sample."""

    @abc.abstractmethod
    def target(
        self, t: Float[Array, ""], x0: Float[Array, "*shape"], x1: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        r"""Return the path's own velocity $\dot x_t$ there."""

    @property
    def prior_scale(self) -> float:
        """Standard deviation of the prior at the first time, for data of about unit scale or smaller."""
        return 1.0


def check_path(path: AbstractPath) -> None:
    """Raise a ``ValueError`` if it is no path, or the class of one."""
    check_instance(path, AbstractPath, what="a path", fix="Pass transport.Linear(), or another path of this room.")


__all__ = ["AbstractPath", "check_path"]
