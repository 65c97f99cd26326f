"""Leaves that are alike go through a function together, and none the worse for it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax import optimize
from nablax.optimize._leaves import over_leaves
from nablax.optimize._preconditioned import _psgd, _soap
from nablax.optimize._preconditioned._stacks import over_stacks


def test_a_stack_is_its_leaves_one_by_one_and_a_function_is_called_once_for_it():
    random = np.random.default_rng(0)
    leaf = lambda *shape, dtype=np.float32: jnp.asarray(random.normal(size=shape), dtype)  # noqa: E731
    first = {
        "a": leaf(3, 2),
        "b": leaf(2, 3),
        "c": leaf(3, 2),
        "half": leaf(3, 2, dtype=jnp.float16),
        "none": None,
        "masked": optax.MaskedNode(),
        "narrow": leaf(3, 2),
        "large": [leaf(130, 130), leaf(130, 130)],
    }
    others = jax.tree.map(lambda x: (leaf(*x.shape), leaf(len(x)), None), first)
    others["narrow"] = (others["narrow"][0], leaf(1), None)  # alike itself, and not what belongs to it
    places = jax.tree.unflatten(jax.tree.structure(first), range(7))
    called = []

    def function(x, parts, place):
        called.append(x.shape)
        weight, offset, missing = parts
        return x @ weight.T, (jnp.sum(offset) + place, missing)

    alone = over_leaves(function, 2, first, others, places)
    assert len(called) == 7
    called.clear()
    together = over_stacks(function, 2, first, others, places)
    assert sorted(called) == [(2, 3), (3, 2), (3, 2), (3, 2), (130, 130), (130, 130)]
    assert jax.tree.structure(alone) == jax.tree.structure(together)
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(together)):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)
    assert over_stacks(function, 2, {}, {}, {}) == ({}, {})


@pytest.mark.parametrize("criterion", ["whitening", "newton", None])
def test_steps_of_equal_layers_are_those_of_each_alone(x64, monkeypatch, criterion):
    random = np.random.default_rng(1)
    shapes = {"first": (4, 3), "second": (4, 3), "bias": (3,), "third": (4, 3), "offset": (3,)}
    gradients = {name: jnp.asarray(random.normal(size=(12, *shape))) for name, shape in shapes.items()}

    def path():
        """The updates; a rule draws for each layer what it does alone."""
        if criterion is None:
            rule, extra = optimize.scale_by_soap(every=3), {}
        else:
            rule = optimize.scale_by_psgd(criterion, probability=0.5, momentum=0.9, key=jax.random.key(1))
            extra = {"product_fn": lambda tree: jax.tree.map(lambda v: v * 2 + jnp.flip(v), tree)}

        def step(state, g):
            update, state = rule.update(g, state, **extra)
            return state, update

        return jax.lax.scan(step, rule.init(jax.tree.map(lambda g: g[0], gradients)), gradients)[1]

    together = path()
    for module in (_soap, _psgd):
        monkeypatch.setattr(module, "over_stacks", over_leaves)
    alone = path()
    for name in shapes:
        np.testing.assert_allclose(together[name], alone[name], rtol=1e-7, atol=1e-10, err_msg=name)
    assert np.abs(together["first"][-1] - together["second"][-1]).max() > 0.1
