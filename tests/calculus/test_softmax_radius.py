import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.jet import jet

from nablax.calculus import softmax_radius


def linear(params, slopes):
    return params["z"] + params["tau"] * slopes


@jax.jit
def measure(z, a):
    params = {"z": z, "tau": jnp.zeros((), z.dtype)}
    return softmax_radius(linear)(params, {"z": jnp.zeros_like(z), "tau": jnp.ones((), z.dtype)}, a)


def nearest_zero(z, a):
    """For whole a the partition function is a polynomial in exp(τ): all its zeros are known."""
    coefficients = np.zeros(int(a.max()) + 1)
    for height, power in zip(z, a.astype(int)):
        coefficients[-1 - power] += np.exp(height)
    return np.min(np.abs(np.log(np.roots(coefficients).astype(complex))))


def test_two_classes_are_exact(x64):
    z, a = np.random.default_rng(0).normal(size=(2, 50, 2)) * 3
    expected = np.hypot(z[:, 0] - z[:, 1], np.pi) / np.abs(a[:, 0] - a[:, 1])
    np.testing.assert_allclose(measure(jnp.asarray(z), jnp.asarray(a)).radius, expected, rtol=1e-12)


def test_never_beyond_the_nearest_zero_and_never_below_the_simple_bound(x64):
    random = np.random.default_rng(1)
    z = 4 * random.normal(size=(300, 5))
    a = np.stack([random.permutation(7)[:5] for _ in range(300)]).astype(float)
    a -= a.min(axis=1, keepdims=True)
    record = measure(jnp.asarray(z), jnp.asarray(a))
    truth = np.array([nearest_zero(*row) for row in zip(z, a)])
    assert np.all(record.radius <= truth * (1 + 1e-9))
    assert np.all(record.radius >= record.simple)
    np.testing.assert_allclose(record.simple, np.pi / a.max(axis=1))
    # Looking at the logits as well takes the median from less than half of the truth to most of it.
    assert np.median(record.simple / truth) < 0.5 < 0.75 < np.median(record.radius / truth)
    np.testing.assert_allclose(record.smallest(), np.min(record.radius))


def test_the_series_of_the_loss_stops_converging_there(x64):
    # Binary: log(1 + exp(δ + τΔ)); beyond the radius more terms make the sum worse, within it better.
    z, a = jnp.array([[0.7, 0.0]]), jnp.array([[2.0, 0.0]])
    radius = float(measure(z, a).smallest())

    def loss(tau):
        return jax.nn.logsumexp((z + tau * a)[0])

    _, series = jet(loss, (0.0,), ((1.0, *[0.0] * 23),))
    terms = np.array([s / np.prod(np.arange(1.0, k + 1)) for k, s in enumerate(series, 1)])
    for factor, better in ((0.8, True), (1.25, False)):
        partial = loss(0.0) + np.cumsum(terms * (factor * radius) ** np.arange(1, 25))
        errors = np.abs(partial - loss(factor * radius))
        assert (errors[-1] < errors[7]) == better


def test_scale_and_edges(key):
    z = jax.random.normal(key, (20, 10))
    a = jax.random.normal(jax.random.fold_in(key, 1), (20, 10))
    unit = measure(z, a)
    for scale in (1e-15, 1e15):
        np.testing.assert_allclose(measure(z, a * scale).radius, unit.radius / scale, rtol=1e-4)
    far = measure(z * 1e4, a)
    assert np.all(np.isfinite(far.radius)) and np.all(far.radius >= far.simple)
    # All logits moved alike: no zero comes nearer.
    assert np.all(np.isinf(measure(z, jnp.ones_like(a)).radius))
    with pytest.raises(ValueError, match="two classes"):
        softmax_radius(lambda w, x: w * x)(jnp.ones(1), jnp.ones(1), jnp.ones(1))


def test_other_leaves_of_the_direction_are_ignored():
    def logits(params, x):
        return params["w"] * x

    params, x = {"w": jnp.zeros(2), "n": jnp.arange(3), "name": "x"}, jnp.ones(())
    for other in (None, jnp.arange(3), 4):
        direction = {"w": jnp.array([1.0, -1.0]), "n": other, "name": None}
        np.testing.assert_allclose(softmax_radius(logits)(params, direction, x).radius, np.pi / 2, rtol=1e-6)
    with pytest.raises(ValueError, match="inexact leaves of the parameters"):
        softmax_radius(logits)(params, {"w": None, "n": None, "name": None}, x)
    for shape in ((1,), (), (2, 1)):
        with pytest.raises(ValueError, match=r"a direction that is shaped like .*f32\[2\].*, got .*Give it one number"):
            softmax_radius(logits)(params, {"w": jnp.ones(shape), "n": None, "name": None}, x)
