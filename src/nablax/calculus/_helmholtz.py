"""A periodic vector field on a grid, split into a gradient, a divergence-free rest and a constant."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import AbstractRecord, check_floats, fault, known_finite, wide_dtype


class Helmholtz(AbstractRecord):
    """The parts of a periodic field; ``potential_part + solenoidal_part + mean`` is the field.

    Attributes:
        potential_part: the gradient of a periodic potential, curl-free; shaped and in units as the field.
        solenoidal_part: divergence-free; shaped and in units as the field.
        mean: average of every component, shape ``[dim]``: constant flow is both curl-free and divergence-free.
    """

    potential_part: Float[Array, "*grid dim"]
    solenoidal_part: Float[Array, "*grid dim"]
    mean: Float[Array, " dim"]


def helmholtz(values: Float[Array, "*grid dim"], lengths: float | Sequence[float]) -> Helmholtz:
    r"""Decompose a periodic field on a regular grid, exactly for what the grid resolves.

    .. math:: v = \nabla\phi + w + \bar v,\qquad \nabla\cdot w = 0,\qquad
              \widehat{\nabla\phi}(k) = \frac{k\,(k\cdot\hat v(k))}{|k|^2}

    Along an axis with an even number of points the Nyquist mode has no derivative that is real on the grid;
    its wave number counts as zero, as usual in spectral methods. The parts therefore stay real, and a mode that
    is Nyquist or constant along every axis, whose divergence and curl are both zero in that sense, goes to the
    solenoidal part.

    Args:
        values: field at the grid's points, components on the last axis, any number of dimensions. The point
            ``i`` of axis ``a`` lies at ``i * lengths[a] / n``; the end point is not repeated.
        lengths: period along each axis, one number or one per axis, in units of length. Only their ratios matter.

    Returns:
        The parts, in the units of ``values``.

    Raises:
        ValueError: the number of components is not the number of axes; a period is not positive and finite; a value is
            NaN, infinite or complex.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.calculus import helmholtz
        >>> x, y = jnp.meshgrid(*2 * [2 * jnp.pi * jnp.arange(8) / 8], indexing="ij")
        >>> shear, squeeze = jnp.sin(y), jnp.cos(x)
        >>> parts = helmholtz(jnp.stack([shear + squeeze, jnp.zeros_like(x)], axis=-1), 2 * jnp.pi)
        >>> bool(jnp.allclose(parts.potential_part[..., 0], squeeze, atol=1e-6))
        True

    Cost:
        One fast Fourier transform of the field forth and one back.

    References:
        - Bhatia, Norgard, Pascucci and Bremer, "The Helmholtz-Hodge Decomposition: A Survey", 2013,
          https://doi.org/10.1109/TVCG.2012.316 (the projection in Fourier space; the treatment of the Nyquist
          modes is ours)
    """
    # Whole numbers and halves have no transform.
    values = jnp.asarray(values)
    values = values.astype(wide_dtype(values))
    check_floats(values, what="values", fix="Decompose real and imaginary part apart.")
    if not values.ndim or values.shape[-1] != values.ndim - 1:
        raise fault(
            expected="one component per axis of the grid, on the last axis",
            got=f"shape {values.shape}",
            fix="Pass an array [n_1, ..., n_D, D].",
        )
    if known_finite(values) is False:
        raise fault(expected="finite values", got="NaN or infinity", fix="Fill gaps first: each would reach all parts.")
    *grid, dim = values.shape
    periods = np.broadcast_to(np.asarray(lengths, float), (dim,)) if np.ndim(lengths) == 0 else np.asarray(lengths)
    if periods.shape != (dim,) or not np.all((periods > 0) & np.isfinite(periods)):
        raise fault(
            expected=f"one positive and finite period, or {dim} of them", got=str(lengths), fix="Pass lengths > 0."
        )
    axes = tuple(range(dim))
    waves = [_wave_numbers(n, period, half=axis == dim - 1) for axis, (n, period) in enumerate(zip(grid, periods))]
    k = np.stack(np.meshgrid(*waves, indexing="ij"), axis=-1)
    square = np.sum(k**2, axis=-1, keepdims=True)
    # Divided in double precision before the cast, so that stretched domains lose nothing to |k|².
    unit = jnp.asarray(k / np.sqrt(np.where(square > 0, square, 1)), values.dtype)

    mean = jnp.mean(values, axis=axes)
    rest = values - mean.reshape((1,) * dim + (dim,))
    spectrum = jnp.fft.rfftn(rest, axes=axes)
    along = jnp.sum(unit * spectrum, axis=-1, keepdims=True)
    potential_part = jnp.fft.irfftn(unit * along, s=grid, axes=axes).astype(values.dtype)
    return Helmholtz(potential_part, rest - potential_part, mean)


def _wave_numbers(n: int, period: float, *, half: bool) -> np.ndarray:
    """Wave numbers of one axis in the transform's order, zero at the Nyquist mode."""
    numbers = np.fft.rfftfreq(n, period / n) if half else np.fft.fftfreq(n, period / n)
    if n % 2 == 0:
        numbers[n // 2] = 0
    return 2 * np.pi * numbers
