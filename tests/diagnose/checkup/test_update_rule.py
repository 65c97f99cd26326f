import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax.diagnose import sharpness, update_rule

PARAMS = {"a": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array([[0.3, -0.4]])}
SCALES = {"a": jnp.array([1.0, 10.0, 0.1]), "b": jnp.array([[3.0, 0.5]])}


def gradient_at(params):
    return jax.tree.map(lambda p, s: s * p, params, SCALES)


def state_after(optimizer, steps=4):
    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(steps):
        updates, state = optimizer.update(gradient_at(params), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def rule_of(optimizer):
    params, state = state_after(optimizer)
    return update_rule(optimizer, state, params, gradient_at(params)), params, state


@pytest.mark.parametrize(
    ("optimizer", "name", "rate", "momentum", "threshold"),
    [
        (optax.sgd(0.05), "gradient descent", 0.05, 0.0, 2.0),
        (optax.sgd(0.05, momentum=0.9), "heavy ball", 0.05, 0.9, 3.8),
        (optax.sgd(0.05, momentum=0.8, nesterov=True), "Nesterov", 0.05, 0.8, 3.6 / 2.6),
        (optax.adam(2e-3, b1=0.9), "Adam", 2e-3, 0.9, 38.0),
        (optax.adamw(2e-3, b1=0.8, weight_decay=0.1), "Adam", 2e-3, 0.8, 18.0),
        (optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2)), "Adam", 1e-2, 0.9, 38.0),
        (optax.amsgrad(3e-3), "Adam", 3e-3, 0.9, 38.0),
        (optax.inject_hyperparams(optax.adam)(learning_rate=4e-3), "Adam", 4e-3, 0.9, 38.0),
        (optax.sgd(optax.linear_schedule(0.1, 0.0, 8)), "gradient descent", 0.05, 0.0, 2.0),
        (optax.adam(2e-3, b1=0.0), "Adam", 2e-3, 0.0, 2.0),
        (optax.radam(2e-3), "Adam", 2e-3, 0.9, 38.0),
        (optax.nadam(2e-3), "Adam family, Nesterov", 2e-3, 0.9, 38.0 / 2.8),
        (optax.nadamw(2e-3, b1=0.7, weight_decay=0.1), "Adam family, Nesterov", 2e-3, 0.7, 3.4 / 0.3 / 2.4),
        # A mean of gradients takes 1 - β of each, and that is its rate; its start may be corrected or not.
        (optax.chain(optax.ema(0.9), optax.scale(-0.5)), "heavy ball", 0.05, 0.9, 3.8),
        (optax.chain(optax.ema(0.9, debias=False), optax.scale(-0.5)), "heavy ball", 0.05, 0.9, 3.8),
        # It divides by a largest gradient, not by the root of a mean square.
        (optax.adamax(2e-3), "Adam", np.nan, 0.9, 38.0),
        (optax.rmsprop(2e-3), "RMSProp", np.nan, 0.0, 2.0),
        (optax.rmsprop(2e-3, centered=True), "RMSProp", np.nan, 0.0, 2.0),
        (optax.chain(optax.clip_by_global_norm(1.0), optax.adagrad(0.1)), "RMSProp", np.nan, 0.0, 2.0),
    ],
    ids=[
        *("sgd", "heavy", "nesterov", "adam", "adamw", "clipped", "amsgrad", "injected", "schedule"),
        *("b1=0", "radam", "nadam", "nadamw", "ema", "ema from zero", "adamax", "rms", "centred", "adagrad"),
    ],
)
def test_rate_momentum_and_threshold_are_read(optimizer, name, rate, momentum, threshold):
    rule, _, _ = rule_of(optimizer)
    assert bool(rule.known) and rule.name().startswith(name)
    np.testing.assert_allclose(rule.learning_rate, rate, rtol=1e-3)
    np.testing.assert_allclose(rule.momentum, momentum, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(rule.threshold, threshold, rtol=1e-3)


def test_adams_preconditioner_is_that_of_its_next_step():
    optimizer = optax.adam(1e-2, b2=0.99, eps=1e-3)
    rule, params, state = rule_of(optimizer)
    _, after = optimizer.update(gradient_at(params), state, params)
    moments = after[0]
    for name in PARAMS:
        corrected = moments.nu[name] / (1 - 0.99 ** int(moments.count))
        np.testing.assert_allclose(rule.rates[name], 1e-2 / (np.sqrt(corrected) + 1e-3), rtol=1e-4)


ACCUMULATED = {
    "adam": (optax.MultiSteps(optax.adam(2e-3), 4), "Adam", 2e-3, 38.0),
    "adam, as a transformation": (optax.MultiSteps(optax.adam(2e-3), 3).gradient_transformation(), "Adam", 2e-3, 38.0),
    "heavy ball": (optax.MultiSteps(optax.sgd(0.05, momentum=0.9), 3), "heavy ball", 0.05, 3.8),
    "sums": (optax.MultiSteps(optax.sgd(0.05), 4, use_grad_mean=False), "gradient descent", 0.2, 2.0),
    "by a schedule": (optax.MultiSteps(optax.sgd(0.05), lambda step: 2 + step), "gradient descent", 0.05, 2.0),
    "one": (optax.MultiSteps(optax.sgd(0.05), 1), "gradient descent", 0.05, 2.0),
    "clipped": (
        optax.chain(optax.clip_by_global_norm(1e3), optax.MultiSteps(optax.adam(2e-3), 4).gradient_transformation()),
        "Adam",
        2e-3,
        38.0,
    ),
    "passing over what is not finite": (
        optax.MultiSteps(optax.sgd(0.05), 4, should_skip_update_fn=optax.skip_not_finite),
        "gradient descent",
        0.05,
        2.0,
    ),
}


@pytest.mark.parametrize("calls", [0, 1, 3, 4])
@pytest.mark.parametrize("case", ACCUMULATED)
def test_accumulated_gradients_make_the_step_of_the_optimiser_within(case, calls):
    optimizer, name, rate, threshold = ACCUMULATED[case]
    params, state = state_after(optimizer, calls)
    rule = update_rule(optimizer, state, params, gradient_at(params))
    assert bool(rule.known) and rule.name().startswith(name), rule.name()
    np.testing.assert_allclose(rule.learning_rate, rate, rtol=1e-3)
    np.testing.assert_allclose(rule.threshold, threshold, rtol=1e-3)


def test_a_gradient_that_is_passed_over_makes_no_rule():
    optimizer = ACCUMULATED["passing over what is not finite"][0]
    gradient = {"a": jnp.full(3, jnp.nan), "b": jnp.ones((1, 2))}
    rule = update_rule(optimizer, optimizer.init(PARAMS), PARAMS, gradient)
    assert not bool(rule.known) and np.isnan(rule.threshold)


def part(**rules):
    return optax.multi_transform({**rules, "still": optax.set_to_zero()}, {"a": "moving", "b": "still"})


FROZEN = {
    "adam": (part(moving=optax.adam(2e-3)), "Adam", 2e-3, 38.0),
    "adamw": (part(moving=optax.adamw(2e-3)), "Adam", 2e-3, 38.0),
    "heavy ball": (part(moving=optax.sgd(0.05, momentum=0.9)), "heavy ball", 0.05, 3.8),
    "Nesterov": (part(moving=optax.sgd(0.05, momentum=0.8, nesterov=True)), "Nesterov", 0.05, 3.6 / 2.6),
    "sgd": (part(moving=optax.sgd(0.05)), "gradient descent", 0.05, 2.0),
    "rms": (part(moving=optax.rmsprop(2e-3)), "RMSProp", np.nan, 2.0),
    "centred rms": (part(moving=optax.rmsprop(2e-3, centered=True)), "RMSProp", np.nan, 2.0),
    "masked to nothing": (
        optax.chain(optax.adam(2e-3), optax.masked(optax.set_to_zero(), {"a": False, "b": True})), "Adam", 2e-3, 38.0
    ),
    "accumulated": (optax.MultiSteps(part(moving=optax.adam(2e-3)), 3), "Adam", 2e-3, 38.0),
}  # fmt: skip


@pytest.mark.parametrize("case", FROZEN)
def test_frozen_parts_have_rates_of_zero(case):
    optimizer, name, rate, threshold = FROZEN[case]
    rule, params, state = rule_of(optimizer)
    assert bool(rule.known) and rule.name().startswith(name), rule.name()
    np.testing.assert_array_equal(rule.rates["b"], 0)
    np.testing.assert_allclose(rule.learning_rate, rate, rtol=1e-3)
    np.testing.assert_allclose(rule.threshold, threshold, rtol=1e-3)
    # What moves does so as it would alone.
    alone = {"adam": optax.adam(2e-3), "heavy ball": optax.sgd(0.05, momentum=0.9), "rms": optax.rmsprop(2e-3)}
    if case in alone:
        own = alone[case]
        params, state = {"a": PARAMS["a"]}, own.init({"a": PARAMS["a"]})
        for _ in range(4):
            gradient = {"a": SCALES["a"] * params["a"]}
            updates, state = own.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        expected = update_rule(own, state, params, {"a": SCALES["a"] * params["a"]})
        np.testing.assert_allclose(rule.rates["a"], expected.rates["a"], rtol=1e-3)


def test_parts_with_moments_of_their_own_are_read_together():
    labels = {"a": "slow", "b": "fast"}
    optimizer = optax.multi_transform({"slow": optax.adam(1e-3), "fast": optax.adam(1e-2)}, labels)
    rule, params, state = rule_of(optimizer)
    assert bool(rule.known) and rule.name().startswith("Adam") and np.isnan(rule.learning_rate)
    np.testing.assert_allclose(rule.threshold, 38.0, rtol=1e-3)
    for name, rate in (("a", 1e-3), ("b", 1e-2)):
        moments = state.inner_states[labels[name]].inner_state[0]
        second = 0.999 * moments.nu[name] + 0.001 * gradient_at(params)[name] ** 2
        corrected = second / (1 - 0.999 ** (moments.count + 1))
        np.testing.assert_allclose(rule.rates[name], rate / (np.sqrt(corrected) + 1e-8), rtol=1e-3)


def test_parts_that_do_not_share_a_threshold_are_not_read_as_one():
    labels = {"a": "one", "b": "other"}
    for one, other in (
        (optax.adam(1e-3), optax.adam(1e-3, b1=0.5)),
        (optax.adam(1e-3), optax.sgd(0.1)),
        (optax.adam(1e-3), optax.sgd(0.1, momentum=0.9)),
        (optax.rmsprop(1e-3), optax.adam(1e-3)),
    ):
        rule, _, _ = rule_of(optax.multi_transform({"one": one, "other": other}, labels))
        assert not bool(rule.known) and np.isnan(rule.threshold)


def test_rates_of_their_own_for_some_parameters():
    labels = {"a": "slow", "b": "fast"}
    optimizer = optax.chain(
        optax.trace(0.9), optax.multi_transform({"slow": optax.scale(-0.01), "fast": optax.scale(-0.1)}, labels)
    )
    rule, _, _ = rule_of(optimizer)
    assert bool(rule.known) and np.isnan(rule.learning_rate)
    np.testing.assert_allclose(rule.rates["a"], 0.01, rtol=1e-4)
    np.testing.assert_allclose(rule.rates["b"], 0.1, rtol=1e-4)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sign_sgd(0.1),
        optax.lion(0.1),
        optax.adabelief(0.1),
        optax.chain(optax.adam(0.1), optax.clip_by_global_norm(1e-3)),
        optax.chain(optax.trace(0.9), optax.trace(0.5), optax.scale(-0.1)),
        optax.chain(optax.sgd(0.1), optax.scale(-1.0)),
        optax.chain(optax.scale_by_rms(), optax.scale_by_sign(), optax.scale(-0.1)),
    ],
    ids=["sign", "lion", "adabelief", "clipped after", "two traces", "ascent", "sign of RMSProp"],
)
def test_what_cannot_be_read_is_not_guessed(optimizer):
    rule, params, _ = rule_of(optimizer)
    assert not bool(rule.known) and rule.name().startswith("unknown")
    assert np.isnan(rule.threshold) and np.isnan(rule.learning_rate)
    assert all(np.all(leaf == 1) for leaf in jax.tree.leaves(rule.rates))


