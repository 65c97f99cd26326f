"""The straight part of a table's values: a Gaussian whose mean follows from the states, for any values given."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

WIDEST = 64  # columns with values up to which a row's covariance is factorised; of more only the means are taken


class Gaussian(eqx.Module):
    r"""Normal scores given states, and given any of the scores.

    $$
    x \mid s \sim N\Big(b + \sum_c B_{c, s_c},\; \Sigma\Big), \qquad
    x_F = m(s, x_G) + L\,r_F, \qquad L L^\top = \Sigma_{FF} - \Sigma_{FG}\Sigma_{GG}^{-1}\Sigma_{GF}
    $$

    for the free scores F and the known ones G of a row: those given, and atoms that lie among the other numbers of
    their column, such as heaps. What is in neither is left out of both: missing cells, and atoms apart from the others,
    such as zeros below counts from one on, whose states have effects instead. The factor is that of the covariance with
    the known ones in front: one factorisation gives mean, factor and residuals. A residual is, in standard deviations,
    what regression on the known scores and on the free ones before it leaves. The flow is one of residuals: it begins
    at what regression knows, and learns the rest.

    Attributes:
        intercept: b.
        effects: B, the states of all columns one below the other; none where the score is known.
        covariance: Σ, of what the states leave.
        atoms: normal scores of the columns' atoms, by state; NaN where they lie apart.
        offsets: at which row of ``effects`` each column's states begin.
        valued: places of the columns with values.
        levels: of each of these, the states of a cell that is there.
    """

    intercept: Float[Array, " values"]
    effects: Float[Array, "states values"]
    covariance: Float[Array, "values values"]
    atoms: Float[Array, "values levels"]
    offsets: tuple[int, ...] = eqx.field(static=True)
    valued: tuple[int, ...] = eqx.field(static=True)
    levels: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, sizes: Sequence[int], valued: Sequence[int], levels: Sequence[int]):
        values = max(1, len(valued))
        self.offsets = tuple(int(end) for end in np.cumsum([0, *sizes[:-1]]))
        self.valued, self.levels = tuple(valued), tuple(levels)
        self.intercept = jnp.zeros(values)
        self.effects = jnp.zeros((sum(sizes), values))
        self.covariance = jnp.eye(values)
        self.atoms = jnp.zeros((values, max(levels, default=1)))

    def mean(self, states: Int[Array, " columns"]) -> Float[Array, " values"]:
        """The mean of a row's scores given its states."""
        return self.intercept + jnp.sum(self.effects[np.array(self.offsets) + states], axis=0)

    def at_atoms(self, states: Int[Array, " columns"]) -> tuple[Bool[Array, " values"], Float[Array, " values"]]:
        """Which values of a row are known by its states, atoms among the other numbers, and the scores of these."""
        if not self.valued:
            return jnp.zeros(1, bool), jnp.zeros(1)
        own = states[np.array(self.valued)]
        there = (own > 0) & (own < np.array(self.levels))
        at = self.atoms[np.arange(len(self.valued)), jnp.where(there, own, 0)]
        there &= jnp.isfinite(at)
        return there, jnp.where(there, at, 0.0)

    def conditioned(
        self,
        states: Int[Array, " columns"],
        free: Bool[Array, " values"],
        given: Bool[Array, " values"],
        scores: Float[Array, " values"],
    ) -> tuple[Float[Array, " values"], Float[Array, "values values"], Float[Array, " values"]]:
        """What one row's scores are expected to be, their conditional factor, and their residuals.

        Args:
            states: of all columns.
            free: which scores are drawn.
            given: which are given.
            scores: those given; at a free one, where it is known, what its residual is wanted of.

        Returns:
            m at the free scores, at the given ones and at atoms the scores themselves, 0 where a cell is missing; L,
            the identity in rows and columns that are not free; and r, 0 where the score is not free.
        """
        mean = self.mean(states)
        atom, at = self.at_atoms(states)
        known = given | atom
        scores = jnp.where(atom, at, scores)
        apart = jnp.where(free | known, scores - mean, 0.0)
        if len(mean) > WIDEST:
            spread = jnp.where(free, jnp.sqrt(jnp.diagonal(self.covariance)), 1.0)
            expected = jnp.where(free, mean, jnp.where(known, scores, 0.0))
            return expected, jnp.diag(spread), jnp.where(free, apart / spread, 0.0)
        move, there = _in_front(known, free).astype(self.covariance.dtype), free | known
        both = there[:, None] & there[None]
        covariance = jnp.where(both, self.covariance, jnp.eye(len(mean)))
        factor = jnp.linalg.cholesky(move @ covariance @ move.T)
        residuals = move.T @ jax.scipy.linalg.solve_triangular(factor, move @ apart, lower=True)
        factor = move.T @ factor @ move
        expected = mean + factor @ jnp.where(known, residuals, 0.0)
        return (
            jnp.where(free, expected, jnp.where(known, scores, 0.0)),
            jnp.where(free[:, None] & free[None], factor, jnp.eye(len(mean))),
            jnp.where(free, residuals, 0.0),
        )


def _in_front(first: Bool[Array, " values"], second: Bool[Array, " values"]) -> Bool[Array, "values values"]:
    """Permutation that puts some in front, others behind them, and the rest last, as a matrix: faster than gathers."""
    rest = ~(first | second)
    counted = jnp.cumsum(first), jnp.cumsum(second), jnp.cumsum(rest)
    behind = counted[0][-1]
    place = jnp.where(rest, behind + counted[1][-1] + counted[2], behind + counted[1])
    place = jnp.where(first, counted[0], place) - 1
    return jnp.arange(len(rest))[:, None] == place[None]


__all__ = ["WIDEST", "Gaussian"]
