"""Couplings that satisfy less than the cheapest one does: no two points that would rather have each other, no swap."""

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..._core import Key
from ._pairing import check_pairs

Rows = Array | np.ndarray


def stable_coupling(noise: Rows, data: Rows, *, key: Key, labels: PyTree = None) -> Int[np.ndarray, " batch"]:
    r"""Pair the batch one to one so that no noise and no data point are nearer to each other than to their partners.

    $$
    \nexists\, i, j:\; d(\mathrm{noise}_{\pi(i)}, \mathrm{data}_j) < d(\mathrm{noise}_{\pi(j)}, \mathrm{data}_j)
    \;\text{and}\; d(\mathrm{noise}_{\pi(i)}, \mathrm{data}_j) < d(\mathrm{noise}_{\pi(i)}, \mathrm{data}_i)
    $$

    The cheapest pairing has less total squared distance and need not be stable by distance; the stable one is found by
    ranks alone. Since both sides rank by the same distance, the nearest two of all would rather have each other than
    anyone else, then the nearest two of those left, and so on: that is the only stable pairing, ties apart.

    Args:
        noise: leading axis batch, any shape after it.
        data: the same shape as ``noise``.
        key: not used: the pairing is a function of the batch.
        labels: not used; with a condition use `class_aware_coupling`.

    Returns:
        A permutation: ``noise[pairing[i]]`` goes with ``data[i]``.

    Raises:
        ValueError: the shapes of ``noise`` and ``data`` differ; there are no rows, or one is not finite.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.transport import stable_coupling
        >>> noise, data = jnp.array([[0.0], [2.0]]), jnp.array([[1.9], [4.0]])
        >>> stable_coupling(noise, data, key=jax.random.key(0)).tolist()
        [1, 0]

    Cost:
        No model; on the host, one sort of all distances: 256 pairs in about 15 ms on one core, more than
        `optimal_coupling` takes.

    References:
        Pooladian et al. (2023), Multisample Flow Matching, https://arxiv.org/abs/2304.14772, section 4.4, by
        Gale–Shapley; that the greedy pairing is the same is ours, and is tested.
    """
    check_pairs(noise, data)
    costs = _squares(noise, data)
    size = len(costs)
    pairing, taken = np.full(size, -1), np.zeros(size, bool)
    left = size
    for place in np.argsort(costs, axis=None, kind="stable"):
        i, j = divmod(int(place), size)  # noise, data
        if not taken[i] and pairing[j] < 0:
            pairing[j], taken[i], left = i, True, left - 1
            if not left:
                break
    return pairing


def heuristic_coupling(noise: Rows, data: Rows, *, key: Key, labels: PyTree = None) -> Int[np.ndarray, " batch"]:
    r"""Pair the batch one to one so that no swap of two partners makes the two pairs cheaper.

    $$
    c(\pi(i), i) + c(\pi(j), j) \le c(\pi(i), j) + c(\pi(j), i) \quad \text{for all } i, j,
    $$

    with c the squared distance: cyclical monotonicity of order two, of which the cheapest pairing satisfies all
    orders. In one dimension the two are the same.

    Args:
        noise: leading axis batch, any shape after it.
        data: the same shape as ``noise``.
        key: of the random assignment that it starts from.
        labels: not used; with a condition use `class_aware_coupling`.

    Returns:
        A permutation: ``noise[pairing[i]]`` goes with ``data[i]``.

    Raises:
        ValueError: the shapes of ``noise`` and ``data`` differ; there are no rows, or one is not finite.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.transport import heuristic_coupling
        >>> noise, data = jnp.array([[0.0], [1.0], [2.0]]), jnp.array([[2.1], [0.1], [1.1]])
        >>> heuristic_coupling(noise, data, key=jax.random.key(0)).tolist()
        [2, 0, 1]

    Cost:
        No model; on the host, a few sweeps over all pairs of pairs: 256 pairs in about 10 ms on one core.

    References:
        Pooladian et al. (2023), Multisample Flow Matching, https://arxiv.org/abs/2304.14772, section 4.4: pairs are
        reassigned, from a random assignment on, where that does not raise the cost. The order of reassignments, best
        swap first, is ours: their appendix, which has theirs, was not read.
    """
    check_pairs(noise, data)
    costs = _squares(noise, data)
    pairing = np.random.default_rng(np.asarray(jax.random.key_data(key))).permutation(len(costs))
    # Less than rounding is no gain, or two swaps could undo each other for ever.
    least = 1e-12 * float(np.abs(costs).max())
    improved = True
    while improved:
        improved = False
        for row in range(len(costs)):
            own = costs[pairing, np.arange(len(costs))]
            gain = own[row] + own - costs[pairing, row] - costs[pairing[row]]
            other = int(np.argmax(gain))
            if gain[other] > least:
                pairing[[row, other]] = pairing[[other, row]]
                improved = True
    return pairing


def _squares(noise: Rows, data: Rows) -> Float[np.ndarray, "noise data"]:
    """Squared distances, in units of the largest coordinate, so that neither end of the number range is near."""
    left, right = (np.asarray(rows, np.float64).reshape(len(rows), -1) for rows in (noise, data))
    unit = max(np.abs(left).max(initial=0), np.abs(right).max(initial=0)) or 1.0
    left, right = left / unit, right / unit
    return np.sum(left**2, axis=1)[:, None] + np.sum(right**2, axis=1)[None] - 2 * left @ right.T


__all__ = ["heuristic_coupling", "stable_coupling"]
