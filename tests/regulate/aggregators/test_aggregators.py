"""Each aggregator against its own conditions, brute force and its published properties, those it lacks included."""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nablax import regulate

KEY = jax.random.key(3)
K, DIM = 3, 4
FACTORIES = {
    "upgrad": regulate.upgrad,
    "dual_projection": regulate.dual_projection,
    "mgda": regulate.mgda,
    "cagrad": lambda: regulate.cagrad(0.5),
    "nash_mtl": regulate.nash_mtl,
    "conflict_free": regulate.conflict_free,
    "imtl_g": regulate.imtl_g,
    "aligned_mtl": regulate.aligned_mtl,
    "pcgrad": lambda: regulate.pcgrad(key=KEY),
    "mean": regulate.mean,
}


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@functools.cache
def compiled(name):
    """One compilation for each aggregator, for 3 × 4 Jacobians in double precision."""
    factory = FACTORIES[name]()

    @jax.jit
    def apply(jacobian):
        update, state = factory.update(jacobian, factory.init(jnp.zeros(DIM)))
        return update, state.residual

    return apply


def aggregate(name, jacobian):
    return np.asarray(compiled(name)(jnp.asarray(jacobian, jnp.float64))[0])


def random_jacobians(count=8):
    random = np.random.default_rng(0)
    yield from random.normal(size=(count, K, DIM))
    yield from random.normal(size=(count, K, 1)) * random.normal(size=(count, 1, DIM)) + 0.1 * random.normal(
        size=(count, K, DIM)
    )


def cone_projection(jacobian, vector):
    """Nearest point of {d : Jd ≥ 0} by trying every set of active rows."""
    best = None
    for size in range(len(jacobian) + 1):
        for active in itertools.combinations(range(len(jacobian)), size):
            rows = jacobian[list(active)]
            point = vector - (np.linalg.pinv(rows) @ (rows @ vector) if size else 0)
            nearer = best is None or np.sum((point - vector) ** 2) < np.sum((best - vector) ** 2)
            if nearer and np.all(jacobian @ point >= -1e-9):
                best = point
    return best


def shortest_in_hull(jacobian):
    best = None
    for size in range(1, len(jacobian) + 1):
        for support in itertools.combinations(range(len(jacobian)), size):
            rows = jacobian[list(support)]
            weights = np.linalg.pinv(rows @ rows.T) @ np.ones(size)
            weights = weights / weights.sum()
            if np.all(weights >= -1e-12) and (best is None or np.linalg.norm(weights @ rows) < np.linalg.norm(best)):
                best = weights @ rows
    return best


def test_upgrad_and_dual_projection_equal_brute_force():
    for jacobian in random_jacobians():
        each = np.mean([cone_projection(jacobian, row) for row in jacobian], axis=0)
        np.testing.assert_allclose(aggregate("upgrad", jacobian), each, atol=1e-9)
        np.testing.assert_allclose(
            aggregate("dual_projection", jacobian), cone_projection(jacobian, jacobian.mean(0)), atol=1e-9
        )


def test_mgda_equals_brute_force():
    for jacobian in random_jacobians():
        np.testing.assert_allclose(aggregate("mgda", jacobian), shortest_in_hull(jacobian), atol=1e-9)


def test_cagrad_meets_its_dual_and_beats_a_grid():
    grid = np.array([(a, b, 1 - a - b) for a in np.linspace(0, 1, 101) for b in np.linspace(0, 1 - a, 101)])
    for jacobian in random_jacobians():
        direction, mean = aggregate("cagrad", jacobian), jacobian.mean(0)
        radius = 0.5 * np.linalg.norm(mean)
        assert np.linalg.norm(direction - mean) <= radius * (1 + 1e-9)
        worst = np.min(jacobian @ direction)
        # Every w on the simplex bounds the best worst case from above: the grid's smallest bound must be reached.
        points = grid @ jacobian
        bounds = points @ mean + radius * np.linalg.norm(points, axis=1)
        assert bounds.min() - 2e-2 * np.abs(bounds.min()) - 2e-3 <= worst <= bounds.min() + 1e-9


def test_cagrad_stops_at_the_nearest_best_direction_where_the_hull_holds_zero():
    jacobian = np.array([[1.0, 0, 0, 0], [-1.0, 0, 0, 0], [0, 2.0, 0, 0]])
    np.testing.assert_allclose(aggregate("cagrad", jacobian), [0, 2 / 3, 0, 0], atol=1e-5)


def test_cagrad_in_single_precision_close_to_a_stationary_point():
    # The mean is 2000 times shorter than the gradients: its length is lost in the Gramian, which is no failure.
    jacobian = np.array([[-1.3996167, 0.00060878], [1.3990368, 0.00061074]])
    for scale in (1.0, 1e-3, 0.0):
        rows = jnp.asarray(jacobian * np.array([1.0, scale]), jnp.float32)
        method = regulate.cagrad(0.4)
        update, state = jax.jit(method.update)(rows, method.init(jnp.zeros(2, jnp.float32)))
        exact, _ = method.update(jnp.asarray(rows, jnp.float64), method.init(jnp.zeros(2)))
        assert np.all(np.isfinite(update)) and state.residual < 0.05
        # The squared length of what the step is made of comes with the rounding of 1.4².
        assert np.linalg.norm(update - exact) < 1.4 * np.finfo(np.float32).eps ** 0.5
        assert np.min(rows @ update) > np.min(rows @ exact) - 1e-6