def test_a_rate_of_zero_is_named():
    assert rule_of(optax.sgd(0.0))[0].name() == "unknown: the optimiser makes no step here (rate zero?)"


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    ("optimizer", "dtype", "rate", "momentum", "threshold"),
    [
        (optax.adam(1e-2), "bfloat16", 1e-2, 0.9, 38.0),
        (optax.adam(1e-2, mu_dtype="bfloat16"), "float32", 1e-2, 0.9, 38.0),
        (optax.adam(1e-2), "float16", 1e-2, 0.9, 38.0),
        (optax.sgd(0.05, momentum=0.9), "bfloat16", 0.05, 0.9, 3.8),
        (optax.rmsprop(1e-2), "bfloat16", np.nan, 0.0, 2.0),
        (optax.chain(optax.clip_by_global_norm(100.0), optax.sgd(0.05)), "float16", 0.05, 0.0, 2.0),
    ],
    ids=["adam", "adam's moment", "adam, float16", "heavy", "rms", "sgd, float16"],
)
def test_half_precision_is_read_to_its_own_rounding(key, optimizer, dtype, rate, momentum, threshold):
    params = jax.random.normal(key, (64,), dtype) + jnp.asarray(2, dtype)
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(params, state, params)
        params = optax.apply_updates(params, updates)
    rule = update_rule(optimizer, state, params, params)
    assert bool(rule.known), rule.name()
    assert rule.rates.dtype == dtype and rule.threshold.dtype == jnp.float32
    # 0.9 is 0.8984 in bfloat16.
    np.testing.assert_allclose(rule.learning_rate, rate, rtol=0.01)
    np.testing.assert_allclose(rule.momentum, momentum, rtol=0.002)
    np.testing.assert_allclose(rule.threshold, threshold, rtol=0.02)


