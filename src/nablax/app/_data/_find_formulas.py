"""Which columns might be worked out from which others: shapes of formulas, looked for in a handful of rows."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Beyond so much of a column's spread, rounding leaves room for a formula by chance: there only equality counts.
COARSE = 0.1
WHOLE = 0.02  # the same of whole numbers, which many things round to
_MOST_INPUTS = 4
_PRODUCT_COLUMNS = 24  # products of sums are looked for among so many columns at most
_ELIMINATED = 60  # sums of three and four among so many
_POWERS = (-3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0)
_LARGEST = 1e50
_FLOOR = 1e-11  # of a share of variance: what float64 leaves of nothing
_LOOSE = 3.0  # times the variance of rounding, in a handful of rows
_HANDFUL = 30  # rows that products are looked for in: fewer hold fewer exceptions
_FIRST = 8  # rows that most products of sums fail on


class Shape(NamedTuple):
    """A formula whose numbers are not known yet.

    Attributes:
        target: place of the column worked out.
        terms: for each term its factors, each the places of the columns added up, and the power; 0 for the logarithm.
        constant: whether a constant is added.
    """

    target: int
    terms: tuple[tuple[tuple[tuple[int, ...], float], ...], ...]
    constant: bool


def shapes(values: np.ndarray, own: np.ndarray, halves: np.ndarray) -> Iterator[Shape]:
    """Formulas that hold in these rows as well as rounding lets them.

    Every column in turn is set against one, two, and by elimination three and four others in a linear regression, and
    in one of logarithms; against the logarithm of one; against one column times or divided by a sum of two; and against
    one product or ratio of two with or without a third added. What is found has still to be proved on all rows.

    Args:
        values: [rows, columns], none missing, in which no row is an exception to what is to be found.
        own: how far rounding may have moved a cell that a formula gives [columns].
        halves: how far it may have moved a cell that a formula is given [columns].

    Yields:
        Shapes, some of them the same formula solved for another column.

    Cost:
        O(columns³) regressions of two numbers, and with at most 24 columns O(columns⁴) differences of a few rows.
    """
    peak = np.abs(values).max(axis=0)
    # Squares and fourth powers of what is larger or smaller than any count or measure leave float64.
    varies = np.flatnonzero((np.ptp(values, axis=0) > 1e-12 * peak) & (peak < _LARGEST) & (peak > 1.0 / _LARGEST))
    if len(varies) < 2:
        return
    x = values[:, varies]
    of_target, rounding = np.square(own[varies]) / 3.0, np.square(halves[varies]) / 3.0
    z, variance = _standard(x)
    linear = _linear(z, of_target / variance, rounding / variance, _MOST_INPUTS)
    found = (Shape(target, tuple((((k,), 1.0),) for k in inputs), True) for target, inputs, _ in linear)
    further = (_logarithms, _powers, _products_of_sums, _with_products) if len(varies) <= _PRODUCT_COLUMNS else ()
    for shape in itertools.chain(found, *(look(x[:_HANDFUL], of_target, rounding) for look in further)):
        terms = tuple(
            tuple((tuple(int(varies[k]) for k in places), power) for places, power in term) for term in shape.terms
        )
        yield Shape(int(varies[shape.target]), terms, shape.constant)


def _standard(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns of mean 0 and variance 1, and their variances."""
    centred = values - values.mean(axis=0)
    variance = np.maximum(np.mean(np.square(centred), axis=0), 1e-300)
    return centred / np.sqrt(variance), variance


def _allowed(share: np.ndarray) -> np.ndarray:
    """How much variance a regression may leave, as a share, where rounding makes up such a share."""
    return np.where(share <= COARSE**2, _LOOSE * share + _FLOOR, _FLOOR)


