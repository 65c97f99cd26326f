"""Values and stacked gradients of several losses, what they share computed once."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import check_callable, check_loss, fault


def multi_value_and_grad(
    losses: Callable[..., Float[Array, " K"]] | Sequence[Callable[..., Float[Array, ""]]], *, has_aux: bool = False
) -> Callable[..., tuple[Any, PyTree]]:
    r"""Make a function of values and gradients of K losses, the forward pass and its linearisation done once.

    :math:`(\ell(\theta), J)` with :math:`J_i=\nabla\ell_i`: one linearisation, then K pullbacks side by side.

    Args:
        losses: ``losses(params, *args) -> [K]``, which lets losses share a trunk; or a sequence of
            ``loss(params, *args) -> scalar``, where only what the compiler finds equal is shared.
        has_aux: whether a callable ``losses`` returns ``([K], aux)``.

    Returns:
        ``function(params, *args) -> (values [K], grads)``, with ``((values, aux), grads)`` for ``has_aux``. Gradients
        have the structure of ``params`` with leading axis K, and None where a leaf is no floating-point array.

    Raises:
        ValueError: no loss; ``losses`` does not return one vector; one of a sequence cannot be called or does not
            return one real number; ``has_aux`` with a sequence.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.regulate import multi_value_and_grad
        >>> losses = lambda w, x: jnp.array([jnp.sum(w * x), jnp.sum(w**2)])
        >>> values, grads = multi_value_and_grad(losses)(jnp.array([1.0, 2.0]), jnp.array([3.0, 0.0]))
        >>> values.tolist(), grads.tolist()
        ([3.0, 5.0], [[3.0, 0.0], [2.0, 4.0]])

    Cost:
        One forward pass and K VJPs, run together; memory for one forward pass and K gradients.
    """
    if callable(losses):
        vector = losses
    else:
        functions = tuple(losses)
        if not functions or has_aux:
            raise fault(
                expected="at least one loss, without auxiliary output",
                got=f"{len(functions)} losses, has_aux={has_aux}",
                fix="For auxiliary output write one callable that returns ([K], aux).",
            )

        for one in functions:
            check_callable(one, what="each of the losses", fix="Pass loss(params, *args) -> scalar.")

        def vector(params: PyTree, *args: Any) -> Array:
            each = [function(params, *args) for function in functions]
            return jnp.stack([check_loss(value, what=f"loss {place}, one") for place, value in enumerate(each)])

    def function(params: PyTree, *args: Any) -> tuple[Any, PyTree]:
        trained, fixed = eqx.partition(params, eqx.is_inexact_array)

        def partial(trained: PyTree) -> Any:
            return vector(eqx.combine(trained, fixed), *args)

        if has_aux:
            values, pull, aux = jax.vjp(partial, trained, has_aux=True)
        else:
            values, pull = jax.vjp(partial, trained)
        if not isinstance(values, jax.Array) or values.ndim != 1:
            raise fault(
                expected="a vector of losses",
                got=f"shape {jax.tree.map(jnp.shape, values)}",
                fix="Stack the losses with jnp.stack.",
            )
        (grads,) = jax.vmap(pull)(jnp.eye(len(values), dtype=values.dtype))
        return ((values, aux) if has_aux else values), grads

    return function
