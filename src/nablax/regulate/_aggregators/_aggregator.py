"""The factory: what every aggregator does, round what one does by itself."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import check_callable, check_count, check_like, described, exact, fault
from ._arithmetic import combine, cosines_and_norms, split
from ._checks import check_order, check_weights, checked, judged, leading_axis, still_finite
from ._promise import at_rest, without_conflict
from ._state import AggregatorState, Weights, initial, record

Step = Callable[[PyTree, Any], tuple[PyTree, Weights, Any]]


def aggregator(
    weigh: Callable[..., Any],
    *,
    prepare: Callable[[PyTree, Any], tuple[PyTree, Any]] | None = None,
    finish: Callable[[PyTree, Any], tuple[PyTree, Any]] | None = None,
    memory: Callable[[PyTree], Any] | None = None,
    objectives: int | None = None,
    throw: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Make an aggregator of a rule for its weights.

    .. math::
        d = J^{\top}w,\qquad w = \mathtt{weigh}(C, n),\qquad
        n_i = \lVert g_i\rVert,\quad C_{ij} = \frac{\langle g_i, g_j\rangle}{n_i n_j}

    Every aggregator of this room that has weights is made by it. A rule that remembers something passes it through all
    that it consists of, ``prepare``, then ``weigh``, then ``finish``: each takes the memory as its last argument and
    returns it as its last result. In between it may be anything; what the last returns has the structure of what
    ``memory`` made, and is the next step's.

    A sum of gradients that cancel to the rounding of their precision, :math:`\lVert d\rVert\le(\epsilon_g+32\epsilon)
    \sum_i|w_i|n_i`, is noise, which an optimiser that follows would blow up to a full step: it is set to zero, and
    the state says ``stationary``. Here :math:`\epsilon_g` is the machine epsilon of the coarsest gradient and
    :math:`\epsilon` that of the solve.

    Args:
        weigh: ``weigh(cosines [K, K], norms [K]) -> Weights``; where ``memory`` or ``prepare`` is given,
            ``weigh(cosines, norms, memory) -> (Weights, memory)``. A vanished gradient has norm 0, and cosine 0 with
            all, itself included. Products are in full precision on accelerators.
        prepare: ``prepare(grads, memory) -> (grads, memory)``, before the Gramian: which gradients are left out, say.
        finish: ``finish(vector, memory) -> (vector, memory)``, after the weighted sum: its average over steps, say.
        memory: ``memory(params)``, the memory before the first step; None by default. It is made before any gradient is
            seen: the factory of a rule that remembers something of each objective has to be told their number.
        objectives: number K of objectives. Where it is given, gradients of another number are refused and the state
            records the weights.
        throw: whether a failure raises: gradients that are not finite, or a solve that misses its tolerance. Without
            it the state alone tells, by `AggregatorState`'s ``result`` and ``residual``.

    Returns:
        A gradient transformation with an `AggregatorState`; leading axis K in, none out. Given ``combined=direction``
        its update hands that on and leaves the state as it is, so that what follows in a chain can be asked about one
        gradient (`nablax.diagnose.update_rule` does); ``throw`` overrules the factory's at one update.

    Raises:
        ValueError: leading axes disagree with one another or with ``objectives``, or the gradients are no stack for
            the parameters; what ``weigh`` returns is no `Weights` with one real number for each gradient; ``finish``
            changes the vector's shape; the memory does not keep its structure and shapes.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax import regulate
        >>> def equal_lengths(cosines, norms):
        ...     return regulate.Weights(jnp.where(norms > 0, jnp.mean(norms) / norms, 0))
        >>> rule = regulate.aggregator(equal_lengths)
        >>> grads = jnp.array([[3.0, 0.0], [0.0, 1.0]])
        >>> rule.update(grads, rule.init(jnp.zeros(2)))[0].tolist()
        [2.0, 2.0]

    Cost:
        One Gramian, K² inner products of gradients; ``weigh``; one weighted sum.

    References:
        - Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization", 2024, https://arxiv.org/abs/2406.16232
          (weights apart from the vector)
    """
    return of_weights(
        weigh, prepare=prepare, finish=finish, memory=memory, objectives=objectives, throw=throw, promises=False
    )


