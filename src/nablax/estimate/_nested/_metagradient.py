"""Gradients through a whole training, in the memory of a few of its states."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from ..._core import (
    canonical_convolutions,
    check_callable,
    check_count,
    check_like,
    check_loss,
    described,
    fault,
    space,
    split,
)


def metagradient(
    update: Callable[..., PyTree], metric: Callable[..., Array], *, steps: int, branching: int = 8
) -> Callable[..., tuple[Array, PyTree]]:
    r"""Differentiate what a training leads to in what it was run with, exactly, by replaying it.

    Of T steps :math:`s_{t+1}=u(s_t,\theta,t)` and a metric :math:`\varphi(s_T,\theta)`, the reverse

    .. math::
        \lambda_T=\nabla_s\varphi,\qquad \lambda_t=\Big(\frac{\partial u}{\partial s}\Big)^{\top}\lambda_{t+1},\qquad
        \nabla_\theta=\partial_\theta\varphi+\sum_t\Big(\frac{\partial u}{\partial\theta}\Big)^{\top}\lambda_{t+1}

    asks for the states last to first. Of a tree over the steps with k branches, that is of the steps as numbers to the
    base k, only the states on the present path are held, :math:`(k-1)\lceil\log_kT\rceil+1` of them; what is missing is
    run again from the nearest, in all :math:`(1-\tfrac1k)\,T\log_kT` steps. One loop runs every step, the first time
    and again, so that a replay is the same program, bit for bit.

    Args:
        update: ``update(state, params, step, *args) -> state``, one step of the training; ``step`` counts from 0.
            Randomness by ``jax.random.fold_in(key, step)``, and the batch by the number of the step: a step that is
            run again must be the same step. It is differentiated as it stands: Adam's root of a square that is 0 has no
            finite derivative, for which there is ``optax.adam(eps_root=1e-8)``.
        metric: ``metric(state, params, *args) -> scalar`` of the last state.
        steps: T.
        branching: k, 8 by default; of 4,096 steps that holds 29 states and runs 3.5 trainings. Less holds fewer states,
            more runs fewer steps.

    Returns:
        ``(params, state, *args) -> (value, grads)``: the metric after the training from ``state``, and its gradient in
        the inexact leaves of ``params``, None for the others.

    Raises:
        ValueError: an argument makes no sense, a state that is shaped otherwise after a step, a metric that is no real
            scalar, parameters without real floating leaves.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> descent = lambda x, rate, step: x - rate * x
        >>> through = estimate.metagradient(descent, lambda x, rate: x ** 2, steps=3)
        >>> value, slope = through(jnp.array(0.5), jnp.array(2.0))
        >>> float(value), float(slope)  # 4 (1 - rate)⁶, and its derivative -24 (1 - rate)⁵
        (0.0625, -0.75)

    Cost:
        :math:`(1-\tfrac1k)\,T\log_kT` steps of the training, and T reverse steps, each two or three times a step; the
        memory of the states held, of the gradient, and of one reverse step. Nothing of length T.

    References:
        - Engstrom et al., "Optimizing ML Training with Metagradient Descent", 2025, https://arxiv.org/abs/2503.13751
          (the tree, with k of 2 or more; that levels share their first state, hence k - 1 a level, is ours)
    """
    check_callable(update, what="update", fix="Pass update(state, params, step, *args) -> state.")
    check_callable(metric, what="metric", fix="Pass metric(state, params, *args) -> scalar.")
    check_count(steps, what="steps")
    check_count(branching, what="branching", least=2)
    starts, slots = _plan(steps, branching)

    def value_and_grad(params: PyTree, state: PyTree, *args: Any) -> tuple[Array, PyTree]:
        trained, held = split(params)
        space(trained)  # refuses metaparameters of integers, and complex ones
        first, still = eqx.partition(state, eqx.is_array)
        if not jax.tree.leaves(first):
            raise fault(expected="a state with arrays", got=described(state), fix="Pass the training's first state.")

        def stepped(state: PyTree, params: PyTree, step: Int[Array, ""]) -> PyTree:
            after = update(eqx.combine(state, still), eqx.combine(params, held), step, *args)
            after = eqx.filter(after, eqx.is_array)
            check_like(after, state, what="a state that, after a step,", fix="Return what the next step takes.")
            if [leaf.dtype for leaf in jax.tree.leaves(after)] != [leaf.dtype for leaf in jax.tree.leaves(state)]:
                raise fault(
                    expected=f"a state of the dtypes of {described(state)} after a step",
                    got=described(after),
                    fix="Begin with a state such as a step returns.",
                )
            return after

        def reached(state: PyTree, params: PyTree) -> Array:
            return check_loss(metric(eqx.combine(state, still), eqx.combine(params, held), *args), what="a metric")

        shape = jax.eval_shape(reached, first, trained)
        kept = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[None], (int(slots[steps]), *leaf.shape)), first)
        begin = (kept, *jax.tree.map(jnp.zeros_like, (split(first)[0], trained)), jnp.zeros(shape.shape, shape.dtype))

        @canonical_convolutions
        def back(carry: tuple, now: tuple[Array, Array]) -> tuple[tuple, None]:
            kept, adjoint, grads, value = carry
            start, step = now

            def forward(step: Array, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
                kept, state = carry
                state = stepped(state, trained, step)
                # The state after the last step stands nowhere on the path; it is not kept.
                place = jnp.asarray(slots)[step + 1]
                return jax.tree.map(lambda all, one: all.at[place].set(one, mode="drop"), kept, state), state

            state = jax.tree.map(lambda all: all[jnp.asarray(slots)[start]], kept)
            kept, state = jax.lax.fori_loop(start, step, forward, (kept, state))
            moving, rest = split(state)

            def last(adjoint: PyTree, grads: PyTree, value: Array) -> tuple[PyTree, PyTree, Array]:
                value, slopes = jax.value_and_grad(lambda s, p: reached(eqx.combine(s, rest), p), argnums=(0, 1))(
                    moving, trained
                )
                return *slopes, value

            def earlier(adjoint: PyTree, grads: PyTree, value: Array) -> tuple[PyTree, PyTree, Array]:
                pull = jax.vjp(lambda s, p: split(stepped(eqx.combine(s, rest), p, step))[0], moving, trained)[1]
                adjoint, more = pull(adjoint)
                return adjoint, jax.tree.map(jnp.add, grads, more), value

            found = jax.lax.cond(step == steps, last, earlier, adjoint, grads, value)
            return (kept, *found), None

        numbered = jnp.asarray(starts), jnp.arange(steps, -1, -1, dtype=starts.dtype)
        (_, _, grads, value), _ = jax.lax.scan(back, begin, numbered)
        return value, grads

    return value_and_grad


def _plan(steps: int, branching: int) -> tuple[np.ndarray, np.ndarray]:
    """From which step each state is run again, for the last state first; and where each state is kept.

    A state is kept by the level of its step, the number of zeros at its end to the base k, and by the digit before
    them. The path down to the state of any step then overwrites what is of no use any more.
    """
    levels = 1
    while branching**levels < steps:
        levels += 1
    ends = branching ** np.arange(levels + 1)
    numbers = np.arange(steps + 1)
    zeros = np.sum(numbers[:, None] % ends[None, 1:levels] == 0, axis=1)
    digits = numbers // ends[zeros] % branching
    slots = np.where(numbers == 0, 0, 1 + zeros * (branching - 1) + digits - 1)
    # Beyond all places: what is set there is dropped.
    slots[steps] = slots[:steps].max() + 1
    # To arrive at a state whose last digits are all k - 1 is to leave a subtree: it is run from its first state.
    full = np.sum((numbers[:, None] + 1) % ends[None, 1:] == 0, axis=1)
    starts = numbers + 1 - ends[full]
    # The first path is the training itself, at whose end the states before the last are there.
    starts[steps], starts[steps - 1] = 0, steps - 1
    return starts[::-1].astype(np.int32), slots.astype(np.int32)


__all__ = ["metagradient"]
