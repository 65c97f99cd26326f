import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.transport import Cosine, Linear, SubVariancePreserving, VarianceExploding, VariancePreserving

VIEWS = ("velocity", "score", "noise", "denoiser")
PATHS = {
    "linear": Linear(),
    "cosine": Cosine(),
    "vp": VariancePreserving(),
    "sub-vp": SubVariancePreserving(),
    "ve": VarianceExploding(0.01, 50.0),
}
INSIDE = (0.03, 0.25, 0.5, 0.8, 0.97)

every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)


@every_path
def test_derivatives_are_those_of_a_and_b(x64, path):
    for t in jnp.array(INSIDE):
        *_, da, db = path.coefficients(t)
        expected = jax.jacfwd(lambda t: jnp.stack(path.coefficients(t)[:2]))(t)
        np.testing.assert_allclose(jnp.stack([da, db]), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("low, high", [(0.1, 20.0), (0.5, 3.0)])
def test_diffusion_paths_have_songs_transition_kernels(x64, low, high):
    # Appendix B of the paper: mean coefficient, standard deviation and diffusion in diffusion time s = 1 - t.
    s = 1 - np.array(INSIDE)
    exponent = 0.5 * s**2 * (high - low) + s * low
    rate = low + s * (high - low)
    for path, deviation, diffusion in (
        (VariancePreserving(low, high), np.sqrt(1 - np.exp(-exponent)), np.sqrt(rate)),
        (SubVariancePreserving(low, high), 1 - np.exp(-exponent), np.sqrt(rate * (1 - np.exp(-2 * exponent)))),
    ):
        t = jnp.asarray(1 - s)
        a, b, _, _ = path.coefficients(t)
        np.testing.assert_allclose(a, np.exp(-exponent / 2), rtol=1e-13)
        np.testing.assert_allclose(b, deviation, rtol=1e-12)
        np.testing.assert_allclose(path.diffusion(t), diffusion, rtol=1e-12)


def test_variance_exploding_path_is_geometric(x64):
    t = jnp.array(INSIDE)
    path = VarianceExploding(0.02, 7.0)
    sigma = 0.02 * (7.0 / 0.02) ** (1 - np.array(INSIDE))
    a, b, _, _ = path.coefficients(t)
    np.testing.assert_allclose(a, 1.0)
    np.testing.assert_allclose(b, sigma, rtol=1e-13)
    np.testing.assert_allclose(path.diffusion(t), sigma * np.sqrt(2 * np.log(7.0 / 0.02)), rtol=1e-12)
    assert path.prior_scale == 7.0


@every_path
def test_ends_are_noise_and_data(path):
    first, last = (jnp.asarray(t) for t in path.times)
    a, b, _, _ = path.coefficients(first)
    assert a / b < 0.021 and abs(b / path.prior_scale - 1) < 1e-4  # at most 1/50 of the signal at the noisy end
    a, b, da, db = path.coefficients(last)
    assert abs(a - 1) < 1e-3 and b < 0.02
    assert np.isfinite([a, b, da, db]).all()


@every_path
def test_signal_to_noise_rises_all_the_way(path):
    t = jnp.linspace(*path.times, 50)[1:-1]
    a, b, _, _ = path.coefficients(t)
    assert np.all(np.diff(a / b) > 0)
    assert np.all(path.diffusion(t) > 0)


@every_path
def test_interpolate_and_target_are_the_line_and_its_derivative(x64, path, key):
    x0, x1 = jax.random.normal(key, (2, 3))
    for t in jnp.array(INSIDE):
        a, b, _, _ = path.coefficients(t)
        np.testing.assert_allclose(path.interpolate(t, x0, x1), a * x1 + b * x0, rtol=1e-14)
        expected = jax.jacfwd(path.interpolate)(t, x0, x1)
        np.testing.assert_allclose(path.target(t, x0, x1), expected, rtol=1e-11)


@every_path
@pytest.mark.parametrize("source, target", list(itertools.permutations(VIEWS, 2)))
def test_each_conversion_undoes_its_opposite(x64, path, source, target, key):
    y, value = jax.random.normal(key, (2, 4))
    for t in jnp.array(INSIDE):
        there = path.convert(t, y, value, source=source, target=target)
        back = path.convert(t, y, there, source=target, target=source)
        np.testing.assert_allclose(back, value, rtol=1e-7)
        assert not np.allclose(there, value)


@every_path
@pytest.mark.parametrize("data", ["gaussian", "mixture"])
def test_conversions_agree_with_the_exact_posterior(x64, path, data, request, key):
    exact = request.getfixturevalue(data)

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0))
    def both(t, y):
        views = exact.views(path, t, y)
        found = {
            (source, target): path.convert(t, y, views[source], source=source, target=target)
            for source, target in itertools.product(VIEWS, VIEWS)
        }
        return views, found

    ys = exact.sample(key, 4)
    for t in jnp.array(INSIDE):
        a, b, _, _ = path.coefficients(t)
        views, found = both(t, a * ys + b * ys[::-1])
        for (source, target), value in found.items():
            np.testing.assert_allclose(value, views[target], rtol=1e-6, atol=1e-9, err_msg=f"{source}→{target}")


