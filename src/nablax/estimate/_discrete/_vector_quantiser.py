"""A quantiser of vectors whose codes keep up with what they are to stand for."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..._core import Key, check_count, check_floats, check_key, check_shape, fault


class Quantised(NamedTuple):
    """What a quantiser gives.

    Attributes:
        output: the vectors' codes ``[rows, size]``, with the vectors' own derivative.
        codes: which code each row has, ``[rows]``.
        loss: commitment and codebook loss, a scalar, to be added to the model's.
    """

    output: Float[Array, "rows size"]
    codes: Int[Array, " rows"]
    loss: Float[Array, ""]


class VectorQuantiser(eqx.Module):
    r"""The nearest of some codes in place of each vector, with a straight-through derivative.

    With codes :math:`\hat c_i=(1+\lambda s)\odot c_i+\lambda b`, q the nearest to z, and sg the identity without a
    derivative,

    .. math:: y = z+\mathrm{sg}(q-z)+\nu\,(q-\mathrm{sg}\,q),\qquad
        \ell = (1-\beta)\lVert z-\mathrm{sg}\,q\rVert^2+\beta\,\lVert \mathrm{sg}\,z-q\rVert^2

    The affine part (s, b), shared by all codes, moves those too that no vector has chosen: the codes follow when the
    vectors' distribution shifts (λ = 0: none). The term in ν (synced commitment) hands the model's gradient on to the
    codes, which would know of it a step late. Both are 0 in the plain layer.

    Args:
        size: numbers in a vector.
        codes: how many.
        commitment: β, the codebook's share of the loss, 0.95 by default (the authors'; elsewhere β may be the
            encoder's).
        affine_rate: λ, how much faster s and b move than c, 0 by default; the authors' 2 with one group.
        synced: ν, 0 by default; the authors' 2.
        groups: of codes, each with an affine part of its own; 1 by default.
        key: of the codes, drawn from a standard normal.

    Raises:
        ValueError: an argument makes no sense; when called: rows of another size.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> quantiser = estimate.VectorQuantiser(2, 16, affine_rate=2.0, key=jax.random.key(0))
        >>> found = quantiser(jnp.ones((5, 2)))
        >>> found.output.shape, found.codes.shape
        ((5, 2), (5,))

    Cost: rows × codes × size multiplications; the backward pass none beside the loss.

    References:
        - Huh, Cheung, Agrawal and Isola, "Straightening Out the Straight-Through Estimator: Overcoming Optimization
          Challenges in Vector Quantized Networks", 2023, https://arxiv.org/abs/2305.08842, and its code
        - van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", 2017,
          https://arxiv.org/abs/1711.00937 (the plain layer)
    """

    codebook: Float[Array, "codes size"]
    scale: Float[Array, "groups size"]
    shift: Float[Array, "groups size"]
    commitment: float = eqx.field(static=True)
    affine_rate: float = eqx.field(static=True)
    synced: float = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        codes: int,
        *,
        commitment: float = 0.95,
        affine_rate: float = 0.0,
        synced: float = 0.0,
        groups: int = 1,
        key: Key,
    ):
        check_count(size, what="size")
        check_count(codes, what="codes")
        check_count(groups, what="groups")
        check_key(key)
        if codes % groups:
            raise fault(expected="groups of equally many codes", got=f"{codes} in {groups}", fix="Choose a divisor.")
        if not 0 <= commitment <= 1:
            raise fault(expected="a commitment from 0 to 1", got=commitment, fix="It is the codebook's share: 0.95.")
        if not (affine_rate >= 0 and synced >= 0):
            raise fault(
                expected="affine_rate and synced of 0 or more",
                got=f"{affine_rate}, {synced}",
                fix="0 leaves either out.",
            )
        self.codebook = jax.random.normal(key, (codes, size))
        self.scale, self.shift = jnp.zeros((groups, size)), jnp.zeros((groups, size))
        self.commitment, self.affine_rate, self.synced = float(commitment), float(affine_rate), float(synced)

    def vectors(self) -> Float[Array, "codes size"]:
        """The codes as they are compared with: after the affine part."""
        groups, size = self.scale.shape
        codebook = self.codebook.reshape(groups, -1, size)
        rate = self.affine_rate
        return (codebook * (1 + rate * self.scale[:, None]) + rate * self.shift[:, None]).reshape(self.codebook.shape)

    def __call__(self, z: Float[Array, "rows size"]) -> Quantised:
        """Quantise rows of vectors.

        Args:
            z: the rows; other axes are to be made rows.

        Returns:
            `Quantised`.
        """
        self._check(z)
        vectors = self.vectors()
        codes = _nearest(vectors, z)
        return self._quantised(z, vectors[codes].astype(z.dtype), codes)

    def alternated(self, z: Float[Array, "rows size"], *, rate: float = 50.0) -> tuple[Quantised, "VectorQuantiser"]:
        r"""Quantise after a step of the codes alone towards the vectors they stand for.

        The step is one of gradient descent on :math:`\operatorname{mean}(\mathrm{sg}\,z-q)^2` over all entries; which
        code stands for which row is kept. The encoder then sees codes that have already followed it, and the codebook
        loss has nothing left to do: use ``commitment=0`` for the encoder's share alone, or leave out ``loss``.

        Args:
            z: the rows.
            rate: of the step, 50 by default (the authors', there with momentum 0.9).

        Returns:
            `Quantised` by the new codes, and the quantiser that has them; put it in the place of the old.

        Example:
            >>> import jax, jax.numpy as jnp
            >>> from nablax import estimate
            >>> quantiser = estimate.VectorQuantiser(2, 16, key=jax.random.key(0))
            >>> found, newer = quantiser.alternated(jnp.ones((5, 2)), rate=1.0)
            >>> bool(newer(jnp.ones((5, 2))).loss < quantiser(jnp.ones((5, 2))).loss)
            True
        """
        self._check(z)
        held = jax.lax.stop_gradient(z)
        codes = _nearest(self.vectors(), z)

        def distance(codebook: Array) -> Array:
            moved = eqx.tree_at(lambda q: q.codebook, self, codebook)
            return jnp.mean((held - moved.vectors()[codes].astype(z.dtype)) ** 2)

        moved = jax.lax.stop_gradient(self.codebook - rate * jax.grad(distance)(self.codebook))
        newer = eqx.tree_at(lambda q: q.codebook, self, moved)
        return newer._quantised(z, newer.vectors()[codes].astype(z.dtype), codes), newer

    def revived(self, z: Float[Array, "rows size"], used: Array, *, key: Key) -> "VectorQuantiser":
        """Put codes that nothing chooses any more onto rows drawn at random.

        Args:
            z: rows to draw from.
            used: ``[codes]``, whether each code has been chosen of late: of one batch
                ``jnp.zeros(codes, bool).at[found.codes].set(True)``; over several their logical or.
            key: of the draws.

        Returns:
            The quantiser with the unused codes on rows of ``z``, after the affine part. With ``used`` all False it is a
            start on the data.

        Example:
            >>> import jax, jax.numpy as jnp
            >>> from nablax import estimate
            >>> quantiser = estimate.VectorQuantiser(2, 4, key=jax.random.key(0))
            >>> on_data = quantiser.revived(jnp.ones((5, 2)), jnp.zeros(4, bool), key=jax.random.key(1))
            >>> bool(jnp.all(on_data.vectors() == 1))
            True
        """
        self._check(z)
        check_key(key)
        check_shape(used, (len(self.codebook),), what="used", fix="Give one boolean a code.")
        rows = z[jax.random.randint(key, (len(self.codebook),), 0, len(z))].astype(self.codebook.dtype)
        groups, size = self.scale.shape
        inverse = (rows.reshape(groups, -1, size) - self.affine_rate * self.shift[:, None]) / (
            1 + self.affine_rate * self.scale[:, None]
        )
        put = jnp.where(jnp.asarray(used)[:, None], self.codebook, inverse.reshape(self.codebook.shape))
        return eqx.tree_at(lambda q: q.codebook, self, put)

    def _quantised(self, z: Array, q: Array, codes: Array) -> Quantised:
        held = jax.lax.stop_gradient
        loss = (1 - self.commitment) * jnp.mean((z - held(q)) ** 2) + self.commitment * jnp.mean((held(z) - q) ** 2)
        # Not z + (q - z), which rounds: the value is q itself, the derivative that of the sum.
        return Quantised(held(q) + (z - held(z)) + self.synced * (q - held(q)), codes, loss)

    def _check(self, z: Array) -> None:
        check_floats(z, what="z", fix="Pass an array of floats.")
        check_shape(z, (None, self.codebook.shape[1]), what="z", fix="Make all other axes rows: z.reshape(-1, size).")


def _nearest(vectors: Float[Array, "codes size"], z: Float[Array, "rows size"]) -> Int[Array, " rows"]:
    """The nearest code of each row; |z|² is the same for all of them."""
    vectors, z = jax.lax.stop_gradient((vectors, z.astype(vectors.dtype)))
    centre = jnp.mean(vectors, axis=0)
    # Around their middle, so that a common offset does not cancel all figures of the difference.
    vectors, z = vectors - centre[None], z - centre[None]
    return jnp.argmin(jnp.sum(vectors**2, axis=1)[None] - 2 * z @ vectors.T, axis=1)


__all__ = ["Quantised", "VectorQuantiser"]
