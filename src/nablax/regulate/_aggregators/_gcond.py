"""GCond: conflicts between accumulated gradients, the worst first, settled by an arbiter."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import fault
from ._aggregator import (
    AggregatorState,
    closed_form,
    combine,
    cosines_and_norms,
    exact,
    initial,
    inverse,
    judged,
    leading_axis,
    record,
    relative,
    scaled_rows,
)


class _Memory(NamedTuple):
    previous: PyTree
    norms: Float[Array, " K"]
    winners: Int[Array, " window"]
    momentum: PyTree
    steps: Int[Array, ""]


def gcond(
    objectives: int,
    *,
    thresholds: tuple[float, float, float] = (-0.8, -0.5, 0.0),
    stability: float = 0.8,
    window: int = 3,
    norm_decay: float = 0.95,
    momentum: float = 0.9,
) -> optax.GradientTransformationExtraArgs:
    r"""Settle conflicts pair by pair, the worst first and the harder the worse, then add and average over steps.

    With :math:`\phi` the cosine of a pair, w its winner and l its loser,

    .. math::
        g_w \leftarrow g_w - \sin(\alpha)\,\frac{\langle g_w,g_l\rangle}{\lVert g_l\rVert^2}\,g_l,\qquad
        g_l \leftarrow g_l - \sin(\min(\alpha,\tfrac\pi2))\,\frac{\langle g_w,g_l\rangle}{\lVert g_w\rVert^2}\,g_w

    where :math:`\alpha(\phi)` goes from 0 at the weak threshold to :math:`\pi/2` at the main one (both are
    projected) and to :math:`\pi` at the critical one (only the loser is). The winner has the larger score of two
    parts: how far its gradient points as at the last step, and its norm against its own average; one that has won
    ``window`` times in a row loses. At most 2K pairs are settled, as long as one is below the weak threshold.

    The method is meant for gradients accumulated over many small batches: give it their mean. Its momentum takes the
    place of the optimiser's (``optax.adam(rate, b1=0)``).

    Args:
        objectives: number K of objectives.
        thresholds: critical, main and weak cosine.
        stability: weight of the first part of the score; the second has the rest.
        window: see above; 0 for no such limit.
        norm_decay: of the norms' averages.
        momentum: of the result's average, bias-corrected; 0 for none.

    Returns:
        A gradient transformation; leading axis K in, none out. The state's weights are those before momentum.

    Raises:
        ValueError: thresholds that do not rise within [-1, 1]; a decay that is not in [0, 1); leading axes disagree.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> aggregator = regulate.gcond(2)
        >>> grads = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
        >>> [round(float(d), 2) for d in aggregator.update(grads, aggregator.init(jnp.zeros(2)))[0]]
        [0.63, 1.37]

    Cost:
        One Gramian, 2 K² multiplications and a search per pair settled, two passes; K + 1 gradients of memory.

    References:
        - Limarenko and Studenikin, "GCond: Gradient Conflict Resolution via Accumulation-based Stabilization for
          Large-Scale Multi-Task Learning", 2025, https://arxiv.org/abs/2509.07252, and the authors' code, whose smooth
          rule this follows (done here in weights; a gradient's steadiness is judged before correction, there after;
          averages of norms start from the first norms, there from 1)
    """
    critical, main, weak = thresholds
    if not -1 <= critical < main < weak <= 1:
        raise fault(expected="thresholds that rise within [-1, 1]", got=str(thresholds), fix="See the docstring.")
    if not (0 <= norm_decay < 1 and 0 <= momentum < 1 and 0 <= stability <= 1 and window >= 0):
        raise fault(
            expected="decays in [0, 1), a stability in [0, 1] and window ≥ 0",
            got=f"norm_decay={norm_decay}, momentum={momentum}, stability={stability}, window={window}",
            fix="See the docstring.",
        )

    def angle(cosine: Array) -> Array:
        mild = (1 - jnp.clip((cosine - main) / (weak - main), 0, 1)) * (math.pi / 2)
        hard = math.pi / 2 * (1 + jnp.clip((cosine - main) / (critical - main), 0, 1) ** 2)
        return jnp.where(cosine >= main, mild, hard)

    def init(params: optax.Params) -> AggregatorState:
        state = initial(params, objectives, None)
        previous = jax.tree.map(lambda leaf: jnp.zeros((objectives, *jnp.shape(leaf)), leaf.dtype), params)
        memory = _Memory(
            previous,
            jnp.zeros(objectives, state.residual.dtype),
            jnp.full(window, -1, jnp.int32),
            jax.tree.map(jnp.zeros_like, params),
            jnp.zeros((), jnp.int32),
        )
        return state._replace(inner=memory)

    @exact
    def update(
        grads: optax.Updates, state: AggregatorState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, AggregatorState]:
        del extra
        count = leading_axis(grads, params)
        memory: _Memory = state.inner
        cosines, norms = cosines_and_norms(grads)
        steady = jnp.maximum(_own_cosines(grads, memory.previous), 0)
        first = memory.steps == 0
        averages = jnp.where(first, norms, norm_decay * memory.norms + (1 - norm_decay) * norms).astype(norms.dtype)
        shares, _ = relative(norms)

        def settle(carry: tuple) -> tuple:
            rows, winners, _, steps = carry
            # In unit gradients, row i scaled to have started at norm 1.
            inner = rows @ cosines @ rows.T
            lengths = jnp.sqrt(jnp.maximum(jnp.diagonal(inner), 0))
            scales = inverse(jnp.where(lengths > jnp.finfo(norms.dtype).eps ** 0.5, lengths, 0))
            pairs = inner * scales[:, None] * scales[None, :]
            pairs = jnp.where(jnp.tri(count, k=0, dtype=bool), jnp.inf, pairs)
            pairs = jnp.where((scales[:, None] > 0) & (scales[None, :] > 0), pairs, jnp.inf)
            i, j = jnp.divmod(jnp.argmin(pairs), count)
            worst = jnp.min(pairs)
            strength = lengths * norms * inverse(averages)
            strengths = jnp.stack([strength[i], strength[j]])
            strengths = strengths / jnp.maximum(jnp.sum(strengths), jnp.finfo(norms.dtype).tiny)
            scores = stability * jnp.stack([steady[i], steady[j]]) + (1 - stability) * strengths
            second = scores[1] > scores[0]
            if window:
                tired = jnp.stack([jnp.all(winners == i), jnp.all(winners == j)])
                second = jnp.where(tired[0] | tired[1], tired[0], second)
            winner, loser = jnp.where(second, j, i), jnp.where(second, i, j)
            alpha = angle(worst)
            back = jnp.sin(alpha) * inner[winner, loser] * scales[loser] ** 2
            forth = jnp.sin(jnp.minimum(alpha, math.pi / 2)) * inner[winner, loser] * scales[winner] ** 2
            changed = rows.at[winner].add(-back * rows[loser]).at[loser].add(-forth * rows[winner])
            conflict = worst < weak
            rows = jnp.where(conflict, changed, rows)
            if window:
                winners = jnp.where(
                    conflict, jnp.concatenate([winners[1:], winner[None].astype(winners.dtype)]), winners
                )
            return rows, winners, conflict, steps + 1

        rows = jnp.diag((norms > 0).astype(norms.dtype))
        rows, winners, _, _ = jax.lax.while_loop(
            lambda carry: carry[2] & (carry[3] < 2 * count),
            settle,
            (rows, memory.winners, jnp.asarray(True), jnp.asarray(0)),
        )
        weights = closed_form(jnp.where(norms > 0, (shares @ rows) * inverse(shares), 1))
        weights = judged(weights, cosines, norms)
        total = combine(grads, weights.weights)
        steps = memory.steps + 1
        average = jax.tree.map(lambda m, g: (momentum * m + (1 - momentum) * g).astype(m.dtype), memory.momentum, total)
        correction = 1 - jnp.asarray(momentum, norms.dtype) ** steps
        result = jax.tree.map(lambda m, g: (m / correction).astype(g.dtype), average, total)
        previous = jax.tree.map(lambda p, g: g.astype(p.dtype), memory.previous, grads)
        inner = _Memory(previous, averages.astype(memory.norms.dtype), winners, average, steps)
        return result, record(state, weights, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def _own_cosines(grads: PyTree, previous: PyTree) -> Float[Array, " K"]:
    """Cosine of every gradient with its predecessor; 0 where either vanishes."""
    now, before = scaled_rows(grads)[0], scaled_rows(previous)[0]

    def dots(left: list[Array], right: list[Array]) -> Array:
        return jnp.sum(jnp.stack([jnp.sum(a * b, axis=1) for a, b in zip(left, right)]), axis=0)

    scale = jnp.sqrt(dots(now, now) * dots(before, before))
    return dots(now, before) * inverse(scale)
