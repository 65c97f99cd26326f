"""The inverse of a curvature, fitted to its products with random vectors by steps on a group of matrices."""

from collections.abc import Callable
from typing import Any, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..._core import (
    AbstractRecord,
    Key,
    check_count,
    check_finite,
    check_floats,
    check_key,
    check_like,
    check_rows,
    divide,
    exact,
    fault,
    wide_dtype,
)
from .._answers import multiplying
from .._outcome import all_finite, outcome
from ._fit_groups import GROUPS, Group
from ._kron_fit import KronFit, squeezed
from ._low_rank_fit import LowRankFit
from ._matrix_fit import MatrixFit
from ._psgd import check_fit, first_scale


class FittedPreconditioner(AbstractRecord):
    r"""A metric :math:`P=Q^\top Q` near :math:`|H|^{-1}`, and how it came to fit.

    Attributes:
        fits: Q, as its group has it: a `MatrixFit`, a `LowRankFit`, or, of the diagonal and the Kronecker group, what
            has ``factors``, one an axis. By ``"kronecker"`` one for each tensor, else one for all together.
        criteria: :math:`h^\top Ph+v^\top P^{-1}v` of each pair, before it was fitted; in the curvature's unit, at least
            :math:`2|v^\top h|`.
        residuals: :math:`|\lVert Ph\rVert^2/\lVert v\rVert^2-1|` of each pair, before it was fitted; no unit. They
            are 0 for all v at :math:`P=|H|^{-1}` only.
        residual: root mean square of the last tenth of them.
        evaluations: products that were fitted to.
        result: whether all numbers stayed finite.
        group: what Q is.
    """

    fits: tuple[MatrixFit | LowRankFit | KronFit, ...]
    criteria: Float[Array, " steps"]
    residuals: Float[Array, " steps"]
    residual: Float[Array, ""]
    evaluations: int
    result: optimistix.RESULTS
    group: Group = eqx.field(static=True)

    @exact
    def __call__(self, vector: PyTree) -> PyTree:
        """P times a tree like the probes', without their leading axis.

        Raises:
            ValueError: it has other arrays.
        """
        group, tensors = GROUPS[self.group], _tensors(vector, self.group)
        if (given := [x.shape for x in tensors]) != (wanted := [group.shape(fit) for fit in self.fits]):
            raise fault(
                expected=f"a vector of {wanted}, sides of 1 left out", got=given, fix="Pass a tree like one probe."
            )
        found = [group.times(fit, x) for fit, x in zip(self.fits, tensors)]
        if self.group == "kronecker":
            leaves = jax.tree.leaves(vector)
            images = [x.reshape(leaf.shape).astype(leaf.dtype) for x, leaf in zip(found, leaves)]
            return jax.tree.unflatten(jax.tree.structure(vector), images)
        flat, unravel = ravel_pytree(vector)
        return unravel(found[0].astype(flat.dtype))


