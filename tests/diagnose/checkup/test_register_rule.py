"""An optimiser that registers how it moves is known to the check-up, and only as far as it does move so."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax._core import RULES
from nablax.diagnose import UpdateRule, checkup, register_rule, update_rule

PARAMS = {"a": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array([[0.3, -0.4]])}
SCALES = {"a": jnp.array([1.0, 10.0, 0.1]), "b": jnp.array([[3.0, 0.5]])}
BETA, RATE = 0.8, 0.05


@pytest.fixture(autouse=True)
def registered():
    """What a test registers is forgotten after it."""
    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


class BallState(NamedTuple):
    velocity: optax.Updates


class AverageState(NamedTuple):
    steps: jax.Array
    mean: optax.Updates
    spread: optax.Updates


def ball(gain, keep=BETA):
    """Momentum that takes so much of each gradient: 1 sums them, 1 - β averages them."""

    def update(gradient, state, params=None):
        velocity = jax.tree.map(lambda g, v: keep * v + gain * g, gradient, state.velocity)
        return jax.tree.map(lambda v: -RATE * v, velocity), BallState(velocity)

    return optax.GradientTransformation(lambda p: BallState(optax.tree.zeros_like(p)), update)


def averaged(gain):
    """Adam by other names: the mean of gradients over the root of that of their squares."""

    def init(p):
        return AverageState(jnp.zeros((), jnp.int32), optax.tree.zeros_like(p), optax.tree.ones_like(p))

    def update(gradient, state, params=None):
        steps = state.steps + 1
        mean = jax.tree.map(lambda g, m: BETA * m + gain * g, gradient, state.mean)
        spread = jax.tree.map(lambda g, v: 0.99 * v + 0.01 * g**2, gradient, state.spread)
        step = jax.tree.map(lambda m, v: -RATE * m / (1 - BETA**steps) / (jnp.sqrt(v) + 1e-3), mean, spread)
        return step, AverageState(steps, mean, spread)

    return optax.GradientTransformation(init, update)


def gradient_at(params):
    return jax.tree.map(lambda p, s: s * p, params, SCALES)


def rule_of(optimizer, steps=3):
    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(steps):
        update, state = optimizer.update(gradient_at(params), state, params)
        params = optax.apply_updates(params, update)
    return update_rule(optimizer, state, params, gradient_at(params)), state


def test_what_is_not_registered_is_named_and_not_guessed():
    rule, _ = rule_of(ball(1.0))
    assert not bool(rule.known) and "does not know (BallState)" in rule.name()
    rule, _ = rule_of(optax.chain(optax.trace(0.9), ball(1.0)))
    assert "does not know (BallState)" in rule.name()


@pytest.mark.parametrize("wrap", ["alone", "clipped", "accumulated", "in parts"])
def test_one_call_makes_it_known_wherever_it_stands(wrap):
    register_rule(BallState, moment="velocity")
    optimizer = {
        "alone": ball(1.0),
        "clipped": optax.chain(optax.clip_by_global_norm(1e3), optax.add_decayed_weights(0.1), ball(1.0)),
        "accumulated": optax.MultiSteps(ball(1.0), 2),
        "in parts": optax.multi_transform(
            {"ball": ball(1.0), "still": optax.set_to_zero()}, {"a": "ball", "b": "still"}
        ),
    }[wrap]
    rule, _ = rule_of(optimizer)
    assert rule.name() == "heavy ball, momentum 0.8"
    np.testing.assert_allclose([rule.learning_rate, rule.threshold], [RATE, 3.6], rtol=1e-5)


def growth(rate, gain, curvature):
    """Length after many steps over that at the start, of a moment that takes so much of each gradient."""
    x, v = 1.0, 0.0
    for _ in range(400):
        v = BETA * v + gain * curvature * x
        x -= rate * v
    return abs(x)


@pytest.mark.parametrize("gain", [1.0, 1 - BETA, 3.0])
def test_the_threshold_is_where_runs_turn_whatever_the_moment_takes_of_a_gradient(gain):
    register_rule(BallState, moment="velocity")
    rule, _ = rule_of(ball(gain))
    edge = float(rule.threshold / rule.learning_rate)
    assert growth(RATE, gain, 0.97 * edge) < 1e-2 and growth(RATE, gain, 1.03 * edge) > 1e2


@pytest.mark.parametrize(("gain", "times"), [(1 - BETA, 1.0), (1.0, 5.0)])
def test_the_adam_family_by_other_names(gain, times):
    register_rule(AverageState, moment="mean", squares="spread", steps="steps")
    rule, state = rule_of(averaged(gain))
    assert rule.name() == "Adam family, β₁ 0.8"
    np.testing.assert_allclose(rule.threshold, 18.0, rtol=1e-4)
    _, after = averaged(gain).update(gradient_at(PARAMS), state)
    rule = update_rule(averaged(gain), state, PARAMS, gradient_at(PARAMS))
    for name in PARAMS:
        np.testing.assert_allclose(rule.rates[name], times * RATE / (jnp.sqrt(after.spread[name]) + 1e-3), rtol=1e-3)


def test_a_registered_rule_that_is_not_what_the_optimiser_does_is_withheld():
    signs = optax.GradientTransformation(
        ball(1.0).init,
        lambda g, s, p=None: (
            jax.tree.map(lambda v: -RATE * jnp.sign(v), s.velocity),
            ball(1.0).update(g, s)[1],
        ),
    )
    register_rule(BallState, moment="velocity")
    rule, _ = rule_of(signs)
    assert not bool(rule.known) and np.isnan(rule.threshold) and "does not predict the update" in rule.name()
    assert all(np.all(leaf == 1) for leaf in jax.tree.leaves(rule.rates))


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_reader_of_its_own_is_held_to_the_answers_too(share):
    asked = []

    def reader(probe):
        asked.append(probe.state)
        nothing = optax.tree.zeros_like(probe.gradient)
        answer, _ = probe.ask(probe.gradient, velocity=nothing)
        predicted = jax.tree.map(lambda g: -share * RATE * g, probe.gradient)
        miss = optax.tree.norm(optax.tree.sub(answer, predicted)) / optax.tree.norm(answer)
        rates = jax.tree.map(lambda g: jnp.full_like(g, RATE), probe.gradient)
        return UpdateRule(
            rates, jnp.array(BETA), jnp.array(2 + 2 * BETA), jnp.array(RATE), miss, jnp.array(False), "ball"
        )

    register_rule(BallState, reader=reader, moment="velocity")
    rule, state = rule_of(ball(1.0))
    assert bool(rule.known) == (share == 1.0) and (rule.name() == "ball") == (share == 1.0)
    assert isinstance(asked[0], BallState) and np.all(asked[0].velocity["a"] == state.velocity["a"])


def test_why_there_is_no_rule_is_said_by_the_check_up():
    register_rule(BallState, unreadable="a ball that nobody can read")
    record = checkup(
        lambda p, x: jnp.mean((x @ p - 1.0) ** 2), jnp.zeros(3), jnp.eye(3), optimizer=ball(1.0), key=jax.random.key(0)
    )
    said = [f for f in record.findings if f.topic == "learning rate"]
    assert said[0].level == "note" and "unknown: a ball that nobody can read" in said[0].text


KIN = {
    "lion": (optax.lion(0.1), "Lion: its steps have the length of the rate"),
    "muon": (optax.contrib.muon(0.1), "Muon: it turns the gradient by whole matrices"),
    "adafactor": (optax.adafactor(0.1), "Adafactor: "),
    "schedule-free": (optax.contrib.schedule_free_adamw(0.1), "schedule-free: gradients are taken at another point"),
    "l-bfgs": (optax.lbfgs(0.1), "L-BFGS: "),
    "adabelief": (optax.adabelief(0.1), "AdaBelief: "),
    "dog": (optax.contrib.dog(0.1), "DoG: it finds its rate"),
}  # fmt: skip


@pytest.mark.parametrize("case", KIN)
def test_of_other_optimisers_it_is_said_why_there_are_no_rates(case):
    optimizer, words = KIN[case]
    rule = update_rule(optimizer, optimizer.init(PARAMS), PARAMS, gradient_at(PARAMS))
    assert rule.name().startswith("unknown") and words in rule.name() and np.isnan(rule.threshold)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: register_rule(BallState(None), moment="velocity"), "a NamedTuple, got BallState. Pass the class"),
        (lambda: register_rule(dict, moment="velocity"), "a NamedTuple, got dict"),
        (lambda: register_rule(BallState, moment="mu"), "fields of BallState, velocity, got mu"),
        (lambda: register_rule(BallState, moment="velocity", steps="steps"), "got steps"),
        (lambda: register_rule(BallState), "got nothing. Say moment="),
        (lambda: register_rule(BallState, moment="velocity", unreadable="no"), "got both"),
    ],
)
def test_what_says_nothing_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
