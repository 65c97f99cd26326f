"""Maximal-update scaling: the package's factors, and activations that move as far at any width."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import optimize
from nablax.optimize import Widths

BASE, INPUTS, CLASSES = 16, 8, 4


def net(width):
    """Shapes of a network with two hidden layers of the width, in ``x @ W``; the second is called twice."""
    shapes = {"first": (INPUTS, width), "shift": (width,), "hidden": (width, width), "last": (width, CLASSES)}
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}


def test_widths_are_read_off_three_models():
    found = optimize.width_multipliers(net(64), net(BASE), net(2 * BASE))
    assert found == {
        "first": Widths(fan_out=4.0),
        "shift": Widths(fan_out=4.0),
        "hidden": Widths(4.0, 4.0),
        "last": Widths(fan_in=4.0),
    }
    # A hidden layer as wide as there are inputs, or classes, is told from them all the same.
    assert optimize.width_multipliers(net(INPUTS), net(CLASSES), net(BASE))["first"] == Widths(fan_out=2.0)

    def rectangle(inner, outer):  # Equinox's convolutions: out, in, and positions that do not grow
        return jax.ShapeDtypeStruct((outer, inner, 3, 3), jnp.float32)

    assert optimize.width_multipliers(rectangle(8, 30), rectangle(2, 3), rectangle(4, 6), fan_in=1) == Widths(4.0, 10.0)


def test_steps_are_multiplied_as_in_the_authors_package():
    """Each row of their tables: matrices, vectors, what does not grow."""
    widths = {"both": Widths(8, 2), "in": Widths(fan_in=8), "out": Widths(fan_out=2), "none": None}
    ones = {name: jnp.ones(3) for name in widths}
    for kind, expected in {
        "adam": {"both": 1 / 8, "in": 1, "out": 1, "none": 1},
        "sgd": {"both": 2 / 8, "in": 8, "out": 2, "none": 1},
    }.items():
        rule = optimize.maximal_update(optax.scale(1.0) if kind == "sgd" else optax.scale_by_sign(), widths, kind=kind)
        updates, _ = rule.update(ones, rule.init(ones))
        assert {name: float(update[0]) for name, update in updates.items()} == expected


def test_a_small_epsilon_stays_small_at_any_width():
    """Gradients that shrink as the network grows give the same steps, scaled: ε is beside what they were at the base."""
    eps, times = 0.3, 16.0
    narrow = optax.scale_by_adam(eps=eps)
    wide = optimize.maximal_update(narrow, Widths(times, times))
    g = jnp.array([0.5, -0.2])
    at_base, _ = narrow.update(g, narrow.init(g))
    scaled, _ = wide.update(g / times, wide.init(g))
    np.testing.assert_allclose(times * scaled, at_base, rtol=1e-6)


def moved(width, kind, standard):
    """How far hidden activations move in three steps of training, by parametrisation."""
    sizes = net(width)
    keys = dict(zip(sizes, jax.random.split(jax.random.key(0), len(sizes))))
    deviations = {"first": INPUTS**-0.5, "shift": 0.0, "hidden": width**-0.5, "last": BASE**-0.5}
    if standard:
        deviations["last"] = width**-0.5
    params = {name: deviations[name] * jax.random.normal(keys[name], one.shape) for name, one in sizes.items()}
    output = 1.0 if standard else BASE / width
    x = jax.random.normal(jax.random.key(1), (16, INPUTS))
    y = jnp.sin(x[:, :CLASSES] * 2)

    def hidden(params):
        h = jnp.tanh(x @ params["first"] + params["shift"][None])
        return jnp.tanh(h @ params["hidden"])

    def loss(params):
        return jnp.mean((output * hidden(params) @ params["last"] - y) ** 2)

    rule = optax.adam(0.01) if kind == "adam" else optax.sgd(0.1)
    if not standard:
        rule = optimize.maximal_update(rule, optimize.width_multipliers(sizes, net(BASE), net(2 * BASE)), kind=kind)

    def step(carry, _):
        params, state = carry
        updates, state = rule.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (after, _), _ = jax.lax.scan(step, (params, rule.init(params)), length=3)
    return jnp.mean(jnp.abs(hidden(after) - hidden(params)))


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_activations_move_as_far_at_any_width_and_in_the_standard_parametrisation_they_do_not(kind):
    widths = np.array([64, 256, 1024])
    slopes = {}
    for standard in (False, True):
        moves = [float(jax.jit(moved, static_argnums=(0, 1, 2))(int(w), kind, standard)) for w in widths]
        slopes[standard] = np.polyfit(np.log(widths), np.log(moves), 1)[0]
    assert abs(slopes[False]) < 0.1 and abs(slopes[True]) > 0.3, slopes


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: optimize.maximal_update(optax.adam, None), "the function adam"),
        (lambda: optimize.maximal_update(optax.adam(0.1), None, kind="lion"), "kind='adam' or 'sgd', got 'lion'"),
        (lambda: optimize.maximal_update(optax.adam(0.1), 4.0).init(jnp.ones(2)), "widths, or None, got 4.0"),
        (lambda: Widths(fan_in=0), "fan_in above 0"),
        (lambda: optimize.width_multipliers(net(64), net(16), net(16)), "the base's lengths"),
        (lambda: optimize.width_multipliers(net(64), net(16), {}), "three trees alike"),
        (
            lambda: optimize.width_multipliers(*(jax.ShapeDtypeStruct((n, n, n), jnp.float32) for n in (4, 2, 3))),
            "grows along two axes at most",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
