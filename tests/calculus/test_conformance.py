"""One suite for every operator of the room."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import calculus


def energy(field, t):
    return lambda z: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(field(t, z, None)))


def of_hessian(function):
    """A function of a linear map, given the Hessian of the field's square."""
    return lambda field: lambda t, y, key: function(lambda v: calculus.hessian_product(energy(field, t))(y, v), y, key)


def in_the_plane(operator, field, t, y):
    """The operator applied to the field's first two components as functions of the first two coordinates."""
    flat, unravel = jax.flatten_util.ravel_pytree(y)

    def plane(t, z, args):
        return jax.flatten_util.ravel_pytree(field(t, unravel(flat.at[:2].set(z)), args))[0][:2]

    return operator(plane)(t, flat[:2])


# Each row turns a field into a function of (t, y, key), so that one suite serves them all.
OPERATORS = {
    "jvp": lambda field: lambda t, y, key: calculus.jvp(field)(t, y, y),
    "vjp": lambda field: lambda t, y, key: calculus.vjp(field)(t, y, y),
    "divergence": lambda field: lambda t, y, key: calculus.divergence(field)(t, y),
    "value_and_divergence": lambda field: lambda t, y, key: calculus.value_and_divergence(field)(t, y),
    "stochastic_divergence": lambda field: (
        lambda t, y, key: calculus.stochastic_divergence(field, probes=3)(t, y, key=key)
    ),
    "value_and_stochastic_divergence": lambda field: (
        lambda t, y, key: calculus.value_and_stochastic_divergence(field, probes=3, distribution="normal")(
            t, y, key=key
        )
    ),
    "antisymmetry": lambda field: lambda t, y, key: calculus.antisymmetry(field, probes=3)(t, y, key=key),
    "laplacian": lambda field: lambda t, y, key: calculus.laplacian(energy(field, t))(y),
    "curl": lambda field: lambda t, y, key: in_the_plane(calculus.curl, field, t, y),
    "hessian_product": lambda field: lambda t, y, key: calculus.hessian_product(energy(field, t))(y, y),
    "gauss_newton_product": lambda field: (
        lambda t, y, key: calculus.gauss_newton_product(lambda z: field(t, z, None), energy(lambda t, o, args: o, t))(
            y, y
        )
    ),
    "fisher_product": lambda field: (
        lambda t, y, key: calculus.fisher_product(lambda z: jax.flatten_util.ravel_pytree(field(t, z, None))[0])(y, y)
    ),
    "arnoldi": lambda field: (
        lambda t, y, key: (
            lambda flat, unravel: calculus.arnoldi(
                lambda v: jax.flatten_util.ravel_pytree(jax.jvp(lambda z: field(t, z, None), (y,), (unravel(v),))[1])[
                    0
                ],
                flat.size,
                3,
                key=key,
                dtype=flat.dtype,
            )[0]
        )(*jax.flatten_util.ravel_pytree(y))
    ),
    "lanczos": of_hessian(
        lambda product, y, key: (lambda r: (r.diagonal, r.off_diagonal))(calculus.lanczos(product, y, steps=3))
    ),
    "top_eigenvalues": of_hessian(
        lambda product, y, key: calculus.top_eigenvalues(product, y, count=2, steps=4, key=key).values
    ),
    "spectral_density": of_hessian(
        lambda product, y, key: calculus.spectral_density(product, y, steps=3, probes=2, key=key).trace()
    ),
}
operators = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
DIMENSION = 70  # past one chunk


def array_field(t, y, args):
    return jnp.tanh(jnp.roll(y, 1) + t * y) * y


def tree_field(t, y, args):
    position, velocity = y
    return velocity * t, -jnp.sin(position) + 0.1 * jnp.sum(position * velocity)


def sample(dtype):
    return jnp.linspace(-1.0, 1.0, DIMENSION, dtype=dtype)


def test_every_operator_has_a_row():
    records = {name for name in calculus.__all__ if name[0].isupper()}
    # These take no field, but a grid of values, a matrix, a projection, or a scalar function.
    others = {"helmholtz", "matrix_square_root", "polynomial_operators", "ritz_values", "softmax_radius"}
    others |= {"taylor_coefficients"}
    assert set(calculus.__all__) - records - others == set(OPERATORS)


@operators
def test_compiled_batch_equals_eager_samples_and_traces_once(operator, key):
    traces = []

    def field(t, y, args):
        traces.append(1)
        return array_field(t, y, args)

    function = operator(field)
    ts = jnp.array([0.1, 0.5, 0.9])
    ys = jnp.outer(ts, sample(jnp.float32))
    keys = jax.random.split(key, 3)
    alone = [function(*row) for row in zip(ts, ys, keys)]
    traces.clear()
    batched = jax.jit(jax.vmap(function))
    together = batched(ts, ys, keys)
    count = len(traces)
    batched(ts + 0.1, 2 * ys, keys[::-1])
    assert len(traces) == count
    for index, single in enumerate(alone):
        assert jax.tree.structure(single) == jax.tree.structure(together)
        for ours, theirs in zip(jax.tree.leaves(together), jax.tree.leaves(single)):
            np.testing.assert_allclose(ours[index], theirs, rtol=1e-4, atol=1e-4)


@operators
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(operator, key, dtype):
    with jax.enable_x64(True):
        result = jax.eval_shape(operator(array_field), jnp.asarray(0.3, dtype), sample(dtype), key)
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(result)} == {dtype}


@operators
def test_a_pytree_equals_its_ravelled_self(operator, x64, monkeypatch):
    # The tree's probe is made to be the ravelled one cut in two, so that random operators must agree exactly too.
    y = (jnp.array([0.3, -0.7]), jnp.array([1.1, 0.2]))

    def flat_field(t, y, args):
        return jnp.concatenate(tree_field(t, (y[:2], y[2:]), args))

    def probe(key, tree, sampler=jax.random.normal):
        flat = jax.vmap(lambda row: jax.flatten_util.ravel_pytree(row)[0])(tree)
        _, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(lambda leaf: leaf[0], tree))
        return jax.vmap(unravel)(sampler(key, flat.shape, flat.dtype))

    monkeypatch.setattr("optax.tree.random_like", probe)
    key = jax.random.key(1)
    tree = jax.jit(operator(tree_field))(0.3, y, key)
    flat = jax.jit(operator(flat_field))(0.3, jnp.concatenate(y), key)
    ravel = jax.flatten_util.ravel_pytree
    np.testing.assert_allclose(ravel(tree)[0], ravel(flat)[0], rtol=1e-12)


@operators
def test_adversarial_scales_stay_finite_and_homogeneous(operator, key):
    y = jnp.linspace(-1.0, 1.0, 4)

    @jax.jit
    def scaled(scale):
        return operator(lambda t, y, args: scale * (t * jnp.roll(y, 1) + y**2))(0.5, y, key)

    unit = jax.tree.leaves(scaled(1.0))
    for scale in (1e-15, 1e15):
        for ours, theirs in zip(jax.tree.leaves(scaled(scale)), unit):
            ours = np.asarray(ours, np.float64)
            # Each leaf is homogeneous in the field: of degree 0 (a ratio), 1 (a value) or 2 (a square).
            errors = [np.abs(ours / scale**degree - theirs).max() for degree in (0, 1, 2)]
            assert np.all(np.isfinite(ours)) and min(errors) < 1e-4
