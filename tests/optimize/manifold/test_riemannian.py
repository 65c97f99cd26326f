"""Geodesics are lines: what is right on each space is Optax's own rule of the distance walked."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import optimize
from nablax.spaces import Euclidean, Lorentz, PoincareBall, PositiveDefinite, Rotations, Sphere, Stiefel

RATE, STEPS = 0.25, 18  # exact in every type
# Names of lines through spaces, the space, a point of the line by its length, and the length of a point.
LINES = {
    "sphere": (
        Sphere(3),
        lambda s: jnp.array([0.6 * jnp.cos(s), jnp.sin(s), 0.8 * jnp.cos(s)]),
        lambda x: jnp.arctan2(x[1], 0.6 * x[0] + 0.8 * x[2]),
    ),
    "ball": (
        PoincareBall(2),
        lambda s: jnp.tanh(s / 2) * jnp.array([0.6, 0.8]),
        lambda x: 2 * jnp.arctanh(0.6 * x[0] + 0.8 * x[1]),
    ),
    "lorentz": (
        Lorentz(3),
        lambda s: jnp.array([jnp.cosh(s), 0.6 * jnp.sinh(s), 0.8 * jnp.sinh(s)]),
        lambda x: jnp.arcsinh(0.6 * x[1] + 0.8 * x[2]),
    ),
    "positive definite": (PositiveDefinite(1), lambda s: jnp.exp(s).reshape(1, 1), lambda x: jnp.log(x[0, 0])),
    "rotations": (
        Rotations(2),
        lambda s: jnp.array([[jnp.cos(s), -jnp.sin(s)], [jnp.sin(s), jnp.cos(s)]]),
        lambda x: jnp.arctan2(x[1, 0] - x[0, 1], x[0, 0] + x[1, 1]),
    ),
    "flat": (None, lambda s: jnp.asarray(s), lambda x: x),
    "euclidean": (Euclidean(()), lambda s: jnp.asarray(s), lambda x: x),
}
WHERE = {name: space for name, (space, *_) in LINES.items()}
SOME = ("sphere", "flat", "euclidean")  # for the rules but Adam: what they share is tried once
RULES = {
    "sgd": (lambda spaces: optimize.riemannian_sgd(RATE, spaces), lambda: optax.sgd(RATE)),
    "momentum": (lambda spaces: optimize.riemannian_sgd(RATE, spaces, momentum=0.5), lambda: optax.sgd(RATE, 0.5)),
    "nesterov": (
        lambda spaces: optimize.riemannian_sgd(RATE, spaces, momentum=0.5, nesterov=True),
        lambda: optax.sgd(RATE, 0.5, nesterov=True),
    ),
    "adam": (lambda spaces: optimize.riemannian_adam(RATE, spaces, b2=0.9), lambda: optax.adam(RATE, b2=0.9)),
    "amsgrad": (
        lambda spaces: optimize.riemannian_adam(RATE, spaces, b2=0.5, amsgrad=True),
        lambda: optax.amsgrad(RATE, b2=0.5),
    ),
    "adagrad": (lambda spaces: optimize.riemannian_adagrad(RATE, spaces), lambda: optax.adagrad(RATE)),
}


def walked(rule, params, loss, steps=STEPS):
    def step(carry, _):
        params, state = carry
        update, state = rule.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, update)
        return (params, state), params

    return jax.lax.scan(step, (params, rule.init(params)), None, steps)


@pytest.fixture(scope="module")
def paths():
    """Lengths walked on each line by each rule, and by Optax's: one program for all."""

    def of_length(s):
        return 0.7 * jnp.sin(2 * s) + 0.3 * s**2

    def loss(params):
        return sum(of_length(LINES[name][2](point)) for name, point in params.items())

    @jax.jit
    def everything(start):
        results = {}
        for name, (ours, theirs) in RULES.items():
            params = {line: at(start) for line, (_, at, _) in LINES.items() if name == "adam" or line in SOME}
            _, path = walked(ours({line: WHERE[line] for line in params}), params, loss)
            lengths = {line: jax.vmap(LINES[line][2])(points) for line, points in path.items()}
            results[name] = lengths, walked(theirs(), start, of_length)[1], path
        return results

    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, everything(jnp.array(0.9, jnp.float64)))


@pytest.mark.parametrize("rule", RULES)
def test_along_a_geodesic_the_rule_is_that_of_the_length_walked(rule, paths):
    lengths, optaxs, path = paths[rule]
    assert np.ptp(optaxs) > 0.2 and np.any(np.diff(np.sign(np.diff(optaxs)))) | (rule in ("sgd", "adagrad"))
    for line, ours in lengths.items():
        np.testing.assert_allclose(ours, optaxs, rtol=0, atol=1e-11, err_msg=line)
    np.testing.assert_allclose(np.linalg.norm(path["sphere"], axis=1), 1, atol=1e-15)


