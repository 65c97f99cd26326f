"""Feature shift: closed forms of both statistics, honest p-values, and the culprit is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.diagnose import feature_shift

CHAIN = 0.8 ** np.abs(np.subtract.outer(np.arange(5), np.arange(5)))


def draw(key, rows, covariance=CHAIN):
    return jax.random.normal(key, (rows, len(covariance))) @ jnp.asarray(np.linalg.cholesky(covariance)).T


def broken(key, rows, feature):
    """The feature is replaced by an independent one with the same marginal."""
    first, second = jax.random.split(key)
    return draw(first, rows).at[:, feature].set(draw(second, rows)[:, feature])


def test_statistics_are_those_of_brute_force(x64, key):
    x, y = np.asarray(draw(key, 30)), np.asarray(broken(key, 20, 2))
    both = np.concatenate([x, y])
    gap = [-(both - part.mean(0)) @ np.linalg.inv(np.cov(part.T)) for part in (x, y)]
    found = feature_shift(x, y, key=key, permutations=19)
    np.testing.assert_allclose(found.statistic, np.mean((gap[0] - gap[1]) ** 2, axis=0), rtol=1e-8)

    precision = np.linalg.inv(CHAIN)
    width = np.median(np.sum((both[:, None] - both[None]) ** 2, axis=-1))

    def kernel(a, b):
        return jnp.exp(-jnp.sum((a - b) ** 2) / width)

    def stein(a, b, j):
        s, r = -(precision @ a)[j], -(precision @ b)[j]
        mixed = jax.jacfwd(jax.grad(kernel, 1), 0)(a, b)[j, j]
        return s * r * kernel(a, b) + s * jax.grad(kernel, 1)(a, b)[j] + r * jax.grad(kernel, 0)(a, b)[j] + mixed

    each = jax.jit(jax.vmap(jax.vmap(stein, (None, 0, None)), (0, None, None)), static_argnums=2)
    expected = [np.mean(each(y, y, j)) for j in (0, 2)]
    found = feature_shift(x, y, key=key, permutations=19, score=lambda v: -jnp.asarray(precision) @ v)
    np.testing.assert_allclose(found.statistic[jnp.array([0, 2])], expected, rtol=1e-8)
    together = feature_shift(
        x, y, key=key, permutations=19, score=lambda v: -jnp.asarray(precision) @ v, groups=[[0, 2], [1]]
    )
    np.testing.assert_allclose(together.statistic[0], sum(expected), rtol=1e-8)


def test_the_excess_is_that_of_brute_force_and_knows_no_units(x64, key):
    x, y = np.asarray(draw(key, 30)), np.asarray(broken(key, 20, 2))
    both, chance = np.concatenate([x, y]), []
    for one in jax.random.split(key, 19):
        mixed = both[np.asarray(jax.random.permutation(one, 50))]
        first, second = (-(both - part.mean(0)) @ np.linalg.inv(np.cov(part.T)) for part in (mixed[:30], mixed[30:]))
        chance.append(np.mean((first - second) ** 2, axis=0))
    found = feature_shift(x, y, key=key, permutations=19)
    np.testing.assert_allclose(found.excess, (found.statistic - np.mean(chance, 0)) / np.std(chance, 0), rtol=1e-8)
    units = np.array([[1.0, 1e-3, 1e3, 1.0, 1.0]])
    other = feature_shift(x * units, y * units, key=key, permutations=19)
    np.testing.assert_allclose(other.excess, found.excess, rtol=1e-6)
    # The statistic's largest is that of the smallest unit, whatever is broken.
    assert int(jnp.argmax(other.statistic)) == 1 and int(jnp.argmax(other.excess)) == 2


@pytest.mark.parametrize("modelled", [False, True])
def test_the_broken_feature_is_named_and_without_one_nothing_is(key, modelled):
    precision = jnp.asarray(np.linalg.inv(CHAIN), jnp.float32)
    score = (lambda v: -precision @ v) if modelled else None
    x = draw(key, 300)
    found = feature_shift(x, broken(jax.random.fold_in(key, 1), 300, 3), key=key, permutations=99, score=score)
    assert int(jnp.argmax(found.excess)) == 3 and float(found.adjusted_p_value[3]) == pytest.approx(0.01)
    lines = [line for line in found.table().splitlines() if "p-value" in line]
    assert len(lines) == 5 and "feature 3" in lines[0] and "above chance" in found.table()
    # The least adjusted p-value of sets of one law is uniform: mean 1/2 ± 0.29/√24.
    least = [
        feature_shift(*draw(k, 80).reshape(2, 40, 5), key=k, permutations=39, score=score).adjusted_p_value.min()
        for k in jax.random.split(key, 24)
    ]
    assert abs(np.mean(least) - 0.5) < 4 * 0.29 / 24**0.5


@pytest.mark.parametrize(
    ("rows", "others", "message"),
    [((9, 3), (9, 2), "same columns"), ((4, 3), (9, 3), "at least 5 rows"), ((9,), (9, 3), "same columns")],
)
def test_faults(key, rows, others, message):
    with pytest.raises(ValueError, match=message):
        feature_shift(jnp.ones(rows), jnp.ones(others), key=key)
    with pytest.raises(ValueError, match="finite"):
        feature_shift(jnp.full((9, 3), jnp.nan), jnp.ones((9, 3)), key=key)
    with pytest.raises(ValueError, match="permutations as a whole number, at least 19"):
        feature_shift(jnp.ones((9, 3)), jnp.ones((9, 3)), key=key, permutations=18)


def test_no_p_value_comes_of_what_has_none(key):
    x, y = jax.random.normal(key, (2, 40, 3))
    for bad in (x.at[:, 1].set(0.1), x.at[:, 2].set(x[:, 0] + x[:, 1])):
        for sets in ((bad, y), (x, bad), (bad, bad)):
            with pytest.raises(ValueError, match="constant or follows"):
                feature_shift(*sets, key=key, permutations=19)
    units = jnp.array([[1e-6, 1.0, 1e6]])  # no reason to refuse
    assert feature_shift(x * units, y * units, key=key, permutations=19).p_value.min() > 0
    for score in (lambda v: v * jnp.nan, lambda v: -v):
        rows = x if jnp.isnan(score(x)).any() else jnp.ones((40, 3))
        with pytest.raises(ValueError, match="others for 3 of 3 features"):
            feature_shift(rows, rows, key=key, permutations=19, score=score)
