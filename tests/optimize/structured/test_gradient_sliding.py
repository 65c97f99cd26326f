"""Gradient sliding: a closed form reached within the bound that was derived, counters, and a round by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import optimize

DIM, CURVATURE, CONVEXITY, SLOPE = 12, 100.0, 1.0, 0.7
STIFF = np.geomspace(0.1, CURVATURE, DIM)
RANDOM = np.random.default_rng(0)
CENTRE = 2 * RANDOM.normal(size=DIM)
CONSTANTS = {"curvature": CURVATURE, "convexity": CONVEXITY}


def smooth(x):
    return jnp.sum(STIFF * (x - CENTRE) ** 2) / 2


def absolute(x):
    return SLOPE * jnp.sum(jnp.abs(x))


def huber(x, width):
    slope = jnp.clip(x / width, -SLOPE, SLOPE)
    return jnp.sum(slope * x - width * slope**2 / 2)


def whole(x):
    return float(smooth(x) + absolute(x) + CONVEXITY / 2 * jnp.sum(x**2))


PULL = STIFF * CENTRE
LEAST = np.sign(PULL) * np.maximum(np.abs(PULL) - SLOPE, 0) / (STIFF + CONVEXITY)


def weight(share):
    """γ by the roots of a polynomial."""
    return np.roots([(1 + share) * CURVATURE, (1 + share) * CONVEXITY, -CONVEXITY]).max()


@pytest.fixture(scope="module")
def plain():
    with jax.enable_x64(True):
        return optimize.gradient_sliding(smooth, absolute, jnp.zeros(DIM), **CONSTANTS, steps=150, inner_steps=4)


@pytest.fixture(scope="module")
def accelerated():
    with jax.enable_x64(True):
        return optimize.accelerated_gradient_sliding(
            smooth, absolute, huber, jnp.zeros(DIM), **CONSTANTS, coupling=1.0, width=0.1, steps=230
        )


def test_the_error_is_within_what_was_derived(x64, plain, accelerated):
    first = whole(np.zeros(DIM)) - whole(LEAST) + CONVEXITY / 2 * np.sum(LEAST**2)
    for found, share in ((plain, 2 / (4 * 7)), (accelerated, 0.5)):
        gamma = weight(share)
        rate = CURVATURE * gamma + CONVEXITY
        lengths = np.diff(np.r_[0, found.subgradients])
        widths = 0.1 * (1 - gamma / 2) ** np.arange(len(lengths))
        if found is plain:  # a sign is off by up to twice the slope
            added = 4 * gamma * (2 * SLOPE) ** 2 * DIM / (rate * (lengths + 3))
        else:  # at first and at last by the whole width, between by how much it fell
            added = SLOPE**2 * DIM / 2 * (np.r_[widths[0], -np.diff(widths)])
        bound, bounds = first, []
        for one in added:
            bound = (1 - gamma) * bound + one
            bounds.append(bound)
        bounds = np.array(bounds) + (0 if found is plain else SLOPE**2 * DIM / 2 * widths)
        gaps = np.asarray(found.values)[1:] - whole(LEAST)
        assert np.all(gaps > -1e-9) and np.all(gaps <= bounds)
        np.testing.assert_allclose(found.params, LEAST, atol=1e-2)


@pytest.mark.parametrize(("method", "power"), [("plain", 1.0), ("accelerated", 0.5)])
def test_gradients_are_as_the_logarithm_and_subgradients_as_the_power_of_the_error(request, method, power):
    found = request.getfixturevalue(method)
    gaps, counts = np.asarray(found.values)[1:] - whole(LEAST), np.asarray(found.subgradients)
    late = slice(len(gaps) // 3, None)
    slope, _ = np.polyfit(np.log(gaps[late]), np.log(counts[late]), 1)
    assert abs(slope + power) < 0.1 * power
    shape = np.polyfit(np.arange(len(gaps))[late], np.log(gaps[late]), 1)
    assert np.std(np.polyval(shape, np.arange(len(gaps))[late]) - np.log(gaps[late])) < 0.2


def test_a_round_by_hand(x64):
    def box(v, rate):
        return jnp.clip(v / (1 + CONVEXITY * rate), -1.0, 1.5)

    found = optimize.gradient_sliding(
        smooth,
        absolute,
        np.full(DIM, 0.5),
        **CONSTANTS,
        steps=2,
        inner_steps=1,
        simple=lambda x: CONVEXITY / 2 * jnp.sum(x**2),
        proximal=box,
    )
    gamma = weight(0.5)
    beta = CURVATURE * gamma
    x = average = np.full(DIM, 0.5)
    for length in (1, int(np.ceil(1 / (1 - gamma / 2)))):
        pull = STIFF * ((1 - gamma) * average + gamma * x - CENTRE)
        u, points = x, []
        for t in range(1, length + 1):
            near = (beta + CONVEXITY) * t / 2
            # The least of a quadratic in a box, coordinate by coordinate.
            top = beta * x + near * u - pull - SLOPE * np.sign(u)
            u = np.clip(top / (beta + near + CONVEXITY), -1.0, 1.5)
            points.append(u)
        x = u
        average = (1 - gamma) * average + gamma * np.average(points, axis=0, weights=np.arange(length) + 2)
    np.testing.assert_allclose(found.params, average, rtol=1e-10)
    assert found.subgradients.tolist() == [1, 3]


def test_without_anything_rough_it_is_accelerated_descent(x64):
    """A linear h has no curvature: with a wide coupling one inner step solves a round, whose least is known."""
    found = optimize.accelerated_gradient_sliding(
        smooth, jnp.sum, lambda x, _: jnp.sum(x), jnp.zeros(DIM), **CONSTANTS, coupling=1e-9, width=1.0, steps=5
    )
    gamma = weight(0.5)
    beta = CURVATURE * gamma
    x = average = np.zeros(DIM)
    for _ in range(5):
        pull = STIFF * ((1 - gamma) * average + gamma * x - CENTRE) + 1
        x = (beta * x - pull) / (beta + CONVEXITY)
        average = (1 - gamma) * average + gamma * x
    np.testing.assert_allclose(found.params, average, rtol=1e-6)
    assert found.subgradients.tolist() == [1, 2, 3, 4, 5]


def test_trees_in_single_precision_and_batches_drawn_with_a_key(key):
    stiff, centre = np.float32(STIFF), np.float32(CENTRE)

    def noisy(params, *, key):
        return SLOPE * jnp.sum(jnp.abs(params["x"])) + 0.3 * jnp.vdot(jax.random.normal(key, (DIM,)), params["x"])

    def run(key):
        return optimize.gradient_sliding(
            lambda p: jnp.sum(stiff * (p["x"] - centre) ** 2) / 2,
            noisy,
            {"x": jnp.zeros(DIM)},
            **CONSTANTS,
            steps=80,
            key=key,
        )

    found = run(key)
    assert found.params["x"].dtype == jnp.float32 and found.values.dtype == jnp.float32
    np.testing.assert_allclose(found.params["x"], LEAST, atol=0.05)
    with pytest.raises(ValueError, match="a key for the batches of nonsmooth"):
        run(None)


def test_what_diverges_is_told(x64):
    settings = {"curvature": 1e-12, "convexity": 1e-12, "steps": 20, "inner_steps": 1}
    with pytest.raises(RuntimeError):
        optimize.gradient_sliding(smooth, absolute, jnp.zeros(DIM), **settings).params.block_until_ready()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"convexity": 0.0}, "convexity above 0"),
        ({"inner_steps": 0}, "inner_steps"),
        ({"simple": smooth}, "simple and proximal together"),
        ({"simple": smooth, "proximal": lambda x, rate: x[:2]}, "what proximal returns"),
        ({"nonsmooth": jnp.abs}, "nonsmooth"),
        ({"smooth": 3}, "smooth"),
    ],
)
def test_what_cannot_be_is_refused(x64, change, says):
    given = {"smooth": smooth, "nonsmooth": absolute, "start": jnp.zeros(DIM), **CONSTANTS, "steps": 2}
    with pytest.raises(ValueError, match=says):
        optimize.gradient_sliding(**given | change)
