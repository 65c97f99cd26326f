import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.diagnose import class_sensitivity, normgrad


def network(key):
    first, second, last = jax.random.split(key, 3)
    kernels = jax.random.normal(first, (3, 3, 1, 4)), jax.random.normal(second, (3, 3, 4, 3))
    weights = jax.random.normal(last, (3, 5))

    def convolve(x, kernel):
        out = jax.lax.conv_general_dilated(
            x[None], kernel.astype(x.dtype), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.tanh(out[0])

    return (
        lambda x: convolve(x, kernels[0]),
        lambda a: jnp.mean(convolve(a, kernels[1]), axis=(0, 1)) @ weights.astype(a.dtype),
    )


def test_maps_are_the_norms_of_an_identity_layers_weight_gradients(x64, key):
    features, head = network(key)
    xs = jax.random.normal(key, (3, 6, 5, 1))
    labels = jnp.array([4, 0, 2])
    record = normgrad(features, head, xs, labels)

    @jax.jit
    def brute(x, label):
        # A 1×1 convolution whose weights differ from place to place, all of them the identity.
        each = jnp.broadcast_to(jnp.eye(4), (6, 5, 4, 4))
        return jax.grad(lambda w: head(jnp.einsum("hwij,hwj->hwi", w, features(x)))[label])(each)

    @jax.jit
    def shared(x, label):
        return jax.grad(lambda w: head(jnp.einsum("ij,hwj->hwi", w, features(x)))[label])(jnp.eye(4))

    for x, label, saliency in zip(xs, labels, record.maps):
        gradients = brute(x, label)
        np.testing.assert_allclose(saliency, jnp.sqrt(jnp.sum(gradients**2, axis=(2, 3))), rtol=1e-10)
        np.testing.assert_allclose(jnp.sum(gradients, axis=(0, 1)), shared(x, label), rtol=1e-9, atol=1e-12)


def test_grad_cam_and_sensitivity_by_hand(x64, key):
    features, head = network(key)
    xs = jax.random.normal(key, (4, 6, 5, 1))
    record = normgrad(features, head, xs)
    best = normgrad(features, head, xs, jnp.argmax(jax.vmap(lambda x: head(features(x)))(xs), axis=1))
    worst = normgrad(features, head, xs, jnp.argmin(jax.vmap(lambda x: head(features(x)))(xs), axis=1))
    np.testing.assert_array_equal(record.labels, best.labels)
    np.testing.assert_allclose(record.maps, best.maps)
    expected = [np.corrcoef(np.ravel(a), np.ravel(b))[0, 1] for a, b in zip(best.maps, worst.maps)]
    np.testing.assert_allclose(record.sensitivity.value, np.mean(expected), rtol=1e-10)
    np.testing.assert_allclose(record.sensitivity.standard_error, np.std(expected, ddof=1) / 2, rtol=1e-10)
    general = class_sensitivity(
        lambda xs, labels: normgrad(features, head, xs, labels).maps, lambda x: head(features(x)), xs
    )
    np.testing.assert_allclose(general.value, record.sensitivity.value, rtol=1e-10)

    a = features(xs[0])
    slope = jax.grad(lambda inner: head(inner)[record.labels[0]])(a)
    np.testing.assert_allclose(record.grad_cam[0], np.maximum(np.asarray(a) @ np.mean(slope, (0, 1)), 0), rtol=1e-10)


def test_channels_first_tokens_and_edges(key):
    features, head = network(key)
    xs = jax.random.normal(key, (2, 6, 5, 1))
    last = normgrad(features, head, xs)
    first = normgrad(lambda x: jnp.moveaxis(features(x), -1, 0), lambda a: head(jnp.moveaxis(a, 0, -1)), xs, channels=0)
    np.testing.assert_allclose(first.maps, last.maps, rtol=1e-6)
    assert last.maps.shape == (2, 6, 5) and last.maps.dtype == jnp.float32 and "NormGrad" in last.table()
    constant = normgrad(lambda x: x, lambda a: jnp.sum(a) * jnp.arange(2.0), jnp.ones((2, 7, 3)))
    np.testing.assert_allclose(constant.maps, 3.0, rtol=1e-6)
    np.testing.assert_allclose(constant.sensitivity.value, 1.0)
    with pytest.raises(ValueError, match="axis of channels"):
        normgrad(jnp.ravel, lambda a: a, xs)


def test_a_map_that_is_constant_up_to_rounding_says_nothing_of_the_class(key):
    # 0.1 at every place, but for the last bit.
    bits = jnp.where(jax.random.bernoulli(key, 0.5, (2, 3, 40)), jnp.float32(0.1), jnp.float32(0.10000001))
    found = class_sensitivity(lambda xs, labels: bits[labels[0] % 2], lambda x: jnp.array([1.0, 2.0]), jnp.ones((3, 2)))
    assert float(found.value) == 1.0