def _linear(
    z: np.ndarray, own: np.ndarray, noise: np.ndarray, most: int
) -> Iterator[tuple[int, tuple[int, ...], np.ndarray]]:
    """Regressions that leave no more than rounding: target, inputs, standardised coefficients."""
    product = z.T @ z / len(z)
    count = len(product)
    alone = set()
    for t in range(count):
        r = product[t]
        fits = 1.0 - np.square(r) <= _allowed(own[t] + np.square(r) * noise)
        fits[t] = False
        for single in np.flatnonzero(fits):
            alone.add(t)
            yield t, (int(single),), r[[single]]
        free = np.flatnonzero(~fits & (np.arange(count) != t))
        a, b = (free[side] for side in np.triu_indices(len(free), 1))
        both = product[a, b]
        rest = np.maximum(1.0 - np.square(both), _FLOOR)
        of_a, of_b = (r[a] - r[b] * both) / rest, (r[b] - r[a] * both) / rest
        left = 1.0 - of_a * r[a] - of_b * r[b]
        share = own[t] + np.square(of_a) * noise[a] + np.square(of_b) * noise[b]
        for k in np.flatnonzero((left <= _allowed(share)) & (rest > 1e-6)):
            alone.add(t)
            yield t, (int(a[k]), int(b[k])), np.array([of_a[k], of_b[k]])
    if most > 2 and 4 <= count <= min(_ELIMINATED, len(z) // 2):
        yield from _eliminated(product, own, noise, alone, most)


def _eliminated(
    product: np.ndarray, own: np.ndarray, noise: np.ndarray, done: set[int], most: int
) -> Iterator[tuple[int, tuple[int, ...], np.ndarray]]:
    """Regressions on all other columns, rid of the least useful one after the other."""
    ridge = 1e-12 * np.eye(len(product))
    inverse = np.linalg.inv(product + ridge)

    def fit(t: int, inputs: list[int]) -> tuple[bool, np.ndarray, np.ndarray]:
        inside = np.linalg.inv(product[np.ix_(inputs, inputs)] + ridge[: len(inputs), : len(inputs)])
        coefficients = inside @ product[inputs, t]
        left = 1.0 - coefficients @ product[inputs, t]
        share = own[t] + np.square(coefficients) @ noise[inputs]
        return bool(left <= _allowed(share)), coefficients, np.square(coefficients) / np.diag(inside)

    for t in range(len(product)):
        if t in done:
            continue
        inputs = [k for k in range(len(product)) if k != t]
        # What regression on all the others leaves is one over the diagonal of the inverse.
        share = own[t] + np.square(inverse[t, inputs] / inverse[t, t]) @ noise[inputs]
        if 1.0 / inverse[t, t] > _allowed(share):
            continue
        fits, coefficients, lost = fit(t, inputs)
        while fits and len(inputs) > 1:
            fewer = [k for k in inputs if k != inputs[int(np.argmin(lost))]]
            still, smaller, next_lost = fit(t, fewer)
            if not still:
                break
            inputs, coefficients, lost = fewer, smaller, next_lost
        if fits and 2 < len(inputs) <= most:
            yield t, tuple(inputs), coefficients


def _logarithms(values: np.ndarray, of_target: np.ndarray, rounding: np.ndarray) -> Iterator[Shape]:
    """The logarithm of a column, times a number, plus a constant."""
    positive = np.flatnonzero((values > 0.0).all(axis=0))
    if not len(positive):
        return
    x = values[:, positive]
    logs, wide = _standard(np.log(x))
    z, variance = _standard(values)
    squared = np.square(z.T @ logs / len(z))  # [targets, positive]
    noise = np.mean(rounding[positive] / np.square(x), axis=0) / wide
    fits = 1.0 - squared <= _allowed((of_target / variance)[:, None] + squared * noise)
    for t, k in zip(*np.nonzero(fits)):
        if t != positive[k]:
            yield Shape(int(t), ((((int(positive[k]),), 0.0),),), True)


def _powers(values: np.ndarray, of_target: np.ndarray, rounding: np.ndarray) -> Iterator[Shape]:
    """Products of powers: sums of logarithms."""
    positive = np.flatnonzero((values > 0.0).all(axis=0))
    if len(positive) < 2:
        return
    x = values[:, positive]
    z, variance = _standard(np.log(x))
    own, noise = (np.mean(part[positive] / np.square(x), axis=0) / variance for part in (of_target, rounding))
    for target, inputs, coefficients in _linear(z, own, noise, 3):
        powers = coefficients * np.sqrt(variance[target] / variance[list(inputs)])
        nearest = np.array(_POWERS)[np.argmin(np.abs(np.array(_POWERS)[:, None] - powers), axis=0)]
        if np.all(np.abs(nearest - powers) <= 0.1):
            factors = tuple(((int(positive[k]),), float(power)) for k, power in zip(inputs, nearest))
            yield Shape(int(positive[target]), (factors,), False)


def _products_of_sums(values: np.ndarray, of_target: np.ndarray, rounding: np.ndarray) -> Iterator[Shape]:
    """One column times, or divided by, a sum of two, or the sum divided by it."""
    positive = np.flatnonzero((values > 0.0).all(axis=0))
    if len(positive) < 3:
        return
    x = values[:, positive]
    logs = np.log(x)
    variance = np.maximum(logs.var(axis=0), 1e-300)
    first, second = np.triu_indices(len(positive), 1)
    sums = x[:, first] + x[:, second]
    log_sums = np.log(sums)
    own, noise = (np.mean(part[positive] / np.square(x), axis=0) for part in (of_target, rounding))
    sum_noise = np.mean((rounding[positive][first] + rounding[positive][second]) / np.square(sums), axis=0)
    inside = (np.arange(len(positive))[:, None] == first) | (np.arange(len(positive))[:, None] == second)
    for power, of_sum in ((1.0, -1.0), (-1.0, 1.0), (1.0, 1.0)):
        for t in range(len(positive)):
            share = (own[t] + noise[:, None] + sum_noise) / variance[t]
            bound = np.sqrt(_allowed(share) * variance[t])  # [inputs, sums]
            few = (logs[:_FIRST, t, None] - power * logs[:_FIRST])[:, :, None] - of_sum * log_sums[:_FIRST, None, :]
            near = np.ptp(few, axis=0) <= 4.0 * bound
            near[t] = False
            near[:, inside[t]] = False
            for a, s in zip(*np.nonzero(near)):
                rest = logs[:, t] - power * logs[:, a] - of_sum * log_sums[:, s]
                if rest.std() <= bound[a, s]:
                    whole = (int(positive[first[s]]), int(positive[second[s]]))
                    yield Shape(int(positive[t]), ((((int(positive[a]),), power), (whole, of_sum)),), False)


def _with_products(values: np.ndarray, of_target: np.ndarray, rounding: np.ndarray) -> Iterator[Shape]:
    """A product or a ratio of two columns, plus a constant or a third column."""
    count = values.shape[1]
    divides = np.all(np.abs(values) > 0.0, axis=0)
    pairs = [(a, b, 1.0) for a, b in itertools.combinations(range(count), 2)]
    pairs += [(a, b, -1.0) for a, b in itertools.permutations(range(count), 2) if divides[b]]
    u = np.stack([values[:, a] * values[:, b] ** power for a, b, power in pairs], axis=1)
    relative = rounding / _square(values)
    first, second = np.array([pair[:2] for pair in pairs]).T
    made, wide = _standard(u)
    made_noise = np.mean(np.square(u) * (relative[:, first] + relative[:, second]), axis=0) / wide
    z, variance = _standard(values)
    own, noise = of_target / variance, rounding / variance
    with_made, among = z.T @ made / len(z), z.T @ z / len(z)  # [columns, pairs], [columns, columns]
    for t in range(count):
        r, usable = with_made[t], (first != t) & (second != t) & (wide > 1e-24 * np.mean(np.square(u), axis=0))
        fits = usable & (1.0 - np.square(r) <= _allowed(own[t] + np.square(r) * made_noise))
        for k in np.flatnonzero(fits):
            a, b, power = pairs[k]
            yield Shape(t, ((((a,), 1.0), ((b,), power)),), True)
        # [third columns, pairs]
        rest = np.maximum(1.0 - np.square(with_made), _FLOOR)
        of_u = (r[None] - among[t][:, None] * with_made) / rest
        of_third = (among[t][:, None] - r[None] * with_made) / rest
        left = 1.0 - of_u * r[None] - of_third * among[t][:, None]
        share = own[t] + np.square(of_u) * made_noise[None] + np.square(of_third) * noise[:, None]
        near = (left <= _allowed(share)) & (rest > 1e-4) & (usable & ~fits)[None]
        # Where the third does it alone, or nearly, no product is needed.
        near &= (np.square(of_u) > 1e-6) & (np.square(of_third) > 1e-6)
        near[t] = False
        for third, k in zip(*np.nonzero(near)):
            a, b, power = pairs[k]
            yield Shape(t, ((((a,), 1.0), ((b,), power)), (((int(third),), 1.0),)), True)


def _square(value: np.ndarray) -> np.ndarray:
    """Squares, none of them 0."""
    return np.maximum(np.square(value), 1e-300)


__all__ = ["COARSE", "Shape", "shapes"]
