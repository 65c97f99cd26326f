"""Each number's own monotone map to a nearly normal coordinate, fitted to its quantiles."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_GAP, _WIDEST = 2.0, 5.0  # a bin this many times as wide as its sides is a gap; the most it is widened in z
_FEWEST = 20  # cells from which quantiles are taken; with fewer, mean and spread are all that is learnt


class NormalScores(eqx.Module):
    r"""Monotone rational-quadratic splines $z = T_j(x)$ with logarithmic tails, one for each column of numbers.

    With $\xi = (x - x_k)/w$ in the bin $k$ of width $w$, height $h$, chord $s = h/w$ and end slopes $d_k, d_{k+1}$,

    $$
    T(x) = z_k + h\,\frac{s\,\xi^2 + d_k\,\xi(1 - \xi)}{s + (d_k + d_{k+1} - 2s)\,\xi(1 - \xi)}
    $$

    is increasing for positive slopes, has them at its ends, and is undone by solving a quadratic equation. Beyond the
    last knot $z = z_K + \log(1 + d_K (x - x_K))$, and likewise below the first: a cell that lies a hundred times as far
    out as any before it is a few units away, not hundreds, in the field's loss and in its density. Knots lie at
    quantiles evenly spaced in z out to those of the least and the greatest row, so that a normal coordinate is carried
    to the column's own distribution, its tails included; the slope at a knot is the geometric mean of the chords.
    Where a column has a gap, its groups are kept apart in z as well, and the field is left to learn that.

    Attributes:
        x: knots [columns, knots], increasing.
        z: their images.
        slope: dz/dx at the knots.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> skewed = np.exp(np.random.default_rng(0).normal(size=4000))
        >>> scores = fit_normal_scores([skewed])
        >>> z, _ = scores.forward(jnp.asarray(skewed[:, None], jnp.float32))
        >>> bool(abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02)
        True

    Cost: one comparison with every knot a cell.

    References:
        J. Gregory, R. Delbourgo, "Piecewise Rational Quadratic Interpolation to Monotonic Data", 1982,
        https://doi.org/10.1093/imanum/2.2.123 (the interpolant). Which knots and slopes are taken is ours.
    """

    x: Float[Array, "columns knots"]
    z: Float[Array, "columns knots"]
    slope: Float[Array, "columns knots"]

    def forward(self, x: Float[Array, "rows columns"]) -> tuple[Float[Array, "rows columns"], ...]:
        """Coordinates to normal scores.

        Args:
            x: coordinates.

        Returns:
            z, and log dz/dx.
        """
        return jax.vmap(self._forward)(x)

    def inverse(self, z: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
        """Undo ``forward``."""
        return jax.vmap(self._inverse)(z)

    def _forward(self, x: Float[Array, " columns"]) -> tuple[Float[Array, " columns"], ...]:
        x0, x1, z0, z1, d0, d1 = self._bin(self.x, x)
        chord = (z1 - z0) / (x1 - x0)
        part = jnp.clip((x - x0) / (x1 - x0), 0.0, 1.0)
        both = part * (1.0 - part)
        under = chord + (d0 + d1 - 2.0 * chord) * both
        inside = z0 + (z1 - z0) * (chord * jnp.square(part) + d0 * both) / under
        rise = jnp.square(chord / under) * (d1 * jnp.square(part) + 2.0 * chord * both + d0 * jnp.square(1.0 - part))
        first, last = self.slope[:, 0], self.slope[:, -1]
        below, above = (jnp.maximum(beyond, 0.0) for beyond in (first * (self.x[:, 0] - x), last * (x - self.x[:, -1])))
        z = inside + jnp.log1p(above) - jnp.log1p(below)
        return z, jnp.log(rise) - jnp.log1p(above) - jnp.log1p(below)

    def _inverse(self, z: Float[Array, " columns"]) -> Float[Array, " columns"]:
        x0, x1, z0, z1, d0, d1 = self._bin(self.z, z)
        chord = (z1 - z0) / (x1 - x0)
        height = jnp.clip((z - z0) / (z1 - z0), 0.0, 1.0)
        bend = d0 + d1 - 2.0 * chord
        a, b, c = chord - d0 + height * bend, d0 - height * bend, -chord * height
        # The root in [0, 1], written so that nothing cancels.
        part = 2.0 * c / (-b - jnp.sqrt(jnp.maximum(jnp.square(b) - 4.0 * a * c, 0.0)))
        below, above = (jnp.maximum(beyond, 0.0) for beyond in (self.z[:, 0] - z, z - self.z[:, -1]))
        inside = x0 + (x1 - x0) * part
        return inside + jnp.expm1(above) / self.slope[:, -1] - jnp.expm1(below) / self.slope[:, 0]

    def _bin(self, knots: Array, at: Float[Array, " columns"]) -> list[Array]:
        """Both ends of the bin of each column: x, z and slope."""
        place = jnp.sum(at[:, None] >= knots[:, 1:-1], axis=1)
        columns = jnp.arange(len(place))
        return [ends[columns, place + end] for ends in (self.x, self.z, self.slope) for end in (0, 1)]


def fit_normal_scores(columns: list[np.ndarray], repeats: int = 1) -> NormalScores:
    """Fit one map a column.

    Args:
        columns: for each column of numbers its coordinates [cells] in the training rows, finite; cells on a grid
            spread evenly over their own width, or their ties would be steps.
        repeats: how often each cell is among them, each time at another place in its width.

    Returns:
        The maps; with the identity for a column without cells, and one such column where there is none.
    """
    knots = [_knots(np.asarray(cells, np.float64), repeats) for cells in columns] or [_knots(np.zeros(0), 1)]
    most = max(len(x) for x, _, _ in knots)
    return NormalScores(*(jnp.asarray(np.stack(part), jnp.float32) for part in zip(*(_longer(k, most) for k in knots))))


def _knots(cells: np.ndarray, repeats: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from scipy.special import ndtr, ndtri

    count = len(cells) // repeats
    if count >= _FEWEST:
        end = float(ndtri(1.0 - 0.5 / count))
        # The bins' width balances the error of their shares against that of their shape.
        width = min(1.0, max(0.2, 2.2 * count**-0.2))
        z = np.linspace(-end, end, int(np.ceil(2 * end / width)) + 1)
        x = np.interp(ndtr(z), (np.arange(len(cells)) + 0.5) / len(cells), np.sort(cells))
        # Quantiles that nearly coincide would make a bin of no width.
        kept = [0]
        for k in range(1, len(x)):
            if x[k] - x[kept[-1]] > 1e-5 * (x[-1] - x[0]):
                kept.append(k)
        x, z = x[kept], z[kept]
        if len(x) >= 7:
            z = _with_gaps(x, z, cells)
    if count < _FEWEST or len(x) < 3:
        centre, spread = (cells.mean(), cells.std()) if count else (0.0, 1.0)
        z = np.array([-3.0, 0.0, 3.0])
        x = centre + z * (spread if spread > 1e-6 else 1.0)
    chord = np.diff(z) / np.diff(x)
    # Two extreme cells may lie close by chance; a tail as steep as their chord would put the next one far out.
    back = min(3, len(chord))
    first = min(chord[0], (z[back] - z[0]) / (x[back] - x[0]))
    last = min(chord[-1], (z[-1] - z[-1 - back]) / (x[-1] - x[-1 - back]))
    return x, z, np.concatenate([[first], np.sqrt(chord[:-1] * chord[1:]), [last]])


def _with_gaps(x: np.ndarray, z: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Leave room in z for a gap inside the column, and standardise again.

    Groups that lie apart would touch in normal scores, and what a field blurs there would carry rows across. A bin
    several times as wide as those on both of its sides (the narrower of two: a knot may fall into the gap) is widened.
    """
    wide = np.diff(x)
    sides = [np.minimum(wide[1:-3], wide[:-4]), np.minimum(wide[3:-1], wide[4:])]
    ratio = np.clip(wide[2:-2] / (_GAP * np.maximum(*sides)), 1.0, _WIDEST)
    steps = np.diff(z)
    steps[2:-2] *= ratio
    opened = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.interp(cells, x, opened)
    return (opened - at.mean()) / at.std()


def _longer(knots: tuple[np.ndarray, ...], most: int) -> tuple[np.ndarray, ...]:
    """More knots beyond the last one, on the upper tail, so that all columns have as many."""
    x, z, slope = knots
    more = np.arange(1, most - len(x) + 1)
    # Far out, and evenly in z: so near to the tail itself that nothing is seen of them.
    beyond = np.expm1(0.1 * more)
    return (
        np.concatenate([x, x[-1] + beyond / slope[-1]]),
        np.concatenate([z, z[-1] + 0.1 * more]),
        np.concatenate([slope, slope[-1] / (1.0 + beyond)]),
    )


__all__ = ["NormalScores", "fit_normal_scores"]
