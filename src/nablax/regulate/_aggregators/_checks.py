"""What is refused and what is said: stacks that fit no parameters, numbers that are not finite, solves that failed."""

import inspect
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PyTree

from ..._core import check_floats, check_shape, described, fault, wide_dtype
from ._arithmetic import finite
from ._state import Shapes, Weights, shapes_of

_FIRST = "multi_value_and_grad makes such stacks; an aggregator is the first link of optax.chain."


def leading_axis(grads: PyTree, params: PyTree = None) -> int:
    """Number of objectives; a fault where the leaves disagree, are complex, or are no stack for the parameters."""
    leaves = jax.tree.leaves(grads)
    shapes = [jnp.shape(leaf) for leaf in leaves]
    counts = {shape[0] if shape else 0 for shape in shapes}
    if any(jnp.iscomplexobj(leaf) for leaf in leaves):
        raise fault(
            expected="real gradients", got="a complex one", fix="Split parameters into real and imaginary parts."
        )
    check_floats(grads, what="gradients", fix="multi_value_and_grad makes them, of parameters that are floats.")
    _check_stacked(grads, params if isinstance(params, Shapes) else shapes_of(params))
    if len(counts) != 1 or 0 in counts:
        raise fault(
            expected="gradients whose leaves all have the same leading axis, one entry for each objective",
            got=f"leaves of shapes {shapes}",
            fix=_FIRST,
        )
    return shapes[0][0]


def _check_stacked(grads: PyTree, params: Shapes) -> None:
    # By name, for gradients may leave out what has none. One gradient alone would be taken for a stack of its rows.
    known = dict(params.by_path)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads) if known else []:
        name = jax.tree_util.keystr(path)
        if known.get(name) != jnp.shape(leaf)[1:] or not jnp.ndim(leaf):
            raise fault(
                expected=f"{name or 'the gradient'} of shape [objectives, *"
                f"{known.get(name, 'that of a parameter of this name')}]",
                got=f"shape {jnp.shape(leaf)}",
                fix=_FIRST,
            )


# Wrappers of Optax that hand on what is shaped like what they were given, and where an aggregator stands beside them.
_WRAPPERS = {
    "MultiSteps": "optax.chain(aggregator, optax.MultiSteps(optimizer, 4).gradient_transformation())",
    "apply_if_finite": "optax.chain(aggregator(throw=False), optax.apply_if_finite(optimizer, 5))",
    "conditionally_transform": "optax.chain(aggregator, optax.conditionally_transform(optimizer, condition))",
    "conditionally_mask": "optax.chain(aggregator, optax.conditionally_mask(optimizer, condition))",
}


def check_order() -> None:
    """Refuse to stand within a wrapper that takes the stack for an update.

    Nothing that it passes tells of it, and JAX would speak of the branches of its condition: who calls is looked up
    among the callers, once a trace.
    """
    frame = inspect.currentframe()
    while frame is not None:
        wrapper = frame.f_code.co_qualname.partition(".")[0]
        if wrapper in _WRAPPERS and frame.f_globals.get("__name__", "").startswith("optax."):
            raise fault(
                expected=f"an aggregator before optax.{wrapper}",
                got="one within it, where a stack of gradients goes in and one update comes out",
                fix=f"Write {_WRAPPERS[wrapper]}.",
            )
        frame = frame.f_back


def check_preference(preference: ArrayLike | None, objectives: int | None) -> tuple[Array | None, int | None]:
    """A preference for each objective, or None, and the number of objectives where it is known by now."""
    if preference is None:
        return None, objectives
    fix = "Pass one number for each objective, none below zero: preference=jnp.array([2.0, 1.0])."
    given = jnp.asarray(preference) if isinstance(preference, (list, tuple)) else preference
    given = check_shape(given, (objectives,), what="preference", fix=fix)
    given = given.astype(jnp.result_type(given, jnp.float32))
    if not isinstance(given, jax.core.Tracer):
        numbers = np.asarray(given)
        if not (np.all(np.isfinite(numbers)) and np.all(numbers >= 0) and np.any(numbers > 0)):
            raise fault(expected="preferences that are finite, none negative, not all zero", got=str(numbers), fix=fix)
    return given, len(given)


def check_weights(found: Any, count: int) -> Weights:
    """What a rule has found, where that is one real number for each objective."""
    fix = "Return regulate.Weights(weights), one real number for each objective."
    if not isinstance(found, Weights):
        raise fault(expected="weigh that returns Weights", got=described(found), fix=fix)
    weights = check_shape(found.weights, (count,), what="weights", fix=fix)
    if jnp.iscomplexobj(weights):
        raise fault(expected="real weights", got=described(weights), fix=fix)
    check_shape(found.residual, (), what="a residual", fix="Pass one number, the largest, for one.")
    return found._replace(weights=weights)


@jax.jit
def judged(found: Weights, cosines: Float[Array, "K K"], norms: Float[Array, " K"]) -> Weights:
    """The same weights; a failure where they, or what they were made of, are not finite."""
    numbers = (cosines, norms, found.weights)
    return _failed_unless(jnp.all(jnp.stack([finite(x) for x in numbers])), found, norms.dtype)


@jax.jit
def still_finite(vector: PyTree, found: Weights) -> Weights:
    """The same weights; a failure where the vector that was made by them is not finite."""
    each = [finite(leaf) for leaf in jax.tree.leaves(vector)]
    return _failed_unless(jnp.all(jnp.stack(each)), found, jnp.result_type(found.residual))


@jax.jit
def judged_by_vector(vector: PyTree, weights: Any = None) -> Weights:
    """What a method finds that looks at no Gramian: a failure where the vector that it made is not finite."""
    return still_finite(vector, Weights(weights, jnp.zeros((), wide_dtype(vector))))


def _failed_unless(sane: Bool[Array, ""], found: Weights, dtype: jnp.dtype) -> Weights:
    result = optx.RESULTS.where(sane, found.result, optx.RESULTS.nonlinear_divergence)
    return Weights(found.weights, jnp.where(sane, found.residual, jnp.inf).astype(dtype), result)


def checked(vector: PyTree, weights: Weights, throw: bool) -> PyTree:
    """The vector, which raises where the solve has failed.

    Under plain ``jax.jit`` the runtime wraps the sentence in its own report of the callback, some seventeen lines down,
    and nothing raised from within a program can stand above that; ``state.result`` says the same without one.
    """
    if not throw:
        return vector
    not_finite = weights.result == optx.RESULTS.nonlinear_divergence
    return eqx.branched_error_if(
        vector,
        weights.result != optx.RESULTS.successful,
        jnp.where(not_finite, 0, 1),
        [
            "expected finite gradients, got NaN or infinity. Look for NaN in the losses, or pass throw=False.",
            "expected a solve within tolerance, got a residual above it (state.residual). "
            "Look for NaN in the losses, or pass throw=False.",
        ],
    )
