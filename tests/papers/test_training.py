"""The papers' loop against the same loop by hand."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import papers
from nablax.papers._problems._descent import descended
from nablax.papers._problems._training import trained

X = jax.random.normal(jax.random.key(0), (32, 3))
Y = X @ jnp.array([1.0, -2.0, 0.5])


def loss(weights, batch):
    return jnp.mean((batch[0] @ weights - batch[1]) ** 2)


def batches(step, key):
    rows = (jax.random.randint(key, (4,), 0, 32) + step) % 32
    return X[rows], Y[rows]


def by_hand(rate, key, steps=12):
    optimizer = optax.adam(rate)
    weights, values, path = jnp.zeros(3), [], []
    state = optimizer.init(weights)
    for step, now in enumerate(jax.random.split(key, steps)):
        value, grads = jax.value_and_grad(loss)(weights, batches(step, now))
        updates, state = optimizer.update(grads, state, weights)
        weights = optax.apply_updates(weights, updates)
        values.append(value)
        path.append(weights)
    return weights, jnp.stack(values), jnp.stack(path)


def run(rate, key, **options):
    def record(weights, state, value):
        return (value, weights)

    return trained(loss, jnp.zeros(3), optax.adam(rate), batches, 12, key=key, record=record, **options)


def test_side_by_side_over_rates_and_keys_it_is_the_loop_by_hand(key):
    rates, keys = jnp.array([0.05, 0.2]), jax.random.split(key, 2)
    ends, (values, path) = jax.jit(jax.vmap(jax.vmap(run, (0, None)), (None, 0)))(rates, keys)
    for i in range(2):
        for j in range(2):
            end, losses, weights = by_hand(rates[j], keys[i])
            np.testing.assert_allclose(ends[i, j], end, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(values[i, j], losses, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(path[i, j], weights, rtol=1e-5, atol=1e-6)
    assert np.abs(path[0, 0] - path[1, 0]).max() > 1e-3 and np.abs(path[0, 0] - path[0, 1]).max() > 1e-3


def test_every_third_step_is_recorded_as_it_was(key):
    _, (values, path) = run(0.1, key)
    end, (some, few) = run(0.1, key, every=3)
    np.testing.assert_allclose(some, values[2::3], rtol=1e-6)
    np.testing.assert_allclose(few, path[2::3], rtol=1e-6)
    np.testing.assert_array_equal(end, few[-1])
    with pytest.raises(ValueError, match="expected steps, a multiple of every = 5, got 12"):
        run(0.1, key, every=5)


def test_a_loss_with_a_key_draws_anew_in_each_step(key):
    def noisy(weights, batch, *, key):
        return weights * jax.random.normal(key) + weights**2

    _, values = trained(
        noisy, jnp.array(1.0), optax.sgd(0.0), lambda step, key: None, 4, key=key, record=lambda w, s, value: value
    )
    assert len(set(values.tolist())) == 4


def test_descent_is_that_by_hand_and_records_the_loss_before_each_step():
    start, rate = jnp.array([3.0, -1.0]), 0.1
    point, values = descended(lambda x: jnp.sum(x**2), start, optax.sgd(rate), 5, record=lambda x, state, value: value)
    np.testing.assert_allclose(point, (1 - 2 * rate) ** 5 * start, rtol=1e-6)
    np.testing.assert_allclose(values, 10 * (1 - 2 * rate) ** (2 * np.arange(5)), rtol=1e-6)


def test_descent_gives_a_line_search_the_loss():
    point, _ = descended(lambda x: jnp.sum((x - 2) ** 2), jnp.zeros(3), optax.lbfgs(), 5)
    np.testing.assert_allclose(point, 2.0, atol=1e-5)


LOOP = re.compile(r"lax\.(scan|fori_loop|while_loop)\(")


def unexplained(code: str) -> list[int]:
    """Numbers of lines with a loop and no comment that begins with "Own loop" among the four lines above."""
    lines = [line.strip() for line in code.splitlines()]
    said = [number for number, line in enumerate(lines) if line.startswith("# Own loop")]
    loops = [number for number, line in enumerate(lines) if LOOP.search(line)]
    return [number + 1 for number in loops if not any(0 < number - word <= 4 for word in said)]


def test_papers_with_a_loop_of_their_own_say_why():
    files = list(Path(papers.__file__).parent.glob("[a-z]*/*.py"))
    assert len(files) > 100
    found = {path.stem: unexplained(path.read_text()) for path in files}
    assert not {name: lines for name, lines in found.items() if lines}, "use `trained` or `descended`, or say why not"


def test_a_loop_without_a_word_is_seen():
    assert unexplained("x = 1\ny = jax.lax.scan(step, x)") == [2]
    assert unexplained("# Own loop: Newton.\ny = jax.lax.scan(step, x)") == []
