"""Reflow: the pairs that a transport makes, to train a straighter transport on."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..._core import Key, canonical_convolutions, check_count
from ...follow import Solver, flow
from .._batch import check_draws
from .._transport import Transport

_SAMPLES = Solver(rtol=1e-4, atol=1e-4)  # as `Transport.sample`


def reflow(
    transport: Transport,
    count: int,
    *,
    key: Key,
    args: PyTree = None,
    solver: Solver = _SAMPLES,
    batch_size: int = 4096,
) -> dict[str, PyTree]:
    r"""Draw pairs of a starting point and the end to which a transport carries it.

    A field trained on these pairs along the linear path has the same marginals at both ends, straighter paths, and a
    transport cost $E\,c(x_1 - x_0)$ that is no larger, for every convex $c$. Where the straight segments between the
    pairs do not cross, the new field is constant along each path and one Euler step follows it. Regressing the velocity
    at the first time alone on "data" − "noise" distils the transport to that one step.

    Args:
        transport: whose ends are wanted.
        count: number of pairs.
        key: of the starting points.
        args: conditions, leading axis ``count``, or None.
        solver: steps, tolerances and method. Default: adaptive, both tolerances 1e-4.
        batch_size: pairs that are solved together; only a matter of memory.

    Returns:
        A dict of arrays with leading axis ``count``: "noise", "data", and "condition" where there are ``args``; in
        host memory. It is what `flow_matching` takes as a batch and `follow.fit` as data. The noise goes with its data,
        so the next transport is made with ``independent=False``.

    Raises:
        ValueError: a count or a batch size below 1; ``args`` have another leading axis.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.follow import Solver
        >>> from nablax.spaces import Euclidean
        >>> from nablax.transport import Linear, Normal, Transport, reflow
        >>> shift = Transport(lambda t, y, args: jnp.full_like(y, 3.0), Linear(), Normal((2,)), Euclidean((2,)))
        >>> pairs = reflow(shift, 5, key=jax.random.key(0), solver=Solver(steps=4))
        >>> bool(abs(pairs["data"] - pairs["noise"] - 3).max() < 1e-5)
        True

    Cost:
        The solver's evaluations of the field, for each pair.

    References:
        Liu, Gong, Liu (2023), Flow Straight and Fast, https://arxiv.org/abs/2209.03003, and the authors' code,
        https://github.com/gnobitab/RectifiedFlow (the same path, velocities and pairs; theirs solves by Runge and Kutta
        to 1e-5 and leaves out times below 0.001, where a network's velocity from noise is hardest to tell).
    """
    count, batch_size = check_draws(count, key, args), check_count(batch_size, what="batch_size")
    size = min(batch_size, count)
    noise, data = [], []
    for number, first in enumerate(range(0, count, size)):
        # The last batch is filled up, so that one program serves all of them.
        rows = np.minimum(np.arange(first, first + size), count - 1)
        condition = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], args)  # noqa: B023
        starts, ends = _ends(transport, size, jax.random.fold_in(key, number), condition, solver)
        noise.append(np.asarray(starts)[: count - first])
        data.append(np.asarray(ends)[: count - first])
    pairs = {"noise": np.concatenate(noise), "data": np.concatenate(data)}
    return pairs if args is None else pairs | {"condition": args}


@eqx.filter_jit
@canonical_convolutions
def _ends(transport: Transport, size: int, key: Key, args: PyTree, solver: Solver) -> tuple[Array, Array]:
    starts = jax.vmap(transport.prior.sample)(jax.random.split(key, size))

    def velocity(t: Array, ys: Array, args: PyTree) -> Array:
        return jax.vmap(transport.velocity, in_axes=(None, 0, 0))(t, ys, args)

    first, last = transport.path.times
    return starts, flow(velocity, starts, first, last, args=args, solver=solver).ys


__all__ = ["reflow"]
