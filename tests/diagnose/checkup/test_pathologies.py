"""Known pathologies, each named by its own finding before all others; and silence where nothing is wrong."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax.diagnose import Signs, checkup, layer_health
from nablax.diagnose._checkup import _gather, _schedule, _step
from nablax.diagnose._checkup._along import Point
from nablax.diagnose._checkup._fed import Fed
from nablax.diagnose._checkup._verdict import levels

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)
X = jnp.asarray(RANDOM.normal(size=(126, 16)), jnp.float32)
Y = jnp.argmax(X[:, :4], axis=1)


def network(scale=1.0):
    keys = jax.random.split(jax.random.key(1), 3)
    params = {}
    for i, (a, b) in enumerate([(16, 40), (40, 40), (40, 4)]):
        params[f"w{i}"] = scale * jax.random.normal(keys[i], (a, b)) * (2 / a) ** 0.5
        params[f"b{i}"] = jnp.zeros(b)
    return params


def logits(params, batch):
    hidden = jax.nn.relu(batch[0] @ params["w0"] + params["b0"][None])
    hidden = jax.nn.relu(hidden @ params["w1"] + params["b1"][None])
    return hidden @ params["w2"] + params["b2"][None]


def loss(params, batch):
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits(params, batch), batch[1]))


PARAMS, BATCH, ADAMW = network(), (X, Y), optax.adamw(3e-3)


def examine(params=PARAMS, batch=BATCH, optimizer=ADAMW):
    return checkup(loss, params, batch, optimizer=optimizer, key=KEY, logits=logits)


def graver(record):
    return [finding for finding in record.findings if finding.level in ("fault", "warning")]


def test_a_tenth_of_the_units_dead_is_a_note():
    """C2: by share, against what is usual."""
    record = examine(PARAMS | {"b0": PARAMS["b0"].at[:4].set(-100.0)})
    assert graver(record) == []
    assert any("b0: 4 of 40" in finding.text for finding in record.findings)


def test_a_dead_network_is_said_to_be_dead():
    """C3: flat is not safe, and nothing is called far from its limit."""
    record = examine(PARAMS | {"b1": PARAMS["b1"] - 100.0})
    assert (record.findings[0].level, record.findings[0].topic) == ("fault", "dead")
    assert not record.safe and record.suggested_learning_rate is None
    assert not any("higher" in text for text in record.advice)


@pytest.mark.parametrize("optimizer", [optax.sgd(0.1), optax.rmsprop(3e-3)])
def test_a_dead_network_that_nothing_moves_is_said_to_be_dead(optimizer):
    """C3: without decay or momentum what is dead stands still, as what is frozen does."""
    record = examine(PARAMS | {"b1": PARAMS["b1"] - 100.0}, optimizer=optimizer)
    assert record.signs.cut == 0 and record.signs.mute > 0.9
    assert [(finding.level, finding.topic) for finding in record.findings if finding.level == "fault"] == [
        ("fault", "dead")
    ]
    assert "b1" in record.advice[0] and "w0" in record.advice[0]


@pytest.mark.parametrize("kind", ["stopped", "masked", "head of zeros"])
def test_what_is_frozen_is_not_dead(kind):
    """Its gradient is zero, or what moves it is; changed, it would change the loss, or comes to life within steps."""
    frozen = ("w0", "b0", "w1", "b1")
    function, optimizer, params = loss, optax.sgd(0.1), PARAMS
    if kind == "stopped":
        function = lambda p, b: loss(p | {n: jax.lax.stop_gradient(p[n]) for n in frozen}, b)  # noqa: E731
    elif kind == "masked":
        parts = {"still": optax.set_to_zero(), "moving": optimizer}
        optimizer = optax.multi_transform(parts, {n: "still" if n in frozen else "moving" for n in PARAMS})
    else:
        params = PARAMS | {"w2": jnp.zeros((40, 4))}
    record = checkup(function, params, BATCH, optimizer=optimizer, key=KEY, logits=logits)
    assert record.signs.mute == 0 and record.signs.cut == 0
    assert not any(finding.topic == "dead" for finding in record.findings)


def test_a_saturated_network_is_said_to_be_saturated():
    """C3: at a loss of 597, say."""
    record = examine(PARAMS | {"w2": 200 * PARAMS["w2"]})
    assert record.loss > 300 and record.findings[0].topic == "saturated"


def test_first_steps_and_heads_of_zero_are_no_fault():
    """C4: elements without gradient yet do not count, and a step is judged by what it does."""
    assert graver(examine(PARAMS | {"w2": jnp.zeros((40, 4))})) == []
    assert graver(examine()) == []


def quadratic(params, batch):
    return jnp.sum(jnp.array([20.0, 1.0]) * params**2) / 2


def test_a_first_step_on_a_quadratic_is_no_fault():
    """C4: Adam's loss never rises here."""
    assert graver(checkup(quadratic, jnp.ones(2), None, optimizer=optax.adam(0.1), key=KEY)) == []


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        # .096 · (20 + 5) over 2; over 2 + 2β with the decay through the momentum; T (1 - d/2) with it behind.
        (optax.chain(optax.add_decayed_weights(5.0), optax.sgd(0.096)), 1.2),
        (optax.chain(optax.add_decayed_weights(5.0), optax.sgd(0.08, momentum=0.5)), 0.08 * 25 / 3),
        (optax.chain(optax.trace(0.5), optax.add_decayed_weights(5.0), optax.scale(-0.08)), 1.6 / 3 + 0.4 / 2),
    ],
)
def test_decay_is_part_of_the_field(optimizer, expected):
    """C5: the recurrence of a quadratic, decay and all, grows where the ratio is beyond one and nowhere else."""
    record = checkup(quadratic, jnp.ones(2), None, optimizer=optimizer, key=KEY)
    np.testing.assert_allclose(record.sharpness.ratio.value, expected, rtol=1e-3)
    state, params = optimizer.init(jnp.ones(2)), jnp.ones(2)
    for _ in range(60):
        update, state = optimizer.update(jnp.array([20.0, 1.0]) * params, state, params)
        params = params + update
    assert (abs(params[0]) > 1) == (expected > 1)
    first = record.findings[0]
    assert ((first.level, first.topic) == ("fault", "learning rate")) == (expected > 1)


