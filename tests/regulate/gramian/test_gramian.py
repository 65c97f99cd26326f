"""The Gramian against the Jacobian itself, for every kind of layer, use and fallback."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.regulate import gramian
from nablax.regulate._gramian import _gramian

KEYS = jax.random.split(jax.random.key(7), 12)
N = 6


def brute_force(losses, params, *args):
    trained, fixed = eqx.partition(params, eqx.is_inexact_array)
    rows = jax.jacrev(lambda p: losses(eqx.combine(p, fixed), *args))(trained)
    flat = jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(rows)], axis=1)
    return flat @ flat.T


def per_example(loss):
    return lambda params, *args: jax.vmap(lambda *example: loss(params, *example))(*args)


def cross_entropy(logits, label):
    return -jax.nn.log_softmax(logits)[label]


class Convolutional(eqx.Module):
    first: eqx.nn.Conv2d
    second: eqx.nn.Conv2d
    norm: eqx.nn.GroupNorm
    pool: eqx.nn.MaxPool2d
    out: eqx.nn.Linear

    def __call__(self, x):
        x = self.pool(jax.nn.relu(self.first(x)))
        x = jax.nn.silu(self.norm(self.second(x)))
        return self.out(x.reshape(-1))


class Attentive(eqx.Module):
    table: eqx.nn.Embedding
    norm: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    out: eqx.nn.Linear

    def __call__(self, ids):
        x = jax.vmap(self.norm)(jax.vmap(self.table)(ids))
        x = x + self.attention(x, x, x)
        return self.out(jax.nn.gelu(jnp.mean(x, axis=0)))


def attentive():
    return Attentive(
        eqx.nn.Embedding(40, 8, key=KEYS[0]),
        eqx.nn.LayerNorm(8),
        eqx.nn.MultiheadAttention(2, 8, key=KEYS[1]),
        eqx.nn.Linear(8, 5, key=KEYS[2]),
    )


def cases():
    x, y = jax.random.normal(KEYS[3], (N, 7)), jax.random.randint(KEYS[4], (N,), 0, 5)
    images = jax.random.normal(KEYS[5], (N, 2, 9, 9))
    ids = jax.random.randint(KEYS[6], (N, 4), 0, 40)
    mlp = eqx.nn.MLP(7, 5, 16, 2, activation=jax.nn.silu, key=KEYS[7])
    classify = per_example(lambda net, x, y: cross_entropy(net(x), y))
    conv = Convolutional(
        eqx.nn.Conv2d(2, 4, 3, padding=1, stride=2, key=KEYS[0]),
        eqx.nn.Conv2d(4, 6, 2, groups=2, dilation=2, padding="SAME", key=KEYS[1]),
        eqx.nn.GroupNorm(2, 6),
        eqx.nn.MaxPool2d(2, 1),
        eqx.nn.Linear(96, 5, key=KEYS[2]),
    )
    square = jax.random.normal(KEYS[8], (7, 7)) / 3
    yield "mlp", classify, mlp, (x, y)
    yield "cnn", classify, conv, (images, y)
    yield "embedding, norm, attention", classify, attentive(), (ids, y)
    table = jax.random.normal(KEYS[10], (40, 6))
    tied = per_example(lambda w, ids, y: cross_entropy(w @ jnp.tanh(jnp.mean(w[ids], axis=0)), y))
    yield "tied embedding", tied, table, (ids, y)
    twice = per_example(lambda w, ids: jnp.sum(jnp.tanh(w[ids]) * jnp.cos(w[ids[::-1] - 2])))
    yield "two look-ups", twice, table, (ids,)
    yield "small table", twice, table[:5], (ids % 5,)
    yield (
        "transposed convolution",
        per_example(lambda net, x: jnp.sum(jnp.tanh(net(x)) ** 3)),
        eqx.nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, key=KEYS[0]),
        (images,),
    )
    yield "a layer used twice", per_example(lambda w, x: jnp.sum(jnp.tanh(w @ jnp.tanh(w @ x)))), square, (x,)
    yield (
        "a layer and its transpose",
        per_example(lambda w, x: jnp.sum(jnp.tanh(w.T @ jnp.tanh(w @ x)))),
        square,
        (x,),
    )
    yield (
        "a normalised weight",
        per_example(lambda w, x: jnp.sum(jnp.tanh((w / jnp.linalg.norm(w, axis=1, keepdims=True)) @ x))),
        square,
        (x,),
    )
    yield "quadratic form", per_example(lambda w, x: x @ w @ x + jnp.sum(w) * x[0]), square, (x,)
    yield "whole batches", lambda w, x: jnp.mean(jnp.tanh(x @ w) ** 2, axis=1), square, (x,)
    yield (
        "batch statistics, which mix the examples",
        lambda w, x: jnp.sum(jnp.tanh(x @ w - jnp.mean(x @ w, axis=0, keepdims=True)) ** 2, axis=1),
        square,
        (x,),
    )
    yield "all pairs", lambda w, x: jnp.sum(jnp.tanh((x @ w) @ (x @ w).T), axis=1), square, (x,)
    yield (
        "a recurrent loop",
        per_example(
            lambda w, x: jnp.sum(jax.lax.scan(lambda h, _: (jnp.tanh(w @ h + x), None), x, None, length=3)[0] * x)
        ),
        square,
        (x,),
    )
    yield (
        "several tasks on shared data",
        lambda w, x: jnp.stack([jnp.mean(x @ w), jnp.mean(jnp.sin(x @ w)), jnp.sum(w**2)]),
        square,
        (x,),
    )
    yield (
        "head weights and a scalar gain",
        per_example(lambda p, x: jnp.sum(p[1] * jnp.tanh(jnp.einsum("hij,hj->hi", p[0], jnp.stack([x, x**2]))))),
        (jax.random.normal(KEYS[9], (2, 3, 7)), jnp.array(0.7)),
        (x,),
    )
    yield "one row of parameters each", lambda w, x: jnp.sum(w[:N] * x, axis=1) + w[N, 0], square, (x,)
    yield (
        "a custom rule and recomputation",
        per_example(
            lambda w, x: jax.checkpoint(lambda w, x: jnp.sum(jax.nn.relu(w @ x)) + jax.nn.logsumexp(x @ w))(w, x)
        ),
        square,
        (x,),
    )
    yield (
        "a custom reverse rule",
        per_example(lambda w, x: jnp.sum(jnp.tanh(_doubled(w @ x)))),
        square,
        (x,),
    )
    yield "one loss", classify, mlp, (x[:1], y[:1])


@jax.custom_vjp
def _doubled(x):
    return x


_doubled.defvjp(lambda x: (x, None), lambda _, g: (2 * g,))
CASES = {name: case for name, *case in cases()}
named = pytest.mark.parametrize("name", CASES)


@named
def test_it_is_the_jacobian_times_its_transpose(name, x64):
    losses, params, args = CASES[name]
    params, args = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf, (params, args)
    )
    trained, fixed = eqx.partition(params, eqx.is_array)

    @jax.jit
    def both(trained, args):
        params = eqx.combine(trained, fixed)
        ours = gramian(losses, params, *args)
        bounded = gramian(losses, params, *args, memory=1)
        return ours, bounded, brute_force(losses, params, *args)

    ours, bounded, expected = both(trained, args)
    assert ours.shape == expected.shape and ours.dtype == expected.dtype
    scale = float(jnp.max(jnp.abs(expected)))
    np.testing.assert_allclose(ours, expected, atol=1e-12 * scale, rtol=1e-10)
    np.testing.assert_allclose(bounded, expected, atol=1e-12 * scale, rtol=1e-10)


@pytest.mark.parametrize("name", ["mlp", "cnn", "embedding, norm, attention", "tied embedding", "a layer used twice"])
def test_known_layers_need_no_gradient_through_the_network(name, monkeypatch):
    """The parts of the network before a layer are never differentiated once per loss."""
    longest = []
    original = _gramian._leading_to
    monkeypatch.setattr(_gramian, "_leading_to", lambda *a: longest.append(len(original(*a))) or original(*a))
    losses, params, args = CASES[name]
    jax.eval_shape(lambda: gramian(losses, params, *args))
    assert longest and max(longest) <= 3  # a bias or a scale is reshaped and broadcast first, and no more
    longest.clear()
    losses, params, args = CASES["a recurrent loop"]
    jax.eval_shape(lambda: gramian(losses, params, *args))
    assert len(longest) == 1


def test_memory_is_bounded():
    """A layer whose gradients would fill 64 MiB, at bounds of 2²⁸ and 2²² bytes."""
    losses = per_example(lambda w, x: jnp.sum(jnp.tanh(x @ w)))
    w, x = jnp.ones((512, 512)) / 512, jax.random.normal(KEYS[0], (64, 600, 512))

    def peak(memory):
        compiled = jax.jit(lambda w, x: gramian(losses, w, x, memory=memory)).lower(w, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    activations = 4 * 64 * 600 * 512
    wide, narrow = peak(2**28), peak(2**22)
    assert wide - narrow > 2**25, (wide, narrow)
    assert narrow < 4 * activations


def test_single_precision_and_still_leaves():
    losses, params, args = CASES["mlp"]
    result = eqx.filter_jit(gramian)(losses, params, *args)
    assert result.dtype == jnp.float32
    half = gramian(lambda w, x: x @ w, jnp.ones(7, jnp.bfloat16), args[0].astype(jnp.bfloat16))
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(result, result.T, rtol=1e-5)
    mixed = gramian(lambda p, x: x @ p[0] * p[1].shape[0], (jnp.ones(7), jnp.arange(3)), args[0])
    np.testing.assert_allclose(mixed, 9 * args[0] @ args[0].T, rtol=1e-5)
    np.testing.assert_array_equal(gramian(lambda p, x: x[:, 0], jnp.ones(7), args[0]), np.zeros((N, N)))


def test_arrays_without_entries_add_nothing():
    x = jnp.eye(2)
    for empty in (jnp.ones(0), jnp.ones((3, 0)), jnp.ones((0, 2))):
        losses = per_example(lambda p, x: jnp.sum(p[0] * x) + jnp.sum(p[1] @ x[: p[1].shape[-1]]))
        np.testing.assert_array_equal(gramian(losses, (jnp.ones(2), empty), x), x)


def test_faults():
    with pytest.raises(ValueError, match="one real vector of losses"):
        gramian(lambda w: jnp.sum(w), jnp.ones(3))
    with pytest.raises(ValueError, match="one real vector of losses"):
        gramian(lambda w: (w, w), jnp.ones(3))
    with pytest.raises(ValueError, match="real floating-point parameters"):
        gramian(lambda w: w * 1.0, jnp.arange(3))
    with pytest.raises(ValueError, match="a complex one"):
        gramian(lambda w: jnp.abs(w), jnp.ones(3, complex))
