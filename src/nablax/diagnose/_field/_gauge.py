"""What of a field moves probability, and what only goes round in it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree
from scipy.stats import norm

from ..._core import (
    AbstractRecord,
    Field,
    Key,
    canonical_convolutions,
    check_count,
    check_key,
    checked_field,
    fault,
    nonzero,
    ratio_of_means,
    root_mean_square,
    table,
)
from ...calculus import Estimate, value_and_divergence
from .._samples import align
from ._potential import (
    POINTS,
    Potential,
    fit,
    functions,
    least_samples,
)

# Share of the field's mean square that an overlap may hide behind two standard errors, and that is rounding.
_WIDE, _ROUNDING = 0.1, 1e-5


class Gauge(AbstractRecord):
    r"""A field split in the gradient nearest to it and what is left, all measured on samples that did not fit it.

    Attributes:
        conservative: :math:`\mathbb{E}\lVert\nabla\phi\rVert^2/\mathbb{E}\lVert v\rVert^2`, no unit.
        remainder: :math:`\mathbb{E}\lVert r\rVert^2/\mathbb{E}\lVert v\rVert^2` with :math:`r = v-\nabla\phi`, no unit.
            It bounds from above what no gradient explains.
        overlap: :math:`\mathbb{E}[r\cdot\nabla\phi]/\mathbb{E}\lVert v\rVert^2`, no unit: 0 when the split is resolved.
        weak: root mean square over fresh test functions h of the correlation of r and :math:`\nabla h`, no unit: 0 when
            r moves no probability; not below about ``weak_floor``, which is what chance alone gives.
        weak_floor: that expectation.
        p_value: of the largest of these correlations, under the hypothesis that all are zero, corrected for their
            number. Small: the remainder still moves probability, because the basis is too poor or the samples too few.
            NaN where the remainder's share is rounding.
        condition: root mean square of :math:`\nabla\cdot r + r\cdot\nabla\log p`, in nats per unit time; None without a
            score.
        relative_condition: that over :math:`\sqrt{\mathbb{E}\lVert v\rVert^2\,\mathbb{E}\lVert\nabla\log p\rVert^2}`
            (taken as exact), no unit. It asks for second derivatives of the potential, so it is the hardest to satisfy.
        harmful: :math:`\mathbb{E}\lVert\nabla\psi\rVert^2/\mathbb{E}\lVert u\rVert^2`, no unit, with
            :math:`\nabla\psi` the gradient nearest to v − u, u the reference field; less what overfitting adds. This
            part of the difference changes the density; the rest does not. None without a reference.
        difference: :math:`\mathbb{E}\lVert v-u\rVert^2/\mathbb{E}\lVert u\rVert^2`, no unit; None likewise.
        potential: the function :math:`\phi`; ``jax.grad(record.potential)`` is the conservative part.
        samples: number of samples; half of them fitted the potential, the other half gave the numbers.
    """

    conservative: Estimate
    remainder: Estimate
    overlap: Estimate
    weak: Float[Array, ""]
    weak_floor: Float[Array, ""]
    p_value: Float[Array, ""]
    condition: Estimate | None
    relative_condition: Estimate | None
    harmful: Estimate | None
    difference: Estimate | None
    potential: Potential
    samples: int = eqx.field(static=True)

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, with standard error and unit.
        """
        rows: list = [
            ("conservative share", self.conservative, "1"),
            ("remainder's share", self.remainder, "1"),
            ("overlap (0 = resolved)", self.overlap, "1"),
            ("E r·∇h, RMS correlation", self.weak, "1"),
            ("… by chance alone", self.weak_floor, "1"),
            ("… p-value of the largest", self.p_value, "1"),
        ]
        if self.condition is not None:
            rows += [
                ("div r + r·∇ log p, RMS", self.condition, "nats/time"),
                ("… over ‖v‖ ‖∇ log p‖", self.relative_condition, "1"),
            ]
        if self.harmful is not None:
            rows += [
                ("difference from the reference", self.difference, "1"),
                ("… of which moves probability", self.harmful, "1"),
            ]
        notes = [f"{self.samples} samples, half of them to fit φ", self.verdict()]
        return table("Gauge split: v = ∇φ + r", rows, notes)

    def verdict(self) -> str:
        """Say whether the split is resolved: whether the overlap is zero within two standard errors, and these small.

        Returns:
            One sentence.
        """
        overlap, error = (float(part) for part in (self.overlap.value, self.overlap.standard_error))
        shown = f"overlap {overlap:.2g} ± {error:.2g}"
        if not np.isfinite(overlap) or not np.isfinite(error):
            return f"Not resolved: {shown}. Is the field finite where the samples are?"
        if abs(overlap) > 2 * error + _ROUNDING:
            return f"Not resolved: {shown}. φ is too poor or fitted too closely; take more samples, then more waves."
        if 2 * error > _WIDE:
            return f"Cannot be told: {shown} leaves too much open. Take more samples."
        return f"Resolved: {shown}."


