"""NoProp: the chain's marginals by closed form, the loss by hand, and no gradient from block to block."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import estimate

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)
CLASSES, DIM, INPUTS, STEPS = 3, 4, 5, 6


class Block(eqx.Module):
    weight: jax.Array
    outputs: int = eqx.field(static=True)

    def __call__(self, *args):
        h = jnp.concatenate([jnp.atleast_1d(jnp.asarray(a, float)) for a in args])
        return jnp.tanh(h) @ self.weight


def model(mode="discrete", **options):
    draws = np.random.default_rng(0)
    embedding = jnp.asarray(draws.normal(size=(CLASSES, DIM)))
    sizes = {
        "discrete": (DIM + INPUTS, CLASSES),
        "continuous": (DIM + INPUTS + 1, CLASSES),
        "flow": (DIM + INPUTS + 1, DIM),
    }
    made = [Block(jnp.asarray(draws.normal(size=sizes[mode])), 0) for _ in range(STEPS)]
    return estimate.NoProp(tuple(made) if mode == "discrete" else made[0], embedding, mode=mode, key=KEY, **options)


class Perfect(eqx.Module):
    """Knows the label, the input being its number, and says so by logits or by a velocity."""

    embedding: jax.Array
    flow: bool = eqx.field(static=True)

    def __call__(self, *args):
        *time, z, x = args
        if self.flow:
            return (self.embedding[x] - z) / (1 - time[0])
        return jnp.where(jnp.arange(CLASSES) == x, 0.0, -1e9)


def chain(net, count=20_000):
    """Where the chain ends, for label 1, read through a last layer that is the identity."""
    head = eqx.tree_at(lambda l: (l.weight, l.bias), net.head, (jnp.eye(DIM), jnp.zeros(DIM)))
    net = eqx.tree_at(lambda n: n.head, net, head)
    return np.asarray(jax.jit(jax.vmap(lambda key: net(1, key=key)))(jax.random.split(KEY, count)))


def test_with_the_perfect_denoiser_the_chain_ends_in_the_marginal_of_least_noise():
    net = model()
    net = eqx.tree_at(lambda n: n.blocks, net, tuple(Perfect(net.embedding, False) for _ in range(STEPS)))
    share = np.sin(np.pi / 2 * (STEPS + 1) / (STEPS + 2)) ** 2
    first = np.sin(np.pi / 2 / (STEPS + 2)) ** 2
    ends = chain(net)
    # It starts from N(0, I), not from q(z_0|y): of that difference all steps leave a known share.
    kept = np.prod([_b(net, t) for t in range(STEPS)])
    mean = np.sqrt(share) * np.asarray(net.embedding[1]) - kept * np.sqrt(first) * np.asarray(net.embedding[1])
    variance = (1 - share) + kept**2 * first
    assert kept**2 * first < 1e-3
    error = np.sqrt(variance / len(ends))
    assert np.all(np.abs(ends.mean(0) - mean) < 4 * error)
    np.testing.assert_allclose(ends.var(0), variance, rtol=4 * np.sqrt(2 / len(ends)))


def _b(net, t):
    shares = [np.sin(np.pi / 2 * (s + 1) / (STEPS + 2)) ** 2 for s in (t, t + 1)]
    return np.sqrt(shares[0] / shares[1]) * (1 - shares[1]) / (1 - shares[0])


@pytest.mark.parametrize("mode", ["continuous", "flow"])
def test_with_the_perfect_guess_a_flow_carries_noise_to_the_label(mode):
    net = model(mode, steps=7)
    net = eqx.tree_at(lambda n: n.blocks, net, Perfect(net.embedding, mode == "flow"))
    ends, u = chain(net, 4000), np.asarray(net.embedding[1])
    if mode == "flow":
        np.testing.assert_allclose(ends, np.broadcast_to(u, ends.shape), atol=1e-12)
        return
    # The flow is linear: what noise is left is the start's, shrunk; steps do not matter.
    share, first = np.sin(np.pi / 2 * 11 / 12) ** 2, np.sin(np.pi / 2 / 12) ** 2
    ratio = np.sqrt((1 - share) / (1 - first))
    np.testing.assert_allclose(ends.std(0), ratio, rtol=0.05)
    np.testing.assert_allclose(
        ends.mean(0), (np.sqrt(share) - ratio * np.sqrt(first)) * u, atol=4 * ratio / np.sqrt(4000)
    )
    np.testing.assert_allclose(
        chain(eqx.tree_at(lambda n: n.blocks, model(mode, steps=2), net.blocks), 4000), ends, atol=1e-10
    )


def test_no_gradient_crosses_blocks():
    net, x = model(), jnp.ones(INPUTS)

    def by_blocks(weights):
        blocks = tuple(Block(w, 0) for w in weights)
        return eqx.tree_at(lambda n: n.blocks, net, blocks).loss(x, 1, key=KEY)

    weights = [block.weight for block in net.blocks]
    crossed = jax.jit(jax.hessian(by_blocks))(weights)
    for one in range(STEPS):
        for other in range(STEPS):
            assert bool(np.any(crossed[one][other])) == (one == other)


def test_the_loss_is_the_bound_by_hand():
    """Its mean over noise: what does not depend on noise is exact, and a denoiser that is right costs nothing."""
    net = model(eta=0.3)
    perfect = eqx.tree_at(lambda n: n.blocks, net, tuple(Perfect(net.embedding, False) for _ in range(STEPS)))
    flat = eqx.tree_at(lambda n: (n.head.weight, n.head.bias), perfect, (jnp.zeros((CLASSES, DIM)), jnp.zeros(CLASSES)))
    u = np.asarray(net.embedding[1])
    share = np.sin(np.pi / 2 * (np.arange(STEPS + 1) + 1) / (STEPS + 2)) ** 2
    divergence = 0.5 * (share[0] * u @ u + DIM * (1 - share[0]) - DIM - DIM * np.log(1 - share[0]))
    assert float(flat.loss(1, 1, key=KEY)) == pytest.approx(np.log(CLASSES) + divergence, rel=1e-10)
    # Blocks that guess evenly: the weights of all levels add up to the last ratio less the first.
    even = eqx.tree_at(lambda n: n.blocks, flat, tuple(Block(jnp.zeros((DIM + 1, CLASSES)), 0) for _ in range(STEPS)))
    miss = np.sum((np.asarray(net.embedding).mean(0) - u) ** 2)
    ratio = share / (1 - share)
    expected = np.log(CLASSES) + divergence + 0.5 * 0.3 * (ratio[-1] - ratio[0]) * miss
    assert float(even.loss(1, 1, key=KEY)) == pytest.approx(expected, rel=1e-10)
    # In continuous time the same sum is an integral over t, here by its mean over draws.
    other = model("continuous", eta=0.3)
    other = eqx.tree_at(
        lambda n: (n.blocks, n.embedding, n.head.weight, n.head.bias),
        other,
        (Block(jnp.zeros((DIM + 2, CLASSES)), 0), net.embedding, flat.head.weight, flat.head.bias),
    )
    draws = np.asarray(jax.jit(jax.vmap(lambda key: other.loss(1, 1, key=key)))(jax.random.split(KEY, 40_000)))
    ends = np.sin(np.pi / 2 * np.array([1, 11]) / 12) ** 2
    divergence = 0.5 * (ends[0] * u @ u - DIM * ends[0] - DIM * np.log(1 - ends[0]))
    ratio = ends / (1 - ends)
    expected = np.log(CLASSES) + divergence + 0.15 * (ratio[1] - ratio[0]) * miss
    assert abs(draws.mean() - expected) < 4 * draws.std() / 200


def test_flow_matching_by_hand():
    net = model("flow")
    zero = eqx.tree_at(lambda n: (n.head.weight, n.head.bias), net, (jnp.zeros((CLASSES, DIM)), jnp.zeros(CLASSES)))
    zero = eqx.tree_at(lambda n: n.blocks, zero, Block(jnp.zeros((DIM + 2, DIM)), 0))
    draws = np.asarray(jax.jit(jax.vmap(lambda key: zero.loss(1, 1, key=key)))(jax.random.split(KEY, 40_000)))
    u = np.asarray(net.embedding[1])
    assert abs(draws.mean() - (u @ u + DIM + np.log(CLASSES))) < 4 * draws.std() / 200


@pytest.mark.parametrize("mode", ["discrete", "continuous", "flow"])
def test_it_learns_to_tell_inputs_apart(mode):
    net = model(mode)
    arrays, rest = eqx.partition(net, eqx.is_inexact_array)
    x, labels = 2 * jnp.eye(INPUTS)[:CLASSES], jnp.arange(CLASSES)
    optimizer = optax.adam(0.03)

    def loss(arrays, key):
        net = eqx.combine(arrays, rest)
        return jnp.mean(jax.vmap(lambda x, y, key: net.loss(x, y, key=key))(x, labels, jax.random.split(key, CLASSES)))

    def body(carry, key):
        updates, state = optimizer.update(jax.grad(loss)(carry[0], key), carry[1])
        return (optax.apply_updates(carry[0], updates), state), None

    keys = jax.random.split(KEY, 600)
    (arrays, _), _ = jax.jit(lambda a: jax.lax.scan(body, (a, optimizer.init(a)), keys))(arrays)
    net = eqx.combine(arrays, rest)
    answers = jax.jit(jax.vmap(lambda key: jnp.argmax(jax.vmap(lambda x: net(x, key=key))(x), axis=1)))(keys[:50])
    assert float(jnp.mean(answers == labels[None])) > 0.9


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: estimate.NoProp((jnp.sum,), jnp.eye(3), mode="other", key=KEY), "mode"),
        (lambda: estimate.NoProp([Block(jnp.ones((2, 2)), 0)], jnp.eye(3), key=KEY), "a tuple of blocks"),
        (lambda: estimate.NoProp((3,), jnp.eye(3), key=KEY), "a block"),
        (lambda: estimate.NoProp(lambda t, z, x: z, jnp.eye(3), mode="flow", steps=0, key=KEY), "steps"),
        (lambda: model(eta=0), "eta"),
        (lambda: estimate.NoProp((jnp.sum,), jnp.ones(3), key=KEY), "embedding"),
        (lambda: estimate.NoProp((jnp.sum,), jnp.eye(3), key=0), "a random key"),
        (
            lambda: estimate.NoProp((lambda z, x: z[:2],), jnp.eye(3), key=KEY).loss(jnp.ones(2), 1, key=KEY),
            "block's answer",
        ),
        (lambda: model()(jnp.ones(INPUTS), key=1), "a random key"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()
