"""GCond: conflicts are seen for what they are in accumulated gradients, and settled to the good of both losses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ... import regulate
from ..._core import Key
from .._contrast import Contrast
from .._problems._classifier import digits
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="gcond",
    title="GCond: Gradient Conflict Resolution via Accumulation-based Stabilization for Large-Scale Multi-Task "
    "Learning",
    year=2025,
    link="https://arxiv.org/abs/2509.07252",
    rooms=("regulate",),
    row=34,
    read="code",
)

_WIDTH, _BATCH, _ACCUMULATE, _TRAIN = 16, 16, 24, 1500
_Weights = tuple[Float[Array, "pixels width"], Float[Array, "width pixels"]]


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Restore noisy digits through a narrow layer under two losses, absolute error and structural similarity.

    Args:
        key: of all randomness.
        full: ten times the steps and twice the seeds. The paper's images and networks are not used at either scale.

    Returns:
        Two checks.
    """
    seeds, steps = (12, 1500) if full else (6, 150)
    images, _ = digits()
    start_key, run_key, path_key, noise_key, method_key = jax.random.split(key, 5)
    draws = jax.random.normal(start_key, (2, seeds, 64, _WIDTH))
    starts = draws[0] / 8, draws[1].swapaxes(1, 2) / _WIDTH**0.5
    # Each image with four draws of the noise, and rows for all steps: where a loop draws, compiling it takes longest.
    noisy = images[None] + 0.5 * jax.random.normal(noise_key, (4, *images.shape))
    pool = jnp.tile(images[:_TRAIN], (4, 1)), noisy[:, :_TRAIN].reshape(-1, 64)
    test = images[_TRAIN:], noisy[0, _TRAIN:]
    rows = jax.random.randint(run_key, (seeds, steps, _ACCUMULATE * _BATCH), 0, len(pool[0]))

    def batch(rows: Array) -> tuple[Array, Array]:
        return pool[0][rows], pool[1][rows]

    def train(chain: optax.GradientTransformation, weights: _Weights, rows: Array) -> tuple[Array, _Weights]:
        weights, path = trained(
            _losses,
            weights,
            chain,
            # The mean gradient of small batches of one size is that of all of them together.
            lambda step, key: batch(rows[step]),
            steps,
            key=method_key,
            value_and_grad=regulate.multi_value_and_grad,
            record=lambda weights, state, values: weights,
            every=steps // 15,
        )
        return _losses(weights, test), path

    @jax.jit
    @jax.vmap
    def misses(weights: _Weights, rows: Array) -> tuple[Array, Array]:
        counts = np.cumsum([2048, _ACCUMULATE * _BATCH])
        true, grouped, single = (_cosine(weights, batch(part)) for part in jnp.split(rows, counts))
        return jnp.abs(grouped - true), jnp.abs(single - true)

    chains = {
        "GCond": optax.chain(regulate.gcond(objectives=2), optax.adam(1e-2, b1=0.0)),
        "sum of the gradients": optax.chain(regulate.sum(), optax.adam(1e-2)),
        # GCond averages over steps before Adam scales, which by itself makes other steps.
        "sum, averaged over steps as GCond does": optax.chain(regulate.sum(), optax.ema(0.9), optax.adam(1e-2, b1=0.0)),
        "PCGrad": optax.chain(regulate.pcgrad(key=method_key), optax.adam(1e-2)),
    }
    runs = {name: jax.jit(jax.vmap(partial(train, chain)))(starts, rows) for name, chain in chains.items()}
    path = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), runs["GCond"][1])
    others = jax.random.randint(path_key, (len(path[0]), 2048 + (_ACCUMULATE + 1) * _BATCH), 0, len(pool[0]))
    grouped, single = (x.reshape(seeds, -1).mean(1) for x in misses(path, others))
    found = {"accumulated": grouped, f"one batch of {_BATCH}": single}
    return [
        Check(
            f"Accumulation, of {_ACCUMULATE} batches of {_BATCH}, makes the measured conflict that of the losses.",
            "stated in words",
            contrasts=Contrast("mean error of the cosine between the gradients", found, "lower", ratio=0.5),
            moved_from="an error below 0.1",
        ),
        Check(
            "It lowers both losses below those of a plain sum.",
            "tables for MobileNet and ConvNeXt, both losses lower",
            contrasts=[
                Contrast(f"test loss, {name}", {method: ends[:, i] for method, (ends, _) in runs.items()}, "lower")
                for i, name in enumerate(("L1", "structural similarity"))
            ],
            expected=False,
            tried="batches of 8 and 16, accumulated 16 and 24 times, 150 steps. The accumulated gradients of these two "
            "losses do not conflict here, PCGrad leaves them alone too; both losses come out a little lower than the "
            "sum's, as they do where the sum is averaged over steps in the same way",
        ),
    ]


def _losses(weights: _Weights, batch: tuple[Float[Array, "n 64"], Float[Array, "n 64"]]) -> Float[Array, "2"]:
    """Absolute error of the restored images, and one minus their structural similarity."""
    clean, noisy = batch
    out = jax.nn.sigmoid(jnp.tanh(noisy @ weights[0]) @ weights[1])
    means, centre = jnp.mean(out, axis=1), jnp.mean(clean, axis=1)
    varied, spread = jnp.var(out, axis=1), jnp.var(clean, axis=1)
    shared = jnp.mean((out - means[:, None]) * (clean - centre[:, None]), axis=1)
    similar = (2 * means * centre + 1e-4) * (2 * shared + 9e-4)
    similar = similar / ((means**2 + centre**2 + 1e-4) * (varied + spread + 9e-4))
    return jnp.stack([jnp.mean(jnp.abs(out - clean)), 1 - jnp.mean(similar)])


def _cosine(weights: _Weights, batch: tuple[Array, Array]) -> Float[Array, ""]:
    _, grads = regulate.multi_value_and_grad(_losses)(weights, batch)
    left, right = jnp.concatenate([leaf.reshape(2, -1) for leaf in grads], axis=1)
    return left @ right / (jnp.linalg.norm(left) * jnp.linalg.norm(right))


__all__ = ["PAPER", "checks"]
