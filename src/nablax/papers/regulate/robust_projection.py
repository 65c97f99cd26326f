"""Maintaining Adversarial Robustness in Continuous Learning: robust accuracy on old tasks, on permuted digits.

All methods train with the same defence, a penalty on the squared sample gradient; they differ in the projection alone.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ..._core import Key
from ...regulate import RobustProjectionState, extend_bases, robust_projection
from .._problems._batches import shuffled
from .._problems._continual import Tasks, Weights, accuracies, initial_weights, layer_inputs, permuted_digits
from .._problems._training import trained
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="robust-projection",
    title="Maintaining Adversarial Robustness in Continuous Learning",
    year=2024,
    link="https://arxiv.org/abs/2402.11196",
    rooms=("regulate",),
    row=251,
    read="text",
)

_BATCH = 64
_RATES = [0.1 * 2.0**step for step in range(-3, 3)]
_SIZES = (64, 96, 96, 10)
_SHARES = (0.9, 0.9, 0.9)  # protected energy of inputs and of sensitivities, layer by layer
_RADIUS = 0.2  # of the attack, in standard deviations of a pixel
_SMOOTHING = 1.0


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Learn permuted digits with a smoothing defence, and attack the old tasks at the end.

    Args:
        key: of all randomness.
        full: five tasks, five times the epochs and twice the seeds. Attacks are by the fast gradient sign in both; the
            paper's AutoAttack and its convolutional networks are not used.

    Returns:
        One check.
    """
    seeds, tasks, epochs = (12, 5, 30) if full else (6, 3, 6)

    def learnt(inputs: float, outputs: float) -> Callable[[Array, Key], dict[str, Array]]:
        def run(rate: Array, key: Key) -> dict[str, Array]:
            data_key, run_key = jax.random.split(key)
            robust = 100 * _learn(permuted_digits(data_key, tasks=tasks), run_key, rate, inputs, outputs, epochs)
            return {"fall": jnp.mean(jnp.diagonal(robust)[:-1] - robust[-1, :-1]), "end": jnp.mean(robust[-1])}

        return run

    methods = {
        "both sides": learnt(1, 1),
        "gradient projection memory": learnt(1, 0),
        "plain descent": learnt(0, 0),
    }
    runs = tuned(methods, _RATES, "higher", key=key, keys=seeds, tuning=4, of="end")
    return [
        Check(
            "Projection on both sides slows the loss of robustness on old tasks.",
            "stated in words and figures: robust accuracy degrades less than for baselines with the same defence",
            contrasts=[
                runs.contrast("fall of the robust accuracy on old tasks, percentage points", "lower", of="fall"),
                runs.contrast("robust accuracy over all tasks at the end, %", "higher", of="end"),
            ],
            moved_from="the same at one rate, 0.1, for all methods, and four draws of tasks and weights; then rates "
            "chosen over two draws, at one of which the baseline had the largest and lost some runs, and the "
            "difference was not resolved over eight",
        ),
    ]


def _objective(weights: Weights, x: Array, y: Array) -> Float[Array, ""]:
    """Cross-entropy and the penalty on its gradient with respect to the samples."""
    value, gradient = _with_sample_gradient(weights, x, y)
    return value + _SMOOTHING * jnp.mean(jnp.sum(jnp.square(gradient), axis=-1))


def _with_sample_gradient(weights: Weights, x: Array, y: Array) -> tuple[Array, Array]:
    def total(x: Array) -> tuple[Array, Array]:
        losses = optax.softmax_cross_entropy_with_integer_labels(layer_inputs(weights, x)[1], y)
        return jnp.sum(losses), jnp.mean(losses)

    (_, mean), gradient = jax.value_and_grad(total, has_aux=True)(x)
    return mean, gradient


def _attacked(weights: Weights, xs: Float[Array, "tasks samples inputs"], ys: Int[Array, "tasks samples"]) -> Array:
    """Accuracy on samples moved by the radius along the sign of their gradient."""
    moved = jax.vmap(lambda x, y: x + _RADIUS * jnp.sign(_with_sample_gradient(weights, x, y)[1]))(xs, ys)
    return accuracies(weights, moved, ys)


def _protect(
    weights: Weights, state: RobustProjectionState, x: Array, y: Array, inputs: float, outputs: float
) -> RobustProjectionState:
    """Add this task's layer inputs and sensitivities to what is protected."""

    def total(taps: tuple[Array, ...]) -> Array:
        hidden = x
        for weight, tap in zip(weights[:-1], taps):
            hidden = jax.nn.relu(hidden @ weight.T + tap)
        return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(hidden @ weights[-1].T + taps[-1], y))

    seen, _ = layer_inputs(weights, x)
    back = jax.grad(total)(tuple(jnp.zeros((x.shape[0], weight.shape[0])) for weight in weights))
    # The last layer's sensitivities are of the rank of the classes; protecting them would end all learning.
    back = (*back[:-1], jnp.zeros_like(back[-1]))

    def extend(bases: tuple, rows: tuple, on: float) -> tuple:
        return tuple(extend_bases(b, r, threshold=on * share) for b, r, share in zip(bases, rows, _SHARES))

    return RobustProjectionState(extend(state.bases, seen, inputs), extend(state.output_bases, back, outputs))


def _learn(
    data: Tasks, key: Key, rate: Float[Array, ""], inputs: float, outputs: float, epochs: int
) -> Float[Array, "tasks tasks"]:
    """Robust accuracy on every task after each.

    Projection on both sides, on inputs alone, and none are the same program with other numbers.
    """
    regulator = robust_projection()
    first, order_key = jax.random.split(key)
    weights = initial_weights(first, _SIZES)

    def task(carry: tuple, part: tuple) -> tuple[tuple, Array]:
        weights, state = carry
        number, x, y = part
        order = jax.random.fold_in(order_key, number)
        rows = shuffled(order, y.size, _BATCH, epochs)
        projected = optax.stateless(lambda grads, weights: regulator.update(grads, state)[0])
        weights, _ = trained(
            lambda weights, rows: _objective(weights, x[rows], y[rows]),
            weights,
            optax.chain(projected, optax.sgd(rate)),
            lambda step, key: rows[step],
            len(rows),
            key=order,
        )
        record = _attacked(weights, data.test_inputs, data.test_labels)
        return (weights, _protect(weights, state, x[:256], y[:256], inputs, outputs)), record

    # Own loop, over tasks: after each the method looks at its data for what it protects.
    parts = (jnp.arange(data.labels.shape[0]), data.inputs, data.labels)
    return jax.lax.scan(task, (weights, regulator.init(weights)), parts)[1]


__all__ = ["PAPER", "checks"]
