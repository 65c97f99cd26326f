import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from nablax.follow import Solver, flow

RATE, WIDTH = 1.3, 0.7  # of the Ornstein–Uhlenbeck process dx = -RATE x dt + WIDTH dW


def decay(t, y, args):
    return -y


def swing(t, y, args):
    return y * jnp.cos(3 * t)  # solution y0 exp(sin(3t) / 3)


def test_adaptive_solution_meets_its_tolerance(x64):
    for tolerance in (1e-4, 1e-9):
        end = flow(swing, jnp.array([1.0, -2.0]), 0.0, 2.0, solver=Solver(rtol=tolerance, atol=tolerance)).ys
        error = np.abs(end - np.array([1.0, -2.0]) * np.exp(np.sin(6.0) / 3)).max()
        assert error < 30 * tolerance


@pytest.mark.parametrize("solver, order", [(diffrax.Euler(), 1), (diffrax.Heun(), 2), (None, 2), (diffrax.Bosh3(), 3)])
def test_fixed_steps_converge_at_the_solvers_order(x64, solver, order):
    def error(steps):
        end = flow(
            lambda t, y, args: y * (1 - y), jnp.array(0.1), 0.0, 4.0, solver=Solver(steps=steps, method=solver)
        ).ys
        return float(abs(end - 1 / (1 + 9 * np.exp(-4.0))))

    assert abs(np.log2(error(50) / error(100)) - order) < 0.15


@pytest.mark.parametrize("steps", [None, 500])
def test_backwards_undoes_forwards(x64, steps):
    start = jnp.array([0.3, -1.2])
    end = flow(swing, start, 0.2, 1.7, solver=Solver(steps=steps, rtol=1e-9, atol=1e-9)).ys
    back = flow(swing, end, 1.7, 0.2, solver=Solver(steps=steps, rtol=1e-9, atol=1e-9)).ys
    np.testing.assert_allclose(back, start, rtol=1e-5 if steps else 1e-8)
    assert np.abs(end - start).max() > 0.1


@pytest.mark.parametrize("steps", [None, 200])
def test_states_at_the_times_asked_for(x64, steps):
    ts = jnp.array([0.0, 0.31, 0.7, 1.0])
    solution = flow(decay, jnp.ones(2), 0.0, 1.0, ts=ts, solver=Solver(steps=steps, rtol=1e-8, atol=1e-8))
    assert solution.ys.shape == (4, 2)
    np.testing.assert_array_equal(solution.ts, ts)
    np.testing.assert_allclose(solution.ys[:, 0], np.exp(-np.asarray(ts)), rtol=1e-5)
    # Backwards, times fall.
    solution = flow(decay, jnp.ones(2), 1.0, 0.0, ts=ts[::-1], solver=Solver(steps=steps, rtol=1e-8, atol=1e-8))
    np.testing.assert_allclose(solution.ys[:, 0], np.exp(1 - np.asarray(ts[::-1])), rtol=2e-5)


def test_without_times_the_end_alone_comes_back():
    solution = flow(decay, jnp.ones((4, 2)), 0.0, 1.0)
    assert solution.ys.shape == (4, 2) and solution.ts.shape == ()
    assert float(solution.ts) == 1.0


def test_state_may_be_a_pytree_and_args_reach_the_field(x64):
    def oscillator(t, state, args):
        return {"position": state["speed"], "speed": -(args["frequency"] ** 2) * state["position"]}

    start = {"position": jnp.ones(3), "speed": jnp.zeros(3)}
    frequency = jnp.array([1.0, 2.0, 3.0])
    end = flow(oscillator, start, 0.0, 1.5, args={"frequency": frequency}, solver=Solver(rtol=1e-9, atol=1e-9)).ys
    np.testing.assert_allclose(end["position"], np.cos(1.5 * np.asarray(frequency)), atol=1e-7)
    np.testing.assert_allclose(end["speed"], -frequency * np.sin(1.5 * np.asarray(frequency)), atol=1e-6)


