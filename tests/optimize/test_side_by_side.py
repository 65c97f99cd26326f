"""The benchmark of the optimisers: its figures, and that no optimiser is forgotten."""

import inspect

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from benchmarks._optimizer_page import Outcome, gather, reached, short, spread
from benchmarks._optimizer_problems import Problem
from benchmarks.optimizers import Rule, rules, run

from nablax import optimize

# Why an optimiser does not stand beside the others.
ABSENT = {
    "wants more than a loss of the parameters": "exact_gauss_newton target_surrogate multi_momentum spider maximal_update",
    "wants a curvature that is positive": "natural_gradient thermodynamic_natural_gradient",
    "is for players, spaces or a potential": """complex_momentum extragradient two_timescale_extragradient mirror_descent
        riemannian_sgd riemannian_adam riemannian_adagrad""",
    "judges each step on its own batch, and takes no rate": "gradient_normalised_newton",
    "is told two curvatures": "triple_momentum",
    "takes twenty gradients a step": "entropy_sgd",
}


def path(*losses):
    return Outcome("0.1", False, 1.0, np.array([losses], float))


def test_the_share_of_the_steps_lies_between_the_looks():
    assert reached(path(4.0, 2.0, 1.0, 0.5, 0.25), 1.5) == pytest.approx(1.5 / 4)
    assert reached(path(4.0, 2.0, 3.0, 1.0), 2.0) == pytest.approx(1 / 3)  # the first time
    assert reached(path(1.0, 0.5), 2.0) == 0
    assert reached(path(4.0, np.nan, 3.0), 2.0) == np.inf


def test_numbers_are_short_and_a_run_that_diverged_says_so():
    assert [short(x) for x in (0, 0.123, 1.856, 12.3, 0.00456, 1e-22, 123.4)] == [
        "0",
        "0.12",
        "1.86",
        "12",
        "5e-3",
        "1e-22",
        "1.2e+02",
    ]
    assert spread(np.array([[9.0, 0.3], [9.0, 0.1], [9.0, 0.2]])) == "0.20 (0.10–0.30)"
    assert spread(np.array([[9.0, 0.3], [9.0, np.nan]])) == "diverged"


def test_seeds_of_a_rule_come_together():
    row = {"problem": "a", "rule": "b", "rate": "0.1", "at_end": "1", "milliseconds": "2.5"}
    found = gather([row | {"seed": "0", "losses": "3 1"}, row | {"seed": "1", "losses": "3 2"}])
    assert list(found) == [("a", "b")] and found["a", "b"].at_end
    np.testing.assert_array_equal(found["a", "b"].losses, [[3, 1], [3, 2]])


def test_a_rule_runs_at_the_best_of_its_rates():
    curvatures = np.array([1.0, 0.1])
    bowl = Problem(
        "a bowl",
        lambda key: jnp.ones(2),
        lambda x, batch: jnp.sum(jnp.asarray(curvatures, x.dtype) * x**2) / 2,
        steps=40,
        rate=0.3,
    )
    rows = run(bowl, Rule("gradient descent", optax.sgd), "optax.sgd")
    best = 0.3 * 10**0.5  # the next, 3, goes away along the steep axis
    steps = np.arange(0, 41, 2)[:, None]
    expected = np.sum(curvatures * (1 - best * curvatures) ** (2 * steps), axis=1) / 2
    assert [(row["seed"], row["rate"], row["at_end"]) for row in rows] == [(seed, "0.949", 0) for seed in range(3)]
    for row in rows:
        np.testing.assert_allclose([float(loss) for loss in row["losses"].split()], expected, rtol=1e-3)


def test_every_optimiser_stands_in_the_table_or_says_why_not():
    takes_a_rate = {
        name
        for name in optimize.__all__
        if inspect.isfunction(made := getattr(optimize, name))
        and not name.startswith("scale_by_")
        and inspect.signature(made).return_annotation is optax.GradientTransformationExtraArgs
    }
    absent = {name for names in ABSENT.values() for name in names.split()}
    shown = {name.partition(",")[0].partition(" ")[0] for name in rules() if not name.startswith("optax.")}
    assert absent <= takes_a_rate and shown <= takes_a_rate and not absent & shown
    assert takes_a_rate - absent == shown
