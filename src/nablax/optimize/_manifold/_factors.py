"""A tree's leaves as points of spaces: what a rule does on each, flat or curved, written once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._core import check_like, exact, fault, required, wide_dtype
from ...spaces import AbstractManifold, AbstractSpace, Euclidean
from .._leaves import like
from .._prefix import places

# Of a rule: (gradient, its squared length, what is carried, what is not) -> (step, and the last two anew).
Rule = Callable[[Array, Array, tuple, tuple], tuple[Array, tuple, tuple]]


class Walk(NamedTuple):
    """Where one step has led: the update and the state's two parts, trees by field."""

    update: PyTree
    carried: tuple[PyTree, ...]
    scalars: tuple[PyTree, ...]


def spaces_of(spaces: PyTree, params: PyTree) -> list[AbstractManifold | None]:
    """The curved space of each leaf of the parameters, None where it is flat.

    Raises:
        ValueError: the spaces are no prefix of the parameters, or a leaf holds no points of its space.
    """
    found: list[AbstractManifold | None] = []
    for space, place in places(
        spaces,
        params,
        what="spaces",
        fix="Give a space, or None for flat, for each part: {'frame': Stiefel(8, 2), 'bias': None}.",
        is_leaf=lambda x: x is None or isinstance(x, AbstractSpace),
    ):
        if not (space is None or isinstance(space, AbstractManifold | Euclidean)):
            raise fault(
                expected="a curved space, Euclidean or None", got=repr(space), fix="Pass spaces.Sphere(3), for one."
            )
        for leaf in jax.tree.leaves(place):
            if space is not None and jnp.shape(leaf)[jnp.ndim(leaf) - len(space.shape) :] != space.shape:
                raise fault(
                    expected=f"parameters whose last axes are {space.shape}, points of {space}",
                    got=f"shape {jnp.shape(leaf)}",
                    fix="Axes before a point's count points, each a factor of its own.",
                )
            found.append(space if isinstance(space, AbstractManifold) else None)
    return found


def scalar_zeros(spaces: PyTree, params: PyTree, value: Any = 0.0) -> PyTree:
    """One number a factor: a point of a curved space, an element of a flat leaf; in single precision at least."""

    def one(leaf: Array, space: AbstractManifold | None) -> Array:
        keep = jnp.ndim(leaf) if space is None else jnp.ndim(leaf) - len(space.shape)
        shape = (*jnp.shape(leaf)[:keep], *[1] * (jnp.ndim(leaf) - keep))
        return jnp.full(shape, value, wide_dtype(leaf))

    structure: Any = jax.tree.structure(params)
    return structure.unflatten([one(*pair) for pair in zip(jax.tree.leaves(params), spaces_of(spaces, params))])


@exact
def walk(
    rule: Rule,
    spaces: PyTree,
    updates: PyTree,
    params: PyTree,
    carried: tuple[PyTree, ...],
    scalars: tuple[PyTree, ...],
    *,
    by: str,
) -> Walk:
    """One step of a rule on every leaf: gradient of the metric, the rule, geodesic, and what is carried along it.

    Args:
        rule: as `Rule`.
        spaces: a prefix of the parameters.
        updates: gradients in the ambient numbers.
        params: the points; those of curved spaces are projected first, so that roundings do not add up.
        carried: trees of tangents at the points.
        scalars: trees of one number a factor.
        by: the rule's public name.

    Returns:
        The `Walk`; its update is the new point less the old parameters.
    """
    params = required(params, "params", by=by)
    check_like(params, updates, what="parameters that", fix="Pass the parameters that are trained.")
    structure: Any = jax.tree.structure(updates)
    rows = [structure.flatten_up_to(tree) for tree in (updates, params, *carried, *scalars)]
    split = 2 + len(carried)
    results = []
    for space, g, x, *state in zip(spaces_of(spaces, params), *rows):
        old = (tuple(state[: split - 2]), tuple(state[split - 2 :]))
        wide, start = g.astype(wide_dtype(g)), x.astype(wide_dtype(x))
        if space is None:
            step, tangents, numbers = rule(wide, wide**2, *old)
            update = step
        else:
            at = _Pointwise(space, start.ndim - len(space.shape))
            point = at(space.project, start)
            gradient = at(space.gradient, point, wide)
            square = at(lambda y, v, s=space: jnp.maximum(s.inner(y, v, v), 0).reshape([1] * y.ndim), point, gradient)
            step, tangents, numbers = rule(gradient, square, *old)
            arrived = at(space.exp, point, at(space.tangent, point, step))
            tangents = tuple(at(space.transport, point, v, arrived) for v in tangents)
            update = arrived - start
        results.append((update.astype(g.dtype), *(like(new, before) for new, before in zip(tangents + numbers, state))))
    trees = [structure.unflatten([result[i] for result in results]) for i in range(len(rows) - 1)]
    return Walk(trees[0], tuple(trees[1 : split - 1]), tuple(trees[split - 1 :]))


class _Pointwise(NamedTuple):
    """Calls a function of points on arrays with leading axes."""

    space: AbstractManifold
    axes: int

    def __call__(self, function: Callable[..., Array], *arrays: Array) -> Array:
        for _ in range(self.axes):
            function = jax.vmap(function)
        return function(*arrays)
