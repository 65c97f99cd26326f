import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest

from nablax.calculus import HelmholtzProcess

# One size for all fits, so that they share their compilation.
COUNT = 60


def process(noise=0.1):
    return HelmholtzProcess.make(potential=(0.8, 0.7), stream=(1.3, 1.1), noise=noise)


def data(n=6, m=4, seed=0):
    generator = np.random.default_rng(seed)
    return [jnp.asarray(generator.normal(size=shape)) for shape in ((n, 2), (n, 2), (m, 2))]


@eqx.filter_jit
def moments(prior, positions, observed, points):
    posterior = prior.condition(positions, observed)
    names = ("velocity", "divergence", "vorticity")
    return {name: (g := getattr(posterior, name)(points), g.deviation) for name in names}


def rbf(length, deviation):
    return lambda x, y: deviation**2 * jnp.exp(-jnp.sum((x - y) ** 2) / (2 * length**2))


def joint_covariance(prior, left, right):
    """Covariance of (u, v, divergence, vorticity) between all points, by autodiff of the two scalar kernels.

    Divergence and vorticity are taken as derivatives of the velocity's kernel, not as Laplacians.
    """
    phi = rbf(prior.potential.length, prior.potential.deviation)
    psi = rbf(prior.stream.length, prior.stream.deviation)
    rotate = jnp.array([[0.0, 1.0], [-1.0, 0.0]])

    def velocity(x, y):
        def mixed(kernel):
            return jax.jacfwd(jax.grad(kernel, argnums=0), argnums=1)(x, y)

        return mixed(phi) + rotate @ mixed(psi) @ rotate.T

    def reduce(jacobian):
        # [..., i, j] = ∂_j v_i to (divergence, vorticity).
        return jnp.stack([jacobian[..., 0, 0] + jacobian[..., 1, 1], jacobian[..., 1, 0] - jacobian[..., 0, 1]], -1)

    def pair(x, y):
        right_side = jnp.concatenate([velocity(x, y), reduce(jax.jacfwd(velocity, argnums=1)(x, y))], axis=1)

        def row(x):
            return jnp.concatenate([velocity(x, y), reduce(jax.jacfwd(velocity, argnums=1)(x, y))], axis=1)

        slope = jnp.moveaxis(jax.jacfwd(row)(x), 1, 0)  # [feature, i, j]
        return jnp.concatenate([right_side, reduce(slope).T], axis=0)

    return jax.jit(jax.vmap(jax.vmap(pair, (None, 0)), (0, None)))(left, right)


def test_posterior_is_that_of_the_brute_force_joint_gaussian(x64):
    prior = process()
    positions, observed, points = data()
    n = len(positions)
    everything = jnp.concatenate([positions, points])
    joint = np.asarray(joint_covariance(prior, everything, everything))
    among_data = joint[:n, :n, :2, :2].transpose(0, 2, 1, 3).reshape(2 * n, 2 * n) + 0.01 * np.eye(2 * n)
    inverse = np.linalg.inv(among_data)
    posterior = moments(prior, positions, observed, points)
    slices = {"velocity": slice(0, 2), "divergence": slice(2, 3), "vorticity": slice(3, 4)}
    for name, rows in slices.items():
        ours, deviation = posterior[name]
        cross = joint[n:, :n, rows, :2].transpose(0, 2, 1, 3).reshape(-1, 2 * n)
        own = joint[n:, n:, rows, rows].transpose(0, 2, 1, 3).reshape(len(cross), len(cross))
        np.testing.assert_allclose(ours.mean.ravel(), cross @ inverse @ np.ravel(observed), atol=1e-9)
        covariance = own - cross @ inverse @ cross.T
        np.testing.assert_allclose(ours.covariance.reshape(covariance.shape), covariance, atol=1e-9)
        np.testing.assert_allclose(deviation.ravel(), np.sqrt(np.diagonal(covariance)), atol=1e-8)
    # And the marginal likelihood is the normal density.
    _, log_determinant = np.linalg.slogdet(2 * np.pi * among_data)
    expected = -(np.ravel(observed) @ inverse @ np.ravel(observed) + log_determinant) / 2
    np.testing.assert_allclose(prior.log_likelihood(positions, observed), expected, rtol=1e-10)


