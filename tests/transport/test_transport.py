import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.follow import Solver, flow
from nablax.spaces import Euclidean
from nablax.transport import (
    Cosine,
    Empirical,
    Linear,
    Normal,
    SubVariancePreserving,
    Transport,
    VarianceExploding,
    VariancePreserving,
)

# Rates high enough that the prior is the path's own start to 1e-4, so that closed forms are not blurred by it.
PATHS = {
    "linear": Linear(),
    "cosine": Cosine(),
    "vp": VariancePreserving(0.1, 40.0),
    "sub-vp": SubVariancePreserving(0.1, 40.0),
    "ve": VarianceExploding(0.01, 1000.0),
}
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)


def transport_of(exact, path, prediction="velocity"):
    prior = Normal((exact.dim,), path.prior_scale)
    return Transport(exact.field(path, prediction), path, prior, Euclidean((exact.dim,)), prediction)


def affine(gain, offset):
    """A transport whose velocity is ``gain * y + offset`` at every time, with the flow known in closed form."""
    return lambda t, y, args: gain * y + offset


@pytest.mark.parametrize("path", [Linear(), VarianceExploding()], ids=["linear", "ve"])
def test_views_of_every_prediction_are_the_exact_ones(x64, path, mixture):
    t, y = jnp.array(0.6), jnp.array([0.4, -0.8])
    expected = mixture.views(path, t, y)
    for prediction in expected:
        safe = Linear(1e-3) if isinstance(path, Linear) else path
        transport = transport_of(mixture, safe, prediction)
        for view, value in expected.items():
            np.testing.assert_allclose(getattr(transport, view)(t, y), value, rtol=1e-6, err_msg=f"{prediction}→{view}")


@every_path
def test_gaussian_to_gaussian_has_the_right_mean_and_covariance_at_every_time(x64, path, gaussian):
    # The flow of a Gaussian is affine, so that its value at 0 and its Jacobian give the marginal without sampling.
    transport = transport_of(gaussian, path)
    first, last = path.times
    ts = jnp.linspace(first, last, 4)
    mean, covariance = gaussian.means[0], gaussian.covariances[0]

    @jax.jit
    def ends(y0):
        velocity = jax.vmap(transport.velocity, in_axes=(None, 0, None))
        return flow(velocity, y0, first, last, ts=ts, solver=Solver(rtol=1e-7, atol=1e-7)).ys

    moments = [
        (a * mean, a**2 * covariance + b**2 * np.eye(3))
        for a, b in np.asarray(jax.vmap(lambda t: jnp.stack(path.coefficients(t)[:2]))(ts))
    ]
    root = np.linalg.cholesky(moments[0][1])
    corners = ends(jnp.concatenate([moments[0][0][None], moments[0][0] + root.T]))
    for state, (expected_mean, expected_covariance) in zip(corners, moments):
        columns = state[1:] - state[:1]
        np.testing.assert_allclose(state[0], expected_mean, atol=2e-5)
        np.testing.assert_allclose(columns.T @ columns, expected_covariance, rtol=2e-5, atol=2e-5)


@every_path
def test_gaussian_log_density_is_the_closed_form_and_a_slipped_sign_is_not(x64, path, gaussian, key):
    transport = transport_of(gaussian, path)
    a, b, _, _ = path.coefficients(jnp.asarray(path.times[1]))
    ys = gaussian.sample(key, 16)
    result = transport.log_prob(ys, solver=Solver(rtol=1e-7, atol=1e-7))
    expected = jax.vmap(lambda y: gaussian.log_prob(y, a, b))(ys)
    np.testing.assert_allclose(result.value, expected, atol=1e-5 if isinstance(path, Linear | Cosine) else 1e-2)
    np.testing.assert_array_equal(result.standard_error, 0.0)
    # The integral with the other sign must be far outside that tolerance, or this test could not see it.
    codes = transport.encode(ys, solver=Solver(rtol=1e-7, atol=1e-7))
    prior = jax.vmap(transport.prior.log_prob)(codes)
    assert np.abs(2 * prior - result.value - expected).min() > 1.0


def test_mixture_density_is_exact_and_integrates_to_one(mixture):
    transport = transport_of(mixture, Linear())
    axis = jnp.linspace(-5.0, 5.0, 61)
    grid = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    value = transport.log_prob(grid, solver=Solver(rtol=1e-4, atol=1e-4)).value
    assert abs(float(jnp.sum(jnp.exp(value))) * (10 / 60) ** 2 - 1) < 2e-3
    expected = jax.vmap(mixture.log_prob)(grid)
    likely = expected > -12
    assert np.abs(value - expected)[likely].max() < 0.01