def test_a_rule_without_one_momentum_is_not_half_known():
    decay = {"a": 0.5, "b": 0.9}
    optimizer = optax.GradientTransformation(
        optax.trace(0.9).init,
        lambda g, s, p=None: (
            jax.tree.map(lambda x, m, d: -0.1 * (x + d * m), g, s.trace, decay),
            optax.TraceState(jax.tree.map(lambda x, m, d: x + d * m, g, s.trace, decay)),
        ),
    )
    rule, _, _ = rule_of(optimizer)
    assert not bool(rule.known) and "does not predict" in rule.name() and np.isnan(rule.threshold)


def test_a_clipped_gradient_has_the_rate_of_this_step():
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1))
    rule, params, _ = rule_of(optimizer)
    assert bool(rule.known)
    norm = float(optax.tree.norm(gradient_at(params)))
    np.testing.assert_allclose(rule.learning_rate, 0.1 * 0.5 / norm, rtol=1e-3)


def quadratic(params, scales):
    return jnp.sum(scales * params**2) / 2


def growth(optimizer, scales, steps=600):
    """How much longer than before the end of a run is, for a state held at the given preconditioner."""

    def body(carry, _):
        params, state = carry
        update, state = optimizer.update(scales * params, state, params)
        return (params + update, state), jnp.max(jnp.abs(params))

    start = jnp.ones_like(scales)
    _, sizes = jax.lax.scan(body, (start, optimizer.init(start)), None, length=steps)
    return sizes


