"""The straight part of a table's values, fitted: effects by ridge, a covariance shrunk by cross-validation."""

import itertools

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from ._gaussian import WIDEST, Gaussian

_FEWEST = 20  # training rows in which a state has to occur for an effect of its own
_STATES = 256  # that have one at most, the most frequent first: their normal equations are solved for each column
_PENALTIES = 4.0 ** np.arange(-1, 8)  # rows' worth of shrinkage of effects, of which cross-validation takes one
_SHRINKAGES = (0.0, *2.0 ** np.arange(-12, 1))  # of correlations, likewise
_FOLDS, _COMPARED = 5, 5_000  # of the latter: parts, and rows that it looks at
_AMONG = 2.0  # root-mean-square score of a column's atoms up to which they are taken to lie among its other numbers
_LEAST = 1e-4  # of a variance left at least when others are known: what single precision tells from none


def fit_gaussian(
    gaussian: Gaussian,
    states: Int[np.ndarray, "rows columns"],
    carries: Bool[np.ndarray, "rows values"],
    scores: Float[np.ndarray, "rows values"],
    atoms: Float[np.ndarray, "values levels"],
) -> Gaussian:
    """Fit it to training rows.

    Effects are shrunk by ridge regression, for each column of values by as much as generalised cross-validation says.
    The covariance of what they leave is taken over the rows in which both values are there, and its correlations are
    shrunk to 0 by as much as gives the greatest likelihood in five-fold cross-validation.

    Args:
        gaussian: its shapes.
        states: of the training rows.
        carries: which have a value that is no atom.
        scores: normal scores of these.
        atoms: normal scores of the columns' atoms, by state.

    References:
        G. Golub, M. Heath, G. Wahba, "Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter",
        1979, https://doi.org/10.1080/00401706.1979.10489751.
    """
    own = states[:, list(gaussian.valued)]
    inside = (own > 0) & (own < gaussian.levels)
    at = np.where(inside, atoms[np.arange(own.shape[1]), np.where(inside, own, 0)], np.nan)
    among = np.sqrt(np.nansum(at**2, axis=0) / np.maximum(np.isfinite(at).sum(axis=0), 1)) < _AMONG
    atom = np.isfinite(at) & among
    there, scores = carries | atom, np.where(atom, at, scores)
    codes, frequent = _codes(gaussian, states, among)
    intercept, effects = np.zeros(scores.shape[1]), np.zeros(gaussian.effects.shape)
    left = np.zeros(scores.shape)
    for j, here in enumerate(there.T):
        if here.any():
            effects[frequent, j] = _ridge(codes[here], scores[here, j])
            follows = codes @ effects[frequent, j]
            intercept[j] = np.mean(scores[here, j] - follows[here]) + follows.mean()
            left[here, j] = scores[here, j] - follows[here] - np.mean(scores[here, j] - follows[here])
    # A state that is not seen has the mean effect of its column.
    for column, (low, high) in zip(states.T, itertools.pairwise([*gaussian.offsets, len(effects)])):
        effects[low:high] -= np.bincount(column, minlength=high - low) / len(states) @ effects[low:high]
    found = intercept, effects, _covariance(left, there), np.where(among[:, None], atoms, np.nan)
    parts = tuple(jnp.asarray(part, jnp.float32) for part in found)
    return eqx.tree_at(lambda g: (g.intercept, g.effects, g.covariance, g.atoms), gaussian, parts)


def _codes(gaussian: Gaussian, states: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indicators of the states that have effects [rows, effects], and where these stand among all."""
    every, counts = np.unique(states + np.array(gaussian.offsets), return_counts=True)
    known = [np.arange(gaussian.levels[k]) + gaussian.offsets[gaussian.valued[k]] for k in np.flatnonzero(among)]
    counts = np.where(np.isin(every, np.concatenate([[], *known])) | (counts < _FEWEST), 0, counts)
    order = np.argsort(-counts, kind="stable")[:_STATES]
    frequent = np.sort(every[order[counts[order] > 0]])
    column = np.searchsorted(gaussian.offsets, frequent, side="right") - 1
    return (states[:, column] == frequent - np.array(gaussian.offsets)[column]).astype(np.float64), frequent


def _ridge(codes: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Effects of the penalty that generalised cross-validation takes."""
    centre, rows = codes.mean(axis=0), len(x)
    values, vectors = np.linalg.eigh((codes - centre).T @ (codes - centre))
    along = vectors.T @ ((codes - centre).T @ (x - x.mean()))
    kept = values > 1e-9 * rows
    values, along, vectors = values[kept], along[kept], vectors[:, kept]
    total = float(np.sum((x - x.mean()) ** 2))
    errors = []
    for penalty in _PENALTIES:
        squares = total - np.sum(along**2 * (values + 2.0 * penalty) / (values + penalty) ** 2)
        taken = 1.0 + np.sum(values / (values + penalty))
        errors.append(squares / max(1.0 - taken / rows, 1e-9) ** 2)
    return vectors @ (along / (values + _PENALTIES[int(np.argmin(errors))]))


def _covariance(left: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Covariance of what is there in pairs, with the shrinkage that cross-validation takes."""
    spread = np.sqrt(np.sum(left**2, axis=0) / np.maximum(there.sum(axis=0), 1))
    spread = np.where(spread > 1e-6, spread, 1.0)
    z, fold = left / spread, np.arange(len(left)) % _FOLDS
    losses = np.zeros(len(_SHRINKAGES))
    if len(spread) <= WIDEST:
        for part in range(_FOLDS):
            known = _correlation(z[fold != part], there[fold != part])
            rest = fold[:_COMPARED] == part
            losses += [_loss(_positive(known, by), z[:_COMPARED][rest], there[:_COMPARED][rest]) for by in _SHRINKAGES]
    return _positive(_correlation(z, there), _SHRINKAGES[int(np.argmin(losses))]) * spread[:, None] * spread


def _correlation(z: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Correlation of what is there in pairs; z is 0 where nothing is."""
    moments = (z.T @ z) / np.maximum(there.astype(np.float64).T @ there, 1.0)
    spread = np.sqrt(np.maximum(np.diagonal(moments), 1e-12))
    return moments / spread[:, None] / spread


def _positive(correlation: np.ndarray, shrinkage: float) -> np.ndarray:
    """Correlations shrunk, with no direction of less than the least variance: pairs may fit no joint distribution."""
    diagonal = np.eye(len(correlation), dtype=bool)
    values, vectors = np.linalg.eigh(np.where(diagonal, 1.0, (1.0 - shrinkage) * correlation))
    raised = (vectors * np.maximum(values, _LEAST)) @ vectors.T
    scale = np.sqrt(np.diagonal(raised))
    return raised / scale[:, None] / scale


def _loss(correlation: np.ndarray, z: np.ndarray, there: np.ndarray) -> float:
    """Negative log-likelihood of rows, up to what does not depend on the correlations, by patterns of what is there."""
    total = 0.0
    patterns, which = np.unique(there, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        factor = np.linalg.cholesky(correlation[np.ix_(pattern, pattern)])
        rows = z[which.ravel() == number][:, pattern]
        total += 0.5 * np.sum(np.linalg.solve(factor, rows.T) ** 2) + len(rows) * np.sum(np.log(np.diagonal(factor)))
    return float(total)


__all__ = ["fit_gaussian"]