def test_nash_and_fairgrad_solve_their_equations():
    for jacobian in random_jacobians(4):
        gramian = jacobian @ jacobian.T
        found = regulate.nash_mtl_weights(jnp.asarray(gramian))
        np.testing.assert_allclose(found.weights * (gramian @ found.weights), 1, rtol=1e-5)
        assert found.residual < 1e-12
        np.testing.assert_allclose(np.linalg.norm(jacobian.T @ found.weights) ** 2, K, rtol=1e-6)
        for alpha in (0.5, 3.0):
            found = regulate.fairgrad_weights(jnp.asarray(gramian), alpha).weights
            np.testing.assert_allclose(found ** (1 / alpha) * (gramian @ found), 1, rtol=1e-6)
    extreme = np.diag([1e-6, 1.0, 1e6]) @ jacobian
    found = regulate.nash_mtl_weights(jnp.asarray(extreme @ extreme.T)).weights
    np.testing.assert_allclose(found * (extreme @ (extreme.T @ found)), 1, rtol=1e-5)


def test_closed_forms():
    for jacobian in random_jacobians(4):
        units = jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
        direction = np.linalg.pinv(units) @ np.ones(K)
        direction = direction / np.linalg.norm(direction)
        np.testing.assert_allclose(
            aggregate("conflict_free", jacobian), np.sum(jacobian @ direction) * direction, rtol=1e-8, atol=1e-10
        )
        weights = np.asarray(regulate.imtl_g_weights(jnp.asarray(jacobian @ jacobian.T)).weights)
        np.testing.assert_allclose(weights.sum(), 1)
        projections = units @ (weights @ jacobian)
        np.testing.assert_allclose(projections, projections[0], rtol=1e-6)
        left, sizes, right = np.linalg.svd(jacobian, full_matrices=False)
        np.testing.assert_allclose(
            aggregate("aligned_mtl", jacobian), sizes[-1] * (left @ right).mean(0), rtol=1e-6, atol=1e-9
        )


def corrected(jacobian, targets, orders):
    """PCGrad and GradVac as published, on vectors."""
    total = np.zeros(jacobian.shape[1])
    for i, order in enumerate(orders):
        row = jacobian[i].copy()
        for j in order:
            other = jacobian[j]
            cosine = row @ other / np.linalg.norm(row) / np.linalg.norm(other)
            target = targets[i, j]
            if cosine < target:
                row = row + other * np.linalg.norm(row) * (
                    target * np.sqrt(1 - cosine**2) - cosine * np.sqrt(1 - target**2)
                ) / (np.linalg.norm(other) * np.sqrt(1 - target**2))
        total += row
    return total


def test_pcgrad_and_gradvac_follow_one_of_the_orders():
    orders = list(itertools.product(*[[tuple(p) for p in itertools.permutations({0, 1, 2} - {i})] for i in range(K)]))
    assert len(orders) == 8
    vaccine = regulate.gradvac(objectives=K, key=KEY, decay=0.5)
    step = jax.jit(vaccine.update)
    state = vaccine.init(jnp.zeros(DIM))
    seen, averages = set(), np.zeros((K, K))
    for jacobian in random_jacobians():
        found = aggregate("pcgrad", jacobian)
        fits = [np.allclose(found, corrected(jacobian, np.zeros((K, K)), order)) for order in orders]
        assert any(fits)
        update, state = step(jnp.asarray(jacobian), state)
        fits = [np.allclose(update, corrected(jacobian, averages, order)) for order in orders]
        assert any(fits)
        if sum(fits) == 1:
            seen.add(fits.index(True))
        units = jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
        averages = 0.5 * averages + 0.5 * units @ units.T
    assert len(seen) > 1  # orders are drawn anew


def test_graddrop_keeps_one_sign_and_the_sum_on_average():
    jacobian = next(random_jacobians())
    drop = regulate.graddrop(key=KEY)

    def step(state, _):
        update, state = drop.update(jnp.asarray(jacobian), state)
        return state, update

    _, draws = jax.lax.scan(step, drop.init(jnp.zeros(DIM)), length=20_000)
    positive, negative = np.maximum(jacobian, 0).sum(0), np.minimum(jacobian, 0).sum(0)
    assert np.all(np.isclose(draws, positive) | np.isclose(draws, negative))
    assert np.all(np.abs(draws.mean(0) - jacobian.sum(0)) < 4 * draws.std(0) / np.sqrt(20_000) + 1e-12)


