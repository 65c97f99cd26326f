"""Fractional descent: no step of a coordinate on a fine and wide grid is better than its own, and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import optimize

DIM, PENALTY = 4, 0.3
RANDOM = np.random.default_rng(0)
A, B = RANDOM.normal(size=(5, DIM)), RANDOM.normal(size=5)
G = RANDOM.normal(size=(7, DIM))
STEPS = np.concatenate([np.linspace(-8, 8, 8001), np.linspace(-0.1, 0.1, 2001), np.sinh(np.linspace(-9, 9, 301))])


def top_sum(x, count):
    return np.sort(np.abs(x), axis=-1)[..., -count:].sum(-1)


def four(x):
    return np.sqrt(np.sum((x @ G.T) ** 4, axis=-1))


def over(x, penalty=PENALTY, target=B):
    return np.sum((x @ A.T - target) ** 2, axis=-1) / 2 + penalty * np.abs(x).sum(-1)


def moves(x, i):
    return np.repeat(x[None], len(STEPS), axis=0) + STEPS[:, None] * np.eye(DIM)[i][None]


CASES = {
    "top": (lambda: optimize.TopSum(2), lambda x: top_sum(x, 2)),
    "four": (lambda: optimize.SquaredFourNorm(G), four),
}


@pytest.mark.parametrize("parametric", [False, True])
@pytest.mark.parametrize("case", list(CASES))
def test_no_move_of_a_coordinate_is_better_where_it_ends(x64, case, parametric):
    make, below = CASES[case]
    # Over a four-norm, with a target, the ratio would fall for ever as x grows.
    given = {"penalty": PENALTY, "target": B} if case == "top" else {"penalty": 0.0, "target": 0 * B}

    def run(start):
        return optimize.fractional_descent(
            A, denominator=make(), start=start, steps=300, parametric=parametric, throw=False, **given
        )

    starts = np.random.default_rng(1).normal(size=(6, DIM))
    found = jax.vmap(run)(starts)
    for start, x, values in zip(starts, np.asarray(found.params), np.asarray(found.values)):
        np.testing.assert_allclose(values[0], over(start, **given) / below(start), rtol=1e-10)
        np.testing.assert_allclose(values[-1], over(x, **given) / below(x), rtol=1e-10)
        assert np.all(np.diff(values) <= 1e-12)
        for i in range(DIM):
            tried = moves(x, i)
            ratio = over(x, **given) / below(x)
            top = over(tried, **given)
            better = top - ratio * below(tried) if parametric else top / below(tried) - ratio
            assert better.min() > -1e-5


def test_the_first_move_is_the_best_on_a_line(x64):
    """Of one column all is one problem; others are held by a curvature beside which they do not move."""
    for seed in range(6):
        x = np.random.default_rng(seed).normal(size=DIM)
        heavy = np.concatenate([A, np.diag([0.0, 1e6, 1e6, 1e6])])
        target = np.r_[B, 0.0, 1e6 * x[1:]]
        for case in CASES:
            make, below = CASES[case]
            found = optimize.fractional_descent(heavy, target, make(), x, penalty=PENALTY, steps=1)
            tried = moves(x, 0)
            assert float(found.values[-1]) <= (over(tried) / below(tried)).min() + 1e-5


def test_closed_forms(x64, key):
    """‖x‖²/2‖Dx‖₄² is least along the axis of the largest entry of D; one coordinate shrinks, at the sum of all over it."""
    scales = np.array([1.0, 3.0, 2.0])
    found = optimize.fractional_descent(
        np.eye(3), np.zeros(3), optimize.SquaredFourNorm(np.diag(scales)), np.ones(3), steps=60, key=key
    )
    np.testing.assert_allclose(found.values[-1], 1 / (2 * 9), rtol=1e-6)
    np.testing.assert_allclose(np.abs(found.params / np.linalg.norm(found.params)), [0, 1, 0], atol=1e-3)
    # ((x - b)²/2 + ρ|x|)/|x| is least at |b|.
    found = optimize.fractional_descent(
        np.eye(1), np.array([-2.0]), optimize.TopSum(1), np.array([5.0]), penalty=1.0, steps=2
    )
    np.testing.assert_allclose(found.params, [-2.0], rtol=1e-6)
    assert found.evaluations == 2


def test_it_leaves_a_valley_that_no_descent_leaves(x64):
    """From the wrong sign, over a place where the ratio is infinite."""
    found = optimize.fractional_descent(np.eye(1), np.array([3.0]), optimize.TopSum(1), np.array([-1.0]), steps=1)
    np.testing.assert_allclose(found.params, [3.0], rtol=1e-6)


def test_single_precision_is_kept(key):
    found = optimize.fractional_descent(
        jnp.float32(A), jnp.float32(B), optimize.TopSum(2), jnp.ones(DIM), penalty=PENALTY, steps=30, key=key
    )
    assert found.params.dtype == found.values.dtype == jnp.float32
    assert np.all(np.diff(found.values) <= 1e-6) and found.evaluations == 30 * DIM


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"start": np.zeros(DIM)}, "a start where the denominator is above 0"),
        ({"start": np.ones(3)}, "start"),
        ({"target": np.ones(3)}, "target"),
        ({"denominator": abs}, "denominator"),
        ({"penalty": -1.0}, "penalty of 0 or more"),
        ({"steps": 0}, "steps"),
        ({"key": 3}, "key"),
        ({"matrix": A * np.nan}, "NaN"),
    ],
)
def test_what_cannot_be_is_refused(x64, change, says):
    given = {"matrix": A, "target": B, "denominator": optimize.TopSum(2), "start": np.ones(DIM), "steps": 1}
    with pytest.raises(ValueError, match=says):
        optimize.fractional_descent(**given | change)
    with pytest.raises(ValueError, match="count of TopSum"):
        optimize.TopSum(0)
