"""Several losses: their names, all of them at once, and their gradients."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import check_callable, check_floats, check_loss, described, fault
from ._along import Moved, Point

Losses = Callable[..., Array] | Sequence[Callable[..., Array]] | Mapping[str, Callable[..., Array]]


def named(losses: Losses) -> Any:
    """Losses by name in a form whose order compilation keeps."""
    if callable(losses):
        return check_callable(losses, what="losses", fix="Pass losses(params, batch) -> vector.", takes=2)
    if not isinstance(losses, Mapping | Sequence) or isinstance(losses, str):
        raise fault(
            expected="losses by name, in a sequence, or one function that returns them as a vector",
            got=described(losses),
            fix="Pass {'data': loss, 'decay': other}.",
        )
    for one in losses.values() if isinstance(losses, Mapping) else losses:
        check_callable(
            one, what="each of the losses", fix="Pass loss(params, batch) -> scalar under each name.", takes=2
        )
    return tuple(losses.items()) if isinstance(losses, Mapping) else losses


def side_by_side(losses: Any, point: Point, batch: PyTree) -> tuple[tuple[str, ...], Callable[..., Array]]:
    """Their names, and one function of parameters and batch that returns all of them.

    Raises:
        ValueError: there are none, one is no real number, or they are no vector.
    """
    if callable(losses):
        return tuple(f"loss {i}" for i in range(_count(losses, point, batch))), losses
    if not losses:
        raise _none()
    pairs = [one if isinstance(one, tuple) else (f"loss {i}", one) for i, one in enumerate(losses)]
    names, functions = tuple(name for name, _ in pairs), [function for _, function in pairs]

    def together(params: PyTree, batch: PyTree) -> Float[Array, " losses"]:
        values = [function(params, batch) for function in functions]
        return jnp.stack([check_loss(value, what=f"a loss ({name})") for name, value in zip(names, values)])

    _count(together, point, batch)
    return names, together


def _count(losses: Callable[..., Array], point: Point, batch: PyTree) -> int:
    found = jax.eval_shape(point.take(losses, batch), point.vector)
    if len(getattr(found, "shape", ())) != 1:
        raise fault(
            expected="losses that are scalars each, or a vector from one function",
            got=described(found),
            fix="Take the mean over the rows, and pass a single loss in a list.",
        )
    check_floats(found, what="losses", fix="Return real numbers, by jax.numpy from the parameters.")
    if found.shape[0] == 0:
        raise _none()
    return found.shape[0]


def _none() -> ValueError:
    return fault(expected="at least one loss", got="none", fix="Pass a mapping, a sequence or a vector of them.")


def gradients_of(function: Moved, at: Float[Array, " dim"]) -> tuple[Array, Array]:
    """Values of several losses and their gradients, one a row."""
    values, pull = jax.vjp(function, at)
    return values, jax.vmap(lambda row: pull(row)[0])(jnp.eye(values.size, dtype=values.dtype))
