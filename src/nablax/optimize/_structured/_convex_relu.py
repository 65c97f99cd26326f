"""Two-layer ReLU networks trained to the global optimum: a convex problem, and a certificate of how far off it is."""

import itertools
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..._core import AbstractRecord, Key, check_count, check_finite, check_key, check_shape, divide, exact, fault, norm
from .._settings import check_positive

_MOST = 200_000  # corners that are looked at to find all patterns
_ROUNDS = 25  # between two looks at the gap


class ConvexRelu(AbstractRecord):
    r"""A two-layer ReLU network, and how far its objective is from the least of all.

    Attributes:
        weights: of the hidden units, [units, dim]; those that are off are zero.
        outputs: of the units, [units].
        value: :math:`\tfrac12\lVert f(X)-y\rVert^2+\tfrac\beta2(\lVert W\rVert^2+\lVert a\rVert^2)` of this network;
            by `robust_relu` that of the worst rows in their boxes.
        bound: that no network, of any width, whose units have the patterns that were given, is below. Where all
            patterns were given, no network at all.
        steps: rounds made.
        converged: whether ``value - bound`` came down to the tolerance.
    """

    weights: Float[Array, "units dim"]
    outputs: Float[Array, " units"]
    value: Float[Array, ""]
    bound: Float[Array, ""]
    steps: Int[Array, ""]
    converged: Bool[Array, ""]

    def __call__(self, inputs: Float[Array, "*rows dim"]) -> Float[Array, "*rows"]:
        """The network's predictions."""
        return jax.nn.relu(inputs @ self.weights.T) @ self.outputs


class _State(NamedTuple):
    u: Float[Array, "2 patterns dim"]  # of positive and of negative units
    v: Float[Array, "2 patterns dim"]  # the same, sparse
    s: Float[Array, "2 patterns rows"]  # what the rows give, on the right side
    v_dual: Float[Array, "2 patterns dim"]
    s_dual: Float[Array, "2 patterns rows"]
    rho: Float[Array, ""]


def relu_patterns(
    inputs: Float[Array, "rows dim"], count: int | None = None, *, key: Key | None = None
) -> Bool[np.ndarray, "patterns rows"]:
    r"""Which rows a ReLU unit can be on for: the sign patterns of :math:`Xu`, all of them or those of random u.

    Each cell of the arrangement of hyperplanes :math:`x_i^\top u=0` has an edge where dim - 1 of them meet; all cells
    that touch an edge are gone through. There are :math:`2\sum_{k<d}\binom{n-1}{k}` for n rows in general position.

    Args:
        inputs: rows, with a constant column if there is to be a bias.
        count: how many normal u are drawn, and their patterns kept, each once; by default all patterns are found.
        key: of the draws.

    Returns:
        Patterns, each once, [patterns, rows]; the one that is off for all rows is left out.

    Raises:
        ValueError: too many rows to find all patterns, or rows not in general position (some dim of them dependent);
            a count without a key.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> line = jnp.stack([jnp.array([-1.0, 0.0, 2.0]), jnp.ones(3)], axis=1)  # a number and a constant
        >>> optimize.relu_patterns(line).astype(int).tolist()
        [[0, 0, 1], [0, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]]

    Cost: all: :math:`2^{d}\binom{n}{d-1}` corners, on the host; drawn: one product.

    References:
        - Pilanci and Ergen, "Neural Networks are Convex Regularizers", 2020, https://arxiv.org/abs/2002.10553, for
          their number. How they are found here is derived.
    """
    x = np.asarray(check_shape(inputs, (None, None), what="inputs", fix="Pass a row for each example."), np.float64)
    check_finite(x, what="inputs", fix="Drop or fill what is missing.")
    rows, dim = x.shape
    if count is not None:
        check_count(count, what="count")
        if key is None:
            raise fault(expected="a key to draw patterns with", got="none", fix="Pass key=jax.random.key(0).")
        check_key(key)
        found = x @ np.asarray(jax.random.normal(key, (dim, count)), np.float64) >= 0
        return _once(found.T)
    corners = math.comb(rows, dim - 1) * 2**dim
    if corners > _MOST or rows < dim:
        raise fault(
            expected=f"at least as many rows as dimensions, and few of both: 2^d C(n, d - 1) up to {_MOST}",
            got=f"{rows} rows of {dim} numbers, {corners}",
            fix="Draw patterns: relu_patterns(inputs, count=100, key=key).",
        )
    sides = np.array(list(itertools.product([False, True], repeat=dim - 1)), bool).reshape(2 ** (dim - 1), dim - 1)
    cells = []
    for meeting in itertools.combinations(range(rows), dim - 1):
        picked = list(meeting)
        edge = np.linalg.svd(x[picked].reshape(dim - 1, dim))[2][-1]
        heights = x @ edge / np.linalg.norm(x, axis=1).clip(1e-300)
        heights[picked] = np.inf
        if np.min(np.abs(heights)) < 1e-9:
            raise fault(
                expected="rows in general position, no dim of them dependent",
                got=f"rows {picked} and {int(np.argmin(np.abs(heights)))}",
                fix="Draw patterns instead: relu_patterns(inputs, count=100, key=key).",
            )
        for sign in (heights > 0, heights < 0):
            around = np.repeat(sign[None], len(sides), axis=0)
            around[:, picked] = sides
            cells.append(around)
    return _once(np.concatenate(cells))


