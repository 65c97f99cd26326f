"""What check-ups of a run say together."""

import jax
import jax.numpy as jnp
import optax
import pytest

from nablax.diagnose import watch

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (32, 3))


def loss(params, batch):
    return jnp.mean((batch @ params - 1.0) ** 2)


@pytest.mark.parametrize(("rate", "steps", "stalled"), [(1e-6, 120, True), (1e-6, 20, False), (0.05, 120, False)])
def test_no_progress_is_a_fault_once_there_was_time(rate, steps, stalled):
    optimizer = optax.sgd(rate)
    watching, params = watch(loss, every=1, key=KEY, optimizer=optimizer, rows=0), jnp.zeros(3) + 2.0
    state = optimizer.init(params)
    for number in (0, steps):
        for _ in range(number):
            params = params - rate * jax.grad(loss)(params, X)
        watching.step(params, X, state, number=number)
    found = [finding.level for finding in watching.findings if finding.topic == "no progress"]
    assert found == (["fault"] if stalled else [])
    assert ("nothing has been learned" in watching.table()) == stalled


def test_one_check_up_has_no_trend():
    watching = watch(loss, key=KEY, optimizer=optax.sgd(0.1), rows=0)
    assert watching.findings == []
    record = watching.step(jnp.zeros(3), X)
    assert watching.findings == record.findings
