"""The field of a table: it moves the values that are drawn, given every column's state and the other values."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import Key
from ...fields import MLP, Frozen
from ._states import StateCode


class ValueField(eqx.Module):
    """A perceptron over the normal scores of a row's numbers, with frozen coordinates.

    Its condition is one vector of floats, so that it can be handled like any network's: the states of all columns
    (whole numbers), a mark for each value, 1 where it is free, and the given values. A coordinate that carries no value
    in a row (its cell is missing, or an atom) is frozen too, at zero: the state tells it from a given zero.

    Args:
        sizes: number of states of each column.
        values: number of columns with values, at least one.
        width: units of a hidden layer.
        depth: residual blocks.
        key: random key of the initial weights.
    """

    code: StateCode
    field: Frozen

    def __init__(self, sizes: tuple[int, ...], values: int, *, width: int, depth: int, key: Key):
        code_key, net_key = jax.random.split(key)
        self.code = StateCode(sizes, key=code_key)
        self.field = Frozen(
            MLP(
                values,
                condition=self.code.width + values,
                width=width,
                depth=depth,
                time_features=16,
                residual=True,
                key=net_key,
            )
        )

    def __call__(
        self, t: Float[Array, ""], y: Float[Array, " values"], args: Float[Array, " condition"]
    ) -> Float[Array, " values"]:
        """The velocity of one row, 0 where the value is not free; ``args`` as `condition` makes it."""
        columns = len(self.code.sizes)
        states, marks, given = jnp.split(args, [columns, columns + y.shape[0]])
        coded = self.code(states.astype(jnp.int32), jnp.ones(columns, bool))
        return self.field(t, y, (marks > 0.5, given, jnp.concatenate([coded, marks])))


def condition(states: Array, free: Array, values: Array) -> Float[Array, "rows condition"]:
    """The field's condition vectors.

    Args:
        states: [rows, columns], whole numbers.
        free: [rows, values], booleans: the values that are drawn or scored.
        values: [rows, values], the given ones; what stands at the others is not looked at.

    Returns:
        One vector a row.
    """
    given = jnp.where(free, 0.0, values)
    return jnp.concatenate([states.astype(given.dtype), free.astype(given.dtype), given], axis=1)


__all__ = ["ValueField", "condition"]
