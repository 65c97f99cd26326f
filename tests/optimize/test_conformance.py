"""One suite for every rule of the room, in every wrapper of Optax's that people put rules into."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import optimize
from nablax._core import named_arrays, read_arrays, with_arrays, write_arrays
from nablax.diagnose import update_rule

RATE = 0.125  # exact in every type
KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Row:
    """A rule and what the suite has to know of it.

    Attributes:
        make: ``make(learning_rate=...)``, the optimiser.
        static: arguments that are no hyperparameters to inject.
        extra: what the update needs beside the parameters.
        needs: names of arguments that it cannot do without.
        schedule: the rate may be one.
        by_leaf: each leaf's update depends on that leaf alone.
        known_as: how a check-up names it.
    """

    make: Callable[..., optax.GradientTransformationExtraArgs]
    static: tuple[str, ...] = ()
    extra: Callable[[Any, Any], dict[str, Any]] = lambda grads, params: {}
    needs: tuple[str, ...] = ()
    schedule: bool = True
    by_leaf: bool = True
    known_as: str = ""


def grad_fn(grads, params):
    """A gradient that changes with the parameters, and is as it came at the present ones."""
    return {"grad_fn": lambda at: (0.0, jax.tree.map(lambda g, p, q: g + (q - p).astype(g.dtype), grads, params, at))}


def xgrad(learning_rate):
    return optimize.xgrad(optax.adam(learning_rate))


def slopes(grads, params):
    """One row of data, whose output is the parameters' product with the gradient."""
    return {"inputs": jax.tree.map(lambda g: g[None].astype(jnp.float32), grads)}


def along(params, row):
    """In units of the row's size, since curvature is of the size's square."""
    products = jax.tree.map(lambda p, x: jnp.sum(p * x), params, row)
    return sum(jax.tree.leaves(products)) / (1 + sum(jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(row)))


def quadratic(grads, params):
    return {**doubled(grads, params), **grad_fn(grads, params)}


def bowl(grads, params):
    """A quadratic of curvature 2 with the gradient at the present parameters."""

    def look(at):
        apart = jax.tree.map(lambda p, q: (q - p).astype(jnp.float32), params, at)
        parts = jax.tree.map(lambda g, d: jnp.sum(g * d) + jnp.sum(d**2), grads, apart)
        return sum(jax.tree.leaves(parts)), jax.tree.map(lambda g, d: (g + 2 * d).astype(g.dtype), grads, apart)

    return {"value": jnp.zeros(()), "value_fn": lambda at: look(at)[0], "grad_fn": look, **doubled(grads, params)}


def doubled(grads, params):
    return {"product_fn": lambda v: jax.tree.map(lambda x: 2 * x, v)}


def overlong_smb(learning_rate):
    """At eight times the rate, so that trials fail."""
    if callable(learning_rate):
        return optimize.smb(lambda step: 8 * learning_rate(step))
    return optimize.smb(8 * learning_rate)


