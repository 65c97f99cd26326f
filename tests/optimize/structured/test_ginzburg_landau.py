"""The Ginzburg–Landau energy: one step by a dense solve, descent at every rate, and the profile of a transition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import optimize

NODES = 12
RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.uniform(size=(NODES, NODES))
WEIGHTS = (WEIGHTS + WEIGHTS.T) * (1 - np.eye(NODES))
GRAPH = np.diag(WEIGHTS.sum(axis=1)) - WEIGHTS
LABELS = np.r_[-1, 1, np.zeros(NODES - 2, int)]
START = RANDOM.normal(size=NODES)
SETTINGS = {"width": 0.4, "rate": 0.3, "fidelity": 2.0}


def energy(u, width, fidelity):
    known = jnp.abs(LABELS)
    wells = jnp.sum((u**2 - 1) ** 2) / 4 / width
    return width / 2 * u @ GRAPH @ u + wells + fidelity / 2 * jnp.sum(known * (u - LABELS) ** 2)


def test_steps_solve_for_what_is_convex_and_take_the_rest_where_momentum_leads(x64):
    found = optimize.ginzburg_landau(GRAPH, START, LABELS, **SETTINGS, momentum=0.7, steps=3, throw=False)
    width, rate, fidelity = SETTINGS["width"], SETTINGS["rate"], SETTINGS["fidelity"]
    c = 2 / width + fidelity
    u = before = START
    for step in range(3):
        np.testing.assert_allclose(found.energies[step], energy(u, width, fidelity), rtol=1e-10)
        gradient = jax.grad(energy)(jnp.asarray(u), width, fidelity)
        np.testing.assert_allclose(found.gradients[step], np.linalg.norm(gradient), rtol=1e-10)
        y = u + 0.7 * (u - before)
        rest = (y**3 - y) / width + fidelity * np.abs(LABELS) * (y - LABELS) - c * y
        system = np.eye(NODES) * (1 + rate * c) + rate * width * GRAPH
        u, before = np.linalg.solve(system, y - rate * rest), u
    np.testing.assert_allclose(found.phases, u, rtol=1e-9)


@pytest.mark.parametrize("rate", [0.01, 1.0, 1e4])
def test_without_momentum_the_energy_falls_at_every_rate(x64, rate):
    found = optimize.ginzburg_landau(
        GRAPH, np.clip(START, -1.2, 1.2), LABELS, width=0.4, rate=rate, momentum=0.0, steps=40, throw=False
    )
    assert np.all(np.diff(found.energies) <= 1e-12) and found.energies[-1] < found.energies[0]


def test_on_a_line_the_transition_is_a_hyperbolic_tangent(x64):
    """u = tanh(x / (√2 ε)) is stationary for ε u″ = W′(u)/ε between two ends that are held."""
    width, spacing, nodes = 0.5, 0.05, 121
    x = spacing * (np.arange(nodes) - nodes // 2)
    line = np.diag(np.r_[1, np.full(nodes - 2, 2), 1]) - np.eye(nodes, k=1) - np.eye(nodes, k=-1)
    labels = np.where(np.abs(x) > 2.8, np.sign(x), 0).astype(int)
    found = optimize.ginzburg_landau(
        line / spacing**2, labels * 1.0, labels, width=width, rate=5.0, momentum=0.9, steps=2000, tolerance=1e-8
    )
    np.testing.assert_allclose(found.phases, np.tanh(x / (2**0.5 * width)), atol=2e-3)


def test_too_few_steps_are_told(x64):
    with pytest.raises(Exception, match=r"expected a gradient of 0\.0001 of the first after 3 steps"):
        optimize.ginzburg_landau(GRAPH, START, LABELS, **SETTINGS, steps=3).phases.block_until_ready()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"laplacian": GRAPH + np.eye(NODES, k=1)}, "a symmetric laplacian"),
        ({"laplacian": GRAPH[:3]}, "laplacian"),
        ({"labels": 2 * LABELS}, "labels of -1, 0"),
        ({"labels": LABELS > 0}, "got booleans, of which False would be not known"),
        ({"width": 0.0}, "width above 0"),
        ({"momentum": 1.0}, "momentum from 0 to below 1"),
    ],
)
def test_what_cannot_be_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        optimize.ginzburg_landau(
            **{"laplacian": GRAPH, "start": START, "labels": LABELS, **SETTINGS, "steps": 3} | change
        )
