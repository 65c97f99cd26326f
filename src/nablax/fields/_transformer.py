"""Transformer over the patches of an image: the network for images."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import Key, check_floats, check_key, check_shape, fault
from ._mlp import ACTIVATIONS, check_activation, zero_linear
from ._time import Context, check_time_features, outside_features


class Block(eqx.Module):
    """Residual block: attention among the patches, then two layers on each, both modulated by the context."""

    modulation: eqx.nn.Linear
    attention: eqx.nn.MultiheadAttention
    inner: eqx.nn.Linear
    outer: eqx.nn.Linear
    norm: eqx.nn.LayerNorm

    def __init__(self, width: int, heads: int, *, key: Key):
        modulation_key, attention_key, inner_key, outer_key = jax.random.split(key, 4)
        self.modulation = eqx.nn.Linear(width, 4 * width, key=modulation_key)
        self.attention = eqx.nn.MultiheadAttention(heads, width, key=attention_key)
        self.inner = eqx.nn.Linear(width, 2 * width, key=inner_key)
        self.outer = eqx.nn.Linear(2 * width, width, key=outer_key)
        # Without weights of its own: the modulation that follows has them.
        self.norm = eqx.nn.LayerNorm(width, use_weight=False, use_bias=False)

    def __call__(
        self,
        h: Float[Array, "patches width"],
        context: Float[Array, " width"],
        activation: Callable[[Array], Array],
    ) -> Float[Array, "patches width"]:
        scale, shift, inner_scale, inner_shift = jnp.split(self.modulation(context)[None], 4, axis=1)
        normalised = jax.vmap(self.norm)(h) * (1 + scale) + shift
        h = h + self.attention(normalised, normalised, normalised)
        normalised = jax.vmap(self.norm)(h) * (1 + inner_scale) + inner_shift
        return h + jax.vmap(lambda token: self.outer(activation(self.inner(token))))(normalised)


class Transformer(eqx.Module):
    r"""Transformer over square patches of an image, modulated by time and condition.

    The image is cut in P patches, each mapped to a token with a bias of its own place. With the context e(t, c)
    of time and condition, M(h) = (1 + s(e)) ⊙ norm(h) + m(e) s and m being
    each use's own, a block is

    $$h \mapsto h + \text{attention}(M_1(h)), \qquad h \mapsto h + B\, \varphi(A\, M_2(h) + a) + b$$

    and a linear layer, which starts at zero so that a new field is 0 everywhere, maps tokens back to patches.

    All its work is matrix products, which run alike everywhere. XLA's convolutions on a CPU run twenty times slower
    inside a loop than outside, unless they have the one layout that `nablax.follow.fit` brings them to. Measured on
    64 images of 8×8 pixels without that, CPU time a training step: a U-Net of 16 and 32 channels 17 ms outside and
    328 ms inside the loop, a transformer of width 64 and depth 4, with twice the arithmetic, about 50 ms in either;
    the U-Net is now an alternative that has not been compared for what it learns. On images as small as
    8×8 an ``MLP`` over the pixels is the better choice: on handwritten digits it needs more steps to the same
    loss, but thirty times less time a step.

    Args:
        shape: shape of one image, (height, width, colours).
        condition: length of the condition vector ``args``; 0 for none. The null condition is all zeros.
        patch: side of a patch in pixels; height and width are multiples of it. Attention costs P² with
            P = height·width/patch², so keep P at 16 to 256.
        width: length of a token, a multiple of ``heads``.
        depth: number of blocks.
        heads: number of attention heads.
        activation: one of elu, gelu, relu, selu, silu, softplus, tanh.
        time_features: 0 for the raw time, otherwise an even number of sines and cosines.
        key: random key of the initial weights.

    Raises:
        ValueError: the shape is not that of an image or does not divide in patches, a size below 1, a width that
            is no multiple of the heads, an unknown activation, an odd number of time features, a ``key`` that is
            none, or, when called, a state or a condition of another shape.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax.fields import Transformer
        >>> field = Transformer((8, 8, 1), condition=10, width=16, depth=1, key=jax.random.key(0))
        >>> field(jnp.asarray(0.5), jnp.ones((8, 8, 1)), jnp.eye(10)[3]).shape
        (8, 8, 1)

    Cost: one forward pass is P·depth·(8·width² + 2·P·width) multiply-adds besides the maps of patches and
    context; a JVP in y costs about twice that in its attention and as much in the rest.

    References:
        W. Peebles, S. Xie, "Scalable Diffusion Models with Transformers", 2022,
        https://arxiv.org/abs/2212.09748 (modulated norms); the mixing of time and condition is our own.
    """

    shape: tuple[int, int, int] = eqx.field(static=True)
    condition: int = eqx.field(static=True)
    patch: int = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    time_features: int = eqx.field(static=True)
    context: Context
    inlet: eqx.nn.Linear
    position: Float[Array, "patches width"]
    blocks: tuple[Block, ...]
    norm: eqx.nn.LayerNorm
    outlet: eqx.nn.Linear

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        condition: int = 0,
        patch: int = 2,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        activation: str = "silu",
        time_features: int = 16,
        key: Key,
    ):
        check_key(key)
        check_activation(activation)
        check_time_features(time_features)
        if len(shape) != 3 or min(shape) < 1:
            raise fault(
                expected="an image shape (height, width, colours)",
                got=shape,
                fix="A grey image has one colour: (height, width, 1).",
            )
        if min(patch, width, depth, heads) < 1 or width % heads or condition < 0:
            raise fault(
                expected="positive sizes, width a multiple of heads, and condition of at least 0",
                got=f"patch={patch}, width={width}, depth={depth}, heads={heads}, condition={condition}",
                fix="Start from patch=2, width=64, depth=4, heads=4.",
            )
        height, breadth, colours = shape
        if height % patch or breadth % patch:
            raise fault(
                expected=f"height and width divisible by patch={patch}",
                got=shape,
                fix="Pad or resize the images, or choose another patch.",
            )
        self.shape, self.condition, self.patch = (height, breadth, colours), condition, patch
        self.activation, self.time_features = activation, time_features
        patches, pixels = (height // patch) * (breadth // patch), patch * patch * colours
        context_key, inlet_key, position_key, outlet_key, *keys = jax.random.split(key, 4 + depth)
        self.context = Context(max(time_features, 1) + condition, width, key=context_key)
        self.inlet = eqx.nn.Linear(pixels, width, key=inlet_key)
        self.position = 0.1 * jax.random.normal(position_key, (patches, width))
        self.blocks = tuple(Block(width, heads, key=k) for k in keys)
        self.norm = eqx.nn.LayerNorm(width)
        self.outlet = zero_linear(width, pixels, outlet_key)

    def __call__(
        self,
        t: Float[Array, ""],
        y: Float[Array, "height width colours"],
        args: Float[Array, "condition"] | None = None,
    ) -> Float[Array, "height width colours"]:
        """Evaluate the field for one image.

        Args:
            t: time, scalar.
            y: the image, of the network's ``shape``.
            args: the condition vector, floats or integers; None for a network without one. The null condition is all
                zeros and has to be given.

        Returns:
            The velocity, shape and dtype of ``y``.
        """
        y = check_shape(y, self.shape, what="one image", fix="For a batch, wrap the call in jax.vmap.")
        check_floats(y, what="a state", fix="Convert y to a float dtype.")
        phi = ACTIVATIONS[self.activation]
        context = self.context(outside_features(t, args, self.time_features, self.condition, y.dtype), phi)
        height, breadth, colours = self.shape
        rows, columns, side = height // self.patch, breadth // self.patch, self.patch
        cut = jnp.swapaxes(y.reshape(rows, side, columns, side, colours), 1, 2)
        h = jax.vmap(self.inlet)(cut.reshape(rows * columns, -1)) + self.position
        for block in self.blocks:
            h = block(h, context, phi)
        patches = jax.vmap(lambda token: self.outlet(self.norm(token)))(h)
        whole = jnp.swapaxes(patches.reshape(rows, columns, side, side, colours), 1, 2)
        return whole.reshape(self.shape).astype(y.dtype)
