"""Binary weights trained through their fields, with what was learnt before as prior."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import fault, required


class VariationalBinaryState(NamedTuple):
    """What was known before the present task.

    Attributes:
        prior: fields of the weights then, structured like the parameters; zero fields know nothing.
    """

    prior: PyTree


def variational_binary(strength: float | Float[Array, ""] = 1.0) -> optax.GradientTransformationExtraArgs:
    r"""Add the pull of a prior to the gradient with respect to the fields of binary weights.

    A weight $w = \pm1$ with field θ has the probability $q(w) \propto e^{\theta w}$ and the mean $m = \tanh\theta$. The
    variational free energy of a task, prior fields $\theta^0$ standing for the tasks before, is

    $$
    F = \langle L(w)\rangle_q + \lambda\,\mathrm{KL}(q\,\Vert\,q^0), \qquad
    \tilde g_i = g_i + \lambda\,(1 - m_i^2)\,(\theta_i - \theta_i^0)
    $$

    where g is the gradient of the mean loss and the second term that of the divergence, exactly. The uncertainty
    $1 - m_i^2$ of each weight decides how far it still learns.

    Where one task ends and the next begins, make the fields the new prior: ``state._replace(prior=params)``. Done after
    every step, that is the authors' rule for networks of several layers: the pull is then along the last step.

    Args:
        strength: the weight λ, in units of the loss over nats; 1 over the number of samples where the loss is their
            mean, 1 by default.

    Returns:
        The regulator; ``update`` needs ``params``, the fields. The prior starts at zero fields.

    Raises:
        ValueError: a negative strength, or ``update`` without ``params``.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> regulator = regulate.variational_binary(strength=0.5)
        >>> fields = jnp.array([0.0, 1.0])
        >>> updates, _ = regulator.update(jnp.ones(2), regulator.init(fields), fields)
        >>> [round(float(update), 4) for update in updates]
        [1.0, 1.21]

    Cost: a few operations a weight, and the memory of one copy of the fields.

    References:
        - Li, Huang, Zou and Huang, "Statistical mechanics of continual learning: variational principle and mean-field
          potential", 2022, https://arxiv.org/abs/2212.02846, and the authors' code, https://github.com/Chan-Li/VCL (the
          same gradient. For one layer λ is 1 over the number of samples, fields start from a normal, which is the first
          task's prior, and Adam decays them by 5e-4; for several λ is 1 for a loss summed over 64 samples, the prior is
          renewed after every step, and the fields have an inverse temperature that rises to 10: scale them for that)
    """
    if isinstance(strength, float | int) and strength < 0:
        raise fault(expected="a strength of 0 or more", got=strength, fix="1/samples goes with a mean loss.")

    def init(params: PyTree) -> VariationalBinaryState:
        return VariationalBinaryState(jax.tree.map(jnp.zeros_like, params))

    def update(
        updates: PyTree, state: VariationalBinaryState, params: PyTree = None, **extra: object
    ) -> tuple[PyTree, VariationalBinaryState]:
        params = required(params, "params", by="variational_binary")

        def pull(gradient: Array, field: Array, prior: Array) -> Array:
            return (gradient + strength * _variance(field) * (field - prior)).astype(gradient.dtype)

        return jax.tree.map(pull, updates, params, state.prior), state

    return optax.GradientTransformationExtraArgs(init, update)


def binary_divergence(fields: PyTree, prior: PyTree) -> Float[Array, ""]:
    r"""Kullback–Leibler divergence between the laws of binary weights, in nats.

    $$
    \mathrm{KL}(q\,\Vert\,q^0) = \sum_i m_i(\theta_i - \theta_i^0) - \ln\cosh\theta_i + \ln\cosh\theta_i^0
    $$

    Args:
        fields: θ, any pytree.
        prior: $\theta^0$, of the same structure.

    Returns:
        The divergence of all weights together.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> bool(abs(regulate.binary_divergence(jnp.array(20.0), jnp.array(0.0)) - jnp.log(2.0)) < 1e-6)
        True

    Cost: a few operations a weight.

    References:
        - Li, Huang, Zou and Huang, "Statistical mechanics of continual learning: variational principle and mean-field
          potential", 2022, https://arxiv.org/abs/2212.02846
    """

    def divergence(field: Array, other: Array) -> Array:
        return jnp.sum(jnp.tanh(field) * (field - other) - _log_cosh(field) + _log_cosh(other))

    return jax.tree.reduce(jnp.add, jax.tree.map(divergence, fields, prior))


def binary_preactivation(
    fields: Float[Array, "outputs inputs"],
    mean: Float[Array, " inputs"],
    variance: Float[Array, " inputs"] | None = None,
) -> tuple[Float[Array, " outputs"], Float[Array, " outputs"]]:
    r"""Mean and variance of a layer's preactivation over its binary weights and its inputs' uncertainty.

    $$
    a_j = \tfrac{1}{\sqrt N}\sum_i w_{ji} x_i, \qquad
    \langle a_j\rangle = \tfrac{1}{\sqrt N}\sum_i m_{ji}\langle x_i\rangle, \qquad
    \operatorname{var} a_j = \tfrac1N\sum_i \langle x_i^2\rangle - m_{ji}^2\langle x_i\rangle^2
    $$

    Exact for independent weights and inputs; that $a_j$ is taken as normal is the only approximation, and what makes
    the mean loss differentiable in the fields.

    Args:
        fields: of the weights, one row for each output.
        mean: of the inputs, of one sample.
        variance: of the inputs; None for inputs known exactly.

    Returns:
        Mean and variance of each preactivation.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> mean, variance = regulate.binary_preactivation(jnp.zeros((1, 4)), jnp.ones(4))
        >>> float(mean[0]), float(variance[0])
        (0.0, 1.0)

    Cost: two products with a matrix of the size of the weights.

    References:
        - Li, Huang, Zou and Huang, "Statistical mechanics of continual learning: variational principle and mean-field
          potential", 2022, https://arxiv.org/abs/2212.02846
    """
    size = fields.shape[1]
    spread = _variance(fields) @ jnp.square(mean)
    if variance is not None:
        # A sign does not change a square, so an input's own variance enters whatever its weight is.
        spread = spread + jnp.sum(variance)
    return jnp.tanh(fields) @ mean / size**0.5, spread / size


def _variance(field: Array) -> Array:
    """1 − tanh² without cancellation at large fields."""
    return 4 * jax.nn.sigmoid(2 * field) * jax.nn.sigmoid(-2 * field)


def _log_cosh(field: Array) -> Array:
    return jnp.logaddexp(field, -field) - jnp.log(2.0).astype(field.dtype)
