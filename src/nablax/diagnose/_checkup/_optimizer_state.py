"""The moments in an Optax state, wherever they stand; and accumulated gradients, which make a step of several calls."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, PyTree

from ..._core import RULES
from ...regulate import AggregatorState, DualAscentState, ImportanceSamplingState, ModalityModulationState

# What combines gradients that no losses= of a check-up have: what goes with them only the training loop knows.
_OWN_STACK = {
    DualAscentState: "dual_ascent combines a loss and constraints by multipliers that grow with their values",
    ImportanceSamplingState: "importance_sampling combines gradients of rows that were drawn from its state",
    ModalityModulationState: "modality_modulation combines the parts that modalities have in one gradient",
}


def own_stack(state: PyTree) -> str:
    """Why an optimiser cannot be asked for its step where it takes a stack of gradients of its own; empty elsewhere."""
    found = [part for part in jax.tree.leaves(state, is_leaf=_stacks) if _stacks(part)]
    return f"{_OWN_STACK[type(found[0])]}, which a check-up has not at hand" if found else ""


def aggregators_of(state: PyTree) -> list[AggregatorState]:
    """States of aggregators of several gradients, wherever they stand."""
    return [part for part in jax.tree.leaves(state, is_leaf=_aggregates) if _aggregates(part)]


def behind(transform: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """The same asked about one gradient: aggregators hand on what they are told to, and the rest takes no heed."""

    def update(gradient: PyTree, state: PyTree, params: PyTree = None, **extra: Any) -> tuple[PyTree, PyTree]:
        if not aggregators_of(state):
            return transform.update(gradient, state, params, **extra)
        return transform.update(gradient, state, params, **extra | {"combined": gradient})

    return optax.GradientTransformationExtraArgs(transform.init, update)


def moments_of(state: PyTree) -> list[Any]:
    """States with moments, one for each part of the parameters that has some."""
    return [part for part in jax.tree.leaves(state, is_leaf=_registered) if _readable(part)]


def unreadable(state: PyTree, moving: PyTree) -> str:
    """Why moments cannot be read as one set; empty where they can."""
    for part in jax.tree.leaves(state, is_leaf=_registered):
        if _registered(part) and RULES[type(part)].unreadable:
            return RULES[type(part)].unreadable
    if unknown := _unknown(state):
        return f"the optimiser keeps state that this check does not know ({', '.join(unknown)})"
    held = moments_of(state)
    if len({type(part) for part in held}) > 1:
        return "the optimiser keeps more than one set of moments"
    for part in held:
        if any(_places(tree) != jax.tree.structure(moving) for tree in _trees(part).values()):
            return "only a part of the parameters has moments"
    if held and any(sum(owners) > 1 for owners in zip(*(_owned(part) for part in held))):
        return "the optimiser keeps more than one set of moments"
    return ""


def _unknown(state: PyTree) -> list[str]:
    """Kinds of state with arrays besides registered moments and the gradients that are being accumulated."""
    bare = jax.tree.map(lambda s: s._replace(acc_grads=None) if _gathers(s) else s, state, is_leaf=_gathers)
    bare = jax.tree.map(lambda s: _rest(s) if _readable(s) else s, bare, is_leaf=_readable)
    # What an aggregator keeps belongs to the direction, not to how the rest moves along it.
    bare = jax.tree.map(lambda s: None if _aggregates(s) else s, bare, is_leaf=_aggregates)
    kinds: list[str] = []

    def look(node: Any, owner: str) -> None:
        if isinstance(node, tuple) and hasattr(node, "_fields"):
            owner = type(node).__name__
        children = jax.tree.leaves(node, is_leaf=lambda child: child is not node)
        if len(children) == 1 and children[0] is node:
            if eqx.is_inexact_array(node) and node.ndim > 0 and owner not in kinds:
                kinds.append(owner)
            return
        for child in children:
            look(child, owner)

    look(bare, "arrays")
    return kinds


def _rest(part: Any) -> Any:
    """What a state holds besides its moments; nothing, where a reader of its own knows the whole of it."""
    return None if RULES[type(part)].reader else part._replace(**dict.fromkeys(_trees(part)))


def merged(held: list[Any], moving: PyTree) -> Any:
    """Moments of all parts as one state, zero where the parameters have none."""
    fields = {}
    for name in _trees(held[0]):
        columns = zip(*(jax.tree.leaves(getattr(part, name), is_leaf=_masked) for part in held))
        filled = [
            next((leaf for leaf in leaves if not _masked(leaf)), jnp.zeros_like(like))
            for leaves, like in zip(columns, jax.tree.leaves(moving))
        ]
        fields[name] = jax.tree.unflatten(jax.tree.structure(moving), filled)
    return held[0]._replace(**fields)


def with_moments(state: PyTree, **moments: PyTree) -> PyTree:
    """A state with its moments replaced, each part of them in its place."""

    def replaced(part: Any) -> Any:
        if not _readable(part):
            return part
        own = {}
        for name, tree in moments.items():
            mine = getattr(part, name)
            own[name] = jax.tree.map(lambda old, new: old if _masked(old) else new, mine, tree, is_leaf=_masked)
        return part._replace(**own)

    return jax.tree.map(replaced, state, is_leaf=_readable)


def has_moments(held: list[Any], moving: PyTree) -> Bool[Array, " dim"]:
    """Which elements of the parameters have moments."""
    sizes = [leaf.size for leaf in jax.tree.leaves(moving)]
    owned = [any(owners) for owners in zip(*(_owned(part) for part in held))] or [False] * len(sizes)
    return jnp.concatenate([jnp.full(size, own) for size, own in zip(sizes, owned)])


def gathers(state: PyTree) -> bool:
    """Whether gradients are accumulated over several calls."""
    return any(_gathers(part) for part in jax.tree.leaves(state, is_leaf=_gathers))


def afresh(state: PyTree) -> PyTree:
    """A state in which no gradient has been accumulated yet."""

    def emptied(part: Any) -> Any:
        if not _gathers(part):
            return part
        return part._replace(mini_step=jnp.zeros_like(part.mini_step), acc_grads=optax.tree.zeros_like(part.acc_grads))

    return jax.tree.map(emptied, state, is_leaf=_gathers)


def emitted(
    transform: optax.GradientTransformationExtraArgs, gradient: PyTree, state: PyTree, params: PyTree, **extra: Any
) -> tuple[PyTree, PyTree]:
    """The next update that moves the parameters, where every gradient up to there is this one; and the state after.

    Of an optimiser that accumulates nothing it is the update.
    """
    if not gathers(state):
        return transform.update(gradient, state, params, **extra)

    def count(state: PyTree) -> Array:
        return next(s.mini_step for s in jax.tree.leaves(state, is_leaf=_gathers) if _gathers(s))

    def call(carry: tuple[PyTree, PyTree, Array]) -> tuple[PyTree, PyTree, Array]:
        _, before, _ = carry
        update, after = transform.update(gradient, before, params, **extra)
        # At the step the count starts anew; where the gradient is passed over it stays.
        return update, after, count(after) > count(before)

    shapes, _ = jax.eval_shape(lambda g, s, p: transform.update(g, s, p, **extra), gradient, state, params)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    update, after, _ = jax.lax.while_loop(lambda carry: carry[2], call, (nothing, state, jnp.array(True)))
    return update, after


def _registered(part: Any) -> bool:
    return type(part) in RULES


def _readable(part: Any) -> bool:
    return _registered(part) and not RULES[type(part)].unreadable


def _gathers(part: Any) -> bool:
    return isinstance(part, optax.MultiStepsState)


def _aggregates(part: Any) -> bool:
    return isinstance(part, AggregatorState)


def _stacks(part: Any) -> bool:
    return type(part) in _OWN_STACK


def _masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def _trees(part: Any) -> dict[str, PyTree]:
    """Its moments, of the parameters' size."""
    fields = ((name, getattr(part, name)) for name in RULES[type(part)].fields)
    return {name: tree for name, tree in fields if tree is not None}


def _places(tree: PyTree) -> Any:
    return jax.tree.structure(jax.tree.map(lambda leaf: 0, tree, is_leaf=_masked))


def _owned(part: Any) -> list[bool]:
    tree = next(iter(_trees(part).values()), None)
    return [not _masked(leaf) for leaf in jax.tree.leaves(tree, is_leaf=_masked)]