def test_krum_and_trimmed_mean_are_robust_and_the_mean_is_not():
    random = np.random.default_rng(0)
    honest = random.normal(size=(8, DIM)) + 5
    for bad in (1e9, np.nan):
        grads = np.concatenate([honest, np.full((2, DIM), bad)])
        for robust in (regulate.krum(2, 3), regulate.trimmed_mean(2)):
            update = np.asarray(jax.jit(robust.update)(jnp.asarray(grads), robust.init(jnp.zeros(DIM)))[0])
            assert np.all(update >= honest.min(0)) and np.all(update <= honest.max(0))
        plain = regulate.mean(throw=False)
        update = np.asarray(plain.update(jnp.asarray(grads), plain.init(jnp.zeros(DIM)))[0])
        assert not np.all(np.abs(update) < 100)
    distances = np.sort(np.sum((honest[:, None] - honest[None]) ** 2, -1), axis=1)[:, 1 : 8 - 2 - 1]
    weights = regulate.krum_weights(jnp.asarray(honest @ honest.T), 2, 2).weights
    assert set(np.flatnonzero(weights)) == set(np.argsort(distances.sum(1))[:2])


def test_krum_is_not_blinded_by_one_huge_gradient_and_says_when_too_many_are_wrong():
    honest = 1 + 0.01 * np.random.default_rng(0).normal(size=(5, DIM))
    grads = np.concatenate([np.full((1, DIM), -100.0), honest, np.full((1, DIM), 1e30)])
    robust = regulate.krum(2, objectives=7)
    step = jax.jit(robust.update)
    update, state = step(jnp.asarray(grads, jnp.float32), robust.init(jnp.zeros(DIM, jnp.float32)))
    np.testing.assert_allclose(update, 1, atol=0.1)
    assert state.residual == 0
    grads[2:] = np.nan
    with pytest.raises(Exception, match="throw=False"):
        step(jnp.asarray(grads, jnp.float32), robust.init(jnp.zeros(DIM, jnp.float32)))
    quiet = regulate.krum_weights(jnp.asarray(grads @ grads.T), 2)
    assert bool(quiet.result != optx.RESULTS.successful) and quiet.residual == np.inf


def test_bloop_is_orthogonal_to_the_average_and_not_to_the_gradient():
    random = np.random.default_rng(0)
    method = regulate.bloop(2.0, decay=0.5)
    state, average = method.init(jnp.zeros(DIM)), np.zeros(DIM)
    for _ in range(3):
        grads = random.normal(size=(3, DIM))
        update, state = method.update(jnp.asarray(grads), state)
        average = 0.5 * average + 0.5 * grads[0]
        auxiliary = grads[1:].sum(0)
        expected = grads[0] + 2 * (auxiliary - (auxiliary @ average) / (average @ average) * average)
        np.testing.assert_allclose(update, expected, rtol=1e-10)
        assert abs((np.asarray(update) - grads[0]) @ average) < 1e-10
    assert abs((np.asarray(update) - grads[0]) @ grads[0]) > 1e-3


def test_gcond_settles_by_zone_and_tires_of_a_winner():
    method = regulate.gcond(objectives=2, momentum=0.0, window=2)
    step = jax.jit(method.update)

    def pair(cosine):
        return jnp.array([[1.0, 0.0], [cosine, np.sqrt(1 - cosine**2)]])

    for cosine in (0.1, -0.25, -0.5, -0.65, -0.9):
        grads = pair(cosine)
        update, _ = step(grads, method.init(jnp.zeros(2)))
        if cosine >= 0:
            angle = 0.0
        elif cosine >= -0.5:
            angle = np.pi / 2 * (cosine / -0.5)
        else:
            angle = np.pi / 2 * (1 + min((cosine + 0.5) / -0.3, 1) ** 2)
        winner, loser = np.asarray(grads)
        rows = winner - np.sin(angle) * cosine * loser, loser - np.sin(min(angle, np.pi / 2)) * cosine * winner
        np.testing.assert_allclose(update, sum(rows), atol=1e-9)  # one settlement ends the conflict
        if cosine == -0.25:
            np.testing.assert_allclose(update, [0.8825825, 1.1394092], atol=1e-7)
    state, winners = method.init(jnp.zeros(2)), []
    for _ in range(5):
        _, state = step(pair(-0.9), state)
        winners.append(int(state.inner.winners[-1]))
    assert winners == [0, 0, 1, 0, 0]


def test_sam_gs_equalises_lengths_or_modulates():
    method = regulate.sam_gs(objectives=2, threshold=0.9, decay=0.5, similarity_decay=0.5)
    state = method.init(jnp.zeros(2))
    unequal = np.array([[1.0, 0.0], [0.0, 9.0]])
    update, state = method.update(jnp.asarray(unequal), state)
    np.testing.assert_allclose(update, [5.0, 5.0])
    alike = np.array([[3.0, 1.0], [-1.0, 3.0]])
    update, _ = method.update(jnp.asarray(alike), state)
    momentum = (0.25 * unequal + 0.5 * alike) / 0.75
    dissimilarity = (0.5 * (0.5 * (1 - 18 / 82) ** 2 + 1e-8) + 1e-8) / 0.75
    np.testing.assert_allclose(update, (alike * np.abs(momentum) / np.sqrt(dissimilarity)).sum(0), rtol=1e-9)


