"""Which features of a data set have shifted? Tests of every feature given all the others, by score statistics."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import AbstractRecord, Key, check_count, check_key, check_like, fault, table, wide_dtype

# Permutations at once. The largest intermediate has this many times rows × features numbers.
_TOGETHER = 16


class FeatureShift(AbstractRecord):
    """How far each feature, given all the others, departs from the reference.

    Attributes:
        statistic: one for each feature (or group), in inverse squared units of the features.
        excess: of the statistic over its mean among the permutations, in their standard deviations; free of units, so
            that the largest names the likeliest culprit.
        p_value: of each feature by itself, from the permutations; never below ``1 / (1 + permutations)``.
        adjusted_p_value: chance, without any shift, that *some* feature looks this unusual; what to decide by.
        permutations: that the p-values stand on.
    """

    statistic: Float[Array, " features"]
    excess: Float[Array, " features"]
    p_value: Float[Array, " features"]
    adjusted_p_value: Float[Array, " features"]
    permutations: int = eqx.field(static=True)

    def table(self, names: Sequence[str] | None = None) -> str:
        """Lay the numbers out as plain text, the most shifted feature first.

        Args:
            names: of the features. Default: their numbers.

        Returns:
            Three lines per feature.
        """
        names = [f"feature {number}" for number in range(len(self.statistic))] if names is None else names
        rows = []
        for place in np.lexsort((-np.asarray(self.excess), np.asarray(self.adjusted_p_value))):
            rows.append((f"{names[place]}: score statistic", self.statistic[place], "1 / unit²"))
            rows.append((f"{names[place]}: above chance", self.excess[place], "standard deviations"))
            rows.append((f"{names[place]}: adjusted p-value", self.adjusted_p_value[place], "1"))
        return table("Feature shift", rows, [f"{self.permutations} permutations"])


def feature_shift(
    reference: Float[Array, "rows dim"],
    other: Float[Array, "others dim"],
    *,
    key: Key,
    score: Callable[[Float[Array, " dim"]], Float[Array, " dim"]] | None = None,
    groups: Sequence[Sequence[int]] | None = None,
    permutations: int = 499,
) -> FeatureShift:
    r"""Test, for each feature, whether its distribution given the other features is that of the reference.

    A feature's coordinate of the score knows the conditional distribution alone,
    :math:`\partial_j\log p(x) = \partial_j\log p(x_j\mid x_{-j})`. Without ``score``, normal distributions are fitted
    to both sets and their scores compared on all rows,

    .. math:: T_j = \mathbb{E}_{x\in X\cup Y}\,\big(\partial_j\log\hat p_X(x)-\partial_j\log\hat p_Y(x)\big)^2

    With ``score``, that of a model of the reference, only its own side is needed: by Stein's identity

    .. math::
        T_j = \mathbb{E}_{y,y'\in Y}\big[(s_j(y)+\partial_{y_j})(s_j(y')+\partial_{y'_j})\,k(y,y')\big]
        = \Big\lVert\mathbb{E}_{y}\,\big(s_j-\partial_j\log p_Y\big)(y)\,k(y,\cdot)\Big\rVert^2

    with a Gaussian kernel, as wide as the median distance. Rows are exchanged between the two sets to see how large
    each statistic gets by chance, so that a model that is somewhat wrong costs power and not validity. A broken
    feature also disturbs what is expected of its neighbours: they may be significant too, with a smaller excess.

    Args:
        reference: rows that the model has *not* been trained on, if one is given.
        other: rows in question.
        key: of the permutations.
        score: of one row, ``score(y) -> gradient of the log-density``. Default: normal distributions.
        groups: coordinates that make up each feature, such as the vertices of a category; their statistics are
            added. Default: every coordinate is a feature.
        permutations: 499 by default.

    Returns:
        A :class:`FeatureShift`.

    Raises:
        ValueError: the sets have different columns, too few rows, or numbers that are not finite; fewer than 19
            permutations, which could not reach 5 %; without ``score`` a column that is constant or follows from the
            others; statistics that are not finite, or the same whatever the permutation.

    Example:
        >>> import jax
        >>> from nablax.diagnose import feature_shift
        >>> x, y = jax.random.normal(jax.random.key(0), (2, 200, 3))
        >>> record = feature_shift(x, y.at[:, 1].mul(2), key=jax.random.key(1), permutations=99)
        >>> int(record.excess.argmax()), round(float(record.adjusted_p_value[1]), 2)
        (1, 0.01)

    Cost:
        Normal: 2 ``permutations`` covariances and inverses. With ``score``: one evaluation a row, and for each
        feature a kernel matrix of all rows, one feature at a time.

    References:
        - Kulinski, Bagchi and Inouye, "Feature Shift Detection: Localizing Which Features Have Shifted via Conditional
          Distribution Tests", 2020, https://arxiv.org/abs/2107.06929, and the authors' code,
          https://github.com/inouye-lab/feature-shift (the hypotheses, the Fisher statistic, and the culprit by its
          excess; theirs takes the mean over 100 draws from each model in place of the rows, 500 samples of both sets
          with replacement in place of permutations, and divides the level by the number of features)
        - Liu, Lee and Jordan, "A Kernelized Stein Discrepancy for Goodness-of-fit Tests", 2016,
          https://arxiv.org/abs/1602.03253 (one coordinate of it at a time is ours)
    """
    reference, other = jnp.asarray(reference), jnp.asarray(other)
    permutations = check_count(permutations, what="permutations", least=19)
    check_key(key)
    _check(reference, other, score is None)
    dim = reference.shape[1]
    parts = [[place] for place in range(dim)] if groups is None else [list(group) for group in groups]
    member = np.zeros((len(parts), dim), reference.dtype)
    for row, group in zip(member, parts):
        row[group] = 1
    rows = jnp.concatenate([reference, other])
    orders = jax.vmap(lambda k: jax.random.permutation(k, len(rows)))(jax.random.split(key, permutations))
    orders = jnp.concatenate([jnp.arange(len(rows))[None], orders])
    if score is None:
        values = _normal(rows, orders, len(reference))
    else:
        scores = eqx.filter_jit(jax.vmap(score))(rows)
        check_like(scores, rows, what="a table of scores that", fix="It is score(x) -> [dim], of one row.")
        values = _stein(rows, scores, orders, len(reference))
    values = values @ jnp.asarray(member).T
    p_value = jnp.mean(values >= values[:1], axis=0)
    # Every statistic on its own permutations' scale, and each against the largest of all: no ties, unlike p-values.
    scaled = (values - jnp.mean(values, axis=0)[None]) / jnp.std(values, axis=0)[None]
    if not bool(jnp.all(jnp.isfinite(scaled))):
        raise fault(
            expected="statistics that are finite and differ between permutations",
            got=f"others for {int(jnp.sum(~jnp.isfinite(scaled).all(axis=0)))} of {len(parts)} features",
            fix="See that the score is finite, and drop rows that repeat and columns that hardly vary.",
        )
    adjusted = jnp.mean(jnp.max(scaled, axis=1)[:, None] >= scaled[:1], axis=0)
    excess = (values[0] - jnp.mean(values[1:], axis=0)) / jnp.std(values[1:], axis=0)
    return FeatureShift(values[0], excess, p_value, adjusted, permutations)


@eqx.filter_jit
def _normal(rows: Float[Array, "rows dim"], orders: Array, first: int) -> Float[Array, "permutations dim"]:
    def scores(part: Float[Array, "part dim"]) -> Float[Array, "rows dim"]:
        mean = jnp.mean(part, axis=0)
        # Not a solution for every row: on a CPU that takes some hundred times as long.
        return -(rows - mean[None]) @ jnp.linalg.inv(jnp.cov(part.T).reshape(rows.shape[1], -1))

    def statistic(order: Array) -> Float[Array, " dim"]:
        mixed = rows[order]
        return jnp.mean(jnp.square(scores(mixed[:first]) - scores(mixed[first:])), axis=0)

    return jax.lax.map(statistic, orders, batch_size=_TOGETHER)


@eqx.filter_jit
def _stein(
    rows: Float[Array, "rows dim"], scores: Float[Array, "rows dim"], orders: Array, first: int
) -> Float[Array, "permutations dim"]:
    squares = jnp.sum(jnp.square(rows), axis=1)
    apart = jnp.maximum(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0)
    width = jnp.median(apart)
    kernel = jnp.exp(-apart / width)
    # Shares of the other set, one row a permutation.
    inside = jnp.zeros(orders.shape, rows.dtype)
    places = jnp.arange(len(orders))[:, None]
    inside = inside.at[places, orders[:, first:]].set(1 / (rows.shape[0] - first))

    def coordinate(column: tuple[Array, Array]) -> Float[Array, " permutations"]:
        y, s = column
        gap = 2 * (y[:, None] - y[None]) / width  # d/dy' of the kernel's logarithm; d/dy is its negative
        product = s[:, None] * s[None] + (s[:, None] - s[None]) * gap + 2 / width - gap**2
        return jnp.sum((inside @ (kernel * product)) * inside, axis=1)

    return jax.lax.map(coordinate, (rows.T, scores.T)).T


def _check(reference: Array, other: Array, normal: bool) -> None:
    shapes = f"{reference.shape} and {other.shape}"
    if reference.ndim != 2 or other.ndim != 2 or reference.shape[1] != other.shape[1]:
        raise fault(expected="two sets of rows with the same columns", got=shapes, fix="Pass arrays [rows, dim].")
    least = reference.shape[1] + 2 if normal else 2
    if min(len(reference), len(other)) < least:
        raise fault(expected=f"at least {least} rows in each set", got=shapes, fix="Gather more, or drop columns.")
    if not bool(jnp.all(jnp.isfinite(reference)) & jnp.all(jnp.isfinite(other))):
        raise fault(expected="finite numbers", got="NaN or infinity", fix="Fill the missing cells first.")
    if normal and not (_spans(reference) and _spans(other)):
        raise fault(
            expected="columns none of which is constant or follows from the others",
            got="a singular covariance",
            fix="Drop such columns, or pass score=.",
        )


def _spans(rows: Array) -> bool:
    """Whether the columns vary independently, in units of each and within the rounding of their own dtype."""
    exact = np.asarray(rows, np.float64)
    sizes = np.ptp(exact, axis=0)
    centred = (exact - exact.mean(axis=0)) / np.where(sizes > 0, sizes, 1)
    return bool(np.linalg.matrix_rank(centred.astype(wide_dtype(rows))) == rows.shape[1])


__all__ = ["FeatureShift", "feature_shift"]