@exact
def convex_relu(
    inputs: Float[Array, "rows dim"],
    targets: Float[Array, " rows"],
    patterns: Bool[np.ndarray, "patterns rows"],
    *,
    penalty: float,
    steps: int = 10_000,
    tolerance: float = 1e-3,
    throw: bool = True,
) -> ConvexRelu:
    r"""Train a two-layer ReLU network by the convex problem that it is equal to, and bound how far it is from the best.

    .. math::
        \min_{W, a}\ \tfrac12\lVert (XW^\top)_+a-y\rVert^2+\tfrac\beta2(\lVert W\rVert^2+\lVert a\rVert^2)
        \;=\;\min_{v, w}\ \tfrac12\Bigl\lVert\sum_i D_iX(v_i-w_i)-y\Bigr\rVert^2
        +\beta\sum_i(\lVert v_i\rVert+\lVert w_i\rVert)

    under :math:`(2D_i-I)Xv_i\ge0` and the same of w, with D of all patterns of `relu_patterns`; of some of them, over
    networks whose units have these. Units are :math:`v_i/\sqrt{\lVert v_i\rVert}` with output
    :math:`\sqrt{\lVert v_i\rVert}`, those of w with a minus. By the alternating direction method of multipliers,
    whose linear system is one of as many unknowns as there are rows, since :math:`(2D_i-I)^2=I`.

    The bound is a dual value. With r the residual, any multipliers :math:`\mu_i\ge0` and

    .. math::
        t=\max_i\lVert\pm X^\top D_ir+X^\top(2D_i-I)\mu_i\rVert,\qquad c=\min(\beta/t,\ y^\top r/\lVert r\rVert^2)

    no such network is below :math:`c\,y^\top r-\tfrac12c^2\lVert r\rVert^2`. It holds at every round, converged or not.

    Args:
        inputs: X, rows, with a constant column if there is to be a bias; in units of about one.
        targets: y, one number each.
        patterns: [patterns, rows], which rows each unit is on for.
        penalty: β, above 0, in the targets' unit squared over the inputs' unit and the outputs'.
        steps: rounds at most, 10,000 by default, ours.
        tolerance: of ``value - bound``, as a share of ``value``; 1e-3 by default, ours. In single precision not far
            below.
        throw: raise where the gap is not that small after all rounds; True by default.

    Returns:
        `ConvexRelu`. Its value is that of the network proper, constraints kept or not.

    Raises:
        ValueError: shapes that do not match, patterns that are no booleans, numbers that are not finite, or a penalty
            not above 0. While it runs, by ``throw``: the gap did not close.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> x = jnp.linspace(-1.0, 1.0, 6)
        >>> inputs = jnp.stack([x, jnp.ones(6)], axis=1)
        >>> net = optimize.convex_relu(inputs, jnp.abs(x), optimize.relu_patterns(inputs), penalty=0.01)
        >>> bool(net.bound <= net.value <= 1.001 * net.bound)
        True

    Cost: a round: products with X for all patterns, 8 patterns rows dim operations, and a solve of rows²; memory
        4 patterns (rows + dim).

    References:
        - Bai, Gautam and Sojoudi, "Efficient Global Optimization of Two-layer ReLU Networks", 2022,
          https://arxiv.org/abs/2201.01965, and the first author's code, https://github.com/Bai-YT/Convex-NN-Training
          (the convex problem, patterns of normal u, and how units are had from its solution are the same; it is solved
          by a general solver there). The splitting was derived here, and turned out to be that which others have after
          the paper's algorithm 3.1 (the student project baADMM), where the multipliers' step may be shorter and ρ does
          not change. The paper's cheaper variant, which updates blocks of patterns drawn at random, is not here.
        - Pilanci and Ergen, 2020, https://arxiv.org/abs/2002.10553, for the convex problem. The linear solve in as many
          unknowns as rows, the balance of ρ and the bound from the method's own multipliers were derived here. The
          robust problem is `robust_relu`.
    """
    x, y, on = checked_problem(inputs, targets, patterns, penalty, steps, tolerance)
    return proved(_solved(x, y, on, jnp.asarray(penalty, x.dtype), steps, tolerance), steps, tolerance, throw)


