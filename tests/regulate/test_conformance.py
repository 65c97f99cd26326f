"""One suite for every transformation of the room; rows are in constructors.py."""

import importlib.util
import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from nablax import regulate

_spec = importlib.util.spec_from_file_location("constructors", Path(__file__).with_name("constructors.py"))
constructors = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(constructors)
ROWS = constructors.CONSTRUCTORS
rows = pytest.mark.parametrize("name", ROWS)
_compiled = {}


def stacked(row, dtype=np.float32, seed=0):
    """Gradients of two leaves, of quite different norms and in conflict."""
    random = np.random.default_rng(seed)
    shapes = {"bias": (4,), "weight": (2, 3)}
    if row.objectives is None:
        return {name: jnp.asarray(random.normal(size=shape), dtype) for name, shape in shapes.items()}
    sizes = np.array([1.0, 3.0, 0.2])[: row.objectives]
    return {
        name: jnp.asarray(random.normal(size=(row.objectives, *shape)) * sizes.reshape(-1, *[1] * len(shape)), dtype)
        for name, shape in shapes.items()
    }


def parameters(dtype=jnp.float32):
    return {"bias": jnp.ones(4, dtype), "weight": jnp.ones((2, 3), dtype)}


def prepared(name):
    """The row, its fresh state, its compiled step and how often that was traced: one compilation for all tests."""
    if name not in _compiled:
        row = ROWS[name]
        transformation = row.make()
        traces = []

        def step(grads, state):
            traces.append(1)
            return transformation.update(grads, state, parameters(), unknown=None, **row.extra(grads))

        _compiled[name] = row, row.fill(transformation.init(parameters())), step, jax.jit(step), traces
    return _compiled[name]


def arrays(tree):
    return [
        np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        for x in jax.tree.leaves(tree)
    ]


def same(left, right, tolerance=2e-4):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for ours, theirs in zip(arrays(left), arrays(right)):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        # Relative to the largest entry; a residual or another small number in the state is compared to 1.
        size = max(np.abs(np.asarray(theirs, np.float64)).max(initial=0), 1)
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * size)


@pytest.mark.parametrize("name", [name for name in ROWS if ROWS[name].objectives is not None])
def test_an_aggregator_hands_on_what_it_is_told_and_need_not_raise(name):
    """What follows it in a chain can be asked about one gradient; a check-up meets gradients that are not finite."""
    row, state, *_ = prepared(name)
    if not isinstance(state, regulate.AggregatorState):
        return
    given, grads = jax.tree.map(lambda leaf: 3 * leaf, parameters()), stacked(row)
    handed, after = row.make().update(grads, state, parameters(), combined=given, **row.extra(grads))
    same((handed, after), (given, state), tolerance=0)
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), grads)
    _, after = row.make().update(broken, state, parameters(), throw=False, **row.extra(grads))
    assert after.result != optx.RESULTS.successful


@rows
def test_compiled_equals_eager_with_one_trace_and_a_stable_state(name):
    row, state, step, compiled, traces = prepared(name)
    grads = stacked(row)
    eager = step(grads, state)
    traces.clear()
    update, following = compiled(grads, state)
    same((update, following), eager)
    again, later = compiled(stacked(row, seed=1), following)
    # Trees, shapes, dtypes: what a scan demands of its carry.
    assert jax.tree.structure(state) == jax.tree.structure(following) == jax.tree.structure(later)
    kinds = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(s)] for s in (state, following, later)]
    assert kinds[0] == kinds[1] == kinds[2]
    assert jax.tree.map(jnp.shape, again) == jax.tree.map(jnp.shape, parameters())
    assert len(traces) <= 1


@rows
def test_a_batch_equals_its_members_also_where_rows_depend_or_vanish(name):
    row, state, step, compiled, _ = prepared(name)
    grads = stacked(row)

    def each(function):
        return jax.tree.map(function, grads)

    cases = [grads, each(jnp.zeros_like)]
    if row.objectives is not None:
        cases += [
            each(lambda g: g.at[1].set(0)),
            each(lambda g: jnp.stack([g[0], g[0], 2 * g[0]])),
            each(lambda g: jnp.stack([g[0], g[1], -g[0] - g[1]])),
        ]
    alone = [compiled(case, state)[0] for case in cases]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases)
    together, _ = jax.jit(jax.vmap(step, in_axes=(0, None)))(batch, state)
    scale = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(grads))
    for index, single in enumerate(alone):
        for ours, theirs in zip(jax.tree.leaves(together), jax.tree.leaves(single)):
            assert np.all(np.isfinite(theirs))
            np.testing.assert_allclose(ours[index], theirs, rtol=5e-3, atol=5e-3 * scale)
    for leaf in jax.tree.leaves(alone[1]):
        assert not np.any(leaf)