def of_weights(
    weigh: Callable[..., Any],
    *,
    prepare: Callable[[PyTree, Any], tuple[PyTree, Any]] | None = None,
    finish: Callable[[PyTree, Any], tuple[PyTree, Any]] | None = None,
    memory: Callable[[PyTree], Any] | None = None,
    objectives: int | None = None,
    throw: bool = True,
    promises: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """What `aggregator` makes; where the method ``promises`` that no objective is hurt, it is held to that."""
    for name, function in {"weigh": weigh, "prepare": prepare, "finish": finish, "memory": memory}.items():
        if function is not None or name == "weigh":
            check_callable(function, what=name, fix="See the arguments of regulate.aggregator.")
    passes_on = memory is not None or prepare is not None

    def step(grads: PyTree, kept: Any) -> tuple[PyTree, Weights, Any]:
        if prepare is not None:
            grads, kept = _pair(prepare(grads, kept), "prepare", "(grads, memory)")
        cosines, norms = cosines_and_norms(grads)
        if passes_on:
            found, kept = _pair(weigh(cosines, norms, kept), "weigh", "(Weights, memory)")
        else:
            found = weigh(cosines, norms)
        found = judged(check_weights(found, len(norms)), cosines, norms)
        vector = combine(grads, found.weights)
        if promises:
            vector, found = without_conflict(grads, vector, found, cosines, norms)
        vector = at_rest(grads, vector, found.weights, norms)
        if finish is not None:
            finished, kept = _pair(finish(vector, kept), "finish", "(vector, memory)")
            check_like(finished, vector, what="a vector that", fix="Let finish return the vector in its own shape.")
            vector, found = finished, still_finite(finished, found)
        return vector, found, kept

    return from_step(step, memory=memory, objectives=objectives, throw=throw)


def _pair(found: Any, name: str, expected: str) -> Any:
    # `Weights` alone is a tuple as well.
    if not isinstance(found, tuple) or isinstance(found, Weights) or len(found) != 2:
        raise fault(expected=f"{name} that returns {expected}", got=described(found), fix="Return both.")
    return found


def from_step(
    step: Step,
    *,
    weighted: bool = True,
    memory: Callable[[PyTree], Any] | None = None,
    objectives: int | None = None,
    throw: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Make an aggregator of ``step(grads, memory) -> (vector, Weights, memory)``; options as for `aggregator`."""
    step = exact(step)

    def init(params: PyTree) -> AggregatorState:
        count = None if objectives is None else check_count(objectives, what="objectives")
        return initial(params, count if weighted else None, None if memory is None else memory(params))

    def update(
        grads: PyTree,
        state: AggregatorState,
        params: PyTree = None,
        *,
        combined: PyTree = None,
        throw: bool = throw,
        **extra: Any,
    ) -> tuple[PyTree, AggregatorState]:
        del params, extra
        check_order()
        if combined is not None:
            return combined, state
        count = leading_axis(grads, state.parameters)
        if objectives is not None and count != objectives:
            raise fault(
                expected=f"{objectives} objectives",
                got=str(count),
                fix="Give the factory as many objectives as the gradients' leading axis is long.",
            )
        vector, found, kept = step(grads, state.inner)
        return checked(vector, found, throw), record(state, vector, found, kept)

    return optax.GradientTransformationExtraArgs(init, update)


def weighting(*static: str) -> Callable[[Callable[..., Weights]], Callable[..., Weights]]:
    """Compile ``weigh(cosines, norms, ...)``, its products `exact`."""

    def decorate(weigh: Callable[..., Weights]) -> Callable[..., Weights]:
        return functools.partial(jax.jit, static_argnames=static)(exact(weigh))

    return decorate


def of_gramian(weigh: Callable[..., Weights], gramian: Float[Array, "K K"], *args: Any) -> Weights:
    """Weights of a Gramian in place of gradients; a failure where it is not finite."""
    cosines, norms = split(gramian)
    return judged(weigh(cosines, norms, *args), cosines, norms)
