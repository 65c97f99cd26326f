import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.diagnose import box_margins, deform, spatial_certificate
from nablax.diagnose._model._deformation import bounding_planes, corner_values
from nablax.diagnose._model._spatial_certificate import _least_work


def network(key, shape=(6, 5, 2), classes=4):
    keys = jax.random.split(key, 3)
    convolution = eqx.nn.Conv2d(shape[2], 3, 3, padding=1, key=keys[0])
    middle = eqx.nn.Linear(3 * shape[0] * shape[1], 12, key=keys[1])
    last = eqx.nn.Linear(12, classes, key=keys[2])
    layers = [lambda x: convolution(jnp.moveaxis(x, -1, 0)), lambda h: middle(h.reshape(-1)), last]

    def logits(x):
        for number, layer in enumerate(layers):
            x = layer(jax.nn.relu(x) if number else x)
        return x

    return layers, logits


def fields(key, count, shape, reach):
    """Random fields within reach, half of them with every component at its end."""
    u = jax.random.uniform(key, (count, *shape, 2), minval=-reach, maxval=reach)
    return jnp.where(jnp.arange(count)[:, None, None, None] % 2 == 0, jnp.sign(u) * reach, u)


def smoothed(u, smoothness):
    """Scale fields down until their neighbours differ by no more than asked."""
    steps = [jnp.max(jnp.abs(jnp.diff(u, axis=a)), axis=(1, 2, 3)) for a in (1, 2)]
    worst = jnp.maximum(*steps)
    return u * jnp.minimum(1, smoothness / worst)[:, None, None, None]


@pytest.mark.parametrize("reach", [0.4, 1.3])
def test_no_deformation_leaves_the_bounds_and_every_bound_is_reached(key, reach):
    images = jax.random.uniform(key, (2, 6, 5, 2))
    values = corner_values(images, reach)
    lower, upper = values.min(0), values.max(0)
    (low, low_rest), (high, high_rest) = bounding_planes(values, reach)
    u = fields(jax.random.key(1), 500, (6, 5), reach)
    seen = jax.jit(jax.vmap(jax.vmap(deform, (None, 0)), (0, None)))(images, u)
    assert np.all(seen >= lower[:, None] - 1e-5) and np.all(seen <= upper[:, None] + 1e-5)
    under = jnp.einsum("nhwca,khwa->nkhwc", low, u) + low_rest[:, None]
    over = jnp.einsum("nhwca,khwa->nkhwc", high, u) + high_rest[:, None]
    assert np.all(seen >= under - 1e-5) and np.all(seen <= over + 1e-5)
    # Exact: on a fine grid of displacements each pixel attains its bounds.
    ends = jnp.linspace(-reach, reach, 27)
    grid = jnp.stack(jnp.meshgrid(ends, ends, indexing="ij"), -1).reshape(-1, 2)
    all_seen = jax.vmap(lambda o: jax.vmap(lambda i: deform(i, jnp.broadcast_to(o, (6, 5, 2))))(images))(grid)
    np.testing.assert_allclose(all_seen.min(0), lower, atol=0.06)
    np.testing.assert_allclose(all_seen.max(0), upper, atol=0.06)


def test_proved_margins_hold_for_every_field_tried(key):
    layers, logits = network(key)
    images = jax.random.uniform(jax.random.key(2), (3, 6, 5, 2))
    labels = jnp.argmax(jax.vmap(logits)(images), axis=1)
    record = spatial_certificate(layers, images, labels, displacement=0.5, smoothness=0.1)
    free = fields(jax.random.key(3), 600, (6, 5), 0.5)
    base = jnp.broadcast_to(free[:, :1, :1], free.shape)  # shifts of the whole image, which are the smoothest
    smooth = jnp.concatenate([smoothed(free[:300], 0.1), base[300:]])

    @jax.jit
    def margins(image, label, us):
        out = jax.vmap(lambda u: logits(deform(image, u)))(us)
        own = out[:, label]
        return jnp.min(own[:, None] - jnp.where(jnp.arange(4)[None] == label, -jnp.inf, out))

    for n in range(3):
        assert margins(images[n], labels[n], free) >= record.free_margin[n] - 1e-5
        assert margins(images[n], labels[n], smooth) >= record.margin[n] - 1e-5
    assert np.all(record.margin >= record.free_margin) and np.any(record.margin > record.free_margin + 1e-3)
    assert np.all(record.plain_margin > 0) and "share certified" in record.table()


def test_a_linear_network_is_bounded_exactly(key):
    # Without hidden units free pixels take their extremes independently: the bound is attained.
    weights = jax.random.normal(key, (3, 12))
    layers = [lambda x: weights @ x.reshape(-1)]
    image = jax.random.uniform(jax.random.key(4), (1, 4, 3, 1))
    record = spatial_certificate(layers, image, jnp.array([1]), displacement=0.7)
    low, high = np.asarray(record.lower).ravel(), np.asarray(record.upper).ravel()
    rows = np.asarray(weights[1][None] - weights)[[0, 2]]
    expected = np.minimum(rows * low, rows * high).sum(1).min()
    np.testing.assert_allclose(record.margin[0], expected, rtol=1e-5)


def test_smooth_fields_against_their_corners():
    # Three pixels in a row: the extreme points of the program, by brute force over a grid.
    slopes = np.zeros((1, 1, 1, 3, 2))
    slopes[0, 0, 0, :, 0], slopes[0, 0, 0, :, 1] = [1.0, -2.0, 1.5], [0.5, 0.5, -3.0]
    ticks = np.linspace(-1, 1, 21)
    least = 0.0
    for axis in range(2):
        options = [
            np.dot(slopes[0, 0, 0, :, axis], u)
            for u in itertools.product(ticks, repeat=3)
            if max(abs(u[0] - u[1]), abs(u[1] - u[2])) <= 0.5 + 1e-9
        ]
        least += min(options)
    np.testing.assert_allclose(_least_work(slopes, 1.0, 0.5)[0, 0], least, atol=1e-7)


def test_edges(key):
    images = jnp.zeros((1, 2, 2, 1))
    with pytest.raises(ValueError, match="affine layers"):
        spatial_certificate([lambda x: jnp.tanh(x).reshape(-1)], images, jnp.array([0]), displacement=0.1)
    with pytest.raises(ValueError, match="positive displacement"):
        spatial_certificate([lambda x: x.reshape(-1)], images, jnp.array([0]), displacement=0.0)


def test_layers_that_bend_away_from_the_origin_are_refused():
    dark, bright = jnp.full((1, 2, 2, 1), 0.2), jnp.array([0.0, 19.0]).reshape(1, 1, 2, 1)
    beside_a_large_output = [lambda x: jnp.concatenate([1e5 * (1 + x.sum())[None], jax.nn.relu(x - 0.5).ravel()])]
    with pytest.raises(ValueError, match="affine layers"):
        spatial_certificate(beside_a_large_output, dark, jnp.array([0]), displacement=0.5)
    # Neither a random point nor the image itself is beyond the bend; the upper bounds are.
    far = [lambda x: jnp.stack([0.1 + 0 * x.sum(), jax.nn.relu(x.sum() - 20)])]
    for layers in (far, [lambda x: x, *far]):
        with pytest.raises(ValueError, match=f"a layer {len(layers) - 1} that is not"):
            spatial_certificate(layers, bright, jnp.array([0]), displacement=0.5)
        with pytest.raises(ValueError, match="affine layers"):
            box_margins(layers, bright, bright + 1, jnp.array([0]))
