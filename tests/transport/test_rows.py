"""Rows that are not finite, halves, integer conditions and missing ones, and data sent back to a time of the path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.fields import MLP
from nablax.follow import Solver
from nablax.spaces import Euclidean
from nablax.transport import (
    Empirical,
    Linear,
    Normal,
    Transport,
    VarianceExploding,
    VariancePreserving,
    flow_matching,
    guidance,
)

KEY = jax.random.key(0)


def shifted(t, y, args):
    """x1 = 2 x0 + args, by dy/dt = log 2 · (y − m) + dm/dt with m = t · args."""
    shift = 0.0 if args is None else args
    return np.log(2.0) * (y - t * shift) + shift


PLANE = Transport(shifted, Linear(), Normal(2), Euclidean(2))


def log_density(ys):
    return jnp.sum(jax.scipy.stats.norm.logpdf(ys, 0.0, 2.0), axis=-1)


def test_a_row_that_is_not_finite_leaves_the_others_alone():
    clean = jax.random.normal(KEY, (6, 2))
    ys = clean.at[1, 0].set(jnp.nan).at[3].set(jnp.array([jnp.inf, 0.0])).at[4].set(jnp.array([-jnp.inf, jnp.nan]))
    result = PLANE.log_prob(ys, round_trip=True)
    good = np.array([0, 2, 5])
    np.testing.assert_allclose(result.value[good], log_density(clean)[good], atol=1e-4)
    # Nothing is known of NaN; of the infinite the density is zero.
    assert np.isnan(result.value[1]) and result.value[3] == -np.inf and np.isnan(result.value[4])
    for part in (result.standard_error, result.integration_error, result.round_trip_error):
        assert np.isfinite(part[good]).all() and np.isnan(part[np.array([1, 3, 4])]).all()
    codes = PLANE.encode(ys)
    np.testing.assert_allclose(codes[good], clean[good] / 2, atol=1e-3)
    assert np.isnan(codes[np.array([1, 3, 4])]).all()


@pytest.mark.parametrize("options", [{"per_sample": True}, {"solver": Solver(steps=16)}], ids=["per sample", "fixed"])
def test_so_it_is_with_every_way_of_stepping(options):
    codes = PLANE.encode(jnp.array([[2.0, 4.0], [jnp.nan, 0.0]]), **options)
    np.testing.assert_allclose(codes[0], [1.0, 2.0], atol=5e-3)
    assert np.isnan(codes[1]).all()


def test_all_rows_nan_is_an_answer_too():
    result = PLANE.log_prob(jnp.full((3, 2), jnp.nan))
    assert np.isnan(result.value).all() and np.isnan(PLANE.encode(jnp.full((3, 2), jnp.nan))).all()


def test_a_condition_that_is_not_finite_spoils_its_own_row():
    ys, args = jnp.zeros((3, 2)), jnp.zeros((3, 2)).at[1, 0].set(jnp.nan).at[2, 1].set(jnp.inf)
    value = PLANE.log_prob(ys, args).value
    np.testing.assert_allclose(value[0], log_density(ys[0]), atol=1e-4)
    assert np.isnan(value[1:]).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_halves_are_computed_in_single_precision(dtype):
    ys = jax.random.normal(KEY, (5, 2)).astype(dtype)
    wide = ys.astype(jnp.float32)
    result = PLANE.log_prob(ys)
    np.testing.assert_allclose(result.value, PLANE.log_prob(wide).value, rtol=1e-6)
    assert result.value.dtype == jnp.float32
    codes = PLANE.encode(ys)
    assert codes.dtype == dtype  # rounded once, at the end
    np.testing.assert_array_equal(codes, PLANE.encode(wide).astype(dtype))
    # Times on a grid of eight bits would all be alike: the loss is that of the widened rows.
    loss = flow_matching(Linear())
    np.testing.assert_allclose(loss(shifted, ys, key=KEY), loss(shifted, wide, key=KEY), rtol=1e-6)


def test_a_network_in_halves_is_followed():
    field = jax.tree.map(
        lambda leaf: leaf.astype(jnp.bfloat16) if isinstance(leaf, jax.Array) else leaf, MLP(2, width=8, key=KEY)
    )
    samples = Transport(field, Linear(), Normal(2), Euclidean(2)).sample(4, key=KEY, solver=Solver(steps=4))
    assert samples.dtype == jnp.float32 and np.isfinite(samples).all()


def test_conditions_of_integers_are_taken_as_numbers_everywhere():
    network = MLP(2, condition=1, width=8, key=KEY)
    transport = Transport(network, Linear(), Normal(2), Euclidean(2))
    ys, labels = jax.random.normal(KEY, (4, 2)), jnp.arange(4)[:, None]
    numbers = labels.astype(jnp.float32)
    loss = flow_matching(Linear(), condition_dropout=0.5)
    for use in (
        lambda args: loss(network, {"data": ys, "condition": args}, key=KEY),
        lambda args: transport.log_prob(ys, args).value,
        lambda args: transport.encode(ys, args),
        lambda args: transport.sample(4, key=KEY, args=args),
        lambda args: jax.vmap(guidance(network, 2.0), (None, 0, 0))(jnp.array(0.5), ys, args),
    ):
        np.testing.assert_array_equal(use(labels), use(numbers))


def test_a_conditional_network_asked_without_its_condition_refuses():
    transport = Transport(MLP(2, condition=3, width=8, key=KEY), Linear(), Normal(2), Euclidean(2))
    for ask in (
        lambda: transport.log_prob(jnp.ones((4, 2))),
        lambda: transport.encode(jnp.ones((4, 2))),
        lambda: transport.sample(4, key=KEY),
        lambda: transport.velocity(jnp.array(0.5), jnp.ones(2)),
    ):
        with pytest.raises(ValueError, match=r"a condition of shape \(3,\), got args=None"):
            ask()
    assert np.isfinite(transport.log_prob(jnp.ones((4, 2)), jnp.zeros((4, 3))).value).all()


PATHS = {
    "linear": Linear(),
    "variance preserving": VariancePreserving(),
    "variance exploding": VarianceExploding(0.01, 20.0),
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_data_put_back_to_a_time_have_the_paths_own_mean_and_spread(path):
    transport = Transport(shifted, path, Normal(1, path.prior_scale), Euclidean(1))
    ys, t = jnp.full((20_000, 1), 3.0), 0.7
    a, b, _, _ = path.coefficients(jnp.array(t))
    points = transport.interpolate(t, ys, key=KEY)
    error = float(b) / len(ys) ** 0.5
    assert abs(float(points.mean()) - 3 * float(a)) < 4 * error
    assert abs(float(points.std()) - float(b)) < 4 * error / 2**0.5
    # One time a row: the first is all noise, the last nearly none.
    ends = transport.interpolate(jnp.array(path.times), ys[:2], key=KEY)
    assert abs(float(ends[1, 0]) - 3) < 0.5
    for outside in (-0.1, 1.5, jnp.nan, jnp.array([0.5, 2.0])):
        with pytest.raises(ValueError, match="times between 0 and 1"):
            transport.interpolate(outside, ys[:2], key=KEY)
    with pytest.raises(ValueError, match="one time, or 2"):
        transport.interpolate(jnp.ones(3), ys[:2], key=KEY)


def test_noise_of_another_kind_is_that_of_the_prior():
    transport = Transport(shifted, Linear(), Empirical(jnp.full((1, 1), 7.0)), Euclidean(1))
    np.testing.assert_allclose(transport.interpolate(0.25, jnp.ones((3, 1)), key=KEY), 0.25 + 0.75 * 7)
    coupled = Transport(shifted, Linear(), Normal(1), Euclidean(1), independent=False)
    with pytest.raises(ValueError, match=r"paired independently.*path\.interpolate"):
        coupled.interpolate(0.25, jnp.ones((3, 1)), key=KEY)
