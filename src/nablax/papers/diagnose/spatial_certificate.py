r"""Efficient certification of spatial robustness: proofs against deformations by vector fields.

A ReLU network of two hidden layers reads digits of 8×8 pixels. The same back substitution is given the pixels' bounds
under interpolation, or the ball in the maximum norm that holds the same deformations; and fields are free, or smooth.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...diagnose import box_margins, deform, spatial_certificate
from ...follow import fit
from .._contrast import Contrast
from .._problems._classifier import digits
from .._records import Check, Paper

PAPER = Paper(
    slug="spatial-certificate",
    title="Efficient Certification of Spatial Robustness",
    year=2021,
    link="https://arxiv.org/abs/2009.09318",
    rooms=("diagnose",),
    row=97,
    read="text",
)

# At 0.3 pixels nothing of this network is proved: the images are small, and a stroke is a pixel or two.
_REACH, _SMOOTHNESS = 0.1, 0.02


class _Network(eqx.Module):
    layers: tuple[eqx.nn.Linear, ...]

    def __init__(self, key: Key):
        sizes = (64, 40, 40, 10)
        keys = jax.random.split(key, 3)
        self.layers = tuple(eqx.nn.Linear(a, b, key=k) for a, b, k in zip(sizes[:-1], sizes[1:], keys, strict=True))

    def __call__(self, image: Float[Array, "8 8 1"]) -> Float[Array, "10"]:
        h = image.reshape(-1)
        for number, layer in enumerate(self.layers):
            h = layer(jax.nn.relu(h) if number else h)
        return h


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Check that interpolation and smoothness are worth their use, and that what is proved is not broken.

    Args:
        key: of all randomness.
        full: all test images, a larger attack. The paper's networks and image sets are not attempted.

    Returns:
        Three checks.
    """
    images, labels = digits()
    images = images.reshape(-1, 8, 8, 1)
    train_key, fit_key, attack_key = jax.random.split(key, 3)
    test, tries = (397, 4000) if full else (120, 400)

    def loss(model: _Network, batch: tuple[Array, Array], *, key: Key) -> Float[Array, ""]:
        # Deformed at random, so that there is a robustness to prove.
        shape = (*batch[0].shape[:3], 2)
        fields = jax.random.uniform(key, shape, minval=-_REACH, maxval=_REACH)
        logits = jax.vmap(model)(jax.vmap(deform)(batch[0], fields))
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]))

    optimizer = optax.adamw(optax.cosine_decay_schedule(5e-3, 500), weight_decay=0.05)
    data, start = (images[:1400], labels[:1400]), _Network(train_key)
    model = fit(loss, start, data, optimizer=optimizer, steps=500, batch_size=64, key=fit_key).model
    xs, ys = images[-test:], labels[-test:]
    layers = [lambda x: model.layers[0](x.reshape(-1)), *model.layers[1:]]
    record = spatial_certificate(layers, xs, ys, displacement=_REACH, smoothness=_SMOOTHNESS)
    free, smooth = (np.asarray(x) > 0 for x in (record.free_margin, record.margin))
    radius = jnp.max(jnp.maximum(record.upper - xs, xs - record.lower), axis=(1, 2, 3), keepdims=True)
    ball = np.asarray(box_margins(layers, xs - radius, xs + radius, ys)) > 0

    @jax.jit
    @jax.vmap
    def attack(image: Array, label: Array, key: Key) -> tuple[Array, Array]:
        """Least margin by signed gradient steps from corners, free fields, and the least over twenty random ones."""

        def margin(field: Array) -> Array:
            logits = model(deform(image, field))
            return logits[label] - jnp.max(jnp.where(jnp.arange(10) == label, -jnp.inf, logits))

        def descend(field: Array, _: None) -> tuple[Array, Array]:
            after = jnp.clip(field - 0.1 * jnp.sign(jax.grad(margin)(field)), -_REACH, _REACH)
            return after, margin(after)

        draws = jax.random.uniform(key, (tries // 20, 8, 8, 2), minval=-_REACH, maxval=_REACH)
        # Own loop: an attack, each step along signs and back into the box.
        _, found = jax.vmap(lambda field: jax.lax.scan(descend, field, length=20))(draws)
        return jnp.min(found), jnp.min(jax.vmap(margin)(draws[:20]))

    worst, sampled = (np.asarray(x) for x in attack(xs, ys, jax.random.split(attack_key, test)))
    margin = np.asarray(record.free_margin)
    broken = {
        "certificate": np.sum((margin > 0) & (worst <= 0)),
        "20 random deformations": np.sum((sampled > 0) & (worst <= 0)),
    }
    beneath = {
        "certificate": max(0.0, np.max(margin - worst)),
        "20 random deformations": max(0.0, np.max(sampled - worst)),
    }
    proved = {"smooth fields": np.mean(record.margin), "free fields": margin.mean()}
    return [
        Check(
            f"Bounds that know the interpolation prove robustness (to {_REACH} pixels) where a ball of the same reach "
            "does not.",
            "stated in words: the first certificates against vector fields",
            contrasts=Contrast(
                "share of images certified",
                {"interpolation": free.mean(), "smallest ball that holds every deformation": ball.mean()},
                "higher",
                threshold=0.5,
            ),
        ),
        Check(
            f"Smooth fields (neighbours within {_SMOOTHNESS} pixels) are certified more often than free ones.",
            "stated in words, and tables",
            contrasts=[
                Contrast(
                    f"certified of {test} images",
                    {"smooth fields": smooth.sum(), "free fields": free.sum()},
                    "higher",
                    margin=1.0,
                ),
                Contrast("mean proved margin, logits", proved, "higher", margin=0.1),
            ],
        ),
        Check(
            "What is certified cannot be broken.",
            f"proved; attacked here by gradients, {tries // 20} starts of 20 steps",
            contrasts=[
                Contrast("images broken that are called robust", broken, "lower", threshold=0.0),
                Contrast("most that the attack gets below the margin, logits", beneath, "lower", threshold=1e-4),
            ],
        ),
    ]


__all__ = ["PAPER", "checks"]