def test_the_integration_error_bounds_what_few_panels_miss(mixture, key):
    ys = mixture.sample(key, 200)
    expected = jax.vmap(mixture.log_prob)(ys)
    smooth = transport_of(mixture, Linear()).log_prob(ys, solver=Solver(rtol=1e-6, atol=1e-6))
    assert np.abs(smooth.value - expected).max() < 2e-3 and smooth.integration_error.mean() < 1e-2

    # A divergence that jumps by 2 where y = 1: rows that cross do so at times known in closed form.
    kinked = Transport(lambda t, y, args: 0.5 + jnp.abs(y - 1), Linear(), Normal((1,)), Euclidean((1,)))
    ys = jnp.linspace(-1.0, 3.0, 101)[:, None]

    @jax.jit
    def back(y):  # y' = 0.5 + |y - 1| backwards for unit time: z = y - 1 crosses zero after log(1 + 2z)
        z = y - 1
        above = jnp.log1p(2 * jnp.maximum(z, 0.0))
        after = jnp.maximum(1 - above, 0.0)
        stays = jnp.minimum(above, 1.0)
        end = jnp.where(z > 0, (z + 0.5) * jnp.exp(-stays) - 0.5, z)
        rest = jnp.where(z > 0, after, 1.0)
        low = jnp.where(z > 0, jnp.minimum(end, 0.0), z)
        low = 0.5 - (0.5 - low) * jnp.exp(rest)
        return 1 + jnp.where(rest > 0, low, end), rest - jnp.where(z > 0, stays, 0.0)

    codes, integral = back(ys)
    truth = jax.scipy.stats.norm.logpdf(codes[:, 0]) + integral[:, 0]
    errors = []
    for panels in (2, 16):
        result = kinked.log_prob(ys, panels=panels, solver=Solver(rtol=1e-6, atol=1e-6))
        errors.append(np.sqrt(np.mean((result.value - truth) ** 2)))
        assert errors[-1] < np.sqrt(np.mean(result.integration_error**2)) < 10 * errors[-1]
    assert errors[1] < errors[0] / 3
    with pytest.raises(ValueError, match="panels"):
        kinked.log_prob(ys, panels=0)


def test_stochastic_log_density_has_an_honest_error(make_mixture, key):
    # Strongly coupled coordinates: the Jacobian's off-diagonal part is what the probes are uncertain of.
    root = np.random.default_rng(0).normal(size=(8, 8)) / 3
    exact = make_mixture([1.0], [np.zeros(8)], [root @ root.T + 0.1 * np.eye(8)])
    transport = transport_of(exact, Linear())
    ys = exact.sample(key, 400)
    truth = transport.log_prob(ys, divergence="exact", solver=Solver(rtol=1e-4, atol=1e-4)).value
    probed = transport.log_prob(ys, divergence="stochastic", probes=32, key=key, solver=Solver(rtol=1e-4, atol=1e-4))
    assert 0.01 < probed.standard_error.mean() < 3
    surprises = (probed.value - truth) / probed.standard_error
    assert abs(surprises.mean()) < 4 / 400**0.5
    assert 0.9 < surprises.std() < 1.15  # Student's t with 31 degrees of freedom: 1.03
    assert np.all(probed.value != truth)


def test_auto_is_exact_in_few_dimensions_and_stochastic_in_many(key):
    def isotropic(dim):
        return Transport(affine(0.3, 0.0), Linear(), Normal((dim,)), Euclidean((dim,)))

    few = isotropic(4).log_prob(jnp.ones((1, 4)))
    assert few.standard_error[0] == 0
    assert np.isnan(few.round_trip_error[0])  # it was not asked for
    many = isotropic(300)
    with pytest.raises(ValueError, match="a key and probes ≥ 1"):
        many.log_prob(jnp.ones((1, 300)))
    single = many.log_prob(jnp.ones((1, 300)), key=key, probes=1)
    assert np.isnan(single.standard_error[0])
    # x1 = exp(0.3) x0, and Rademacher probes are exact for a multiple of the identity.
    expected = many.prior.log_prob(jnp.full((300,), np.exp(-0.3))) - 300 * 0.3
    np.testing.assert_allclose(single.value[0], expected, rtol=1e-4)