@pytest.mark.parametrize(
    "make",
    [
        lambda rate: optax.sgd(rate),
        lambda rate: optax.sgd(rate, momentum=0.7),
        lambda rate: optax.sgd(rate, momentum=0.7, nesterov=True),
    ],
    ids=["gradient descent", "heavy ball", "Nesterov"],
)
def test_ratio_one_is_where_simulated_runs_turn(x64, key, make):
    scales = jnp.array([0.1, 1.0, 7.0])
    for share, grows in ((0.98, False), (1.02, True)):
        # The rate at which the ratio should be `share`, by the record itself.
        optimizer = make(0.1)
        rule = update_rule(optimizer, optimizer.init(scales), jnp.ones(3), scales)
        headroom = sharpness(quadratic, jnp.ones(3), scales, rule=rule, key=key).headroom.value
        sizes = growth(make(0.1 * share * float(headroom)), scales)
        assert bool(sizes[-1] > 1.0) == grows
        assert bool(sizes[-1] < 0.1) == (not grows)


def test_ratio_one_is_where_adam_with_its_preconditioner_turns(x64, key):
    # With ε large the preconditioner stands still at ε: Adam's edge is then that of a known linear recurrence.
    scales = jnp.array([0.1, 1.0, 7.0])
    start = 1e-9 * jnp.ones(3)
    for share, grows in ((0.98, False), (1.02, True)):
        rate = 0.1
        for _ in range(2):
            optimizer = optax.adam(rate, b1=0.8, eps=1.0)
            rule = update_rule(optimizer, optimizer.init(start), start, scales * start)
            record = sharpness(quadratic, start, scales, rule=rule, key=key)
            rate = rate * float(record.headroom.value) * share
        np.testing.assert_allclose(record.threshold, 18.0 / (rate / (share * record.headroom.value)), rtol=1e-3)
        optimizer = optax.adam(rate, b1=0.8, eps=1.0)

        def body(carry, _, optimizer=optimizer):
            params, state = carry
            update, state = optimizer.update(scales * params, state, params)
            return (params + update, state), jnp.max(jnp.abs(params))

        _, sizes = jax.lax.scan(body, (start, optimizer.init(start)), None, length=800)
        assert bool(sizes[-1] > 10 * sizes[200]) == grows
        assert bool(sizes[-1] < sizes[200]) == (not grows)


