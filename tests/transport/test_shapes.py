"""What the room's signatures declare: every other shape, dtype, count, key and class is refused, and nothing broadcast."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.fields import MLP
from nablax.follow import Solver, flow
from nablax.spaces import Euclidean
from nablax.transport import (
    Bounds,
    Empirical,
    Linear,
    Normal,
    SinkhornCoupling,
    Transport,
    VariancePreserving,
    class_aware_coupling,
    complete,
    constant_step_guidance,
    coupled_batches,
    denoising_score_matching,
    flow_matching,
    guidance,
    independent_coupling,
    inpainting,
    optimal_coupling,
    posterior_guidance,
    predictor_corrector,
    pseudoinverse_guidance,
    reflow,
    sample_posterior,
    sample_sde,
    solve_inverse,
    steer,
)

KEY = jax.random.key(0)


def standard(t, y, args):
    """Carries N(0, I) to N(0, I)."""
    return (2 * t - 1) / (t**2 + (1 - t) ** 2) * y


PLANE = Transport(standard, Linear(), Normal((2,)), Euclidean((2,)))

# Values that NumPy would broadcast against a state of two numbers, each from a plausible slip.
WRONG_FIELDS = {
    "column": (lambda t, y, args: y[:, None], r"shaped like its state, f32\[2\], got f32\[2,1\]"),
    "one number": (lambda t, y, args: jnp.sum(y)[None], r"shaped like its state, f32\[2\], got f32\[1\]"),
    "scalar": (lambda t, y, args: jnp.sum(y), r"shaped like its state, f32\[2\], got f32\[\]"),
    "list": (lambda t, y, args: [y[0], y[1]], r"shaped like its state, f32\[2\], got \[f32\[\], f32\[\]\]"),
    "y before t": (lambda y, t, args: -y, r"expected a field of \(t, y, args\), got one of \(y, t, args\)"),
    "y before t, indexed": (lambda y, t, args: jnp.stack([y[1], -y[0]]), r"got one of \(y, t, args\)"),
    "no args": (lambda t, y: -y, r"a field of three arguments, \(t, y, args\), got \(t, y\)"),
}
USES = {
    "flow_matching": lambda f: flow_matching(Linear())(f, jnp.zeros((4, 2)), key=KEY),
    "denoising_score_matching": lambda f: denoising_score_matching(Linear())(f, jnp.zeros((4, 2)), key=KEY),
    "velocity": lambda f: with_field(f).velocity(jnp.array(0.5), jnp.ones(2)),
    "sample": lambda f: with_field(f).sample(3, key=KEY),
    "sample, each row its steps": lambda f: with_field(f).sample(3, key=KEY, per_sample=True),
    "encode": lambda f: with_field(f).encode(jnp.ones((3, 2))),
    "log_prob": lambda f: with_field(f).log_prob(jnp.ones((3, 2))),
    "log_prob, stochastic": lambda f: with_field(f).log_prob(jnp.ones((3, 2)), divergence="stochastic", key=KEY),
    "sample_sde": lambda f: sample_sde(with_field(f), 3, key=KEY, steps=2),
    "predictor_corrector": lambda f: predictor_corrector(with_field(f), 3, key=KEY, steps=2),
    "steer": lambda f: steer(with_field(f), lambda x, args: jnp.sum(x), 3, key=KEY, steps=2),
    "posterior_guidance": lambda f: posterior_guidance(with_field(f), lambda x, a: jnp.sum(x), 3, key=KEY, steps=2),
    "solve_inverse": lambda f: solve_inverse(with_field(f), lambda x: x, jnp.ones(2), 0.1, 3, key=KEY, steps=2),
    "complete": lambda f: complete(with_field(f), jnp.ones(2), jnp.array([True, False]), 1, key=KEY, steps=2),
    "sample_posterior": lambda f: sample_posterior(with_field(f), lambda x: x, jnp.ones(2), 0.1, 1, key=KEY, steps=2),
    "reflow": lambda f: reflow(with_field(f), 3, key=KEY, solver=Solver(steps=2)),
    "flow": lambda f: flow(f, jnp.ones(2), 0.0, 1.0),
}


def with_field(field):
    return Transport(field, Linear(), Normal((2,)), Euclidean((2,)))


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_field_whose_value_is_not_shaped_like_its_state_is_refused_wherever_it_is_used(use):
    for field, message in WRONG_FIELDS.values():
        with pytest.raises(ValueError, match=message):
            use(field)


def test_the_guided_field_is_checked_like_any_other():
    for field, message in list(WRONG_FIELDS.values())[:4]:
        with pytest.raises(ValueError, match=message):
            guidance(field, 2.0)(jnp.array(0.5), jnp.ones(2), jnp.ones(1))
    with pytest.raises(ValueError, match=r"a scale of shape \[\], got f32\[2\]"):
        guidance(standard, jnp.ones(2))


def test_a_fault_of_the_users_own_is_left_as_it_is():
    def broken(t, y, args):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        with_field(broken).velocity(jnp.array(0.5), jnp.ones(2))


ROWS = {
    "one row": (jnp.array([3.0, 2.0]), r"data of shape \[…, 2\], got f32\[2\]\. .*ys\[None\]"),
    "five columns": (jnp.ones((3, 5)), r"data of shape \[…, 2\], got f32\[3,5\]"),
    "three axes": (jnp.ones((3, 2, 2)), r"data of shape \[…, 2\], got f32\[3,2,2\]"),
    "one column": (jnp.ones((3, 1)), r"data of shape \[…, 2\], got f32\[3,1\]"),
    "a list": ([[3.0, 2.0]], r"data of shape \[…, 2\], got a list"),
    "integers": (jnp.ones((3, 2), int), r"data of real floating-point numbers, got i32\[3,2\]"),
    "no rows": (jnp.ones((0, 2)), "at least one row"),
}
VERBS = {
    "log_prob": PLANE.log_prob,
    "encode": PLANE.encode,
    "interpolate": lambda ys: PLANE.interpolate(0.5, ys, key=KEY),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
@pytest.mark.parametrize(("ys", "message"), ROWS.values(), ids=ROWS)
def test_rows_of_another_shape_or_dtype_are_refused(verb, ys, message):
    with pytest.raises(ValueError, match=message):
        verb(ys)


def test_a_batch_given_to_a_view_is_refused():
    for view in ("velocity", "score", "noise", "denoiser"):
        with pytest.raises(ValueError, match=r"f32\[2\], got f32\[5,2\]\. .*jax\.vmap"):
            getattr(PLANE, view)(jnp.array(0.5), jnp.ones((5, 2)))


COUNTS = {
    "sample": lambda n, key=KEY, args=None: PLANE.sample(n, key=key, args=args),
    "sample_sde": lambda n, key=KEY, args=None: sample_sde(PLANE, n, key=key, args=args, steps=2),
    "predictor_corrector": lambda n, key=KEY, args=None: predictor_corrector(PLANE, n, key=key, args=args, steps=2),
    "steer": lambda n, key=KEY, args=None: steer(PLANE, Bounds(0.0), n, key=key, args=args, steps=2),
    "posterior_guidance": lambda n, key=KEY, args=None: posterior_guidance(
        PLANE, Bounds(0.0), n, key=key, args=args, steps=2
    ),
    "pseudoinverse_guidance": lambda n, key=KEY, args=None: pseudoinverse_guidance(
        PLANE, lambda x: x, jnp.ones(2), 0.1, n, key=key, args=args, steps=2
    ),
}


@pytest.mark.parametrize("draw", COUNTS.values(), ids=COUNTS)
def test_counts_keys_and_conditions_of_samplers_are_checked(draw):
    for count in (-1, 0, 2.5, "3", None):
        with pytest.raises(ValueError, match="expected count as a whole number, at least 1, got"):
            draw(count)
    with pytest.raises(ValueError, match=r"a random key, got .*jax\.random\.key\(0\)"):
        draw(3, key=0)
    with pytest.raises(ValueError, match=r"args with leading axis 3, got f32\[2,1\]"):
        draw(3, args=jnp.ones((2, 1)))


def test_a_count_of_numpys_is_a_count():
    assert PLANE.sample(np.int64(3), key=KEY, solver=Solver(steps=2)).shape == (3, 2)


BATCHES = {
    "conditions": ({"data": jnp.ones((4, 2)), "conditions": jnp.ones((4, 1))}, r"'data', 'conditions'"),
    "no data": ({"x": jnp.ones((4, 2))}, 'a batch with "data"'),
    "integers": (jnp.ones((4, 2), int), r"data of real floating-point numbers, got i32\[4,2\]"),
    "integers in a batch": ({"data": jnp.ones((4, 2), int)}, "real floating-point"),
    "a list": ([1.0, 2.0], "real floating-point"),
    "no rows": (jnp.ones((0, 2)), "a leading axis of rows"),
    "noise that broadcasts": ({"data": jnp.ones((4, 2)), "noise": jnp.ones((4, 1))}, r"f32\[4,2\], got f32\[4,1\]"),
    "one noise for all": ({"data": jnp.ones((4, 2)), "noise": jnp.ones(2)}, r"f32\[4,2\], got f32\[2\]"),
    "one condition for all": ({"data": jnp.ones((4, 2)), "condition": jnp.ones(1)}, "a condition with leading axis 4"),
}


@pytest.mark.parametrize(("batch", "message"), BATCHES.values(), ids=BATCHES)
def test_batches_that_do_not_fit_are_refused(batch, message):
    for loss in (flow_matching(Linear()), denoising_score_matching(VariancePreserving())):
        with pytest.raises(ValueError, match=message):
            loss(standard, batch, key=KEY)
    with pytest.raises(ValueError, match="a random key"):
        flow_matching(Linear())(standard, jnp.ones((4, 2)), key=0)


def test_what_is_a_class_and_was_not_called_is_named():
    normal, plane = Normal((2,)), Euclidean((2,))
    for make, name in (
        (lambda: flow_matching(Linear), "Linear"),
        (lambda: denoising_score_matching(VariancePreserving), "VariancePreserving"),
        (lambda: Transport(standard, Linear, normal, plane), "Linear"),
        (lambda: Transport(standard, Linear(), Normal, plane), "Normal"),
        (lambda: Transport(standard, Linear(), normal, Euclidean), "Euclidean"),
        (lambda: Transport(MLP, Linear(), normal, plane), "MLP"),
        (lambda: flow(standard, jnp.ones(2), 0.0, 1.0, solver=Solver(method=diffrax.Heun)), "Heun"),
    ):
        with pytest.raises(ValueError, match=rf"got the class {name}\. Make one"):
            make()
    with pytest.raises(ValueError, match="expected a path, got"):
        Transport(standard, "linear", normal, plane)


def test_a_whole_number_is_the_shape_of_a_vector_everywhere():
    assert Normal(2).shape == Euclidean(2).shape == Normal((2,)).shape == (2,)
    assert MLP(2, key=KEY).shape == (2,) and Normal(2).sample(KEY).shape == (2,)
    for shape in (2.0, "2", (2.0,), (0,), -1, None, (True,)):
        for kind in (Normal, Euclidean):
            with pytest.raises(ValueError, match=r"the shape of one sample.*Write \(2,\)"):
                kind(shape)


def test_samples_of_an_empirical_prior_are_finite_floats():
    for samples, message in (
        ([[1.0, 2.0]], "an array|real floating"),
        (jnp.ones((3, 2), int), r"got i32\[3,2\]"),
        (jnp.ones((3, 2)).at[1, 0].set(jnp.nan), "NaN or infinity in row 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Empirical(samples)


@pytest.mark.parametrize(
    "coupling",
    [optimal_coupling, class_aware_coupling, SinkhornCoupling(0.1)],
    ids=["optimal", "class-aware", "sinkhorn"],
)
def test_couplings_refuse_what_has_no_distances(coupling):
    rows = np.ones((3, 2), np.float32)

    def pair(noise, data):
        return coupling(noise, data, key=KEY, labels=np.zeros(len(data)) if len(np.shape(data)) else None)

    for bad, message in (
        (np.full((3, 2), np.nan, np.float32), "finite data, got NaN or infinity in row 0 and 2 more"),
        (np.where(np.eye(3, 2, -1) > 0, np.inf, rows).astype(np.float32), "NaN or infinity in row 1"),
        (np.ones((0, 2), np.float32), "at least one pair"),
        (np.ones((3, 3), np.float32), "of one shape"),
        (np.ones((3, 1), np.float32), "of one shape"),
        ([[1.0, 2.0]] * 3, "got a list"),
    ):
        noise = bad if np.shape(bad) == (0, 2) else rows
        with pytest.raises(ValueError, match=message):
            pair(noise, bad)
    with pytest.raises(ValueError, match="finite noise, got NaN or infinity in row 0"):
        pair(np.full((3, 2), np.nan, np.float32), rows)


def test_independent_pairs_and_coupled_batches_are_checked_too():
    with pytest.raises(ValueError, match="of one shape"):
        independent_coupling(np.ones((3, 2)), np.ones((3, 1)), key=KEY)
    for wrong in (0, 2.0, 5):
        with pytest.raises(ValueError, match="batch_size"):
            coupled_batches(np.ones((4, 2), np.float32), optimal_coupling, wrong, key=KEY)
    with pytest.raises(ValueError, match="a random key"):
        coupled_batches(np.ones((4, 2), np.float32), optimal_coupling, 2, key=0)
    with pytest.raises(ValueError, match="real floating-point"):
        coupled_batches(np.ones((4, 2), int), optimal_coupling, 2, key=KEY)


def test_costs_bounds_and_operators_are_checked():
    with pytest.raises(ValueError, match=r"a cost that returns one real number, got f32\[2\]"):
        steer(PLANE, lambda x, args: x, 3, key=KEY, steps=2)
    with pytest.raises(ValueError, match=r"a cost that returns one real number, got f32\[1\]"):
        posterior_guidance(PLANE, lambda x, args: jnp.sum(x)[None], 3, key=KEY, steps=2)
    for guided in (steer, posterior_guidance, constant_step_guidance):
        with pytest.raises(ValueError, match=r"a cost of 2 arguments, got one of \(x\)\. Write cost\(x1, args\)"):
            guided(PLANE, lambda x: jnp.sum(x), 3, key=KEY, steps=2)
    with pytest.raises(ValueError, match=r"bounds of shape \(2,\), or one number, got shape \(1,\)"):
        steer(PLANE, Bounds(jnp.ones(1)), 3, key=KEY, steps=2)
    with pytest.raises(ValueError, match=r"the mask's shape \(1,\)"):
        solve_inverse(PLANE, inpainting(jnp.array([True])), jnp.ones(2), 0.1, 3, key=KEY, steps=2)
    for solve in (solve_inverse, pseudoinverse_guidance):
        with pytest.raises(ValueError, match=r"an observation of shape \[2\], got f32\[1\]"):
            solve(PLANE, lambda x: x, jnp.ones(1), 0.1, 3, key=KEY, steps=2)
        with pytest.raises(ValueError, match=r"an observation of real floating-point numbers, got i32\[2\]"):
            solve(PLANE, lambda x: x, jnp.ones(2, int), 0.1, 3, key=KEY, steps=2)


def test_a_state_of_whole_numbers_and_several_times_are_refused():
    for view in ("velocity", "score", "noise", "denoiser"):
        with pytest.raises(ValueError, match="a state of real floating-point numbers"):
            getattr(PLANE, view)(0.5, jnp.ones(2, int))
        with pytest.raises(ValueError, match=r"one time of shape \[\], got f32\[2\]"):
            getattr(PLANE, view)(jnp.ones(2), jnp.ones(2))


def test_nothing_of_the_check_is_left_in_the_program():
    plain = jax.make_jaxpr(lambda t, y: standard(t, y, None))(0.5, jnp.ones(2))
    checked = jax.make_jaxpr(lambda t, y: PLANE.velocity(t, y))(0.5, jnp.ones(2))
    assert len(checked.eqns) == len(plain.eqns)


def test_one_program_serves_equal_fields():
    traced = []

    def field(t, y, args):
        traced.append(None)
        return -y

    for _ in range(2):
        with_field(field).sample(3, key=KEY, solver=Solver(steps=2))
        once = traced.copy()
    assert len(once) == len(traced) and len(traced) < 10
    program = eqx.filter_jit(lambda transport, ys: transport.encode(ys))
    program(with_field(field), jnp.ones((3, 2)))
    before = len(traced)
    program(with_field(field), jnp.ones((3, 2)))
    assert len(traced) == before