@pytest.mark.parametrize("shape", [(1,), (2, 3), (4, 4, 1)])
def test_bits_per_dimension_do_not_depend_on_the_shape(x64, shape, key):
    # Totals in nats over all coordinates: the mean of -value / (D log 2) is the entropy rate, ½ log2(2πe) + log2 scale.
    transport = Transport(affine(np.log(0.2), 1.5), Linear(), Normal(shape), Euclidean(shape))
    samples = transport.sample(4000, key=key)
    assert samples.shape == (4000, *shape)
    dim = np.prod(shape)
    bits = -transport.log_prob(samples).value / (dim * np.log(2))
    expected = 0.5 * np.log2(2 * np.pi * np.e) + np.log2(0.2)
    assert abs(bits.mean() - expected) < 4 * np.sqrt(1 / (2 * dim)) / np.log(2) / 4000**0.5


def test_encoding_undoes_sampling_and_the_round_trip_is_reported(x64, mixture, key):
    transport = transport_of(mixture, Linear())
    samples = transport.sample(64, key=key, solver=Solver(rtol=1e-8, atol=1e-8))
    codes = transport.encode(samples, solver=Solver(rtol=1e-8, atol=1e-8))
    np.testing.assert_allclose(codes, jax.vmap(transport.prior.sample)(jax.random.split(key, 64)), atol=1e-5)
    loose, tight = (  # one program for both
        transport.log_prob(samples, solver=Solver(rtol=r, atol=r), round_trip=True).round_trip_error.mean()
        for r in jnp.array([1e-2, 1e-6])
    )
    assert 0 < tight < 1e-4 and loose > 10 * tight


def test_samples_have_the_datas_moments(x64, gaussian, key):
    samples = np.asarray(transport_of(gaussian, Linear()).sample(20_000, key=key))
    covariance = gaussian.covariances[0]
    deviation = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(samples.mean(axis=0) - gaussian.means[0]) < 4 * deviation / 20_000**0.5)
    spread = 4 * np.outer(deviation, deviation) * (2 / 20_000) ** 0.5
    assert np.all(np.abs(np.cov(samples.T) - covariance) < spread)


def test_rows_that_control_their_own_step_agree_with_the_batch(x64, mixture, key):
    transport = transport_of(mixture, Linear())
    together = transport.sample(32, key=key, solver=Solver(rtol=1e-6, atol=1e-6))
    apart = transport.sample(32, key=key, solver=Solver(rtol=1e-6, atol=1e-6), per_sample=True)
    np.testing.assert_allclose(together, apart, atol=2e-4)
    codes = transport.encode(together, solver=Solver(rtol=1e-6, atol=1e-6), per_sample=True)
    np.testing.assert_allclose(codes, jax.vmap(transport.prior.sample)(jax.random.split(key, 32)), atol=2e-3)


def test_fixed_steps_approach_the_flow_at_the_solvers_order(x64, mixture, key):
    transport = transport_of(mixture, Linear())
    truth = transport.sample(32, key=key, solver=Solver(rtol=1e-9, atol=1e-9))

    def error(solver, steps):
        return float(
            jnp.sqrt(jnp.mean((transport.sample(32, key=key, solver=Solver(steps=steps, method=solver)) - truth) ** 2))
        )

    # As numbers, and as arrays, which share a program.
    for solver, order, kind in ((diffrax.Euler(), 1, int), (None, 2, jnp.asarray)):
        assert abs(np.log2(error(solver, kind(64)) / error(solver, kind(128))) - order) < 0.25


def test_each_row_follows_its_own_condition(x64, key):
    # x1 = x0 + args: rows given each other's condition would be off by whole units.
    transport = Transport(lambda t, y, args: args["shift"], Linear(), Normal((2,)), Euclidean((2,)))
    args = {"shift": 10.0 * jnp.arange(10.0).reshape(5, 2)}
    start = jax.vmap(transport.prior.sample)(jax.random.split(key, 5))
    for per_sample in (False, True):
        samples = transport.sample(5, key=key, args=args, per_sample=per_sample)
        np.testing.assert_allclose(samples, start + args["shift"], rtol=1e-10)
    np.testing.assert_allclose(transport.encode(samples, args), start, atol=1e-10)
    expected = jax.vmap(transport.prior.log_prob)(start)
    np.testing.assert_allclose(transport.log_prob(samples, args).value, expected, rtol=1e-8)
    probed = transport.log_prob(samples, args, divergence="stochastic", key=key)
    np.testing.assert_allclose(probed.value, expected, rtol=1e-8)


