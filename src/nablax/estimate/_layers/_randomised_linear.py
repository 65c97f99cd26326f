"""A dense layer that keeps a sketch of its inputs for the backward pass, not the inputs."""

import functools
import math
from typing import Literal

import equinox as eqx
import jax
from jaxtyping import Array, Float

from ..._core import Key, check_count, check_key, check_shape, fault

Sketch = Literal["gaussian", "rademacher", "rows"]


class RandomisedLinear(eqx.Module):
    r"""A dense layer of batches, :math:`Y=XW^{\top}+b`, whose weight gradient is taken from a random sketch.

    .. math:: \widehat{\nabla_W} = (SG)^{\top}(SX),\qquad S\in\mathbb{R}^{k\times B},\quad \operatorname{E}S^{\top}S=I

    with G the gradient of Y. Of the inputs only SX is kept, a share k/B of them, and the key that draws S again. The
    weight gradient is unbiased; with Gaussian S its squared error is
    :math:`(\lVert X\rVert^2\lVert G\rVert^2+\lVert X^{\top}G\rVert^2)/k` in the mean, with signs less
    :math:`2\sum_i\lVert x_i\rVert^2\lVert g_i\rVert^2/k`. Those of X and b are exact.

    Args:
        inputs: numbers in a row of X.
        outputs: numbers in a row of Y.
        share: k/B, above 0 and at most 1.
        sketch: S Gaussian (the default, as the authors'), of signs, or of k rows drawn without replacement, which with
            a share of 1 is exact.
        use_bias: whether there is b.
        key: of the initial weights, as `equinox.nn.Linear` draws them.

    Raises:
        ValueError: an argument makes no sense; when called: X is no batch of such rows, or there is no key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> layer = estimate.RandomisedLinear(3, 2, share=0.5, key=jax.random.key(0))
        >>> layer(jnp.ones((8, 3)), key=jax.random.key(1)).shape
        (8, 2)

    Cost: a forward pass as usual, and k·B multiplications a column to sketch X and G.

    References:
        - Bershatsky et al., "Memory-Efficient Backpropagation through Large Linear Layers", 2022,
          https://arxiv.org/abs/2201.13195, and the authors' code, https://github.com/SkoltechAI/fewbit (followed: S
          over the batch, Gaussian unless told otherwise or of signs, drawn again for the backward pass, where the
          gradients of X and b are exact. k is rounded down there, up here. It also draws rows of the batch's cosine or
          Fourier transform, scaled by kB where an unbiased estimate takes B/k, which is not followed; without a
          transform, ``"rows"``, is ours. The errors are derived here, and tested)
    """

    weight: Float[Array, "outputs inputs"]
    bias: Float[Array, " outputs"] | None
    share: float = eqx.field(static=True)
    sketch: str = eqx.field(static=True)

    def __init__(
        self, inputs: int, outputs: int, *, share: float, sketch: Sketch = "gaussian", use_bias: bool = True, key: Key
    ):
        check_count(inputs, what="inputs")
        check_count(outputs, what="outputs")
        check_key(key)
        if not 0 < share <= 1:
            raise fault(expected="a share above 0 and at most 1", got=share, fix="Pass share=0.5, for one.")
        if sketch not in ("gaussian", "rademacher", "rows"):
            raise fault(
                expected="a sketch among gaussian, rademacher, rows", got=repr(sketch), fix="Choose one of them."
            )
        made = eqx.nn.Linear(inputs, outputs, use_bias=use_bias, key=key)
        self.weight, self.bias = made.weight, made.bias
        self.share, self.sketch = float(share), sketch

    def __call__(self, x: Float[Array, "batch inputs"], *, key: Key) -> Float[Array, "batch outputs"]:
        """Apply the layer to a batch.

        Args:
            x: the rows; not one row under `jax.vmap`, for the sketch mixes them.
            key: of the sketch, another one in every step.

        Returns:
            The outputs, a row each.
        """
        check_key(key)
        check_shape(x, (None, self.weight.shape[1]), what="x", fix="Call the layer on the batch, without jax.vmap.")
        rows = max(1, math.ceil(self.share * len(x)))
        found = _product(self.weight, x, jax.random.key_data(key), rows, self.sketch, jax.random.key_impl(key))
        return found if self.bias is None else found + self.bias[None]


def _drawn(key: Array, impl: str, sketch: str, rows: int, x: Array) -> Array:
    """S times a matrix, the same S for the same key."""
    key = jax.random.wrap_key_data(key, impl=impl)
    if sketch == "rows":
        return x[jax.random.permutation(key, len(x))[:rows]] * math.sqrt(len(x) / rows)
    draw = jax.random.normal if sketch == "gaussian" else jax.random.rademacher
    return draw(key, (rows, len(x)), x.dtype) @ x / math.sqrt(rows)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _product(weight: Array, x: Array, key: Array, rows: int, sketch: str, impl: str) -> Array:
    return x @ weight.T


def _forward(weight: Array, x: Array, key: Array, rows: int, sketch: str, impl: str) -> tuple[Array, tuple]:
    return x @ weight.T, (weight, _drawn(key, impl, sketch, rows, x), key)


def _backward(rows: int, sketch: str, impl: str, kept: tuple, gradient: Array) -> tuple[Array, Array, None]:
    weight, inputs, key = kept
    return _drawn(key, impl, sketch, rows, gradient).T @ inputs, gradient @ weight, None


_product.defvjp(_forward, _backward)

__all__ = ["RandomisedLinear"]
