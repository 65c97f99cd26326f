"""Dimension of the set that data lie on, read from the score of data with a little noise."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..._core import (
    AbstractRecord,
    Field,
    Key,
    canonical_convolutions,
    check_count,
    check_key,
    checked_field,
    fault,
    ratio_of_means,
    table,
)
from ...calculus import Estimate, stochastic_divergence
from .._samples import align

POINTS = 64
# Share of the Jacobian above which the readings are marked: rounding and a good fit stay well below it.
MARK = 0.05


class IntrinsicDimension(AbstractRecord):
    r"""Two readings of the local dimension of the data, and whether the score can be read at all.

    Attributes:
        dimension: mean over samples of :math:`D + \sigma^2(\nabla\cdot s + \lVert s\rVert^2)`, which is D plus the
            slope of the log-density over the log of the noise; no unit.
        spectral: mean over samples of D less the number of singular values of :math:`\sigma^2J` above the widest gap;
            None when no Jacobian was computed.
        singular_values: ``[dim]`` mean over samples of those of :math:`\sigma^2J`, largest first: near 1 across the
            set, near 0 along it. None as above.
        antisymmetry: :math:`\lVert (J-J^{\top})/2\rVert_F^2/\lVert J\rVert_F^2`, pooled; both readings need it to be
            near 0. None as above.
        sigma: noise, in units of ``y``.
        samples: how many.
    """

    dimension: Estimate
    spectral: Estimate | None
    singular_values: Float[Array, " dim"] | None
    antisymmetry: Estimate | None
    sigma: Float[Array, ""]
    samples: int = eqx.field(static=True)

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, with standard error and unit; a warning when the score is no gradient.
        """
        rows: list = [("dimension, by slope of the density", self.dimension, "1")]
        notes = [f"{self.samples} samples"]
        if self.spectral is not None and self.antisymmetry is not None:
            rows += [
                ("dimension, by gap in the spectrum", self.spectral, "1"),
                ("antisymmetry (0 = a gradient)", self.antisymmetry, "1"),
            ]
            if self.antisymmetry.value > MARK:
                notes.append("This field is no gradient: neither reading can be trusted.")
        rows.append(("noise", self.sigma, "y"))
        return table("Intrinsic dimension", rows, notes)