def vector_ascends(params):
    """A mask with a hole where another rule has the leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: path[0].key == "vector", params)


ROWS = {
    "aegd": Row(optimize.aegd, extra=lambda grads, params: {"value": 2.0}, needs=("value",), known_as="AEGD"),
    "aegd with a metric": Row(
        lambda learning_rate: optimize.aegd(learning_rate, precondition=lambda grads, params: grads),
        extra=lambda grads, params: {"value": 2.0},
        needs=("value", "params"),
        by_leaf=False,
        known_as="AEGD",
    ),
    "adamomentum": Row(optimize.adamomentum, known_as="AdaMomentum"),
    "complex_momentum": Row(
        lambda learning_rate, angle=0.4: optimize.complex_momentum(learning_rate, angle=angle, ascends=vector_ascends),
        known_as="complex momentum",
    ),
    "beta_normalised": Row(optimize.beta_normalised, by_leaf=False, known_as="normalised descent"),
    "diffgrad": Row(optimize.diffgrad, known_as="diffGrad"),
    "entropy_sgd": Row(
        lambda learning_rate: optimize.entropy_sgd(learning_rate, 0.5, steps=3, noise=0.0, key=KEY),
        extra=grad_fn,
        needs=("params", "grad_fn"),
        by_leaf=False,
        known_as="Entropy-SGD",
    ),
    "exact_gauss_newton": Row(
        lambda learning_rate: optimize.exact_gauss_newton(
            learning_rate, along, lambda out, row: out + out**2 / 2, adaptation=0.01, momentum=0.5
        ),
        extra=slopes,
        needs=("params", "inputs"),
        by_leaf=False,
        known_as="exact Gauss-Newton",
    ),
    "gradient_normalised_newton": Row(
        lambda learning_rate: optimize.gradient_normalised_newton(gamma=8 * learning_rate, dimensions=4),
        extra=bowl,
        needs=("params", "value", "grad_fn", "product_fn"),
        by_leaf=False,
        schedule=False,
        known_as="gradient-normalised Newton",
    ),
    "extragradient": Row(
        lambda learning_rate: optimize.extragradient(learning_rate, ascends=vector_ascends),
        extra=grad_fn,
        needs=("params", "grad_fn"),
        by_leaf=False,
        known_as="extragradient",
    ),
    "two_timescale_extragradient": Row(
        lambda learning_rate, timescale=4.0: optimize.two_timescale_extragradient(
            learning_rate, timescale, ascends=vector_ascends
        ),
        extra=grad_fn,
        needs=("params", "grad_fn"),
        by_leaf=False,
        known_as="extragradient",
    ),
    "gravity": Row(lambda learning_rate: optimize.gravity(learning_rate, alpha=0.0), known_as="Gravity"),
    "mars": Row(optimize.mars, known_as="MARS"),
    "mars exact": Row(
        lambda learning_rate: optimize.mars(learning_rate, exact=True),
        extra=grad_fn,
        needs=("grad_fn",),
        by_leaf=False,
        known_as="MARS",
    ),
    "mars lion": Row(lambda learning_rate: optimize.mars(learning_rate, "lion"), known_as="MARS"),
    "mars shampoo": Row(lambda learning_rate: optimize.mars(learning_rate, "shampoo"), known_as="MARS"),
    "maximal_update": Row(
        lambda learning_rate: optimize.maximal_update(optax.adam(learning_rate), optimize.Widths(4, 2)),
        known_as="maximal update",
    ),
    "mirror_descent": Row(
        lambda learning_rate: optimize.mirror_descent(learning_rate, optimize.p_norm(3.0)),
        needs=("params",),
        known_as="mirror descent",
    ),
    "multi_momentum": Row(
        lambda learning_rate: optimize.multi_momentum(learning_rate, [0.25, 0.75]),
        extra=lambda grads, params: {"cluster": 1},
        needs=("cluster",),
        known_as="multi-momentum",
    ),
    "nag_gs": Row(optimize.nag_gs, needs=("params",), known_as="NAG-GS"),
    "oasis": Row(
        lambda learning_rate: optimize.oasis(learning_rate, probes=2, key=KEY),
        extra=quadratic,
        needs=("params", "product_fn", "grad_fn"),
        by_leaf=False,
        schedule=False,
        known_as="OASIS",
    ),
    "natural_gradient": Row(
        optimize.natural_gradient,
        static=("solver",),
        extra=doubled,
        needs=("product_fn",),
        by_leaf=False,
        known_as="natural gradient",
    ),
    "psgd": Row(
        lambda learning_rate: optimize.psgd(learning_rate, momentum=0.5, probability=0.5, key=KEY),
        by_leaf=False,
        known_as="PSGD",
    ),
    "psgd newton": Row(
        lambda learning_rate: optimize.psgd(learning_rate, "newton", key=KEY),
        extra=doubled,
        needs=("product_fn",),
        by_leaf=False,
        known_as="PSGD",
    ),
    "psgd_low_rank": Row(
        lambda learning_rate: optimize.psgd_low_rank(learning_rate, 1, momentum=0.5, key=KEY),
        by_leaf=False,
        known_as="PSGD",
    ),
    "riemannian_adagrad": Row(optimize.riemannian_adagrad, needs=("params",), known_as="Riemannian Adagrad"),
    "riemannian_adam": Row(
        lambda learning_rate, b1=0.9: optimize.riemannian_adam(learning_rate, b1=b1, amsgrad=True),
        needs=("params",),
        known_as="Riemannian Adam",
    ),
    "riemannian_sgd": Row(
        lambda learning_rate, momentum=0.5: optimize.riemannian_sgd(learning_rate, momentum=momentum),
        needs=("params",),
        known_as="Riemannian SGD",
    ),
    "saddle_free_newton": Row(
        lambda learning_rate: optimize.saddle_free_newton(learning_rate, dimensions=3),
        extra=bowl,
        needs=("params", "value_fn", "product_fn"),
        by_leaf=False,
        known_as="saddle-free Newton",
    ),
    "shampoo": Row(optimize.shampoo, static=("every", "max_size"), known_as="Shampoo"),
    "smb": Row(
        overlong_smb,
        extra=bowl,
        needs=("params", "value", "grad_fn"),
        by_leaf=False,
        known_as="SMB",
    ),
    "soap": Row(lambda learning_rate, b1=0.9: optimize.soap(learning_rate, b1=b1, every=1), known_as="SOAP"),
    "target_surrogate": Row(
        lambda learning_rate: optimize.target_surrogate(
            optax.sgd(1.0), along, lambda out, row: 3 * out, eta=learning_rate, steps=3
        ),
        extra=slopes,
        needs=("params", "inputs"),
        by_leaf=False,
        known_as="target surrogate",
    ),
    "thermodynamic_natural_gradient": Row(
        lambda learning_rate: optimize.thermodynamic_natural_gradient(
            learning_rate, 1.0, temperature=1e-30, steps=3, key=KEY
        ),
        extra=doubled,
        needs=("product_fn",),
        by_leaf=False,
        known_as="thermodynamic natural gradient",
    ),
    "spider": Row(
        lambda learning_rate: optimize.spider(learning_rate, every=2),
        extra=grad_fn,
        needs=("params", "grad_fn"),
        by_leaf=False,
        known_as="SPIDER",
    ),
    "steepest_descent": Row(optimize.steepest_descent, by_leaf=False, known_as="steepest descent"),
    "steepest_descent normalised": Row(
        lambda learning_rate: optimize.steepest_descent(learning_rate, normalised=True), known_as="steepest descent"
    ),
    "structured_ngd": Row(
        lambda learning_rate, momentum=0.5: optimize.structured_ngd(learning_rate, momentum=momentum),
        known_as="structured NGD",
    ),
    "structured_ngd of rows": Row(
        lambda learning_rate: optimize.structured_ngd(learning_rate, "triangular", rows=None, every=2),
        extra=lambda grads, params: {"gradients": jax.tree.map(lambda g: jnp.stack([g, 2 * g]), grads)},
        needs=("gradients",),
        by_leaf=False,
        known_as="structured NGD",
    ),
    "triple_momentum": Row(
        lambda learning_rate: optimize.triple_momentum(learning_rate, 2.0),
        needs=("params",),
        schedule=False,
        known_as="XGrad",
    ),
    "xgrad": Row(xgrad, needs=("params",), known_as="XGrad"),
}
rows = pytest.mark.parametrize("name", ROWS)
SHAPES = {"scalar": (), "vector": (3,), "matrix": (3, 2), "tensor": (2, 1, 3), "empty": (0,), "none": None}
_ran = {}


def tree(seed, dtype=np.float32):
    random = np.random.default_rng(seed)
    return {
        name: None if shape is None else jnp.asarray(random.normal(size=shape), dtype) for name, shape in SHAPES.items()
    }


def stepped(row, rule, grads, params):
    """Updates of some steps, all extra arguments given and one that nobody knows."""

    def step(carry, g):
        state, params = carry
        update, state = rule.update(g, state, params, unknown=None, **row.extra(g, params))
        return (state, optax.apply_updates(params, update)), update

    return jax.lax.scan(step, (rule.init(params), params), grads)[1]


def compiled(name):
    """The row, its compiled step, how often that was traced, and the updates in all wrappers: two programs a row."""
    if name not in _ran:
        row, params, traces = ROWS[name], tree(0), []
        grads = jax.tree.map(lambda *leaves: jnp.stack(leaves), tree(1), tree(2), tree(3))
        rule = row.make(learning_rate=RATE)

        @jax.jit
        def step(g, state, params):
            traces.append(1)
            return rule.update(g, state, params, unknown=None, **row.extra(g, params))

        def every_wrapper(grads, params):
            twice = jax.tree.map(lambda g: jnp.stack([g[0], g[0]]), grads)
            label = {key: "one" if key in ("vector", "scalar", "empty") else "other" for key in SHAPES}
            scheduled = row.make(learning_rate=optax.constant_schedule(RATE) if row.schedule else RATE)
            mask = {key: key != "vector" for key in SHAPES}
            accumulated = optax.masked(scheduled, mask) if row.by_leaf else scheduled
            results = {
                "plain": stepped(row, rule, grads, params),
                "injected": stepped(
                    row, optax.inject_hyperparams(row.make, row.static)(learning_rate=RATE), grads, params
                ),
                "accumulated": stepped(row, optax.MultiSteps(accumulated, 2), twice, params),
            }
            if row.by_leaf:
                parts = {"one": scheduled, "other": rule}
                results["parts"] = stepped(row, optax.multi_transform(parts, label), grads, params)
            return results

        wrapped = jax.tree.map(np.asarray, jax.jit(every_wrapper)(grads, params))
        _ran[name] = row, rule, step, traces, wrapped
    return _ran[name]


def same(ours, theirs, **tolerance):
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, **(tolerance or {"rtol": 1e-4, "atol": 1e-6}))


@rows
def test_wrappers_change_nothing(name):
    row, *_, wrapped = compiled(name)
    plain = wrapped["plain"]
    assert all(np.any(plain[key][2]) for key in ("scalar", "vector", "matrix", "tensor"))
    same(wrapped["injected"], plain)
    accumulated = wrapped["accumulated"]
    if row.by_leaf:
        same(wrapped["parts"], plain)
        np.testing.assert_allclose(accumulated["vector"], [np.zeros(3), tree(1)["vector"]], rtol=1e-6)
        accumulated, plain = accumulated | {"vector": None}, plain | {"vector": None}
    for update, alone in zip(jax.tree.leaves(accumulated), jax.tree.leaves(plain)):
        assert not np.any(update[0])
        same(update[1], alone[0])


@rows
def test_one_trace_and_a_state_that_is_written_and_read_again_to_the_bit(name, tmp_path):
    _, rule, step, traces, wrapped = compiled(name)
    params = tree(0)
    state = rule.init(params)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((state, params)) if leaf.size]
    assert len(set(buffers)) == len(buffers)  # loops donate both
    for seed in (1, 2):
        update, following = step(tree(seed), state, params)
        kinds = [[(x.shape, x.dtype) for x in jax.tree.leaves(s)] for s in (state, following)]
        assert kinds[0] == kinds[1] and jax.tree.structure(state) == jax.tree.structure(following)
        state, params = following, optax.apply_updates(params, update)
    assert len(traces) == 1
    # Through a file, as the checkpoints of `follow.fit` go.
    write_arrays(tmp_path / "state.safetensors", named_arrays(state))
    stored, _ = read_arrays(tmp_path / "state.safetensors")
    read = with_arrays(stored, jax.tree.map(jnp.zeros_like, state), source="a file", fix="")
    for one, other in zip(*(jax.tree.leaves(step(tree(3), s, params)) for s in (state, read))):
        np.testing.assert_array_equal(one, other)
    same(step(tree(3), state, params)[0], jax.tree.map(lambda updates: updates[2], wrapped["plain"]))


@rows
@pytest.mark.parametrize("scale", [0.0, 1e-15, 1e15])
def test_gradients_of_any_size_give_numbers(name, scale):
    _, rule, step, *_ = compiled(name)
    params = tree(0)
    state = rule.init(params)
    for seed in (1, 2, 3):
        update, state = step(jax.tree.map(lambda g: scale * g, tree(seed)), state, params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(update))


@rows
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_dtype_is_kept(name, dtype):
    row = ROWS[name]
    with jax.enable_x64(True):
        rule, grads, params = row.make(learning_rate=RATE), tree(1, dtype), tree(0, dtype)
        state = jax.eval_shape(rule.init, params)

        def step(g, s, p):
            return rule.update(g, s, p, **row.extra(g, p))

        update, following = jax.eval_shape(step, grads, state, params)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(update)} == {dtype}
        assert [(x.shape, x.dtype) for x in jax.tree.leaves(following)] == [
            (x.shape, x.dtype) for x in jax.tree.leaves(state)
        ]


@pytest.mark.parametrize(("name", "missing"), [(name, lacks) for name, row in ROWS.items() for lacks in row.needs])
def test_a_missing_argument_is_named(name, missing):
    row, grads, params = ROWS[name], tree(1), tree(0)
    rule = row.make(learning_rate=RATE)
    given = {"params": params, **row.extra(grads, params)}
    given.pop(missing)
    with pytest.raises(ValueError, match=rf"{missing}=\.\.\. at the update of \w+"):
        rule.update(grads, rule.init(params), **given)


ANSWERS = {
    "grad_fn": {
        "a gradient alone": lambda look: lambda at: look(at)[1],
        "a gradient of one number": lambda look: lambda at: (0.0, jnp.zeros(())),
    },
    "product_fn": {
        "one number": lambda product: lambda vector: jnp.zeros(()),
        "a value and a product": lambda product: lambda vector: (0.0, product(vector)),
    },
}


@pytest.mark.parametrize(
    ("name", "function", "answer"),
    [(name, lacks, one) for name, row in ROWS.items() for lacks in row.needs for one in ANSWERS.get(lacks, ())],
)
def test_what_a_function_returns_is_looked_at(name, function, answer):
    """None of it is broadcast, and what is wrong is named."""
    row, grads, params = ROWS[name], tree(1), tree(0)
    given = {"params": params, **row.extra(grads, params)}
    given[function] = ANSWERS[function][answer](given[function])
    rule = row.make(learning_rate=RATE)
    with pytest.raises(ValueError, match=f"Pass {function}\\("):
        rule.update(grads, rule.init(params), **given)


@rows
def test_a_check_up_says_why_it_has_no_rates(name):
    row, grads, params = ROWS[name], {"matrix": jnp.ones((1, 2))}, {"matrix": jnp.ones((1, 2))}
    rule = row.make(learning_rate=RATE)
    found = update_rule(rule, rule.init(params), params, grads, **row.extra(grads, params))
    assert found.name().startswith(f"unknown: {row.known_as}:"), found.name()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: optimize.mars(0.1, "adam"), "a form among adamw, lion, shampoo, got 'adam'"),
        (lambda: optimize.mars(0.1, b1=1.0), "b1 from 0 to below 1, got 1.0"),
        (lambda: optimize.diffgrad(0.1, weight_decay=-1.0), "weight_decay of 0 or more"),
        (lambda: optimize.nag_gs(0.1, mu=0.0), "mu above 0"),
        (lambda: optimize.soap(every=0), "every as a whole number, at least 1"),
        (lambda: optimize.shampoo(0.1, eps=0.0), "eps above 0"),
        (lambda: optimize.oasis(floor=0.0, key=KEY), "floor above 0"),
        (lambda: optimize.psgd(key=3), "key: a random key"),
        (lambda: optimize.psgd(scale=0.0, key=KEY), "scale above 0"),
        (lambda: optimize.psgd_low_rank(fit_rate=5.0, key=KEY), "fit_rate above 0, at most 1"),
        (lambda: optimize.xgrad(optax.adam), "the function adam"),
        (lambda: optimize.gravity(optax.linear_schedule(0.0, 0.1, 10), key=KEY), "learning_rate above 0"),
        (lambda: optimize.soap(-1e-3), "learning_rate of 0 or more"),
        (lambda: optimize.riemannian_adam(-1e-3), "learning_rate of 0 or more"),
        (lambda: optimize.mirror_descent(jnp.array(-1.0), optimize.p_norm(2.0)), "learning_rate of 0 or more"),
        (lambda: optimize.diffgrad(0.1, eps=0.0), "eps above 0"),
        (lambda: optimize.complex_momentum(0.1, 1.0), "magnitude from 0 to below 1"),
        (lambda: optimize.two_timescale_extragradient(0.1, 0.0, ascends=(False, True)), "timescale above 0"),
        (lambda: optimize.two_timescale_extragradient(0.1, ascends=None), "ascends, to tell the slow player"),
        # A number is one whatever holds it.
        (lambda: optimize.mars(0.1, b1=np.float32(1.5)), "b1 from 0 to below 1"),
        (lambda: optimize.mars(0.1, b1=jnp.array([0.9, 0.9])), "one number for b1, got an array of shape"),
        (lambda: optimize.mars(0.1, b1="0.9"), "a number for b1, got '0.9'"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_loss_for_each_of_several_is_no_value():
    """Three losses beside a leaf of three would be taken for one each."""
    rule, x = optimize.aegd(0.1), jnp.ones(3)
    with pytest.raises(ValueError, match="one loss as value"):
        rule.update(x, rule.init(x), x, value=jnp.ones(3))


def test_an_empty_matrix_is_no_matrix():
    rule, empty = optimize.mars(0.1, "shampoo"), jnp.zeros((3, 0))
    assert rule.update(empty, rule.init(empty), empty)[0].shape == (3, 0)


def test_a_gravity_that_warms_up_from_zero_may_begin_at_rest():
    rule, x = optimize.gravity(optax.linear_schedule(0.0, 0.1, 10), alpha=0.0), jnp.ones(2)
    assert np.all(np.isfinite(rule.update(x, rule.init(x), x)[0]))


def test_the_weights_of_a_prediction_of_some_parameters():
    """Those of another rule are what they are."""
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    rule = optax.multi_transform(
        {"ahead": optimize.xgrad(optax.sgd(0.1)), "plain": optax.sgd(0.1)}, {"a": "ahead", "b": "plain"}
    )
    updates, state = rule.update(params, rule.init(params), params)
    weights = optimize.xgrad_eval_params(state, optax.apply_updates(params, updates))
    assert np.allclose(weights["a"], 0.9) and np.allclose(weights["b"], 0.9)
