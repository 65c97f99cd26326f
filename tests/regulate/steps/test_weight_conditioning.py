import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.regulate import weight_conditioning


def test_rows_get_unit_norm_and_everything_else_passes():
    model = eqx.nn.Sequential(
        [eqx.nn.Conv2d(2, 3, 3, key=jax.random.key(0)), eqx.nn.Linear(5, 4, key=jax.random.key(1))]
    )
    conditioned = weight_conditioning(model)
    for before, after in zip(model.layers, conditioned.layers):
        rows = before.weight.reshape(before.weight.shape[0], -1)
        expected = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        np.testing.assert_allclose(after.weight.reshape(rows.shape), expected, rtol=1e-6)
        np.testing.assert_array_equal(after.bias, before.bias)
    left = weight_conditioning(model.layers[1].weight.T, row_axis=-1)
    np.testing.assert_allclose(left.T, conditioned.layers[1].weight, rtol=1e-6)


def test_no_diagonal_scaling_is_better_by_more_than_the_root_of_the_rows(x64):
    generator = np.random.default_rng(0)
    for _ in range(20):
        matrix = generator.normal(size=(3, 5)) * np.exp(3 * generator.normal(size=(3, 1)))
        ours = np.linalg.cond(weight_conditioning(jnp.asarray(matrix)))
        unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
        # One scale is free; the other two on a grid.
        exponents = np.stack(np.meshgrid(*[np.linspace(-4, 4, 41)] * 2), -1).reshape(-1, 2)
        scales = np.exp(np.concatenate([np.zeros((len(exponents), 1)), exponents], 1))
        best = np.linalg.cond(scales[:, :, None] * unit).min()
        assert best <= ours * (1 + 1e-9) and ours <= np.sqrt(3) * best
        assert ours < np.linalg.cond(matrix) * np.sqrt(3)


def test_the_gradient_has_no_part_along_the_rows():
    matrix = jax.random.normal(jax.random.key(2), (4, 6))
    target = jax.random.normal(jax.random.key(3), (4, 6))
    gradient = jax.grad(lambda w: jnp.sum((weight_conditioning(w) - target) ** 2))(matrix)
    np.testing.assert_allclose(jnp.sum(gradient * matrix, axis=1), 0, atol=1e-5)


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e15, 1e30])
def test_scales(size):
    matrix = jnp.array([[3.0, 4.0], [0.0, 0.0]]) * size
    np.testing.assert_allclose(weight_conditioning(matrix), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert bool(jnp.all(jnp.isfinite(jax.grad(lambda w: jnp.sum(weight_conditioning(w)))(matrix))))


def test_faults():
    with pytest.raises(ValueError, match="axis"):
        weight_conditioning(jnp.ones((2, 2)), row_axis=2)
