"""What looks on while `fit` trains, and what it may have done: end the run, or lower the rate."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from .._core import check_callable, check_count, fault
from ._train import Setup, State, batch_at

# Steps from one look to the next, of a function that does not say.
_EVERY = 200


class LoweredState(NamedTuple):
    """State of `lowered`.

    Attributes:
        inner: the optimiser's state.
        factor: by which its updates are multiplied.
    """

    inner: PyTree
    factor: Float[Array, ""]


def lowered(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Give an optimiser a factor on its updates that a loop may lower while it runs, at first 1.

    `fit` does so where it is given a ``watch``. In a loop of one's own:
    ``state = state._replace(factor=state.factor / 2)``.

    Args:
        optimizer: any Optax transformation whose update is added to the parameters.

    Returns:
        A gradient transformation with a `LoweredState`.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from nablax.follow import lowered
        >>> optimizer = lowered(optax.sgd(1.0))
        >>> state = optimizer.init(jnp.zeros(1))
        >>> state = state._replace(factor=state.factor / 4)
        >>> optimizer.update(jnp.ones(1), state)[0].tolist()
        [-0.25]
    """
    transform = optax.with_extra_args_support(optimizer)

    def init(params: PyTree) -> LoweredState:
        return LoweredState(transform.init(params), jnp.ones((), jnp.float32))

    def update(grads: PyTree, state: LoweredState, params: PyTree = None, **extra: Any) -> tuple[PyTree, LoweredState]:
        updates, inner = transform.update(grads, state.inner, params, **extra)
        updates = jax.tree.map(lambda leaf: (state.factor * leaf).astype(leaf.dtype), updates)
        return updates, LoweredState(inner, state.factor)

    return optax.GradientTransformationExtraArgs(init, update)


class Watching(NamedTuple):
    """A function that looks on, and how often."""

    look: Callable[[int, PyTree, PyTree, PyTree], Any]
    every: int

    def next(self, step: int) -> int:
        """The first step after this one before which it looks."""
        return (step // self.every + 1) * self.every

    def told(
        self, setup: Setup, state: State, data: PyTree, first: Int[Array, ""] | None, step: int
    ) -> tuple[State, str]:
        """Show the step that is about to be made; the state to go on from, and a result where the run is to end."""
        if step % self.every:
            return state, ""
        batch = batch_at((setup, data, first), state.step)
        # Copies, for the next step spends what it is given, and who looks may keep what it saw.
        params, opt_state = jax.tree.map(jnp.copy, (state.params, state.optimizer))
        verdict = self.look(step, eqx.combine(params, setup.frozen), opt_state, batch)
        if verdict is None:
            return state, ""
        if isinstance(verdict, str) and verdict == "stop":
            return state, "stopped by the watch"
        known = np.ndim(verdict) == 0 and np.asarray(verdict).dtype.kind in "iuf"  # also a number of NumPy or JAX
        if not (known and 0 < verdict <= 1):
            raise fault(
                expected='a watch that returns None, "stop" or a factor above 0, at most 1, to lower the rate by',
                got=repr(verdict),
                fix="Return None to go on as before.",
            )
        factor = state.optimizer.factor * jnp.asarray(verdict, jnp.float32)
        return state._replace(optimizer=state.optimizer._replace(factor=factor)), ""


def watching(watch: Any) -> Watching | None:
    """What looks on, in order.

    Raises:
        ValueError: it cannot be called, or its ``every`` is no number of steps.
    """
    if watch is None:
        return None
    check_callable(watch, what="watch", fix="Pass nablax.diagnose.watch(loss, ...), for one.", takes=4)
    return Watching(watch, check_count(getattr(watch, "every", _EVERY), what="watch.every"))