def test_the_sphere_by_hand(paths):
    """Adam's first steps on the great circle: the tangent momentum turned by the angle of each step."""
    x, m, v = np.array([0.6 * np.cos(0.9), np.sin(0.9), 0.8 * np.cos(0.9)]), np.zeros(3), 0.0
    for count, seen in enumerate(paths["adam"][2]["sphere"][:4], start=1):
        s = np.arctan2(x[1], 0.6 * x[0] + 0.8 * x[2])
        along = np.array([-0.6 * np.sin(s), np.cos(s), -0.8 * np.sin(s)])
        slope = 1.4 * np.cos(2 * s) + 0.6 * s
        m, v = 0.9 * m + 0.1 * slope * along, 0.9 * v + 0.1 * slope**2
        step = -RATE * (m / (1 - 0.9**count)) / (np.sqrt(v / (1 - 0.9**count)) + 1e-8)
        angle = np.linalg.norm(step)
        m = np.cos(angle) * m - np.sin(angle) * (step @ m) / angle * x
        x = np.cos(angle) * x + np.sin(angle) * step / angle
        np.testing.assert_allclose(seen, x, atol=1e-12)


def test_flat_parts_go_as_optax_to_a_rounding():
    """In single precision, None and Euclidean alike, to the last digits."""
    random = np.random.default_rng(0)
    params = {name: jnp.asarray(random.normal(size=(4, 3)), jnp.float32) for name in ("none", "flat")}
    for ours, theirs in RULES.values():
        rules = ours({"none": None, "flat": Euclidean(3)}), theirs()
        states = [rule.init(params) for rule in rules]
        for _ in range(3):
            g = jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), jnp.float32), params)
            steps = [rule.update(g, state, params) for rule, state in zip(rules, states)]
            states = [state for _, state in steps]
            for part in params:
                np.testing.assert_array_max_ulp(*(np.asarray(update[part]) for update, _ in steps), maxulp=4)


def test_the_path_does_not_depend_on_how_points_are_written(x64):
    """A table of points in the ball and on the hyperboloid, each its own factor: the same path through the map."""

    def lifted(x):
        square = jnp.sum(x**2, axis=-1, keepdims=True)
        return jnp.concatenate([1 + square, 2 * x], axis=-1) / (1 - square)

    ball, sheet = PoincareBall(2), Lorentz(3)
    start = ball.sample(4, key=jax.random.key(0))

    def apart(space):
        def loss(points):
            pairs = jax.vmap(lambda x: jax.vmap(lambda y: space.distance(x, y))(points))(points)
            return jnp.sum((pairs - jnp.asarray([[0, 1, 2, 3], [1, 0, 1, 2], [2, 1, 0, 1], [3, 2, 1, 0.0]])) ** 2)

        return loss

    @jax.jit
    def both(start):
        results = []
        for space, points in ((ball, start), (sheet, lifted(start))):
            rule = optimize.riemannian_adam(0.1, space, amsgrad=True)
            (_, state), path = walked(rule, points, apart(space), 30)
            results.append((path, state.nu))
        return results

    (in_ball, squares), (on_sheet, others) = both(start)
    assert np.abs(np.asarray(in_ball[-1] - start)).max() > 0.1
    np.testing.assert_allclose(lifted(in_ball), on_sheet, atol=1e-9)
    np.testing.assert_allclose(squares, others, atol=1e-9)
    assert squares.shape == (4, 1)


def test_frames_stay_frames_in_single_precision():
    """Projected each time, roundings do not add up over thousands of steps; and the plane is that of the eigenvectors."""
    space, spread = Stiefel(6, 2), jnp.diag(jnp.array([4.0, 3.0, 1.0, 0.5, 0.2, 0.1]))
    rule = optimize.riemannian_adam(optax.exponential_decay(0.1, 100, 0.7), space)
    start = space.sample(1, key=jax.random.key(1))[0]
    (frame, _), _ = jax.jit(lambda x: walked(rule, x, lambda y: -jnp.sum(y * (spread @ y)), 4_000))(start)
    np.testing.assert_allclose(frame.T @ frame, np.eye(2), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(frame[2:]), 0, atol=1e-5)


def test_half_precision_is_kept_and_steps_are_taken_in_single(x64):
    rule = optimize.riemannian_adam(0.1, Sphere(3))
    x = jnp.ones((2, 3), jnp.bfloat16)
    update, state = jax.eval_shape(rule.update, x, jax.eval_shape(rule.init, x), x)
    assert update.dtype == jnp.bfloat16 and {leaf.dtype.name for leaf in (state.mu, state.nu)} == {"float32"}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: optimize.riemannian_adam(0.1, Sphere(3)).init(jnp.ones(4)), r"last axes are \(3,\).*got shape \(4,\)"),
        (lambda: optimize.riemannian_adam(0.1, {"a": None}).init({"b": jnp.ones(4)}), "tree begins with"),
        (lambda: optimize.riemannian_sgd(0.1, "sphere").init(jnp.ones(3)), "a curved space, Euclidean or None"),
        (lambda: optimize.riemannian_sgd(0.1, momentum=1.0), "momentum from 0 to below 1"),
        (lambda: optimize.riemannian_adagrad(0.1, eps=-1.0), "eps of 0 or more"),
    ],
)
def test_what_does_not_fit_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