def test_velocity_gives_the_other_views_at_the_ends_of_the_straight_path():
    y, velocity = jnp.array([0.3, -0.7]), jnp.array([2.0, 1.0])
    path, start, end = Linear(), jnp.array(0.0), jnp.array(1.0)
    np.testing.assert_allclose(path.convert(start, y, velocity, source="velocity", target="score"), -y)
    np.testing.assert_allclose(path.convert(start, y, velocity, source="velocity", target="denoiser"), velocity + y)
    np.testing.assert_allclose(path.convert(end, y, velocity, source="velocity", target="denoiser"), y)
    np.testing.assert_allclose(path.convert(end, y, velocity, source="velocity", target="noise"), y - velocity)


@every_path
def test_single_precision_is_kept_and_accurate(path, mixture, key):
    with jax.enable_x64(True):
        y = mixture.sample(key, 1)[0]
        exact = [{k: np.asarray(v) for k, v in mixture.views(path, jnp.array(t), y).items()} for t in INSIDE]
        y = np.asarray(y, np.float32)

    @jax.jit
    def convert(t, views):
        return {
            (source, target): path.convert(t, jnp.asarray(y), views[source], source=source, target=target)
            for source, target in itertools.product(VIEWS, VIEWS)
        }

    for t, views in zip(INSIDE, exact):
        found = convert(jnp.float32(t), {k: jnp.asarray(v, jnp.float32) for k, v in views.items()})
        # Where a or b is small, the view divided by it is ill conditioned; the cancelled magnitudes bound the loss.
        a, b, da, db = (float(c) for c in path.coefficients(jnp.float32(t)))
        magnitude = np.max(np.abs(y)) + max(np.max(np.abs(v)) for v in views.values())
        loss = 1e-6 * magnitude * (1 + abs(db)) * (1 + abs(da)) * (1 + 1 / a) * (1 + 1 / b**2)
        for (source, target), value in found.items():
            assert value.dtype == jnp.float32
            np.testing.assert_allclose(value, views[target], rtol=1e-4, atol=loss, err_msg=f"{source}→{target}")


def test_conversion_maps_over_times():
    path, ts, ys = VariancePreserving(), jnp.linspace(0.1, 0.9, 5), jnp.ones((5, 2))
    together = jax.vmap(lambda t, y: path.convert(t, y, 0.5 * y, source="noise", target="velocity"))(ts, ys)
    apart = jnp.stack([path.convert(t, y, 0.5 * y, source="noise", target="velocity") for t, y in zip(ts, ys)])
    np.testing.assert_allclose(together, apart, rtol=1e-5)


@every_path
@pytest.mark.parametrize(
    "t, other, message",
    [
        (0.5, jnp.ones(1), r"shaped like f32\[2\], got f32\[1\]\. .*jax\.vmap"),
        (0.5, jnp.ones((2, 1)), r"shaped like f32\[2\], got f32\[2,1\]"),
        (0.5, jnp.ones((2, 2)), r"shaped like f32\[2\], got f32\[2,2\]"),
        (jnp.full(2, 0.5), jnp.ones(2), r"one time of shape \[\], got f32\[2\]\. .*over the times too"),
    ],
    ids=["one number", "column", "batch", "times"],
)
def test_nothing_is_broadcast(path, t, other, message):
    one = jnp.ones(2)
    convert = partial(path.convert, source="noise", target="velocity")
    for call in (path.interpolate, path.target, convert):
        with pytest.raises(ValueError, match=message):
            call(t, one, other)


def test_errors_say_what_is_wrong():
    y = jnp.ones(2)
    with pytest.raises(ValueError, match="velocity, score, noise, denoiser"):
        Linear().convert(jnp.array(0.5), y, y, source="velocity", target="epsilon")
    with pytest.raises(ValueError, match="'flow'"):
        Linear().convert(jnp.array(0.5), y, y, source="flow", target="score")
    for path in (VariancePreserving, SubVariancePreserving):
        with pytest.raises(ValueError, match="beta_min ≤ beta_max"):
            path(beta_min=2.0, beta_max=1.0)
        with pytest.raises(ValueError, match="margin"):
            path(margin=0.0)
    for path in (Linear, Cosine):
        for margin in (-0.1, 0.5, float("nan")):
            with pytest.raises(ValueError, match=r"0 ≤ margin < 0\.5"):
                path(margin)
        with pytest.raises(ValueError, match=r"a margin of shape \[\]"):
            path("0.1")
    with pytest.raises(ValueError, match="sigma_min < sigma_max"):
        VarianceExploding(2.0, 1.0)
