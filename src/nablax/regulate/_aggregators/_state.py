"""What an aggregator finds at a step, and what it keeps of it."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PyTree

from ..._core import check_like, described, fault, wide_dtype


class Weights(NamedTuple):
    r"""What a weighting makes of a Gramian. A closed form is ``Weights(weights)``.

    Attributes:
        weights: one for each objective; the aggregated gradient is :math:`J^{\top}` times these.
        residual: by how much the method's own optimality conditions are missed, for gradients scaled to unit norm, no
            unit; rounding where the weights are a closed form.
        result: of the solve; ``optimistix.RESULTS.successful``, or why not.
    """

    weights: Float[Array, " K"]
    residual: Float[ArrayLike, ""] = 0.0
    result: optx.RESULTS = optx.RESULTS.successful  # type: ignore[assignment]


class Shapes(eqx.Module):
    """Of the parameters that `init` saw, by path: part of the state's structure, no array of it.

    A stack has one axis more than they, so that a gradient alone is never taken for one, parameters at hand or not.
    """

    by_path: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True)


def shapes_of(params: PyTree) -> Shapes:
    """Shapes of a tree's leaves by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return Shapes(tuple((jax.tree_util.keystr(path), jnp.shape(leaf)) for path, leaf in leaves))


class AggregatorState(NamedTuple):
    r"""State of every aggregator.

    Attributes:
        weights: the last step's, where the number of objectives was given to the factory and the method has weights;
            else None.
        residual: the last step's, see `Weights`; infinite where the gradients were not finite.
        result: the last step's, see `Weights`.
        stationary: whether the last direction is zero: no direction improves what the method holds to, or what is left
            of the gradients is below their rounding and was set to zero.
        inner: what the method itself remembers: a key, averages.
        parameters: shapes of the parameters, by which a stack of gradients is known; no array.
    """

    weights: Float[Array, " K"] | None
    residual: Float[Array, ""]
    result: optx.RESULTS
    stationary: Bool[Array, ""]
    inner: Any
    parameters: Shapes


def outcome(done: Bool[Array, ""]) -> optx.RESULTS:
    """Whether an iteration has reached its tolerance, as a result."""
    return optx.RESULTS.where(done, optx.RESULTS.successful, optx.RESULTS.nonlinear_max_steps_reached)


def initial(params: PyTree, objectives: int | None, inner: Any) -> AggregatorState:
    """State before the first step; ``objectives`` where weights are to be recorded."""
    dtype = wide_dtype(params)
    weights = None if objectives is None else jnp.zeros(objectives, dtype)
    return AggregatorState(
        weights,
        residual=jnp.zeros((), dtype),
        result=outcome(jnp.asarray(True)),
        stationary=jnp.asarray(False),
        inner=jax.tree.map(jnp.asarray, inner),
        parameters=shapes_of(params),
    )


def record(state: AggregatorState, vector: PyTree, found: Weights, inner: Any) -> AggregatorState:
    """Next state, in the types of the last."""
    fix = "Hand on what memory(params) made, with other values."
    check_like(inner, state.inner, what="a memory that", fix=fix)
    inner = jax.tree.map(_as_before, inner, state.inner)
    if state.weights is not None:
        fix = "Weigh the gradients left out by 0, or leave out objectives."
        check_like(found.weights, state.weights, what="a vector of weights that", fix=fix)
    weights = None if state.weights is None else found.weights.astype(state.weights.dtype)
    residual = jnp.asarray(found.residual, state.residual.dtype)
    stationary = ~jnp.any(jnp.stack([jnp.any(leaf != 0) for leaf in jax.tree.leaves(vector)]))
    return AggregatorState(weights, residual, found.result, stationary, inner, state.parameters)


def _as_before(new: Any, old: Array) -> Array:
    new = jnp.asarray(new)
    if new.dtype == old.dtype:  # keys have no other type to be cast to
        return new
    if jnp.issubdtype(new.dtype, jnp.inexact) and not jnp.issubdtype(old.dtype, jnp.inexact):
        raise fault(
            expected=f"a memory of whole numbers, {described(old)}",
            got=described(new),
            fix="Let memory(params) make floats: jnp.zeros(()), for one.",
        )
    return new.astype(old.dtype)
