"""Frozen coordinates against the closed form: the conditionals of a joint normal distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from nablax.fields import MLP, Frozen
from nablax.follow import Solver
from nablax.spaces import Euclidean
from nablax.transport import Linear, Normal, Transport, flow_matching

MEAN = np.array([0.5, -1.0, 0.3])
COVARIANCE = np.array([[1.0, 0.6, -0.3], [0.6, 0.8, 0.1], [-0.3, 0.1, 0.5]])
SUBSETS = [(True, True, True), (True, False, True), (False, True, False)]


def velocity(t, y, free):
    """Exact velocity of the free coordinates of the joint normal, the others of ``y`` being given clean.

    With precision P, the free ones given the others are normal with covariance (P_ff)⁻¹; the frozen rows and columns
    are replaced by those of the identity, which keeps the shapes.
    """
    on = free.astype(y.dtype)
    precision = jnp.asarray(np.linalg.inv(COVARIANCE), y.dtype)
    inner = precision * on[:, None] * on[None, :] + jnp.diag(1 - on)
    covariance = jnp.linalg.inv(inner)
    shift = (1 - on) * (y - MEAN)
    mean = on * (MEAN - covariance @ (on * (precision @ shift)))
    marginal = t**2 * covariance + (1 - t) ** 2 * jnp.eye(3)
    # Normal to normal along the straight path: the conditional mean of x1 - x0 given x_t.
    return on * (mean + (t * covariance - (1 - t) * jnp.eye(3)) @ jnp.linalg.solve(marginal, on * (y - t * mean)))


def transport():
    return Transport(Frozen(velocity), Linear(), Normal((3,)), Euclidean((3,)))


def arguments(free, given, count):
    free = jnp.tile(jnp.asarray(free), (count, 1))
    return free, jnp.tile(jnp.asarray(given, jnp.float32), (count, 1)), free


def conditional(free, given):
    free = np.array(free)
    a, b = np.ix_(free, free), np.ix_(free, ~free)
    gain = COVARIANCE[b] @ np.linalg.inv(COVARIANCE[np.ix_(~free, ~free)])
    return MEAN[free] + gain @ (given - MEAN)[~free], COVARIANCE[a] - gain @ COVARIANCE[b].T


@pytest.mark.parametrize("free", SUBSETS)
def test_the_density_of_the_free_coordinates_is_the_conditional_one(free):
    rows = np.random.default_rng(0).multivariate_normal(MEAN, COVARIANCE, 5).astype(np.float32)
    marks = np.tile(np.array(free), (5, 1))
    args = (marks, jnp.asarray(rows), marks)
    found = transport().log_prob(jnp.where(marks, rows, 0.0), args, solver=Solver(rtol=1e-6, atol=1e-6))
    value = found.value + 0.5 * np.log(2 * np.pi) * np.sum(~np.array(free))
    for row, density in zip(rows, value):
        mean, covariance = conditional(free, row)
        np.testing.assert_allclose(density, multivariate_normal(mean, covariance).logpdf(row[list(free)]), atol=2e-4)


@pytest.mark.parametrize("free", SUBSETS[1:])
def test_samples_of_the_free_coordinates_have_the_conditional_moments(free):
    count, given = 4000, np.array([1.5, -2.0, 0.0])
    drawn = np.asarray(transport().sample(count, key=jax.random.key(0), args=arguments(free, given, count)))
    drawn = drawn[:, list(free)]
    mean, covariance = conditional(free, given)
    error = 4 * np.sqrt(np.diag(covariance) / count)
    assert np.all(np.abs(drawn.mean(0) - mean) < error)
    assert np.all(np.abs(np.cov(drawn.T) - covariance) < 4 * np.sqrt(2 / count) * np.diag(covariance).max())


def test_nothing_depends_on_what_stands_in_a_frozen_coordinate():
    net = MLP(3, condition=2, width=8, depth=1, key=jax.random.key(0))
    free, given = jnp.array([True, False, True]), jnp.array([0.0, 2.0, 0.0])
    args, y = (free, given, jnp.ones(2)), jnp.array([0.4, 7.0, -1.0])
    jacobian = jax.jacfwd(lambda y: Frozen(net)(jnp.asarray(0.3), y, args))(y)
    assert np.all(np.asarray(jacobian)[:, 1] == 0) and np.all(np.asarray(jacobian)[1] == 0)
    inner = net(jnp.asarray(0.3), y.at[1].set(2.0), jnp.ones(2))
    np.testing.assert_array_equal(Frozen(net)(jnp.asarray(0.3), y, args), jnp.where(free, inner, 0.0))


def test_frozen_coordinates_take_no_part_in_the_loss():
    # All frozen: nothing is left to learn, and the loss is exactly zero.
    net = MLP(3, width=8, depth=1, key=jax.random.key(0))
    data = jax.random.normal(jax.random.key(1), (16, 3))
    free = jnp.zeros((16, 3), bool)
    batch = {"data": data, "noise": data, "condition": (free, data, None)}
    assert float(flow_matching(Linear())(Frozen(net), batch, key=jax.random.key(2))) == 0.0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (None, "free, given"),
        ((jnp.ones(2, bool), jnp.zeros(3), None), "marks of shape"),
        ((jnp.ones(3, bool), jnp.zeros(()), None), "given values of shape"),
    ],
)
def test_arguments_of_another_shape_are_refused(args, words):
    with pytest.raises(ValueError, match=words):
        Frozen(lambda t, y, c: y)(jnp.asarray(0.0), jnp.zeros(3), args)
