"""Rows to train on, looked at before anything is compiled."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._core import described, fault, is_key, shaped_like


def _numeric(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, jnp.bool_)


def check_rows(name: str, rows: PyTree, fewest: int) -> None:
    """Refuse what is no tree of arrays with so many rows each, at least."""
    leaves = jax.tree.leaves(rows)
    for leaf in leaves:
        numbers = isinstance(leaf, jax.Array | np.ndarray) and (is_key(leaf) or _numeric(leaf.dtype))
        if not numbers or np.ndim(leaf) == 0:
            raise fault(
                expected=f"{name}: arrays of numbers with a leading axis of rows",
                got=described(leaf)
                if isinstance(leaf, jax.Array | np.ndarray)
                else f"a {type(leaf).__name__} among them",
                fix="Make one array of the rows by numpy.asarray or numpy.stack, and numbers of words.",
            )
    counts = [leaf.shape[0] for leaf in leaves]
    if not counts:
        raise fault(
            expected=f"{name}: arrays of numbers with a leading axis of rows", got=described(rows), fix="Pass some."
        )
    if len(set(counts)) > 1:
        raise fault(
            expected=f"{name}: arrays with as many rows each", got=described(rows), fix="Cut them to one length."
        )
    if counts[0] < fewest:
        fix = "Pass more rows or a smaller batch_size." if name == "data" else "Pass some rows."
        raise fault(expected=f"{name}: at least {fewest} rows", got=counts[0], fix=fix)


def check_alike(validation: PyTree, batch: PyTree) -> None:
    """Refuse validation rows that are no rows of a batch."""
    row, one = (
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), tree) for tree in (batch, validation)
    )
    if not shaped_like(one, row):
        raise fault(
            expected=f"validation rows like those of data, {described(row)} each",
            got=described(one),
            fix="Make validation of the same arrays as data, under the same names.",
        )
