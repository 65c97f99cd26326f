"""Records that print their numbers rather than their shapes."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import wadler_lindig as wl

# So many numbers are printed; of more, or of traced ones, the shapes.
SHOWN = 8


class AbstractRecord(eqx.Module):
    """What is returned to be read; a notebook shows its numbers, and those of the records in it."""

    def __pdoc__(self, **options: Any) -> wl.AbstractDoc:
        """Equinox's form of a module, with few numbers as numbers."""
        options["custom"] = _with_numbers(options["custom"])
        fields = [
            (field.name, getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.repr and not (options["hide_defaults"] and getattr(self, field.name) is field.default)
        ]
        begin, end = wl.TextDoc(f"{type(self).__name__}("), wl.TextDoc(")")
        return wl.bracketed(begin, wl.named_objs(fields, **options), wl.comma, end, options["indent"])


def at_hand(value: Any) -> bool:
    """Whether an array's numbers can be looked at: not traced, not deleted, and all of them on this machine."""
    if isinstance(value, jax.Array):
        return not isinstance(value, jax.core.Tracer) and not value.is_deleted() and value.is_fully_addressable
    return isinstance(value, (np.ndarray, np.generic, float, int))


def _with_numbers(custom: Callable[[Any], wl.AbstractDoc | None]) -> Callable[[Any], wl.AbstractDoc | None]:
    def numbers(value: Any) -> wl.AbstractDoc | None:
        if not isinstance(value, (jax.Array, np.ndarray, np.generic)) or not at_hand(value):
            return custom(value)
        kinds = (jnp.number, jnp.bool_)
        if value.ndim > 1 or value.size > SHOWN or not any(jnp.issubdtype(value.dtype, kind) for kind in kinds):
            return custom(value)
        shown = [f"{one:.6g}" if isinstance(one, float) else str(one) for one in np.asarray(value).ravel().tolist()]
        return wl.TextDoc(f"[{', '.join(shown)}]" if value.ndim else shown[0])

    return numbers