def gauge(
    field: Field,
    t: float | Float[Array, ""],
    ys: PyTree,
    args: PyTree = None,
    *,
    score: Field | None = None,
    reference: Field | None = None,
    waves: int = 128,
    tests: int = 32,
    key: Key,
) -> Gauge:
    r"""Split a field into the gradient nearest to it, weighted by the data, and a remainder that should be mere gauge.

    .. math::
        v = \nabla\phi + r,\qquad \phi = \arg\min_\phi\mathbb{E}_p\lVert v-\nabla\phi\rVert^2
        \iff \mathbb{E}_p[r\cdot\nabla h] = 0\ \forall h \iff \nabla\cdot r + r\cdot\nabla\log p = 0

    The two conditions on the right are one, weak and strong (integrate by parts): at the minimum the remainder carries
    no probability anywhere, so v and :math:`\nabla\phi` move the density alike. A score or velocity is therefore right,
    for sampling and density, exactly when its *conservative part* is, and its own curl is neither here nor there.

    :math:`\phi` is sought in the span of linear and quadratic functions and random cosines, by ridge regression (its
    strength by generalised cross-validation) on one half of the samples; all numbers come from the other half, so that
    fitting too closely shows as remainder and overlap, and the weak condition is tested with functions that took no
    part.

    Args:
        field: ``field(t, y, args) -> dy``, a score or a velocity.
        t: one time: at another the density is another.
        ys: samples of the density p at time ``t``, every leaf with leading axis ``samples``, in any order.
        args: one condition, shared by all samples, or None.
        score: :math:`\nabla\log p` at the same time, for the strong condition.
        reference: the field to compare with, such as the true score where it is known.
        waves: number of cosines, 128 by default.
        tests: number of test functions, 32 by default.
        key: for the halves, the cosines and the test functions.

    Returns:
        A `Gauge`; standard errors are over the half of the samples that was measured on.

    Raises:
        ValueError: more than one time; no samples, or too few for the number of functions; samples are not finite
            floats; the value of a field is not shaped like ``y``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.diagnose import gauge
        >>> field = lambda t, y, args: -y + jnp.array([-y[1], y[0]])  # a score and a rotation, of N(0, 1)
        >>> ys = jax.random.normal(jax.random.key(0), (500, 2))
        >>> record = gauge(field, 0.0, ys, score=lambda t, y, args: -y, waves=8, key=jax.random.key(1))
        >>> round(float(record.remainder.value), 1), bool(record.relative_condition.value < 0.2)
        (0.5, True)

    Cost:
        One forward pass a sample and, with a score, D JVPs of the field on half of them; least squares with n D
        equations and D + D(D+1)/2 + ``waves`` unknowns (2 D + ``waves`` above 24 dimensions).

    References:
        - Horvat and Pfister, "On gauge freedom, conservativity and intrinsic dimensionality estimation in diffusion
          models", 2024, https://arxiv.org/abs/2402.03845 (after the abstract: the decomposition and its meaning; the
          estimator, the tests and their errors are derived here)
        - Rahimi and Recht, "Random Features for Large-Scale Kernel Machines", 2007,
          https://papers.nips.cc/paper/3182 (random cosines)
    """
    if jnp.ndim(t):
        raise fault(expected="one time", got=f"times of shape {jnp.shape(t)}", fix="Split one moment at a time.")
    field = checked_field(field)
    score, reference = (None if other is None else checked_field(other) for other in (score, reference))
    _, ys, samples = align(t, ys, None)
    check_key(key)
    waves, tests = check_count(waves, what="waves", least=0), check_count(tests, what="tests")
    dim = sum(leaf[0].size for leaf in jax.tree.leaves(ys))
    if samples < (least := least_samples(dim, waves)):
        raise fault(
            expected=f"at least {least} samples for {functions(dim, waves)} functions in {dim} dimensions",
            got=str(samples),
            fix="Draw more, or pass fewer waves.",
        )
    moment = jnp.asarray(t, jnp.result_type(*jax.tree.leaves(ys)))
    potential, psi, trial, measured = fit(field, reference, ys, moment, args, waves, tests, key)
    numbers = _measure(field, score, reference, potential, psi, trial, measured, moment, args, tests)
    return _record(numbers, potential, samples)


