"""Two-layer ReLU networks trained to the best against the worst case in boxes round their rows, by a convex problem."""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..._core import check_finite, check_shape, divide, exact, fault, norm
from ._convex_relu import ConvexRelu, checked_problem, proved

RobustLoss = Literal["squared", "hinge"]
_ROUNDS = 25  # between two looks at the gap
_MOST = 5000  # unknowns, of which a matrix is inverted


class _Parts(NamedTuple):
    """What the units give, each with a term of the objective of its own; multipliers too."""

    v: Float[Array, "2 patterns dim"]  # the units, of which norms are taken
    z: Float[Array, "2 patterns dim"]  # times the radius: these are summed up to
    top: Float[Array, "2 patterns"]  # at most this,
    s: Float[Array, "2 patterns rows"]  # which the rows exceed by this
    p: Float[Array, " rows"]  # predictions
    h: Float[Array, "rows dim"]  # and their slopes, times the radius


class _State(NamedTuple):
    parts: _Parts
    duals: _Parts
    rho: Float[Array, ""]


@exact
def robust_relu(
    inputs: Float[Array, "rows dim"],
    targets: Float[Array, " rows"],
    patterns: Bool[np.ndarray, "patterns rows"],
    *,
    radius: Float[Array, " dim"],
    penalty: float,
    loss: RobustLoss = "squared",
    steps: int = 20_000,
    tolerance: float = 1e-2,
    throw: bool = True,
) -> ConvexRelu:
    r"""Train a two-layer ReLU network for the worst rows within boxes round those that are given.

    .. math::
        \min_{W,a}\ \sum_k\max_{|\delta|\le r}\ell\bigl(f(x_k+\delta), y_k\bigr)
        +\tfrac\beta2(\lVert W\rVert^2+\lVert a\rVert^2)

    over networks none of whose units changes its side of zero within a box. With units :math:`v_i, w_i` of pattern
    :math:`D_i` as in `convex_relu`, prediction :math:`p_k=\sum_id_{ik}x_k^\top(v_i-w_i)` and slope
    :math:`g_k=\sum_id_{ik}(v_i-w_i)` that is a convex problem: the worst losses are

    .. math:: \tfrac12\bigl(|p_k-y_k|+\lVert r\odot g_k\rVert_1\bigr)^2 \qquad\text{and}\qquad
        \bigl(1-y_kp_k+\lVert r\odot g_k\rVert_1\bigr)_+

    and the constraints :math:`(2d_{ik}-1)\,x_k^\top v_i\ge\lVert r\odot v_i\rVert_1`, of w likewise. It is solved by
    the alternating direction method of multipliers, and bounded below by a dual value, as `convex_relu` is. A network
    whose units do change sides in a box may be better; radius 0 is the plain problem.

    Args:
        inputs: X, rows, with a constant column if there is to be a bias; in units of about one.
        targets: y, one number each; by ``"hinge"`` -1 or 1.
        patterns: [patterns, rows], which rows each unit is on for, as of `relu_patterns`.
        radius: r, of each feature, 0 or more, in its unit; 0 of the constant column.
        penalty: β, above 0, as in `convex_relu`.
        loss: ``"squared"``, the default, or ``"hinge"``.
        steps: rounds at most, 20,000 by default, ours.
        tolerance: of ``value - bound``, as a share of ``value``; 1e-2 by default, ours.
        throw: raise where the gap is not that small after all rounds; True by default.

    Returns:
        `ConvexRelu`. Its ``value`` is the network's proper and holds for every row in a box, also where a unit's side
        is not quite kept: what such a unit can add is counted. ``bound`` is of networks that keep them, so that the
        value may be a trifle below.

    Raises:
        ValueError: shapes that do not match, patterns that are no booleans, numbers that are not finite, a negative
            radius, an unknown loss, other classes than -1 and 1, a setting out of range, or more than 5,000 unknowns,
            2 patterns (dim + 1). While it runs, by ``throw``: the gap did not close.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> x = jnp.array([-1.0, -0.4, 0.5, 1.0])
        >>> inputs, classes = jnp.stack([x, jnp.ones(4)], axis=1), jnp.array([-1.0, -1.0, 1.0, 1.0])
        >>> patterns, radius = optimize.relu_patterns(inputs), jnp.array([0.1, 0.0])
        >>> net = optimize.robust_relu(inputs, classes, patterns, radius=radius, penalty=0.01, loss="hinge")
        >>> jnp.sign(net(inputs + jnp.array([[0.1, 0.0]]))).astype(int).tolist()  # all a radius to the right
        [-1, -1, 1, 1]

    Cost: the inverse of a matrix of 2 patterns (dim + 1), once; a round: a product with it, and with X for all
        patterns.

    References:
        - Bai, Gautam and Sojoudi, "Efficient Global Optimization of Two-layer ReLU Networks: Quadratic-time Algorithms
          and Adversarial Training", 2022, https://arxiv.org/abs/2201.01965, after the abstract: robust convex
          optimisation applied to convex training. The worst cases, the splitting, the bound and what unkept sides add
          were derived here.
    """
    x, y, on = checked_problem(inputs, targets, patterns, penalty, steps, tolerance)
    r = check_shape(radius, (x.shape[1],), what="radius", fix="Pass a number for each feature.").astype(x.dtype)
    check_finite(r, what="radius", fix="Take 0 where a feature is known.")
    if loss not in ("squared", "hinge"):
        raise fault(expected="the loss 'squared' or 'hinge'", got=repr(loss), fix="The default is 'squared'.")
    known = [array for array in (r, y) if not isinstance(array, jax.core.Tracer)]
    if len(known) == 2 and (np.any(np.asarray(r) < 0) or (loss == "hinge" and np.any(np.abs(np.asarray(y)) != 1))):
        raise fault(
            expected="a radius of 0 or more, and by 'hinge' targets of -1 and 1",
            got=f"a least radius of {float(np.min(np.asarray(r))):g}, targets {np.unique(np.asarray(y))[:4]}",
            fix="Take jnp.where(label, 1.0, -1.0).",
        )
    if (unknowns := 2 * len(on) * (x.shape[1] + 1)) > _MOST:
        raise fault(
            expected=f"2 patterns (dim + 1) unknowns of up to {_MOST}",
            got=unknowns,
            fix="Draw fewer patterns: relu_patterns(inputs, count=100, key=key).",
        )
    found = _solved(x, y, on, r, jnp.asarray(penalty, x.dtype), loss, steps, tolerance)
    return proved(found, steps, tolerance, throw)


