"""SOAP: Adam in the eigenbasis of Shampoo's matrices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ..._core import check_count, exact, nonzero, peak, register_rule, wide_dtype
from .._leaves import bias, like, wide_zeros
from .._settings import check_decays, check_positive, with_rate
from ._kronecker import Factors, along_all, averaged, per_axis
from ._stacks import over_stacks


class SoapState(NamedTuple):
    """What SOAP remembers, of a leaf with d axes that are turned.

    Attributes:
        step: number of updates made, the first included, which moves nothing.
        mu: average of gradients in the present basis, shaped like the parameters.
        nu: average of their squares there.
        grams: averages of the d Gram matrices, a tuple with one for each axis and None for those that are not turned.
        bases: their approximate eigenvectors, as columns, the largest first.
    """

    step: Int[Array, ""]
    mu: PyTree
    nu: PyTree
    grams: PyTree
    bases: PyTree


register_rule(SoapState, unreadable="SOAP: it turns the gradient by whole matrices, and has no rates one an element")


def scale_by_soap(
    *, b1: float = 0.95, b2: float = 0.95, eps: float = 1e-8, every: int = 10, max_size: int = 10_000
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale updates by SOAP, without a learning rate.

    .. math::
        L \leftarrow \beta_2 L + (1-\beta_2) GG^{\top}, \quad R \leftarrow \beta_2 R + (1-\beta_2) G^{\top}G, \qquad
        G' = Q_L^{\top} G\,Q_R, \qquad U = Q_L\,\mathrm{Adam}(G')\,Q_R^{\top}

    with Q the eigenvectors of L and R: Adam, its averages kept in a basis that turns slowly. The first update sets L, R
    and the bases and moves nothing, so that no gradient is seen in a basis made of itself alone. Every few steps, after
    the update, the bases follow by one round of a power iteration, :math:`\operatorname{QR}(LQ)` with Q's columns
    sorted by the diagonal of :math:`Q^{\top}LQ`; the average of gradients is turned into the new basis, and that of
    squares, which cannot be turned, is sorted alike. Tensors of more axes have a matrix for each. Vectors and scalars
    go by Adam.

    Args:
        b1: β₁ of gradients, 0.95 by default.
        b2: β₂ of squares, and of L and R, 0.95 by default.
        eps: ε beside the root that is not corrected, in units of the gradient, 1e-8 by default.
        every: steps from one basis to the next, 10 by default. 1 is best, and dear.
        max_size: axes longer than this are not turned, 10,000 by default: vocabularies.

    Returns:
        The rule; its state is a `SoapState`.

    Raises:
        ValueError: a decay outside [0, 1), an ε not above 0, or counts below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import optimize
        >>> rule = optimize.scale_by_soap()
        >>> first, second = jnp.array([[2.0, 1.0], [0.0, 1.0]]), jnp.array([[1.0, 5.0], [2.0, 0.0]])
        >>> update, state = rule.update(first, rule.init(first))
        >>> update.tolist()
        [[0.0, 0.0], [0.0, 0.0]]
        >>> update, _ = rule.update(second, state)
        >>> round(float(jnp.linalg.norm(update)), 3)  # four numbers of size 1, in some basis
        2.0

    Cost: for a matrix of m by n, 2mn + 2m² + 2n² numbers of memory; six products with the bases' and Gram matrices a
        step, and two QR factorisations every few.

    References:
        - Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", 2024, https://arxiv.org/abs/2409.11321, and
          the authors' code (https://github.com/nikhilvyas/SOAP), whose order of operations and defaults these are.
          Measuring L and R in units of their largest entry where they are factored, for the sake of number ranges, is
          ours.
    """
    check_decays(b1=b1, b2=b2)
    check_positive(eps=eps)
    every, max_size = check_count(every, what="every"), check_count(max_size, what="max_size")

    def turned(leaf: Array) -> list[bool]:
        return [leaf.ndim >= 2 and 0 < side <= max_size for side in leaf.shape]

    def init(params: PyTree) -> SoapState:
        def matrices(leaf: Array) -> Factors:
            return per_axis(leaf.shape, turned(leaf), lambda side: jnp.zeros((side, side), wide_dtype(leaf)))

        grams, bases = (jax.tree.map(matrices, params) for _ in range(2))
        return SoapState(jnp.zeros((), jnp.int32), wide_zeros(params), wide_zeros(params), grams, bases)

    def update(updates: PyTree, state: SoapState, params: PyTree = None, **extra: Any) -> tuple[PyTree, SoapState]:
        t = state.step  # of Adam: the first update is not one
        first = t == 0
        turn = jnp.where(first, 1, jnp.where(t % every == 0, 2, 0))
        correction = jnp.sqrt(bias(b2, t)) / nonzero(bias(b1, t))

        def one(g: Array, mu: Array, nu: Array, grams: Factors, bases: Factors) -> tuple:
            wide = g.astype(wide_dtype(g))
            there = jnp.where(first, 0, along_all(wide, bases, transposed=True))
            mu, nu = like((b1 * mu + (1 - b1) * there, b2 * nu + (1 - b2) * there**2), (mu, nu))
            step = along_all(correction * mu / (jnp.sqrt(nu) + eps), bases)
            grams = averaged(grams, wide, b2, 1 - b2)
            mu, nu, bases = _rebased(turn, mu, nu, grams, bases)
            return step.astype(g.dtype), mu, nu, grams, bases

        steps, *rest = over_stacks(one, 5, updates, state.mu, state.nu, state.grams, state.bases)
        return steps, SoapState(optax.safe_increment(t), *rest)

    return optax.GradientTransformationExtraArgs(init, update)


