"""What check-ups of a run say together."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import optax
import pytest

from nablax.diagnose import watch
from nablax.diagnose._checkup._trends import trends

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


def look(loss=1.0, dead=0.0, ratio=0.5, error=0.01, chance=2.3, unaided=True):
    noise, signs = SimpleNamespace(mean_error=error), SimpleNamespace(dead=dead, ratio=ratio)
    return SimpleNamespace(loss=loss, chance=chance, unaided=unaided, noise=noise, signs=signs)


@pytest.mark.parametrize(
    ("last", "topics"),
    [
        (look(0.5), []),
        (look(0.5, dead=0.3), ["dying units"]),
        (look(0.5, dead=0.2), []),
        (look(0.5, ratio=2.5), ["rising curvature"]),
        (look(0.5, ratio=0.9), []),  # however it has grown, it is below its limit
        (look(0.96, dead=0.5, ratio=5.0), ["no progress", "dying units", "rising curvature"]),
        (look(1.7), ["blown up", "no progress"]),
        (look(1.7, error=0.3), ["no progress"]),  # rows leave open whether it has risen
        (look(1.4), ["no progress"]),
    ],
)
def test_what_grows_is_named_and_what_does_not_is_not(last, topics):
    first = look(dead=0.1 if last.signs.dead == 0.2 else 0.0, ratio=0.1 if last.signs.ratio == 0.9 else 0.5)
    assert [finding.topic for finding in trends((0, 200), (first, last))] == topics


def test_a_start_above_knowing_nothing_is_no_measure_of_progress():
    assert [f.topic for f in trends((0, 200), (look(9.0), look(2.25)))] == ["no progress"]
    assert trends((0, 200), (look(9.0), look(2.0))) == []


@pytest.mark.parametrize(
    ("start", "first", "stalled"),
    [
        (0, look(chance=None), True),
        (300, look(chance=None), False),  # a run that is resumed where it has come as far as it goes
        (0, look(chance=None, unaided=False), False),
        (300, look(chance=1.0), True),
    ],
)
def test_nothing_learned_is_said_where_it_is_known_what_knowing_nothing_gives(start, first, stalled):
    found = trends((start, start + 200), (first, look(0.99, chance=first.chance)))
    assert [finding.topic for finding in found] == (["no progress"] if stalled else [])
