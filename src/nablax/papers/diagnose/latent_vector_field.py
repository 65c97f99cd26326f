"""Navigating the Latent Space Dynamics of Neural Models: what an autoencoder does to its own codes, again and again.

Denoising autoencoders of the digits, trained on few images, on more and on many. Those of a hundred images settle at
some forty codes, those of many at a handful.
"""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...diagnose import latent_attractors, trajectory_score
from .._contrast import Contrast
from .._problems._classifier import digits
from .._problems._planted import localisation
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="latent-vector-field",
    title="Navigating the Latent Space Dynamics of Neural Models",
    year=2025,
    link="https://arxiv.org/abs/2505.22785",
    rooms=("diagnose",),
    row=123,
    read="text",
)

_FEW, _SOME, _MANY, _LATENT, _WIDTH, _NOISE = 10, 100, 1200, 16, 256, 0.25


class _Autoencoder(eqx.Module):
    encoder: eqx.nn.MLP
    decoder: eqx.nn.MLP

    def __init__(self, key: Key):
        first, second = jax.random.split(key)
        self.encoder = eqx.nn.MLP(64, _LATENT, _WIDTH, 1, jnp.tanh, key=first)
        self.decoder = eqx.nn.MLP(_LATENT, 64, _WIDTH, 1, jnp.tanh, key=second)


def _encode(model: _Autoencoder, x: Array) -> Array:
    return model.encoder(x)


def _decode(model: _Autoencoder, z: Array) -> Array:
    return model.decoder(z)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Find the attractors of autoencoders trained on few and on many images, and score strange images.

    Args:
        key: of all randomness.
        full: longer training. The paper's networks and image sets are not attempted.

    Returns:
        Two checks.
    """
    images, _ = digits()
    images = jax.random.permutation(jax.random.key(0), images)
    train, test = images[:_MANY], images[_MANY:]
    keys = jax.random.split(key, 4)
    counts = jnp.array([_FEW, _SOME, _MANY])
    three = _denoisers(counts, train, jax.random.split(keys[0], 3), 15_000 if full else 4000)
    functions = eqx.filter(_Autoencoder(keys[3]), eqx.is_array, inverse=True)
    few, some, many = (eqx.combine(jax.tree.map(lambda leaf, i=i: leaf[i], three), functions) for i in range(3))
    # Codes of noise images, so that no attractor owes its place to the data; the same ones for both.
    noise = jax.random.uniform(keys[1], (100, 64))
    kept = {}
    for count, model in ((_FEW, few), (_MANY, many)):
        encode, decode = (eqx.Partial(f, model) for f in (_encode, _decode))
        record = latent_attractors(encode, decode, jax.vmap(encode)(noise), train[:_FEW], tolerance=1e-5)
        kept[f"trained on {count}"] = float(record.memorisation.value)

    encode, decode = (eqx.Partial(f, some) for f in (_encode, _decode))
    codes = jax.vmap(encode)(train[:_SOME])
    known = latent_attractors(encode, decode, codes, tolerance=1e-5).points

    def error(xs: Array) -> Array:
        return jnp.sum((jax.vmap(lambda x: decode(encode(x)))(xs) - xs) ** 2, axis=1)

    def score(xs: Array, steps: int) -> Array:
        return trajectory_score(encode, decode, xs, known, steps=steps)

    def distance(xs: Array) -> Array:
        # No step of the field: how far the code is from the nearest code of an image of the training set.
        return jnp.min(jnp.linalg.norm(jax.vmap(encode)(xs)[:, None] - codes[None], axis=-1), axis=1)

    # Jitted, so that each test set is one program, not one for each operation.
    scores: dict[str, Callable[[Array], Array]] = {f"trajectory of {k}": partial(score, steps=k) for k in (1, 5, 20)}
    scores |= {"reconstruction error": error, "distance to the nearest code": distance}
    told = {}
    for name, f in scores.items():
        of = jax.jit(f)
        usual = of(test)
        told[name] = float(np.mean([_told(usual, of(xs)) for xs in _strange(test, keys[2])]))
    # How many steps to follow is left to whoever uses it: here what suits the method best, in hindsight.
    best = max(told.pop(name) for name in list(told) if name.startswith("trajectory"))
    told = {"trajectory, of the best of three lengths": best, **told}
    return [
        Check(
            "An autoencoder of few images keeps them as attractors; one of many does not.",
            "stated in words and figures: memorisation falls as data or regularisation grows",
            contrasts=Contrast(
                f"mean cosine of decoded attractors with the nearest of {_FEW} images of both training sets",
                kept,
                "higher",
                threshold=0.9,
            ),
        ),
        Check(
            "Trajectories through the latent field tell strange images from known ones.",
            "stated in words and tables, against nearest neighbours of features",
            contrasts=Contrast("AUROC, mean over four kinds of strange images", told, "higher", margin=0.02),
            expected=False,
            tried="twenty steps with autoencoders of all 1200 images, whose training codes fall on two or three "
            "attractors whatever the noise, the width and the weight decay, at most six; of 300 images, with eighteen "
            "attractors; of 100 with forty, where one step does best",
            moved_from="against reconstruction error alone; and with an autoencoder of two attractors",
        ),
    ]


@partial(jax.jit, static_argnames="steps")
def _denoisers(counts: Array, images: Array, keys: Array, steps: int) -> _Autoencoder:
    """Arrays of denoising autoencoders trained together, each on the first ``count`` images."""

    def one(count: Array, key: Key) -> _Autoencoder:
        first, second = jax.random.split(key)
        start, rest = eqx.partition(_Autoencoder(first), eqx.is_array)

        def batches(step: Array, key: Key) -> tuple[Array, Array]:
            pick, spoil = jax.random.split(key)
            clean = images[jax.random.randint(pick, (64,), 0, count)]
            return clean, clean + _NOISE * jax.random.normal(spoil, clean.shape)

        def loss(arrays: _Autoencoder, batch: tuple[Array, Array]) -> Float[Array, ""]:
            model, (clean, spoilt) = eqx.combine(arrays, rest), batch
            return jnp.mean((jax.vmap(lambda x: model.decoder(model.encoder(x)))(spoilt) - clean) ** 2)

        optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
        return trained(loss, start, optimizer, batches, steps, key=second)[0]

    return jax.vmap(one)(counts, keys)


def _strange(images: Array, key: Key) -> list[Array]:
    """Upside down, with shuffled pixels, negative, and at a third of the contrast."""
    upside_down = images.reshape(-1, 8, 8)[:, ::-1].reshape(-1, 64)
    return [upside_down, images[:, jax.random.permutation(key, 64)], 1 - images, images / 3]


def _told(known: Array, strange: Array) -> float:
    """AUROC of a score that is to be higher for strange images."""
    return float(localisation(jnp.concatenate([known, strange])[None], np.repeat([[False, True]], len(known), 1))[0])


__all__ = ["PAPER", "checks"]
