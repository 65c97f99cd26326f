"""TrAct: the first layer's weights follow a step on its pre-activations, whatever the inputs' contrast."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.scipy as jsp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import exact, fault, required, wide_dtype


def tract(
    where: Callable[[PyTree], Array], *, damping: float | Float[Array, ""] = 0.1
) -> optax.GradientTransformationExtraArgs:
    r"""Replace the first layer's gradient by the change of weights that best makes a gradient step on pre-activations.

    .. math::
        \nabla_W L \leftarrow \nabla_W L\,\Big(\frac{X^\top X}{n} + \lambda I\Big)^{-1}

    With :math:`z_i = W x_i` and the loss a mean over n rows, a step on single pre-activations proposes
    :math:`z_i^* = z_i - \eta\,\nabla_{z_i}\ell_i`; this is minus η times the change of W that minimises
    :math:`\sum_i\lVert z_i^* - (W+\Delta W)x_i\rVert^2 + n\lambda\lVert\Delta W\rVert^2`. Dark images and bright ones
    then move their pre-activations alike, as rows of an embedding do.

    Args:
        where: picks the first layer's weight ``[outputs, inputs]`` out of a pytree like the parameters, e.g.
            ``lambda model: model.layers[0].weight``.
        damping: λ, in units of the inputs squared, positive, 0.1 by default for inputs of unit variance.

    Returns:
        The regulator, without state. ``update(grads, state, params, inputs=X)`` needs the rows ``[n, inputs]`` that the
        first layer was given, patches for a layer of patches; it comes first in a chain.

    Raises:
        ValueError: ``damping`` is not positive, the inputs are missing at an update, or they do not fit the weight.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> regulator = regulate.tract(lambda params: params["first"], damping=1e-6)
        >>> grads = {"first": jnp.array([[4.0, 0.5]]), "other": jnp.ones(1)}
        >>> inputs = jnp.array([[2.0, 0.0], [0.0, 1.0]])
        >>> updates, _ = regulator.update(grads, regulator.init(grads), inputs=inputs)
        >>> [round(float(u), 3) for u in updates["first"][0]], updates["other"].tolist()
        ([2.0, 1.0], [1.0])

    Cost:
        One Gramian of the inputs, n × inputs², and one Cholesky factor of size inputs.

    References:
        - Petersen, Borgelt and Ermon, "TrAct: Making First-layer Pre-Activations Trainable", 2024,
          https://arxiv.org/abs/2410.23970 (the two steps and the damping; derived here from the least squares above)
    """
    if isinstance(damping, float | int) and damping <= 0:
        raise fault(expected="positive damping", got=str(damping), fix="The default is 0.1.")

    @exact
    def update(
        updates: PyTree,
        state: optax.EmptyState,
        params: PyTree = None,
        *,
        inputs: Float[Array, "n inputs"] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, optax.EmptyState]:
        gradient = where(updates)
        inputs = required(inputs, "inputs", by="tract")
        if jnp.ndim(inputs) != 2 or gradient.ndim != 2 or inputs.shape[1] != gradient.shape[1]:
            raise fault(
                expected="inputs=X of shape [n, inputs], and a weight of shape [outputs, inputs]",
                got=f"inputs {jnp.shape(inputs)}, weight {gradient.shape}",
                fix="Flatten images, or cut them into the layer's patches.",
            )
        dtype = wide_dtype(gradient)
        rows = jnp.asarray(inputs, dtype)
        second_moment = rows.T @ rows / rows.shape[0]
        damped = second_moment + damping * jnp.eye(rows.shape[1], dtype=dtype)
        solved = jsp.linalg.cho_solve(jsp.linalg.cho_factor(damped), gradient.T.astype(dtype)).T
        return eqx.tree_at(where, updates, solved.astype(gradient.dtype)), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