def test_sam_gs_is_triggered_by_the_mean_over_pairs():
    method = regulate.sam_gs(objectives=3)
    lengths = np.array([1.0, 1.0, 3.0])  # similarities 1, 0.6 and 0.6: one pair is below the threshold, their mean not
    update, state = method.update(jnp.diag(lengths), method.init(jnp.zeros(3)))
    np.testing.assert_allclose(state.weights, 1)
    np.testing.assert_allclose(update, lengths**2 / np.sqrt((1 - 2.2 / 3) ** 2 + 1e-6), rtol=1e-9)
    update, _ = method.update(jnp.diag(jnp.array([1.0, 1.0, 4.0])), method.init(jnp.zeros(3)))
    np.testing.assert_allclose(update, 2)  # 1, 0.47 and 0.47


# Published properties, over matrices made to be nasty: norms up to 1e12 apart, rows equal, opposite or nearly so.
scales = st.lists(st.integers(-6, 6), min_size=K, max_size=K)
entries = st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=K * DIM, max_size=K * DIM)
bends = st.sampled_from(["none", "equal", "opposite", "nearly opposite", "dependent", "vanished"])


def adversarial(values, exponents, bend):
    jacobian = np.array(values).reshape(K, DIM) + 1e-3 * np.random.default_rng(0).normal(size=(K, DIM))
    if bend == "equal":
        jacobian[1] = jacobian[0]
    elif bend == "opposite":
        jacobian[1] = -jacobian[0]
    elif bend == "nearly opposite":
        jacobian[1] = -jacobian[0] * (1 + 1e-7) + 1e-7 * jacobian[2]
    elif bend == "dependent":
        jacobian[2] = -jacobian[0] - jacobian[1]
    elif bend == "vanished":
        jacobian[1] = 0
    return jacobian * 10.0 ** np.array(exponents, float)[:, None]


def worst_cosine(jacobian, direction):
    """Smallest cosine with a row, in units of the rows' share in the direction's rounding."""
    norms = np.linalg.norm(jacobian, axis=1)
    slopes = (jacobian @ direction)[norms > 0] / norms[norms > 0]
    return slopes.min() / norms.max()