@pytest.mark.parametrize("steps, span", [(1, (0.0, 1.0)), (7, (1.0, 0.0)), (100, (0.0, 0.999)), (1000, (0.1, 0.3))])
def test_fixed_steps_are_as_many_as_asked_for_in_single_precision(steps, span):
    # Adding up a float32 step would end with a sliver.
    solution = jax.jit(lambda y: flow(lambda t, y, args: jnp.ones_like(y), y, *span, solver=Solver(steps=steps)))(
        jnp.zeros(1)
    )
    assert int(solution.stats["num_steps"]) == steps
    np.testing.assert_allclose(solution.ys, span[1] - span[0], rtol=2e-5)


@pytest.mark.parametrize("solver, steps", [(diffrax.Euler(), 9), (None, 9), (None, None)])
def test_number_of_evaluations_is_the_true_one(solver, steps):
    calls = []

    def counted(t, y, args):
        jax.debug.callback(lambda: calls.append(1))
        return -y

    solution = flow(counted, jnp.ones(1), 0.0, 3.0, solver=Solver(method=solver, steps=steps))
    jax.effects_barrier()
    # First-same-as-last solvers need one more at the start, and the first adaptive step is chosen with two.
    assert 0 <= len(calls) - int(solution.stats["num_evaluations"]) <= 3


def test_gradients_flow_through(x64):
    def end(rate):
        return flow(lambda t, y, args: -args * y, jnp.array(2.0), 0.0, 1.0, args=rate, solver=Solver(steps=300)).ys

    np.testing.assert_allclose(jax.grad(end)(jnp.array(0.7)), -2 * np.exp(-0.7), rtol=1e-5)

    def noisy(width, key):
        solution = flow(
            lambda t, y, args: jnp.zeros_like(y),
            jnp.array(0.0),
            0.0,
            1.0,
            solver=Solver(steps=5),
            noise=lambda t, y, a: width,
            key=key,
        )
        return solution.ys

    # x(1) = width W(1), so that the derivative is W(1) itself.
    value, slope = jax.value_and_grad(noisy)(0.3, jax.random.key(1))
    np.testing.assert_allclose(slope, value / 0.3, rtol=1e-12)


def ornstein_uhlenbeck(key, count, steps, start=2.0):
    solution = flow(
        lambda t, y, args: -RATE * y,
        jnp.full((count,), start),
        0.0,
        1.0,
        solver=Solver(steps=steps),
        noise=lambda t, y, args: jnp.asarray(WIDTH),
        key=key,
    )
    return solution.ys


@pytest.mark.parametrize("steps", [4, 64])
def test_noisy_flow_has_the_moments_of_its_scheme(x64, steps, key):
    # Euler–Maruyama of this process is an autoregression whose moments are known exactly.
    count, shrink, start = 40_000, 1 - RATE / steps, 2.0
    ends = ornstein_uhlenbeck(key, count, steps, start)
    mean = start * shrink**steps
    variance = WIDTH**2 / steps * (1 - shrink ** (2 * steps)) / (1 - shrink**2)
    assert abs(ends.mean() - mean) < 4 * np.sqrt(variance / count)
    assert abs(ends.var() - variance) < 4 * variance * np.sqrt(2 / count)
    if steps == 64:  # and these approach the process's own
        assert abs(mean - start * np.exp(-RATE)) < 0.01
        assert abs(variance - WIDTH**2 / (2 * RATE) * (1 - np.exp(-2 * RATE))) < 0.003


def test_noise_is_independent_over_steps_and_components_and_scaled_by_time(x64, key):
    ts = jnp.linspace(0.5, 2.5, 6)

    def path(key):
        return flow(
            lambda t, y, args: jax.tree.map(jnp.zeros_like, y),
            {"a": jnp.zeros(2), "b": jnp.zeros(())},
            0.5,
            2.5,
            solver=Solver(steps=5),
            ts=ts,
            noise=lambda t, y, args: 3.0,
            key=key,
        ).ys

    paths = jax.vmap(path)(jax.random.split(key, 20_000))
    states = np.concatenate([paths["a"], paths["b"][..., None]], axis=-1)
    increments = np.diff(states, axis=1).reshape(20_000, 15)
    covariance = np.cov(increments.T)
    np.testing.assert_allclose(covariance, 9 * 0.4 * np.eye(15), atol=5 * 3.6 * (2 / 20_000) ** 0.5)


