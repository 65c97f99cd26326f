"""Laws of lenses and learners, and backpropagation as their instance."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import estimate
from nablax.estimate import Lens

pytestmark = pytest.mark.usefixtures("x64")
DRAWS = np.random.default_rng(0)


def maps():
    return (
        lambda a: jnp.sin(a) * a[::-1],
        lambda a: jnp.stack([a.sum(), jnp.prod(a), a[0]]),
        lambda a: jnp.exp(-a) + a**2,
    )


def same(left, right, at, change):
    np.testing.assert_allclose(left.get(at), right.get(at), rtol=1e-12)
    np.testing.assert_allclose(left.put(at, change), right.put(at, change), rtol=1e-12)


def test_lenses_of_maps_compose_as_the_maps_do_with_identity_and_associativity():
    f, g, h = map(estimate.reverse_lens, maps())
    at, change = DRAWS.normal(size=3), DRAWS.normal(size=3)
    one, two, three = maps()
    same(f >> g >> h, estimate.reverse_lens(lambda a: three(two(one(a)))), at, change)
    same((f >> g) >> h, f >> (g >> h), at, change)
    same(estimate.identity_lens() >> f, f, at, change)
    same(f >> estimate.identity_lens(), f, at, change)


def test_lenses_side_by_side_interchange():
    f, g, h = map(estimate.reverse_lens, maps())
    pair = DRAWS.normal(size=3), DRAWS.normal(size=3)
    changes = DRAWS.normal(size=3), DRAWS.normal(size=3)
    left, right = (f >> g) @ (h >> f), (f @ h) >> (g @ f)
    for a, b in ((left.get(pair), right.get(pair)), (left.put(pair, changes), right.put(pair, changes))):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def dense(p, a):
    return jnp.tanh(p["w"] @ a + p["b"])


def parameters(rows, columns):
    return {"w": DRAWS.normal(size=(rows, columns)), "b": DRAWS.normal(size=rows)}


def test_the_learner_of_a_composition_is_the_composition_of_the_learners():
    p, q, a, c = parameters(4, 3), parameters(2, 4), DRAWS.normal(size=3), DRAWS.normal(size=2)
    whole = estimate.learner(lambda both, a: dense(both[1], dense(both[0], a)), rate=0.3)
    parts = estimate.learner(dense, rate=0.3) >> estimate.learner(dense, rate=0.3)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12),
        whole.update((p, q), a, c),
        parts.update((p, q), a, c),
    )
    np.testing.assert_allclose(whole.request((p, q), a, c), parts.request((p, q), a, c), rtol=1e-12)
    np.testing.assert_allclose(whole.implement((p, q), a), parts.implement((p, q), a), rtol=1e-12)


def test_a_learner_walks_as_gradient_descent_does():
    p, rate = parameters(2, 3), 0.1
    pairs = [(DRAWS.normal(size=3), DRAWS.normal(size=2)) for _ in range(20)]
    learner, optimizer = estimate.learner(dense, rate=rate), optax.sgd(rate)
    ours = theirs = jax.tree.map(jnp.asarray, p)
    state = optimizer.init(theirs)
    for a, b in pairs:
        ours = learner.update(ours, a, b)
        slope = jax.grad(lambda p, a=a, b=b: 0.5 * jnp.sum((dense(p, a) - b) ** 2))(theirs)
        updates, state = optimizer.update(slope, state)
        theirs = optax.apply_updates(theirs, updates)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-13), ours, theirs)


def test_bits_go_back_by_the_difference_that_each_makes_and_linear_circuits_compose():
    def circuit(x):
        return jnp.stack([x[0] & x[1], x[0] ^ x[2], x[1] | x[2]])

    lens = estimate.boolean_lens(circuit)
    for bits in itertools.product([False, True], repeat=3):
        x = np.array(bits)
        for change in itertools.product([False, True], repeat=3):
            expected = []
            for place in range(3):
                flipped = x.copy()
                flipped[place] ^= True
                differs = np.asarray(circuit(jnp.asarray(x))) ^ np.asarray(circuit(jnp.asarray(flipped)))
                expected.append(bool((differs & np.array(change)).sum() % 2))
            assert lens.put(jnp.asarray(x), jnp.asarray(change)).tolist() == expected

    def mix(x):
        return jnp.stack([x[0] ^ x[1], x[1] ^ x[2], x[0]])

    one = estimate.boolean_lens(mix)
    twice = estimate.boolean_lens(lambda x: mix(mix(x)))
    x, change = jnp.array([True, False, True]), jnp.array([True, True, False])
    assert (one >> one).put(x, change).tolist() == twice.put(x, change).tolist()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Lens(3, lambda a, b: b), "get, a function"),
        (lambda: estimate.identity_lens() >> (lambda a: a), "what follows a lens"),
        (lambda: estimate.identity_lens() @ 3, "what stands beside"),
        (lambda: estimate.learner(lambda p: p, rate=0.1), "2 arguments"),
        (lambda: estimate.learner(dense, rate=-1.0), "rate"),
        (lambda: estimate.learner(dense, rate=0.1) >> estimate.identity_lens(), "what follows a learner"),
        (lambda: estimate.boolean_lens(lambda x: x).get(jnp.arange(3)), "vector of booleans"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()
