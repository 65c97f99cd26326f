"""On the difficulty of training recurrent networks: a wall in the error, and errors that vanish in time."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...regulate import unrolled_value_and_grad, vanishing_gradient
from .._records import Check, Paper

PAPER = Paper(
    slug="training-recurrent-networks",
    title="On the difficulty of training Recurrent Neural Networks",
    year=2013,
    link="https://arxiv.org/abs/1211.5063",
    rooms=("regulate",),
    row=130,
    read="code",
)

_HIDDEN, _BATCH, _CLASSES = 50, 20, 4


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Descend on the one-unit network's wall, and learn the temporal-order task with and without the regulariser.

    Args:
        key: of all randomness.
        full: sequences of 100 steps and 20 000 updates in place of 20 and 400; the paper goes to 200 steps, and to
            music and text, which are not run.

    Returns:
        Two checks.
    """
    clipped, unclipped, count = _wall()
    length, steps, seeds = (100, 20_000, 5) if full else (20, 400, 1)
    runs = jax.jit(jax.vmap(lambda k: _order(k, length, steps)))
    errors, norms = (np.asarray(x).mean(0) for x in runs(jax.random.split(key, seeds)))
    return [
        Check(
            "Clipping the gradient's norm lets descent pass the wall that an exploding gradient throws it off.",
            "shown for one unit and 50 steps (figure 6)",
            f"{clipped} of {count} starts end with an error below 1e-3",
            "at least nine starts in ten",
            bool(clipped >= 0.9 * count > unclipped),
            f"the same without clipping: {unclipped} of {count}",
        ),
        Check(
            "The regulariser keeps errors from vanishing on their way back through time.",
            "stated in words (section 3.3)",
            f"error's norm {length - 1} steps back is {norms[1]:.2g} of that at the end after {steps} updates; "
            f"mistakes on the temporal-order task {100 * errors[1]:.1f} %",
            "the norm stays within a factor of 10",
            bool(0.1 <= norms[1] <= 10 and not 0.1 <= norms[0] <= 10),
            f"clipping alone: {norms[0]:.2g}; mistakes {100 * errors[0]:.1f} %",
        ),
    ]


def _wall() -> tuple[int, int, int]:
    """Starts that reach the goal with clipping and without: one sigmoid unit, 50 steps from 0.5 to a goal of 0.7."""

    def cost(params: Array) -> Array:
        def step(state: Array, _: None) -> tuple[Array, None]:
            return params[0] * jax.nn.sigmoid(state) + params[1], None

        end, _ = jax.lax.scan(step, jnp.array(0.5), None, length=50)
        return jnp.square(jax.nn.sigmoid(end) - 0.7)

    clip = optax.clip_by_global_norm(1.0)

    def run(start: Array, clipped: Array) -> Array:
        def step(params: Array, _: None) -> tuple[Array, None]:
            gradient = jax.grad(cost)(params)
            shorter, _ = clip.update(gradient, optax.EmptyState())
            return params - 0.05 * jnp.where(clipped, shorter, gradient), None

        return cost(jax.lax.scan(step, start, None, length=2000)[0])

    # Both sides of the wall, in the window of the paper's figure.
    weights, biases = jnp.meshgrid(jnp.linspace(4.0, 6.5, 8), jnp.linspace(-3.0, -2.0, 8))
    starts = jnp.stack([weights.ravel(), biases.ravel()], axis=1)
    costs = jax.jit(jax.vmap(jax.vmap(run, (0, None)), (None, 0)))(starts, jnp.array([True, False]))
    reached = np.asarray(jnp.sum(costs < 1e-3, axis=1))
    return int(reached[0]), int(reached[1]), len(starts)


def _sequences(key: Key, length: int) -> tuple[Float[Array, "time batch symbols"], Float[Array, "batch classes"]]:
    """Distractors, with one of two symbols early and one later: the class is which two, in which order."""
    keys = jax.random.split(key, 4)
    noise = jax.random.randint(keys[0], (length, _BATCH), 2, 6)
    marks = jax.random.randint(keys[1], (2, _BATCH), 0, 2)
    first = jax.random.randint(keys[2], (_BATCH,), length // 10, max(length // 5, length // 10 + 1))
    second = jax.random.randint(keys[3], (_BATCH,), length // 2, max(length * 6 // 10, length // 2 + 1))
    symbols = noise.at[first, jnp.arange(_BATCH)].set(marks[0]).at[second, jnp.arange(_BATCH)].set(marks[1])
    return jax.nn.one_hot(symbols, 6), jax.nn.one_hot(2 * marks[0] + marks[1], _CLASSES)


def _step(params: PyTree, state: Array, inputs: Array) -> Array:
    return jnp.tanh(state) @ params["recurrent"] + inputs @ params["in"] + params["bias"][None]


def _logits(params: PyTree, states: Array) -> Array:
    return jnp.tanh(states[-1]) @ params["out"]


def _cost(params: PyTree, states: Array, classes: Array) -> Array:
    return jnp.mean(optax.softmax_cross_entropy(_logits(params, states), classes))


def _order(key: Key, length: int, steps: int) -> tuple[Float[Array, " methods"], Float[Array, " methods"]]:
    """Share of mistakes, and how much of the error's norm is left at the first step, without and with the penalty."""
    keys = jax.random.split(key, 5)
    recurrent = jax.random.normal(keys[0], (_HIDDEN, _HIDDEN)) / jnp.sqrt(jnp.float32(_HIDDEN))
    start = {
        "recurrent": 0.5 * recurrent,  # spectral radius about a half: errors vanish to begin with
        "in": 0.1 * jax.random.normal(keys[1], (6, _HIDDEN)),
        "out": 0.1 * jax.random.normal(keys[2], (_HIDDEN, _CLASSES)),
        "bias": jnp.zeros(_HIDDEN),
    }
    differentiate = unrolled_value_and_grad(_step, _cost)
    rest = jnp.zeros((_BATCH, _HIDDEN))

    def run(weight: Array) -> tuple[Array, Array]:
        regulator, clip = vanishing_gradient(_step, 1.0), optax.clip_by_global_norm(1.0)

        def update(params: PyTree, key: Key) -> tuple[PyTree, None]:
            inputs, classes = _sequences(key, length)
            _, grads, unrolled = differentiate(params, rest, inputs, classes)
            more, _ = regulator.update(grads, regulator.init(params), params, unrolled=unrolled)
            grads = jax.tree.map(lambda g, m: g + weight * (m - g), grads, more)
            grads, _ = clip.update(grads, optax.EmptyState())
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), None

        params, _ = jax.lax.scan(update, start, jax.random.split(keys[3], steps))

        def test(key: Key) -> tuple[Array, Array]:
            inputs, classes = _sequences(key, length)
            _, _, unrolled = differentiate(params, rest, inputs, classes)
            norms = jnp.linalg.norm(unrolled.cotangents, axis=-1)
            end = _step(params, unrolled.states[-1], inputs[-1])
            mistakes = jnp.argmax(_logits(params, end[None]), axis=1) != jnp.argmax(classes, axis=1)
            return jnp.mean(mistakes), jnp.exp(jnp.mean(jnp.log(norms[0]) - jnp.log(norms[-1])))

        mistakes, ratio = jax.lax.map(test, jax.random.split(keys[4], 20))
        return jnp.mean(mistakes), jnp.exp(jnp.mean(jnp.log(ratio)))

    return jax.vmap(run)(jnp.array([0.0, 2.0]))
