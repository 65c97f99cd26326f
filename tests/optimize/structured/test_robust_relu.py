"""Robust convex training: worst cases by corners, the plain problem at radius 0, a bound that bounds, small solves."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import optimize
from nablax.optimize._structured._robust_relu import _soft, _threshold

RANDOM = np.random.default_rng(0)
POINTS = np.concatenate([RANDOM.normal(size=(7, 2)), np.ones((7, 1))], axis=1)
TARGETS = np.sin(2 * POINTS[:, 0]) + 0.3 * POINTS[:, 1]
CLASSES = np.sign(TARGETS)
PENALTY = 0.1
CORNERS = np.array([[a, b, 0.0] for a, b in itertools.product([-1, 0, 1], repeat=2)])


def wants(loss):
    return TARGETS if loss == "squared" else CLASSES


def lost(predictions, targets, loss):
    return (predictions - targets) ** 2 / 2 if loss == "squared" else jax.nn.relu(1 - targets * predictions)


def in_corners(predict, penalty_of, radius, loss):
    """The objective in the worst of each box's corners, edges' midpoints and centre."""
    around = POINTS[:, None] + CORNERS[None] * np.append(radius, 0.0)[None, None]
    worst = jnp.max(lost(predict(around), wants(loss)[:, None], loss), axis=1)
    return jnp.sum(worst) + PENALTY / 2 * penalty_of


@pytest.fixture(scope="module", params=["squared", "hinge"])
def solved(request):
    with jax.enable_x64(True):
        patterns = optimize.relu_patterns(POINTS)
        radius = np.array([0.2, 0.1, 0.0])
        net = optimize.robust_relu(
            POINTS, wants(request.param), patterns, radius=radius, penalty=PENALTY, loss=request.param, tolerance=1e-4
        )
        return net, request.param, radius


def test_the_value_is_the_worst_of_all_corners_and_the_bound_is_just_below(x64, solved):
    net, loss, radius = solved
    true = in_corners(net, np.sum(net.weights**2) + np.sum(net.outputs**2), radius[:2], loss)
    np.testing.assert_allclose(net.value, true, rtol=5e-3)
    assert true <= net.value * (1 + 1e-12)  # what unkept sides add is on the safe side
    assert net.converged and abs(net.value - net.bound) <= 1e-4 * net.value


def test_units_keep_their_sides_within_the_boxes(x64, solved):
    net, _, radius = solved
    used = net.weights[np.linalg.norm(net.weights, axis=1) > 0.1]
    assert len(used) and np.all(np.abs(used @ POINTS.T) > np.abs(used) @ radius[:, None] - 1e-2)


def test_at_radius_zero_it_is_the_plain_problem(x64):
    patterns = optimize.relu_patterns(POINTS)
    plain = optimize.convex_relu(POINTS, TARGETS, patterns, penalty=PENALTY, tolerance=1e-4)
    net = optimize.robust_relu(POINTS, TARGETS, patterns, radius=np.zeros(3), penalty=PENALTY, tolerance=1e-4)
    np.testing.assert_allclose(net.value, plain.value, rtol=2e-4)
    assert net.bound <= plain.value and plain.bound <= net.value


def test_no_descent_of_units_that_keep_their_sides_goes_below_the_bound(x64, solved):
    """Adversarial training, with a price on sides that are not kept: from some starts it comes near."""
    net, loss, radius = solved

    def objective(params):
        weights, outputs = params
        own = in_corners(
            lambda x: jax.nn.relu(x @ weights.T) @ outputs, jnp.sum(weights**2) + jnp.sum(outputs**2), radius[:2], loss
        )
        short = jax.nn.relu(jnp.abs(weights) @ radius[:, None] - jnp.abs(weights @ POINTS.T))
        return own, own + 30 * jnp.sum(short * jnp.abs(outputs)[:, None])

    def trained(key):
        first, second = jax.random.split(key)
        params = jax.random.normal(first, (12, 3)) * 0.5, jax.random.normal(second, (12,)) * 0.5
        rule = optax.adam(optax.cosine_decay_schedule(0.03, 3000))

        def step(carry, _):
            params, state = carry
            updates, state = rule.update(jax.grad(lambda p: objective(p)[1])(params), state)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, rule.init(params)), length=3000)
        return objective(params)

    own, priced = jax.jit(jax.vmap(trained))(jax.random.split(jax.random.key(0), 8))
    assert np.all(priced > net.bound) and priced.min() < 1.2 * net.value


def test_a_larger_box_costs_more(x64):
    patterns = optimize.relu_patterns(POINTS)
    values = [
        optimize.robust_relu(
            POINTS, CLASSES, patterns, radius=np.array([e, e, 0.0]), penalty=PENALTY, loss="hinge", tolerance=1e-3
        )
        for e in (0.0, 0.1, 0.3)
    ]
    assert values[0].value < values[1].bound and values[1].value < values[2].bound


def test_one_row_has_a_closed_form(x64):
    """Of a unit that gives cx the worst is ½(|cx − y| + cr)² + βc, whose least is at the kink, c = y/x."""
    x, y, r, penalty = 2.0, 1.0, 0.5, 0.1
    net = optimize.robust_relu(
        np.array([[x]]), np.array([y]), np.array([[True]]), radius=np.array([r]), penalty=penalty, tolerance=1e-7
    )
    c = y / x
    assert -(x - r) * c * r + penalty < 0 < (x + r) * c * r + penalty  # the slopes on both sides of it
    np.testing.assert_allclose(net.value, (c * r) ** 2 / 2 + penalty * c, rtol=1e-6)


@pytest.mark.parametrize("weight", [0.7, 1.0, 3.0])
def test_thresholds_solve_their_equation(x64, weight):
    a = jnp.asarray(RANDOM.normal(size=(50, 4)))
    constant = jnp.asarray(RANDOM.normal(size=50))
    cut = _threshold(a, constant, weight)
    left = constant + jnp.where(cut > 0, jnp.sum(jnp.abs(_soft(a, cut[:, None])), axis=1), 0) - weight * cut
    outside = np.asarray(constant + np.abs(a).sum(axis=1) > 0)
    np.testing.assert_allclose(np.asarray(left)[outside], 0, atol=1e-12)
    assert np.all(np.asarray(cut)[~outside] <= 0) and 5 < outside.sum() < 50


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"radius": np.array([-0.1, 0.0, 0.0])}, "a radius of 0 or more"),
        ({"radius": np.ones(2)}, "radius of shape"),
        ({"loss": "hinge"}, "targets of -1 and 1"),
        ({"loss": "log"}, "the loss 'squared' or 'hinge'"),
        ({"patterns": np.ones((626, 7), bool)}, "unknowns of up to 5000, got 5008"),
        ({"penalty": 0.0}, "penalty above 0"),
    ],
)
def test_what_cannot_be_is_refused(change, says):
    arguments = {"inputs": POINTS, "targets": TARGETS, "patterns": np.ones((1, 7), bool), "radius": np.zeros(3)}
    with pytest.raises(ValueError, match=says):
        optimize.robust_relu(**(arguments | {"penalty": 1.0} | change))


def test_too_few_rounds_are_told(x64):
    with pytest.raises(Exception, match=r"expected a gap of at most 0\.01 of the value after 25 rounds"):
        optimize.robust_relu(
            POINTS, TARGETS, optimize.relu_patterns(POINTS), radius=np.ones(3) * 0.1, penalty=PENALTY, steps=25
        ).value.block_until_ready()