def inside(params, batch):
    return jnp.mean((batch["inside"] @ params - 1) ** 2)


def edge(params, batch):
    return 3 * jnp.mean((batch["edge"] @ params + 1) ** 2)


def test_a_conflict_of_terms_of_unequal_lengths_is_a_fault():
    """C6: as of every physics-informed loss; a scalar among the arrays is shared by all groups."""
    arrays = {
        name: jnp.asarray(1 + 0.3 * RANDOM.normal(size=(n, 3)), jnp.float32)
        for name, n in (("inside", 96), ("edge", 24))
    }
    batch = arrays | {"scale": jnp.asarray(1.0)}
    total = lambda p, b: inside(p, b) + edge(p, b)  # noqa: E731
    losses = {"inside": inside, "edge": edge}
    record = checkup(total, jnp.zeros(3), batch, optimizer=optax.sgd(1e-3), key=KEY, losses=losses)
    assert record.conflicts.cosines.value[0, 1] < -0.9 and record.conflicts.cosines.standard_error[0, 1] < 0.1
    assert (record.findings[0].level, record.findings[0].topic) == ("fault", "conflict")


def test_an_array_that_holds_no_rows_leaves_the_error_unknown():
    batch = {
        "inside": jnp.ones((96, 3)),
        "edge": jnp.ones((24, 3)),
        "mix": jnp.asarray(RANDOM.normal(size=(16, 16)), jnp.float32),
    }
    mixed = lambda p, b: jnp.sum((b["mix"] @ jnp.outer(jnp.ones(16), p)) ** 2)  # noqa: E731
    losses = {"inside": inside, "mixed": mixed}
    record = checkup(mixed, jnp.ones(3), batch, optimizer=optax.sgd(1e-3), key=KEY, losses=losses)
    assert np.isnan(record.conflicts.cosines.standard_error).all()


def test_a_suggested_rate_helps():
    """C7: two runs from the same state, for as long as the rate in use took to show itself."""
    for rate in (30.0, 1e-4):
        optimizer = optax.sgd(rate)
        record = examine(optimizer=optimizer)
        suggested = record.suggested_learning_rate
        assert suggested is not None
        ends = []
        for used in (rate, suggested):
            params, gradient = PARAMS, jax.jit(jax.grad(loss))
            for _ in range(100):
                params = jax.tree.map(lambda p, g: p - used * g, params, gradient(params, BATCH))  # noqa: B023
            ends.append(float(loss(params, BATCH)))
        assert not ends[0] < ends[1]


def test_small_weights_vanish_rather_than_explode():
    """C8: the last bias alone has a gradient of usual size."""
    record = examine(network(0.01))
    assert record.findings[0].topic == "vanishing" and not any("Exploding" in text for text in record.advice)


