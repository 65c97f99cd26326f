"""What is protected does not move: not a linear layer, not a network, not for gradients tiny or huge."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import regulate


def basis_for(inputs, threshold=1.0):
    return regulate.extend_bases(jnp.zeros((inputs.shape[1],) * 2, inputs.dtype), inputs, threshold=threshold)


def project(gradient, bases):
    regulator = regulate.gradient_projection()
    return regulator.update(gradient, regulator.init(gradient)._replace(bases=bases))[0]


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1.0, 1e15, 1e30])
def test_the_projection_is_idempotent_and_blind_to_what_is_protected(key, scale):
    inputs, gradient = jax.random.normal(key, (4, 9)), scale * jax.random.normal(key, (3, 9))
    basis = basis_for(inputs)
    once = project(gradient, basis)
    np.testing.assert_allclose(project(once, basis), once, rtol=1e-5, atol=2e-6 * scale)
    assert jnp.max(jnp.abs(once / scale @ inputs.T)) < 1e-5
    # The exact projection, by least squares.
    exact = gradient / scale - np.linalg.lstsq(np.asarray(inputs).T, np.asarray(gradient / scale).T)[0].T @ inputs
    np.testing.assert_allclose(once / scale, exact, atol=1e-5)


def test_the_basis_is_orthonormal_and_as_small_as_the_threshold_allows(x64, key):
    left, right = (jnp.linalg.qr(jax.random.normal(k, (6, 6)))[0] for k in jax.random.split(key))
    shares = jnp.array([0.5, 0.3, 0.15, 0.04, 0.01, 0.0])
    inputs = left @ (jnp.sqrt(shares)[:, None] * right.T)
    for threshold, rank in ((0.0, 0), (0.45, 1), (0.55, 2), (0.9, 3), (0.97, 4), (1.0, 5)):
        basis = basis_for(inputs, threshold)
        expected = jnp.diag(jnp.arange(6) < rank).astype(float)
        np.testing.assert_allclose(basis.T @ basis, expected, atol=1e-12)
        np.testing.assert_allclose(jnp.sum((inputs @ basis) ** 2), jnp.sum(shares[:rank]), atol=1e-12)


def test_extending_counts_what_is_held_already(x64, key):
    old, new = jax.random.normal(key, (2, 8)), jax.random.normal(jax.random.key(1), (3, 8))
    basis = basis_for(old)
    both = regulate.extend_bases(basis, new, threshold=1.0)
    np.testing.assert_allclose(both[:, :2], basis[:, :2])
    np.testing.assert_allclose(both.T @ both, jnp.diag(jnp.arange(8) < 5).astype(float), atol=1e-12)
    again = regulate.extend_bases(both, jnp.concatenate([old, new]), threshold=1.0)
    np.testing.assert_array_equal(again, both)
    full = regulate.extend_bases(both, jax.random.normal(jax.random.key(2), (50, 8)), threshold=1.0)
    np.testing.assert_allclose(full.T @ full, jnp.eye(8), atol=1e-12)
    np.testing.assert_allclose(project(jnp.ones((2, 8)), full), 0, atol=1e-12)


def network(params, x):
    hidden = jnp.tanh(x @ params["first"].T + params["bias"][None])
    return hidden, hidden @ params["second"].T


def loss(params, x, y):
    return jnp.mean((network(params, x)[1] - y) ** 2)


def test_the_first_tasks_loss_is_unmoved_to_rounding(x64, key):
    keys = jax.random.split(key, 7)
    shapes = {"first": (12, 10), "bias": (12,), "second": (3, 12)}
    params = {name: jax.random.normal(k, shape) / 2 for k, (name, shape) in zip(keys, shapes.items())}
    x, y = jax.random.normal(keys[3], (4, 10)), jax.random.normal(keys[4], (4, 3))
    new_x, new_y = jax.random.normal(keys[5], (9, 10)), jax.random.normal(keys[6], (9, 3))

    def train(protected):
        optimizer = optax.chain(optax.sgd(0.05, momentum=0.9), regulate.gradient_projection())
        state = optimizer.init(params)
        if protected:
            bases = optax.tree.get(state, "bases")
            seen = {"first": x, "bias": jnp.ones((4, 1)), "second": network(params, x)[0]}
            state = optax.tree.set(state, bases=regulate.extend_bases(bases, seen, threshold=1.0))

        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params, new_x, new_y), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=100)[0][0]

    kept, free = (jax.jit(train, static_argnums=0)(p) for p in (True, False))
    np.testing.assert_allclose(loss(kept, x, y), loss(params, x, y), rtol=1e-13)
    np.testing.assert_allclose(network(kept, x)[1], network(params, x)[1], atol=1e-13)
    assert loss(kept, new_x, new_y) < 0.5 * loss(params, new_x, new_y)
    assert abs(loss(free, x, y) - loss(params, x, y)) > 0.1


def test_layers_without_inputs_and_convolutions(x64, key):
    kernel = jax.random.normal(key, (5, 2, 3))  # outputs, channels, width
    patches = jax.random.normal(key, (3, 6))
    regulator = regulate.gradient_projection()
    params = {"kernel": kernel, "bias": jnp.ones(5), "scale": jnp.ones(())}
    state = regulator.init(params)
    seen = {"kernel": patches, "bias": jnp.ones((3, 1)), "scale": None}
    state = state._replace(bases=regulate.extend_bases(state.bases, seen, threshold=1.0))
    updates, _ = regulator.update(params, state, params, unknown=3)
    np.testing.assert_allclose(updates["kernel"].reshape(5, 6) @ patches.T, 0, atol=1e-12)
    assert jnp.max(jnp.abs(updates["bias"])) == 0 and float(updates["scale"]) == 1
    with pytest.raises(ValueError, match="One row for each sample"):
        regulate.extend_bases(state.bases, {"kernel": jnp.ones((3, 5)), "bias": None, "scale": None})


def reused(params, anchor, scaling, relaxed):
    return params + anchor @ relaxed @ (scaling - jnp.eye(scaling.shape[0])) @ relaxed.T


def test_a_relaxed_step_is_the_step_on_the_recombination(x64, key):
    """Against the formulation with a matrix Q of its own, trained by plain descent with its penalty."""
    keys = jax.random.split(key, 5)
    anchor, inputs = jax.random.normal(keys[0], (4, 7)), jax.random.normal(keys[1], (4, 7))
    x, y = jax.random.normal(keys[2], (20, 7)), jax.random.normal(keys[3], (20, 4))
    basis, penalty, rate = basis_for(inputs), 0.3, 0.01
    gradient = (anchor @ x.T - y.T) @ x
    relaxed = regulate.relax_bases(basis, jnp.zeros_like(basis), gradient, energy=1.0, cosine=0.7)
    columns = relaxed[:, : int(jnp.sum(jnp.any(relaxed != 0, axis=0)))]
    assert 1 <= columns.shape[1] < 4

    def objective(params):
        return jnp.mean((jnp.tanh(x @ params.T) - y) ** 2)

    def twofold(weights, scaling):
        prior = penalty * jnp.sum((scaling - jnp.eye(scaling.shape[0])) ** 2)
        return objective(reused(weights, anchor, scaling, columns)) + prior

    regulator = regulate.relaxed_projection(penalty)
    state = regulator.init(anchor)._replace(bases=basis, relaxed=relaxed)
    params, weights, scaling = anchor, anchor, jnp.eye(columns.shape[1])
    for _ in range(20):
        updates, state = regulator.update(jax.grad(objective)(params), state, params)
        params = params - rate * updates
        on_weights, on_scaling = jax.grad(twofold, argnums=(0, 1))(weights, scaling)
        weights, scaling = weights - rate * project(on_weights, basis), scaling - rate * on_scaling
    np.testing.assert_allclose(params, reused(weights, anchor, scaling, columns), atol=1e-13)
    assert jnp.max(jnp.abs(scaling - jnp.eye(scaling.shape[0]))) > 1e-3
    # What is protected and not relaxed stays.
    rest = basis @ basis.T - relaxed @ relaxed.T
    np.testing.assert_allclose((params - anchor) @ rest, 0, atol=1e-13)


def test_relaxed_directions_are_principal_vectors(x64, key):
    # Protected: the first three axes. The gradient's span: the first axis, and one at a cosine of 0.8 to the second.
    basis = jnp.diag(jnp.array([1.0, 1, 1, 0, 0]))
    gradient = jnp.array([[2.0, 0, 0, 0, 0], [0, 0.8, 0, 0.6, 0]])
    zero = jnp.zeros_like(basis)
    for cosine, axes in ((0.9, [0]), (0.8, [0, 1]), (0.1, [0, 1])):
        relaxed = regulate.relax_bases(basis, zero, gradient, energy=1.0, cosine=cosine)
        np.testing.assert_allclose(
            relaxed @ relaxed.T, jnp.diag(jnp.isin(jnp.arange(5), jnp.array(axes)) * 1.0), atol=1e-12
        )
    one = regulate.relax_bases(basis, zero, gradient, energy=1.0, cosine=0.9)
    two = regulate.relax_bases(basis, one, gradient, energy=1.0, cosine=0.7)
    np.testing.assert_array_equal(two[:, 0], one[:, 0])
    np.testing.assert_allclose(two.T @ two, jnp.diag(jnp.arange(5) < 2).astype(float), atol=1e-12)
    np.testing.assert_array_equal(regulate.relax_bases(basis, zero, 0 * gradient), zero)


def test_nothing_relaxed_is_plain_projection_and_faults_are_named(key):
    gradient, inputs = jax.random.normal(key, (3, 5)), jax.random.normal(key, (2, 5))
    regulator, basis = regulate.relaxed_projection(), basis_for(inputs)
    state = regulator.init(gradient)._replace(bases=basis)
    np.testing.assert_array_equal(regulator.update(gradient, state, 2 * gradient)[0], project(gradient, basis))
    with pytest.raises(ValueError, match="params"):
        regulator.update(gradient, state)
    with pytest.raises(ValueError, match="penalty"):
        regulate.relaxed_projection(-1.0)
    with pytest.raises(ValueError, match="cosine"):
        regulate.relax_bases(basis, basis, gradient, cosine=0.0)
