"""What the diagnostics of a field declare: other shapes, dtypes, counts and keys are refused, and none is broadcast."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import diagnose
from nablax.calculus import Estimate

KEY = jax.random.key(0)
YS = jax.random.normal(KEY, (60, 2))


def decay(t, y, args):
    return -y


def density(t, y, args):
    return -0.5 * jnp.sum(y**2)


# Each takes a field and samples; those at one time have one order, (field, t, ys, args).
DIAGNOSTICS = {
    "conservativity": lambda f, ys, key=KEY: diagnose.conservativity(f, 0.5, ys, key=key, loops=2, nodes=4, probes=1),
    "continuity": lambda f, ys, key=KEY: diagnose.continuity(f, density, 0.5, ys),
    "gauge": lambda f, ys, key=KEY: diagnose.gauge(f, 0.5, ys, waves=0, tests=2, key=key),
    "gauge, score": lambda f, ys, key=KEY: diagnose.gauge(decay, 0.5, ys, score=f, waves=0, tests=2, key=key),
    "gauge, reference": lambda f, ys, key=KEY: diagnose.gauge(decay, 0.5, ys, reference=f, waves=0, tests=2, key=key),
    "intrinsic_dimension": lambda f, ys, key=KEY: diagnose.intrinsic_dimension(f, 0.5, ys, sigma=0.1),
    "fixed_points": lambda f, ys, key=KEY: diagnose.fixed_points(f, 0.5, ys, max_steps=4),
    "path_geometry": lambda f, ys, key=KEY: diagnose.path_geometry(f, ys, steps=2),
    "stiffness": lambda f, ys, key=KEY: diagnose.stiffness(f, ys, steps=2, times=2, key=key),
    "field": lambda f, ys, key=KEY: diagnose.field_health(f, 0.5, ys, steps=2, waves=0, key=key),
}
ONE_START = {
    "lyapunov": lambda f, ys, key=KEY: diagnose.lyapunov(f, ys[0], t1=1.0, steps=40, key=key),
}
EVERY = DIAGNOSTICS | ONE_START
RANDOM = ("conservativity", "gauge", "stiffness", "field", "lyapunov")

WRONG_FIELDS = {
    "column": (lambda t, y, args: y[:, None], r"shaped like its state, f32\[2\], got f32\[2,1\]"),
    "one number": (lambda t, y, args: jnp.sum(y)[None], r"shaped like its state, f32\[2\], got f32\[1\]"),
    "scalar": (lambda t, y, args: jnp.sum(y), r"shaped like its state, f32\[2\], got f32\[\]"),
    "flat tree": (lambda t, y, args: {"dy": y}, r"shaped like its state, f32\[2\], got \{'dy': f32\[2\]\}"),
    "y before t": (lambda y, t, args: -y, r"expected a field of \(t, y, args\), got one of \(y, t, args\)"),
    "no args": (lambda t, y: -y, r"three arguments, \(t, y, args\), got \(t, y\)"),
}


@pytest.mark.parametrize(("name", "diagnostic"), EVERY.items(), ids=EVERY)
def test_a_field_whose_value_is_not_shaped_like_its_state_is_refused(name, diagnostic):
    for field, message in WRONG_FIELDS.values():
        with pytest.raises(ValueError, match=message):
            diagnostic(field, YS)
    for field in (3.0,) if "," in name else (3.0, None):  # there a second field, which may be left out
        with pytest.raises(ValueError, match="expected a field, a function, got"):
            diagnostic(field, YS)


@pytest.mark.parametrize("diagnostic", DIAGNOSTICS.values(), ids=DIAGNOSTICS)
def test_samples_that_are_not_rows_of_finite_floats_are_refused(diagnostic):
    for ys, message in (
        (YS.at[7, 1].set(jnp.nan), "finite samples, got NaN or infinity in row 7"),
        (YS.at[jnp.array([3, 9, 11]), 0].set(jnp.inf), "NaN or infinity in row 3 and 2 more"),
        (jnp.ones((60, 2), int), r"samples of real floating-point numbers, got i32\[60,2\]"),
        (jnp.ones((0, 2)), "non-empty leading axis"),
        (jnp.array(1.0), "non-empty leading axis"),
    ):
        with pytest.raises(ValueError, match=message):
            diagnostic(decay, ys)


@pytest.mark.parametrize("name", RANDOM)
def test_a_seed_is_no_key(name):
    with pytest.raises(ValueError, match=r"a random key, got .*jax\.random\.key\(0\)"):
        EVERY[name](decay, YS, 0)


def test_a_start_that_is_not_of_finite_floats_is_refused():
    for y0, message in ((jnp.array([1.0, jnp.nan]), "finite start"), (jnp.array([1, 2]), "real floating-point")):
        with pytest.raises(ValueError, match=message):
            diagnose.lyapunov(decay, y0, t1=1.0, steps=40, key=KEY)


COUNTS = {
    "probes": lambda n: diagnose.conservativity(decay, 0.0, YS, key=KEY, probes=n),
    "loops": lambda n: diagnose.conservativity(decay, 0.0, YS, key=KEY, loops=n),
    "nodes": lambda n: diagnose.conservativity(decay, 0.0, YS, key=KEY, nodes=n),
    "tests": lambda n: diagnose.gauge(decay, 0.0, YS, tests=n, key=KEY),
    "steps": lambda n: diagnose.path_geometry(decay, YS, steps=n),
    "krylov": lambda n: diagnose.stiffness(decay, YS, krylov=n, key=KEY),
    "times": lambda n: diagnose.stiffness(decay, YS, times=n, key=KEY),
    "max_steps": lambda n: diagnose.fixed_points(decay, 0.0, YS, max_steps=n),
    "trajectories": lambda n: diagnose.field_health(decay, 0.0, YS, trajectories=n, key=KEY),
    "blocks": lambda n: diagnose.lyapunov(decay, YS[0], t1=1.0, steps=40, blocks=n, key=KEY),
    "count": lambda n: diagnose.lyapunov(decay, YS[0], t1=1.0, steps=40, count=n, key=KEY),
}


@pytest.mark.parametrize(("name", "use"), COUNTS.items(), ids=COUNTS)
def test_counts_are_whole_and_large_enough(name, use):
    for count in (0, -3, 4.0, "8", True):
        with pytest.raises(ValueError, match=f"expected {name} as a whole number, at least [1-9], got"):
            use(count)


def test_a_log_density_is_one_number_a_sample():
    with pytest.raises(ValueError, match=r"a log-density that returns one real number, got f32\[2\]"):
        diagnose.continuity(decay, decay, 0.5, YS)
    with pytest.raises(ValueError, match=r"a log-density, a function, got 0\.5"):
        diagnose.continuity(decay, 0.5, 0.5, YS)


def test_half_precision_is_computed_in_single(key):
    """A linear field whose numbers are known, in samples of eight bits of mantissa."""
    matrix = jnp.array([[-1.0, 2.0], [-2.0, -1.0]])

    def field(t, y, args):
        return (matrix @ y).astype(y.dtype)

    ys = YS.astype(jnp.bfloat16)
    record = diagnose.conservativity(field, 0.0, ys, key=key, loops=2, nodes=4)
    # ‖(J − Jᵀ)/2‖² / ‖J‖² = 8 / 10.
    np.testing.assert_allclose(record.antisymmetry.value, 0.8, atol=1e-5)
    health = diagnose.field_health(field, 0.0, ys, steps=8, waves=0, key=key)
    np.testing.assert_allclose(health.stiffness.lipschitz.value, np.sqrt(5), rtol=1e-5)
    numbers = [leaf for leaf in jax.tree.leaves(health) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert {str(leaf.dtype) for leaf in numbers} == {"float32"} and all(jnp.isfinite(leaf).all() for leaf in numbers)

    def half(t, y, args):
        return (matrix.astype(jnp.bfloat16) @ y.astype(jnp.bfloat16)).astype(jnp.bfloat16)

    # The network itself in halves: its value is widened, so that a solver can add it to the state.
    moved = diagnose.path_geometry(half, YS, steps=8)
    exact = diagnose.path_geometry(field, YS, steps=8)
    np.testing.assert_allclose(moved.energy.value, exact.energy.value, rtol=0.02)


def test_a_split_says_in_words_whether_it_is_resolved(key):
    """A gradient of short waves in few samples is not; one that the basis holds is; a few samples leave it open."""

    def gradient(t, y, args):
        return jnp.array([-1.0, -3.0]) * y

    found = diagnose.gauge(gradient, 0.0, YS, waves=0, key=key)
    assert found.verdict().startswith("Resolved: overlap") and found.verdict() in found.table()

    def overlap(value, error):
        given = Estimate(jnp.array(value), jnp.array(error))
        return eqx.tree_at(lambda record: record.overlap, found, given).verdict()

    assert overlap(-0.55, 0.37).startswith("Cannot be told: overlap -0.55 ± 0.37")
    assert overlap(-0.55, 0.10).startswith("Not resolved: overlap -0.55 ± 0.1")
    assert overlap(0.01, 0.02).startswith("Resolved: overlap 0.01 ± 0.02")
    assert overlap(jnp.nan, 0.02).startswith("Not resolved")
    assert overlap(0.0, jnp.nan).startswith("Not resolved")


def test_samples_of_the_time_at_which_paths_end_are_told_to_go_back(key):
    ys = jax.random.normal(key, (64, 2))
    with pytest.raises(ValueError, match=r"t, the samples' time, apart from t1=1\.0.*For data at t=1 pass t1=0"):
        diagnose.field_health(lambda t, y, args: -y, 1.0, ys, key=key)
    record = diagnose.field_health(lambda t, y, args: -y, 1.0, ys, t1=0.0, key=key)
    assert record.path.energy.value > 0


def test_samples_in_the_place_of_their_time_are_told_the_order(key):
    with pytest.raises(ValueError, match="the time first"):
        diagnose.conservativity(lambda t, y, args: -y, jnp.ones((8, 2)), 0.5, key=key)
