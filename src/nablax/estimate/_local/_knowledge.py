"""Sigmoid layers that sharpen their own decisions, going forward alone and without labels."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import check_rows, check_shape, fault

Weights = Sequence[tuple[Float[Array, "inputs units"], Float[Array, " units"]]]


class KnowledgeState(NamedTuple):
    """What is carried from step to step.

    Attributes:
        decisions: of each layer, ``[rows, units]``, those of the step before.
        knowledge: of each layer, ``[rows, units]``, before the sigmoid, of the step before.
    """

    decisions: list[Float[Array, "rows units"]]
    knowledge: list[Float[Array, "rows units"]]


class KnowledgeStep(NamedTuple):
    r"""What a step found.

    Attributes:
        entropy: of each layer, :math:`-\frac1{\ln2}\sum z\,\Delta D` over rows and units, bits ``[layers]``.
        net: of each layer, :math:`\sum(D-\nabla_zh)\,\Delta z`, ``[layers]``: zero at the first step, and where it
            changes its sign the authors stop.
    """

    entropy: Float[Array, " layers"]
    net: Float[Array, " layers"]


class Knowledge(NamedTuple):
    """A pair of functions to take steps with.

    Attributes:
        init: ``init(weights, x) -> KnowledgeState``.
        update: ``update(weights, state, x) -> (found, grads, state)``: a `KnowledgeStep`, and what to descend by, of
            the structure of the weights.
    """

    init: Callable[..., KnowledgeState]
    update: Callable[..., tuple[KnowledgeStep, list, KnowledgeState]]


def knowledge_accumulation() -> Knowledge:
    r"""Structured knowledge accumulation: each layer moves its decisions away from even ones, and knows no label.

    With :math:`z_l = D_{l-1}W_l+b_l`, :math:`D_l = \sigma(z_l)` and :math:`\Delta D` the change since the last step,

    .. math:: h_l = -\frac1{\ln2}\sum z_l\,\Delta D_l, \qquad
        \nabla_{W_l} = -\frac{1}{B\ln2}\,\big(D_{l-1}^{\text{before}}\big)^{\top}
        \big[z_l\odot D_l(1-D_l)+\Delta D_l\big]

    where the layer below is taken as it was a step before, so that no layer waits for another. Because
    :math:`-z/\ln2` is the derivative of binary entropy in bits, the sum of h over steps is the change of the
    entropy of the decisions, to the order of a step's length. It falls as decisions leave ½, whatever they say:
    what units of the last layer mean is left to a readout.

    Returns:
        A `Knowledge`: ``init`` and ``update``, of weights ``[(W [inputs, units], b [units]), ...]`` and one batch x
        ``[rows, inputs]``; both to be jitted, and ``update`` to be scanned.

    Raises:
        ValueError: when called, weights that are no such list, or inputs of another shape.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> rule = estimate.knowledge_accumulation()
        >>> x, weights = jax.random.normal(jax.random.key(0), (8, 3)), [(jnp.ones((3, 2)) / 10, jnp.zeros(2))]
        >>> def step(carry, _):
        ...     weights, state = carry
        ...     found, grads, state = rule.update(weights, state, x)
        ...     return (jax.tree.map(lambda w, g: w - 0.1 * g, weights, grads), state), found.entropy
        >>> _, entropy = jax.lax.scan(step, (weights, rule.init(weights, x)), length=50)
        >>> bool(jnp.sum(entropy) < 0)
        True

    Cost: a forward pass and one product for each weight; no backward pass. Memory of two numbers a unit and row.

    References:
        - Mahi, "Structured Knowledge Accumulation: The Principle of Entropic Least Action in Forward-Only Neural
          Learning", 2025, https://arxiv.org/abs/2504.03214, and the authors' code (the net after the abstract; the
          telescoping is derived here, and tested)
    """
    return Knowledge(_init, _update)


def _init(weights: Weights, x: Float[Array, "rows inputs"]) -> KnowledgeState:
    knowledge, decisions = _forward(weights, x)
    return KnowledgeState(decisions, knowledge)


def _update(
    weights: Weights, state: KnowledgeState, x: Float[Array, "rows inputs"]
) -> tuple[KnowledgeStep, list, KnowledgeState]:
    check_rows(state.decisions, len(x), what="a state", fix="Make it by init, from this batch.")
    knowledge, decisions = _forward(weights, x)
    shifts = [now - before for now, before in zip(decisions, state.decisions)]
    slopes = [_slope(z, d, shift) for z, d, shift in zip(knowledge, decisions, shifts)]
    below = [x, *state.decisions[:-1]]
    grads = [(h.T @ slope / len(x), jnp.mean(slope, axis=0)) for h, slope in zip(below, slopes)]
    entropy = jnp.stack([-jnp.sum(z * shift) / math.log(2) for z, shift in zip(knowledge, shifts)])
    moved = [now - before for now, before in zip(knowledge, state.knowledge)]
    net = jnp.stack([jnp.sum((d - slope) * move) for d, slope, move in zip(decisions, slopes, moved)])
    return KnowledgeStep(entropy, net), grads, KnowledgeState(decisions, knowledge)


def _forward(weights: Weights, x: Float[Array, "rows inputs"]) -> tuple[list[Array], list[Array]]:
    if not isinstance(weights, list | tuple) or not all(isinstance(w, list | tuple) and len(w) == 2 for w in weights):
        raise fault(
            expected="weights as a list of pairs (W, b), one for each layer",
            got=f"a {type(weights).__name__}",
            fix="Pass [(W, b), ...] with W of shape [inputs, units].",
        )
    knowledge, decisions = [], []
    for number, (weight, bias) in enumerate(weights):
        what = "x" if number == 0 else f"what layer {number} takes"
        x = check_shape(x, (None, len(weight)), what=what, fix="Give W a row for each input.")
        knowledge.append(x @ weight + bias[None])
        x = jax.nn.sigmoid(knowledge[-1])
        decisions.append(x)
    return knowledge, decisions


def _slope(z: Array, decision: Array, shift: Array) -> Array:
    """The entropy's derivative with respect to a unit's knowledge, a number for each row."""
    return -(z * decision * (1 - decision) + shift) / math.log(2)


__all__ = ["Knowledge", "KnowledgeState", "KnowledgeStep", "knowledge_accumulation"]
