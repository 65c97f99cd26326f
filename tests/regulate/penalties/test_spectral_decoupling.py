import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax.regulate import spectral_decoupling

X = jax.random.normal(jax.random.key(0), (6, 4))
W = jax.random.normal(jax.random.key(1), (4, 3))


def logits(params, inputs):
    return jnp.tanh(inputs) @ params


def test_it_is_the_gradient_of_the_penalised_loss():
    labels, shift = jnp.array([0, 1, 2, 0, 1, 2]), jnp.array([0.5, -1.0, 2.0])

    def loss(params):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits(params, X), labels))

    def penalty(params):
        return 0.3 / 2 * jnp.mean(jnp.sum((logits(params, X) - shift[None]) ** 2, axis=1))

    regulator = spectral_decoupling(logits, 0.3, shift=shift)
    updates, state = regulator.update(jax.grad(loss)(W), regulator.init(W), W, inputs=X)
    np.testing.assert_allclose(updates, jax.grad(lambda p: loss(p) + penalty(p))(W), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.penalty, penalty(W), rtol=1e-6)


def test_all_margins_end_at_the_root_whatever_the_features(x64):
    features = jax.random.normal(jax.random.key(2), (3, 4), jnp.float64) * jnp.array([[5.0], [1.0], [0.5]])
    labels = jnp.array([1.0, -1.0, 1.0])
    strength = 0.2
    regulator = spectral_decoupling(lambda w, x: x @ w, strength)

    def loss(w):
        return jnp.mean(jax.nn.softplus(-labels * (features @ w)))

    def residual(w):
        return regulator.update(jax.grad(loss)(w), regulator.init(w), w, inputs=features)[0]

    # Newton on the convex problem, within the span of the features.
    newton = jax.jit(lambda w: w - jnp.linalg.lstsq(jax.jacobian(residual)(w), residual(w))[0])
    w = jnp.zeros(4)
    for _ in range(30):
        w = newton(w)
    margins = labels * (features @ w)
    np.testing.assert_allclose(strength * margins, 1 / (1 + jnp.exp(margins)), rtol=1e-9)
    np.testing.assert_allclose(margins, margins[0], rtol=1e-9)


def test_faults():
    with pytest.raises(ValueError, match="strength"):
        spectral_decoupling(logits, -1.0)
    regulator = spectral_decoupling(logits, 1.0)
    with pytest.raises(ValueError, match="inputs"):
        regulator.update(W, regulator.init(W), W)
