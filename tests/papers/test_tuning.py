"""Methods are tuned on equal budgets, and a best setting at a grid's end is no best setting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.papers._problems._quadratics import bilevel
from nablax.papers._problems._tuning import tuned

KEY = jax.random.key(0)
GRID = (0.0, 1.0, 2.0, 3.0, 4.0)


def bowl(best, depth=0.0):
    """A loss with its least value at a setting, plus noise that all methods share."""
    return lambda setting, key: (setting - best) ** 2 - depth + 0.1 * jax.random.normal(key)


def test_each_is_run_at_its_best_on_the_same_fresh_keys():
    runs = tuned({"new": bowl(2.0, 1.0), "plain": bowl(3.0)}, GRID, "lower", key=KEY, keys=7)
    assert runs.settings == {"new": ["2"], "plain": ["3"]}
    one = runs.contrast("loss", "lower")
    assert one.count == 7 and len(set(one.values["new"])) == 7
    np.testing.assert_allclose(one.gains, 1.0, atol=1e-5)  # the noise is the key's, and so is common
    assert one.holds and set(one.seconds) == {"new", "plain"} and min(one.seconds.values()) > 0
    assert tuned({"new": bowl(2.0, 1.0)}, GRID, "lower", key=KEY, keys=7).results["new"].tolist() == pytest.approx(
        runs.results["new"].tolist()
    )


def test_keys_that_choose_are_not_those_that_decide():
    def run(setting, key):
        return setting + jax.random.uniform(key)

    grid = (1.0, 1.0, 1.0)
    seen = [tuned({"new": run}, grid, "lower", key=KEY, keys=4, tuning=count).results["new"] for count in (1, 3)]
    np.testing.assert_array_equal(*seen)
    tuning_key, _ = jax.random.split(KEY)
    used = jax.vmap(jax.random.uniform)(jax.random.split(tuning_key, 3))
    assert not set(np.round(np.asarray(1 + used), 5)) & set(np.round(seen[1], 5))


def test_a_best_setting_at_the_end_is_refused_unless_nothing_lies_beyond():
    methods = {"new": bowl(2.0), "plain": bowl(0.0)}
    with pytest.raises(ValueError, match=r"plain.*end 0.*Widen the grid"):
        tuned(methods, GRID, "lower", key=KEY, keys=2)
    runs = tuned(methods, GRID, "lower", key=KEY, keys=2, ends={0.0: "no regularisation"})
    assert runs.settings["plain"] == ["0"]
    with pytest.raises(ValueError, match=r"end 4"):
        tuned({"new": bowl(4.0)}, GRID, "lower", key=KEY, keys=2, ends={0.0: "no regularisation"})


def test_higher_is_better_likewise_and_what_diverges_is_worst():
    def run(setting, key):
        return jnp.where(setting > 2.5, jnp.nan, -bowl(2.0)(setting, key))

    assert tuned({"new": run}, GRID, "higher", key=KEY, keys=2).settings == {"new": ["2"]}


def test_a_method_that_takes_no_heed_of_the_setting_is_not_at_an_end():
    runs = tuned(
        {"new": bowl(2.0), "plain": lambda setting, key: jax.random.normal(key)}, GRID, "lower", key=KEY, keys=2
    )
    assert runs.settings["plain"] not in (["0"], ["4"])


def test_axes_are_crossed_and_each_has_ends():
    def run(setting, key):
        rate, strength = setting
        return (rate - 2.0) ** 2 + (strength - 0.2) ** 2

    runs = tuned({"new": run}, (GRID, (0.1, 0.2, 0.3)), "lower", key=KEY, keys=1)
    assert runs.settings == {"new": ["2, 0.2"]}
    assert tuned({"new": run}, (GRID, (0.3,)), "lower", key=KEY, keys=3).settings == {"new": ["2"]}
    with pytest.raises(ValueError, match=r"end 0.3"):
        tuned({"new": lambda s, key: (s[0] - 2) ** 2 - s[1]}, (GRID, (0.1, 0.2, 0.3)), "lower", key=KEY, keys=1)


def test_budgets_are_equal():
    grids = {"new": (1.0, 2.0, 3.0), "plain": (1.0, 2.0)}
    with pytest.raises(ValueError, match="same number of settings"):
        tuned({"new": bowl(2.0), "plain": bowl(2.0)}, grids, "lower", key=KEY, keys=1)
    own = {"new": (1.0, 2.0, 3.0), "plain": (10.0, 20.0, 30.0)}
    runs = tuned({"new": bowl(2.0), "plain": bowl(20.0)}, own, "lower", key=KEY, keys=1)
    assert runs.settings == {"new": ["2"], "plain": ["20"]}


def test_one_setting_is_not_tuned_and_keys_run_side_by_side():
    runs = tuned({"new": bowl(2.0)}, (5.0,), "lower", key=KEY, keys=6)
    assert runs.settings == {} and runs.results["new"].shape == (6,)


def test_several_numbers_of_a_run_and_a_choice_of_baselines():
    def method(best):
        return lambda setting, key: {"loss": bowl(best)(setting, key), "cost": setting + 0 * jax.random.normal(key)}

    methods = {"new": method(1.0), "plain": method(2.0), "other": method(3.0)}
    runs = tuned(methods, GRID, "lower", key=KEY, keys=3, of="loss", passes={"new": 2, "other": 3})
    one = runs.contrast("cost", "lower", of="cost", against=["other"], margin=1.0)
    assert one.values == {"new": (1.0, 1.0, 1.0), "other": (3.0, 3.0, 3.0)} and one.passes == {"new": 2, "other": 3}
    assert one.threshold is None and one.margin == 1.0 and one.settings == {"new": ("1",), "other": ("3",)}


def test_the_solution_of_the_bilevel_problem_is_that_of_its_conditions():
    problem = bilevel(KEY)
    best = problem.solution()
    assert float(jnp.abs(jax.grad(problem.main)(best)).max()) < 1e-4
    # What is left of the auxiliary gradient lies in the rows' span: no direction that keeps the main loss lowers it.
    _, sizes, rows = jnp.linalg.svd(problem.inputs, full_matrices=True)
    free = rows[15:]
    assert float(sizes[15] / sizes[0]) < 1e-5
    assert float(jnp.abs(free @ jax.grad(problem.auxiliary)(best)).max()) < 1e-3
    assert float(jnp.linalg.norm(jax.grad(problem.auxiliary)(best))) > 1
    batch = jnp.arange(10)
    np.testing.assert_allclose(
        problem.main(best, batch), jnp.mean((problem.inputs[:10] @ best - problem.targets[:10]) ** 2) / 2, rtol=1e-5
    )
