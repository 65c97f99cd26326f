"""Pixel-wise gradient clipping: texture through an encoder whose gradient is uneven from pixel to pixel.

The paper optimises 3-D objects through the frozen encoder of a latent diffusion model. Here the encoder is a fixed
random one with the fault that the paper shows: a few pixels get gradients that are far larger than the others'. What
guides is a noisy pull towards a known latent, so that the texture to be found is known.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...regulate import pixelwise_clip
from .._contrast import Contrast
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="pixelwise-clipping",
    title="Enhancing High-Resolution 3D Generation through Pixel-wise Gradient Clipping",
    year=2023,
    link="https://arxiv.org/abs/2310.12474",
    rooms=("regulate",),
    row=47,
    read="abstract",
)

_BOUNDS, _RATES = jnp.array([0.03, 0.3, 3.0]), jnp.logspace(-4, 1, 11)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Find a texture by descent through the encoder, each method at its own best rate and bound.

    Clipping every value by itself finds the texture as well, and turns colours.

    Args:
        key: of all randomness.
        full: 64 × 64 pixels and 2000 steps in place of 16 × 16 and 300; the paper's renderers and diffusion
            models are not run.

    Returns:
        Two checks.
    """
    size, steps = (64, 2000) if full else (16, 300)
    pixels, whole = pixelwise_clip(1.0), optax.clip_by_global_norm(float(size))
    methods = {"pixel by pixel": pixels, "whole image": whole, "no clipping": optax.identity()}
    errors = {name: jax.jit(partial(_error, clip, size, steps))(key) for name, clip in methods.items()}
    turns = {"pixel by pixel": pixels, "value by value": optax.clip(1.0)}
    cosines = {name: _turn(clip, size, key) for name, clip in turns.items()}
    return [
        Check(
            "Clipping pixel by pixel finds the texture where clipping the whole gradient does not.",
            "stated in words (quality of generated objects)",
            contrasts=Contrast("root-mean-square error of a texture of scale 1", errors, "lower", ratio=0.5),
        ),
        Check(
            "Every pixel keeps its gradient's direction in colour space.",
            "stated in words: preserves texture-related gradient directions",
            contrasts=Contrast("smallest cosine over clipped pixels", cosines, "higher", threshold=0.999),
        ),
    ]


class _Encoder(NamedTuple):
    """Gains over three orders of magnitude, and filters of 4 × 4 pixels onto as many channels."""

    gains: Float[Array, "size size 1"]
    filters: Float[Array, "48 48"]

    def __call__(self, image: Float[Array, "size size 3"]) -> Float[Array, "patches patches 48"]:
        count = len(image) // 4
        patches = (self.gains * image).reshape(count, 4, count, 4, 3).transpose(0, 2, 1, 3, 4)
        return patches.reshape(count, count, 48) @ self.filters


def _problem(key: Key, size: int) -> tuple[_Encoder, Float[Array, "size size 3"]]:
    first, second, third = jax.random.split(key, 3)
    gains = jnp.exp(1.2 * jax.random.normal(first, (size, size, 1)))
    filters = jnp.linalg.qr(jax.random.normal(second, (48, 48)))[0]
    return _Encoder(gains, filters), jax.random.normal(third, (size, size, 3))


def _error(clip: optax.GradientTransformation, size: int, steps: int, key: Key) -> Float[Array, ""]:
    """Of the texture that descent finds, at the bound and the rate that are best for this encoder."""
    encode, texture = _problem(key, size)
    goal = encode(texture)

    def loss(image: Array, batch: None, *, key: Key) -> Array:
        return jnp.sum(jnp.square(encode(image) - goal + jax.random.normal(key, goal.shape))) / 2

    def run(bound: Array, rate: Array) -> Array:
        # All regulators clip at one: gradients come in units of the bound. The rate falls to zero, so that what is left
        # is not the last noise.
        schedule = optax.linear_schedule(rate, 0.0, steps - 1)
        optimizer = optax.chain(optax.scale(1 / bound), clip, optax.scale(bound), optax.sgd(schedule))
        image, _ = trained(loss, jnp.zeros_like(texture), optimizer, lambda step, key: None, steps, key=key)
        return jnp.sqrt(jnp.mean(jnp.square(image - texture)))

    errors = jax.vmap(jax.vmap(run, (None, 0)), (0, None))(_BOUNDS, _RATES)
    return jnp.min(jnp.where(jnp.isfinite(errors), errors, jnp.inf))


def _turn(clip: optax.GradientTransformation, size: int, key: Key) -> Float[Array, ""]:
    """Smallest cosine, over pixels, of the first gradient's colour with the clipped one's."""
    encode, texture = _problem(key, size)
    gradient = jax.grad(lambda image: jnp.sum(jnp.square(encode(image) - encode(texture))) / 2)(jnp.zeros_like(texture))
    clipped, _ = clip.update(gradient / 0.3, clip.init(texture))
    norms = jnp.linalg.norm(clipped, axis=-1) * jnp.linalg.norm(gradient, axis=-1)
    return jnp.min(jnp.sum(clipped * gradient, axis=-1) / norms)


__all__ = ["PAPER", "checks"]
