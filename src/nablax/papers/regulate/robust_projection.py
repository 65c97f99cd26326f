"""Maintaining Adversarial Robustness in Continuous Learning: robust accuracy on old tasks, on permuted digits.

All methods train with the same defence, a penalty on the squared sample gradient; they differ in the projection alone.
The paper protects, layer by layer, the span of the layer's inputs and that of their Jacobians with respect to the
sample. The two-sided projection of `nablax.regulate` is another way to the same end, derived here, and beside it.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ..._core import Key
from ...regulate import RobustProjectionState, extend_bases, robust_projection
from .._problems._batches import shuffled
from .._problems._continual import Weights, accuracies, initial_weights, layer_inputs
from .._problems._permuted import drawn_tasks
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
_RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
_SIZES = (64, 64, 64, 10)
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
        Two checks.
    """
    seeds, tasks, epochs = (10, 5, 20) if full else (5, 3, 4)
    # What is protected besides nothing: inputs, their Jacobians, and sensitivities, on the other side.
    methods = {
        "inputs and their Jacobians": (True, True, False),
        "gradient projection memory": (True, False, False),
        "plain descent": (False, False, False),
        "both sides": (True, False, True),
    }
    runs = tuned(
        {name: partial(_learn, *parts, tasks, epochs) for name, parts in methods.items()},
        _RATES,
        "higher",
        key=key,
        keys=seeds,
        tuning=2 if full else 1,
        of="end",
    )
    baselines = ["gradient projection memory", "plain descent"]
    fall = "fall of the robust accuracy on old tasks, percentage points"
    end = "robust accuracy over all tasks at the end, %"
    ours = runs._replace(results={"both sides": runs.results["both sides"], **runs.results})
    return [
        Check(
            "Projection off inputs and their Jacobians slows the loss of robustness on old tasks.",
            "stated in words and figures: robust accuracy degrades less than for baselines with the same defence",
            contrasts=[
                runs.contrast(fall, "lower", of="fall", against=baselines),
                runs.contrast(end, "higher", of="end", against=baselines),
            ],
            moved_from="the same of the two-sided projection alone, at one rate for all, untuned",
        ),
        Check(
            "So does projection on both sides, which is derived here.",
            "the same aim by another projection, which is not the paper's",
            contrasts=[
                ours.contrast(fall, "lower", of="fall", against=baselines),
                ours.contrast(end, "higher", of="end", against=baselines),
            ],
            moved_from="the same at one rate for all, untuned",
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
    weights: Weights, state: RobustProjectionState, x: Array, y: Array, jacobians: bool, outputs: bool
) -> RobustProjectionState:
    """Add this task's layer inputs to what is protected, and their Jacobians or sensitivities where that is asked."""

    def total(taps: tuple[Array, ...]) -> Array:
        hidden = x
        for weight, tap in zip(weights[:-1], taps):
            hidden = jax.nn.relu(hidden @ weight.T + tap)
        return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(hidden @ weights[-1].T + taps[-1], y))

    def extend(bases: tuple, rows: tuple) -> tuple:
        return tuple(extend_bases(b, r, threshold=share) for b, r, share in zip(bases, rows, _SHARES))

    bases, output_bases = extend(state.bases, layer_inputs(weights, x)[0]), state.output_bases
    if jacobians:
        # The first layer's are the identity: it is all but frozen after the first task.
        slopes = jax.vmap(jax.jacfwd(lambda one: tuple(seen[0] for seen in layer_inputs(weights, one[None])[0])))(x)
        # A triangle of the same Gram matrix in place of thousands of rows.
        rows = tuple(jnp.linalg.qr(jnp.swapaxes(j, 1, 2).reshape(-1, j.shape[1]), mode="r") for j in slopes)
        bases = extend(bases, rows)
    if outputs:
        back = jax.grad(total)(tuple(jnp.zeros((x.shape[0], weight.shape[0])) for weight in weights))
        # The last layer's sensitivities are of the rank of the classes; protecting them would end all learning.
        output_bases = extend(output_bases, (*back[:-1], jnp.zeros_like(back[-1])))
    return RobustProjectionState(bases, output_bases)


def _learn(
    inputs: bool, jacobians: bool, outputs: bool, tasks: int, epochs: int, rate: Array, key: Key
) -> dict[str, Float[Array, ""]]:
    """Robust accuracy in percent on all tasks at the end, and its fall on the old ones since they were learnt."""
    regulator = robust_projection()
    data_key, first, order_key = jax.random.split(key, 3)
    data = drawn_tasks(data_key, tasks)
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
        if inputs:
            state = _protect(weights, state, x[:128], y[:128], jacobians, outputs)
        return (weights, state), record

    # Over tasks: after each the method looks at its data for what it protects.
    parts = (jnp.arange(tasks), data.inputs, data.labels)
    table = 100 * jax.lax.scan(task, (weights, regulator.init(weights)), parts)[1]  # [tasks learnt, tasks tested]
    fall = jnp.mean(jnp.diagonal(table)[:-1] - table[-1, :-1])
    return {"fall": fall, "end": jnp.mean(table[-1])}


__all__ = ["PAPER", "checks"]
