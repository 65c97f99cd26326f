"""How far a network's layers are from driving one another alike in both directions, as a penalty."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import Key, check_instance, check_key, check_rows
from ...calculus import antisymmetry
from ._equilibrium import Equilibrium, State


def asymmetry_penalty(
    net: Equilibrium, inputs: Float[Array, "rows ..."], state: State, *, key: Key, probes: int = 1
) -> Float[Array, ""]:
    r"""Jacobian homeostasis: the antisymmetric part of the drive's Jacobian at a network's free equilibrium.

    .. math:: \frac1D\,\mathbb{E}\big[\lVert J\varepsilon\rVert^2-\varepsilon^{\top}JJ\varepsilon\big]
        = \frac{\lVert J-J^{\top}\rVert_F^2}{2D},\qquad J=\frac{\partial F}{\partial a}(a^0),
        \quad \varepsilon\sim\mathcal N(0,I)

    with D units in all. J is taken in the activations, not in the state, whose slopes :math:`\rho'` would make
    symmetric weights look asymmetric. The equilibrium is held: the gradient is that of the penalty at this place, and
    local.

    Args:
        net: the network.
        inputs: rows.
        state: the activations at rest, from `equilibrium_state`.
        key: of the directions, another for each row.
        probes: directions a row, 1 by default (the authors').

    Returns:
        The mean over rows; zero on every draw for a symmetric network, and differentiable in ``net``.

    Raises:
        ValueError: not a network, rows that do not match, or the key is none.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> keys = jax.random.split(jax.random.key(0), 3)
        >>> layers = [eqx.nn.Linear(3, 8, key=keys[0]), eqx.nn.Linear(8, 2, key=keys[1])]
        >>> net = estimate.Equilibrium(layers, feedback=[eqx.nn.Linear(8, 2, key=keys[2])])
        >>> x = jnp.ones((5, 3))
        >>> bool(estimate.asymmetry_penalty(net, x, estimate.equilibrium_state(net, x), key=keys[0]) > 0)
        True

    Cost: two JVPs of the drive a probe; with its gradient about three times that.

    References:
        - Laborieux and Zenke (2023), https://arxiv.org/abs/2309.02214, and its code
    """
    check_instance(net, Equilibrium, what="net, an estimate.Equilibrium", fix="Build one of its layers.")
    check_key(key)
    check_rows(state, len(inputs), what="a state of these inputs", fix="Pass estimate.equilibrium_state(net, inputs).")
    rest = jax.lax.stop_gradient(state)
    units = sum(part[0].size for part in rest)
    measure = antisymmetry(lambda t, a, x: net.drive(a, x), probes=probes)

    def one(a: State, x: Array, key: Key) -> Array:
        return measure(0.0, a, x, key=key).antisymmetric.value

    return jnp.mean(jax.vmap(one)(rest, inputs, jax.random.split(key, len(inputs)))) / units


__all__ = ["asymmetry_penalty"]