def checked_problem(
    inputs: Array, targets: Array, patterns: Any, penalty: float, steps: int, tolerance: float
) -> tuple[Float[Array, "rows dim"], Float[Array, " rows"], Bool[Array, "patterns rows"]]:
    """Rows, targets and patterns, of one precision.

    Raises:
        ValueError: they do not match or are not finite, or a setting is out of its range.
    """
    x = check_shape(inputs, (None, None), what="inputs", fix="Pass a row for each example.")
    y = check_shape(targets, (len(x),), what="targets", fix="Pass one number a row.")
    check_finite((x, y), what="inputs and targets", fix="Drop or fill what is missing.")
    on = check_shape(patterns, (None, len(x)), what="patterns", fix="Take relu_patterns(inputs).")
    if on.dtype != bool or not len(on):
        raise fault(expected="patterns as booleans, one at least", got=f"{on.dtype}{list(on.shape)}", fix="See above.")
    check_positive(penalty=penalty, tolerance=tolerance)
    check_count(steps, what="steps")
    dtype = jnp.result_type(x.dtype, y.dtype, jnp.float32)
    return x.astype(dtype), y.astype(dtype), on


def proved(found: ConvexRelu, steps: int, tolerance: float, throw: bool) -> ConvexRelu:
    """The network, whose value raises where its gap did not close and ``throw`` is true."""
    if not throw:
        return found
    value = eqx.error_if(
        found.value,
        ~found.converged,
        f"expected a gap of at most {tolerance:g} of the value after {steps} rounds, got a larger one. "
        "Allow more steps, or take throw=False and look at value and bound.",
    )
    return eqx.tree_at(lambda one: one.value, found, value)


