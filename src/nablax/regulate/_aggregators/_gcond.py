"""GCond: conflicts between accumulated gradients, the worst first, settled by an arbiter."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._core import divide, fault, peak, wide_dtype
from ._aggregator import aggregator
from ._arithmetic import scaled_rows
from ._state import Weights


class _Memory(NamedTuple):
    """Last gradients, averages of their norms, who won last (-1: nobody yet), the average result, steps done."""

    previous: PyTree
    norms: Float[Array, " K"]
    winners: Int[Array, " window"]
    momentum: PyTree
    steps: Int[Array, ""]


class _Sides(NamedTuple):
    """What the arbiter knows of every gradient: its norm, that norm's average, its cosine with its predecessor."""

    norms: Float[Array, " K"]
    averages: Float[Array, " K"]
    steady: Float[Array, " K"]


def gcond(
    *,
    objectives: int,
    thresholds: tuple[float, float, float] = (-0.8, -0.5, 0.0),
    stability: float = 0.8,
    window: int = 3,
    norm_decay: float = 0.95,
    momentum: float = 0.9,
    throw: bool = True,
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

    The method is meant for gradients accumulated over many small batches: give it their mean. The authors accumulate
    stochastically, 24 batches in their example: each batch goes to one of the losses, as many to each. That is one
    large batch of which each loss of ``multi_value_and_grad`` looks at its own share. Weights are factors of the losses
    (0.85 and 0.15 there). The momentum takes the place of the optimiser's (``optax.adam(rate, b1=0)``).

    Args:
        objectives: number K, asked for by the memory; see `aggregator`.
        thresholds: critical, main and weak cosine; -0.8, -0.5 and 0, as in the authors' code.
        stability: weight of the first part of the score, 0.8 as there; the second has the rest.
        window: see above, 3 as there; 0 for no such limit.
        norm_decay: of the norms' averages, 0.95 as there.
        momentum: of the result's average, bias-corrected; 0.9 as in the authors' example (0.85 by default there), 0
            for none.
        throw: whether failures raise; see `aggregator`.

    Returns:
        A gradient transformation; leading axis K in, none out. The state's weights are those before momentum.

    Raises:
        ValueError: thresholds that do not rise within [-1, 1]; a decay that is not in [0, 1); leading axes disagree.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> aggregator = regulate.gcond(objectives=2)
        >>> grads = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
        >>> [round(float(d), 2) for d in aggregator.update(grads, aggregator.init(jnp.zeros(2)))[0]]
        [0.63, 1.37]

    Cost:
        One Gramian, 2 K² multiplications and a search per pair settled, two passes; K + 1 gradients of memory.

    References:
        - Limarenko and Studenikin, "GCond: Gradient Conflict Resolution via Accumulation-based Stabilization for
          Large-Scale Multi-Task Learning", 2025, https://arxiv.org/abs/2509.07252, and the authors' code, whose smooth
          rule this follows (done here in weights; a gradient's steadiness is judged before correction, there after;
          averages of norms start from the first norms, there from 1; sums are of this precision, there of bfloat16; its
          steps by the sign of the momentum, off by default, are left out)
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

    def memory(params: PyTree) -> _Memory:
        return _Memory(
            jax.tree.map(lambda leaf: jnp.zeros((objectives, *jnp.shape(leaf)), leaf.dtype), params),
            jnp.zeros(objectives, wide_dtype(params)),
            jnp.full(window, -1, jnp.int32),
            jax.tree.map(jnp.zeros_like, params),
            jnp.zeros((), jnp.int32),
        )

    def prepare(grads: PyTree, kept: _Memory) -> tuple[PyTree, tuple[_Memory, Array]]:
        steady = jnp.maximum(_own_cosines(grads, kept.previous), 0)
        return grads, (kept._replace(previous=grads), steady)

    def weigh(cosines: Array, norms: Array, seen: tuple[_Memory, Array]) -> tuple[Weights, _Memory]:
        kept, steady = seen
        blend = norm_decay * kept.norms + (1 - norm_decay) * norms
        averages = jnp.where(kept.steps == 0, norms, blend).astype(norms.dtype)
        rows, winners = _settled(cosines, _Sides(norms, averages, steady), kept.winners, thresholds, stability)
        shares = norms / peak(norms)
        weights = jnp.where(norms > 0, divide(shares @ rows, shares), 1)
        return Weights(weights), kept._replace(norms=averages, winners=winners)

    def finish(vector: PyTree, kept: _Memory) -> tuple[PyTree, _Memory]:
        steps = kept.steps + 1
        average = jax.tree.map(lambda m, g: (momentum * m + (1 - momentum) * g).astype(m.dtype), kept.momentum, vector)
        # The average starts at zero, and is short by this share.
        correction = 1 - jnp.asarray(momentum, kept.norms.dtype) ** steps
        result = jax.tree.map(lambda m, g: (m / correction).astype(g.dtype), average, vector)
        return result, kept._replace(momentum=average, steps=steps)

    return aggregator(weigh, prepare=prepare, finish=finish, memory=memory, objectives=objectives, throw=throw)


def _settled(
    cosines: Float[Array, "K K"],
    sides: _Sides,
    winners: Int[Array, " window"],
    thresholds: tuple[float, float, float],
    stability: float,
) -> tuple[Float[Array, "K K"], Int[Array, " window"]]:
    """The corrected gradients and the last winners: row i is gradient i in unit gradients, over its norm before."""
    count = len(cosines)
    negligible = jnp.finfo(cosines.dtype).eps ** 0.5

    def settle(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        rows, winners, _, steps = carry
        inner = rows @ cosines @ rows.T
        lengths = jnp.sqrt(jnp.maximum(jnp.diagonal(inner), 0))
        # A gradient that corrections have used up is rounding, has no direction and takes no part.
        scales = divide(1, jnp.where(lengths > negligible, lengths, 0))
        pairs = jnp.where((scales[:, None] > 0) & (scales[None, :] > 0), inner * scales[:, None] * scales[None, :], 2)
        pairs = jnp.where(jnp.tri(count, dtype=bool), 2, pairs)
        worst = jnp.min(pairs)
        i, j = jnp.divmod(jnp.argmin(pairs), count)
        second = _second_wins(jnp.stack([i, j]), lengths, sides, winners, stability)
        winner, loser = jnp.where(second, j, i), jnp.where(second, i, j)
        # The formula's two quotients, rows being what is corrected: inner · scales² is ⟨g_w, g_l⟩ over a squared norm.
        angle = _angle(worst, thresholds)
        back = jnp.sin(angle) * inner[winner, loser] * scales[loser] ** 2
        forth = jnp.sin(jnp.minimum(angle, math.pi / 2)) * inner[winner, loser] * scales[winner] ** 2
        changed = rows.at[winner].add(-back * rows[loser]).at[loser].add(-forth * rows[winner])
        conflict = worst < thresholds[2]
        if len(winners):
            latest = jnp.concatenate([winners[1:], winner[None].astype(winners.dtype)])
            winners = jnp.where(conflict, latest, winners)
        return jnp.where(conflict, changed, rows), winners, conflict, steps + 1

    rows = jnp.diag((sides.norms > 0).astype(cosines.dtype))
    start = rows, winners, jnp.asarray(True), jnp.asarray(0)
    rows, winners, _, _ = jax.lax.while_loop(lambda carry: carry[2] & (carry[3] < 2 * count), settle, start)
    return rows, winners


def _second_wins(
    pair: Int[Array, "2"], lengths: Float[Array, " K"], sides: _Sides, winners: Int[Array, " window"], stability: float
) -> Bool[Array, ""]:
    """Whether the larger score is the second's; one that has won every time of late is tired and loses."""
    strengths = divide(lengths * sides.norms, sides.averages)[pair]
    strengths = strengths / jnp.maximum(jnp.sum(strengths), jnp.finfo(lengths.dtype).tiny)
    # Shares of the two alone, as the first part of the score is at most 1.
    scores = stability * sides.steady[pair] + (1 - stability) * strengths
    if not len(winners):
        return scores[1] > scores[0]
    tired = jnp.all(winners[None, :] == pair[:, None], axis=1)
    return jnp.where(jnp.any(tired), tired[0], scores[1] > scores[0])


def _angle(cosine: Float[Array, ""], thresholds: tuple[float, float, float]) -> Float[Array, ""]:
    """0 at the weak threshold, π/2 at the main one, π at the critical one, the last stretch quadratically."""
    critical, main, weak = thresholds
    mild = (1 - jnp.clip((cosine - main) / (weak - main), 0, 1)) * (math.pi / 2)
    hard = math.pi / 2 * (1 + jnp.clip((cosine - main) / (critical - main), 0, 1) ** 2)
    return jnp.where(cosine >= main, mild, hard)


def _own_cosines(grads: PyTree, previous: PyTree) -> Float[Array, " K"]:
    """Cosine of every gradient with its predecessor; 0 where either vanishes."""
    now, before = scaled_rows(grads)[0], scaled_rows(previous)[0]

    def dots(left: list[Array], right: list[Array]) -> Array:
        return jnp.sum(jnp.stack([jnp.sum(a * b, axis=1) for a, b in zip(left, right)]), axis=0)

    scale = jnp.sqrt(dots(now, now) * dots(before, before))
    return divide(dots(now, before), scale)