def test_single_precision_is_kept_under_x64(x64):
    transport = Transport(affine(-0.5, 1.0), Linear(), Normal((2,)), Euclidean((2,)))
    ys = jnp.ones((3, 2), jnp.float32)
    assert transport.encode(ys).dtype == jnp.float32
    result = transport.log_prob(ys, round_trip=True)
    assert {x.dtype for x in (result.value, result.standard_error, result.round_trip_error)} == {jnp.dtype("float32")}


def test_an_empirical_prior_can_only_be_followed(key):
    prior = Empirical(jnp.arange(6.0).reshape(3, 2))
    transport = Transport(affine(0.0, 1.0), Linear(), prior, Euclidean((2,)))
    samples = transport.sample(7, key=key)
    assert set(np.asarray(samples[:, 0]).round(3).tolist()) <= {1.0, 3.0, 5.0}
    t, y = jnp.array(0.5), jnp.ones(2)
    np.testing.assert_array_equal(transport.velocity(t, y), 1.0)
    for view in ("score", "noise", "denoiser"):
        with pytest.raises(ValueError, match="paired independently"):
            getattr(transport, view)(t, y)
    with pytest.raises(ValueError, match="a prior with a density"):
        transport.log_prob(samples)
    with pytest.raises(ValueError, match="paired independently"):
        Transport(affine(0.0, 1.0), Linear(1e-3), prior, Euclidean((2,)), "noise")


def test_a_coupled_transport_has_a_likelihood_but_no_score(x64):
    transport = Transport(affine(0.0, 1.0), Linear(), Normal((2,)), Euclidean((2,)), independent=False)
    np.testing.assert_allclose(transport.log_prob(jnp.ones((1, 2))).value, -np.log(2 * np.pi), rtol=1e-8)
    with pytest.raises(ValueError, match="independent=False"):
        transport.score(jnp.array(0.5), jnp.ones(2))


def test_faults_are_found_when_the_transport_is_made():
    def make(path, prior, prediction="velocity", shape=(2,)):
        return Transport(affine(1.0, 0.0), path, prior, Euclidean(shape), prediction)

    with pytest.raises(ValueError, match=r"the space's shape \(3,\)"):
        make(Linear(), Normal((2,)), shape=(3,))
    with pytest.raises(ValueError, match="velocity, score, noise, denoiser"):
        make(Linear(), Normal((2,)), "flow")
    # Without a margin the straight path would divide zero by zero at an end, and fixed steps would return NaN.
    for prediction in ("noise", "score", "denoiser"):
        with pytest.raises(ValueError, match="margin=1e-3"):
            make(Linear(), Normal((2,)), prediction)
        make(Linear(1e-3), Normal((2,)), prediction)
        make(VariancePreserving(), Normal((2,)), prediction)
    # Minus the noise over b is the score for standard normal noise alone.
    make(Linear(), Normal((2,), 3.0)).noise(jnp.array(0.5), jnp.ones(2))
    with pytest.raises(ValueError, match="path's own scale"):
        make(Linear(), Normal((2,), 3.0)).score(jnp.array(0.5), jnp.ones(2))
    with pytest.raises(ValueError, match="path's own scale"):
        make(VarianceExploding(), Normal((2,)), "score")
    with pytest.raises(ValueError, match="auto, exact or stochastic"):
        make(Linear(), Normal((2,))).log_prob(jnp.ones((1, 2)), divergence="hutchinson")


def test_transport_compiles_as_an_argument_and_prints_its_record(gaussian):
    transport = transport_of(gaussian, Linear())
    score = eqx.filter_jit(lambda transport, ts, ys: jax.vmap(transport.score)(ts, ys))
    ts, ys = jnp.array([0.2, 0.7]), jnp.ones((2, 3))
    apart = jnp.stack([transport.score(t, y) for t, y in zip(ts, ys)])
    np.testing.assert_allclose(score(transport, ts, ys), apart, rtol=1e-4)
    table = transport.log_prob(ys, round_trip=True).table()
    assert "nats" in table and "mean of 2 rows" in table and "round trip" in table


def test_the_field_is_traced_once_for_a_flow_and_once_for_its_divergence(key):
    """A solver asks for it at its first step, at each stage and for the shapes: tracing a network is what costs."""
    traced = []

    def velocity(t, y, args):
        traced.append(y)
        return (2 * t - 1) / (t**2 + (1 - t) ** 2) * y

    transport = Transport(velocity, Linear(), Normal((2,)), Euclidean((2,)))
    transport.sample(7, key=key)
    assert len(traced) == 1
    transport.sample(9, key=key)
    assert len(traced) == 2
    transport.log_prob(jnp.ones((7, 2)))
    assert len(traced) == 3