@eqx.filter_jit
def _solved(x: Array, y: Array, on: Array, penalty: Array, steps: int, tolerance: float) -> ConvexRelu:
    patterns, (rows, dim) = len(on), x.shape
    masks = on.astype(x.dtype)
    side = 2 * masks - 1  # of each row, by pattern
    inverse = jnp.linalg.inv(jnp.eye(dim, dtype=x.dtype) + x.T @ x)
    signs = jnp.array([1.0, -1.0], x.dtype)
    # What the patterns give together of the inverse: X K⁻¹ Xᵀ, for each pair of rows as often as both are on.
    together = 2 * (x @ inverse @ x.T) * (masks.T @ masks)

    def predicted(u: Array) -> Float[Array, " rows"]:
        """The sum over units, whatever side of their patterns the rows are on."""
        return jnp.einsum("pn,spn->n", masks, signs[:, None, None] * (u @ x.T))

    def spread(r: Float[Array, " rows"]) -> Float[Array, "2 patterns dim"]:
        """The adjoint of that."""
        return signs[:, None, None] * ((masks * r[None]) @ x)[None]

    def constrained(u: Array) -> Float[Array, "2 patterns rows"]:
        return side[None] * (u @ x.T)

    def adjoint(s: Array) -> Float[Array, "2 patterns dim"]:
        return (side[None] * s) @ x

    def round_of(state: _State, factor: tuple) -> tuple[_State, tuple[Array, Array]]:
        _, v, s, v_dual, s_dual, rho = state
        right = spread(y) / rho + v - v_dual + adjoint(s - s_dual)
        first = right @ inverse
        u = first - spread(jax.scipy.linalg.cho_solve(factor, predicted(first))) @ inverse
        length = norm(u + v_dual, -1, keepdims=True)
        new_v = (u + v_dual) * jnp.maximum(0, 1 - divide(penalty / rho, length))
        rows_give = constrained(u)
        new_s = jnp.maximum(0, rows_give + s_dual)
        apart = norm(jnp.stack([norm(u - new_v), norm(rows_give - new_s)]))
        moved = rho * norm(new_v - v + adjoint(new_s - s))
        return _State(u, new_v, new_s, v_dual + u - new_v, s_dual + rows_give - new_s, rho), (apart, moved)

    def stretch(state: _State) -> _State:
        factor = jax.scipy.linalg.cho_factor(together + state.rho * jnp.eye(rows, dtype=x.dtype))
        state, (apart, moved) = jax.lax.scan(lambda carry, _: round_of(carry, factor), state, length=_ROUNDS)
        # Where one residual is ten times the other, ρ goes towards it, and the scaled multipliers with it.
        times = jnp.where(apart[-1] > 10 * moved[-1], 2.0, jnp.where(moved[-1] > 10 * apart[-1], 0.5, 1.0))
        times = times.astype(x.dtype)
        return state._replace(rho=state.rho * times, v_dual=state.v_dual / times, s_dual=state.s_dual / times)

    def network(state: _State) -> tuple[Array, Array, Array]:
        """Units by pattern, their outputs, and the objective of the network that they are."""
        root = jnp.sqrt(norm(state.v, -1))
        weights, outputs = divide(state.v, root[..., None]), signs[:, None] * root
        left = jnp.einsum("sp,spn->n", outputs, jax.nn.relu(weights @ x.T)) - y
        value = jnp.sum(left**2) / 2 + penalty / 2 * (jnp.sum(weights**2) + jnp.sum(outputs**2))
        return weights, outputs, value

    def bound(state: _State) -> Float[Array, ""]:
        left = y - predicted(state.v)
        multipliers = -state.rho * state.s_dual  # not negative: each is what its row was short of its side
        longest = jnp.max(norm(spread(left) + adjoint(jnp.maximum(multipliers, 0)), -1))
        along, square = y @ left, jnp.sum(left**2)
        scale = jnp.maximum(0, jnp.minimum(divide(penalty, longest, jnp.inf), divide(along, square)))
        return scale * along - scale**2 * square / 2

    def going(carry: tuple) -> Array:
        _, made, best, _, _, least = carry
        return (made * _ROUNDS < steps) & (best - least > tolerance * best)

    def go(carry: tuple) -> tuple:
        state, made, best, weights, outputs, least = carry
        state = stretch(state)
        new_weights, new_outputs, value = network(state)
        better = value < best
        return (
            state,
            made + 1,
            jnp.where(better, value, best),
            jnp.where(better, new_weights, weights),
            jnp.where(better, new_outputs, outputs),
            jnp.maximum(least, bound(state)),
        )

    units, heights = jnp.zeros((2, patterns, dim), x.dtype), jnp.zeros((2, patterns, rows), x.dtype)
    start = _State(units, units, heights, units, heights, jnp.maximum(penalty, 1e-3))
    nothing = jnp.sum(y**2) / 2  # the objective of the network that has no units
    carry = (start, jnp.zeros((), jnp.int32), nothing, units, units[..., 0], jnp.zeros((), x.dtype))
    _, made, best, weights, outputs, least = jax.lax.while_loop(going, go, carry)
    converged = best - least <= tolerance * best
    return ConvexRelu(weights.reshape(-1, dim), outputs.reshape(-1), best, least, made * _ROUNDS, converged)


def _once(patterns: Bool[np.ndarray, "patterns rows"]) -> Bool[np.ndarray, "patterns rows"]:
    """Each pattern once, and none that is off everywhere."""
    found = np.unique(patterns, axis=0)
    return found[found.any(axis=1)]
