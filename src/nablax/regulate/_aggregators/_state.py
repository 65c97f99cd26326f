"""What an aggregator finds at a step, and what it keeps of it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optimistix as optx
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PyTree

from ..._core import fault, wide_dtype


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


class AggregatorState(NamedTuple):
    r"""State of every aggregator.

    Attributes:
        weights: the last step's, where the number of objectives was given to the factory and the method has weights;
            else None.
        residual: the last step's, see `Weights`; infinite where the gradients were not finite.
        result: the last step's, see `Weights`.
        inner: what the method itself remembers: a key, averages.
    """

    weights: Float[Array, " K"] | None
    residual: Float[Array, ""]
    result: optx.RESULTS
    inner: Any


def outcome(done: Bool[Array, ""]) -> optx.RESULTS:
    """Whether an iteration has reached its tolerance, as a result."""
    return optx.RESULTS.where(done, optx.RESULTS.successful, optx.RESULTS.nonlinear_max_steps_reached)


def initial(params: PyTree, objectives: int | None, inner: Any) -> AggregatorState:
    """State before the first step; ``objectives`` where weights are to be recorded."""
    dtype = wide_dtype(params)
    weights = None if objectives is None else jnp.zeros(objectives, dtype)
    return AggregatorState(weights, jnp.zeros((), dtype), outcome(jnp.asarray(True)), inner)


def record(state: AggregatorState, found: Weights, inner: Any) -> AggregatorState:
    """Next state, in the types of the last."""
    before: Any = jax.tree.structure(state.inner)
    after: Any = jax.tree.structure(inner)
    if before != after:
        raise fault(
            expected=f"a memory that stays {before}",
            got=str(after),
            fix="Hand on what memory(params) made, with other values.",
        )
    # Keys have no other type to be cast to.
    inner = jax.tree.map(lambda new, old: new if new.dtype == old.dtype else new.astype(old.dtype), inner, state.inner)
    weights = None if state.weights is None else found.weights.astype(state.weights.dtype)
    residual = jnp.asarray(found.residual, state.residual.dtype)
    return AggregatorState(weights, residual, found.result, inner)