def intrinsic_dimension(
    score: Field,
    t: float | Float[Array, "..."],
    ys: PyTree,
    args: PyTree = None,
    *,
    sigma: float,
    probes: int | None = None,
    key: Key | None = None,
) -> IntrinsicDimension:
    r"""Estimate the intrinsic dimension of data from a score at small noise.

    .. math::
        d = D + \frac{\partial\log p_\sigma}{\partial\log\sigma} = D + \sigma^2\big(\nabla\cdot s+\lVert s\rVert^2\big),
        \qquad \sigma^2\nabla s \to \begin{cases}-1 & \text{across}\\ 0 & \text{along}\end{cases}

    :math:`p_\sigma` is the data's density blurred by N(0, σ²I), s its score. The noise must be small beside the data's
    extent and curvature, and large beside what the score was trained down to.

    Both readings hold for gradients only. A part r with :math:`\nabla\cdot r + r\cdot\nabla\log p = 0` may be added
    without changing a single sample, and it changes both; :func:`gauge` takes it away.

    Args:
        score: ``score(t, y, args) -> dy``, the gradient of the blurred data's log-density.
        t: time to hand to the score, one or one per sample.
        ys: points of the data, every leaf with leading axis ``samples``, *without* noise, in the score's own scale: for
            a path :math:`a(t)x + b(t)\varepsilon` pass ``a * x``.
        args: conditions with the same leading axis, or None.
        sigma: standard deviation of the noise at that time, in units of ``ys`` (:math:`b(t)` for a path).
        probes: estimate the divergence with this many random directions, and leave the spectrum out. Default: the whole
            Jacobian.
        key: for the probes.

    Returns:
        An `IntrinsicDimension`; standard errors are over samples, the probes' noise included.

    Raises:
        ValueError: leading axes disagree; samples are not finite floats; the score is not shaped like ``y``; ``sigma``
            is not positive; only one of ``probes`` and ``key`` is given.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import intrinsic_dimension
        >>> score = lambda t, y, args: -y / jnp.array([1.0, 1.0, 0.0001])  # a plane, blurred by 0.01
        >>> ys = jnp.array([[0.3, -1.0, 0.0], [1.0, 0.5, 0.0]])
        >>> record = intrinsic_dimension(score, 0.0, ys, sigma=0.01)
        >>> round(float(record.dimension.value), 3), float(record.spectral.value)
        (2.0, 2.0)

    Cost:
        Per sample: D JVPs and a D × D singular value decomposition, 64 samples at once; or ``probes`` JVPs.

    References:
        - Horvat and Pfister, "On gauge freedom, conservativity and intrinsic dimensionality estimation in diffusion
          models", 2024, https://arxiv.org/abs/2402.03845 (after the abstract: why the field must be conservative; they
          read the singular values of the flow's Jacobian, here it is the score's)
        - Kamkari et al., "A Geometric View of Data Complexity: Efficient Local Intrinsic Dimension Estimation with
          Diffusion Models", 2024, https://arxiv.org/abs/2406.03537 (the slope of the log-density in the log of the
          noise, by the Fokker–Planck equation; derived here afresh for additive noise)
        - Stanczuk et al., "Your diffusion model secretly knows the dimension of the data manifold", 2022,
          https://arxiv.org/abs/2212.12611 (a gap in a spectrum of scores; there of their covariance)
    """
    score = checked_field(score)
    times, ys, samples = align(t, ys, args)
    if not sigma > 0:
        raise fault(expected="a positive sigma", got=str(sigma), fix="Pass the noise's standard deviation.")
    if (probes is None) != (key is None):
        raise fault(expected="probes and key together", got="one of them", fix="Only the probes are random.")
    if probes is not None:
        probes = check_count(probes, what="probes")
        check_key(key)
    width = jnp.asarray(sigma, times.dtype)
    keys = None if key is None else jax.random.split(key, samples)
    slopes, *rest = _measure(score, times, ys, args, width, keys, probes)
    spectral = values = share = None
    if rest:
        spectra, differences, squares = rest
        spectral, values = Estimate.from_samples(_below_gap(spectra)), jnp.mean(spectra, axis=0)
        share = ratio_of_means(differences, squares)
    return IntrinsicDimension(
        dimension=Estimate.from_samples(slopes),
        spectral=spectral,
        singular_values=values,
        antisymmetry=share,
        sigma=width,
        samples=samples,
    )


@eqx.filter_jit
@canonical_convolutions
def _measure(
    score: Field, times: Array, ys: PyTree, args: PyTree, sigma: Array, keys: Array | None, probes: int | None
) -> tuple[Array, ...]:
    def at(row: tuple) -> tuple[Array, ...]:
        t, y, condition, key = row
        flat, unravel = ravel_pytree(y)

        def flat_score(z: Array) -> Array:
            return ravel_pytree(score(t, unravel(z), condition))[0]

        # Scaled before anything is squared: a score is of order 1/σ, its square leaves float32's accuracy.
        squares = optax.tree.vdot(sigma * flat_score(flat), sigma * flat_score(flat))
        if probes is not None:
            trace = stochastic_divergence(lambda _, z, __: sigma**2 * flat_score(z), probes=probes)(t, flat, key=key)
            return (flat.size + trace.value + squares,)
        matrix = sigma**2 * jax.jacfwd(flat_score)(flat)
        slope = jnp.sum(1 + jnp.diagonal(matrix)) + squares
        odd = (matrix - matrix.T) / 2
        return slope, jnp.linalg.svd(matrix, compute_uv=False), jnp.sum(odd**2), jnp.sum(matrix**2)

    return jax.lax.map(at, (times, ys, args, keys), batch_size=POINTS)


def _below_gap(spectra: Float[Array, "samples dim"]) -> Float[Array, " samples"]:
    """Singular values below the widest gap, 0 and 1 counting as ends so that none or all may be."""
    samples, _ = spectra.shape
    ends = jnp.ones((samples, 1), spectra.dtype)
    # What exceeds 1 comes from gauge or misfit; it is no gap between along and across.
    padded = jnp.concatenate([ends, jnp.clip(spectra, 0, 1), 0 * ends], axis=1)
    above = jnp.argmax(padded[:, :-1] - padded[:, 1:], axis=1)
    return (spectra.shape[1] - above).astype(spectra.dtype)
