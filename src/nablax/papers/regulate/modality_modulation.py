"""Adaptive gradient modulation on digits seen by halves: one half loud and noisy, the other faint and clean."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...regulate import modality_competition, modality_modulation, modality_value_and_grad
from .._problems._batches import accompanied, shuffled
from .._problems._classifier import digits
from .._problems._continual import initial_weights
from .._problems._training import trained
from .._problems._tuning import Run, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="modality-modulation",
    title="Boosting Multi-modal Model Performance with Adaptive Gradient Modulation",
    year=2023,
    link="https://arxiv.org/abs/2308.07686",
    rooms=("regulate",),
    row=5,
    read="code",
)

_BATCH, _TRAIN = 64, 1200
_PARTS = (slice(_TRAIN), slice(_TRAIN, None))
_NOISE, _FAINT = 1.0, 0.3
_RATES, _STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0), (0.0, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0)
_ENDS = {0.0: "no modulation"}


class _Halves(NamedTuple):
    """The two modalities, ``[samples, 32]`` each, and the labels."""

    parts: tuple[Array, Array]
    labels: Array


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Train on two modalities jointly, with and without modulation, and on either one alone.

    All by momentum of 0.9, each at its own best rate; gradients are clipped at a norm of 1, as in the authors' code,
    and for one of the baselines not.

    Args:
        key: of all randomness.
        full: four times the epochs and twice the keys. The paper's audiovisual data and ResNets are not used.

    Returns:
        Two checks.
    """
    keys, epochs = (12, 40) if full else (6, 10)
    methods = {
        "modulated, clipped": _run(epochs, clipped=True, modulated=True),
        "plain, clipped": _run(epochs, clipped=True, modulated=False),
        "plain": _run(epochs, clipped=False, modulated=False),
    }
    runs = tuned(methods, (_RATES, _STRENGTHS), "higher", key=key, keys=keys, of="accuracy", ends=_ENDS)
    return [
        Check(
            "Modulation improves joint training.",
            "stated in words and figures, for five data sets",
            contrasts=runs.contrast("test accuracy, %", "higher", of="accuracy"),
            expected=False,
            tried="momentum and clipping, rates of 0.003 to 1 and strengths of 0 to 40: at its best rate of 0.1 plain "
            "training, clipped, is at 86.9 ± 0.3 %, modulated at 86.5 ± 0.4; at a small rate for both there is a gain",
            moved_from="at a rate of 0.1 without momentum or clipping, the strength alone chosen; then at a rate of "
            "0.5, the best of four",
        ),
        Check(
            "Modulation lets the model rely more on the more informative modality: competition on it weakens.",
            "stated in words",
            contrasts=runs.contrast("competition on the clean half", "lower", of="competition"),
            expected=False,
            tried="the same grid: 0.161 ± 0.004 against 0.162 ± 0.005; by accuracy strengths of 10 and of 0 are chosen",
            moved_from="the same",
        ),
    ]


def _run(epochs: int, *, clipped: bool, modulated: bool) -> Run:
    """Test accuracy in percent of joint training, and competition on the clean half, at a rate and a strength."""

    def run(setting: Float[Array, "2"], key: Key) -> dict[str, Array]:
        rate, strength = setting[0], modulated * setting[1]
        order_key, noise_key, run_key = jax.random.split(key, 3)
        images, labels = digits()
        order = jax.random.permutation(order_key, len(images))
        x, y = ((images - jnp.mean(images)) / jnp.std(images))[order], labels[order]
        noise = jax.random.split(noise_key)
        train_set, test_set = (_halves(k, x[part], y[part]) for k, part in zip(noise, _PARTS))
        clip = optax.clip_by_global_norm(1.0) if clipped else optax.identity()

        def learn(strength: Array, keep: Array) -> dict:
            modulation = accompanied(modality_modulation(2, strength), "scores")
            optimizer = optax.chain(modulation, clip, optax.sgd(rate, momentum=0.9))
            return _learn(_kept(train_set, keep), run_key, optimizer, epochs)

        # Joint training, and on the clean half alone, the other being zeros: one program.
        present = jnp.array([[1.0, 1.0], [0.0, 1.0]])
        params = jax.vmap(learn)(jnp.stack([strength, jnp.zeros(())]), present)

        def outputs(params: dict, keep: Array, data: _Halves) -> tuple[Array, Array]:
            return _features(params, _kept(data, keep).parts)

        features, concept = jax.vmap(outputs, in_axes=(0, 0, None))(params, present, train_set)
        test_features, logits = jax.vmap(outputs, in_axes=(0, 0, None))(params, present, test_set)
        return {
            "accuracy": 100 * jnp.mean((logits[0].argmax(-1) == test_set.labels).astype(jnp.float32)),
            "competition": modality_competition(features[0], concept[1], test_features[0], logits[1]),
        }

    return run


def _halves(key: Key, x: Array, y: Array) -> _Halves:
    image = x.reshape(-1, 8, 8)
    loud, faint = (image[:, :, part].reshape(-1, 32) for part in (slice(0, 4), slice(4, 8)))
    return _Halves((loud + _NOISE * jax.random.normal(key, loud.shape), _FAINT * faint), y)


def _kept(data: _Halves, keep: Float[Array, "2"]) -> _Halves:
    return data._replace(parts=(keep[0] * data.parts[0], keep[1] * data.parts[1]))


def _features(params: dict, parts: tuple[Array, Array]) -> tuple[Array, Array]:
    """Features before the last layer, and logits; the halves are fused by a layer of their own."""
    hidden = [jax.nn.relu(x @ w.T) for x, w in zip(parts, params["encoders"])]
    fused = jax.nn.relu(jnp.concatenate(hidden, axis=-1) @ params["fusion"].T)
    return fused, fused @ params["head"].T


def _learn(data: _Halves, key: Key, optimizer: optax.GradientTransformation, epochs: int) -> dict:
    first, second, third, order = jax.random.split(key, 4)
    encoders = initial_weights(first, (32, 32)) + initial_weights(second, (32, 32))
    fusion, head = initial_weights(third, (64, 32, 10))
    rows = shuffled(order, data.labels.size, _BATCH, epochs)

    def loss(logits: Array, y: Array) -> Array:
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))

    def predict(params: dict, parts: tuple[Array, Array]) -> Array:
        return _features(params, parts)[1]

    def gradient(params: dict, batch: _Halves) -> tuple[Array, tuple[dict, Array]]:
        value, scores, gradients = modality_value_and_grad(predict, loss)(params, *batch)
        return value, (gradients, scores)

    params, _ = trained(
        lambda params, batch: loss(predict(params, batch.parts), batch.labels),
        {"encoders": encoders, "fusion": fusion, "head": head},
        optimizer,
        lambda step, key: jax.tree.map(lambda x: x[rows[step]], data),
        len(rows),
        key=order,
        value_and_grad=lambda _: gradient,
    )
    return params


__all__ = ["PAPER", "checks"]
