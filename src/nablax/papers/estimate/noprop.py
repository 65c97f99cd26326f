"""NoProp on the digits: blocks that learn to denoise a label, each by itself, against the same chain end to end."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...estimate import NoProp
from .._contrast import Contrast
from .._problems._classifier import cross_entropy, split_digits
from .._problems._training import trained
from .._problems._tuning import Run, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="noprop",
    title="NoProp: Training Neural Networks without Back-propagation or Forward-propagation",
    year=2025,
    link="https://arxiv.org/abs/2503.24322",
    rooms=("estimate",),
    row=48,
    read="code",
)

_RATES = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
_ENDS = dict.fromkeys((1e-4, 1e-1), "blocks as drawn tell the last layer nothing, at whatever rate")
_TRAIN, _BATCH, _BLOCKS, _HIDDEN = 1200, 32, 5, 32
_WAYS = ("NoProp", "end to end", "blocks as drawn")


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train a chain of blocks, each alone, all by backpropagation through the chain, or none but the last layer.

    Args:
        key: of all randomness.
        full: eight times the steps and twice the keys; the paper's image sets are not used.

    Returns:
        Two checks.
    """
    keys, steps = (8, 3200) if full else (4, 300)
    runs = tuned({way: _run(way, steps) for way in _WAYS}, _RATES, "higher", key=key, keys=keys, ends=_ENDS)
    behind = {way: runs.results["end to end"] - np.asarray(runs.results[way]) for way in ("NoProp", "blocks as drawn")}
    return [
        Check(
            "Blocks that never see one another make an accurate classifier.",
            "99.5 % on MNIST in discrete time, from memory; superior to other methods without backpropagation",
            contrasts=runs.contrast("test accuracy, %", "higher", against=("blocks as drawn",), threshold=95.0),
            expected=False,
            tried="five blocks of 32 units, 300 steps of 32 digits, rates from 0.0001 to 0.1; the 95 % are ours, for "
            "digits of 8 × 8 pixels",
        ),
        Check(
            "It is as accurate as the same blocks trained end to end.",
            "on MNIST level with backpropagation, from memory",
            contrasts=Contrast(
                "test accuracy behind end-to-end training, percentage points",
                behind,
                "lower",
                threshold=1.0,
                settings={way: runs.settings[way] for way in behind},
            ),
        ),
    ]


class _Block(eqx.Module):
    """A label's noisy embedding and an image in, logits out."""

    net: eqx.nn.MLP

    def __call__(self, z: Array, x: Array) -> Array:
        return self.net(jnp.concatenate([z, x]))


def _model(key: Key) -> NoProp:
    head_key, *keys = jax.random.split(key, _BLOCKS + 1)
    blocks = tuple(_Block(eqx.nn.MLP(10 + 64, 10, _HIDDEN, 1, key=one)) for one in keys)
    return NoProp(blocks, jnp.eye(10), key=head_key)


def _run(way: str, steps: int) -> Run:
    """Test accuracy in percent."""

    def run(rate: Float[Array, ""], key: Key) -> Float[Array, ""]:
        data_key, net_key, batch_key, test_key = jax.random.split(key, 4)
        x, y, test_x, test_y = split_digits(data_key, _TRAIN)
        arrays, rest = eqx.partition(_model(net_key), eqx.is_inexact_array)

        def loss(arrays: NoProp, batch: tuple[Array, Array], *, key: Key) -> Array:
            model, (images, labels) = eqx.combine(arrays, rest), batch
            keys = jax.random.split(key, _BATCH)
            if way == "NoProp":
                return jnp.mean(jax.vmap(lambda x, y, key: model.loss(x, y, key=key))(images, labels, keys))
            if way == "blocks as drawn":
                held = jax.tree.map(_held, (model.blocks, model.embedding))
                model = eqx.tree_at(lambda model: (model.blocks, model.embedding), model, held)
            return cross_entropy(_answers(model)(images, keys), labels)

        def batches(step: Array, key: Key) -> tuple[Array, Array]:
            rows = jax.random.randint(key, (_BATCH,), 0, _TRAIN)
            return x[rows], y[rows]

        arrays, _ = trained(loss, arrays, optax.adam(rate), batches, steps, key=batch_key)
        scores = _answers(eqx.combine(arrays, rest))(test_x, jax.random.split(test_key, len(test_x)))
        return 100 * jnp.mean((jnp.argmax(scores, axis=1) == test_y).astype(jnp.float32))

    return run


def _answers(model: NoProp) -> Callable[[Array, Key], Array]:
    return jax.vmap(lambda x, key: model(x, key=key))


def _held(leaf: object) -> object:
    return jax.lax.stop_gradient(leaf) if eqx.is_array(leaf) else leaf


__all__ = ["PAPER", "checks"]
