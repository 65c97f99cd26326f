r"""Noether's learning dynamics: symmetries of the loss that the learning rule breaks.

A classifier with two layers about a ReLU, which may be rescaled against each other, and a direction that is normalised,
which may be scaled, learns from mini-batches. With $D = \tfrac12\langle\delta(\theta),\theta\rangle$ for each symmetry,
the gradient flow keeps $D$ or lets the weight decay shrink it; the theory adds what the kinetic energy puts in.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import Key
from ...diagnose import noether, rescaling_symmetry, scaling_symmetry
from .._records import Check, Paper

PAPER = Paper(
    slug="noether",
    title="Noether's Learning Dynamics: Role of Symmetry Breaking in Neural Networks",
    year=2021,
    link="https://arxiv.org/abs/2105.02716",
    rooms=("diagnose",),
    row=68,
    read="abstract",
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
    # Momentum is an argument of the rule, not of the trace, so there is one program for each of the two checks.
    return [_charges(keys, steps), _adaptive(keys, steps)]


def _train(key: Key, steps: int, rule: dict[str, float]) -> tuple[Params, dict[str, Array]]:
    """Final weights and, for each step, halves of δ·θ, kinetic terms, and the unit direction's squared gradient."""
    weight_key, teacher_key, data_key, batch_key = jax.random.split(key, 4)
    make = jax.random.split(weight_key, 3)
    start = {
        "in": 0.5 * jax.random.normal(make[0], (8, 32)),
        "out": 0.2 * jax.random.normal(make[1], (32, 4)),
        "unit": jax.random.normal(make[2], (8,)) / jnp.sqrt(8),
    }
    xs = jax.random.normal(data_key, (512, 8))
    ys = jnp.argmax(jnp.sin(2 * xs @ jax.random.normal(teacher_key, (8, 4))), axis=1)
    rate, momentum, decay = (rule[name] for name in ("learning_rate", "momentum", "weight_decay"))

    def step(state: tuple[Params, Params], number: Array) -> tuple[tuple[Params, Params], dict[str, Array]]:
        params, velocity = state
        rows = jax.random.randint(jax.random.fold_in(batch_key, number), (16,), 0, 512)
        batch = xs[rows], ys[rows]
        gradient = jax.grad(_loss)(params, *batch)
        velocity = jax.tree.map(lambda v, g, p: momentum * v - g - decay * p, velocity, gradient, params)
        record = noether(_loss, params, velocity, *batch, generators=_SYMMETRIES, **rule)
        seen = {f"{name} kinetic": motion.kinetic for name, motion in record.symmetries.items()}
        size = jnp.sum(params["unit"] ** 2)
        sizes = [jnp.sum(params[name] ** 2) for name in ("in", "out")]
        seen |= {"scale": size / 2, "rescale": (sizes[0] - sizes[1]) / 2}
        # The gradient at the direction of length one: the loss's own, whatever the weights' length.
        seen["squared"] = size * jnp.sum(gradient["unit"] ** 2)
        return (jax.tree.map(lambda p, v: p + rate * v, params, velocity), velocity), seen

    still: Params = jax.tree.map(jnp.zeros_like, start)
    ends, seen = jax.lax.scan(step, (start, still), jnp.arange(steps))
    return ends[0], seen


def _charges(keys: Key, steps: int) -> Check:
    rule = {"learning_rate": 0.05, "momentum": 0.8, "weight_decay": 1e-3}
    _, seen = jax.jit(jax.vmap(lambda key: _train(key, steps, rule)))(keys)
    seen = {name: np.asarray(value, np.float64) for name, value in seen.items()}
    mass, friction = rule["learning_rate"] * (1 + rule["momentum"]) / 2, 1 - rule["momentum"]
    shrink = np.exp(-2 * rule["weight_decay"] * rule["learning_rate"] / friction)

    def error(name: str, breaking: float) -> np.ndarray:
        value, expected = seen[name], seen[name][:, 0]
        for n in range(steps - 1):
            put_in = breaking * mass * rule["learning_rate"] / friction * seen[f"{name} kinetic"][:, n]
            expected = shrink * expected + put_in
        # Beside the change that weight decay alone does not make.
        alone = value[:, 0] * shrink ** (steps - 1)
        return np.abs(expected - value[:, -1]) / np.abs(value[:, -1] - alone)

    ours = {name: error(name, 1.0) for name in _SYMMETRIES}
    theirs = {name: error(name, 0.0) for name in _SYMMETRIES}
    return Check(
        statement="Symmetries that the kinetic energy breaks set their charges in motion, by a known amount.",
        stated="an equation, and figures",
        measured="; ".join(f"{name}: explained but for {100 * value.max():.1f} %" for name, value in ours.items())
        + f" (worst of {len(keys)} trainings, momentum 0.8)",
        criterion="the change that weight decay does not make is explained but for 5 %, for scaling and for rescaling",
        holds=bool(max(v.max() for v in ours.values()) <= 0.05 < min(v.min() for v in theirs.values())),
        baseline="the charges of the gradient flow, which only decay: "
        + "; ".join(f"{name} all but {100 * value.min():.0f} %" for name, value in theirs.items()),
    )


def _adaptive(keys: Key, steps: int) -> Check:
    rule = {"learning_rate": 0.1, "momentum": 0.0, "weight_decay": 5e-3}
    _, seen = jax.jit(jax.vmap(lambda key: _train(key, steps, rule)))(keys)
    size, squared = 2 * np.asarray(seen["scale"], np.float64), np.asarray(seen["squared"], np.float64)
    rate, decay = rule["learning_rate"], rule["weight_decay"]
    fourth, path = size[:, 0] ** 2, []
    for n in range(steps):
        path.append(np.sqrt(fourth))
        fourth = np.exp(-4 * decay * rate) * fourth + 2 * rate**2 * squared[:, n]
    errors = np.abs(np.log(np.stack(path, 1) / size)).max(1)
    alone = size[:, :1] * np.exp(-2 * decay * rate * np.arange(steps))[None]
    others = np.abs(np.log(alone / size)).max(1)
    ends = rate / size[:, -1]
    return Check(
        statement="Normalisation makes descent adaptive: the effective rate is that of RMSProp.",
        stated="an analogy, with an equation",
        measured=f"effective rate {rate / size[:, 0].min():.2f} or less at first, {ends.min():.3f} to {ends.max():.3f} "
        f"at the end; the running mean of squared gradients gives it to {100 * errors.max():.1f} % throughout",
        criterion="rate over the root of the decaying mean of the unit direction's squared gradients within 10 % of "
        "rate over the squared length, at every step of every training",
        holds=bool(errors.max() <= 0.1 < others.min()),
        baseline=f"without the kinetic term the length only decays: off by {np.exp(others.min()):.2f} times or more",
    )


__all__ = ["PAPER", "checks"]
