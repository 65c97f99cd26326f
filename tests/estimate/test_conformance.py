"""One suite for every estimator of the room."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import estimate, follow


def the_gradient(params, *args, key):
    return jax.tree.map(lambda p: 2 * p if eqx.is_inexact_array(p) else p, params)


class Signs:
    """Ones for whatever is trained, which a table for all losses cannot know: curl descent without a flip."""

    def __call__(self, loss, **options):
        def value_and_grad(params, *args, key=None):
            signs = jax.tree.map(jnp.ones_like, eqx.filter(params, eqx.is_inexact_array))
            return estimate.rule_flipped(loss, signs, **options)(params, *args, key=key)

        return value_and_grad if callable(loss) else estimate.rule_flipped(loss, jnp.ones(2), **options)


class Replayed:
    """The gradient that a seed stands for, as a tree."""

    def __call__(self, loss, **options):
        seeded = estimate.seed_replay(loss, **options)

        def value_and_grad(params, *args, key=None):
            value, gradient = seeded(params, *args, key=key)
            return value, gradient.tree(params)

        return value_and_grad


ESTIMATORS = {
    "forward_gradient": estimate.forward_gradient,
    "forward_gradient, signs": functools.partial(estimate.forward_gradient, directions="rademacher", probes=2),
    "forward_gradient, sphere": functools.partial(estimate.forward_gradient, directions="sphere"),
    "forward_gradient, orthogonal": functools.partial(estimate.forward_gradient, directions="orthogonal", probes=3),
    "spsa": estimate.spsa,
    "gaussian_smoothing": functools.partial(estimate.gaussian_smoothing, probes=2),
    "seed_replay": Replayed(),
    "guessed_gradient": functools.partial(estimate.guessed_gradient, guess=the_gradient),
    "rule_flipped": Signs(),
    "average": lambda loss, has_aux=False: estimate.average(estimate.spsa(loss, has_aux=has_aux), probes=3),
}
UNBIASED = [name for name in ESTIMATORS if name not in ("guessed_gradient", "rule_flipped")]
DRAWS_NOTHING = ("rule_flipped",)
names = pytest.mark.parametrize("name", ESTIMATORS)


def loss(params, x):
    """A quadratic, whose differences have no bias."""
    return jnp.sum((params["weight"] @ x) ** 2) + jnp.sum(params["bias"] ** 2)


def parameters(dtype=jnp.float32):
    draws = np.random.default_rng(0)
    return {"bias": jnp.asarray(draws.normal(size=3), dtype), "weight": jnp.asarray(draws.normal(size=(3, 2)), dtype)}


X = jnp.array([1.0, -0.5])
KEY = jax.random.key(1)


def close(left, right, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), left, right)


@names
def test_compiled_equals_eager_and_a_batch_of_keys_its_members_with_one_trace(name):
    traces = []

    def counted(params, x):
        traces.append(1)
        return loss(params, x)

    function = ESTIMATORS[name](counted)
    compiled = jax.jit(lambda params, key: function(params, X, key=key))
    alone = [compiled(parameters(), key) for key in jax.random.split(KEY, 3)]
    many = len(traces)
    compiled(parameters(), KEY)
    assert len(traces) == many
    close(alone[0], function(parameters(), X, key=jax.random.split(KEY, 3)[0]), 1e-2)
    together = jax.jit(jax.vmap(lambda key: function(parameters(), X, key=key)))(jax.random.split(KEY, 3))
    close(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone), 1e-2)


@names
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_value_is_the_loss_and_gradients_are_like_the_parameters(name, dtype):
    with jax.enable_x64(True):
        params = parameters(dtype)
        x = X.astype(dtype)
        value, grads = jax.jit(lambda p: ESTIMATORS[name](loss)(p, x, key=KEY))(params)
        assert [g.dtype for g in jax.tree.leaves(grads)] == [dtype, dtype]
        assert [g.shape for g in jax.tree.leaves(grads)] == [(3,), (3, 2)]
        assert float(value) == pytest.approx(float(loss(params, x)), rel=1e-2 if dtype == "bfloat16" else 1e-6)


@names
def test_auxiliary_values_and_leaves_that_are_not_trained(name):
    params = parameters() | {"steps": jnp.array(3), "name": "net"}

    def with_aux(params, x):
        return loss(params, x), {"count": params["steps"] + 1, "size": jnp.sum(params["bias"])}

    (value, aux), grads = ESTIMATORS[name](with_aux, has_aux=True)(params, X, key=KEY)
    assert float(value) == pytest.approx(float(loss(params, X)), rel=1e-6)
    assert int(aux["count"]) == 4 and float(aux["size"]) == pytest.approx(float(jnp.sum(params["bias"])), rel=1e-6)
    assert grads["steps"] is None and grads["name"] is None and grads["weight"].shape == (3, 2)


@names
@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_gradients_of_any_scale(name, scale):
    # Differences have the rounding of the values, relative to them the same at any scale.
    tolerance = 0.2 if name in ("spsa", "gaussian_smoothing", "seed_replay", "average") else 1e-3

    def grown(params, x):
        return scale * loss(params, x)

    plain = ESTIMATORS[name](loss)(parameters(), X, key=KEY)[1]
    scaled = ESTIMATORS[name](grown)(parameters(), X, key=KEY)[1]
    size = max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(plain))
    for one, other in zip(jax.tree.leaves(scaled), jax.tree.leaves(plain)):
        np.testing.assert_allclose(np.asarray(one, np.float64) / scale, other, atol=tolerance * size)


@pytest.mark.parametrize("name", UNBIASED)
def test_the_mean_over_keys_is_the_gradient(name):
    with jax.enable_x64(True):
        params, x = parameters(jnp.float64), X.astype(jnp.float64)
        function = ESTIMATORS[name](loss)
        draws = jax.jit(jax.vmap(lambda key: function(params, x, key=key)[1]))(jax.random.split(KEY, 20_000))
        exact = jax.grad(loss)(params, x)
        for drawn, truth in zip(jax.tree.leaves(draws), jax.tree.leaves(exact)):
            error = jnp.std(drawn, axis=0) / jnp.sqrt(len(drawn))
            assert bool(jnp.all(jnp.abs(jnp.mean(drawn, axis=0) - truth) < 4.5 * error))
            # A bias of a hundredth of the gradient would be seen.
            assert float(jnp.max(error)) < 0.04 * float(jnp.max(jnp.abs(truth)))


@names
def test_it_trains_in_a_training_step(name):
    step = follow.train_step(loss, optax.sgd(0.02), value_and_grad=ESTIMATORS[name])
    params = parameters()

    def body(carry, key):
        params, state, value = step(*carry, X, key=key)
        return (params, state), value

    _, values = jax.lax.scan(body, (params, optax.sgd(0.02).init(params)), jax.random.split(KEY, 200))
    assert float(values[-1]) < 0.2 * float(values[0])


@names
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda make: make(loss)(parameters(), X), "a key for"),
        (lambda make: make(loss)(parameters(), X, key=0), "a random key"),
        (lambda make: make(lambda p, x: p["bias"])(parameters(), X, key=KEY), "one real number"),
        (lambda make: make(lambda p, x: (loss(p, x), x))(parameters(), X, key=KEY), "without auxiliary"),
        (lambda make: make(loss, has_aux=True)(parameters(), X, key=KEY), "has_aux"),
        (lambda make: make(lambda p: jnp.sum(p))(jnp.arange(3), key=KEY), "real floating-point leaves"),
        (lambda make: make(lambda p: jnp.sum(jnp.abs(p)))(jnp.ones(3, complex), key=KEY), "real floating-point leaves"),
        (lambda make: make(3.0), "a function"),
    ],
)
def test_bad_input_is_refused_in_words(name, call, words):
    if name in DRAWS_NOTHING and "key" in words:
        call(ESTIMATORS[name])  # it takes none, and does not look at one
        return
    with pytest.raises(ValueError, match=words):
        call(ESTIMATORS[name])


NET = eqx.nn.MLP(2, 3, width_size=4, depth=1, key=KEY)
LAYERS = list(NET.layers)
RESTING = estimate.Equilibrium(LAYERS)
BATCH = jnp.ones((5, 2)), jnp.zeros((5, 3))
FAMILY = estimate.LocationScale(jnp.zeros(2), jnp.zeros(2))
COUNTED = jnp.arange(3)


class Odd(eqx.Module):
    """A layer of no known kind."""

    weight: jax.Array

    def __call__(self, x, *, key=None):
        return self.weight @ x


ODD = eqx.nn.Sequential([Odd(jnp.ones((3, 2)))])


def vector(*args, **kwargs):
    return jnp.ones(3)


def square(*args):
    return sum(jnp.sum(leaf * 1.0) ** 2 for leaf in jax.tree.leaves(args))


def identity(state, *args):
    return state


REAL_TIME = functools.partial(estimate.real_time, lambda p, x, u: x + jnp.sum(p) + u)
# What the other ways to a gradient refuse: of each, the layer it cannot serve, a loss with several numbers, weights of
# whole numbers, a missing key, where it could be given one.
REFUSED = {
    "hypergradient, vector": (
        lambda: estimate.hypergradient(vector, square)(jnp.ones(2), jnp.ones(3)),
        "one real number",
    ),
    "hypergradient, vector below": (
        lambda: estimate.hypergradient(square, vector)(jnp.ones(2), jnp.ones(3)),
        "one real number",
    ),
    "hypergradient, integers": (lambda: estimate.hypergradient(square, square)(COUNTED, jnp.ones(3)), "floating-point"),
    "metagradient, vector": (
        lambda: estimate.metagradient(identity, vector, steps=2)(jnp.ones(2), jnp.ones(3)),
        "one real number",
    ),
    "metagradient, integers": (
        lambda: estimate.metagradient(identity, square, steps=2)(COUNTED, jnp.ones(3)),
        "floating-point",
    ),
    "implicit, integers": (
        lambda: estimate.implicit(identity, lambda x, a: x - a)(jnp.arange(2), jnp.ones(2)),
        "floating-point",
    ),
    "equilibrium_gradient, vector": (lambda: estimate.equilibrium_gradient(vector)(RESTING, BATCH), "one real number"),
    "equilibrium_gradient, another net": (lambda: estimate.equilibrium_gradient(square)(NET, BATCH), "Equilibrium"),
    "equilibrium_gradient, key": (
        lambda: estimate.equilibrium_gradient(lambda net, b: jnp.sum(net(b[0])), homeostasis=1.0)(RESTING, BATCH),
        "key",
    ),
    "reparametrised_gradient, vector": (
        lambda: estimate.reparametrised_gradient(vector)(FAMILY, key=KEY),
        "one real number",
    ),
    "reparametrised_gradient, key": (lambda: estimate.reparametrised_gradient(square)(FAMILY), "a key for"),
    "feedback_alignment, layer": (lambda: estimate.feedback_alignment(ODD, ()), "Linear"),
    "kolen_pollack, layer": (lambda: estimate.kolen_pollack(ODD, ()), "Linear"),
    "init_feedback, key": (lambda: estimate.init_feedback(NET, key=0), "key"),
    "direct_feedback_alignment, layer": (lambda: estimate.direct_feedback_alignment(ODD, ()), "Odd"),
    "init_direct_feedback, key": (lambda: estimate.init_direct_feedback(NET, X, key=0), "key"),
    "feasibility, layer": (
        lambda: estimate.feasibility()([Odd(jnp.ones((3, 2)))], BATCH[0], jnp.zeros(5, int)),
        "Linear",
    ),
    "Bidirectional, net": (lambda: estimate.Bidirectional(ODD), "MLP"),
    "forward_forward, layer": (lambda: estimate.forward_forward([3], BATCH[0], BATCH[0]), "layer"),
    "RandomisedLinear, key": (lambda: estimate.RandomisedLinear(2, 3, share=0.5, key=KEY)(BATCH[0], key=0), "key"),
    "NoProp, key": (lambda: estimate.NoProp((vector,), jnp.eye(3), key=KEY).loss(X, 1, key=0), "key"),
    "real_time, vector": (
        lambda: (one := REAL_TIME(vector)).update(jnp.ones(2), one.init(jnp.ones(2), jnp.zeros(1)), 1.0),
        "one real number",
    ),
    "real_time, integers": (lambda: REAL_TIME(square).init(COUNTED, jnp.zeros(1)), "floating-point"),
    "real_time, key": (lambda: REAL_TIME(square, mode="rank one").init(jnp.ones(2), jnp.zeros(1)), "a key for"),
    "score_function, vector": (lambda: estimate.score_function(vector, X, key=KEY), "one real number"),
    "score_function, integers": (lambda: estimate.score_function(square, COUNTED, key=KEY), "floating-point"),
    "score_function, key": (lambda: estimate.score_function(square, X, key=0), "key"),
    **{
        f"{unit.__name__}, {what}": (functools.partial(unit, found, key=key), words)
        for unit in (
            estimate.straight_through,
            estimate.smooth_times_stochastic,
            estimate.categorical_straight_through,
            estimate.gumbel,
            estimate.reinmax,
        )
        for what, found, key, words in (("integers", COUNTED, KEY, "floating-point"), ("key", X, 0, "key"))
    },
    "spike, integers": (lambda: estimate.spike(COUNTED), "floating-point"),
    "rectified_straight_through, integers": (lambda: estimate.rectified_straight_through(COUNTED), "floating-point"),
    "VectorQuantiser, integers": (
        lambda: estimate.VectorQuantiser(3, 4, key=KEY)(jnp.ones((2, 3), int)),
        "floating-point",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_rule_cannot_serve_is_refused_in_words(name):
    call, words = REFUSED[name]
    with pytest.raises(ValueError, match=words) as refusal:
        call()
    assert all(word in str(refusal.value) for word in ("expected", "got")), str(refusal.value)
