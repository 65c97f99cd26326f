"""The straight part of a table's values: a Gaussian whose mean follows from the states, for any values given."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

_FREEDOM = 4.0  # of Student's distribution of an atom's score: what no line foresaw costs logarithms, not squares
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
        intercept: b, the mean of all rows.
        effects: B, the states of all columns one below the other, in the mean over the rows 0 in each column; none
            where the score is known.
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

    def mean(self, states: Int[Array, " columns"], seen: Bool[Array, " columns"]) -> Float[Array, " values"]:
        """The mean of a row's scores given those of its states that are seen."""
        return self.intercept + jnp.sum(
            jnp.where(seen[:, None], self.effects[np.array(self.offsets) + states], 0.0), axis=0
        )

    def at_atoms(
        self, states: Int[Array, " columns"], seen: Bool[Array, " columns"]
    ) -> tuple[Bool[Array, " values"], Float[Array, " values"]]:
        """Which values of a row are known by its states, atoms among the other numbers, and the scores of these."""
        if not self.valued:
            return jnp.zeros(1, bool), jnp.zeros(1)
        own = states[np.array(self.valued)]
        there = (own > 0) & (own < np.array(self.levels)) & seen[np.array(self.valued)]
        at = self.atoms[np.arange(len(self.valued)), jnp.where(there, own, 0)]
        there &= jnp.isfinite(at)
        return there, jnp.where(there, at, 0.0)

    def conditioned(
        self,
        states: Int[Array, " columns"],
        free: Bool[Array, " values"],
        given: Bool[Array, " values"],
        scores: Float[Array, " values"],
        seen: Bool[Array, " columns"] | None = None,
    ) -> tuple[Float[Array, " values"], Float[Array, "values values"], Float[Array, " values"]]:
        """What one row's scores are expected to be, their conditional factor, and their residuals.

        Args:
            states: of all columns.
            free: which scores are drawn.
            given: which are given.
            scores: those given; at a free one, where it is known, what its residual is wanted of.
            seen: which states are known; all by default.

        Returns:
            m at the free scores, at the given ones and at atoms the scores themselves, 0 where a cell is missing; L,
            the identity in rows and columns that are not free; and r, 0 where the score is not free.
        """
        seen = jnp.ones(states.shape, bool) if seen is None else seen
        mean = self.mean(states, seen)
        atom, at = self.at_atoms(states, seen)
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

    def leaning(
        self,
        states: Int[Array, " columns"],
        seen: Bool[Array, " columns"],
        given: Bool[Array, " values"],
        scores: Float[Array, " values"],
    ) -> Float[Array, "columns most"]:
        r"""How much likelier the known cells of a row make each state of the others, in nats.

        By Bayes' rule, each column by itself: the log-density of the known scores K where the column is in that state,
        less that in the mean of its states, $B_K^\top\Sigma_{KK}^{-1}\big((x - m)_K - \tfrac12 B_K\big)$ with the
        state's effects B. The atom at $a$ of a number says besides where its own score lies: with the mean m and the
        deviation s given what is known, $\log t_4((a - m)/s)/s$ less the same of nothing known.

        Args:
            states: of all columns.
            seen: which of them are known.
            given: which scores are.
            scores: those given.
        """
        most = int(np.max(np.diff([*self.offsets, len(self.effects)])))
        leaning = jnp.zeros((len(self.offsets), most), self.intercept.dtype)
        if not self.valued:
            return leaning
        free = ~given & ~self.at_atoms(states, seen)[0]
        expected, factor, _ = self.conditioned(states, free, given, scores, seen)
        spread = deviations(factor, free)
        before = jnp.sqrt(jnp.diagonal(self.covariance))
        found = _student(self.atoms, expected, spread) - _student(self.atoms, self.intercept, before)
        found = jnp.where(free[:, None] & jnp.isfinite(self.atoms), found, 0.0)
        there = (np.arange(found.shape[1]) > 0) & (np.arange(found.shape[1]) < np.array(self.levels)[:, None])
        leaning = leaning.at[np.array(self.valued), : found.shape[1]].set(jnp.where(there, found, 0.0))
        sizes = np.diff([*self.offsets, len(self.effects)])
        own = np.array(self.offsets)[:, None] + np.minimum(np.arange(most), sizes[:, None] - 1)
        return leaning + self._discriminants(states, seen, given, scores)[own]

    def _discriminants(self, states: Array, seen: Array, given: Array, scores: Array) -> Float[Array, " states"]:
        """Log-density of the known scores in each state, were its column in it, less that in the mean of its states."""
        if len(self.intercept) > WIDEST:  # by their variances alone they would be far too sure
            return jnp.zeros(len(self.effects), self.intercept.dtype)
        atom, at = self.at_atoms(states, seen)
        known = given | atom
        apart = jnp.where(known, jnp.where(atom, at, scores) - self.mean(states, seen), 0.0)
        factor = jnp.linalg.cholesky(jnp.where(known[:, None] & known[None], self.covariance, jnp.eye(len(known))))
        sides = jnp.concatenate([apart[None], jnp.where(known, self.effects, 0.0)]).T
        apart, effects = jnp.split(jax.scipy.linalg.solve_triangular(factor, sides, lower=True), [1], axis=1)
        return jnp.sum(effects * (apart - 0.5 * effects), axis=0)


def deviations(factor: Float[Array, "values values"], free: Bool[Array, " values"]) -> Float[Array, " values"]:
    """Standard deviations of the free scores given the known ones, by their conditional factor; 1 of the others."""
    return jnp.where(free, jnp.sqrt(jnp.sum(jnp.where(free[None], jnp.square(factor), 0.0), axis=1)), 1.0)


def _student(atoms: Array, mean: Array, spread: Array) -> Array:
    """Log-density of Student's distribution, up to a constant."""
    apart = (jnp.nan_to_num(atoms) - mean[:, None]) / spread[:, None]
    return -0.5 * (_FREEDOM + 1.0) * jnp.log1p(jnp.square(apart) / _FREEDOM) - jnp.log(spread)[:, None]


def _in_front(first: Bool[Array, " values"], second: Bool[Array, " values"]) -> Bool[Array, "values values"]:
    """Permutation that puts some in front, others behind them, and the rest last, as a matrix: faster than gathers."""
    rest = ~(first | second)
    counted = jnp.cumsum(first), jnp.cumsum(second), jnp.cumsum(rest)
    behind = counted[0][-1]
    place = jnp.where(rest, behind + counted[1][-1] + counted[2], behind + counted[1])
    place = jnp.where(first, counted[0], place) - 1
    return jnp.arange(len(rest))[:, None] == place[None]


__all__ = ["WIDEST", "Gaussian", "deviations"]
