"""Rows of a batch: how many there are, and the loss of each in its outputs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import check_loss, check_rows, fault

Predict = Callable[[PyTree, PyTree], Float[Array, "..."]]
RowLoss = Callable[[Float[Array, "..."], PyTree], Float[Array, ""]]


def check_inputs(inputs: PyTree) -> int:
    """The number of rows, which all leaves share.

    Raises:
        ValueError: there are no leaves, one is a scalar, or they have different numbers of rows.
    """
    leaves = jax.tree.leaves(inputs)
    if not leaves or not jnp.ndim(leaves[0]):
        raise fault(
            expected="inputs with the batch's rows on the leading axis",
            got="none" if not leaves else "a scalar",
            fix="Pass inputs=batch, the tree whose rows predict and loss take.",
        )
    check_rows(inputs, len(leaves[0]), what="inputs", fix="All of its leaves are of the same rows.")
    return len(leaves[0])


def of_rows(loss: RowLoss, predicted: Float[Array, "rows ..."], inputs: PyTree) -> Float[Array, " rows"]:
    """The loss of each row.

    Raises:
        ValueError: it is no scalar of one row.
    """
    fix = "Return loss(outputs, row) of one row; the mean over rows is taken here."
    return jax.vmap(lambda out, row: check_loss(loss(out, row), fix=fix))(predicted, inputs)