@pytest.mark.parametrize("name", ["upgrad", "dual_projection", "mgda"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(entries, scales, bends)
def test_no_objective_is_hurt(name, values, exponents, bend):
    jacobian = adversarial(values, exponents, bend)
    update, residual = compiled(name)(jnp.asarray(jacobian))
    assert np.all(np.isfinite(update)) and residual < 1e-8
    direction = np.asarray(update)
    assert worst_cosine(jacobian, direction) > -1e-9
    # The shortest vector is no longer than the shortest gradient, and so has to be looked at in its own unit.
    norms = np.linalg.norm(jacobian, axis=1)
    length = np.linalg.norm(direction)
    if name == "mgda" and length > 1e-4 * norms.min() > 0:
        assert np.min(jacobian @ direction / norms) > -1e-7 * length


@settings(max_examples=60, deadline=None, derandomize=True)
@given(entries, st.sampled_from([-6, 0, 6]), st.sampled_from(["none", "equal", "nearly opposite"]))
def test_upgrad_helps_gradients_a_million_times_smaller(values, exponent, bend):
    """The cosine with the smallest gradient itself is kept, not only in units of the largest."""
    jacobian = adversarial(values, [0, 0, exponent], bend)
    update = aggregate("upgrad", jacobian)
    cosines = jacobian @ update / np.linalg.norm(jacobian, axis=1) / max(np.linalg.norm(update), 1e-300)
    if np.linalg.norm(update) > 1e-6 * np.linalg.norm(jacobian):
        assert cosines.min() > -1e-7


@settings(max_examples=40, deadline=None, derandomize=True)
@given(entries, st.lists(st.floats(0.1, 3), min_size=2 * K, max_size=2 * K), bends)
def test_upgrad_is_linear_under_scaling(values, factors, bend):
    jacobian = adversarial(values, [0] * K, bend)
    left, right = np.array(factors).reshape(2, K, 1)
    apart = aggregate("upgrad", left * jacobian) + aggregate("upgrad", right * jacobian)
    np.testing.assert_allclose(aggregate("upgrad", (left + right) * jacobian), apart, atol=1e-7)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(entries, st.lists(st.floats(0.1, 3), min_size=2, max_size=2))
def test_upgrad_vanishes_where_the_point_is_strongly_stationary(values, weights):
    jacobian = adversarial(values, [0] * K, "none")
    jacobian[2] = -(weights[0] * jacobian[0] + weights[1] * jacobian[1])
    np.testing.assert_allclose(aggregate("upgrad", jacobian), 0, atol=1e-6 * np.abs(jacobian).max())


def test_what_the_others_do_not_have():
    hurting = {
        "mean": [[1.0, 0, 0, 0], [-4.0, 1, 0, 0], [0, 0, 1, 0]],
        "cagrad": [[1.0, 0, 0, 0], [-4.0, 1, 0, 0], [0, 0, 1, 0]],
        "aligned_mtl": [[1.0, 0.1, 0, 0], [-1.0, 0.1, 0, 0], [-1.0, 0.1, 0.1, 0]],
        "imtl_g": [[1.0, 0, 0, 0], [2.0, 1.0, 0, 0], [-1.0, 1.0, 0, 0]],
        "pcgrad": None,
        "conflict_free": [[1.0, 0, 0, 0], [-1.0, 1.0, 0, 0], [-1.0, -1.0, 0, 0]],
    }
    random = np.random.default_rng(1)
    for name, jacobian in hurting.items():
        tried = [np.array(jacobian)] if jacobian else []
        tried += list(random.normal(size=(200, K, DIM)) * np.array([1, 1, 0.05, 0.05]))
        worst = min(worst_cosine(j, aggregate(name, j)) for j in tried)
        assert worst < -1e-3, name


def test_who_is_linear_under_scaling_and_who_is_not():
    jacobian = next(random_jacobians())
    # The dual projection is linear as long as the same rows are active: this pair changes them.
    turning = np.array([[1.0, 0, 0, 0], [-2.0, 1, 0, 0], [0, 0, 1, 0]])
    small, large = np.array([[1.0], [0.1], [1.0]]), np.array([[0.1], [2.0], [1.0]])
    for name in ("upgrad", "conflict_free", "mean", "mgda", "dual_projection", "nash_mtl", "aligned_mtl"):
        gaps = []
        for rows in (jacobian, turning):
            apart = aggregate(name, small * rows) + aggregate(name, large * rows)
            gaps.append(np.abs(apart - aggregate(name, (small + large) * rows)).max())
        if name in ("upgrad", "conflict_free", "mean"):
            assert max(gaps) < 1e-9, name
        else:
            assert max(gaps) > 1e-2, name


def test_the_large_solver_in_every_shape_of_rank():
    random = np.random.default_rng(0)
    for count, columns in ((64, 200), (64, 64), (64, 24)):
        jacobian = random.normal(size=(count, columns)) * 10.0 ** random.uniform(-3, 3, (count, 1))
        found = jax.jit(regulate.upgrad_weights)(jnp.asarray(jacobian @ jacobian.T))
        assert found.residual < 1e-8
        direction = found.weights @ jacobian
        cosines = jacobian @ direction / np.linalg.norm(jacobian, axis=1) / np.linalg.norm(direction)
        if columns > count:
            assert cosines.min() > -1e-8


def test_single_precision_keeps_its_promise_to_single_rounding():
    for jacobian in random_jacobians():
        weights = regulate.upgrad_weights(jnp.asarray(jacobian @ jacobian.T, jnp.float32)).weights
        assert weights.dtype == jnp.float32
        direction = np.asarray(weights, float) @ jacobian
        assert worst_cosine(jacobian, direction) > -2e-5


def test_failure_is_said_and_raised():
    nothing, start = jnp.full((2, 3), jnp.nan), jnp.zeros(3)
    method = regulate.upgrad(objectives=2)
    with pytest.raises(Exception, match="Look for NaN in the losses, or pass throw=False"):
        method.update(nothing, method.init(start))
    quiet = regulate.upgrad(objectives=2, throw=False)
    _, state = quiet.update(nothing, quiet.init(start))
    assert bool(state.result != optx.RESULTS.successful) and not np.isfinite(state.residual)
    method = regulate.imtl_g()  # its weights would sum to zero
    opposite = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    with pytest.raises(Exception, match="throw=False"):
        method.update(opposite, method.init(jnp.zeros(2)))


@pytest.mark.parametrize(
    "weigh",
    [
        regulate.upgrad_weights,
        regulate.dual_projection_weights,
        regulate.mgda_weights,
        regulate.cagrad_weights,
        regulate.nash_mtl_weights,
        regulate.fairgrad_weights,
        regulate.conflict_free_weights,
        regulate.imtl_g_weights,
        regulate.aligned_mtl_weights,
        functools.partial(regulate.pcgrad_weights, key=KEY),
        functools.partial(regulate.krum_weights, faulty=0),
    ],
)
def test_a_gramian_that_is_not_finite_is_no_success(weigh):
    for bad in (jnp.nan, jnp.inf):
        found = weigh(jnp.full((K, K), bad))
        assert bool(found.result != optx.RESULTS.successful) and found.residual == jnp.inf
    half = weigh(jnp.eye(K, dtype=jnp.bfloat16))
    assert bool(half.result == optx.RESULTS.successful) and half.weights.dtype == jnp.float32


QUIET = {
    "mean": regulate.mean(throw=False),
    "bloop": regulate.bloop(throw=False),
    "graddrop": regulate.graddrop(key=KEY, throw=False),
    "trimmed_mean": regulate.trimmed_mean(1, throw=False),
    "gcond": regulate.gcond(objectives=K, throw=False),
    "sam_gs": regulate.sam_gs(objectives=K, throw=False),
    "krum": regulate.krum(0, 2, throw=False),
    "upgrad": regulate.upgrad(throw=False),
}


@pytest.mark.parametrize("name", QUIET)
def test_the_state_tells_of_failures_where_nothing_raises(name):
    method, start = QUIET[name], jnp.zeros(DIM)
    step = jax.jit(method.update)
    healthy = jnp.asarray(next(random_jacobians()))
    state = step(healthy, method.init(start))[1]
    assert bool(state.result == optx.RESULTS.successful) and np.isfinite(state.residual)
    one_row = step(healthy.at[1, 2].set(jnp.nan), method.init(start))[1]
    # One bad gradient among three is what a trim of one, and two selected of three, are for.
    assert bool(one_row.result == optx.RESULTS.successful) == (name in {"trimmed_mean", "krum"})
    failed = step(healthy.at[:, 2].set(jnp.inf), method.init(start))[1]
    assert bool(failed.result != optx.RESULTS.successful) and failed.residual == np.inf


def test_a_rule_of_ones_own_equals_its_formula():
    def prepare(grads, memory):
        return jnp.clip(grads, -1, 1), memory

    def weigh(cosines, norms, memory):
        average = 0.5 * memory["norms"] + 0.5 * norms
        conflicts = jnp.sum(cosines < 0, axis=1)
        return regulate.Weights(1 / average / (1 + conflicts)), {**memory, "norms": average}

    def finish(vector, memory):
        return vector + memory["last"], {**memory, "last": vector}

    def memory(params):
        return {"norms": jnp.zeros(K), "last": jnp.zeros_like(params)}

    rule = regulate.aggregator(weigh, prepare=prepare, finish=finish, memory=memory, objectives=K)
    state, average, last = rule.init(jnp.zeros(DIM)), np.zeros(K), np.zeros(DIM)
    for jacobian in random_jacobians(3):
        update, state = jax.jit(rule.update)(jnp.asarray(jacobian), state)
        rows = np.clip(jacobian, -1, 1)
        average = 0.5 * average + 0.5 * np.linalg.norm(rows, axis=1)
        weights = 1 / average / (1 + np.sum(rows @ rows.T < 0, axis=1))
        np.testing.assert_allclose(update, weights @ rows + last, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(state.weights, weights, rtol=1e-10)
        last = weights @ rows


def test_a_rule_that_loses_its_memory_is_refused_and_one_that_fails_is_said():
    forgetful = regulate.aggregator(
        lambda cosines, norms, memory: (regulate.Weights(norms), None), memory=lambda params: jnp.zeros(2)
    )
    with pytest.raises(ValueError, match=r"a memory that is shaped like f\d\d\[2\], got None"):
        forgetful.update(jnp.eye(2), forgetful.init(jnp.zeros(2)))
    unsolved = regulate.aggregator(
        lambda cosines, norms: regulate.Weights(norms, 0.5, optx.RESULTS.nonlinear_max_steps_reached)
    )
    with pytest.raises(Exception, match="expected a solve within tolerance"):
        unsolved.update(jnp.eye(2), unsolved.init(jnp.zeros(2)))


def _rule(weigh, **options):
    return lambda: regulate.aggregator(weigh, **options)


MISUSED_RULES = {
    "no weigh": (_rule(None), "expected weigh, a function, got None"),
    "memory itself": (_rule(lambda c, n, m: m, memory=jnp.zeros(2)), "expected memory, a function, got"),
    "a bare array": (_rule(lambda c, n: n), r"weigh that returns Weights, got f\d\d\[2\]. Return regulate.Weights"),
    "one too many": (_rule(lambda c, n: regulate.Weights(jnp.ones(3))), r"weights of shape \[2\], got f\d\d\[3\]"),
    "a column": (_rule(lambda c, n: regulate.Weights(n[:, None])), r"weights of shape \[2\], got f\d\d\[2,1\]"),
    "a number": (_rule(lambda c, n: regulate.Weights(n[0])), r"weights of shape \[2\], got f\d\d\[\]"),
    "complex": (_rule(lambda c, n: regulate.Weights(1j * n)), r"expected real weights, got c\d+\[2\]"),
    "residuals": (_rule(lambda c, n: regulate.Weights(n, n)), r"a residual of shape \[\], got f\d\d\[2\]"),
    "no memory returned": (
        _rule(lambda c, n, m: regulate.Weights(n), memory=lambda p: jnp.zeros(2)),
        r"weigh that returns \(Weights, memory\), got",
    ),
    "half a finish": (_rule(lambda c, n: regulate.Weights(n), finish=lambda v, m: v), r"returns \(vector, memory\)"),
    "another vector": (
        _rule(lambda c, n: regulate.Weights(n), finish=lambda v, m: (v[:, None], m)),
        r"a vector that is shaped like f\d\d\[2\], got f\d\d\[2,1\]",
    ),
    "a memory that grows": (
        _rule(lambda c, n, m: (regulate.Weights(n), m + n), memory=lambda p: jnp.zeros(())),
        r"a memory that is shaped like f\d\d\[\], got f\d\d\[2\]",
    ),
    "whole numbers that would be truncated": (
        _rule(lambda c, n, m: (regulate.Weights(n), m + 0.5), memory=lambda p: 0),
        r"a memory of whole numbers, i\d\d\[\], got f\d\d\[\]. Let memory",
    ),
    "one left out": (
        _rule(lambda c, n, m: (regulate.Weights(n), m), prepare=lambda g, m: (g[:1], m), objectives=2),
        r"weights that is shaped like f\d\d\[2\], got f\d\d\[1\]. Weigh",
    ),
}


@pytest.mark.parametrize("case", MISUSED_RULES)
def test_a_rule_that_returns_something_else_is_refused(case):
    make, message = MISUSED_RULES[case]

    def use():
        rule = make()
        rule.update(jnp.eye(2), rule.init(jnp.zeros(2)))

    with pytest.raises(ValueError, match=message):
        use()


def test_a_vector_that_is_spoilt_after_the_sum_is_said():
    def made(**options):
        finish = lambda vector, memory: (vector / 0, memory)  # noqa: E731
        rule = regulate.aggregator(lambda c, n: regulate.Weights(n), finish=finish, **options)
        return rule.update(jnp.eye(2), rule.init(jnp.zeros(2)))[1]

    with pytest.raises(Exception, match="expected finite gradients"):
        made()
    state = made(throw=False)
    assert state.residual == jnp.inf and state.result == optx.RESULTS.nonlinear_divergence


def test_a_memory_of_plain_numbers_counts():
    def weigh(cosines, norms, taken):
        return regulate.Weights(norms / (1 + taken)), taken + 1

    rule = regulate.aggregator(weigh, memory=lambda params: 0)
    step = jax.jit(lambda state, _: rule.update(jnp.eye(2), state)[::-1])
    state, vectors = jax.lax.scan(step, rule.init(jnp.zeros(2)), length=3)
    np.testing.assert_allclose(vectors[:, 0], [1, 1 / 2, 1 / 3], rtol=1e-6)
    assert state.inner == 3


def test_aggregators_are_optax_aggregators():
    aggregating = pytest.importorskip("optax.experimental").aggregating
    jacobians = jnp.asarray(list(random_jacobians(3)))
    chained = optax.chain(regulate.upgrad(), optax.adam(1e-2))
    processed = aggregating.process(optax.identity(), regulate.upgrad(), optax.adam(1e-2))

    def run(optimizer):
        def step(state, jacobian):
            return optimizer.update(jacobian, state, jnp.zeros(DIM))[::-1]

        return jax.lax.scan(step, optimizer.init(jnp.zeros(DIM)), jacobians)[1]

    np.testing.assert_array_equal(run(processed), run(chained))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: regulate.cagrad(1.0), "radius"),
        (lambda: regulate.fairgrad(0.0), "alpha"),
        (lambda: regulate.upgrad(objectives=0), "objective"),
        (lambda: regulate.trimmed_mean(-1), "trim"),
        (lambda: regulate.bloop(decay=1.0), "decay"),
        (lambda: regulate.gcond(objectives=2, thresholds=(0.0, -0.5, -0.8)), "thresholds"),
        (lambda: regulate.sam_gs(objectives=2, threshold=2.0), "threshold"),
        (lambda: regulate.krum_weights(jnp.eye(4), 1), "faulty"),
        (lambda: regulate.upgrad_weights(jnp.ones((2, 3))), "square"),
    ],
)
def test_faults_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        transformation = make()
        if hasattr(transformation, "init"):
            transformation.init(jnp.zeros(2))


