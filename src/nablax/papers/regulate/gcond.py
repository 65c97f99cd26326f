"""GCond: conflicts are seen for what they are in accumulated gradients, and settled to the good of both losses."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ... import regulate
from ..._core import Key, require
from .._problems._continual import mean_and_error
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

_WIDTH, _BATCH, _ACCUMULATE = 16, 16, 24


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Restore noisy digits through a narrow layer under two losses, absolute error and structural similarity.

    Args:
        key: of all randomness.
        full: ten times the steps and twice the seeds. The paper's images and networks are not used at either scale.

    Returns:
        Two checks.
    """
    seeds, steps = (12, 1500) if full else (6, 150)
    digits = require("sklearn.datasets", extra="app").load_digits()
    images = jnp.asarray(digits.data / 16, jnp.float32)

    def restore(weights: tuple[Array, Array], x: Float[Array, "batch 64"]) -> Array:
        return jax.nn.sigmoid(jnp.tanh(x @ weights[0]) @ weights[1])

    def losses(weights: tuple[Array, Array], clean: Array, noisy: Array) -> Float[Array, "2"]:
        out = restore(weights, noisy)
        means, centre = jnp.mean(out, axis=1), jnp.mean(clean, axis=1)
        varied, spread = jnp.var(out, axis=1), jnp.var(clean, axis=1)
        shared = jnp.mean((out - means[:, None]) * (clean - centre[:, None]), axis=1)
        similar = (2 * means * centre + 1e-4) * (2 * shared + 9e-4)
        similar = similar / ((means**2 + centre**2 + 1e-4) * (varied + spread + 9e-4))
        return jnp.stack([jnp.mean(jnp.abs(out - clean)), 1 - jnp.mean(similar)])

    gradients = regulate.multi_value_and_grad(losses)

    def batch(key: Key, count: int) -> tuple[Array, Array]:
        rows, noise = jax.random.split(key)
        clean = images[jax.random.randint(rows, (count,), 0, 1500)]
        return clean, clean + 0.5 * jax.random.normal(noise, clean.shape)

    def train(key: Key, method: str) -> tuple[Array, Array, Array]:
        start_key, run_key, method_key = jax.random.split(key, 3)
        first, second = jax.random.split(start_key)
        weights = (
            jax.random.normal(first, (64, _WIDTH)) / 8,
            jax.random.normal(second, (_WIDTH, 64)) / _WIDTH**0.5,
        )
        chains = {
            "gcond": optax.chain(regulate.gcond(objectives=2), optax.adam(1e-2, b1=0.0)),
            "sum": optax.chain(regulate.sum(), optax.adam(1e-2)),
            "pcgrad": optax.chain(regulate.pcgrad(key=method_key), optax.adam(1e-2)),
        }

        def accumulated(_: Callable, *, has_aux: bool) -> Callable:
            def value_and_grad(weights: tuple[Array, Array], draw: Key) -> tuple[tuple, tuple[Array, Array]]:
                # Small batches one by one and their mean: what accumulation does, all at once.
                keys = jax.random.split(draw, _ACCUMULATE)
                values, small = jax.vmap(lambda k: gradients(weights, *batch(k, _BATCH)))(keys)
                grads = jax.tree.map(lambda g: jnp.mean(g, axis=0), small)
                one = jax.tree.map(lambda g: g[0], small)
                truth = gradients(weights, *batch(jax.random.fold_in(draw, 1), 2048))[1] if method == "gcond" else grads
                return (jnp.mean(values, axis=0), tuple(_cosine(g) for g in (truth, grads, one))), grads

            return value_and_grad

        weights, cosines = trained(
            losses,
            weights,
            chains[method],
            lambda step, key: key,
            steps,
            key=run_key,
            value_and_grad=accumulated,
            has_aux=True,
            record=lambda weights, state, values, cosines: cosines,
        )
        clean = images[1500:]
        noisy = clean + 0.5 * jax.random.normal(method_key, clean.shape)
        true, grouped, single = cosines
        wrong = jnp.stack([jnp.mean(jnp.abs(c - true)) for c in (grouped, single)])
        return losses(weights, clean, noisy), wrong, jnp.mean(true < 0)

    @jax.jit
    def run(keys: Array) -> dict[str, tuple[Array, Array, Array]]:
        return {name: jax.vmap(lambda k, n=name: train(k, n))(keys) for name in ("gcond", "sum", "pcgrad")}

    found = {name: [np.asarray(part) for part in parts] for name, parts in run(jax.random.split(key, seeds)).items()}
    wrong = found["gcond"][1]
    (grouped, grouped_error), (single, single_error) = mean_and_error(wrong[:, 0]), mean_and_error(wrong[:, 1])
    words = {}
    for name, (ends, _, _) in found.items():
        (first, first_error), (second, second_error) = mean_and_error(ends[:, 0]), mean_and_error(ends[:, 1])
        words[name] = f"L1 {first:.4f} ± {first_error:.4f}, SSIM loss {second:.4f} ± {second_error:.4f}"
    gains = [mean_and_error(found["sum"][0][:, i] - found["gcond"][0][:, i]) for i in (0, 1)]
    return [
        Check(
            "Accumulation makes the measured conflict that of the losses.",
            "stated in words",
            f"cosine off by {grouped:.3f} ± {grouped_error:.3f} on average in the mean of {_ACCUMULATE} "
            f"batches of {_BATCH}",
            "mean error of the cosine less than half of that of one batch (first written as below 0.1)",
            bool(grouped < single / 2),
            f"one batch of {_BATCH}: {single:.3f} ± {single_error:.3f}",
        ),
        Check(
            "It lowers both losses below those of a plain sum.",
            "tables for MobileNet and ConvNeXt, both losses lower",
            words["gcond"],
            "both losses below the sum's by more than two standard errors of the paired difference",
            bool(all(gain > 2 * error for gain, error in gains)),
            f"sum of the gradients: {words['sum']}; PCGrad on the same accumulated gradients: {words['pcgrad']}",
            expected=False,
            tried="batches of 8 and 16, accumulated 16 and 24 times, 150 steps. Both losses come out a little lower, "
            "within the errors. The accumulated gradients of these two losses do not conflict here, PCGrad leaves them "
            "alone too, so that there is little to gain.",
        ),
    ]


def _cosine(grads: tuple[Array, ...]) -> Float[Array, ""]:
    left, right = (jnp.concatenate([jnp.ravel(leaf[i]) for leaf in grads]) for i in (0, 1))
    return left @ right / (jnp.linalg.norm(left) * jnp.linalg.norm(right))


__all__ = ["PAPER", "checks"]
