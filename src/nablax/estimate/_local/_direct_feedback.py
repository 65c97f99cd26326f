"""The output's error sent to every layer at once, by a fixed matrix each."""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import Key, check_key, fault
from ._blocks import Block, blocks, returning

Direct = tuple[Float[Array, "units outputs"], ...]


def init_direct_feedback(model: Any, x: PyTree, *, normalised: bool = True, key: Key) -> Direct:
    r"""Draw a feedback matrix for each hidden block of a model.

    Args:
        model: an `equinox.nn.Sequential` or `equinox.nn.MLP`.
        x: one input, or its shape as `jax.ShapeDtypeStruct`: that is all that is read.
        normalised: entries of variance 1/(outputs · units), so that errors arrive at layers of any width in the same
            size; otherwise of variance 1.
        key: of the draws.

    Returns:
        For each block but the last, a Gaussian matrix ``[numbers in its output, numbers in the model's output]``.

    Raises:
        ValueError: the model is no such sequence, or the key is none.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> model = eqx.nn.MLP(3, 2, width_size=5, depth=2, key=jax.random.key(0))
        >>> feedback = estimate.init_direct_feedback(model, jnp.zeros(3), key=jax.random.key(1))
        >>> [matrix.shape for matrix in feedback]
        [(5, 2), (5, 2)]

    Cost: the draws; the model is not run.

    References:
        - Launay, Poli and Krzakala, "Principled Training of Neural Networks with Direct Feedback Alignment", 2019,
          https://arxiv.org/abs/1906.04554 (the normalisation, after the authors' code, which cuts all matrices out of
          one; here each is drawn by itself)
    """
    check_key(key)
    *hidden, out = jax.eval_shape(lambda x: _outputs(blocks(model), x, key), x)
    outputs = math.prod(out.shape)
    keys = jax.random.split(key, max(len(hidden), 1))
    return tuple(
        jax.random.normal(one, (units, outputs), h.dtype) / (math.sqrt(outputs * units) if normalised else 1)
        for h, one, units in zip(hidden, keys, (math.prod(h.shape) for h in hidden))
    )


def direct_feedback_alignment(model: Any, feedback: Direct) -> Any:
    r"""Make the same model, to each of whose blocks the error comes straight from the output.

    .. math:: \nabla_{\theta_l} = \Big(\frac{\partial h_l}{\partial\theta_l}\Big)^{\top}B_le,
        \qquad e = \frac{\partial\ell}{\partial y}

    A block is a dense or convolutional layer with what follows it up to the next, and :math:`h_l` its output: the
    activation's derivative, and that of norms and pools, are the block's own. The last block's gradient is exact. No
    block waits for another's. Put the model in the loss, and `jax.grad` of that is the rule.

    Args:
        model: an `equinox.nn.Sequential` of layers without a state, or an `equinox.nn.MLP`.
        feedback: of each block but the last, a matrix ``[numbers in its output, numbers in the model's output]``, as
            `init_direct_feedback` draws them; held, whatever is differentiated.

    Returns:
        ``model(x, *, key=None)``, with the same values.

    Raises:
        ValueError: the model is no such sequence, with the first layer named that the rule cannot serve, or feedback
            is not shaped as said.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> model = eqx.nn.MLP(3, 2, width_size=5, depth=2, key=jax.random.key(0))
        >>> feedback = estimate.init_direct_feedback(model, jnp.zeros(3), key=jax.random.key(1))
        >>> def loss(model, x):
        ...     return jnp.sum(jax.vmap(estimate.direct_feedback_alignment(model, feedback))(x) ** 2)
        >>> value, grads = eqx.filter_value_and_grad(loss)(model, jnp.ones((4, 3)))
        >>> grads.layers[0].weight.shape
        (5, 3)

    Cost: that of backpropagation less the products with the transposed weights, plus one with each matrix.

    References:
        - Nøkland, "Direct Feedback Alignment Provides Learning in Deep Neural Networks", 2016,
          https://arxiv.org/abs/1609.01596
        - Launay, Poli and Krzakala, 2019, https://arxiv.org/abs/1906.04554, and the authors' code (the error is
          delivered at a block's output)
    """
    count = len(blocks(model)) - 1
    if not isinstance(feedback, tuple) or len(feedback) != count:
        raise fault(
            expected=f"a tuple of {count} feedback matrices, one for each block but the last",
            got=f"{len(feedback)} of them" if isinstance(feedback, tuple) else f"a {type(feedback).__name__}",
            fix="Draw them by estimate.init_direct_feedback(model, x, key=key).",
        )
    return _Direct(model, jax.tree.map(jax.lax.stop_gradient, feedback))


class _Direct(eqx.Module):
    """A sequence of blocks that see the output's error alone."""

    model: Any
    feedback: Direct

    def __call__(self, x: Array, *, key: Key | None = None) -> Array:
        *hidden, y = _outputs(blocks(self.model), x, key)
        for number, (matrix, h) in enumerate(zip(self.feedback, hidden)):
            if jnp.shape(matrix) != (h.size, y.size):
                raise fault(
                    expected=f"feedback to block {number} of shape [{h.size}, {y.size}]",
                    got=str(list(jnp.shape(matrix))),
                    fix="Draw it by estimate.init_direct_feedback, from this model and such an input.",
                )
            y = returning(functools.partial(_delivered, y.shape), y, (matrix, h))
        return y


def _delivered(shape: tuple[int, ...], matrix: Array, h: Array) -> Array:
    return jnp.reshape(jnp.ravel(h) @ matrix, shape)


def _outputs(parts: list[Block], x: Array, key: Key | None) -> list[Array]:
    """What each block gives, cut off from the one below."""
    outputs: list[Array] = []
    for part in parts:
        x = part(jax.lax.stop_gradient(x) if outputs else x, key)
        outputs.append(x)
    return outputs


__all__ = ["direct_feedback_alignment", "init_direct_feedback"]