def _record(numbers: dict[str, Any], potential: Potential, samples: int) -> Gauge:
    correlations, sizes, remainder, squares = (np.asarray(array, np.float64) for array in numbers.pop("weak"))
    errors = correlations.std(axis=0, ddof=1) / np.sqrt(len(correlations))
    means, lengths = correlations.mean(axis=0), np.sqrt(remainder.mean() * sizes.mean(axis=0))
    lengths[lengths == 0] = 1
    # The potential carries the noise of its own half, as large as that of this one: hence the root of two.
    errors *= np.sqrt(2)
    largest = np.abs(means / np.where(errors > 0, errors, 1)).max()
    p_value = np.minimum(1.0, len(means) * 2 * norm.sf(largest))  # of NaN that is NaN
    dtype = potential.weights.dtype
    if remainder.mean() <= np.finfo(dtype).eps * squares.mean():
        p_value = np.nan
    return Gauge(
        weak=jnp.asarray(np.sqrt(np.mean((means / lengths) ** 2)), dtype),
        weak_floor=jnp.asarray(np.sqrt(np.mean((errors / lengths) ** 2)), dtype),
        p_value=jnp.asarray(p_value, dtype),
        potential=potential,
        samples=samples,
        **numbers,
    )


@eqx.filter_jit
@canonical_convolutions
def _measure(
    field: Field,
    score: Field | None,
    reference: Field | None,
    potential: Potential,
    psi: Potential | None,
    trial: Potential,
    ys: PyTree,
    t: Array,
    args: PyTree,
    tests: int,
) -> dict[str, Any]:
    unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], ys))[1]

    def at(y: PyTree) -> dict[str, tuple[Array, ...]]:
        flat = ravel_pytree(y)[0]

        def value_at(z: Array) -> Array:
            return ravel_pytree(field(t, unravel(z), args))[0]

        def rest(_: Array, z: Array, __: None) -> Array:
            return value_at(z) - jax.grad(potential)(z)

        gradient, value = jax.grad(potential)(flat), value_at(flat)
        remainder = value - gradient
        slopes = jax.jacfwd(trial.basis)(flat)[-tests:]
        found: dict[str, tuple[Array, ...]] = {
            "split": (value @ value, gradient @ gradient, remainder @ remainder, remainder @ gradient),
            "weak": (slopes @ remainder, jnp.sum(slopes**2, axis=1)),
        }
        if score is not None:
            _, divergence = value_and_divergence(rest)(t, flat)
            slope = ravel_pytree(score(t, y, args))[0]
            found["condition"] = (divergence, remainder @ slope, slope @ slope)
        if reference is not None and psi is not None:
            right = ravel_pytree(reference(t, y, args))[0]
            gap = value - right
            # E gap·∇ψ rather than E ‖∇ψ‖²: on fresh samples overfitting cancels in the first and adds to the second.
            found["harmful"] = (gap @ jax.grad(psi)(flat), gap @ gap, right @ right)
        return found

    found = jax.lax.map(at, ys, batch_size=POINTS)
    squares, gradient, remainder, products = found["split"]
    numbers: dict[str, Any] = {
        **dict.fromkeys(("condition", "relative_condition", "harmful", "difference")),
        "weak": (*found["weak"], remainder, squares),
        "conservative": ratio_of_means(gradient, squares),
        "remainder": ratio_of_means(remainder, squares),
        "overlap": ratio_of_means(products, squares),
    }
    if "condition" in found:
        divergence, advection, score_squares = found["condition"]
        condition = root_mean_square(divergence + advection)
        size = nonzero(jnp.sqrt(jnp.mean(squares) * jnp.mean(score_squares)))
        numbers["condition"] = condition
        numbers["relative_condition"] = Estimate(condition.value / size, condition.standard_error / size)
    if "harmful" in found:
        inner, gap, whole = found["harmful"]
        numbers["harmful"], numbers["difference"] = ratio_of_means(inner, whole), ratio_of_means(gap, whole)
    return numbers
