"""Fields and losses called by their contracts: a value shaped like the state, one real number."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ._checks import check_callable, check_loss, described, shaped_like
from ._errors import fault
from ._types import Field

_ORDER = "Write it as field(t, y, args) -> dy: the time first, args=None where there is no condition."


class _Checked(eqx.Module):
    """Not a closure: two of one field are equal, so that a program compiled for the one serves the other."""

    field: Field

    def __call__(self, t: Any, y: PyTree, args: PyTree) -> PyTree:
        try:
            value = self.field(t, y, args)
        except Exception as error:
            misread = _misread(self.field, t, y, args)
            if misread is None:
                raise
            raise misread from error
        if not shaped_like(value, y):
            raise _misread(self.field, t, y, args) or fault(
                expected=f"a field whose value is shaped like its state, {described(y)}",
                got=described(value),
                fix="Return one number for each coordinate of y, in the same tree. " + _ORDER,
            )
        if any(jnp.iscomplexobj(a) > jnp.iscomplexobj(b) for a, b in zip(jax.tree.leaves(value), jax.tree.leaves(y))):
            raise fault(
                expected=f"a field of real numbers, as its state {described(y)}",
                got=described(value),
                fix="Return real numbers, or let the state hold real and imaginary parts.",
            )
        return jax.tree.map(_widened, value, y)


def checked_field(field: Field) -> Field:
    """The same field, whose value is refused at trace time where it is not shaped like the state.

    Nothing is left of the check in a compiled program. A value of fewer digits than the state (half precision, or
    integers) is widened to the state's, so that a solver can add the two.

    Args:
        field: ``field(t, y, args) -> dy``.

    Returns:
        A field; that of an equal field is equal.

    Raises:
        ValueError: it cannot be called, and when it is called: it does not take three arguments, takes them in the
            order (y, t, args), or its value is not shaped like ``y``.
    """
    check_callable(field, what="a field", fix=_ORDER)
    if isinstance(field, type):
        raise fault(
            expected="a field", got=f"the class {field.__name__}", fix=f"Make one first: {field.__name__}(...)."
        )
    return field if isinstance(field, _Checked) else _Checked(field)


class _CheckedLoss(eqx.Module):
    """Not a closure either."""

    loss: Callable[..., Any]
    fix: str

    def __call__(self, *args: Any) -> Any:
        return check_loss(self.loss(*args), fix=self.fix)


def checked_loss(loss: Callable[..., Any], *, fix: str) -> Callable[..., Any]:
    """The same loss, whose value is refused at trace time where it is not one real number.

    Args:
        loss: of any arguments.
        fix: what the user can do.

    Returns:
        A function; that of an equal loss is equal.

    Raises:
        ValueError: it cannot be called, and when it is called: its value is no real number.
    """
    check_callable(loss, what="a loss", fix=fix)
    return _CheckedLoss(loss, fix)


def _widened(value: Any, y: Any) -> Any:
    value, y = jnp.asarray(value), jnp.asarray(y)
    return value.astype(y.dtype) if jnp.promote_types(value.dtype, y.dtype) == y.dtype else value


def _misread(field: Field, t: Any, y: PyTree, args: PyTree) -> ValueError | None:
    """What is wrong with the field's arguments, where that can be seen."""
    try:
        signature = inspect.signature(field)
    except (TypeError, ValueError):  # not everything that is called has one
        return None
    try:
        signature.bind(t, y, args)
    except TypeError:
        return fault(expected="a field of three arguments, (t, y, args)", got=str(signature), fix=_ORDER)
    if next(iter(signature.parameters), "").startswith("t") or shaped_like(y, t):
        return None
    try:
        swapped = jax.eval_shape(lambda t, y: field(y, t, args), t, y)
    except Exception:  # whatever goes wrong in it, this is not the explanation
        return None
    if shaped_like(swapped, y):
        return fault(expected="a field of (t, y, args)", got=f"one of (y, t, args): {signature}", fix=_ORDER)
    return None