@pytest.mark.parametrize("compiled", [lambda f: f, eqx.filter_jit, jax.jit], ids=["eager", "filter_jit", "jit"])
def test_gradients_that_are_not_finite_are_named_however_the_step_is_compiled(compiled):
    method = regulate.upgrad()
    step = compiled(lambda grads, state: method.update(grads, state))
    for bad in (jnp.nan, jnp.inf):
        with pytest.raises(Exception, match="expected finite gradients, got NaN or infinity"):
            jax.block_until_ready(step(jnp.array([[1.0, bad], [0.0, 1.0]]), method.init(jnp.zeros(2))))
    # What failed is the solve, not the gradients: its sentence is another.
    method = regulate.imtl_g()
    step = compiled(lambda grads, state: method.update(grads, state))
    with pytest.raises(Exception, match="expected a solve within tolerance, got a residual above it"):
        jax.block_until_ready(step(jnp.array([[1.0, 0.0], [-1.0, 0.0]]), method.init(jnp.zeros(2))))


def test_gradients_are_floats_and_counts_are_whole():
    method = regulate.upgrad()
    for grads in (jnp.ones((2, 3), int), {"a": jnp.ones((2, 3)), "b": jnp.ones((2, 3), bool)}):
        with pytest.raises(ValueError, match="gradients of real floating-point numbers"):
            method.update(grads, method.init(jnp.ones(3)))
    for count in (0, 2.0, "3"):
        with pytest.raises(ValueError, match="objectives as a whole number, at least 1"):
            regulate.upgrad(objectives=count).init(jnp.ones(3))


