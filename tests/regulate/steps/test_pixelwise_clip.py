import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nablax.regulate import pixelwise_clip


def clipped(threshold, tree, axis=-1, order=2):
    regulator = pixelwise_clip(threshold, channel_axis=axis, order=order)
    return regulator.update(tree, regulator.init(tree), unknown=1)[0]


@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("order, numpys", [(2, 2), ("largest", np.inf)])
@given(exponent=st.integers(-30, 30), threshold=st.sampled_from([1e-20, 0.1, 1.0, 1e20]), seed=st.integers(0, 99))
def test_norms_are_bounded_and_directions_kept(order, numpys, exponent, threshold, seed):
    gradient = 10.0**exponent * jax.random.normal(jax.random.key(seed), (5, 3))
    wide = np.asarray(gradient, np.float64)
    found = np.asarray(clipped(threshold, gradient, order=order), np.float64)
    expected = np.minimum(np.linalg.norm(wide, numpys, axis=1), threshold)
    np.testing.assert_allclose(np.linalg.norm(found, numpys, axis=1), expected, rtol=1e-5, atol=1e-37)
    cosines = np.sum(found * wide, axis=1) / np.linalg.norm(wide, axis=1) / np.linalg.norm(found, axis=1)
    np.testing.assert_allclose(cosines, 1, rtol=1e-5)


def test_pixels_within_the_bound_are_untouched_and_it_is_idempotent():
    gradient = jax.random.normal(jax.random.key(0), (4, 4, 3))
    once = clipped(1.0, gradient)
    within = np.linalg.norm(gradient, axis=-1) <= 1
    assert within.any() and not within.all()
    np.testing.assert_array_equal(once[within], gradient[within])
    np.testing.assert_allclose(clipped(1.0, once), once, rtol=1e-6)
    np.testing.assert_array_equal(clipped(1.0, jnp.zeros((2, 3))), jnp.zeros((2, 3)))


def test_axis_tree_and_dtype():
    tree = {"image": jnp.full((3, 2, 2), 5.0, jnp.bfloat16), "other": jnp.array([3.0, 4.0])}
    found = clipped(1.0, tree, axis=0)
    assert found["image"].dtype == jnp.bfloat16
    np.testing.assert_allclose(found["image"].astype(float), 3**-0.5, rtol=1e-2)
    np.testing.assert_allclose(found["other"], [0.6, 0.8], rtol=1e-6)


def test_between_guidance_and_renderer():
    render = lambda params: jnp.outer(params, jnp.array([3.0, 4.0]))  # noqa: E731
    _, pull = jax.vjp(render, jnp.array([1.0, 2.0]))
    guidance = jnp.array([[30.0, 40.0], [0.3, 0.4]])
    np.testing.assert_allclose(pull(clipped(1.0, guidance))[0], [5.0, 2.5], rtol=1e-6)


def test_faults():
    with pytest.raises(ValueError, match="positive threshold"):
        pixelwise_clip(0.0)
    with pytest.raises(ValueError, match='order 2 or "largest"'):
        pixelwise_clip(1.0, order=1)
    with pytest.raises(ValueError, match="channel axis"):
        pixelwise_clip(1.0).update(jnp.array(1.0), optax.EmptyState())
