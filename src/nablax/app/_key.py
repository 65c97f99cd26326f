"""Random keys of the command line's programs, of a generator that compiles quickly."""

import jax

from .._core import Key
from ._errors import UserError


def random_key(seed: int) -> Key:
    """The key of a seed.

    Its draws are XLA's own (``rbg``), while it is split and folded as JAX's default keys are. On a CPU each draw in a
    program then takes a quarter of the time to compile: of a small table's training, nearly all of which is compiling,
    the default generator (``threefry2x32``) took a fifth. What is given up is that other versions of XLA draw the same.

    Args:
        seed: an integer of 64 bits.

    Raises:
        UserError: it has more.
    """
    if not -(2**63) <= seed < 2**63:
        raise UserError(f"--seed should lie between {-(2**63)} and {2**63 - 1}, not {seed}")
    return jax.random.key(seed, impl="rbg")


def learning_seed(seed: int) -> int:
    """The seed of a run, which its splits of the rows take too, and these take none below zero.

    Raises:
        UserError: it is below zero, or has more than 64 bits.
    """
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed should lie between 0 and {2**63 - 1}, not {seed}")
    return seed


__all__ = ["learning_seed", "random_key"]