def test_a_bias_that_a_normalisation_takes_out_again_is_silent():
    """Its gradient is zero to rounding; a matrix with as small a gradient is named."""

    def logits(params, batch):
        hidden = batch[0] @ params["w0"] + params["b0"][None]
        hidden = (hidden - hidden.mean(0, keepdims=True)) / jnp.sqrt(hidden.var(0, keepdims=True) + 1e-5)
        hidden = jax.nn.relu(hidden) @ params["w1"] + params["b1"][None]
        hidden = (hidden - hidden.mean(0, keepdims=True)) / jnp.sqrt(hidden.var(0, keepdims=True) + 1e-5)
        return jax.nn.relu(hidden) @ params["w2"] + params["b2"][None]

    def normalised(params, batch):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits(params, batch), batch[1]))

    record = checkup(normalised, PARAMS, BATCH, optimizer=ADAMW, key=KEY, logits=logits, rows=0)
    sizes = dict(zip(record.layers.names, record.layers.gradient))
    assert 0 < sizes["b0"] < 1e-4 * sizes["w0"] and 0 < sizes["b1"] < 1e-4 * sizes["w1"]
    assert record.layers.vanishing() == [] and not any("below the median" in text for text in record.advice)
    faint = layer_health(
        {n: jnp.ones((2, 2)) for n in "abc"}, {n: jnp.full((2, 2), s) for n, s in zip("abc", (1.0, 1.0, 1e-9))}
    )
    assert [name for name, _ in faint.vanishing()] == ["c"]


def test_decay_that_forgets_the_weights_is_said():
    """C8: rate × decay .1."""
    record = examine(optimizer=optax.adamw(1e-2, weight_decay=10.0))
    np.testing.assert_allclose(record.sharpness.decay, 0.05, rtol=1e-2)
    assert record.findings[0].topic == "decay"


def test_a_batch_of_one_class_or_of_copies_is_said():
    """C8."""
    record = examine(batch=(X, jnp.zeros_like(Y)))
    assert record.findings[0].topic == "batch" and "one class" in record.advice[0]
    record = examine(batch=(jnp.tile(X[:1], (126, 1)), jnp.full_like(Y, 3)))
    assert record.findings[0].topic == "batch" and "same row" in record.advice[0]
    assert not any("rows would do" in text or "e-0" in text for text in record.advice if "noise scale" in text)


SEQUENCES = (jnp.asarray(RANDOM.normal(size=(64, 40, 4)), jnp.float32), jnp.asarray(RANDOM.integers(0, 4, 64)))


def recurrent_logits(params, batch):
    def step(state, x):
        return jnp.tanh(x @ params["in"] + state @ params["again"]), None

    state, _ = jax.lax.scan(step, jnp.zeros((batch[0].shape[0], 24)), jnp.moveaxis(batch[0], 1, 0))
    return state @ params["out"]


def recurrent_loss(params, batch):
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(recurrent_logits(params, batch), batch[1]))


SGD = optax.sgd(0.05)


def recurrent(scale):
    a, b, c = jax.random.split(jax.random.key(3), 3)
    params = {
        "in": 0.5 * jax.random.normal(a, (4, 24)),
        "again": scale * jax.random.normal(b, (24, 24)) / 24**0.5,
        "out": jax.random.normal(c, (24, 4)) / 5,
    }
    return params, checkup(recurrent_loss, params, SEQUENCES, optimizer=SGD, key=KEY, logits=recurrent_logits)


def test_vanishing_and_exploding_through_time_are_told_apart():
    """C8, C9: the profile is the gradient with respect to the inputs, position by position."""
    params, record = recurrent(0.05)
    profile = jnp.sqrt(
        jnp.mean(jax.grad(lambda x: recurrent_loss(params, (x, SEQUENCES[1])))(SEQUENCES[0]) ** 2, (0, 2))
    )
    # Of what is smaller the squares leave single precision here, though not there.
    np.testing.assert_allclose(record.through_time.profiles[0][-10:], profile[-10:], rtol=1e-3)
    assert record.through_time.decades < -20
    assert record.findings[0].topic == "through time" and "Vanishing" in record.advice[0]
    _, record = recurrent(4.0)
    assert (record.findings[0].level, record.findings[0].topic) == ("fault", "through time")
    assert "Clip" in record.advice[0]


def test_the_rows_asked_for_are_not_those_there_are():
    """C10: 126 rows are what equal pieces of 128 come to."""
    record = examine(batch=(jnp.concatenate([X, X[:2]]), jnp.concatenate([Y, Y[:2]])))
    assert not any("rows=128" in text for text in record.advice)


