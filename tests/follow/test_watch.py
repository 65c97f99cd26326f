"""What looks on while `fit` trains: when, at what, and what it may have done."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax.diagnose import FaultFound, watch
from nablax.follow import fit, lowered

KEY = jax.random.key(0)
X = jnp.linspace(-1.0, 1.0, 24)[:, None]
DATA = {"x": X, "y": 3.0 * X[:, 0]}


def loss(model, batch):
    return jnp.mean((batch["x"] @ model - batch["y"]) ** 2)


def trained(**options):
    given = {"optimizer": optax.sgd(0.1, momentum=0.5), "steps": 20, "batch_size": 8, "key": KEY}
    return fit(loss, jnp.zeros(1), DATA, **given | options)


class Looking:
    every = 6

    def __init__(self, verdicts=None):
        self.seen, self.verdicts = [], verdicts or {}

    def __call__(self, number, model, opt_state, batch):
        self.seen.append((number, np.asarray(model), opt_state, jax.tree.map(np.asarray, batch)))
        return self.verdicts.get(number)


@pytest.mark.parametrize("data", [DATA, None])
def test_the_step_that_is_shown_is_the_one_that_is_made(data):
    def source(first, count):
        rows = [(np.arange(8) * 5 + k) % 24 for k in range(first, first + count)]
        return jax.tree.map(lambda x: np.stack([np.asarray(x)[r] for r in rows]), DATA)

    looking = Looking()
    given = {"optimizer": optax.sgd(0.1, momentum=0.5), "steps": 20, "batch_size": 8, "key": KEY}
    data = source if data is None else data
    out = fit(loss, jnp.zeros(1), data, watch=looking, **given)
    plain = fit(loss, jnp.zeros(1), data, **given)
    assert [number for number, *_ in looking.seen] == [0, 6, 12, 18]
    # To look on changes nothing.
    np.testing.assert_array_equal(out.model, plain.model)
    np.testing.assert_array_equal(out.history.loss, plain.history.loss)
    for number, model, state, batch in looking.seen:
        assert batch["x"].shape == (8, 1) and float(state.factor) == 1
        np.testing.assert_allclose(loss(model, batch), out.history.loss[number], rtol=1e-6)


def test_it_may_stop_the_run():
    out = trained(watch=Looking({12: "stop"}), validation=DATA)
    assert out.result == "stopped by the watch" and out.step == 12 and len(out.history.loss) == 12
    assert trained(watch=Looking({0: "stop"})).step == 0


def test_it_may_lower_the_rate_and_a_run_interrupted_ends_the_same(tmp_path):
    verdicts = {6: 0.5, 12: 0.1}
    factors = [1.0] * 6 + [0.5] * 6 + [0.05] * 8
    schedule = optax.piecewise_constant_schedule(0.1, {6: 0.5, 12: 0.1})
    out = trained(watch=Looking(verdicts))
    np.testing.assert_allclose([schedule(k) for k in range(20)], 0.1 * np.array(factors), rtol=1e-6)
    right = trained(optimizer=optax.chain(optax.trace(0.5), optax.scale_by_learning_rate(schedule)))
    np.testing.assert_allclose(out.model, right.model, rtol=1e-6)
    for steps in (9, 12, 20):
        again = trained(watch=Looking(verdicts), checkpoint=tmp_path, checkpoint_every=1, steps=steps)
    np.testing.assert_array_equal(again.model, out.model)


def test_what_it_returns_and_what_it_is_are_checked():
    for wrong in (2.0, 0.0, -1.0, True, "halt", jnp.ones(2)):
        with pytest.raises(ValueError, match='expected a watch that returns None, "stop" or a factor'):
            trained(watch=Looking({0: wrong}))
    for wrong in (3, lambda number: None):
        with pytest.raises(ValueError, match="expected watch"):
            trained(watch=wrong)
    with pytest.raises(ValueError, match=r"watch.every as a whole number"):
        looking = Looking()
        looking.every = 0
        trained(watch=looking)


def test_a_watch_of_checkups_lowers_the_rate_until_it_is_safe():
    """Curvature 2 at most and a rate of 3: three times the limit; halved at every fault it ends below it."""
    optimizer = optax.sgd(3.0)

    def square(model, batch):
        return jnp.mean(jnp.sum((model[None] - batch) ** 2, axis=1))

    said = []

    def halve(number, record):
        said.append((number, float(record.sharpness.rule.learning_rate)))
        return 0.5

    watching = watch(square, every=2, key=KEY, optimizer=optimizer, rows=0, on_fault=halve)
    data = jnp.zeros((8, 2))
    given = {"optimizer": optimizer, "steps": 30, "batch_size": 8, "key": KEY}
    out = fit(square, jnp.ones(2), data, watch=watching, **given)
    assert out.result == "completed" and float(jnp.max(jnp.abs(out.model))) < 1e-3
    # The rate that a check-up reads is the one that is in use.
    assert said == [(0, 3.0), (2, 1.5)]
    assert float(watching.records[-1][1].sharpness.rule.learning_rate) == 0.75
    with pytest.raises(FaultFound, match="step 0: "):
        fit(
            square,
            jnp.ones(2),
            data,
            watch=watch(square, key=KEY, optimizer=optimizer, rows=0, on_fault="raise"),
            **given,
        )


def test_a_factor_is_on_the_update_alone():
    optimizer = lowered(optax.adam(0.1))
    state = optimizer.init(jnp.ones(3))
    plain, _ = optax.adam(0.1).update(jnp.ones(3), optax.adam(0.1).init(jnp.ones(3)))
    update, after = optimizer.update(jnp.ones(3), state._replace(factor=state.factor / 4))
    np.testing.assert_allclose(update, plain / 4)
    assert float(after.factor) == 0.25
