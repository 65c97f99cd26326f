"""SOAP and Shampoo against another way of writing them, and what turning the axes does to them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nablax import optimize


def rolled(rule, params, gradient, steps):
    """Parameters after each step, and the final state, by one compiled loop."""

    def body(carry, t):
        params, state = carry
        update, state = rule.update(gradient(params, t), state, params)
        return (optax.apply_updates(params, update), state), optax.apply_updates(params, update)

    (_, state), path = jax.jit(lambda: jax.lax.scan(body, (params, rule.init(params)), jnp.arange(steps)))()
    return np.asarray(path), state


def soap_by_numpy(gradients, rate, b1, b2, eps, every):
    """The authors' order of operations on one matrix, the average of gradients kept unturned between steps."""
    x, m, v = (np.zeros_like(gradients[0]) for _ in range(3))
    left, right = (1 - b2) * gradients[0] @ gradients[0].T, (1 - b2) * gradients[0].T @ gradients[0]
    ql, qr = (np.linalg.eigh(gram)[1][:, ::-1] for gram in (left, right))
    path, sorted_anew = [x.copy()], 0
    for t, g in enumerate(gradients[1:], 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * (ql.T @ g @ qr) ** 2
        inside = (ql.T @ m @ qr) / (np.sqrt(v) + eps)
        x = x - rate * np.sqrt(1 - b2**t) / (1 - b1**t) * ql @ inside @ qr.T
        left, right = b2 * left + (1 - b2) * g @ g.T, b2 * right + (1 - b2) * g.T @ g
        if t % every == 0:
            for gram, is_left in ((left, True), (right, False)):
                q = ql if is_left else qr
                order = np.argsort(-np.diag(q.T @ gram @ q))
                sorted_anew += not np.array_equal(order, np.arange(len(order)))
                v = v[order] if is_left else v[:, order]
                q = np.linalg.qr(gram @ q[:, order])[0]
                ql, qr = (q, qr) if is_left else (ql, q)
        path.append(x.copy())
    return np.array(path), m, v, sorted_anew


def test_soap_is_the_authors_step_by_step_with_its_squares_sorted_along(x64):
    random = np.random.default_rng(0)
    # Directions whose size changes, so that the order of eigenvalues does.
    gradients = random.normal(size=(12, 3, 4)) * np.exp(random.normal(size=(12, 3, 1)))
    hand, m, v, sorted_anew = soap_by_numpy(gradients, 0.1, 0.9, 0.8, 1e-8, every=3)
    assert sorted_anew >= 3
    rule = optimize.soap(0.1, b1=0.9, b2=0.8, every=3, weight_decay=0.0)
    path, state = rolled(rule, jnp.zeros((3, 4)), lambda p, t: jnp.asarray(gradients)[t], 12)
    np.testing.assert_allclose(path, hand, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(state[0].nu, v, rtol=1e-9)
    ql, qr = state[0].bases
    np.testing.assert_allclose(ql @ state[0].mu @ qr.T, m, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ql.T @ ql, np.eye(3), atol=1e-12)


def turns(size):
    return [np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0] for seed in (1, 2)]


def test_turned_axes_turn_the_steps_of_soap_and_shampoo_and_not_those_of_adam(x64):
    u, v = turns(4)
    random = np.random.default_rng(3)
    a, b = (np.eye(4) + 0.3 * random.normal(size=(4, 4)) for _ in range(2))
    start = random.normal(size=(4, 4))

    def gradient(x, t):
        return a.T @ jnp.tanh(a @ x @ b) @ b.T

    def turned(x, t):
        return u @ gradient(u.T @ x @ v, t) @ v.T

    for rule, follows in (
        (optimize.soap(0.05, every=2, weight_decay=0.0), True),
        (optimize.shampoo(0.05), True),
        (optax.adam(0.05), False),
    ):
        path = rolled(rule, jnp.asarray(start), gradient, 8)[0]
        other = rolled(rule, jnp.asarray(u @ start @ v.T), turned, 8)[0]
        assert np.abs(path[-1] - start).max() > 0.05
        assert np.allclose(u @ path @ v.T, other, atol=1e-8) == follows


def test_soap_on_what_it_does_not_turn_is_adam_one_step_later(x64):
    params = {"vector": jnp.array([1.0, -2.0]), "long": jnp.asarray(np.random.default_rng(4).normal(size=(2, 3)))}

    def gradient(p, t):
        return jax.tree.map(jnp.sin, p)

    start = jax.tree.map(lambda x: x, params)
    path, _ = rolled_tree(optimize.soap(0.1, eps=1e-12, max_size=1, weight_decay=0.0), params, gradient, 5)
    adam, _ = rolled_tree(optax.adam(0.1, 0.95, 0.95, eps=1e-12), params, gradient, 4)
    for name in params:
        np.testing.assert_array_equal(path[name][0], start[name])
        np.testing.assert_allclose(path[name][1:], adam[name], rtol=1e-6)


def rolled_tree(rule, params, gradient, steps):
    def body(carry, t):
        params, state = carry
        update, state = rule.update(gradient(params, t), state, params)
        params = optax.apply_updates(params, update)
        return (params, state), params

    (_, state), path = jax.jit(lambda: jax.lax.scan(body, (params, rule.init(params)), jnp.arange(steps)))()
    return path, state


def power(matrix, exponent):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * values**exponent) @ vectors.T


def test_shampoo_is_the_papers_sum_and_root_for_every_number_of_axes(x64):
    random = np.random.default_rng(5)
    eps, shapes = 0.01, {"scalar": (), "vector": (3,), "matrix": (3, 4), "tensor": (2, 3, 4)}
    gradients = {name: random.normal(size=(4, *shape)) for name, shape in shapes.items()}
    rule = optimize.scale_by_shampoo(eps=eps, every=2)

    def body(state, g):
        update, state = rule.update(g, state)
        return state, update

    zeros = jax.tree.map(lambda g: jnp.zeros(g.shape[1:]), gradients)
    _, steps = jax.jit(lambda g: jax.lax.scan(body, rule.init(zeros), g))(gradients)
    for name, shape in shapes.items():
        for t, seen in ((0, 1), (1, 1), (2, 3), (3, 3)):  # roots are new at every second step
            g = gradients[name][:seen]
            wanted = gradients[name][t]
            if not shape:
                wanted = wanted / np.sqrt(eps + np.sum(g**2))
            for axis, side in enumerate(shape):
                flat = np.moveaxis(g, axis + 1, 0).reshape(side, -1)
                root = power(eps * np.eye(side) + flat @ flat.T, -1 / (2 * len(shape)))
                wanted = np.moveaxis(np.tensordot(root, wanted, axes=(1, axis)), 0, axis)
            np.testing.assert_allclose(steps[name][t], wanted, rtol=1e-9, atol=1e-12)


def test_shampoos_first_step_is_the_polar_factor_also_of_a_gradient_of_low_rank(x64):
    random = np.random.default_rng(6)
    rule = optimize.scale_by_shampoo(eps=1e-12)
    for rank in (3, 2):
        matrix = random.normal(size=(3, rank)) @ random.normal(size=(rank, 5))
        u, sigma, v = np.linalg.svd(matrix, full_matrices=False)
        step, _ = rule.update(jnp.asarray(matrix), rule.init(jnp.asarray(matrix)))
        np.testing.assert_allclose(step, (u * (sigma > 1e-9)) @ v, atol=1e-6)
