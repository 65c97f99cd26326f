"""Which inputs a loss or an output depends on, by its first three derivatives along each."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import AbstractRecord, canonical_convolutions, fault, table, wide_dtype
from ...calculus import Estimate

# Samples at once; each pushes every feature's direction through the function together.
CHUNK = 64


class Sensitivity(AbstractRecord):
    r"""Derivatives along each input, averaged over samples; row k is of order k + 1, unit of the value over inputᵏ⁺¹.

    Attributes:
        signed: mean of :math:`\partial^k f/\partial x_j^k`, [3, features].
        magnitude: mean of its absolute value, [3, features].
        samples: number of samples.
        names: of the features, for the table.
    """

    signed: Estimate
    magnitude: Estimate
    samples: int = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            Six lines per feature, with standard errors and units.
        """
        rows = []
        for j, name in enumerate(self.names):
            for k, power in enumerate(("", "²", "³")):
                for label, number in (("mean", self.signed), ("mean size", self.magnitude)):
                    cell = Estimate(number.value[k, j], number.standard_error[k, j])
                    rows.append((f"{name}: {label}, order {k + 1}", cell, f"value / input{power}"))
        return table("Sensitivity to inputs", rows, [f"{self.samples} samples"])


@eqx.filter_jit
@canonical_convolutions
def sensitivity(
    function: Callable[..., Float[Array, ""]],
    xs: Float[Array, "samples features"],
    args: PyTree = None,
    *,
    names: tuple[str, ...] | None = None,
) -> Sensitivity:
    r"""Measure how strongly a scalar depends on each of its inputs, by derivatives of order one to three.

    .. math:: \frac{\partial^k f}{\partial x_j^k}(x), \qquad k = 1, 2, 3

    Of a model's output, the first says which way an input moves it and the others how that changes. Of the loss of
    a model that fits, they mean something else: the first vanishes with the residual r, while the second of
    :math:`\tfrac12 r^2` is :math:`(\partial_j\hat y)^2` there, the strength of the dependence without its sign;
    a model's third shows in the loss as :math:`3\,\partial_j\hat y\,\partial_j^2\hat y`.

    Derivatives are per unit of each input: standardise inputs to compare them.

    Args:
        function: ``function(x, args) -> scalar`` of one sample, smooth: with ReLU the higher orders are zero.
        xs: the samples.
        args: targets or conditions, every leaf with the same leading axis, or None.
        names: of the features. Default: x1, x2, ….

    Returns:
        A :class:`Sensitivity`.

    Raises:
        ValueError: ``xs`` is not a matrix, or ``names`` does not match it.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import sensitivity
        >>> record = sensitivity(lambda x, args: x[0] ** 3 + 2 * x[1], jnp.ones((4, 2)))
        >>> record.signed.value.tolist()
        [[3.0, 2.0], [6.0, 0.0], [6.0, 0.0]]

    Cost:
        For each sample and feature three nested JVPs, some eight forward passes.

    References:
        - Faroz, "Sensitivity Analysis On Loss Landscape", 2024, https://arxiv.org/abs/2403.01128 (after the
          abstract: derivatives of the loss up to the third as sensitivities; that they are taken along the inputs, and
          their averages, are our reading)
    """
    if xs.ndim != 2 or (names is not None and len(names) != xs.shape[1]):
        raise fault(
            expected="xs of shape [samples, features] and a name for each feature",
            got=f"{xs.shape} and {names}",
            fix="Flatten each sample to a vector.",
        )
    samples, features = xs.shape
    # Whole numbers have no directions.
    xs = xs.astype(wide_dtype(xs))

    def along(x: Float[Array, "features"], args: PyTree, direction: Float[Array, "features"]) -> Float[Array, "3"]:
        def first(x: Array) -> Array:
            return jax.jvp(lambda x: function(x, args), (x,), (direction,))[1]

        def second(x: Array) -> tuple[Array, Array]:
            return jax.jvp(first, (x,), (direction,))

        (one, two), (_, three) = jax.jvp(second, (x,), (direction,))
        return jnp.stack([one, two, three])

    def sample(row: tuple[Array, PyTree]) -> Float[Array, "3 features"]:
        return jax.vmap(lambda direction: along(*row, direction), out_axes=1)(jnp.eye(features, dtype=xs.dtype))

    derivatives = jax.lax.map(sample, (xs, args), batch_size=CHUNK)
    return Sensitivity(
        signed=Estimate.from_samples(derivatives),
        magnitude=Estimate.from_samples(jnp.abs(derivatives)),
        samples=samples,
        names=tuple(names) if names is not None else tuple(f"x{j + 1}" for j in range(features)),
    )


__all__ = ["Sensitivity", "sensitivity"]