@exact
def fit_preconditioner(
    probes: PyTree,
    products: PyTree | Callable[[PyTree], PyTree],
    *,
    group: Group = "dense",
    rank: int = 10,
    fit_rate: float | Float[Array, ""] = 0.1,
    damping: float = 1e-9,
    scale: float | None = None,
    throw: bool = True,
    key: Key,
) -> FittedPreconditioner:
    r"""Fit the inverse of a curvature to its products with random vectors, one relative step a product.

    .. math:: \min_{P=Q^\top Q}\ E\bigl[h^\top Ph+v^\top P^{-1}v\bigr], \qquad h = Hv+\text{noise},\quad v\sim N(0,I)

    has its least at :math:`P=(E\,hh^\top)^{-1/2}`, which is :math:`|H|^{-1}` where products are exact, of whatever sign
    H's eigenvalues are. With :math:`a=Qh` and :math:`b=Q^{-\top}v` a step on a group of matrices is

    .. math:: Q \leftarrow \Bigl(I-\frac\mu L\,\bigl[aa^\top-bb^\top\bigr]\Bigr)Q, \qquad
        L = \max(0.9L+0.1\ell,\ \ell),\quad \ell=\lVert a\rVert^2+\lVert b\rVert^2

    by which a change of the variables, :math:`x=Az`, changes P as it changes :math:`H^{-1}` and nothing else; or, with
    :math:`dQ=Q^{1/2}\mathcal EQ^{3/2}`, the same step of :math:`Phh^\top P-vv^\top`, which has no inverse in it. With
    exact products of a positive H both terms are the same at the solution, and steps of one size tend to it linearly;
    where H is indefinite, or products have noise, they are so in the mean only, and steps hover within about
    :math:`\sqrt\mu`. Averages of :math:`hh^\top` have an error of 1 over the root of their number.

    How fast: the first kind takes a share of about :math:`\lambda_i/\sum\lambda` of the error along the i-th
    eigenvector at each step, so that flat directions come last; the second kind takes the same of all, and hovers where
    :math:`\mu` is well above :math:`1/\sqrt\kappa`. Of ten dimensions and :math:`\kappa=10^4` ``"dense"`` comes to 5e-7
    in 20,000 products at 0.01, and hovers at 0.1; ``"general linear"`` takes 100,000 to 4e-3, at its best rate, 1.

    Args:
        probes: v, a tree of arrays with one probe a row, [steps, ...]; standard normal.
        products: h, a tree like the probes; or ``product_fn(vector)``, called with one probe at a time.
        group: what Q is. ``"dense"``, one matrix for all parameters together, near a symmetric one, by the second step;
            the default. ``"kronecker"``: of each tensor by itself a matrix an axis, likewise, as in `scale_by_psgd`.
            ``"diagonal"``: of all parameters, likewise. ``"general linear"``, any, and ``"triangular"``, an upper
            one, of whose bracket that part is taken: by the first step. So is ``"low rank"``,
            :math:`(I+UV^\top)\operatorname{diag}(d)`, as in `scale_by_psgd_low_rank`.
        rank: of ``"low rank"``, 10 by default.
        fit_rate: μ, no unit, above 0 and at most 1; 0.1 by default. The author takes 1 by ``"general linear"`` and
            ``"triangular"`` where products are exact.
        damping: noise added to h, in its unit, 1e-9 by default: flat directions get no endless metric.
        scale: of Q at first; by default from the first products, :math:`(\overline{h^4})^{-1/8}`.
        throw: raise where a number is not finite at the end; True by default.
        key: of what the steps draw: damping, U and V, which of them moves.

    Returns:
        `FittedPreconditioner`; called with a gradient it gives P times it.

    Raises:
        ValueError: probes that are no floats or differ in number, products that are not shaped like them, numbers that
            are not finite, an unknown group, a rank not below the number of parameters, or a setting out of range.
            While it runs, by ``throw``: a number that is not finite.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import optimize
        >>> curvature = jnp.array([[5.0, 1.0], [1.0, 1.0]])
        >>> probes = jax.random.normal(jax.random.key(0), (500, 2))
        >>> fit = optimize.fit_preconditioner(probes, lambda v: curvature @ v, key=jax.random.key(1))
        >>> [round(abs(float(x)), 4) for x in fit(curvature[0])]  # P times a row of H is that row of the identity
        [1.0, 0.0]

    Cost: a product a step, and the probes' memory. For dim parameters, by ``"dense"`` some ten products of its matrix
        with others, dim³, and an inverse for the criterion; by ``"kronecker"`` the same for each side; by ``"general
        linear"`` a solve; by ``"triangular"`` dim³ once; by ``"diagonal"`` and ``"low rank"`` a few passes over Q.

    References:
        - Li, "Stochastic Hessian Fitting on Lie Group", 2024, https://arxiv.org/abs/2402.11858, after the abstract; and
          the author's code (https://github.com/lixilinx/psgd_torch): ``update_precond_newton_math_`` and
          ``update_precond_dense_eq`` for the steps and their bounds. The residual is ours.
    """
    check_floats(probes, what="probes", fix="Draw them by jax.random.normal, [steps, ...].")
    check_key(key)
    if group not in get_args(Group):
        raise fault(expected=f"a group of {', '.join(get_args(Group))}", got=repr(group), fix="See its meaning above.")
    check_fit("newton", momentum=0.0, fit_rate=fit_rate, probability=1.0, damping=damping, scale=scale)
    rank = check_count(rank, what="rank")
    leaves = jax.tree.leaves(probes)
    steps = leaves[0].shape[0] if leaves[0].ndim else 0
    check_rows(probes, steps, what="probes", fix="Give each array one row a probe.")
    check_count(steps, what="probes")
    one = jax.tree.map(lambda leaf: leaf[0], probes)
    size = sum(leaf.size for leaf in jax.tree.leaves(one))
    if group == "low rank" and rank >= size:
        raise fault(expected=f"more parameters than the rank {rank}", got=size, fix="Pass a lower rank.")
    if callable(products):
        product, given = multiplying(products), None
    else:
        product, given = None, products
        check_like(products, probes, what="a tree of products that", fix="Pass a product for each probe.")
    check_finite((probes, given), what="probes and products", fix="Drop the pairs that are not.")
    settings = jax.tree.map(jnp.asarray, (fit_rate, damping, scale))  # no program of its own for each number
    fits, criteria, residuals = _run(probes, given, product, group, rank, settings, key)
    recent = residuals[-max(1, steps // 10) :]
    fits, result = outcome(fits, all_finite((fits, criteria)), throw)
    residual = jnp.sqrt(jnp.mean(recent**2))
    return FittedPreconditioner(fits, criteria, residuals, residual, steps, result, group)


@eqx.filter_jit
def _run(
    probes: PyTree,
    products: PyTree,
    product: Callable[[PyTree], PyTree] | None,
    group: Group,
    rank: int,
    settings: tuple[Any, Any, Any],
    key: Key,
) -> tuple[tuple, Float[Array, " steps"], Float[Array, " steps"]]:
    begin, step, times, halves, _ = GROUPS[group]
    rate, damping, scale = settings
    start_key, step_key = jax.random.split(key)

    def pair(row: tuple[PyTree, PyTree]) -> tuple[list[Array], list[Array]]:
        v, h = row
        return _tensors(v, group), _tensors(h if product is None else product(v), group)

    def move(fits: tuple, row: tuple) -> tuple[tuple, tuple[Array, Array]]:
        (vs, hs), k = pair(row[0]), row[1]
        sides = [halves(fit, h, v) for fit, h, v in zip(fits, hs, vs)]
        criterion = jnp.sum(jnp.stack([jnp.sum(a**2) + jnp.sum(b**2) for a, b in sides]))
        pulled = sum(jnp.sum(times(fit, h) ** 2) for fit, h in zip(fits, hs))
        residual = jnp.abs(divide(pulled, sum(jnp.sum(v**2) for v in vs)) - 1)
        fits = tuple(
            step(fit, h, v, jax.random.fold_in(k, i), rate=rate, damping=damping)
            for i, (fit, h, v) in enumerate(zip(fits, hs, vs))
        )
        return fits, (criterion, residual)

    vs, hs = pair(jax.tree.map(lambda leaf: leaf[0], (probes, products)))
    first = first_scale(hs, damping) if scale is None else scale
    keys = jax.random.split(step_key, len(jax.tree.leaves(probes)[0]))
    fits = tuple(
        begin(v, jnp.asarray(first, v.dtype), rank, jax.random.fold_in(start_key, i)) for i, v in enumerate(vs)
    )
    fits, (criteria, residuals) = jax.lax.scan(move, fits, ((probes, products), keys))
    return fits, criteria, residuals


def _tensors(tree: PyTree, group: Group) -> list[Array]:
    """What has a metric of its own: each array by Kronecker factors, else all in one vector; single precision."""
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(wide_dtype(leaf)), tree)
    return [squeezed(leaf) for leaf in jax.tree.leaves(wide)] if group == "kronecker" else [ravel_pytree(wide)[0]]