@rows
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_dtype_is_kept(name, dtype):
    with jax.enable_x64(True):
        row = ROWS[name]
        transformation = row.make()
        grads = stacked(row, dtype)
        params = parameters(dtype)
        state = jax.eval_shape(lambda p: row.fill(transformation.init(p)), params)
        result = jax.eval_shape(lambda g, s: transformation.update(g, s, params, **row.extra(g)), grads, state)
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(result[0])} == {dtype}
        assert jax.tree.map(lambda x: (x.shape, x.dtype), result[1]) == jax.tree.map(
            lambda x: (x.shape, x.dtype), state
        )


@rows
def test_scales_from_1e_minus_15_to_1e15(name):
    row, state, _, compiled, _ = prepared(name)
    grads = stacked(row)
    unit, _ = compiled(grads, state)
    size = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(unit))
    for scale in (1e-15, 1e15):
        update, _ = compiled(jax.tree.map(lambda g, s=scale: g * s, grads), state)
        for ours, theirs in zip(jax.tree.leaves(update), jax.tree.leaves(unit)):
            ours = np.asarray(ours, np.float64)
            assert np.all(np.isfinite(ours))
            if row.degree is not None:
                np.testing.assert_allclose(ours / scale**row.degree, theirs, rtol=1e-3, atol=1e-3 * size)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.objectives is not None])
def test_aggregators_have_the_same_options(name):
    row, state, step, compiled, _ = prepared(name)
    if not isinstance(state, regulate.AggregatorState):
        assert name in {"dual_ascent", "importance_sampling", "modality_modulation"}  # not of losses alone
        return
    options = inspect.signature(getattr(regulate, name)).parameters
    assert {options[option].kind for option in ("objectives", "throw")} == {inspect.Parameter.KEYWORD_ONLY}
    grads = stacked(row)
    with pytest.raises(ValueError, match="expected 3 objectives, got 2"):
        jax.eval_shape(step, jax.tree.map(lambda leaf: leaf[:2], grads), state)
    following = compiled(grads, state)[1]
    assert following.result == optx.RESULTS.successful and np.isfinite(following.residual)
    if following.weights is not None:
        assert following.weights.shape == (3,) and np.any(following.weights)
    for bad in (np.nan, np.inf):
        with pytest.raises(Exception, match=r"throw=False"):
            jax.block_until_ready(compiled(jax.tree.map(lambda leaf, b=bad: leaf + b, grads), state))


def test_every_transformation_has_a_row():
    helpers = [
        "binary_divergence",
        "binary_preactivation",
        "classification_norms",
        "extend_bases",
        "gramian",
        "importance_draw",
        "manifold_affinity",
        "meta_adapt",
        "meta_loss",
        "meta_regulation",
        "modality_competition",
        "modality_responses",
        "modality_value_and_grad",
        "multi_value_and_grad",
        "relax_bases",
        "unrolled_value_and_grad",
        "weight_conditioning",
    ]
    functions = {name for name in regulate.__all__ if name.islower() and not name.endswith("_weights")}
    assert functions - set(helpers) == set(ROWS)


def test_products_ask_for_full_precision():
    """What accelerators round by default; a user's own forward pass is left alone."""
    for name in sorted(ROWS.keys() - {"ghost_step", "spectral_decoupling", "vanishing_gradient"}):
        row, state, step, _, _ = prepared(name)
        program = str(jax.make_jaxpr(step)(stacked(row), state))
        assert program.count("dot_general[") == program.count("(Precision.HIGHEST, Precision.HIGHEST)"), name
        assert row.objectives is None or name in {"graddrop", "trimmed_mean"} or "HIGHEST" in program, name
