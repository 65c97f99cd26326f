"""Least squares and quadratic losses whose solutions are known."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..._core import Key


class Bilevel(NamedTuple):
    r"""Underdetermined least squares, and among its minimisers the one nearest to a point.

    The main loss is :math:`\lVert Ax - b\rVert^2 / 2n`, the auxiliary one :math:`\lVert x - p\rVert^2 / 2`.
    """

    inputs: Float[Array, "examples dim"]
    targets: Float[Array, " examples"]
    point: Float[Array, " dim"]

    def main(self, x: Float[Array, " dim"], rows: Int[Array, " batch"] | None = None) -> Float[Array, ""]:
        """Of all examples, or of a batch."""
        inputs, targets = (self.inputs, self.targets) if rows is None else (self.inputs[rows], self.targets[rows])
        return jnp.mean((inputs @ x - targets) ** 2) / 2

    def auxiliary(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """Half the squared distance to the point."""
        return jnp.sum((x - self.point) ** 2) / 2

    def solution(self) -> Float[Array, " dim"]:
        """The minimiser of the main loss that is nearest to the point."""
        inverse = jnp.linalg.pinv(self.inputs, rtol=1e-4)
        return self.point + inverse @ (self.targets - self.inputs @ self.point)


def bilevel(key: Key, *, examples: int = 200, dim: int = 30, rank: int = 15, noise: float = 0.5) -> Bilevel:
    """Draw a problem: a matrix of that rank from normal factors, targets the sum of an example's inputs and noise."""
    data_key, noise_key = jax.random.split(key)
    left, right, point_key = jax.random.split(data_key, 3)
    inputs = jax.random.normal(left, (examples, rank)) @ jax.random.normal(right, (rank, dim)) / rank**0.5
    targets = inputs @ jnp.ones(dim) + noise * jax.random.normal(noise_key, (examples,))
    return Bilevel(inputs, targets, 3 * jax.random.normal(point_key, (dim,)))


__all__ = ["Bilevel", "bilevel"]
