"""Numerics: the right number, and a finite derivative, at every scale of every type, at zero and where none is finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax._core import divide, exact, nonzero, norm, peak, scaled, tree_norm, unit_vector, wide_dtype

# Sizes that each type can hold: squares of the outer ones leave its range.
SCALES = {
    "float16": [1e-4, 1e-2, 1.0, 1e4],
    "bfloat16": [1e-30, 1e-15, 1.0, 1e15, 1e30],
    "float32": [1e-30, 1e-15, 1.0, 1e15, 1e30],
    "float64": [1e-200, 1e-30, 1.0, 1e30, 1e200],
}
CASES = [(dtype, scale) for dtype, scales in SCALES.items() for scale in scales]
at_every_scale = pytest.mark.parametrize("dtype, scale", CASES)
SHAPE = (4, 3)


@pytest.fixture
def x(request, dtype, scale):
    """Rows of one size, in a type; x64 where that is double."""
    if dtype == "float64":
        request.getfixturevalue("x64")
    numbers = np.random.default_rng(0).normal(size=SHAPE).clip(-3, 3) * scale
    return jnp.asarray(numbers, dtype)


def exactly(x):
    """In numbers that no square of these leaves."""
    return np.asarray(x).astype(np.float64).astype(np.longdouble)


def few_ulps(dtype, count=4):
    return count * float(jnp.finfo(dtype).eps)


@at_every_scale
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 1)])
def test_norm(x, dtype, axis):
    found = norm(x, axis)
    wanted = np.sqrt((exactly(x) ** 2).sum(axis=axis))
    assert found.dtype == wide_dtype(x) and found.shape == wanted.shape
    np.testing.assert_allclose(exactly(found), wanted, rtol=few_ulps(found.dtype))
    if axis is not None:
        kept = norm(x, axis, keepdims=True)
        np.testing.assert_array_equal(jnp.squeeze(kept, axis), found)
        assert kept.shape == (exactly(x) ** 2).sum(axis=axis, keepdims=True).shape
    np.testing.assert_allclose(jax.jit(norm, static_argnums=1)(x, axis), found, rtol=few_ulps(found.dtype, 2))


@at_every_scale
@pytest.mark.parametrize("axis", [None, -1])
def test_unit_vector(x, dtype, axis):
    found = unit_vector(x, axis)
    wanted = exactly(x) / np.sqrt((exactly(x) ** 2).sum(axis=axis, keepdims=axis is not None))
    assert found.dtype == x.dtype and found.shape == x.shape
    np.testing.assert_allclose(exactly(found), wanted, rtol=few_ulps(dtype))


@at_every_scale
def test_the_derivative_of_a_norm_is_the_unit_vector(x, dtype):
    backward = jax.grad(norm)(x)
    np.testing.assert_allclose(exactly(backward), exactly(unit_vector(x)), rtol=few_ulps(dtype, 8))
    forward = jax.jvp(norm, (x,), (x,))  # homogeneous: along itself it grows by itself
    np.testing.assert_allclose(exactly(forward[1]), exactly(forward[0]), rtol=few_ulps(wide_dtype(x), 16))


@at_every_scale
def test_a_unit_vector_turns_but_does_not_grow(x, dtype):
    u, along = jax.jvp(lambda t: unit_vector(t.astype(wide_dtype(x))), (x,), (x,))
    np.testing.assert_allclose(along, 0, atol=few_ulps(u.dtype, 8))
    other = jnp.flip(x, 0)
    _, turned = jax.jvp(lambda t: unit_vector(t.astype(wide_dtype(x))), (x,), (other,))
    v, w = exactly(x), exactly(other)
    length = np.sqrt((v**2).sum())
    wanted = (w - v * (v * w).sum() / length**2) / length
    np.testing.assert_allclose(exactly(turned), wanted, atol=few_ulps(u.dtype, 16))


@at_every_scale
def test_scaled(x, dtype):
    tree, size = scaled({"a": x, "b": x[0] / 2})
    assert float(size) == np.abs(exactly(x)).max()
    assert all(leaf.dtype == wide_dtype(x) for leaf in tree.values())
    largest = max(float(jnp.max(jnp.abs(leaf))) for leaf in tree.values())
    np.testing.assert_allclose(largest, 1, rtol=few_ulps(wide_dtype(x), 1))
    np.testing.assert_allclose(exactly(tree["a"] * size), exactly(x), rtol=few_ulps(wide_dtype(x)))
    rows, sizes = jax.vmap(scaled)(x)
    np.testing.assert_array_equal(exactly(sizes), np.abs(exactly(x)).max(axis=1))
    np.testing.assert_allclose(jnp.max(jnp.abs(rows), axis=1), 1, rtol=few_ulps(wide_dtype(x), 1))


@at_every_scale
def test_tree_norm_and_its_derivative(x, dtype):
    tree = {"a": x, "b": x[0] / 2}
    flat = np.concatenate([exactly(x).ravel(), exactly(tree["b"])])
    wanted = np.sqrt((flat**2).sum())
    np.testing.assert_allclose(exactly(tree_norm(tree)), wanted, rtol=few_ulps(wide_dtype(x)))
    slope = jax.grad(tree_norm)(tree)
    np.testing.assert_allclose(exactly(slope["a"]), exactly(x) / wanted, rtol=few_ulps(dtype, 8))


def test_rows_of_very_different_sizes():
    rows = jnp.array([[3e-30, 4e-30], [3e30, 4e30], [0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(norm(rows, -1), [5e-30, 5e30, 0, 5], rtol=1e-6)
    np.testing.assert_allclose(unit_vector(rows, -1), [[0.6, 0.8], [0.6, 0.8], [0, 0], [0.6, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(jax.jacrev(lambda r: norm(r, -1))(rows).sum(axis=(0,)), unit_vector(rows, -1), rtol=1e-6)
    np.testing.assert_allclose(tree_norm([rows[0], rows[1]]), 5e30, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("differentiate", [jax.jacrev, jax.jacfwd])
def test_at_zero(dtype, differentiate):
    zero = jnp.zeros(3, dtype)
    assert norm(zero) == 0 and tree_norm([zero]) == 0
    np.testing.assert_array_equal(unit_vector(zero), zero)
    np.testing.assert_array_equal(differentiate(norm)(zero), jnp.zeros(3))
    np.testing.assert_array_equal(differentiate(lambda x: tree_norm([x, x]))(zero), jnp.zeros(3))
    np.testing.assert_array_equal(differentiate(unit_vector)(zero), jnp.eye(3))  # so that a row of zeros may leave
    second = differentiate(jax.grad(norm))(jnp.zeros(3))
    assert jnp.isfinite(second).all()
    tree, size = scaled([zero])
    assert size == 1 and (tree[0] == 0).all()
    assert peak(zero) == 1


def test_of_nothing():
    empty = jnp.zeros((0,))
    assert norm(empty) == 0 and unit_vector(empty).shape == (0,) and peak(empty) == 1


def test_what_is_not_finite_is_not_hidden():
    infinite, missing = jnp.array([1.0, -jnp.inf]), jnp.array([1.0, jnp.nan])
    assert norm(infinite) == jnp.inf and jnp.isnan(norm(missing)) and jnp.isnan(norm(jnp.array([jnp.inf, jnp.nan])))
    assert tree_norm([infinite, jnp.ones(2)]) == jnp.inf and jnp.isnan(tree_norm([missing, jnp.ones(2)]))
    np.testing.assert_array_equal(unit_vector(infinite), [0, jnp.nan])
    assert jnp.isnan(unit_vector(missing)).all()
    for x in (infinite, missing):  # nothing to measure in: the numbers stay as they are
        tree, size = scaled([x])
        np.testing.assert_array_equal(tree[0], x)
        assert size == 1 == peak(x)
    np.testing.assert_array_equal(nonzero(jnp.array([jnp.nan, jnp.inf, 0.0])), [jnp.nan, jnp.inf, 1])
    # A row that is not finite leaves the others alone.
    np.testing.assert_allclose(norm(jnp.stack([infinite, jnp.ones(2)]), -1), [jnp.inf, 2**0.5], rtol=1e-6)


def test_the_unit_cancels_from_a_derivative(key):
    x = jax.random.normal(key, (5,))

    def sum_of_squares(x):
        tree, size = scaled(x)
        return size**2 * jnp.sum(tree**2)

    np.testing.assert_allclose(jax.grad(sum_of_squares)(x), 2 * x, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_divide(dtype):
    a, b = jnp.array([1.0, 0.0, 6.0, -3.0], dtype), jnp.array([0.0, 0.0, -2.0, 0.5], dtype)
    np.testing.assert_array_equal(divide(a, b), jnp.array([0, 0, -3, -6], dtype))
    np.testing.assert_array_equal(divide(a, b, jnp.inf), jnp.array([jnp.inf, jnp.inf, -3, -6], dtype))
    assert divide(a, b).dtype == divide(a, b, 1).dtype == nonzero(b).dtype == dtype
    np.testing.assert_array_equal(nonzero(b), jnp.array([1, 1, -2, 0.5], dtype))
    for_a, for_b = jax.grad(lambda a, b: jnp.sum(divide(a, b)), argnums=(0, 1))(a, b)
    np.testing.assert_array_equal(for_a, jnp.array([0, 0, -0.5, 2], dtype))
    np.testing.assert_array_equal(for_b, jnp.array([0, 0, -1.5, 12], dtype))
    tangent = jax.jvp(divide, (a, b), (jnp.ones_like(a), jnp.ones_like(b)))[1]
    np.testing.assert_array_equal(tangent, jnp.array([0, 0, -2, 14], dtype))
    assert jnp.isnan(divide(1.0, jnp.nan)) and jnp.isnan(divide(jnp.nan, 2.0)) and divide(jnp.inf, 2.0) == jnp.inf


def test_types_are_single_at_least(x64):
    assert wide_dtype([jnp.zeros(1, jnp.float16), jnp.zeros(1, jnp.bfloat16)]) == jnp.float32
    assert wide_dtype([jnp.zeros(1, jnp.float16), jnp.zeros(1, jnp.float64)]) == jnp.float64
    assert wide_dtype([]) == jnp.float32


def test_sums_of_halves_do_not_leave_their_range():
    many = jnp.full(200_000, 2.0, jnp.float16)
    np.testing.assert_allclose(norm(many), 2 * 200_000**0.5, rtol=1e-5)
    np.testing.assert_allclose(tree_norm([many, many]), 2 * 400_000**0.5, rtol=1e-5)


def test_exact_products():
    @jax.jit
    @exact
    def product(a, b):
        """Of two matrices."""
        return a @ b

    def asks_for_all_bits(function):
        return "HIGHEST" in str(jax.make_jaxpr(function)(jnp.eye(2), jnp.eye(2)))

    assert asks_for_all_bits(product) and not asks_for_all_bits(lambda a, b: a @ b)
    assert product.__doc__ == "Of two matrices."
