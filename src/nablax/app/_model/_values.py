"""The field of a table: it moves what is drawn, given every column's state and the given values."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import Key
from ...fields import MLP, Frozen
from ._states import StateCode


class ValueField(eqx.Module):
    r"""A perceptron over what regression leaves of a row's numbers, with frozen coordinates.

    $$
    v(t, r) = \frac{2t - 1}{t^2 + (1 - t)^2}\, r + f(t, r, c)
    $$

    The first term carries normal noise to normal data; the network starts at zero and learns what is not normal.

    Its condition is one vector of floats, so that it can be handled like any network's: the states of all columns
    (whole numbers), a mark for each value, 1 where it is free, and the normal scores that are known, given ones and
    those of atoms; in the places of the free ones stands what regression expects of them. A coordinate of a missing
    cell is frozen too, at zero: the state tells it from a given zero.

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
                condition=self.code.width + 2 * values,
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
        states, marks, given = taken_apart(args, len(y))
        free = marks > 0.5
        coded = self.code(states, jnp.ones(len(states), bool))
        straight = (2.0 * t - 1.0) / (jnp.square(t) + jnp.square(1.0 - t)) * jnp.where(free, y, 0.0)
        return straight + self.field(t, y, (free, given, jnp.concatenate([coded, marks, given])))


def condition(states: Array, free: Array, values: Array) -> Float[Array, "rows condition"]:
    """The field's condition vectors.

    Args:
        states: [rows, columns], whole numbers.
        free: [rows, values], booleans: the values that are drawn or scored.
        values: [rows, values], the known ones, and what is expected of the free ones.

    Returns:
        One vector a row.
    """
    return jnp.concatenate([states.astype(values.dtype), free.astype(values.dtype), values], axis=1)


def taken_apart(vector: Float[Array, " condition"], values: int) -> tuple[Array, Array, Array]:
    """States, marks of the free values, and the known scores, of one vector as `condition` makes it."""
    states, marks, scores = jnp.split(vector, [len(vector) - 2 * values, len(vector) - values])
    return states.astype(jnp.int32), marks, scores


__all__ = ["ValueField", "condition", "taken_apart"]