def test_leading_axes_must_agree():
    method = regulate.upgrad()
    with pytest.raises(ValueError, match="leading axis"):
        method.update((jnp.ones((2, 3)), jnp.ones((3, 3))), method.init((jnp.ones(3), jnp.ones(3))))
    with pytest.raises(ValueError, match="leading axis"):
        method.update(jnp.ones((0, 3)), method.init(jnp.ones(3)))
    with pytest.raises(ValueError, match="real gradients"):
        method.update(jnp.ones((2, 3), complex), method.init(jnp.ones(3)))
    counted = regulate.upgrad(objectives=3)
    with pytest.raises(ValueError, match="3 objectives"):
        counted.update(jnp.ones((2, 3)), counted.init(jnp.ones(3)))


def test_the_guard_restores_what_adam_undoes():
    random = np.random.default_rng(0)
    jacobians = jnp.asarray(random.normal(size=(40, K, DIM)) * np.array([3.0, 1.0, 0.3, 0.1]))
    bare = optax.chain(regulate.upgrad(), optax.adam(1e-2))
    safe = optax.chain(regulate.upgrad(), optax.adam(1e-2), regulate.guard())

    def run(optimizer):
        def step(state, jacobian):
            update, state = optimizer.update(jacobian, state, jnp.zeros(DIM), gradients=jacobian)
            return state, (jnp.max(jacobian @ update), update, state[-1])

        return jax.lax.scan(step, optimizer.init(jnp.zeros(DIM)), jacobians)[1]

    slopes, updates, _ = run(bare)
    guarded, kept, records = run(safe)
    assert np.mean(slopes > 1e-4) > 0.2 and np.all(guarded < 1e-12)
    quiet = np.asarray(slopes) <= 0
    np.testing.assert_array_equal(np.asarray(kept)[quiet], np.asarray(updates)[quiet])
    np.testing.assert_array_equal(np.asarray(records.conflict) > 0, ~quiet)
    for jacobian, update, projected in zip(jacobians, updates, kept):
        np.testing.assert_allclose(projected, cone_projection(-np.asarray(jacobian), np.asarray(update)), atol=1e-10)
    with pytest.raises(ValueError, match="extra argument"):
        regulate.guard().update(jnp.ones(2), regulate.guard().init(jnp.ones(2)))


