"""Rows of a batch: how many there are, and the loss of each in its outputs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import check_loss, check_rows, described, fault

Predict = Callable[[PyTree, PyTree], Float[Array, "..."]]
RowLoss = Callable[[Float[Array, "..."], PyTree], Float[Array, ""]]


def check_inputs(inputs: PyTree) -> int:
    """The number of rows, which all leaves share.

    Raises:
        ValueError: there are no leaves or no rows, one is a scalar, or they have different numbers of rows.
    """
    leaves = jax.tree.leaves(inputs)
    if not leaves or not jnp.shape(leaves[0]) or not len(leaves[0]):
        raise fault(
            expected="inputs with the batch's rows on the leading axis",
            got="none" if not leaves else "a scalar" if not jnp.shape(leaves[0]) else "no row",
            fix="Pass inputs=batch, the tree whose rows predict and loss take.",
        )
    check_rows(inputs, len(leaves[0]), what="inputs", fix="All of its leaves are of the same rows.")
    return len(leaves[0])


def outputs_of(predict: Predict, params: PyTree, inputs: PyTree) -> Float[Array, "rows ..."]:
    """The outputs of all rows.

    Raises:
        ValueError: those of a row are no array of real floating-point numbers, or an empty one.
    """

    def one(row: PyTree) -> Float[Array, "..."]:
        try:
            output = predict(params, row)
        except (TypeError, AttributeError) as error:
            if any(leaf is None for leaf in jax.tree.leaves(params, is_leaf=lambda leaf: leaf is None)):
                error.add_note(
                    "predict gets what is trained alone, with None in other places: where params come of an Equinox "
                    "model, predict by equinox.combine(params, model)."
                )
            raise
        if not isinstance(output, jax.Array) or not jnp.issubdtype(output.dtype, jnp.floating) or not output.size:
            raise fault(
                expected="predict(params, row) -> outputs, an array of real floating-point numbers",
                got=described(output),
                fix="Return what the loss of the row takes, computed from params.",
            )
        return output

    return jax.vmap(one)(inputs)


def of_rows(loss: RowLoss, predicted: Float[Array, "rows ..."], inputs: PyTree) -> Float[Array, " rows"]:
    """The loss of each row.

    Raises:
        ValueError: it is no scalar of one row.
    """
    fix = "Return loss(outputs, row) of one row; the mean over rows is taken here."
    return jax.vmap(lambda out, row: check_loss(loss(out, row), fix=fix))(predicted, inputs)
