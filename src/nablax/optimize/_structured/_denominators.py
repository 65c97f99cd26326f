"""Convex denominators of fractional objectives, and where a ratio over them is stationary along a coordinate."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..._core import check_count, check_shape, divide


class Along(NamedTuple):
    """A denominator along a coordinate.

    Attributes:
        breaks: steps at which it is not smooth, [breaks].
        value: of a step.
        stationary: ``stationary(numerator, ratio, near)``: the steps at which numerator / value is stationary, or where
            a ratio is given numerator - ratio * value, by what holds between the breaks that a step is near. The
            numerator is that of three coefficients, highest power first. What is no such step, or NaN, does no harm:
            all are compared.
    """

    breaks: Float[Array, " breaks"]
    value: Callable[[Array], Array]
    stationary: Callable[[Array, Array | None, Array], Array]


class AbstractDenominator(eqx.Module):
    """A function that is not negative, with what is known of it along a coordinate."""

    @abc.abstractmethod
    def __call__(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """Its value."""

    @abc.abstractmethod
    def cache(self, x: Float[Array, " dim"]) -> Any:
        """What is kept as coordinates move."""

    @abc.abstractmethod
    def moved(self, cache: Any, x: Float[Array, " dim"], place: Int[Array, ""], step: Float[Array, ""]) -> Any:
        """What is kept once the coordinate at a place of x has moved by a step."""

    @abc.abstractmethod
    def along(self, cache: Any, x: Float[Array, " dim"], place: Int[Array, ""]) -> Along:
        """What a move of one coordinate makes of it."""


class TopSum(AbstractDenominator):
    """The sum of the largest absolute values.

    Attributes:
        count: how many.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> float(optimize.TopSum(2)(jnp.array([1.0, -3.0, 2.0])))
        5.0
    """

    count: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        """Refuse a count below 1."""
        check_count(self.count, what="count of TopSum")

    def __call__(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """Of a vector no shorter than the count."""
        return jnp.sum(jnp.sort(jnp.abs(x))[-self.count :])

    def cache(self, x: Float[Array, " dim"]) -> None:
        """Nothing: a sort of each line's own."""
        return None

    def moved(self, cache: None, x: Float[Array, " dim"], place: Int[Array, ""], step: Float[Array, ""]) -> None:
        """Nothing."""
        return None

    def along(self, cache: None, x: Float[Array, " dim"], place: Int[Array, ""]) -> Along:
        """With m the count-th largest of the others the coordinate counts where it is larger than m, else m does."""
        others = jnp.sort(jnp.abs(x).at[place].set(0.0))
        rest = jnp.sum(others[len(x) - self.count + 1 :])
        middle, at = others[len(x) - self.count], x[place]

        def value(step: Array) -> Array:
            return rest + jnp.maximum(jnp.abs(at + step), middle)

        def stationary(numerator: Array, ratio: Array | None, near: Array) -> Array:
            """Of the numerator over, or less a multiple of, a line c + sη."""
            side = jnp.where(jnp.abs(at + near) > middle, jnp.sign(at + near), 0.0)
            line = rest + jnp.where(side == 0, middle, side * at)
            square, slope, base = numerator
            if ratio is not None:
                return divide(ratio * side - slope, 2 * square, jnp.nan)[None]
            root = jnp.sqrt(jnp.maximum((square * line) ** 2 - square * side * (slope * line - side * base), 0))
            ends = divide(jnp.stack([root, -root]) - square * line, square * side, jnp.nan)
            return jnp.append(ends, jnp.where(side == 0, divide(-slope, 2 * square, jnp.nan), jnp.nan))

        return Along(jnp.stack([-middle - at, middle - at]), value, stationary)