@eqx.filter_jit
def _solved(
    x: Array, y: Array, on: Array, r: Array, penalty: Array, loss: RobustLoss, steps: int, tolerance: float
) -> ConvexRelu:
    patterns, dim = len(on), x.shape[1]
    masks = on.astype(x.dtype)
    side = 2 * masks - 1
    signs = jnp.array([1.0, -1.0], x.dtype)
    squared = loss == "squared"

    def given(unknown: tuple[Array, Array]) -> _Parts:
        """What units u, and a bound on each one's sum, give."""
        u, top = unknown
        height = u @ x.T
        slopes = jnp.einsum("s,pn,spd->nd", signs, masks, u)
        s = side[None] * height - top[..., None]
        return _Parts(u, u * r[None, None], top, s, jnp.einsum("s,pn,spn->n", signs, masks, height), slopes * r[None])

    zero = jnp.zeros((2, patterns, dim), x.dtype), jnp.zeros((2, patterns), x.dtype)
    transposed = jax.linear_transpose(given, zero)
    flat, unravel = jax.flatten_util.ravel_pytree(zero)
    gram = jax.vmap(lambda e: jax.flatten_util.ravel_pytree(transposed(given(unravel(e)))[0])[0])(
        jnp.eye(flat.size, dtype=x.dtype)
    )
    inverse = jnp.linalg.inv(gram)  # no less than one: the units themselves are among what they give

    def nearest(at: _Parts, rho: Array) -> _Parts:
        """Each term's least, near what is given."""
        v = at.v * jnp.maximum(0, 1 - divide(penalty / rho, norm(at.v, -1, keepdims=True)))
        cut = jnp.maximum(0, _threshold(at.z, -at.top, 1.0))
        z, top = _soft(at.z, cut[..., None]), at.top + cut
        if squared:  # half the square of all magnitudes' sum
            both = jnp.concatenate([(at.p - y)[:, None], at.h], axis=1)
            both = _soft(both, _threshold(both, jnp.zeros_like(y), rho)[:, None])
            return _Parts(v, z, top, jnp.maximum(0, at.s), both[:, 0] + y, both[:, 1:])
        cut = jnp.clip(_threshold(at.h, 1 - y * at.p, 1.0), 0, 1 / rho)
        return _Parts(v, z, top, jnp.maximum(0, at.s), at.p + y * cut, _soft(at.h, cut[:, None]))

    def round_of(state: _State, _: None) -> tuple[_State, tuple[Array, Array]]:
        parts, duals, rho = state
        right = jax.flatten_util.ravel_pytree(transposed(jax.tree.map(jnp.subtract, parts, duals))[0])[0]
        gives = given(unravel(inverse @ right))
        new = nearest(jax.tree.map(jnp.add, gives, duals), rho)
        apart = jax.tree.map(jnp.subtract, gives, new)
        moved = jax.flatten_util.ravel_pytree(transposed(jax.tree.map(jnp.subtract, new, parts))[0])[0]
        duals = jax.tree.map(jnp.add, duals, apart)
        return _State(new, duals, rho), (norm(jax.flatten_util.ravel_pytree(apart)[0]), rho * norm(moved))

    def network(state: _State) -> tuple[Array, Array, Array]:
        """Units by pattern, their outputs, and the objective of the network that they are, in the worst case."""
        root = jnp.sqrt(norm(state.parts.v, -1))
        weights, outputs = divide(state.parts.v, root[..., None]), signs[:, None] * root
        height, spread = weights @ x.T, jnp.abs(weights) @ r
        slopes = jnp.einsum("sp,spn,spd->nd", outputs, (height > 0).astype(x.dtype), weights)
        # On the wrong side of zero a unit adds, beyond what its slope says, at most how far it gets there.
        beyond = jnp.einsum("sp,spn->n", root, jnp.maximum(0, spread[..., None] - jnp.abs(height)))
        most = jnp.abs(slopes) @ r + beyond
        p = jnp.einsum("sp,spn->n", outputs, jax.nn.relu(height))
        worst = (jnp.abs(p - y) + most) ** 2 / 2 if squared else jax.nn.relu(1 - y * p + most)
        return weights, outputs, jnp.sum(worst) + penalty / 2 * (jnp.sum(weights**2) + jnp.sum(outputs**2))

    def bound(state: _State) -> Float[Array, ""]:
        """A dual value: multipliers put right so that they cancel on every unit, and scaled to the penalty."""
        duals = jax.tree.map(lambda d: state.rho * d, state.duals)
        s = jnp.minimum(0, duals.s)
        top = jnp.sum(s, -1)
        z = jnp.clip(duals.z, top[..., None], -top[..., None])
        both = duals._replace(v=jnp.zeros_like(duals.v), z=z, top=top, s=s)
        longest = jnp.max(norm(transposed(both)[0][0], -1))
        scale = divide(penalty, longest, jnp.inf)
        if squared:
            along = -y @ duals.p
            square = jnp.sum(jnp.maximum(jnp.abs(duals.p), jnp.max(jnp.abs(duals.h), axis=1)) ** 2)
            scale = jnp.maximum(0, jnp.minimum(scale, divide(along, square)))
            return scale * along - scale**2 * square / 2
        return jnp.minimum(1, scale) * jnp.sum(-y * duals.p)

    def going(carry: tuple) -> Array:
        _, made, best, _, _, least = carry
        return (made * _ROUNDS < steps) & (best - least > tolerance * best)

    def go(carry: tuple) -> tuple:
        state, made, best, weights, outputs, least = carry
        state, (apart, moved) = jax.lax.scan(round_of, state, length=_ROUNDS)
        new_weights, new_outputs, value = network(state)
        low = bound(state)
        # Where one residual is ten times the other, ρ goes towards it, and the scaled multipliers with it; by less and
        # less, or it may go on for ever.
        way = jnp.where(apart[-1] > 10 * moved[-1], 1.0, jnp.where(moved[-1] > 10 * apart[-1], -1.0, 0.0))
        times = (2.0 ** (way / (1 + made / 10))).astype(x.dtype)
        state = _State(state.parts, jax.tree.map(lambda d: d / times, state.duals), state.rho * times)
        better = value < best
        kept = [jnp.where(better, a, b) for a, b in ((new_weights, weights), (new_outputs, outputs))]
        return state, made + 1, jnp.minimum(value, best), *kept, jnp.maximum(least, low)

    start = given(zero)
    nothing = jnp.sum(y**2) / 2 if squared else jnp.asarray(float(len(y)), x.dtype)  # of the network without units
    state = _State(start, start, jnp.maximum(penalty, 1e-3))
    carry: Any = (state, jnp.zeros((), jnp.int32), nothing, start.v, start.top, jnp.zeros((), x.dtype))
    _, made, best, weights, outputs, least = jax.lax.while_loop(going, go, carry)
    converged = best - least <= tolerance * best
    return ConvexRelu(weights.reshape(-1, dim), outputs.reshape(-1), best, least, made * _ROUNDS, converged)


def _soft(a: Array, cut: Array) -> Array:
    """Magnitudes less a number, none below zero."""
    return jnp.sign(a) * jnp.maximum(0, jnp.abs(a) - cut)


def _threshold(a: Float[Array, "*rows dim"], constant: Array, weight: Any) -> Float[Array, "*rows"]:
    """The number by which magnitudes, cut, sum up with a constant to its multiple by a weight."""
    sizes = -jnp.sort(-jnp.abs(a), axis=-1)
    count = jnp.arange(1, a.shape[-1] + 1, dtype=a.dtype)
    sums = constant[..., None] + jnp.cumsum(sizes, axis=-1)
    active = sizes * jnp.broadcast_to(weight + count, sizes.shape) > sums
    kept = jnp.sum(active, axis=-1)
    total = constant + jnp.sum(jnp.where(active, sizes, 0), axis=-1)
    return total / (weight + kept)
