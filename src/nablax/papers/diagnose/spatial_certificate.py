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

from ..._core import Key, require
from ...diagnose import box_margins, deform, spatial_certificate
from ...follow import fit
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
    bundle = require("sklearn.datasets", extra="app").load_digits()
    images = jnp.asarray(bundle.images[..., None] / 16, jnp.float32)
    labels = jnp.asarray(bundle.target)
    train_key, fit_key, attack_key = jax.random.split(key, 3)
    test, tries = (397, 4000) if full else (40, 400)

    def loss(model: _Network, batch: tuple[Array, Array], *, key: Key) -> Float[Array, ""]:
        # Deformed at random, so that there is a robustness to prove.
        shape = (*batch[0].shape[:3], 2)
        fields = jax.random.uniform(key, shape, minval=-_REACH, maxval=_REACH)
        logits = jax.vmap(model)(jax.vmap(deform)(batch[0], fields))
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]))

    optimizer = optax.adamw(optax.cosine_decay_schedule(5e-3, 500), weight_decay=0.05)
    model = fit(
        loss,
        _Network(train_key),
        (images[:1400], labels[:1400]),
        optimizer=optimizer,
        steps=500,
        batch_size=64,
        key=fit_key,
    ).model
    xs, ys = images[-test:], labels[-test:]
    layers = [lambda x: model.layers[0](x.reshape(-1)), *model.layers[1:]]
    record = spatial_certificate(layers, xs, ys, displacement=_REACH, smoothness=_SMOOTHNESS)
    free, smooth = (np.asarray(x) > 0 for x in (record.free_margin, record.margin))
    radius = jnp.max(jnp.maximum(record.upper - xs, xs - record.lower), axis=(1, 2, 3), keepdims=True)
    ball = np.asarray(box_margins(layers, xs - radius, xs + radius, ys)) > 0
    right = np.asarray(record.plain_margin) > 0

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
        _, found = jax.vmap(lambda field: jax.lax.scan(descend, field, length=20))(draws)
        return jnp.min(found), jnp.min(jax.vmap(margin)(draws[:20]))

    worst, sampled = (np.asarray(x) for x in attack(xs, ys, jax.random.split(attack_key, test)))
    broken = int(np.sum(free & (worst <= 0)))
    beneath = float(np.min(worst - np.asarray(record.free_margin)))
    claimed = sampled > 0
    return [
        Check(
            statement="Bounds that know the interpolation prove robustness where a ball of the same reach does not.",
            stated="stated in words: the first certificates against vector fields",
            measured=f"{int(free.sum())} of {test} images certified for displacements of {_REACH} pixels "
            f"({int(right.sum())} are right undeformed)",
            criterion="at least half of the images certified",
            holds=bool(free.mean() >= 0.5 > ball.mean()),
            baseline=f"the smallest ball in the maximum norm that holds every deformation: {int(ball.sum())} certified",
        ),
        Check(
            statement="Smooth fields are certified more often than free ones.",
            stated="stated in words, and tables",
            measured=f"neighbours within {_SMOOTHNESS} pixels: mean proved margin "
            f"{float(record.margin.mean()):.2f}, {int(smooth.sum())} of {test} certified",
            criterion="more certified, and proved margin higher by at least 0.1 on average, than for free fields",
            holds=bool(np.mean(np.asarray(record.margin - record.free_margin)) >= 0.1 and smooth.sum() > free.sum()),
            baseline=f"free fields: {float(record.free_margin.mean()):.2f}, {int(free.sum())} certified",
        ),
        Check(
            statement="What is certified cannot be broken.",
            stated="proved",
            measured=f"an attack by gradients ({tries // 20} starts, 20 steps) breaks {broken} of {int(free.sum())} "
            f"certified images and stays {beneath:.2f} or more above the proved margins",
            criterion="no image that is called robust is broken",
            holds=bool(broken == 0 and beneath >= -1e-4 and np.any(claimed & (worst <= 0))),
            baseline=f"robust by twenty random deformations: {int(claimed.sum())}, of which "
            f"{int(np.sum(claimed & (worst <= 0)))} broken",
        ),
    ]


__all__ = ["PAPER", "checks"]
