"""Pixel-wise gradient clipping: texture through an encoder whose gradient is uneven from pixel to pixel.

The paper optimises 3-D objects through the frozen encoder of a latent diffusion model. Here the encoder is a fixed
random one with the fault that the paper shows: a few pixels get gradients that are far larger than the others'. What
guides is a noisy pull towards a known latent, so that the texture to be found is known. It is either the picture
itself, or seen from another side in every step: turned around by so many pixels, so that no texel keeps its pixel.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...regulate import pixelwise_clip
from .._contrast import Contrast
from .._problems._training import trained
from .._problems._tuning import Run, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="pixelwise-clipping",
    title="Enhancing High-Resolution 3D Generation through Pixel-wise Gradient Clipping",
    year=2023,
    link="https://arxiv.org/abs/2310.12474",
    rooms=("regulate",),
    row=47,
    read="code",
)

_BOUNDS = (0.003, 0.03, 0.3, 3.0, 30.0)
_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_ENDS = {_BOUNDS[0]: "all is clipped, and Adam takes no heed of scale", _BOUNDS[-1]: "next to nothing is clipped"}


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Find a texture by Adam through the encoder, each way of clipping at its own best rate and bound.

    Args:
        key: of all randomness.
        full: 64 × 64 pixels and 2000 steps in place of 16 × 16 and 300; the paper's renderers and diffusion
            models are not run.

    Returns:
        Two checks.
    """
    size, steps = (64, 2000) if full else (16, 300)
    first, second = jax.random.split(key)
    return [
        Check(
            "Clipping pixel by pixel, by the norm or by the largest channel, makes a better picture than other ways.",
            "stated in words (two-dimensional demonstration of the authors' code, by AdamW)",
            contrasts=_contrasts(first, size, steps, views=False),
            expected=False,
            tried="bounds of 0.003 to 30 of the gradient's unit: where texels keep their pixels, Adam's own scaling is "
            "one pixel by pixel, and the best bound is the one that clips next to nothing",
            moved_from="half the error of clipping the whole gradient or none, by plain descent, at the settings that "
            "are best on the judging keys",
        ),
        Check(
            "It makes a better texture through a renderer, of a view of its own each step.",
            "stated in words (quality of generated objects)",
            contrasts=_contrasts(second, size, steps, views=True),
            expected=False,
            tried="it does better than no clipping and than clipping the whole, by a third and a sixth of the error; "
            "clipping each value by itself, which turns colours, does better by a twentieth",
        ),
    ]


def _contrasts(key: Key, size: int, steps: int, *, views: bool) -> list[Contrast]:
    """Of both norms that pixels are clipped by, against the same baselines."""
    ours = {"by the norm": pixelwise_clip(1.0), "by the largest channel": pixelwise_clip(1.0, order="largest")}
    others = {
        "Adam, no clipping": optax.identity(),
        "Adam, the whole clipped": optax.clip_by_global_norm(float(size)),
        "Adam, values clipped": optax.clip(1.0),
    }
    methods = {name: _run(clip, size, steps, views) for name, clip in (ours | others).items()}
    runs = tuned(methods, (_BOUNDS, _RATES), "lower", key=key, keys=8, ends=_ENDS)
    metric = "root-mean-square error of a texture of scale 1"
    return [
        runs._replace(results={name: runs.results[name]} | runs.results).contrast(
            f"{name}: {metric}", "lower", against=tuple(others)
        )
        for name in ours
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


def _run(clip: optax.GradientTransformation, size: int, steps: int, views: bool) -> Run:
    """Error of the texture that Adam finds, at a bound and a rate."""

    def run(setting: Float[Array, "2"], key: Key) -> Float[Array, ""]:
        bound, rate = setting
        problem_key, run_key = jax.random.split(key)
        encode, texture = _problem(problem_key, size)

        def slope(texels: Array, turn: Array, *, key: Key) -> tuple[Array, Array]:
            """The picture's gradient is clipped, and pulled back to the texels after that, as in a renderer's pass."""

            def render(texels: Array) -> Array:
                return jnp.roll(texels, turn, axis=(0, 1))

            def loss(image: Array) -> Array:
                noise = jax.random.normal(key, (size // 4, size // 4, 48))
                return jnp.sum(jnp.square(encode(image) - encode(render(texture)) + noise)) / 2

            image, pull = jax.vjp(render, texels)
            value, gradient = jax.value_and_grad(loss)(image)
            # All regulators clip at one: gradients come in units of the bound.
            clipped, _ = clip.update(gradient / bound, clip.init(image))
            return value, pull(bound * clipped)[0]

        # The rate falls to zero, so that what is left is not the last noise.
        found, _ = trained(
            lambda texels, turn, *, key: jnp.zeros(()),
            jnp.zeros_like(texture),
            optax.adam(optax.linear_schedule(rate, 0.0, steps - 1)),
            lambda step, key: jax.random.randint(key, (2,), 0, size) if views else jnp.zeros(2, jnp.int32),
            steps,
            key=run_key,
            value_and_grad=lambda loss: slope,
        )
        return jnp.sqrt(jnp.mean(jnp.square(found - texture)))

    return run


__all__ = ["PAPER", "checks"]
