r"""Affine probability paths, and the one conversion that ties their four views together.

A path carries noise $x_0 \sim N(0, I)$ at $t=0$ to data $x_1$ at $t=1$ by $x_t = a(t) x_1 + b(t) x_0$. Given $x_t$, any
one of velocity, score, noise and denoiser fixes the pair $(\hat x_0, \hat x_1)$ and with it the other three.
"""

import abc
from typing import Literal, get_args

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import check_instance, check_like, check_shape, fault
from ._path import AbstractPath

View = Literal["velocity", "score", "noise", "denoiser"]
VIEWS: tuple[str, ...] = get_args(View)
_BATCH = "For a batch, wrap the call in jax.vmap, over the times too."


def check_view(view: str) -> None:
    """Raise a ``ValueError`` naming the views if ``view`` is not one."""
    if view not in VIEWS:
        raise fault(expected=f"one of {', '.join(VIEWS)}", got=repr(view), fix="See transport.Linear.convert.")


class AbstractAffinePath(AbstractPath):
    r"""$x_t = a(t)\,x_1 + b(t)\,x_0$, with $x_0 \sim N(0, I)$ independent of the data $x_1$.

    Subclasses give ``coefficients`` and ``times``; all else follows. Nothing is broadcast: it is one time, and arrays
    of one shape.
    """

    @abc.abstractmethod
    def coefficients(self, t: Float[Array, ""]) -> tuple[Array, Array, Array, Array]:
        r"""Return $(a, b, \dot a, \dot b)$ at time ``t``."""

    def interpolate(
        self, t: Float[Array, ""], x0: Float[Array, "*shape"], x1: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """Return the point $x_t$ of the path between one noise and one data sample."""
        _check_together(t, x0, x1)
        a, b, _, _ = self.coefficients(t)
        return a * x1 + b * x0

    def target(
        self, t: Float[Array, ""], x0: Float[Array, "*shape"], x1: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        r"""Return the path's own velocity $\dot x_t = \dot a x_1 + \dot b x_0$."""
        _check_together(t, x0, x1)
        _, _, da, db = self.coefficients(t)
        return da * x1 + db * x0

    def diffusion(self, t: Float[Array, ""]) -> Float[Array, ""]:
        r"""Return the $g(t)$ of the path's own stochastic equation.

        $g^2 = 2 b (\dot a b - a \dot b) / a$: with it $dx = (v + \tfrac12 g^2 s)\,dt + g\,dW$ is the time reversal of
        the noising process whose drift is linear; it is $\sqrt\beta$ on the variance-preserving path.
        """
        a, b, da, db = self.coefficients(t)
        return jnp.sqrt(jnp.maximum(2 * b * (da * b - a * db) / a, 0.0))

    def convert(
        self,
        t: Float[Array, ""],
        y: Float[Array, "*shape"],
        value: Float[Array, "*shape"],
        *,
        source: View,
        target: View,
    ) -> Float[Array, "*shape"]:
        r"""Turn one view of the field at $(t, y)$ into another.

        With $\hat x_0 = E[x_0 | x_t = y]$ and $\hat x_1 = E[x_1 | x_t = y]$: noise is $\hat x_0$, denoiser is
        $\hat x_1$, velocity is $\dot a \hat x_1 + \dot b \hat x_0$, score is $-\hat x_0 / b$, and
        $y = a \hat x_1 + b \hat x_0$.

        Args:
            t: time, inside ``times``.
            y: the state.
            value: the view that is known, shaped like ``y``.
            source: which view ``value`` is: "velocity", "score", "noise" or "denoiser".
            target: which view is wanted.

        Returns:
            The other view, shaped like ``y``. Where the path makes it infinite (the score at $b = 0$, the denoiser
            from the noise at $a = 0$) it is infinite or NaN; ``times`` keeps clear of those ends.

        Raises:
            ValueError: a name is not one of the four; ``value`` is not shaped like ``y``; ``t`` is not one time.
        """
        check_view(source)
        check_view(target)
        _check_together(t, y, value)
        if source == target:
            return value
        a, b, da, db = self.coefficients(t)
        if source == "velocity":
            wronskian = da * b - a * db
            if target == "denoiser":
                return (b * value - db * y) / wronskian
            noise = (da * y - a * value) / wronskian
        elif source == "denoiser":
            if target == "velocity":
                return da * value + db * (y - a * value) / b
            noise = (y - a * value) / b
        else:
            noise = value if source == "noise" else -b * value
        if target == "noise":
            return noise
        if target == "score":
            return -noise / b
        denoiser = (y - b * noise) / a
        return denoiser if target == "denoiser" else da * denoiser + db * noise


def _check_together(t: Array, one: Array, other: Array) -> None:
    """Refuse several times, and two arrays of different shapes: neither is broadcast."""
    check_shape(t, (), what="one time", fix=_BATCH)
    check_like(other, one, what="the second of two arrays that", fix=_BATCH)


def _check_margin(margin: float) -> None:
    fix = "It is what is left out of [0, 1] at either end; 1e-3 is plenty."
    check_shape(margin, (), what="a margin", fix=fix)
    if not 0 <= margin < 0.5:
        raise fault(expected="0 ≤ margin < 0.5", got=margin, fix=fix)


def affine(path: AbstractPath, *, what: str) -> AbstractAffinePath:
    """The same path, where it is affine.

    Args:
        path: any.
        what: what needs an affine one, in words.

    Returns:
        The path.

    Raises:
        ValueError: it is no path, the class of one, or not affine.
    """
    fix = "Pass transport.Linear(), or another path with coefficients; without one only the velocity is defined."
    check_instance(path, AbstractAffinePath, what=f"an affine path, for {what}", fix=fix)
    assert isinstance(path, AbstractAffinePath)
    return path


class Linear(AbstractAffinePath):
    """The straight path $a = t$, $b = 1 - t$ of flow matching and rectified flow.

    Args:
        margin: how far ``times`` keeps from the ends. Default 0: the velocity is finite on all of [0, 1]. A model that
            predicts noise or score needs a margin such as 1e-3.

    Raises:
        ValueError: ``margin`` is negative, or a half and more.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.transport import Linear
        >>> path = Linear()
        >>> y = path.interpolate(jnp.array(0.25), jnp.zeros(2), jnp.ones(2))
        >>> path.convert(jnp.array(0.25), y, jnp.ones(2), source="velocity", target="denoiser").tolist()
        [1.0, 1.0]

    Cost:
        None of the model.

    References:
        Lipman et al. (2023), Flow Matching for Generative Modeling, https://arxiv.org/abs/2210.02747; Liu, Gong, Liu
        (2023), Flow Straight and Fast, https://arxiv.org/abs/2209.03003.
    """

    margin: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        _check_margin(self.margin)

    def coefficients(self, t: Float[Array, ""]) -> tuple[Array, Array, Array, Array]:
        r"""Return $(t, 1 - t, 1, -1)$."""
        one = jnp.ones_like(t)
        return t, 1 - t, one, -one

    @property
    def times(self) -> tuple[float, float]:
        """From ``margin`` to ``1 - margin``."""
        return self.margin, 1.0 - self.margin


class Cosine(AbstractAffinePath):
    r"""The path on a quarter circle, $a = \sin(\pi t/2)$, $b = \cos(\pi t/2)$: it preserves unit variance.

    Args:
        margin: how far ``times`` keeps from the ends. Default 0.

    Raises:
        ValueError: ``margin`` is negative, or a half and more.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.transport import Cosine
        >>> a, b, _, _ = Cosine().coefficients(jnp.array(0.5))
        >>> round(float(a**2 + b**2), 6)
        1.0

    Cost:
        None of the model.

    References:
        Albergo, Vanden-Eijnden (2023), Building Normalizing Flows with Stochastic Interpolants,
        https://arxiv.org/abs/2209.15571 (the trigonometric interpolant).
    """

    margin: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        _check_margin(self.margin)

    def coefficients(self, t: Float[Array, ""]) -> tuple[Array, Array, Array, Array]:
        r"""Return $(\sin, \cos, \tfrac\pi2\cos, -\tfrac\pi2\sin)$ of $\pi t/2$."""
        sine, cosine = jnp.sin(jnp.pi / 2 * t), jnp.cos(jnp.pi / 2 * t)
        return sine, cosine, jnp.pi / 2 * cosine, -jnp.pi / 2 * sine

    @property
    def times(self) -> tuple[float, float]:
        """From ``margin`` to ``1 - margin``."""
        return self.margin, 1.0 - self.margin


__all__ = ["VIEWS", "AbstractAffinePath", "Cosine", "Linear", "View", "affine", "check_view"]
