"""Which rows step k trains on: a keyed permutation that is computed where it is needed, never stored."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree, UInt

from ._types import Key

_ROUNDS = 8
# Up to here sorting is as cheap, and exactly uniform.
_SORTED = 64


def _mix(x: UInt[Array, "..."]) -> UInt[Array, "..."]:
    """Scramble 32 bits: the MurmurHash3 finaliser, a bijection in which every bit moves every other."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def permute(positions: Int[Array, " count"], size: int, *, key: Key) -> Int[Array, " count"]:
    r"""Image of some positions under a pseudo-random permutation of ``range(size)``.

    A Feistel network on a grid $a \times b \ge$ ``size``: alternately $l \leftarrow l + F(r) \bmod a$ and
    $r \leftarrow r + F(l) \bmod b$, each invertible whatever $F$ is. A point that lands outside ``range(size)``
    walks on until it is inside, which keeps the map one-to-one. Nothing of length ``size`` is made or sorted, but
    for sizes up to 64, where a plain shuffle serves.

    Args:
        positions: integers in ``range(size)``.
        size: length of the permutation, at most $2^{31}$.
        key: picks the permutation.

    Returns:
        The permuted integers, int32, one for each position.

    Cost: 8 rounds of about ten integer operations per position, and as many again for each step of a walk.

    References:
        Black and Rogaway, "Ciphers with arbitrary finite domains", 2002,
        https://doi.org/10.1007/3-540-45760-7_9 (the grid and the walk).
    """
    if size <= _SORTED:
        return jax.random.permutation(key, size)[positions]
    width = math.isqrt(size - 1) + 1
    height = -(-size // width)
    round_keys = jax.random.bits(key, (_ROUNDS,), jnp.uint32)

    def shift(x: Array, by: Array, round_key: Array, modulus: int) -> Array:
        # The top 16 bits times the modulus: a draw from range(modulus) without a division.
        draw = ((_mix(by ^ round_key) >> 16) * jnp.uint32(modulus)) >> 16
        total = x + draw
        return jnp.where(total >= modulus, total - jnp.uint32(modulus), total)

    def cipher(x: Array) -> Array:
        left, right = x % jnp.uint32(width), x // jnp.uint32(width)
        for i in range(0, _ROUNDS, 2):
            left = shift(left, right, round_keys[i], width)
            right = shift(right, left, round_keys[i + 1], height)
        return right * jnp.uint32(width) + left

    def walk(x: Array) -> Array:
        return jnp.where(x >= size, cipher(x), x)

    image = cipher(positions.astype(jnp.uint32))
    if width * height > size:
        image = jax.lax.while_loop(lambda x: jnp.any(x >= size), walk, image)
    return image.astype(jnp.int32)


def rows_of(step: Int[Array, ""], size: int, batch_size: int, *, key: Key) -> Int[Array, " batch"]:
    """Row numbers of the batch of one step.

    An epoch is ``size // batch_size`` steps under one permutation: each row comes at most once an epoch, and the
    ``size % batch_size`` rows left over are others in each epoch.

    Args:
        step: number of the step, from 0.
        size: number of rows.
        batch_size: rows in a batch, at most ``size``.
        key: of the whole run.

    Returns:
        ``batch_size`` distinct row numbers, int32.
    """
    per_epoch = size // batch_size
    epoch, place = step // per_epoch, step % per_epoch
    positions = place * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
    return permute(positions, size, key=jax.random.fold_in(key, epoch))


def take(data: PyTree, rows: Int[Array, " batch"]) -> PyTree:
    """Gather rows from the leading axis of every array of ``data``."""
    # Rows are known to be inside, so the gather needs no clamp.
    return jax.tree.map(lambda x: x.at[rows].get(mode="promise_in_bounds"), data)
