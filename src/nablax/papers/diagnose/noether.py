r"""Noether's learning dynamics: symmetries of the loss that the learning rule breaks.

A classifier with two layers about a ReLU, which may be rescaled against each other, and a direction that is normalised,
which may be scaled, learns from mini-batches. With $D = \tfrac12\langle\delta(\theta),\theta\rangle$ for each symmetry,
the gradient flow keeps $D$ or lets the weight decay shrink it; the theory adds what the kinetic energy puts in.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...diagnose import noether, rescaling_symmetry, scaling_symmetry
from .._contrast import Contrast
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="noether",
    title="Noether's Learning Dynamics: Role of Symmetry Breaking in Neural Networks",
    year=2021,
    link="https://arxiv.org/abs/2105.02716",
    rooms=("diagnose",),
    row=68,
    read="text",
)

Params = dict[str, Array]
_SYMMETRIES = {
    "scale": scaling_symmetry(lambda p: p["unit"]),
    "rescale": rescaling_symmetry(lambda p: p["in"], lambda p: p["out"]),
}


def _loss(p: Params, xs: Float[Array, "rows 8"], ys: Array) -> Float[Array, ""]:
    gain = xs @ (p["unit"] / jnp.linalg.norm(p["unit"]))
    logits = jax.nn.relu(xs @ p["in"]) @ p["out"] * (1 + gain[:, None])
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), ys[:, None], axis=1))


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Check the motion of the charges in mini-batch descent, and the adaptive rate that normalisation implies.

    Args:
        key: of all randomness.
        full: more seeds and steps. The paper's image networks are not attempted.

    Returns:
        Two checks.
    """
    seeds, steps = (16, 10_000) if full else (3, 2000)
    keys = jax.random.split(key, seeds)
    return [_charges(keys, steps), _adaptive(keys, steps)]


@partial(jax.jit, static_argnames="steps")
def _train(keys: Key, steps: int, rule: dict[str, float]) -> tuple[Params, Params]:
    """Weights before each step, and their velocity in it, ``[trainings, steps, ...]``."""
    heavy_ball = optax.chain(
        optax.add_decayed_weights(rule["weight_decay"]),
        optax.trace(rule["momentum"]),
        optax.scale(-rule["learning_rate"]),
    )

    def one(key: Key) -> tuple[Params, Params]:
        weight_key, teacher_key, data_key, batch_key = jax.random.split(key, 4)
        make = jax.random.split(weight_key, 3)
        start = {
            "in": 0.5 * jax.random.normal(make[0], (8, 32)),
            "out": 0.2 * jax.random.normal(make[1], (32, 4)),
            "unit": jax.random.normal(make[2], (8,)) / jnp.sqrt(8),
        }
        xs = jax.random.normal(data_key, (512, 8))
        ys = jnp.argmax(jnp.sin(2 * xs @ jax.random.normal(teacher_key, (8, 4))), axis=1)

        def batches(step: Array, key: Key) -> tuple[Array, Array]:
            rows = jax.random.randint(key, (16,), 0, 512)
            return xs[rows], ys[rows]

        _, (after, pulls) = trained(
            lambda params, batch: _loss(params, *batch),
            start,
            heavy_ball,
            batches,
            steps,
            key=batch_key,
            record=lambda params, state, value: (params, state[1].trace),
        )
        before = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest[:-1]]), start, after)
        return before, jax.tree.map(jnp.negative, pulls)

    return jax.vmap(one)(keys)


def _charges(keys: Key, steps: int) -> Check:
    rule = {"learning_rate": 0.05, "momentum": 0.8, "weight_decay": 1e-3}
    params, velocity = _train(keys, steps, rule)

    def kinetic(params: Params, velocity: Params) -> dict[str, Array]:
        # What the loss adds is not asked for: one example will do.
        nothing = jnp.zeros((1, 8)), jnp.zeros(1, int)
        record = noether(_loss, params, velocity, *nothing, generators=_SYMMETRIES, **rule)
        return {name: motion.kinetic for name, motion in record.symmetries.items()}

    pushes = jax.jit(jax.vmap(jax.vmap(kinetic)))(params, velocity)
    values = {"scale": _square(params["unit"]) / 2, "rescale": (_square(params["in"]) - _square(params["out"])) / 2}
    mass, friction = rule["learning_rate"] * (1 + rule["momentum"]) / 2, 1 - rule["momentum"]
    shrink = np.exp(-2 * rule["weight_decay"] * rule["learning_rate"] / friction)
    kept = shrink ** np.arange(steps)[::-1]

    def unexplained(name: str, breaking: float) -> np.ndarray:
        push = breaking * mass * rule["learning_rate"] / friction * np.asarray(pushes[name], np.float64)
        # Beside the change that weight decay alone makes.
        change = values[name][:, -1] - kept[0] * values[name][:, 0]
        return np.abs(push[:, :-1] @ kept[1:] - change) / np.abs(change)

    return Check(
        "Symmetries that the kinetic energy breaks set their charges in motion, by a known amount.",
        "an equation, and figures",
        contrasts=[
            Contrast(
                f"unexplained share of the change of the charge ({name})",
                {"with the kinetic term": unexplained(name, 1.0), "gradient flow": unexplained(name, 0.0)},
                "lower",
                threshold=0.05,
            )
            for name in _SYMMETRIES
        ],
    )


def _adaptive(keys: Key, steps: int) -> Check:
    rule = {"learning_rate": 0.1, "momentum": 0.0, "weight_decay": 5e-3}
    rate, decay = rule["learning_rate"], rule["weight_decay"]
    params, velocity = _train(keys, steps, rule)
    size = _square(params["unit"])
    # The gradient at the direction of length one: the loss's own, whatever the weights' length.
    squared = size * _square(velocity["unit"] + decay * params["unit"])
    # The theory's recursion; no training.
    fourth = [size[:, 0] ** 2]
    for push in 2 * rate**2 * squared[:, :-1].T:
        fourth.append(np.exp(-4 * decay * rate) * fourth[-1] + push)
    lengths = {
        "mean of squared gradients": np.sqrt(np.stack(fourth, 1)),
        "weight decay alone": size[:, :1] * np.exp(-2 * decay * rate * np.arange(steps))[None],
    }
    return Check(
        "Normalisation makes descent adaptive: the effective rate is that of RMSProp, the rate over the root of a "
        "decaying mean of squared gradients.",
        "an analogy, with an equation",
        contrasts=Contrast(
            "largest error of the effective rate in a training, logarithm",
            {name: np.abs(np.log(length / size)).max(1) for name, length in lengths.items()},
            "lower",
            threshold=0.1,
        ),
    )


def _square(paths: Array) -> np.ndarray:
    """Squared length at each step of each training."""
    return np.sum(np.square(np.asarray(paths, np.float64)).reshape(*paths.shape[:2], -1), axis=2)


__all__ = ["PAPER", "checks"]