def test_the_trace_is_covered_by_its_error():
    """C18: of a Hessian with one large eigenvalue and a tail, over forty draws of the probes."""
    curvatures = jnp.concatenate([jnp.array([20.0, 10.0]), 1 / jnp.arange(1, 61)])
    turned = jnp.linalg.qr(jnp.asarray(RANDOM.normal(size=(62, 62)), jnp.float32))[0]
    bowl = lambda p, b: jnp.sum(curvatures * (turned @ p) ** 2) / 2  # noqa: E731
    exact, missed = 0.01 * float(jnp.sum(curvatures)), 0
    for seed in range(40):
        record = checkup(bowl, jnp.ones(62), None, learning_rate=0.01, key=jax.random.key(seed))
        trace = record.sharpness.trace
        missed += abs(float(trace.value) - exact) > 2 * float(trace.standard_error)
    # Six probes: two standard errors cover 90 % by Student's distribution; more than 10 of 40 has a chance below 0.2 %.
    assert missed <= 10


@pytest.mark.parametrize("start", [0.0, 0.5])
def test_where_nothing_is_left_to_learn_nothing_is_dead(start):
    """Margins that are all kept have a loss and a gradient of exactly 0, whatever is changed by a little."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 3)), jnp.float32)
    y = jnp.where(x[:, 0] > 0, 1.0, -1.0)

    def hinge(params, batch):
        x, y = batch
        return jnp.mean(jax.nn.relu(-y * (jnp.sign(x[:, 0]) + params["w"] @ x.T * 1e-3)))

    params = {"w": start * jnp.ones(3)}
    optimizer = optax.adam(1e-2)
    record = checkup(hinge, params, (x, y), optimizer=optimizer, opt_state=optimizer.init(params), key=KEY)
    assert record.loss == 0 and record.safe and not any(finding.topic == "dead" for finding in record.findings)


def test_a_step_up_the_gradient_is_no_rate_too_high():
    record = examine(optimizer=optax.chain(optax.scale_by_adam(), optax.scale(1e-3)))
    assert (record.findings[0].level, record.findings[0].topic) == ("fault", "direction")
    assert "sign turned round" in record.findings[0].text
    assert not any("rate is too high" in finding.text for finding in record.findings)


def signs(**known):
    nothing = Signs(**dict.fromkeys(Signs._fields, np.nan))
    usual = {"heart": -0.5, "late": -0.2, "rise": -0.5, "cut": 0.0, "mute": 0.0, "dead": 0.0, "best": 1.0, "gain": 0.0}
    return nothing._replace(**{**usual, "fresh": 0.0, **known})


STAYS = {"heart": -0.001, "rise": -0.001, "late": 0.0}
LOW = {**STAYS, "best": 64.0, "gain": 0.5, "chance": 0.99}
NOTHING = {"moved": 0.0, "heart": 0.0, "rise": 0.0, "faint": 1.0, "chance": 1.0}


@pytest.mark.parametrize(
    ("known", "found"),
    [
        # A sign turned round is no rate too high; against momentum, where the cosine is not known, nothing is said.
        ({"uphill": 1.0, "heart": 3.0, "rise": 3.0}, {"uphill": "fault"}),
        ({"uphill": 0.05}, {}),
        ({"slope": 0.3}, {}),
        # Where nothing moves the step is nothing, unless a schedule is to raise it.
        (NOTHING, {"still": "fault"}),
        (NOTHING | {"growth": np.inf, "fresh": 1.0}, {"likely": "note"}),
        # A rate that is too low, but not one that a schedule raises, nor one of which that is not known.
        (LOW, {"too low": "fault"}),
        (LOW | {"growth": 11.0}, {"likely": "note"}),
        (LOW | {"growth": 1.0, "fresh": 1.0}, {"too low": "fault"}),
        (LOW | {"fresh": 1.0}, {"likely": "fault"}),
        # A loss that stays at what knowing nothing gives, and one that may have come as far as it goes.
        (STAYS | {"chance": 0.99}, {"flat": "fault"}),
        (STAYS | {"chance": 0.85}, {"flat": "note"}),
        (STAYS | {"noise": 100.0}, {"flat": "note"}),
        ({"heart": -0.12, "rise": -0.001, "late": 0.0, "chance": 0.99}, {"likely": "fault"}),
        ({"heart": -0.12, "rise": -0.001, "late": 0.0, "chance": 0.89}, {"likely": "note"}),
    ],
)
def test_signs_are_put_to_the_right_cause(known, found):
    assert levels(signs(**known)) == found


def test_a_schedule_is_asked_how_far_it_raises_the_step():
    gradient = jax.tree.map(jnp.ones_like, PARAMS)
    here, rising = Fed(jnp.ones(()), jnp.ones(3), gradient, {}), optax.linear_schedule(0.0, 3e-3, 1000)
    for optimizer, steps, growth in (
        (optax.adam(rising), 20, 11.0),
        (optax.inject_hyperparams(optax.adam)(rising), 20, 11.0),
        (optax.adam(rising), 0, np.inf),
        (optax.sgd(optax.constant_schedule(0.1)), 3, 1.0),
        (optax.adam(1e-3), 3, 1.0),
    ):
        transform = optax.with_extra_args_support(optimizer)
        state = transform.init(PARAMS)
        for _ in range(steps):
            _, state = transform.update(gradient, state, PARAMS)
        update, _ = transform.update(gradient, state, PARAMS)
        assert float(_schedule.growth(transform, state, update, here, PARAMS)) == pytest.approx(growth, rel=0.06)
    assert np.isnan(checkup(loss, PARAMS, BATCH, key=KEY, rows=0).growth)


OUTPUTS = X[:, 0] - 2 * X[:, 1] + jnp.asarray(np.random.default_rng(1).normal(size=126), jnp.float32)


def test_a_run_at_the_floor_of_noise_or_above_a_constant_is_at_no_fault():
    """Where nothing says what knowing nothing gives, a loss that stays may have come as far as it goes."""
    known, optimizer = jnp.linalg.lstsq(X, OUTPUTS)[0], optax.sgd(0.03)

    def squared(params, batch):
        return jnp.mean((batch[0] @ params - batch[1]) ** 2) + 1000.0

    for w in (known, 0.5 * known):
        record = checkup(squared, w, (X, OUTPUTS), optimizer=optimizer, key=KEY)
        assert record.safe and graver(record) == [], [finding.text for finding in graver(record)]
    assert type(record.risk) is float


def test_what_is_not_finite_is_said_to_be_of_the_batch_or_of_the_loss():
    found = examine(batch=(X.at[3, 2].set(jnp.nan), Y)).findings
    assert found[0].topic == "not finite" and "the batch holds NaN" in found[0].text
    infinite = eqx.tree_at(lambda r: r.loss, examine(), np.float32(np.inf)).findings
    assert infinite[0].topic == "not finite" and "batch are finite, and the loss is not" in infinite[0].text


def test_decay_of_what_has_no_gradient_yet_is_no_step_lost_in_rounding():
    """Behind a head of zeros only decay moves the others, by less than single precision tells."""
    point, update = Point.of({"w": jnp.ones(4)}), jnp.array([1e-9, 1e-9, 1e-9, 1e-3])
    assert float(_step._lost(point, update, None)) == 0.75
    assert float(_step._lost(point, update, jnp.array([0.0, 0.0, 0.0, 1.0]))) == 0.0
    assert float(_step._lost(point, update, jnp.array([0.0, 0.0, 1.0, 1.0]))) == 0.5


def test_a_few_rows_that_hold_most_of_the_loss_are_no_mismatch():
    """Of more rows than are looked at, which may miss the few."""
    record = examine()
    for batch, error, said in ((126, 0.2, True), (1000, 0.2, False), (1000, 0.01, True)):
        noise = dataclasses.replace(
            record.noise, rows=126, batch=batch, mean_loss=0.4 * record.loss, mean_error=error * record.loss
        )
        found = dataclasses.replace(record, noise=noise).findings
        assert any("not the mean of its rows' losses" in finding.text for finding in found) == said


def test_what_a_rehearsal_leaves_without_gradient_may_live_at_another_rate():
    """Where it blew up, or came to rest: as of adapters of low rank, half of which have no gradient at the start."""
    record, none = examine(), np.zeros(6, np.float32)
    half = np.array([0, 0, 0, 1, 1, 1], np.float32)
    for now, after, ends, cut in (
        (none, none, (1.0, 0.9), True),
        (none, none, (1.0, 1.1), False),
        (none, none, (1.0, np.nan), False),
        (half, half, (1.0, 0.9), True),
        (half, none, (1.0, 0.0), False),
    ):
        layers = eqx.tree_at(lambda part: part.gradient, record.layers, now)
        rehearsal = eqx.tree_at(lambda part: (part.own, part.gradient), record.rehearsal, (np.array(ends), after))
        assert (_gather._of_layers(layers, rehearsal, 1.0)["cut"] > 0) == cut