def ratios(loss, params, optimizer, key, times, length):
    """The ratio at the end of each of several stretches of full-batch training."""

    def body(carry, _):
        params, state = carry
        update, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, update), state), None

    def stretch(carry, _):
        (params, state), _ = jax.lax.scan(body, carry, None, length=length)
        rule = update_rule(optimizer, state, params, jax.grad(loss)(params))
        return (params, state), sharpness(loss, params, rule=rule, key=key).ratio.value

    return jax.jit(lambda c: jax.lax.scan(stretch, c, None, length=times)[1])((params, optimizer.init(params)))


@pytest.mark.parametrize(
    "optimizer", [optax.sgd(0.12), optax.sgd(0.2, momentum=0.5)], ids=["gradient descent", "heavy ball"]
)
def test_training_settles_at_the_edge(x64, key, optimizer):
    # The nearest minimum of (x²y² − 1)²/4 from here has curvature 18.2, more than either can bear: both go on along the
    # valley of minima to where they can.
    found = ratios(lambda p: (p[0] ** 2 * p[1] ** 2 - 1) ** 2 / 4, jnp.array([3.0, 0.3]), optimizer, key, 1, 4000)
    assert 0.95 < found[-1] < 1.02


def test_adam_hovers_at_its_edge(x64, key):
    x = jnp.linspace(-1.0, 1.0, 20)[:, None]

    def loss(params):
        hidden = jnp.tanh(x * params["w"][None] + params["b"][None])
        return jnp.mean((hidden @ params["v"] - jnp.sin(3 * x[:, 0]) - 0.5 * x[:, 0]) ** 2)

    keys = jax.random.split(key, 3)
    params = {n: jax.random.normal(k, (16,)) * s for n, k, s in zip("wbv", keys, (1.0, 0.5, 0.3))}
    found = ratios(loss, params, optax.adam(0.01), key, 16, 250)
    # It starts far below, and is from then on pushed back from above one.
    assert found[0] < 0.6 and abs(jnp.mean(found[6:]) - 1) < 0.1 and jnp.max(found) < 1.15


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.99])
def test_the_threshold_of_nadam_is_where_its_recurrence_turns(beta):
    """m' = βm + (1-β)λx and x' = x - η(βm' + (1-β)λx): spectral radius one at ηλ = (2+2β)/((1-β)(1+2β))."""
    limit = (2 + 2 * beta) / ((1 - beta) * (1 + 2 * beta))
    for share, stable in ((0.999, True), (1.001, False)):
        rate = limit * share
        moment = np.array([beta, 1 - beta])
        place = np.array([0.0, 1.0]) - rate * (beta * moment + np.array([0.0, 1 - beta]))
        radius = np.abs(np.linalg.eigvals(np.stack([moment, place]))).max()
        assert (radius <= 1 + 1e-12) == stable


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.lamb(1e-2),
        optax.sign_sgd(1e-2),
        optax.fromage(1e-2),
        optax.rmsprop(1e-2, momentum=0.9),
        optax.rmsprop(1e-2, momentum=0.9, nesterov=True),
        optax.optimistic_gradient_descent(1e-2),
        optax.contrib.simplified_ademamix(1e-2),
        optax.contrib.schedule_free_sgd(0.1),
        optax.chain(optax.adaptive_grad_clip(0.01), optax.sgd(0.1)),
        optax.chain(optax.adam(1.0), optax.scale_by_trust_ratio()),
        optax.lion(1e-3),
        optax.contrib.muon(1e-2),
    ],
    ids=[
        *("lamb", "sign", "fromage", "rms momentum", "rms nesterov", "optimistic", "ademamix", "schedule-free"),
        *("adaptive clipping", "trust ratio", "lion", "muon"),
    ],
)
def test_what_has_no_such_rates_is_said_to_be_unknown(optimizer):
    rule, _, _ = rule_of(optimizer)
    assert not bool(rule.known) and rule.name().startswith("unknown: ")
    assert np.isnan(rule.threshold) and np.isnan(rule.learning_rate)
