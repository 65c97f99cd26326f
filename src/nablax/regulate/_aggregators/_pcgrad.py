"""PCGrad and GradVac: gradients corrected against one another, pair by pair in random order."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key, check_key, divide, fault, peak, wide_dtype
from ._aggregator import aggregator, of_gramian, weighting
from ._state import Weights


def pcgrad_weights(gramian: Float[Array, "K K"], *, key: Key) -> Weights:
    r"""PCGrad's weights of a Gramian; see `pcgrad`.

    Args:
        gramian: :math:`JJ^{\top}`, in any unit.
        key: of the orders.

    Returns:
        `Weights`; the residual is zero.

    Raises:
        ValueError: the Gramian is not square, or ``key`` is none.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.regulate import pcgrad_weights
        >>> grads = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
        >>> pcgrad_weights(grads @ grads.T, key=jax.random.key(0)).weights.round(4).tolist()
        [2.0, 1.5]

    Cost:
        K³ multiplications.
    """
    check_key(key)
    return of_gramian(_pcgrad, gramian, key)


def pcgrad(*, key: Key, objectives: int | None = None, throw: bool = True) -> optax.GradientTransformationExtraArgs:
    r"""Take from each gradient what conflicts with the others, one after the other in random order, and add.

    .. math::
        g_i \leftarrow g_i - \min\!\Big(0, \frac{\langle g_i, g_j\rangle}{\lVert g_j\rVert^2}\Big) g_j
        \qquad\text{for } j \ne i \text{ in random order}

    With two objectives the sum hurts neither. With three or more it may: a later projection can bring back what an
    earlier one took (`upgrad` does not have this fault).

    Args:
        key: of the orders; the state holds it and splits it at each step.
        objectives: number K; see `aggregator`.
        throw: whether failures raise; see `aggregator`.

    Returns:
        A gradient transformation; leading axis K in, none out.

    Raises:
        ValueError: ``key`` is none; leading axes disagree.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import regulate
        >>> aggregator = regulate.pcgrad(key=jax.random.key(0))
        >>> grads = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
        >>> aggregator.update(grads, aggregator.init(jnp.zeros(2)))[0].round(4).tolist()
        [0.5, 1.5]

    Cost:
        One Gramian, K³ multiplications, one weighted sum.

    References:
        - Yu, Kumar, Gupta, Levine, Hausman and Finn, "Gradient Surgery for Multi-Task Learning", 2020,
          https://arxiv.org/abs/2001.06782 (algorithm 1; done here in weights, on the Gramian alone). The authors' code,
          https://github.com/tianheyu927/PCGrad, adds the corrected gradients up too; it shuffles the losses and then
          does not use the shuffled ones, so that its order is the one given
    """
    check_key(key)

    def weigh(cosines: Array, norms: Array, carried: Key) -> tuple[Weights, Key]:
        carried, now = jax.random.split(carried)
        return _pcgrad(cosines, norms, now), carried

    return aggregator(weigh, memory=lambda params: key, objectives=objectives, throw=throw)


def gradvac(
    *, objectives: int, key: Key, decay: float = 0.99, throw: bool = True
) -> optax.GradientTransformationExtraArgs:
    r"""Bring each pair's cosine up to its own running average, where it falls below.

    .. math::
        g_i \leftarrow g_i + \frac{\lVert g_i\rVert\big(\hat\phi\sqrt{1-\phi^2}-\phi\sqrt{1-\hat\phi^2}\big)}
        {\lVert g_j\rVert\sqrt{1-\hat\phi^2}}\,g_j\quad\text{where } \phi<\hat\phi,\qquad
        \hat\phi \leftarrow \beta\hat\phi+(1-\beta)\phi

    With all averages at zero this is `pcgrad`. Averages start at zero; each takes in the cosine between the original
    gradients.

    Args:
        objectives: number K, asked for by the memory; see `aggregator`.
        key: of the orders; the state holds it and splits it at each step.
        decay: of the averages, 0.99 by default.
        throw: whether failures raise; see `aggregator`.

    Returns:
        A gradient transformation; leading axis K in, none out. ``state.inner`` is the key and the averages.

    Raises:
        ValueError: the decay is not in [0, 1); ``key`` is none; leading axes disagree.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import regulate
        >>> aggregator = regulate.gradvac(objectives=2, key=jax.random.key(0))
        >>> grads = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
        >>> aggregator.update(grads, aggregator.init(jnp.zeros(2)))[0].round(4).tolist()
        [0.5, 1.5]

    Cost:
        One Gramian, about 2 K³ multiplications, one weighted sum.

    References:
        - Wang, Tsvetkov, Firat and Cao, "Gradient Vaccine: Investigating and Improving Multi-task Optimization in
          Massively Multilingual Models", 2020, https://arxiv.org/abs/2010.05874 (one group of parameters; which of
          the changing gradients enters the average is not said plainly there and is chosen here)
    """
    if not 0 <= decay < 1:
        raise fault(expected="a decay in [0, 1)", got=str(decay), fix="0.99 averages over about 100 steps.")

    check_key(key)

    def memory(params: PyTree) -> tuple[Key, Float[Array, "K K"]]:
        return key, jnp.zeros((objectives, objectives), wide_dtype(params))

    def weigh(cosines: Array, norms: Array, kept: tuple[Key, Array]) -> tuple[Weights, tuple[Key, Array]]:
        carried, averages = kept
        carried, now = jax.random.split(carried)
        found = _correct(cosines, norms, averages.astype(norms.dtype), now)
        return found, (carried, decay * averages + (1 - decay) * cosines)

    return aggregator(weigh, memory=memory, objectives=objectives, throw=throw)


def _pcgrad(cosines: Float[Array, "K K"], norms: Float[Array, " K"], key: Key) -> Weights:
    return _correct(cosines, norms, jnp.zeros_like(cosines), key)


@weighting()
def _correct(cosines: Array, norms: Array, targets: Array, key: Key) -> Weights:
    """Row i of the multiples is the corrected gradient i, in unit gradients and scaled to have started at norm 1."""
    count = len(norms)
    rows = jnp.arange(count)
    orders = jax.vmap(lambda k: jax.random.permutation(k, count))(jax.random.split(key, count))
    limit = 1 - 8 * jnp.finfo(norms.dtype).eps

    def step(position: Array, multiples: Array) -> Array:
        others = orders[:, position]
        along = jnp.sum(multiples * cosines[others], axis=1)
        # Cauchy and Schwarz, whom rounding may contradict.
        square = jnp.maximum(jnp.einsum("ij,jk,ik->i", multiples, cosines, multiples), along**2)
        length = jnp.sqrt(square)
        target = jnp.clip(targets[rows, others], -limit, limit)
        away = jnp.sqrt(square - along**2)
        # |g|(φ̂ sinφ − cosφ sinφ̂)/sinφ̂, with |g| cosφ and |g| sinφ as they come.
        change = (target * away) / jnp.sqrt(1 - target**2) - along
        wanted = (along < target * length) & (others != rows)
        return multiples.at[rows, others].add(jnp.where(wanted, change, 0))

    multiples = jax.lax.fori_loop(0, count, step, jnp.diag((norms > 0).astype(norms.dtype)))
    shares = norms / peak(norms)
    weights = divide(shares @ multiples, shares)
    return Weights(jnp.where(norms > 0, weights, 1))
