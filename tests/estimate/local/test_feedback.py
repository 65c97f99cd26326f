"""Feedback alignment, direct feedback alignment and Kolen–Pollack against backpropagation and against their own laws."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import diagnose, estimate, follow

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)


def image_model(key):
    keys = jax.random.split(key, 4)
    return eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(1, 3, 3, stride=2, key=keys[0]),
            eqx.nn.Lambda(jax.nn.tanh),
            eqx.nn.GroupNorm(1, 3),
            eqx.nn.Conv2d(3, 4, 2, use_bias=False, key=keys[1]),
            eqx.nn.Lambda(eqx.nn.PReLU()),
            eqx.nn.Sequential([eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(16, 6, key=keys[2])]),
            eqx.nn.Lambda(jax.nn.softplus),
            eqx.nn.Linear(6, 2, key=keys[3]),
        ]
    )


class Residual(eqx.Module):
    """A skip connection and attention: no sequence, and all weights in dense layers."""

    attention: eqx.nn.MultiheadAttention
    inner: eqx.nn.Linear
    outer: eqx.nn.Linear

    def __call__(self, x):
        x = x + self.attention(x, x, x)
        return jax.vmap(self.outer)(x + jax.vmap(lambda h: jnp.tanh(self.inner(h)))(x))


def residual(key):
    keys = jax.random.split(key, 3)
    return Residual(
        eqx.nn.MultiheadAttention(2, 4, key=keys[0]),
        eqx.nn.Linear(4, 4, key=keys[1]),
        eqx.nn.Linear(4, 3, key=keys[2]),
    )


def dense(key, depth=2, **options):
    return eqx.nn.MLP(5, 3, width_size=4, depth=depth, activation=jnp.tanh, key=key, **options)


MODELS = {
    "dense": (dense, (5,)),
    "scanned": (lambda key: dense(key, depth=4, scan=True), (5,)),
    "convolutional": (image_model, (1, 8, 8)),
    "residual": (residual, (6, 4)),
}
each = pytest.mark.parametrize("name", MODELS)


def made(name):
    make, shape = MODELS[name]
    return make(jax.random.key(3)), jax.random.normal(jax.random.key(4), (7, *shape))


def loss(model, x):
    y = jax.vmap(model)(x)
    return jnp.mean(jnp.sum((y - jnp.cos(jnp.arange(y[0].size).reshape(y[0].shape)[None])) ** 2, axis=range(1, y.ndim)))


def by(rule, *feedback):
    return eqx.filter_jit(eqx.filter_value_and_grad(lambda model, x: loss(rule(model, *feedback), x)))


backprop = eqx.filter_jit(eqx.filter_value_and_grad(loss))


def close(left, right):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), left, right)


def weights(model):
    nodes = jax.tree.leaves(model, is_leaf=lambda n: isinstance(n, (eqx.nn.Linear, eqx.nn.Conv)))
    return tuple(n.weight for n in nodes if isinstance(n, (eqx.nn.Linear, eqx.nn.Conv)))


@each
def test_with_the_weights_themselves_as_feedback_it_is_backpropagation(name):
    model, x = made(name)
    truth = backprop(model, x)
    close(by(estimate.feedback_alignment, weights(model))(model, x), truth)
    other = by(estimate.feedback_alignment, estimate.init_feedback(model, key=KEY))(model, x)
    assert float(other[0]) == pytest.approx(float(truth[0]), rel=1e-12)
    # Errors that went another way differ.
    first = weights(other[1])[0], weights(truth[1])[0]
    assert float(jnp.linalg.norm(first[0] - first[1])) > 0.1 * float(jnp.linalg.norm(first[1]))


def test_errors_go_back_by_the_feedback_alone():
    """By hand, two hidden layers: the transposed weights never appear."""
    model, x = made("dense")
    feedback = estimate.init_feedback(model, key=KEY)
    (w1, w2, w3), (b1, b2, b3) = weights(model), [layer.bias for layer in model.layers]
    h1 = jnp.tanh(x @ w1.T + b1[None])
    h2 = jnp.tanh(h1 @ w2.T + b2[None])
    e = jax.grad(lambda y: jnp.mean(jnp.sum((y - jnp.cos(jnp.arange(3.0))[None]) ** 2, axis=1)))(h2 @ w3.T + b3[None])
    d2 = (1 - h2**2) * (e @ feedback[2])
    d1 = (1 - h1**2) * (d2 @ feedback[1])
    grads = by(estimate.feedback_alignment, feedback)(model, x)[1]
    close(weights(grads), (d1.T @ x, d2.T @ h1, e.T @ h2))
    close([layer.bias for layer in grads.layers], [d.sum(0) for d in (d1, d2, e)])


def linear_net():
    keys = jax.random.split(jax.random.key(5), 3)
    sizes = ((5, 6), (6, 4), (4, 3))
    return eqx.nn.Sequential([eqx.nn.Linear(*size, key=key) for size, key in zip(sizes, keys)])


def test_direct_feedback_by_the_product_of_all_weights_above_is_backpropagation_in_a_linear_net():
    model, x = linear_net(), jax.random.normal(jax.random.key(4), (7, 5))
    w1, w2, w3 = weights(model)
    found = by(estimate.direct_feedback_alignment, ((w3 @ w2).T, w3.T))(model, x)
    close(found, backprop(model, x))


@pytest.mark.parametrize("out", [3, "scalar"])
def test_direct_feedback_by_the_transposed_weight_is_backpropagation_with_one_hidden_layer(out):
    model = eqx.nn.MLP(5, out, width_size=4, depth=1, activation=jnp.tanh, key=KEY)
    x = jax.random.normal(jax.random.key(4), (7, 5))
    found = by(estimate.direct_feedback_alignment, (weights(model)[1].T,))(model, x)
    close(found, backprop(model, x))


@pytest.mark.parametrize("name", ["dense", "convolutional"])
def test_each_block_has_the_error_through_its_own_matrix_and_the_last_is_exact(name):
    model, x = made(name)
    feedback = estimate.init_direct_feedback(model, x[0], key=KEY)
    value, grads = by(estimate.direct_feedback_alignment, feedback)(model, x)
    truth, exact = backprop(model, x)
    assert float(value) == pytest.approx(float(truth), rel=1e-12)
    close(weights(grads)[-1], weights(exact)[-1])
    # A matrix of zeros silences its block and no other.
    rule = eqx.filter_jit(
        eqx.filter_grad(lambda model, feedback: loss(estimate.direct_feedback_alignment(model, feedback), x))
    )
    for silent in range(len(feedback)):
        given = tuple(jnp.zeros_like(b) if number == silent else b for number, b in enumerate(feedback))
        heard = weights(rule(model, given))
        for number, (one, other) in enumerate(zip(heard, weights(grads))):
            close(one, jnp.zeros_like(one) if number == silent else other)


def test_direct_feedback_is_of_one_size_whatever_the_width():
    model = eqx.nn.Sequential(
        [eqx.nn.Linear(4, 1000, key=KEY), eqx.nn.Linear(1000, 20, key=KEY), eqx.nn.Linear(20, 3, key=KEY)]
    )
    e = jnp.array([1.0, -2.0, 0.5])
    shape = jax.ShapeDtypeStruct((4,), float)
    draw = jax.jit(jax.vmap(lambda key: estimate.init_direct_feedback(model, shape, key=key)))
    wide, narrow = draw(jax.random.split(KEY, 200))
    for matrices in (wide, narrow):
        sizes = jnp.sum((matrices @ e) ** 2, axis=1)
        assert float(jnp.mean(sizes)) == pytest.approx(float(e @ e) / 3, rel=0.15)
    plain = estimate.init_direct_feedback(model, shape, normalised=False, key=KEY)
    assert float(jnp.std(plain[0])) == pytest.approx(1, rel=0.05)


def test_kolen_pollack_draws_weights_and_feedback_together_at_the_rate_of_the_decay():
    model, x = made("dense")
    start = model, estimate.init_feedback(model, key=KEY)
    optimizer = optax.chain(optax.add_decayed_weights(0.3), optax.sgd(0.1))
    step = follow.train_step(lambda pair, x: loss(estimate.kolen_pollack(*pair), x), optimizer)
    pair, state = start, optimizer.init(eqx.filter(start, eqx.is_inexact_array))
    arrays, rest = eqx.partition(pair, eqx.is_array)
    values = []
    jitted = jax.jit(lambda arrays, state: _arrays(step(eqx.combine(arrays, rest), state, x)))
    for _ in range(25):
        arrays, state, value = jitted(arrays, state)
        values.append(float(value))
    pair = eqx.combine(arrays, rest)
    for before, after, b_before, b_after in zip(weights(start[0]), weights(pair[0]), start[1], pair[1]):
        np.testing.assert_allclose(after - b_after, (1 - 0.1 * 0.3) ** 25 * (before - b_before), atol=1e-13)
        assert float(jnp.linalg.norm(after - before)) > 0.1
    assert values[-1] < 0.7 * values[0]


def _arrays(out):
    pair, state, value = out
    return eqx.filter(pair, eqx.is_array), state, value


def test_held_feedback_has_no_gradient_and_trained_feedback_has_its_layers_own():
    model, x = made("convolutional")
    feedback = estimate.init_feedback(model, key=KEY)

    def through(rule):
        return eqx.filter_jit(eqx.filter_grad(lambda pair, x: loss(rule(*pair), x)))((model, feedback), x)

    close(through(estimate.feedback_alignment)[1], jax.tree.map(jnp.zeros_like, feedback))
    grads, feedback_grads = through(estimate.kolen_pollack)
    close(feedback_grads, weights(grads))


def test_the_forward_pass_has_no_other_products_and_dropout_has_its_key():
    model = eqx.nn.Sequential([eqx.nn.Linear(6, 50, key=KEY), eqx.nn.Dropout(0.5), eqx.nn.Linear(50, 2, key=KEY)])
    x = jnp.ones(6)
    for used in (
        estimate.feedback_alignment(model, estimate.init_feedback(model, key=KEY)),
        estimate.direct_feedback_alignment(model, estimate.init_direct_feedback(model, x, key=KEY)),
    ):
        close(used(x, key=KEY), model(x, key=KEY))
        program = jax.make_jaxpr(lambda x, used=used: used(x, key=KEY))(x)
        plain = jax.make_jaxpr(lambda x: model(x, key=KEY))(x)
        assert str(program).count("dot_general") == str(plain).count("dot_general") == 2


def test_the_rules_stand_in_the_alignment_table_and_train():
    model, x = made("dense")
    feedback = estimate.init_feedback(model, key=KEY)
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)

    def plain(arrays, x):
        return loss(eqx.combine(arrays, rest), x)

    def aligned(_):
        return jax.value_and_grad(
            lambda arrays, x: loss(estimate.feedback_alignment(eqx.combine(arrays, rest), feedback), x)
        )

    found = diagnose.alignment(
        {"backprop": jax.value_and_grad, "feedback": aligned}, plain, arrays, x, key=KEY
    ).estimators
    assert float(found["backprop"].cosine.value) == pytest.approx(1, abs=1e-9)
    assert 0 < float(found["feedback"].cosine.value) < 0.999

    optimizer = optax.adam(0.01)

    def body(carry, _):
        value, grads = aligned(None)(carry[0], x)
        updates, state = optimizer.update(grads, carry[1])
        return (optax.apply_updates(carry[0], updates), state), value

    _, values = jax.lax.scan(body, (arrays, optimizer.init(arrays)), length=300)
    assert float(values[-1]) < 0.2 * float(values[0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, x: estimate.init_feedback(m, key=0), "a random key"),
        (lambda m, x: estimate.init_feedback(eqx.nn.GRUCell(2, 3, key=KEY), key=KEY), "weight_ih"),
        (lambda m, x: estimate.init_feedback({"w": jnp.ones((2, 2))}, key=KEY), r"\['w'\]"),
        (lambda m, x: estimate.init_feedback(eqx.nn.LayerNorm(3), key=KEY), "LayerNorm without any"),
        (lambda m, x: estimate.feedback_alignment(m, (jnp.ones((4, 5)),)), "a tuple of 3"),
        (lambda m, x: estimate.feedback_alignment(m, weights(m)[::-1]), "init_feedback"),
        (lambda m, x: estimate.direct_feedback_alignment(m, [1]), "a tuple of 2"),
        (lambda m, x: estimate.direct_feedback_alignment(m, (jnp.ones((3, 4)), jnp.ones((4, 3))))(x[0]), r"\[4, 3\]"),
        (lambda m, x: estimate.init_direct_feedback(dense(KEY, scan=True), x[0], key=KEY), "scan=False"),
        (lambda m, x: estimate.init_direct_feedback(residual(KEY), x[0], key=KEY), "Residual"),
        (
            lambda m, x: estimate.init_direct_feedback(eqx.nn.Sequential([eqx.nn.GRUCell(2, 3, key=KEY)]), x, key=KEY),
            "GRUCell, layer 0",
        ),
        (
            lambda m, x: estimate.init_direct_feedback(
                eqx.nn.Sequential([eqx.nn.Linear(2, 2, key=KEY), eqx.nn.BatchNorm(2, "batch", mode="batch")]),
                x,
                key=KEY,
            ),
            "BatchNorm, layer 1",
        ),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    model, x = made("dense")
    with pytest.raises(ValueError, match=words):
        call(model, x)
