"""From the prior to the data in steps: what every sampler and guide does that is not an equation's solver."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._core import (
    Key,
    canonical_convolutions,
    check_callable,
    check_count,
    check_instance,
    check_key,
    check_like,
    check_pair,
    check_shape,
    fault,
)
from ._batch import check_draws
from ._paths._path import AbstractPath
from ._transport import Transport


class Moment(eqx.Module):
    """When a step is taken.

    Attributes:
        index: how many steps came before it.
        t: the time at which it starts.
        s: the time at which it ends.
        key: for its own noise; None of a march without ``noise_key``.
    """

    index: Int[Array, ""]
    t: Float[Array, ""]
    s: Float[Array, ""]
    key: Any


Step = Callable[[Moment, Any, PyTree], tuple[Any, PyTree]]


def march(
    transport: Transport,
    step: Step,
    count: int,
    *,
    key: Key,
    steps: int | Float[Array, " times"],
    args: PyTree = None,
    noise_key: Key | None = None,
    start: Callable[[Float[Array, ""], Array], Any] | None = None,
) -> tuple[Any, PyTree]:
    r"""Draw from the prior and take one step after another to the data: the loop of a sampler, without its step.

    A sampler is this and an equation, $x_s = \mathrm{step}(t, s, x_t)$. The steps are one compiled loop,
    whose convolutions are as fast on CPUs as outside of it.

    Args:
        transport: gives the prior and the times.
        step: ``step(moment, ys, args) -> (ys, record)`` of the whole batch, leading axis ``count``; see `Moment`.
            ``jax.vmap(step, in_axes=(None, 0, 0))`` makes it from the step of one sample, if that draws nothing: there
            is one key for the batch.
        count: how many samples are drawn from the prior.
        key: for the prior.
        steps: number of equal steps over ``path.times``, or the times to visit, the first and last among them.
        args: condition, leading axis ``count``, or None; handed to ``step`` as it is.
        noise_key: for the steps, each of which gets a key of its own. Default: none, for steps that draw nothing.
        start: ``start(t, ys) -> state`` where a step needs more than the samples, such as their weights; ``step`` then
            takes and returns that state. Default: the samples themselves.

    Returns:
        What the last step returned; and the steps' records, with a leading axis over steps.

    Raises:
        ValueError: ``count`` or ``steps`` is not a positive whole number; there are no times; ``args`` have another
            leading axis; a key is none; ``transport`` is no `Transport`; ``step`` returns no pair, or changes the shape
            of the state.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.spaces import Euclidean
        >>> from nablax.transport import Linear, Normal, Transport, march
        >>> def velocity(t, y, args):  # from N(0, 1) to N(3, 1/4)
        ...     return 3 + (t / 4 - (1 - t)) / ((1 - t) ** 2 + t**2 / 4) * (y - 3 * t)
        >>> transport = Transport(velocity, Linear(), Normal((1,)), Euclidean((1,)))
        >>> def euler(now, y, args):
        ...     y = y + (now.s - now.t) * transport.velocity(now.t, y, args)
        ...     return y, y[0]
        >>> step = jax.vmap(euler, in_axes=(None, 0, 0))
        >>> samples, way = march(transport, step, 2000, key=jax.random.key(0), steps=50)
        >>> bool(abs(samples.mean() - 3) < 0.05), way.shape
        (True, (50, 2000))

    Cost:
        That of the steps. Compiled anew for each new ``step``; inside of ``jax.jit`` once.
    """
    check_instance(transport, Transport, what="a transport", fix="Make one: Transport(field, path, prior, space).")
    count = check_draws(count, key, args)
    if start is not None:
        check_callable(start, what="start", fix="It is start(t, ys) -> state.", takes=2)
    check_callable(
        step, what="a step", fix="It is step(moment, ys, args) -> (ys, record), of the whole batch.", takes=3
    )
    state = jax.vmap(transport.prior.sample)(jax.random.split(key, count))
    if isinstance(steps, jax.Array | np.ndarray) and steps.ndim:
        times = check_shape(steps, (None,), what="times", fix="Pass the times to visit, or how many steps.")
        if not len(times):
            raise fault(expected="at least one time", got="none", fix="Pass the times to visit, or how many steps.")
    else:
        times = time_grid(transport.path, steps, state.dtype)
    if start is not None:
        state = start(times[0], state)
    keys = None
    if noise_key is not None:
        check_key(noise_key, what="noise_key")
        keys = jax.random.split(noise_key, len(times) - 1)
    moments = Moment(jnp.arange(len(times) - 1), times[:-1], times[1:], keys)

    def checked(state: Any, moment: Moment) -> tuple[Any, PyTree]:
        after, record = check_pair(
            step(moment, state, args),
            expected="a step that returns (ys, record)",
            fix="Return both; None is a record of nothing.",
        )
        check_like(after, state, what="a step whose state", fix="Return the whole batch, moved.")
        return after, record

    return jax.lax.scan(canonical_convolutions(checked), state, moments)


def time_grid(path: AbstractPath, steps: Any, dtype: Any = None) -> Float[Array, " times"]:
    """The ends of so many equal steps over a path's times.

    Raises:
        ValueError: ``steps`` is not a positive whole number.
    """
    return jnp.linspace(*path.times, check_count(steps, what="steps") + 1, dtype=dtype)


__all__ = ["Moment", "march", "time_grid"]