def soap(
    learning_rate: optax.ScalarOrSchedule = 3e-3,
    *,
    b1: float = 0.95,
    b2: float = 0.95,
    eps: float = 1e-8,
    every: int = 10,
    max_size: int = 10_000,
    weight_decay: float = 0.01,
    mask: PyTree = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SOAP: Adam in the eigenbasis of Shampoo's matrices.

    .. math:: \theta_{t+1} = \theta_t - \eta\,(U_t + \lambda\theta_t)

    with U of `scale_by_soap`.

    Args:
        learning_rate: η, a number or a schedule; 3e-3 by default.
        b1: β₁ of gradients, 0.95 by default.
        b2: β₂ of squares and of Gram matrices, 0.95 by default.
        eps: ε, in units of the gradient, 1e-8 by default.
        every: steps from one basis to the next, 10 by default.
        max_size: axes longer than this are not turned, 10,000 by default.
        weight_decay: λ, decoupled; 0.01 by default.
        mask: which parameters decay, as in ``optax.adamw``; all by default.

    Returns:
        The optimiser.

    Raises:
        ValueError: as `scale_by_soap`, or a negative decay of weights.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from nablax import optimize
        >>> loss = lambda x: jnp.sum((x @ jnp.array([[1.0, 0.9], [0.9, 1.0]]) - 1) ** 2)
        >>> optimizer, x = optimize.soap(optax.linear_schedule(0.1, 0.0, 60), weight_decay=0.0), jnp.eye(2)
        >>> state = optimizer.init(x)
        >>> for _ in range(60):
        ...     update, state = optimizer.update(jax.grad(loss)(x), state, x)
        ...     x = optax.apply_updates(x, update)
        >>> bool(loss(x) < 1e-3)
        True

    Cost: as `scale_by_soap`.

    References:
        - Vyas et al., https://arxiv.org/abs/2409.11321, and https://github.com/nikhilvyas/SOAP, where weights decay
          after the step, and not at the first.
    """
    rule = scale_by_soap(b1=b1, b2=b2, eps=eps, every=every, max_size=max_size)
    return with_rate(rule, learning_rate, weight_decay=weight_decay, mask=mask)


def _rebased(turn: Array, mu: Array, nu: Array, grams: Factors, bases: Factors) -> tuple[Array, Array, Factors]:
    """Averages and bases as they are (0), at the first update (1), or after one round of the power iteration (2).

    Flat between the branches: factorisations have their columns in sequence, and arrays that came out of a branch so
    would be transposed at every step, those of the first branch as well.
    """

    def flat(branch: Callable[..., tuple]) -> Callable[..., tuple]:
        return lambda *held: jax.tree.map(jnp.ravel, branch(*held))

    found = jax.lax.switch(turn, [flat(_kept), flat(_begun), flat(_followed)], mu, nu, grams, bases)
    return jax.tree.map(lambda row, old: row.reshape(old.shape), found, (mu, nu, bases))


def _kept(mu: Array, nu: Array, grams: Factors, bases: Factors) -> tuple[Array, Array, Factors]:
    return mu, nu, bases


def _begun(mu: Array, nu: Array, grams: Factors, bases: Factors) -> tuple[Array, Array, Factors]:
    """Bases of eigenvectors, as columns, those of the largest eigenvalues first."""
    return (
        mu,
        nu,
        tuple(None if gram is None else jnp.flip(jnp.linalg.eigh(gram / peak(gram))[1], axis=1) for gram in grams),
    )


@exact
def _followed(mu: Array, nu: Array, grams: Factors, bases: Factors) -> tuple[Array, Array, Factors]:
    """Averages and bases after one round of the power iteration."""
    mu = along_all(mu, bases)
    following: list[Array | None] = []
    for axis, (held, basis) in enumerate(zip(grams, bases)):
        if held is None or basis is None:
            following.append(None)
            continue
        unit = held / peak(held)
        turned = unit @ basis
        order = jnp.argsort(-jnp.sum(basis * turned, axis=0))
        nu = jnp.take(nu, order, axis=axis)
        following.append(jnp.linalg.qr(turned[:, order])[0])
    return along_all(mu, tuple(following), transposed=True), nu, tuple(following)