class SquaredFourNorm(AbstractDenominator):
    r""":math:`\lVert Gx\rVert_4^2`, the root of a sum of fourth powers.

    Attributes:
        matrix: G, [rows, dim].

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> float(optimize.SquaredFourNorm(jnp.eye(2))(jnp.array([2.0, 0.0])))
        4.0
    """

    matrix: Float[Array, "rows dim"] = eqx.field(converter=jnp.asarray)

    def __check_init__(self) -> None:
        """Refuse what is no matrix."""
        check_shape(self.matrix, (None, None), what="matrix of SquaredFourNorm", fix="Pass a matrix, rows by dim.")

    def __call__(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """Of a vector as long as G has columns."""
        return jnp.sqrt(jnp.sum((self.matrix @ x) ** 4))

    def cache(self, x: Float[Array, " dim"]) -> Float[Array, " rows"]:
        """Gx."""
        return self.matrix @ x

    def moved(self, cache: Array, x: Float[Array, " dim"], place: Int[Array, ""], step: Float[Array, ""]) -> Array:
        """Gx, of the new x."""
        return cache + step * self.matrix[:, place]

    def along(self, cache: Array, x: Float[Array, " dim"], place: Int[Array, ""]) -> Along:
        """Without a break; its square q is a polynomial, and so is what is stationary a root of one."""
        a, z = self.matrix[:, place], cache
        q = jnp.stack([jnp.sum(count * a**k * z ** (4 - k)) for count, k in ((1, 4), (4, 3), (6, 2), (4, 1), (1, 0))])

        def value(step: Array) -> Array:
            return jnp.sqrt(jnp.sum((z + step * a) ** 4))

        def stationary(numerator: Array, ratio: Array | None, near: Array) -> Array:
            """Of 2N'q - Nq', of which the two highest powers are the same, or of 4N'²q - F²q'²."""
            dn, dq = jnp.polyder(numerator), jnp.polyder(q)
            if ratio is None:
                return _real_roots((2 * jnp.polymul(dn, q) - jnp.polymul(numerator, dq))[1:])
            return _real_roots(4 * jnp.polymul(jnp.polymul(dn, dn), q) - ratio**2 * jnp.polymul(dq, dq))

        return Along(jnp.zeros(0, z.dtype), value, stationary)


def _real_roots(p: Float[Array, " terms"]) -> Float[Array, " roots"]:
    """All real roots of a polynomial, highest power first, among numbers that are none: those within 1 and beyond."""
    p = p / jnp.maximum(jnp.max(jnp.abs(p)), jnp.finfo(p.dtype).tiny)
    within, beyond = jax.vmap(_unit_roots)(jnp.stack([p, p[::-1]]))
    return jnp.concatenate([within, divide(1.0, beyond, jnp.nan)])


def _unit_roots(p: Float[Array, " terms"]) -> Float[Array, " roots"]:
    """Those from -1 to 1, each between two roots of the derivative, by halving; where there is none, an end."""
    degree, dtype = len(p) - 1, p.dtype
    chain = [p]
    for _ in range(degree - 1):
        chain.append(jnp.polyder(chain[-1]))
    # All of one length, the line first: a loop over them is compiled once.
    padded = jnp.stack([jnp.pad(one, (degree + 1 - len(one), 0)) for one in reversed(chain)])

    def level(roots: Array, p: Array) -> tuple[Array, None]:
        """From the derivative's roots, behind which stand ones in the place of those that it does not have."""
        high = jnp.sort(roots)
        low = jnp.concatenate([-jnp.ones(1, dtype), high[:-1]])
        first = jnp.sign(jnp.polyval(p, low))

        def halve(_: Array, between: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = between
            middle = (low + high) / 2
            same = jnp.sign(jnp.polyval(p, middle)) == first
            return jnp.where(same, middle, low), jnp.where(same, high, middle)

        low, high = jax.lax.fori_loop(0, jnp.finfo(dtype).nmant + 8, halve, (low, high))
        return (low + high) / 2, None

    return jax.lax.scan(level, jnp.ones(degree, dtype), padded)[0]
