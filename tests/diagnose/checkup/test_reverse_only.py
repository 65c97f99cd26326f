"""Rules of reverse mode alone (`jax.custom_vjp`): the numbers are those of the same function without the rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax._core import forward, given_rule, push_forward
from nablax.calculus import hessian_product, softmax_radius, top_eigenvalues
from nablax.diagnose import checkup, noise_scale, sharpness, step_quality

KEY = jax.random.key(0)


@jax.custom_vjp
def softplus(x):
    return jnp.logaddexp(x, 0.0)


softplus.defvjp(lambda x: (jnp.logaddexp(x, 0.0), x), lambda x, g: (g * jax.nn.sigmoid(x),))


@jax.custom_vjp
def sigmoid(x):
    return jax.nn.sigmoid(x)


sigmoid.defvjp(lambda x: (jax.nn.sigmoid(x), x), lambda x, g: (g * jax.nn.sigmoid(x) * jax.nn.sigmoid(-x),))


@jax.custom_vjp
def nested(x):
    """A rule whose derivative is a rule again."""
    return jnp.logaddexp(x, 0.0)


nested.defvjp(lambda x: (jnp.logaddexp(x, 0.0), x), lambda x, g: (g * sigmoid(x),))


def plain(x):
    return jnp.logaddexp(x, 0.0)


RULES = {"a rule": softplus, "a rule within a rule": nested}


def logits_by(soft):
    return lambda params, batch: soft(batch[0] @ params["in"]) @ params["out"]


def loss_by(soft):
    def loss(params, batch):
        outputs = jax.nn.log_softmax(logits_by(soft)(params, batch))
        return -jnp.mean(jnp.take_along_axis(outputs, batch[1][:, None], axis=1))

    return loss


def problem():
    a, b, c = jax.random.split(jax.random.key(1), 3)
    params = {"in": jax.random.normal(a, (3, 4)), "out": jax.random.normal(b, (4, 2))}
    x = jax.random.normal(c, (16, 3))
    return params, (x, (x[:, 0] > 0).astype(int))


@pytest.fixture(scope="module")
def expected():
    params, batch = problem()
    return checkup(loss_by(plain), params, batch, learning_rate=0.1, key=KEY, logits=logits_by(plain))


@pytest.mark.parametrize("rule", RULES)
def test_a_check_up_finds_the_same_and_says_how(rule, expected):
    params, batch = problem()
    soft = RULES[rule]
    found = checkup(loss_by(soft), params, batch, learning_rate=0.1, key=KEY, logits=logits_by(soft))
    for part in ("sharpness", "step", "noise", "subspace", "layers"):
        for one, other in zip(jax.tree.leaves(getattr(found, part)), jax.tree.leaves(getattr(expected, part))):
            if part != "subspace" or one.ndim < 2:
                np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-5)
    assert expected.notes == () and len(found.notes) == 1
    assert "jax.custom_vjp" in found.notes[0] and found.notes[0] in found.table()


@pytest.mark.parametrize("rule", RULES)
def test_products_are_those_without_the_rule(x64, rule):
    scale, at, v = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.3, -1.0, 2.0]), jnp.array([1.0, 0.5, -1.0])

    def by(soft):
        return lambda p: jnp.sum(scale * soft(p * p[::-1])) + p[0] * p[1]

    hessian, loss = jax.hessian(by(plain))(at), by(RULES[rule])
    np.testing.assert_allclose(hessian_product(loss)(at, v), hessian @ v, rtol=1e-10)
    once = jax.linearize(lambda u: hessian_product(loss)(at, u), jnp.zeros(3))[1]
    np.testing.assert_allclose(jax.jit(jax.vmap(once))(jnp.eye(3)), hessian, rtol=1e-10, atol=1e-12)
    values = top_eigenvalues(lambda u: hessian_product(loss)(at, u), at, count=3, key=KEY).values
    np.testing.assert_allclose(np.sort(values), np.linalg.eigvalsh(hessian), rtol=1e-8)
    value, slope = push_forward(loss, at, v)
    np.testing.assert_allclose([value, slope], [by(plain)(at), jax.grad(by(plain))(at) @ v], rtol=1e-10)
    _, curvature = push_forward(lambda q: push_forward(loss, q, v)[1], at, v)
    np.testing.assert_allclose(curvature, v @ hessian @ v, rtol=1e-10)
    assert forward(by(plain), at, v) is not None and forward(loss, at, v) is None


@pytest.mark.parametrize("rule", RULES)
def test_parts_find_the_same_alone(x64, rule):
    params, batch = jax.tree.map(lambda x: x.astype(float) if x.dtype == jnp.float32 else x, problem())
    loss, other = loss_by(RULES[rule]), loss_by(plain)
    update = jax.tree.map(lambda x: -0.1 * x, params)
    scale = {"rule": given_rule(params, 0.1), "key": KEY}
    pairs = [
        (
            noise_scale(f, params, batch, key=KEY),
            sharpness(f, params, batch, **scale),
            step_quality(f, params, update, batch),
        )
        for f in (loss, other)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9), *pairs)
    radii = [
        softmax_radius(lambda p, s=soft: logits_by(s)(p, batch))(params, update).radius for soft in (RULES[rule], plain)
    ]
    np.testing.assert_allclose(*radii, rtol=1e-8)


def test_other_errors_are_not_taken_for_it():
    def wrong(p):
        raise TypeError("of the user's own")

    for function in (
        lambda: push_forward(wrong, jnp.ones(2), jnp.ones(2)),
        lambda: hessian_product(wrong)(jnp.ones(2), jnp.ones(2)),
        lambda: forward(wrong, jnp.ones(2), jnp.ones(2)),
    ):
        with pytest.raises(TypeError, match="of the user's own"):
            function()
