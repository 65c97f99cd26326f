"""Gradient regularisation by finite differences: its cost, what it favours, and flooding as a hidden form of it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...regulate import flooding, gradient_norm
from .._contrast import Contrast
from .._problems._classifier import loss, network
from .._problems._training import trained
from .._records import Check, Paper

PAPER = Paper(
    slug="finite-difference-regularisation",
    title="Understanding Gradient Regularization in Deep Learning: Efficient Finite-Difference Computation and "
    "Implicit Bias",
    year=2023,
    link="https://arxiv.org/abs/2210.02720",
    rooms=("regulate",),
    row=86,
    read="text",
)

_WEIGHT, _ASCENT, _RATE = 0.02, 0.1, 1e-4
# Mean and variance of the inputs; five weights of 1/√5 make the signal.
_INPUTS, _SPARSE = 5.0, 5
_SIZES = (64, *(128,) * 6, 10)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Recover a sparse signal with a diagonal linear network, count operations, and pair up two steps of flooding.

    Args:
        key: of all randomness.
        full: 300 000 steps in place of 100 000 and four times the seeds; the paper's image networks are not trained at
            either scale.

    Returns:
        Four checks.
    """
    seeds, steps = (20, 300_000) if full else (5, 100_000)
    signal_key, net_key = jax.random.split(key)
    rules = {
        "difference uphill": gradient_norm(_WEIGHT, _ASCENT),
        "no regularisation": optax.identity(),
        "difference downhill": gradient_norm(_WEIGHT, -_ASCENT),
    }
    designs = _INPUTS + _INPUTS**0.5 * jax.random.normal(signal_key, (seeds, 40, 100))
    errors, scales = {}, {}
    for name, rule in rules.items():
        errors[name], scales[name] = jax.jit(jax.vmap(partial(_recover, rule, steps)))(designs)

    params = network(net_key, _SIZES)
    batch = jax.random.normal(net_key, (256, 64)), jnp.zeros(256, jnp.int32)

    def cost(p: PyTree, batch: tuple = batch) -> Array:
        return loss(p, *batch)

    slope, regulator = jax.grad(cost), gradient_norm(_WEIGHT, _ASCENT)

    def difference(p: PyTree) -> PyTree:
        return regulator.update(slope(p), regulator.init(p), p, grad_fn=jax.value_and_grad(cost))[0]

    def twice(p: PyTree) -> PyTree:
        return jax.grad(lambda p: cost(p) + _WEIGHT / 2 * optax.tree.norm(slope(p), squared=True))(p)

    plain, differences, double = (_operations(f, params) for f in (slope, difference, twice))
    gap, exact_gap = jax.jit(partial(_two_floods, cost))(params, batch)
    return [
        Check(
            "In a diagonal linear network the difference uphill moves learning to the rich regime, more than downhill.",
            "proved (the scale that the network started from counts as smaller; section 5)",
            contrasts=Contrast("scale, of the start's, geometric mean over weights", scales, "lower", ratio=0.8),
            moved_from="the same from starts at 0.5 and 1, where the scale moved too little to tell; inputs of mean 0",
        ),
        Check(
            "There the difference uphill recovers a sparse signal with a smaller error.",
            "shown for a diagonal linear network (figure)",
            contrasts=Contrast("mean square error of the signal", errors, "lower", ratio=0.5),
            moved_from="the same with inputs of mean zero, where uphill was never better than no regularisation",
        ),
        Check(
            "The finite difference costs less than differentiating twice.",
            "six against nine products of matrices a layer (section 3)",
            contrasts=Contrast(
                "operations, by the compiler's count in a seven-layer network, gradients",
                {"finite difference": differences / plain, "the penalty differentiated": double / plain},
                "lower",
                threshold=2.1,
            ),
        ),
        Check(
            "Two steps of flooding, up and down, are one step on the finite difference of the penalty.",
            "derived (section 6)",
            contrasts=Contrast(
                "relative difference from two steps of flooding",
                {"finite difference": gap, "the penalty's exact gradient": exact_gap},
                "lower",
                threshold=1e-3,
            ),
        ),
    ]


def _recover(
    rule: optax.GradientTransformation, steps: int, design: Float[Array, "rows size"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Error of the signal, and final scale, which gradient flow keeps: √(u v), weight by weight."""
    size, scale = design.shape[1], 0.2
    signal = jnp.where(jnp.arange(size) < _SPARSE, _SPARSE**-0.5, 0.0)
    (u, v), _ = trained(
        lambda params, answers: jnp.mean(jnp.square(design @ (params[0] ** 2 - params[1] ** 2) - answers)) / 4,
        (jnp.full(size, scale), jnp.full(size, scale)),
        optax.chain(rule, optax.sgd(_RATE)),
        lambda step, key: design @ signal,
        steps,
        key=jax.random.key(0),  # nothing is drawn
    )
    error, power = jnp.mean(jnp.square(u**2 - v**2 - signal)), jnp.mean(jnp.square(signal))
    # A run that diverged, as downhill some do, counts as one that stayed where it started.
    kept = jnp.exp(jnp.mean(jnp.log(jnp.abs(u * v))) / 2) / scale
    return jnp.minimum(jnp.nan_to_num(error, nan=jnp.inf), power), jnp.nan_to_num(kept, nan=1.0)


def _operations(function: Callable[[PyTree], PyTree], params: PyTree) -> float:
    analysis: Any = jax.jit(function).lower(params).cost_analysis()
    return float(analysis["flops"])


def _two_floods(cost: Callable[..., Array], params: PyTree, batch: tuple[Array, Array]) -> tuple[Array, Array]:
    """Displacement of two steps below and above the level, against the penalty's gradient by difference and exactly."""
    rate, slope = 1.0, jax.grad(cost)
    flood = optax.chain(flooding(cost(params, batch) + 1e-6), optax.sgd(rate))
    ends, _ = trained(cost, params, flood, lambda step, key: batch, 2, key=jax.random.key(0))
    moved, grads = optax.tree.sub(params, ends), slope(params, batch)
    both, _ = gradient_norm(rate, rate).update(
        grads, optax.EmptyState(), params, grad_fn=lambda p: jax.value_and_grad(cost)(p, batch)
    )
    exact = jax.grad(lambda p: optax.tree.norm(slope(p, batch), squared=True) / 2)(params)

    def gap(penalty: PyTree, scale: float) -> Array:
        return optax.tree.norm(optax.tree.sub(moved, optax.tree.scale(scale, penalty))) / optax.tree.norm(moved)

    return gap(optax.tree.sub(both, grads), rate), gap(exact, rate**2)
