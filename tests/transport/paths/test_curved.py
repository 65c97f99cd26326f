"""A path that is not affine, on a space that is not flat: what holds there, and what is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.spaces import AbstractSpace, Euclidean
from nablax.transport import (
    AbstractPath,
    Empirical,
    Linear,
    Normal,
    Transport,
    denoising_score_matching,
    flow_matching,
    sample_sde,
)

TARGET = np.array([0.0, 0.6, 0.8])


class Sphere(AbstractSpace):
    """The unit sphere in ambient coordinates."""

    shape: tuple[int, ...] = eqx.field(static=True)

    @property
    def dim(self):
        return self.shape[0] - 1

    def exp(self, y, v):
        length = jnp.linalg.norm(v)
        return jnp.cos(length) * y + jnp.sinc(length / jnp.pi) * v

    def log(self, y, z):
        across = self.tangent(y, z)
        length = jnp.linalg.norm(across)
        return jnp.arctan2(length, jnp.vdot(y, z)) * across / length

    def inner(self, y, u, v):
        return jnp.vdot(u, v)

    def project(self, y):
        return y / jnp.linalg.norm(y)

    def tangent(self, y, v):
        return v - jnp.vdot(y, v) * y


class Geodesic(AbstractPath):
    space: AbstractSpace

    @property
    def times(self):
        return 0.0, 0.99

    def interpolate(self, t, x0, x1):
        return self.space.exp(x0, t * self.space.log(x0, x1))

    def target(self, t, x0, x1):
        return jax.jvp(lambda t: self.interpolate(t, x0, x1), (t,), (jnp.ones_like(t),))[1]


SPHERE = Sphere((3,))
PATH = Geodesic(SPHERE)


def towards(t, y, args):
    return SPHERE.log(y, jnp.asarray(TARGET, y.dtype)) / (1 - t)


def points(key, count):
    return jax.vmap(SPHERE.project)(jax.random.normal(key, (count, 3)))


def test_flow_matching_has_its_minimum_at_the_field_that_makes_the_path(x64, key):
    # One data point: every geodesic leads there, so the field is known and the loss is nil.
    batch = {"data": jnp.tile(TARGET, (200, 1)), "noise": points(key, 200)}
    loss = flow_matching(PATH)
    assert loss(towards, batch, key=key) < 1e-12
    assert loss(lambda t, y, args: 1.1 * towards(t, y, args), batch, key=key) > 1e-3


def test_the_flow_ends_where_the_path_does(key):
    transport = Transport(towards, PATH, Empirical(points(key, 50)), SPHERE)
    samples, starts = transport.sample(20, key=key), jax.vmap(transport.prior.sample)(jax.random.split(key, 20))
    np.testing.assert_allclose(jnp.linalg.norm(samples, axis=1), 1.0, atol=1e-3)
    angle = lambda ys: np.arccos(np.clip(np.asarray(ys, np.float64) @ TARGET, -1, 1))  # noqa: E731
    np.testing.assert_allclose(
        angle(samples / jnp.linalg.norm(samples, axis=1)[:, None]), angle(starts) / 100, rtol=0.1
    )
    between = transport.interpolate(0.3, jnp.tile(jnp.asarray(TARGET), (5, 1)), key=key)
    np.testing.assert_allclose(jnp.linalg.norm(between, axis=1), 1.0, rtol=1e-6)


def test_what_needs_an_affine_path_or_a_flat_space_says_so(key):
    transport = Transport(towards, PATH, Normal(3), SPHERE)
    t, y = jnp.array(0.5), jnp.asarray(TARGET)
    np.testing.assert_array_equal(transport.velocity(t, -y), towards(t, -y, None))
    for view in ("score", "noise", "denoiser"):
        with pytest.raises(ValueError, match=f"an affine path, for the {view}, got"):
            getattr(transport, view)(t, y)
    with pytest.raises(ValueError, match="an affine path, for its own diffusion"):
        sample_sde(transport, 3, key=key, steps=2)
    with pytest.raises(ValueError, match="an affine path, for the noise"):
        Transport(towards, PATH, Normal(3), SPHERE, "noise")
    with pytest.raises(ValueError, match="an affine path, for denoising score matching"):
        denoising_score_matching(PATH)
    with pytest.raises(ValueError, match="a flat space, for the density"):
        transport.log_prob(y[None])
    for wrong in (None, Euclidean):
        with pytest.raises(ValueError, match="a space"):
            Transport(towards, Linear(), Normal(3), wrong)


def test_several_views_take_one_evaluation(key):
    asked = []

    def field(t, y, args):
        asked.append(1)
        return y

    transport = Transport(field, Linear(), Normal(2), Euclidean(2))
    t, y = jnp.array(0.25), jnp.array([1.0, -2.0])
    both = transport.views(t, y, None, "score", "velocity", "denoiser")
    assert len(asked) == 1
    for view, value in zip(("score", "velocity", "denoiser"), both, strict=True):
        np.testing.assert_array_equal(value, getattr(transport, view)(t, y))
