import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.follow import Solver
from nablax.spaces import Euclidean
from nablax.transport import Linear, Normal, Transport, VariancePreserving, guidance


def field(t, y, args):
    return jnp.sin(y) * (1 + t) + jnp.sum(args**2) * jnp.cos(y)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 1, 2.0, -1.0])
def test_scale_mixes_the_two_fields_linearly(x64, scale):
    t, y, condition = jnp.array(0.3), jnp.array([0.5, -1.0]), jnp.array([1.0, 2.0, 0.0])
    conditional, null = field(t, y, condition), field(t, y, jnp.zeros(3))
    expected = scale * conditional + (1 - scale) * null
    np.testing.assert_allclose(guidance(field, scale)(t, y, condition), expected, rtol=1e-14)
    # At the null condition there is nothing to lean towards.
    np.testing.assert_allclose(guidance(field, scale)(t, y, jnp.zeros(3)), null, rtol=1e-14)


def test_scale_one_is_the_field_itself():
    assert guidance(field, 1.0) is field and guidance(field, 1) is field


def test_scale_may_be_traced_and_conditions_may_be_pytrees(x64):
    def tree_field(t, y, args):
        return y * args["a"] + jnp.sum(args["b"])

    args = {"a": jnp.array(2.0), "b": jnp.ones((2, 2))}
    found = jax.jit(lambda scale: guidance(tree_field, scale)(jnp.array(0.0), jnp.ones(3), args))(jnp.array(3.0))
    np.testing.assert_allclose(found, 3 * 6.0)


def gaussian_field(path, view, wide=2.0):
    """The exact field of N(args, 1) given a condition and of N(0, wide²) for the null condition."""

    def run(t, y, args):
        a, b, _, _ = path.coefficients(t)
        variance = jnp.where(jnp.all(args == 0), wide**2, 1.0)
        score = -(y - a * args) / (a**2 * variance + b**2)
        return path.convert(t, y, score, source="score", target=view)

    return run


@pytest.mark.parametrize("view", ["velocity", "score", "noise", "denoiser"])
def test_guided_score_is_that_of_the_sharpened_gaussian_in_every_view(x64, view):
    # p(y|c)^w p(y)^(1−w) of two normal densities is normal: precisions mix with weights w and 1 − w.
    path, t, y, mean, w = VariancePreserving(), jnp.array(0.6), jnp.array([0.7]), jnp.array([3.0]), 2.5
    a, b, _, _ = path.coefficients(t)
    narrow, wide = 1 / (a**2 + b**2), 1 / (4 * a**2 + b**2)
    precision = w * narrow + (1 - w) * wide
    centre = w * narrow * a * mean / precision
    guided = guidance(gaussian_field(path, view), w)(t, y, mean)
    score = path.convert(t, y, guided, source=view, target="score")
    np.testing.assert_allclose(score, -precision * (y - centre), rtol=1e-9)


def test_guided_samples_follow_the_closed_form_and_lean_further(x64, key):
    # The guided velocity is affine in y, so the code of the prior's centre and its Jacobian give mean and deviation.
    condition = jnp.full((3, 1), 2.0)
    means = []
    for scale in (1.0, 2.0):
        guided = guidance(gaussian_field(Linear(1e-4), "velocity"), scale)
        transport = Transport(guided, Linear(1e-4), Normal((1,)), Euclidean((1,)))
        samples = transport.sample(3, key=key, args=condition, solver=Solver(rtol=1e-8, atol=1e-8))
        start = jax.vmap(transport.prior.sample)(jax.random.split(key, 3))
        slope = (samples[1] - samples[0]) / (start[1] - start[0])
        np.testing.assert_allclose(samples[2], samples[0] + slope * (start[2] - start[0]), rtol=1e-5)
        means.append(float((samples[0] - slope * start[0])[0]))
    np.testing.assert_allclose(means[0], 2.0, atol=1e-3)
    # dm/dt = w v(m; c) + (1 − w) v(m; null), integrated apart by the midpoint rule.
    m, steps = 0.0, 4000
    for t in (np.arange(steps) + 0.5) / steps:
        narrow, wide = t**2 + (1 - t) ** 2, 4 * t**2 + (1 - t) ** 2
        conditional = 2 + (t - (1 - t)) / narrow * (m - 2 * t)
        m += (2 * conditional - (4 * t - (1 - t)) / wide * m) / steps
    np.testing.assert_allclose(means[1], m, rtol=2e-3)
    assert means[1] > 2.2


def test_single_precision_is_kept_under_x64(x64):
    y = jnp.ones(2, jnp.float32)
    assert guidance(field, 2.0)(jnp.float32(0.1), y, jnp.ones(3, jnp.float32)).dtype == jnp.float32


def test_guiding_to_nothing_is_an_error():
    with pytest.raises(ValueError, match="a condition to be guided to"):
        guidance(lambda t, y, args: y, 2.0)(jnp.array(0.0), jnp.ones(1), None)
