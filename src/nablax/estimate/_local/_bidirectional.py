"""One set of weights used both ways: a classifier forward, a generator backward."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import check_instance, check_shape, fault


class Bidirectional(eqx.Module):
    r"""A network and its own transpose: what maps inputs to answers maps answers back to inputs.

    .. math:: h_l = \varphi(W_lh_{l-1}+b_l), \qquad g_{l-1} = \varphi(W_l^{\top}g_l+c_{l-1})

    with a bias of its own for each direction, and no activation at the last layer of either. Both directions are
    trained, each on its own loss, and what is added up is the gradient of weights that they share: a classifier that
    can also draw what it has learned to tell apart,

    .. math:: \ell = \mathrm{CE}(\mathrm{model}(x), y) + \lambda\,\mathrm{BCE}(\mathrm{model.back}(e_y), x)

    Args:
        model: an `equinox.nn.MLP` whose layers are apart; its biases are those of the way forward.

    Raises:
        ValueError: the model is another, or what it is given has another length.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> both = estimate.Bidirectional(eqx.nn.MLP(6, 3, width_size=4, depth=1, key=jax.random.key(0)))
        >>> both(jnp.ones(6)).shape, both.back(jnp.eye(3)[1]).shape
        ((3,), (6,))

    Cost: either way, a forward pass of the model; the sum of both losses twice a step of backpropagation.

    References:
        - Pontes-Filho and Liwicki, "Bidirectional Learning for Robust Neural Networks", 2018,
          https://arxiv.org/abs/1805.08006, and the authors' code, which takes a step of Adam for either loss in turn,
          binary cross-entropy for the images drawn, and sigmoid units; one sum of both is our reading. Their hybrid
          adversarial network is ``back`` on random vectors, judged by a network of its own
    """

    model: eqx.nn.MLP
    back_biases: tuple[Float[Array, "..."], ...]

    def __init__(self, model: eqx.nn.MLP):
        check_instance(model, eqx.nn.MLP, what="an equinox.nn.MLP", fix="Make one, whose transpose is known.")
        if model.scan or "scalar" in (model.in_size, model.out_size):
            raise fault(
                expected="an equinox.nn.MLP from vectors to vectors, whose layers are apart",
                got=f"in_size={model.in_size}, out_size={model.out_size}, scan={model.scan}",
                fix="Make it with whole numbers as sizes, and scan=False.",
            )
        self.model = model
        self.back_biases = tuple(jnp.zeros(layer.weight.shape[1], layer.weight.dtype) for layer in model.layers)

    def __call__(self, x: Float[Array, " inputs"], *, key: Any = None) -> Float[Array, " outputs"]:
        """The way forward.

        Args:
            x: one input.
            key: not used.

        Returns:
            The model's answer.
        """
        return self.model(x)

    def back(self, y: Float[Array, " outputs"]) -> Float[Array, " inputs"]:
        """The way back, by the transposed weights.

        Args:
            y: what is to be drawn, such as a class's unit vector.

        Returns:
            An input, before any last activation: of pixels in [0, 1] their logits.
        """
        layers = self.model.layers
        g = check_shape(y, (layers[-1].weight.shape[0],), what="y", fix="Give one vector as long as an answer.")
        for number in range(len(layers) - 1, -1, -1):
            g = layers[number].weight.T @ g + self.back_biases[number]
            if number > 0:
                # The activation of the units that are reached, with parameters of each unit's own if it has any.
                phi = jax.tree.map(lambda a, n=number - 1: a[n] if eqx.is_array(a) else a, self.model.activation)
                g = eqx.filter_vmap(lambda phi, unit: phi(unit))(phi, g)
        return g


__all__ = ["Bidirectional"]