def test_noise_that_depends_on_the_state_is_read_in_itos_sense(x64, key):
    # dx = x dW is a martingale; in Stratonovich's sense its mean would be exp(1/2).
    def end(key):
        return flow(
            lambda t, y, a: jnp.zeros_like(y),
            jnp.ones(()),
            0.0,
            1.0,
            solver=Solver(steps=64),
            noise=lambda t, y, a: y,
            key=key,
        ).ys

    ends = jax.vmap(end)(jax.random.split(key, 20_000))
    assert abs(ends.mean() - 1) < 4 * np.sqrt((np.e - 1) / 20_000)


def test_same_key_same_path():
    draw = jax.jit(lambda key: ornstein_uhlenbeck(key, 5, 8))
    first, second, other = (draw(jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert np.all(first != other)


def test_reaching_the_step_limit_raises_or_reports():
    with pytest.raises(eqx.EquinoxRuntimeError, match="maximum number of solver steps"):
        flow(swing, jnp.ones(2), 0.0, 2.0, solver=Solver(rtol=1e-6, max_steps=3))
    solution = flow(swing, jnp.ones(2), 0.0, 2.0, solver=Solver(rtol=1e-6, max_steps=3), throw=False)
    assert solution.result == diffrax.RESULTS.max_steps_reached
    assert int(solution.stats["num_steps"]) == 3


def test_a_field_that_explodes_is_not_followed_silently():
    with pytest.raises(eqx.EquinoxRuntimeError):
        flow(lambda t, y, args: y**2, jnp.ones(1), 0.0, 2.0)  # infinite at t = 1


@pytest.mark.parametrize("steps, noise", [(None, None), (10, None), (10, lambda t, y, args: 0.1)])
def test_single_precision_is_kept_under_x64(x64, steps, noise):
    key = None if noise is None else jax.random.key(0)
    solution = flow(decay, jnp.ones(2, jnp.float32), 0.0, 1.0, solver=Solver(steps=steps), noise=noise, key=key)
    assert solution.ys.dtype == jnp.float32 and solution.ts.dtype == jnp.float32


def test_mapped_trajectories_control_their_own_steps():
    def solve(rate):
        return flow(lambda t, y, args: -rate * (y - jnp.cos(rate * t)), jnp.zeros(1), 0.0, 1.0)

    rates = jnp.array([0.1, 30.0])
    together = jax.jit(jax.vmap(solve))(rates)
    alone = jax.jit(solve)
    apart = [alone(rate) for rate in rates]
    slow, fast = (int(n) for n in together.stats["num_steps"])
    assert slow <= 5 and fast >= 50
    np.testing.assert_allclose(together.ys, jnp.stack([s.ys for s in apart]), rtol=1e-4, atol=1e-5)


def test_errors_say_what_is_wrong(key):
    y = jnp.ones(2)
    with pytest.raises(ValueError, match="steps as a whole number, at least 1"):
        flow(decay, y, 0.0, 1.0, solver=Solver(steps=0))
    with pytest.raises(ValueError, match="and `key` with `noise`"):
        flow(decay, y, 0.0, 1.0, noise=lambda t, y, args: 1.0, key=key)
    with pytest.raises(ValueError, match="and `key` with `noise`"):
        flow(decay, y, 0.0, 1.0, noise=lambda t, y, args: 1.0, solver=Solver(steps=5))
    for noise in (lambda t, y, args: jnp.ones(2), lambda t, y, args: jnp.ones(1)):
        with pytest.raises(ValueError, match=r"noise as one number of shape \[\], got f32.*every component"):
            flow(decay, y, 0.0, 1.0, noise=noise, key=key, solver=Solver(steps=5))
    for noise, message in ((0.1, "noise, a function, got 0.1"), (lambda t, y: 0.1, "noise of 3 arguments")):
        with pytest.raises(ValueError, match=message):
            flow(decay, y, 0.0, 1.0, noise=noise, key=key, solver=Solver(steps=5))
    with pytest.raises(ValueError, match="no `key` without `noise`"):
        flow(decay, y, 0.0, 1.0, key=key)
    with pytest.raises(ValueError, match="floating-point"):
        flow(decay, jnp.ones(2, int), 0.0, 1.0)
    for t0, t1, name in ((jnp.zeros(2), 1.0, "t0"), ("0", 1.0, "t0"), (0.0, jnp.ones(1), "t1"), (0.0, None, "t1")):
        with pytest.raises(ValueError, match=rf"{name} of shape \[\], got .*one time"):
            flow(decay, y, t0, t1)
    with pytest.raises(ValueError, match=r"a solver, got Heun.*follow\.Solver"):
        flow(decay, y, 0.0, 1.0, solver=diffrax.Heun())
    for method, message in ((diffrax.Heun, r"the class Heun.*Heun\(\.\.\.\)"), ("heun", "a method, got 'heun'")):
        with pytest.raises(ValueError, match=message):
            Solver(method=method)
    with pytest.raises(ValueError, match=r"an event, got .*diffrax\.Event\(condition\)"):
        flow(decay, y, 0.0, 1.0, event=lambda t, y, args, **_: y[0] < 0.5)


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf"), np.float64(-1), jnp.array(jnp.nan), "1e-3"])
@pytest.mark.parametrize("name", ["rtol", "atol"])
def test_a_tolerance_that_no_error_can_meet_is_refused(name, tolerance):
    with pytest.raises(ValueError, match=f"expected {name}"):
        Solver(**{name: tolerance})


def test_a_number_of_steps_below_one_is_refused_as_an_array_too():
    for steps in (jnp.array(0), jnp.int8(-2)):
        with pytest.raises(ValueError, match="steps as a whole number, at least 1"):
            Solver(steps=steps)
    end = eqx.filter_jit(
        lambda n: flow(decay, jnp.ones(1), 0.0, 1.0, solver=Solver(steps=n, method=diffrax.Euler())).ys
    )
    np.testing.assert_allclose(
        end(jnp.array(1)), flow(decay, jnp.ones(1), 0.0, 1.0, solver=Solver(steps=1, method=diffrax.Euler())).ys
    )
    for steps in (0, -2):
        with pytest.raises(eqx.EquinoxRuntimeError, match="expected steps as a whole number, at least 1"):
            end(jnp.array(steps))


def test_a_solver_keeps_what_it_was_given_and_one_tolerance_may_be_zero():
    with pytest.raises(ValueError, match="a tolerance above 0"):
        Solver(rtol=0.0, atol=0)
    with pytest.raises(ValueError, match="a tolerance above 0"):
        Solver(rtol=jnp.zeros(()), atol=np.float32(0))
    solver = Solver(steps=np.int64(3), rtol=0.0)
    assert solver.steps == 3 and isinstance(solver.steps, int)
    assert jax.jit(lambda rtol: Solver(rtol=rtol).rtol * 2)(-1.0) == -2  # traced, it cannot be looked at
    with pytest.raises(AttributeError):
        solver.steps = 4
    for max_steps in (0, 2.5):
        with pytest.raises(ValueError, match="max_steps as a whole number"):
            Solver(max_steps=max_steps)


def test_an_event_ends_the_flow_where_its_condition_crosses_zero(x64):
    """A ball falls from height 2 with g = 10: it lands after sqrt(0.4)."""

    def fall(t, y, args):
        return jnp.array([y[1], -10.0])

    event = diffrax.Event(lambda t, y, args, **_: y[0], optx.Newton(1e-9, 1e-9))
    solution = flow(fall, jnp.array([2.0, 0.0]), 0.0, 5.0, event=event)
    np.testing.assert_allclose(solution.ts, np.sqrt(0.4), rtol=1e-7)
    np.testing.assert_allclose(solution.ys, [0.0, -10 * np.sqrt(0.4)], atol=1e-6)
    assert solution.result == diffrax.RESULTS.event_occurred and bool(solution.event_mask)
    watched = flow(fall, jnp.array([2.0, 0.0]), 0.0, 5.0, event=event, ts=jnp.array([0.1, 0.5, 2.0]))
    np.testing.assert_allclose(watched.ys[:2, 0], 2 - 5 * np.array([0.1, 0.5]) ** 2, rtol=1e-6)
    assert np.isinf(watched.ys[2]).all()
    # An event that never comes changes nothing.
    late = flow(fall, jnp.array([2.0, 0.0]), 0.0, 0.5, event=event)
    assert late.result == diffrax.RESULTS.successful and not bool(late.event_mask) and float(late.ts) == 0.5


def test_an_event_ends_fixed_steps_and_backward_flows_too(x64):
    event = diffrax.Event(lambda t, y, args, **_: y[0] - 0.5, optx.Newton(1e-9, 1e-9))
    for steps in (None, 400):
        solution = flow(decay, jnp.ones(1), 0.0, 3.0, solver=Solver(steps=steps), event=event)
        np.testing.assert_allclose(solution.ts, np.log(2), atol=2e-5)
    back = flow(decay, jnp.full(1, 0.25), 3.0, 0.0, event=event)
    np.testing.assert_allclose(back.ts, 3.0 - np.log(2), atol=1e-5)


@pytest.mark.parametrize("steps", [None, 64])
def test_dense_output_is_the_state_at_any_time(x64, steps):
    times = jnp.linspace(0.0, 2.0, 33)[1:-1]
    for options in ({}, {"ts": jnp.array([0.5, 1.0])}):
        solution = flow(
            decay,
            jnp.array([1.0, 3.0]),
            0.0,
            2.0,
            solver=Solver(steps=steps, rtol=1e-8, atol=1e-8),
            dense=True,
            **options,
        )
        dense = jax.vmap(solution.evaluate)(times)
        np.testing.assert_allclose(
            dense,
            jnp.exp(-times)[:, None] * jnp.array([[1.0, 3.0]]),
            rtol=4e-4 if steps else 1e-6,  # Heun: h²t/6
        )
    np.testing.assert_allclose(solution.ys, jax.vmap(solution.evaluate)(jnp.array([0.5, 1.0])), rtol=1e-6)
    with pytest.raises(ValueError, match="dense=True"):
        flow(decay, jnp.ones(2), 0.0, 1.0).evaluate(0.5)


def test_halves_are_solved_in_single_precision_and_come_back_as_they_were():
    for dtype in (jnp.bfloat16, jnp.float16):
        y0 = {"a": jnp.ones(2, dtype), "b": jnp.ones(())}
        for steps in (None, 8):
            solution = flow(lambda t, y, args: jax.tree.map(jnp.negative, y), y0, 0.0, 1.0, solver=Solver(steps=steps))
            assert solution.ys["a"].dtype == dtype and solution.ys["b"].dtype == jnp.float32
            exact = flow(decay, jnp.ones(2), 0.0, 1.0, solver=Solver(steps=steps)).ys
            np.testing.assert_array_equal(solution.ys["a"], exact.astype(dtype))


def test_times_outside_or_in_another_order_are_refused():
    y = jnp.ones(2)
    for start, end, ts, message in (
        (0.0, 1.0, [0.5, 1.5], r"times between t0=0 and t1=1, got ts from 0\.5 to 1\.5"),
        (0.0, 1.0, [-0.1, 0.5], r"got ts from -0\.1 to 0\.5"),
        (1.0, 0.0, [0.5, -0.5], "times between t0=1 and t1=0"),
        (0.0, 1.0, [0.5, 0.2], "direction of travel"),
        (1.0, 0.0, [0.2, 0.5], "direction of travel"),
        (0.0, 1.0, 0.5, r"times of shape \[times\]"),
    ):
        with pytest.raises(ValueError, match=message):
            flow(decay, y, start, end, ts=jnp.array(ts))
    np.testing.assert_allclose(flow(decay, y, 0.0, 1.0, ts=jnp.array([0.0, 1.0])).ys[0], y)
    for steps in (0, 2.5, 40.0, "8"):
        with pytest.raises(ValueError, match="steps as a whole number, at least 1"):
            flow(decay, y, 0.0, 1.0, solver=Solver(steps=steps))


@pytest.mark.parametrize(
    ("t0", "t1", "y0"),
    [(0.0, jnp.nan, 1.0), (jnp.nan, 1.0, 1.0), (0.0, jnp.inf, 1.0), (0.0, 1.0, jnp.nan), (0.0, 1.0, jnp.inf)],
)
def test_times_and_states_that_are_not_finite_are_refused_before_the_solver_meets_them(t0, t1, y0):
    with pytest.raises(ValueError, match="finite times and a finite state"):
        flow(lambda t, y, args: -y, jnp.array([1.0, y0]), t0, t1)