def test_values_and_gradients_of_several_losses():
    passes = []

    def trunk(params, x):
        passes.append(1)
        return jnp.tanh(params["weight"] @ x)

    def losses(params, x):
        hidden = trunk(params, x)
        return jnp.stack([jnp.sum(hidden), jnp.sum(hidden**2), jnp.sum(params["weight"] ** 2)])

    params = {"weight": jnp.asarray(np.random.default_rng(0).normal(size=(2, 3))), "name": "linear", "count": 3}
    x = jnp.arange(3.0)
    values, grads = regulate.multi_value_and_grad(losses)(params, x)
    assert len(passes) == 1 and grads["name"] is None and grads["count"] is None
    expected = jax.jacobian(lambda w: losses({"weight": w}, x))(params["weight"])
    np.testing.assert_allclose(grads["weight"], expected, rtol=1e-12)
    np.testing.assert_allclose(values, losses(params, x))
    singles = [lambda p, x, i=i: losses(p, x)[i] for i in range(3)]
    listed = regulate.multi_value_and_grad(singles)(params, x)
    np.testing.assert_allclose(listed[1]["weight"], expected, rtol=1e-12)
    (_, extra), _ = regulate.multi_value_and_grad(lambda p, x: (losses(p, x), "kept"), has_aux=True)(params, x)
    assert extra == "kept"
    with pytest.raises(ValueError, match="vector"):
        regulate.multi_value_and_grad(lambda p, x: jnp.sum(p["weight"]))(params, x)
    with pytest.raises(ValueError, match="vector"):
        regulate.multi_value_and_grad(lambda p, x: [jnp.sum(p["weight"])])(params, x)
    with pytest.raises(ValueError, match="at least one loss"):
        regulate.multi_value_and_grad([])
    for wrong, words in (
        (lambda p, x: p["weight"], r"expected loss 1, one that returns one real number, got f64\[.*Take the mean"),
        (lambda p, x: (losses(p, x)[0], 1), "loss 1, one that returns one real number, got .*Return the loss alone"),
        (lambda p, x: jnp.sum(p["weight"])[None], r"one real number, got f64\[1\]"),
    ):
        with pytest.raises(ValueError, match=words):
            regulate.multi_value_and_grad([singles[0], wrong])(params, x)
    with pytest.raises(ValueError, match=r"each of the losses, a function, got 3\.0"):
        regulate.multi_value_and_grad([singles[0], 3.0])