def test_divergence_and_vorticity_are_derivatives_of_the_mean_velocity_and_parts_are_pure(x64):
    positions, observed, points = data(seed=1)
    posterior = process().condition(positions, observed)

    def jacobian(part):
        return jax.vmap(jax.jacfwd(lambda y: posterior.velocity(y[None], part).mean[0]))(points)

    both, potential, stream = jax.jit(lambda: tuple(map(jacobian, ("both", "potential", "stream"))))()
    exact = moments(process(), positions, observed, points)
    divergence = both[:, 0, 0] + both[:, 1, 1]
    vorticity = both[:, 1, 0] - both[:, 0, 1]
    np.testing.assert_allclose(exact["divergence"][0].mean, divergence, atol=1e-10)
    np.testing.assert_allclose(exact["vorticity"][0].mean, vorticity, atol=1e-10)
    assert np.abs(divergence).min() > 1e-4 and np.abs(vorticity).min() > 1e-4
    np.testing.assert_allclose(potential[:, 1, 0], potential[:, 0, 1], atol=1e-10)
    np.testing.assert_allclose(stream[:, 0, 0], -stream[:, 1, 1], atol=1e-10)
    np.testing.assert_allclose(potential + stream, both, atol=1e-10)


def test_a_counter_clockwise_rotation_has_positive_vorticity_and_no_divergence(x64):
    positions = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (COUNT, 2)))
    rotation = jnp.stack([-positions[:, 1], positions[:, 0]], axis=1)
    fit = HelmholtzProcess.guess(positions, rotation).fit(positions, rotation)
    posterior = moments(fit.process, positions, rotation, jnp.zeros((1, 2)))
    np.testing.assert_allclose(posterior["vorticity"][0].mean, 2, atol=0.02)
    np.testing.assert_allclose(posterior["divergence"][0].mean, 0, atol=0.02)


def test_the_fit_finds_a_maximum_and_parameters_that_made_the_data(x64):
    truth = process()
    generator = np.random.default_rng(2)
    positions = jnp.asarray(generator.uniform(-3, 3, (COUNT, 2)))
    covariance = truth.velocities(positions, positions).reshape(2 * COUNT, 2 * COUNT) + 0.01 * jnp.eye(2 * COUNT)
    observed = (jnp.linalg.cholesky(covariance) @ generator.normal(size=2 * COUNT)).reshape(COUNT, 2)
    start = HelmholtzProcess.guess(positions, observed)
    fit = start.fit(positions, observed)
    assert fit.result == optimistix.RESULTS.successful
    assert fit.log_likelihood > truth.log_likelihood(positions, observed) > start.log_likelihood(positions, observed)
    assert fit.gradient < 0.01
    for ours, true in zip(jax.tree.leaves(fit.process), jax.tree.leaves(truth)):
        np.testing.assert_allclose(ours, true, rtol=0.3)
    # Two steps are not enough, and that is said.
    short = start.fit(positions, observed, max_steps=2, throw=False)
    assert short.result != optimistix.RESULTS.successful and short.gradient > 1
    with pytest.raises(Exception, match="maximum number of steps"):
        start.fit(positions, observed, max_steps=2)


def test_single_precision_stays_and_agrees():
    positions, observed, points = (jnp.asarray(a, jnp.float32) for a in data())
    velocity, _ = moments(process(), positions, observed, points)["velocity"]
    assert velocity.covariance.dtype == jnp.float32
    with jax.enable_x64(True):
        exact, _ = moments(process(), *data())["velocity"]
    np.testing.assert_allclose(velocity.mean, exact.mean, atol=1e-3)
    np.testing.assert_allclose(velocity.covariance, exact.covariance, atol=1e-3)


def test_faults_are_said():
    with pytest.raises(ValueError, match=r"shape \[n, 2\]"):
        process().condition(jnp.zeros((3, 3)), jnp.zeros((3, 3)))
    with pytest.raises(ValueError, match="part 'both'"):
        process().velocities(jnp.zeros((3, 2)), jnp.zeros((3, 2)), "other")
    with pytest.raises(Exception, match="not positive definite"):
        twice = jnp.zeros((40, 2))
        HelmholtzProcess.make(potential=(1.0, jnp.nan), stream=(1.0, 1.0), noise=0.0).condition(twice, twice)
