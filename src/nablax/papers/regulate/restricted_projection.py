"""Restricted Orthogonal Gradient Projection: forward transfer regained on permuted digits.

The paper's tasks are permuted MNIST, split CIFAR-100 and split miniImageNet. Here the 8 by 8 digits are permuted, ten
classes a task, one head for all, on three dense layers without biases as in the authors' code for permuted MNIST. Over
the first tasks the protected span leaves room enough and relaxing it changes little, so that six are learnt.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...regulate import GradientProjectionState, extend_bases, gradient_projection, relax_bases, relaxed_projection
from .._problems._batches import shuffled
from .._problems._continual import Weights, accuracies, cross_entropy, initial_weights, layer_inputs
from .._problems._permuted import drawn_tasks
from .._problems._training import trained
from .._problems._tuning import tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="restricted-projection",
    title="Restricted Orthogonal Gradient Projection for Continual Learning",
    year=2023,
    link="https://arxiv.org/abs/2301.12131",
    rooms=("regulate",),
    row=224,
    read="code",
)

_BATCH = 64
_RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
# Of the authors' code for permuted MNIST: energy of the inputs that is protected, and of the gradient's span.
_THRESHOLDS, _ENERGIES = (0.95, 0.99, 0.99), (0.97, 0.99, 0.99)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Learn permuted digits in sequence by plain descent, by gradient projection and by the relaxed one.

    As in the authors' code the rate is halved whenever protection has been relaxed, which stops for the task as soon as
    an epoch relaxes nothing.

    Args:
        key: of all randomness.
        full: ten tasks as in the paper, 20 epochs in place of five and twice the seeds; the data stay the small digits.

    Returns:
        Three checks.
    """
    seeds, tasks, epochs = (10, 10, 20) if full else (5, 6, 5)
    methods = {"relaxed": (True, True), "hard projection": (True, False), "plain descent": (False, False)}
    runs = tuned(
        {name: partial(_learn, *parts, tasks, epochs) for name, parts in methods.items()},
        _RATES,
        "higher",
        key=key,
        keys=seeds,
        tuning=2 if full else 1,
        of="end",
    )
    return [
        Check(
            "Relaxing the projection improves learning of new tasks.",
            "stated in words and figures: higher accuracy on each new task than gradient projection memory",
            contrasts=runs.contrast(
                "mean accuracy on a task just learnt, %", "higher", of="fresh", against=["hard projection"], margin=1.0
            ),
            moved_from="the same after three epochs a task at one rate for all, untuned",
        ),
        Check(
            "The first task is hardly forgotten.",
            "stated in words: previous knowledge is consolidated",
            contrasts=runs.contrast(
                "fall of the first task's accuracy, percentage points",
                "lower",
                of="fall",
                against=["plain descent"],
                ratio=0.5,
            ),
            moved_from="the same after three epochs a task at one rate for all, untuned",
        ),
        Check(
            "At the end more is known of all tasks.",
            "stated in words: superiority over several strong baselines (abstract)",
            contrasts=runs.contrast("mean accuracy over all tasks at the end, %", "higher", of="end"),
            moved_from="the same after three epochs a task at one rate for all, untuned",
        ),
    ]


def _learn(protect: bool, relax: bool, tasks: int, epochs: int, rate: Array, key: Key) -> dict[str, Float[Array, ""]]:
    """Accuracy in percent on tasks just learnt and on all at the end, and by how much it fell on the first."""
    regulator = relaxed_projection(penalty=1.0)
    data_key, first, order_key = jax.random.split(key, 3)
    data = drawn_tasks(data_key, tasks)
    weights = initial_weights(first, (64, 64, 64, 10))

    def task(carry: tuple, part: tuple) -> tuple[tuple, Array]:
        weights, state = carry
        number, x, y = part
        state = state._replace(anchor=weights, relaxed=jax.tree.map(jnp.zeros_like, state.bases))

        def epoch(carry: tuple, key: Key) -> tuple[tuple, None]:
            weights, state, rate, relaxing = carry
            rows = shuffled(key, y.size, _BATCH, 1)

            def projected(grads: Weights, weights: Weights) -> Weights:
                if relax:
                    return regulator.update(grads, state, weights)[0]
                kept = GradientProjectionState(state.bases)
                return gradient_projection().update(grads, kept)[0] if protect else grads

            weights, _ = trained(
                lambda weights, rows: cross_entropy(weights, x[rows], y[rows]),
                weights,
                optax.chain(optax.stateless(projected), optax.sgd(rate)),
                lambda step, key: rows[step],
                len(rows),
                key=key,
            )
            if not relax:
                return (weights, state, rate, relaxing), None
            gradient = jax.grad(cross_entropy)(weights, x[:125], y[:125])
            more = tuple(
                relax_bases(basis, old, part, energy=energy)
                for basis, old, part, energy in zip(state.bases, state.relaxed, gradient, _ENERGIES)
            )
            relaxing &= _directions(more) > _directions(state.relaxed)
            kept = jax.tree.map(lambda new, old: jnp.where(relaxing, new, old), more, state.relaxed)
            return (weights, state._replace(relaxed=kept), jnp.where(relaxing, rate / 2, rate), relaxing), None

        keys = jax.random.split(jax.random.fold_in(order_key, number), epochs)
        start: tuple = (weights, state, jnp.asarray(rate), jnp.asarray(True))
        (weights, state, *_), _ = jax.lax.scan(epoch, start, keys)
        if protect:
            seen, _ = layer_inputs(weights, x[:300])
            bases = tuple(
                extend_bases(basis, inputs, threshold=threshold)
                for basis, inputs, threshold in zip(state.bases, seen, _THRESHOLDS)
            )
            state = state._replace(bases=bases)
        return (weights, state), accuracies(weights, data.test_inputs, data.test_labels)

    # Between epochs, and between tasks, the method looks at the data for what it protects: no training loop's matter.
    parts = (jnp.arange(tasks), data.inputs, data.labels)
    table = 100 * jax.lax.scan(task, (weights, regulator.init(weights)), parts)[1]  # [tasks learnt, tasks tested]
    return {
        "fresh": jnp.mean(jnp.diagonal(table)[1:]),
        "fall": table[0, 0] - table[-1, 0],
        "end": jnp.mean(table[-1]),
    }


def _directions(bases: PyTree) -> Float[Array, ""]:
    """How many there are, layers together."""
    return jnp.sum(jnp.stack([jnp.sum(jnp.any(basis != 0, axis=0)) for basis in jax.tree.leaves(bases)]))


__all__ = ["PAPER", "checks"]
