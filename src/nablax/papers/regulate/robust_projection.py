"""Maintaining Adversarial Robustness in Continuous Learning: robust accuracy on old tasks, on permuted digits.

All methods train with the same defence, a penalty on the squared sample gradient; they differ in the projection alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from ..._core import Key
from ...regulate import RobustProjectionState, extend_bases, robust_projection
from .._problems._continual import (
    Tasks,
    Weights,
    accuracies,
    initial_weights,
    layer_inputs,
    mean_and_error,
    permuted_digits,
)
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
_RATE = 0.1
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
    seeds, tasks, epochs = (8, 5, 30) if full else (4, 3, 6)
    data_key, run_key = jax.random.split(key)
    data = permuted_digits(data_key, seeds=seeds, tasks=tasks)
    # Plain descent, projection on inputs alone (gradient projection memory), projection on both sides.
    inputs, outputs = jnp.array([0.0, 1.0, 1.0]), jnp.array([0.0, 0.0, 1.0])
    methods = jax.vmap(_learn, in_axes=(None, None, 0, 0, None))
    run = jax.jit(jax.vmap(methods, in_axes=(0, 0, None, None, None)), static_argnums=4)
    clean, robust = (np.asarray(t) for t in run(data, jax.random.split(run_key, seeds), inputs, outputs, epochs))

    def lost(table: np.ndarray, method: int) -> np.ndarray:
        best = np.diagonal(table[:, method], axis1=1, axis2=2)[:, :-1]
        return 100 * (best - table[:, method, -1, :-1]).mean(1)

    def words(table: np.ndarray, method: int) -> str:
        return "{:.1f} ± {:.1f}".format(*mean_and_error(lost(table, method)))

    less, error = mean_and_error(lost(robust, 1) - lost(robust, 2))
    end = [100 * robust[:, method, -1].mean() for method in range(3)]
    return [
        Check(
            "Projection on both sides slows the loss of robustness on old tasks.",
            "stated in words and figures: robust accuracy degrades less than for baselines with the same defence",
            f"robust accuracy on old tasks falls by {words(robust, 2)} percentage points (clean {words(clean, 2)}); "
            f"at the end {end[2]:.1f} % over all tasks",
            "falls by less than under gradient projection memory, by more than two standard errors, and ends no lower",
            bool(less > 2 * error and end[2] >= end[1]),
            f"gradient projection memory with the same defence: {words(robust, 1)} (clean {words(clean, 1)}), "
            f"{end[1]:.1f} % at the end; plain descent: {words(robust, 0)}, {end[0]:.1f} %",
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
    weights: Weights, state: RobustProjectionState, x: Array, y: Array, inputs: Array, outputs: Array
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

    def extend(bases: tuple, rows: tuple, on: Array) -> tuple:
        return tuple(extend_bases(b, r, threshold=on * share) for b, r, share in zip(bases, rows, _SHARES))

    return RobustProjectionState(extend(state.bases, seen, inputs), extend(state.output_bases, back, outputs))


def _learn(
    data: Tasks, key: Key, inputs: Float[Array, ""], outputs: Float[Array, ""], epochs: int
) -> tuple[Float[Array, "tasks tasks"], Float[Array, "tasks tasks"]]:
    """Clean and robust accuracy on every task after each."""
    regulator = robust_projection()
    first, order_key = jax.random.split(key)
    weights = initial_weights(first, _SIZES)

    def task(carry: tuple, part: tuple) -> tuple[tuple, tuple]:
        weights, state = carry
        number, x, y = part
        keys = jax.random.split(jax.random.fold_in(order_key, number), epochs)
        samples = y.size // _BATCH * _BATCH
        batches = jax.vmap(lambda k: jax.random.permutation(k, samples))(keys).reshape(-1, _BATCH)

        def step(weights: Weights, rows: Array) -> tuple[Weights, None]:
            gradient, _ = regulator.update(jax.grad(_objective)(weights, x[rows], y[rows]), state)
            return optax.tree.sub(weights, optax.tree.scale(_RATE, gradient)), None

        weights, _ = jax.lax.scan(step, weights, batches)
        tests = data.test_inputs, data.test_labels
        record = accuracies(weights, *tests), _attacked(weights, *tests)
        return (weights, _protect(weights, state, x[:256], y[:256], inputs, outputs)), record

    parts = (jnp.arange(data.labels.shape[0]), data.inputs, data.labels)
    return jax.lax.scan(task, (weights, regulator.init(weights)), parts)[1]
