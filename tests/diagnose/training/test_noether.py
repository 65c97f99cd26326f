import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.diagnose import learning_flow, noether, rescaling_symmetry, scaling_symmetry, translation_symmetry
from nablax.follow import Solver, flow

RULE = {"learning_rate": 0.3, "momentum": 0.6, "weight_decay": 0.2}
GENERATORS = {
    "scale": scaling_symmetry(lambda p: p["normalised"]),
    "translate": translation_symmetry(lambda p: p["bias"]),
    "rescale": rescaling_symmetry(lambda p: p["in"], lambda p: p["out"]),
}


def loss(p, x, y):
    """Weights before a normalisation, biases before a softmax, two linear layers: one symmetry each, all smooth."""
    hidden = (x @ p["in"]) @ p["out"]
    unit = p["normalised"] / jnp.linalg.norm(p["normalised"])
    logits = hidden * (x @ unit)[:, None] + p["bias"][None]
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(y)), y])


def at(key):
    shapes = {"in": (3, 4), "out": (4, 5), "normalised": (3,), "bias": (5,)}
    make = {n: jax.random.normal(k, s) for (n, s), k in zip(shapes.items(), jax.random.split(key, 4))}
    return make, jax.random.normal(jax.random.key(7), (8, 3)), jnp.arange(8) % 5


def test_the_charges_obey_their_equation_along_the_flow(x64, key):
    # Q integrated by its own equation along the flow is Q of the flow: an augmented system, to solver accuracy.
    params, x, y = at(key)
    velocity = jax.tree.map(jnp.cos, params)
    field = learning_flow(loss, **RULE)

    def rates(state):
        motions = noether(loss, *state, x, y, generators=GENERATORS, **RULE).symmetries
        return {n: (m.rate, m.rate - m.force, m.charge) for n, m in motions.items()}

    def joint(t, z, args):
        return field(t, z[0], (x, y)), {n: r[1] for n, r in rates(z[0]).items()}

    @jax.jit
    def run():
        start = {n: r[2] for n, r in rates((params, velocity)).items()}
        end, charges = flow(
            joint, ((params, velocity), start), 0.0, 2.0, solver=Solver(steps=200, method=diffrax.Dopri5())
        ).ys
        return start, charges, noether(loss, *end, x, y, generators=GENERATORS, **RULE)

    start, charges, record = run()
    for name, motion in record.symmetries.items():
        np.testing.assert_allclose(charges[name], motion.charge, rtol=1e-7, atol=1e-9)
        assert abs(motion.charge - start[name]) > 0.05  # it moved
        assert abs(motion.asymmetry) < 1e-12
    assert float(record.symmetries["translate"].kinetic) == 0.0
    assert "rescale: kinetic" in record.table()


def test_the_flow_is_the_heavy_ball_to_second_order(x64):
    curvature = jnp.array([1.0, 3.0])

    def miss(rate, momentum=0.5):
        # Exact modes z of the recursion against those of the flow over a step, on a quadratic.
        mass, friction = rate * (1 + momentum) / 2, 1 - momentum
        exponent = (-friction + np.sqrt(friction**2 - 4 * mass * np.asarray(curvature))) / (2 * mass)
        z = np.array([max(np.roots([1, -(1 + momentum - rate * c), momentum])) for c in np.asarray(curvature)])
        return np.abs(np.log(z) / rate - exponent)

    first, second = miss(1e-3), miss(5e-4)
    np.testing.assert_allclose(np.log2(first / second), 2, atol=0.1)
    field = learning_flow(lambda q: jnp.sum(curvature * q**2) / 2, 1e-2, momentum=0.5)
    _, pull = field(0.0, (jnp.ones(2), jnp.zeros(2)))
    np.testing.assert_allclose(pull, -curvature / 0.0075)


def test_a_generator_that_is_no_symmetry_is_found_out(key):
    params, x, y = at(key)
    record = noether(
        loss, params, params, x, y, generators={"scale": scaling_symmetry(lambda p: p["in"])}, learning_rate=0.1
    )
    assert abs(record.symmetries["scale"].asymmetry) > 0.01
    with pytest.raises(ValueError, match="positive learning rate"):
        learning_flow(loss, 0.0)


def test_a_schedule_is_compiled_once(key, counted):
    loss, traced = counted
    xs = jax.random.normal(key, (5, 2))
    generators = {"scale": scaling_symmetry()}
    for rate in (0.1, 0.2):
        once = len(traced)
        record = noether(loss, xs[0], xs[1], xs[2], generators=generators, learning_rate=rate, momentum=0.5)
        np.testing.assert_allclose(
            record.symmetries["scale"].friction, -2 / 3 / rate * record.symmetries["scale"].charge, rtol=1e-5
        )
    assert len(traced) == once > 0
