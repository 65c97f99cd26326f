"""Metagradients: what each example did to the training, by the gradient through all of it.

A small net learns digits of which three in ten bear a wrong label; validation digits are clean. The metagradient of the
validation loss in the examples' weights is to tell the wrong ones.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._core import Key
from ...estimate import metagradient
from .._problems._classifier import cross_entropy, logits, network, pooled_digits
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="metagradients",
    title="Optimizing ML Training with Metagradient Descent",
    year=2025,
    link="https://arxiv.org/abs/2503.13751",
    rooms=("estimate",),
    row=161,
    read="text",
)

_TRAIN, _VALIDATION, _BATCH, _WRONG = 400, 100, 50, 0.3
_STEPS, _BRANCHING = 100, 10  # a hundred steps are two levels of ten
_RATES = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0]


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Rank examples by three signs of a wrong label, each at the rate of training that serves it best.

    Args:
        key: of the digits, the wrong labels, the net and the batches.
        full: whole images, 1,000 of them, and 1,000 steps.

    Returns:
        Two checks.
    """
    runs = tuned(
        {name: _run(name, full) for name in ("metagradient", "influence at the end", "loss at the end")},
        _RATES,
        "higher",
        key=key,
        keys=4,
        tuning=4,
    )
    metric = "area under the curve of wrong against right labels"
    return [
        Check(
            "The metagradient in the examples' weights finds wrong labels that influence at the end misses.",
            "stated in words: data chosen by metagradients beats data chosen by influence",
            contrasts=runs.contrast(metric, "higher", against=("influence at the end",), margin=0.1),
            moved_from="above 0.9, with influence and the loss at the end both below; then six rates up to 0.1, chosen "
            "over two draws, where at other keys a baseline's best was the last",
        ),
        Check(
            "It finds them better than the loss at the end of training does, the sign that is in use.",
            "stated in words: data chosen by metagradients beats what is in use; this baseline is ours",
            contrasts=runs.contrast(metric, "higher", against=("loss at the end",)),
            expected=False,
            tried="one metagradient at equal weights, eight rates each; the loss of an example that was not learnt by "
            "the best of its rates tells more than one gradient through the training",
        ),
    ]


def _run(name: str, full: bool) -> Callable[[Array, Key], Array]:
    images, labels = pooled_digits(full)
    train, steps = (1000, 1000) if full else (_TRAIN, _STEPS)
    sizes = (images.shape[1], 32, 10)

    def run(rate: Float[Array, ""], key: Key) -> Float[Array, ""]:
        rows_key, wrong_key, shift_key, net_key, batch_key = jax.random.split(key, 5)
        rows = jax.random.permutation(rows_key, len(images))[: train + _VALIDATION]
        x, y = images[rows], labels[rows]
        wrong = jax.random.bernoulli(wrong_key, _WRONG, (train,))
        shift = jax.random.randint(shift_key, (train,), 1, 10)
        x, y, clean, truth = x[:train], jnp.where(wrong, (y[:train] + shift) % 10, y[:train]), x[train:], y[train:]
        # Smooth at zero, as the authors have it: the root of an average that is zero has no derivative.
        optimizer = optax.adam(rate, eps_root=1e-6)

        def each(net: PyTree) -> Float[Array, " train"]:
            return optax.softmax_cross_entropy_with_integer_labels(logits(net, x), y)

        def update(state: tuple[PyTree, PyTree], weights: Array, step: Int[Array, ""]) -> tuple[PyTree, PyTree]:
            net, inner = state
            chosen = jax.random.randint(jax.random.fold_in(batch_key, step), (_BATCH,), 0, train)

            def loss(net: PyTree) -> Array:
                found = optax.softmax_cross_entropy_with_integer_labels(logits(net, x[chosen]), y[chosen])
                return jnp.mean(weights[chosen] * found)

            changes, inner = optimizer.update(jax.grad(loss)(net), inner)
            return optax.apply_updates(net, changes), inner

        def validated(state: tuple[PyTree, PyTree], weights: Array) -> Array:
            return cross_entropy(logits(state[0], clean), truth)

        net = network(net_key, sizes)
        start = net, optimizer.init(net)
        if name == "metagradient":
            _, score = metagradient(update, validated, steps=steps, branching=_BRANCHING)(jnp.ones(train), start)
        else:
            # Own loop: the same update as that which is differentiated through.
            (net, _), _ = jax.lax.scan(lambda s, t: (update(s, jnp.ones(train), t), None), start, jnp.arange(steps))
            if name == "loss at the end":
                score = each(net)
            else:
                pull = jax.grad(lambda net: cross_entropy(logits(net, clean), truth))(net)
                # Weight on an example moves the net against its gradient: what that does to the validation loss.
                score = -jax.jvp(each, (net,), (pull,))[1]
        return _area(score, wrong)

    return run


def _area(score: Float[Array, " train"], wrong: Bool[Array, " train"]) -> Float[Array, ""]:
    """The chance that an example with a wrong label scores higher than one with a right label."""
    higher = (score[:, None] > score[None]) + 0.5 * (score[:, None] == score[None])
    pairs = wrong[:, None] & ~wrong[None]
    return jnp.sum(jnp.where(pairs, higher, 0)) / jnp.sum(pairs)


__all__ = ["PAPER", "checks"]
