"""What the aggregators share: Gramian of stacked gradients, weights, weights to vector, the state. Private."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optimistix as optx
from jaxtyping import Array, Bool, Float, PyTree

from ..._core import check_count, check_floats, fault

# Columns that are multiplied at a time, at least, and pieces at most: long thin products run best from the cache,
# and sums of blocks round less than one long sum.
_BLOCK, _BLOCKS = 2**16, 64

P = ParamSpec("P")
T = TypeVar("T")


class Weights(NamedTuple):
    r"""What a weighting makes of a Gramian.

    Attributes:
        weights: one for each objective; the aggregated gradient is :math:`J^{\top}` times these.
        residual: by how much the method's own optimality conditions are missed, for gradients scaled to unit norm, no
            unit; rounding where the weights are a closed form.
        result: of the solve; ``optimistix.RESULTS.successful``, or why not.
    """

    weights: Float[Array, " K"]
    residual: Float[Array, ""]
    result: optx.RESULTS


class AggregatorState(NamedTuple):
    r"""State of every aggregator.

    Attributes:
        weights: the last step's, where the number of objectives was given to the factory; else None.
        residual: the last step's, see `Weights`.
        result: the last step's, see `Weights`.
        inner: what the method itself remembers: a key, averages.
    """

    weights: Float[Array, " K"] | None
    residual: Float[Array, ""]
    result: optx.RESULTS
    inner: Any


def exact(function: Callable[P, T]) -> Callable[P, T]:
    """Have its products in the precision of their numbers, where accelerators by default round to ten bits or fewer."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return wrapped


def solver_dtype(tree: PyTree) -> jnp.dtype:
    """Single precision at least."""
    return jnp.result_type(jnp.float32, *jax.tree.leaves(tree))


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
    if len(counts) != 1 or 0 in counts:
        raise fault(
            expected="gradients whose leaves all have the same leading axis, one entry for each objective",
            got=f"leaves of shapes {shapes}",
            fix="multi_value_and_grad makes them; an aggregator is the first link of optax.chain.",
        )
    if params is not None:
        _check_stacked(grads, params)
    return shapes[0][0]


def _check_stacked(grads: PyTree, params: PyTree) -> None:
    # By name, for gradients may leave out what has none. One gradient alone would be taken for a stack of its rows.
    known = {path: jnp.shape(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        if known.get(path) != jnp.shape(leaf)[1:]:
            name = jax.tree_util.keystr(path) or "the gradient"
            raise fault(
                expected=f"{name} of shape [objectives, *{known.get(path, 'that of a parameter of this name')}]",
                got=f"shape {jnp.shape(leaf)}",
                fix="multi_value_and_grad makes such stacks; an aggregator is the first link of optax.chain.",
            )


def _products(leaf: Array) -> Float[Array, "K K"]:
    count, size = leaf.shape
    block = max(_BLOCK, -(-size // _BLOCKS))

    def add(total: Array, piece: Array) -> Array:
        return total + jnp.matmul(piece, piece.T, preferred_element_type=dtype)

    dtype = solver_dtype(leaf)
    whole = size // block if size > block else 0
    total = jnp.zeros((count, count), dtype)
    if whole:
        total = jax.lax.fori_loop(
            0, whole, lambda i, t: add(t, jax.lax.dynamic_slice(leaf, (0, i * block), (count, block))), total
        )
    return add(total, leaf[:, whole * block :])


def split(gramian: Float[Array, "K K"]) -> tuple[Float[Array, "K K"], Float[Array, " K"]]:
    """Cosines (zero for a vanished gradient) and norms of a Gramian's rows."""
    gramian = jnp.asarray(gramian, solver_dtype(gramian))
    if gramian.ndim != 2 or gramian.shape[0] != gramian.shape[1]:
        raise fault(expected="a square Gramian", got=f"shape {gramian.shape}", fix="Pass J @ J.T.")
    norms = jnp.sqrt(jnp.maximum(jnp.diagonal(gramian), 0))
    scales = inverse(norms)
    cosines = (gramian * scales[:, None]) * scales[None, :]
    return jnp.where(jnp.eye(len(norms), dtype=bool), (norms > 0).astype(norms.dtype), cosines), norms


def scaled(tree: PyTree) -> tuple[PyTree, Float[Array, ""]]:
    """A tree over its largest entry, so that no square leaves the number range, and that entry (1 where all vanish)."""
    dtype = solver_dtype(tree)
    peak = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf), initial=0).astype(dtype) for leaf in jax.tree.leaves(tree)]))
    peak = jnp.where(peak > 0, peak, 1)
    return jax.tree.map(lambda leaf: leaf.astype(dtype) / peak, tree), peak


def scaled_rows(tree: PyTree) -> tuple[list[Float[Array, "K size"]], Float[Array, " K"]]:
    """Each objective's row of every leaf over the objective's largest entry, and these; see `scaled`."""
    dtype = solver_dtype(tree)
    rows = [jnp.reshape(leaf, (jnp.shape(leaf)[0], -1)).astype(dtype) for leaf in jax.tree.leaves(tree)]
    peaks = jnp.max(jnp.stack([jnp.max(jnp.abs(row), axis=1, initial=0) for row in rows]), axis=0)
    peaks = jnp.where(peaks > 0, peaks, 1)
    return [row / peaks[:, None] for row in rows], peaks


