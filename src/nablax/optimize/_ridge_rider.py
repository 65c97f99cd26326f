"""Find where learning branches, in games as in losses, and follow every branch."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from .._core import AbstractRecord, Field, Key, canonical_convolutions, fault
from ..calculus import top_eigenvalues


class Branches(AbstractRecord):
    r"""A branching point and where its branches lead.

    Attributes:
        start: the point found, shaped like ``y0``.
        exponents: local Lyapunov exponents there, largest first, per step, [directions]; NaN as in
            :func:`local_exponents`.
        directions: of length one, leading axis ``directions``.
        ends: where learning leads from ``start`` plus and then minus each direction, leading axis 2 × ``directions``.
        speeds: :math:`\lVert f\rVert` at the ends, [2 × directions]; small where learning has settled.
        search: the sum of the exponents along the search, [search_steps].
    """

    start: PyTree
    exponents: Float[Array, " directions"]
    directions: PyTree
    ends: PyTree
    speeds: Float[Array, " branches"]
    search: Float[Array, " search_steps"]


@eqx.filter_jit
@canonical_convolutions
def local_exponents(
    field: Field,
    y: PyTree,
    args: PyTree = None,
    *,
    rate: float | Array,
    horizon: int,
    count: int = 1,
    lanczos_steps: int = 20,
    key: Key,
) -> tuple[Float[Array, " count"], PyTree]:
    r"""Measure how fast neighbours part over some steps of learning, and along which directions most.

    .. math:: \lambda_i = \frac1k\log\sigma_i\bigl(D F^k(y)\bigr), \qquad F(y) = y + h f(0, y)

    with the largest singular values of the Jacobian of k steps: finite-time Lyapunov exponents, per step.

    Args:
        field: ``field(t, y, args) -> dy``; of a game, each player's ascent of his own payoff.
        y: where to start, a pytree of inexact arrays.
        args: handed to the field.
        rate: h, the learning rate.
        horizon: k, in steps.
        count: how many exponents, 1 by default.
        lanczos_steps: products spent on the singular values, 20 by default and at least ``count``; exact from the
            number of parameters on.
        key: of the iteration's start.

    Returns:
        The exponents, largest first [count], and their directions at ``y``, of length one, leading axis ``count``.
        NaN where a squared singular value is within a hundred roundings of the largest from zero: it is not known.

    Raises:
        ValueError: a horizon or count below one, or more exponents than parameters.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.optimize import local_exponents
        >>> saddle = lambda t, y, args: jnp.array([1.0, -1.0]) * y
        >>> values, _ = local_exponents(saddle, jnp.zeros(2), rate=0.1, horizon=5, count=2, key=jax.random.key(0))
        >>> [round(float(jnp.exp(x)), 3) for x in values]
        [1.1, 0.9]

    Cost:
        ``lanczos_steps`` JVPs and VJPs of ``horizon`` steps; memory ``horizon`` states.

    References:
        - Lorraine, Vicol, Parker-Holder, Kachman, Metz and Foerster, "Lyapunov Exponents for Diversity in
          Differentiable Games", 2022, https://arxiv.org/abs/2112.14570
    """
    if horizon < 1:
        raise fault(expected="a horizon of at least one step", got=str(horizon), fix="Neighbours part over steps.")
    values, vectors = _spectrum(field, y, args, rate, horizon, count, lanczos_steps, key)
    known = values > 100 * jnp.finfo(values.dtype).eps * values[0]
    return jnp.where(known, jnp.log(jnp.where(known, values, 1)) / (2 * horizon), jnp.nan), vectors


@eqx.filter_jit
@canonical_convolutions
def ridge_rider(
    field: Field,
    y0: PyTree,
    args: PyTree = None,
    *,
    rate: float | Array,
    horizon: int = 20,
    search_steps: int = 100,
    search_rate: float = 0.1,
    count: int = 1,
    offset: float = 0.1,
    follow_steps: int = 1000,
    lanczos_steps: int = 20,
    key: Key,
) -> Branches:
    r"""Search for a point where learning branches, step off it to both sides, and learn on from there.

    .. math::
        y^\star = \arg\max_y \sum_{i\le n}\lambda_i(y), \qquad
        \text{branches from } y^\star \pm \varepsilon\, d_i(y^\star)

    with the exponents and directions of :func:`local_exponents`. On the border between basins of attraction
    neighbours part faster than anywhere near, whether the border passes through a saddle, as with a single loss, or
    winds round a point where a game's Jacobian has complex eigenvalues. The search climbs by Adam with a rate that
    falls to zero; what it finds is a local maximum, which need not be a border: look at ``ends``.

    Args:
        field: ``field(t, y, args) -> dy``: minus a loss's gradient, or each player's gradient of his own payoff.
        y0: where the search starts, a pytree of inexact arrays.
        args: handed to the field.
        rate: learning rate, of the exponents' steps as of the branches'.
        horizon: steps over which neighbours part, 20 by default. Longer ones make the ridge sharper and the slope
            away from it flatter.
        search_steps: of the search, 100 by default.
        search_rate: first step of the search in each coordinate, units of ``y``, 0.1 by default.
        count: directions to branch along, 1 by default.
        offset: ε, units of ``y``, 0.1 by default.
        follow_steps: of each branch, 1000 by default.
        lanczos_steps: products for the singular values, 20 by default.
        key: of the iterations' starts.

    Returns:
        A :class:`Branches`.

    Raises:
        ValueError: a count below one.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.optimize import ridge_rider
        >>> wells = lambda t, y, args: y - y**3  # minima at −1 and 1
        >>> found = ridge_rider(wells, jnp.array([0.4]), rate=0.1, key=jax.random.key(0))
        >>> sorted(round(float(x), 2) for x in found.ends[:, 0])
        [-1.0, 1.0]

    Cost:
        For each step of the search ``lanczos_steps`` JVPs and VJPs, and one gradient of a JVP, of ``horizon`` steps;
        then 2 × ``count`` × ``follow_steps`` evaluations of the field.

    References:
        - Lorraine, Vicol, Parker-Holder, Kachman, Metz and Foerster, "Lyapunov Exponents for Diversity in
          Differentiable Games", 2022, https://arxiv.org/abs/2112.14570 (after the abstract; singular directions by
          Lanczos, held while the point moves, Adam, and all defaults are ours)
        - an extension to several players by others, https://github.com/LIslaam/N-Player-GRR (code. An exponent is there
          the mean over 40 steps, of rate 5, of the log squared stretch of one direction, kept, or taken anew by power
          iteration at each step; here it is that of all the steps' Jacobian J together, as finite-time exponents are
          defined. The stretch is there by J Jᵀ, which has the singular values but not the directions of JᵀJ, along
          which neighbours part. Several directions' exponents are added here; there their least may be taken)
        - Parker-Holder et al., "Ridge Rider: Finding Diverse Solutions by Following Eigenvectors of the Hessian",
          2020, https://arxiv.org/abs/2011.06505
    """
    if min(horizon, search_steps, count, follow_steps) < 1:
        raise fault(
            expected="horizon, search_steps, count and follow_steps of at least 1",
            got=f"{horizon}, {search_steps}, {count}, {follow_steps}",
            fix="Give positive counts.",
        )
    search_key, last_key = jax.random.split(key)

    def growth(y: PyTree, vectors: PyTree) -> Float[Array, ""]:
        # The directions are singular vectors, so that to first order their own turning does not count.
        pushed = jax.vmap(lambda d: jax.jvp(lambda z: _roll(field, z, args, rate, horizon), (y,), (d,))[1])(vectors)
        squares = jax.vmap(lambda d: optax.tree.vdot(d, d))(pushed)
        return jnp.sum(jnp.log(squares)) / (2 * horizon)

    # The optimiser descends.
    optimizer = optax.adam(optax.cosine_decay_schedule(-search_rate, search_steps))

    def climb(state: tuple, key: Key) -> tuple[tuple, Float[Array, ""]]:
        y, memory = state
        _, vectors = _spectrum(field, y, args, rate, horizon, count, lanczos_steps, key)
        value, slope = jax.value_and_grad(growth)(y, jax.lax.stop_gradient(vectors))
        update, memory = optimizer.update(slope, memory, y)
        return (optax.apply_updates(y, update), memory), value

    keys = jax.random.split(search_key, search_steps)
    (point, _), search = jax.lax.scan(climb, (y0, optimizer.init(y0)), keys)
    exponents, vectors = local_exponents(
        field, point, args, rate=rate, horizon=horizon, count=count, lanczos_steps=lanczos_steps, key=last_key
    )

    def branch(sign: Array, direction: PyTree) -> tuple[PyTree, Float[Array, ""]]:
        off = jax.tree.map(lambda y, d: y + (sign * offset).astype(y.dtype) * d, point, direction)
        end = _roll(field, off, args, rate, follow_steps)
        return end, optax.tree.norm(field(jnp.zeros(()), end, args))

    doubled = jax.tree.map(lambda d: jnp.repeat(d, 2, axis=0), vectors)
    ends, speeds = jax.vmap(branch)(jnp.tile(jnp.asarray([1.0, -1.0]), count), doubled)
    return Branches(point, exponents, vectors, ends, speeds, search)


def _roll(field: Field, y: PyTree, args: PyTree, rate: float | Array, steps: int) -> PyTree:
    def step(y: PyTree, _: None) -> tuple[PyTree, None]:
        move = field(jnp.zeros(()), y, args)
        return jax.tree.map(lambda a, b: a + jnp.asarray(rate, a.dtype) * b, y, move), None

    return jax.lax.scan(step, y, length=steps)[0]


def _spectrum(
    field: Field, y: PyTree, args: PyTree, rate: float | Array, horizon: int, count: int, steps: int, key: Key
) -> tuple[Float[Array, " count"], PyTree]:
    """Largest squared singular values of the Jacobian of ``horizon`` steps, and their right vectors."""
    _, push = jax.linearize(lambda z: _roll(field, z, args, rate, horizon), y)
    pull = jax.linear_transpose(push, y)
    found = top_eigenvalues(lambda v: pull(push(v))[0], y, count=count, steps=max(steps, count), key=key)
    return found.values, found.vectors


__all__ = ["Branches", "local_exponents", "ridge_rider"]
