"""One set of weights both ways: the gradients add up, and the way back is the transpose."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import estimate

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)
X, Y = np.random.default_rng(0).normal(size=5), np.eye(3)[1]


def made(activation=jnp.tanh):
    return estimate.Bidirectional(eqx.nn.MLP(5, 3, width_size=4, depth=2, activation=activation, key=KEY))


def test_a_linear_nets_way_back_has_the_transposed_jacobian():
    both = made(lambda x: x)
    forward, back = jax.jacfwd(both)(jnp.asarray(X)), jax.jacfwd(both.back)(jnp.asarray(Y))
    np.testing.assert_allclose(back, forward.T, rtol=1e-12, atol=1e-15)
    assert both.model.layers[0].bias.any()  # biases are of one direction alone
    np.testing.assert_array_equal(both.back(jnp.zeros(3)), jnp.zeros(5))


def test_the_way_back_by_hand():
    both = made()
    w1, w2, w3 = (layer.weight for layer in both.model.layers)
    c = [jnp.asarray(np.random.default_rng(1).normal(size=size)) for size in (5, 4, 4)]
    both = eqx.tree_at(lambda b: b.back_biases, both, tuple(c))
    expected = w1.T @ jnp.tanh(w2.T @ jnp.tanh(w3.T @ Y + c[2]) + c[1]) + c[0]
    np.testing.assert_allclose(both.back(jnp.asarray(Y)), expected, rtol=1e-12)
    np.testing.assert_allclose(both(jnp.asarray(X)), both.model(jnp.asarray(X)))


def test_the_tied_gradient_is_the_sum_of_two_untied_ones():
    both = made()

    def loss(one, other):
        return jnp.sum((one(jnp.asarray(X)) - Y) ** 2) + jnp.sum((other.back(jnp.asarray(Y)) - X) ** 2)

    tied = eqx.filter_jit(eqx.filter_grad(lambda b: loss(b, b)))(both)
    ahead, behind = eqx.filter_jit(eqx.filter_grad(lambda pair: loss(*pair)))((both, both))
    for number in range(3):
        parts = [g.model.layers[number].weight for g in (ahead, behind)]
        assert all(np.linalg.norm(part) > 1e-3 for part in parts)
        np.testing.assert_allclose(tied.model.layers[number].weight, sum(parts), rtol=1e-11)
    np.testing.assert_allclose(tied.model.layers[1].bias, ahead.model.layers[1].bias)
    assert not np.any(behind.model.layers[1].bias) and np.any(tied.back_biases[1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: estimate.Bidirectional(eqx.nn.Linear(3, 2, key=KEY)), "equinox.nn.MLP"),
        (lambda: estimate.Bidirectional(eqx.nn.MLP(3, 2, 4, 2, scan=True, key=KEY)), "scan=True"),
        (lambda: estimate.Bidirectional(eqx.nn.MLP(3, "scalar", 4, 1, key=KEY)), "out_size=scalar"),
        (lambda: made().back(jnp.ones(4)), "as long as an answer"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()