@jax.jit
@exact
def cosines_and_norms(grads: PyTree) -> tuple[Float[Array, "K K"], Float[Array, " K"]]:
    """Of stacked gradients. Rows whose squares would leave the number range are scaled first."""
    leaves = [jnp.reshape(leaf, (jnp.shape(leaf)[0], -1)) for leaf in jax.tree.leaves(grads)]
    dtype = solver_dtype(leaves)
    information = jnp.finfo(dtype)
    size = max(sum(leaf.shape[1] for leaf in leaves), 1)

    def products(leaves: list[Array]) -> Array:
        return sum((_products(leaf).astype(dtype) for leaf in leaves[1:]), _products(leaves[0]).astype(dtype))

    def careful(_: Array) -> tuple[Array, Array]:
        rows, peaks = scaled_rows(leaves)
        cosines, norms = split(products(rows))
        return cosines, norms * peaks

    gramian = products(leaves)
    squares = jnp.diagonal(gramian)
    # A sum of squares is trusted where even its average term, squared again by nobody, is well inside the range.
    low, high = size * float(information.tiny) / float(information.eps), float(information.max) ** 0.99
    safe = jnp.all((squares > low) & (squares < high))
    return jax.lax.cond(safe, split, careful, gramian)


def relative(norms: Float[Array, " K"]) -> tuple[Float[Array, " K"], Float[Array, ""]]:
    """Norms as a share of the largest, and the largest (1 where all vanish)."""
    largest = jnp.max(norms)
    largest = jnp.where(largest > 0, largest, 1)
    return norms / largest, largest


def inverse(norms: Float[Array, " K"]) -> Float[Array, " K"]:
    """One over each norm, and 0 for a vanished gradient."""
    return jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1), 0)


def with_unit_diagonal(cosines: Float[Array, "K K"]) -> Float[Array, "K K"]:
    """Vanished gradients get a 1, which leaves them out of every solve."""
    return cosines + jnp.diag(1 - jnp.diagonal(cosines))


@exact
def combine(grads: PyTree, weights: Float[Array, " K"]) -> PyTree:
    """Weighted sum over the leading axis, each leaf in its own dtype."""

    def leaf(value: Array) -> Array:
        flat = jnp.reshape(value, (value.shape[0], math.prod(value.shape[1:])))
        dtype = jnp.promote_types(weights.dtype, value.dtype)
        return (weights.astype(dtype) @ flat.astype(dtype)).reshape(value.shape[1:]).astype(value.dtype)

    return jax.tree.map(leaf, grads)


def outcome(done: Bool[Array, ""]) -> optx.RESULTS:
    """Whether an iteration has reached its tolerance, as a result."""
    return optx.RESULTS.where(done, optx.RESULTS.successful, optx.RESULTS.nonlinear_max_steps_reached)


def closed_form(weights: Float[Array, " K"], residual: Float[Array, ""] | None = None) -> Weights:
    """Weights that need no iteration."""
    residual = jnp.zeros((), weights.dtype) if residual is None else residual
    return Weights(weights, residual, outcome(jnp.asarray(True)))


def initial(params: PyTree, objectives: int | None, inner: Any) -> AggregatorState:
    """State before the first step."""
    if objectives is not None:
        objectives = check_count(objectives, what="objectives")
    dtype = solver_dtype(params)
    weights = None if objectives is None else jnp.zeros(objectives, dtype)
    return AggregatorState(weights, jnp.zeros((), dtype), outcome(jnp.asarray(True)), inner)


def record(state: AggregatorState, weights: Weights, inner: Any) -> AggregatorState:
    """Next state, in the types of the last."""
    kept = None
    if state.weights is not None:
        if state.weights.shape != weights.weights.shape:
            raise fault(
                expected=f"{state.weights.shape[0]} objectives",
                got=str(weights.weights.shape[0]),
                fix="Give the factory as many objectives as the gradients' leading axis is long.",
            )
        kept = weights.weights.astype(state.weights.dtype)
    return AggregatorState(kept, weights.residual.astype(state.residual.dtype), weights.result, inner)


def judged(found: Weights, cosines: Float[Array, "K K"], norms: Float[Array, " K"]) -> Weights:
    """The same weights; a failure where they, or what they were made of, are not finite."""
    finite = jnp.all(jnp.isfinite(cosines)) & jnp.all(jnp.isfinite(norms)) & jnp.all(jnp.isfinite(found.weights))
    result = optx.RESULTS.where(finite, found.result, optx.RESULTS.nonlinear_divergence)
    return Weights(found.weights, jnp.where(finite, found.residual, jnp.inf), result)


def weighting(*static: str) -> Callable[[Callable[..., Weights]], Callable[..., Weights]]:
    """Compile ``weigh(cosines, norms, ...)``, its products `exact` and its answer `judged`."""

    def decorate(weigh: Callable[..., Weights]) -> Callable[..., Weights]:
        @functools.partial(jax.jit, static_argnames=static)
        @functools.wraps(weigh)
        def wrapped(cosines: Array, norms: Array, *args: Any) -> Weights:
            return judged(exact(weigh)(cosines, norms, *args), cosines, norms)

        return wrapped

    return decorate


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


def aggregator(
    weigh: Callable[..., Weights],
    *,
    objectives: int | None = None,
    throw: bool = True,
    key: Array | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Make an aggregator of ``weigh(cosines, norms)``, or of ``weigh(cosines, norms, key)`` where a key is given."""

    def init(params: PyTree) -> AggregatorState:
        return initial(params, objectives, key)

    def update(
        grads: PyTree, state: AggregatorState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, AggregatorState]:
        del extra
        leading_axis(grads, params)
        matrix = cosines_and_norms(grads)
        if key is None:
            weights, inner = weigh(*matrix), None
        else:
            inner, now = jax.random.split(state.inner)
            weights = weigh(*matrix, now)
        return checked(combine(grads, weights.weights), weights, throw), record(state, weights, inner)

    return optax.GradientTransformationExtraArgs(init, update)
