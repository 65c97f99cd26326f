"""The compiled half of the training loop: many steps in one loop, and one pass over the validation rows."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core import Key, canonical_convolutions, rows_of, take
from ..fields import EMA

# Losses of one call are kept on the device in a buffer of this length, so a call runs at most so many steps.
LONGEST_CHUNK = 4096
# Key numbers that no step reaches: `fold_in(key, k)` belongs to step k.
_SHUFFLE = 0xFFFFFFFF
_VALIDATE = 0xFFFFFFFE

Loss = Callable[..., Float[Array, ""]]


class State(NamedTuple):
    """All that training changes; a checkpoint holds this and the history.

    Attributes:
        params: inexact arrays of the model.
        optimizer: the optimiser's state.
        ema: running average of ``params`` with its number of updates, or None.
        best: the weights with the lowest validation loss, or None without validation.
        best_loss: that loss; infinite before the first validation.
        best_step: the number of steps after which it was measured.
        step: number of steps done.
    """

    params: PyTree
    optimizer: PyTree
    ema: PyTree | None
    best: PyTree | None
    best_loss: Float[Array, ""]
    best_step: Int[Array, ""]
    step: Int[Array, ""]


class Setup(eqx.Module):
    """All that training does not change."""

    loss: Loss
    optimizer: optax.GradientTransformationExtraArgs
    ema: EMA | None
    frozen: PyTree
    key: Key
    batch_size: int
    sharding: NamedSharding | None

    def split(self, tree: PyTree, axis: int = 0) -> PyTree:
        """Spread one axis of every array over the devices; nothing to do on a single one."""
        if self.sharding is None:
            return tree
        spec = PartitionSpec(*([None] * axis), *self.sharding.mesh.axis_names)
        return jax.lax.with_sharding_constraint(tree, NamedSharding(self.sharding.mesh, spec))

    def whole(self, tree: PyTree) -> PyTree:
        """Keep a full copy of every array on each device."""
        return tree if self.sharding is None else jax.lax.with_sharding_constraint(tree, self.sharding)


def _finite(tree: PyTree) -> Bool[Array, ""]:
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]).all()


def _step(setup: Setup, state: State, batch: PyTree) -> tuple[State, Float[Array, ""], Bool[Array, ""]]:
    """One step of the optimiser; the state stays as it was where the loss or the update is not finite."""

    def value(params: PyTree) -> Float[Array, ""]:
        return setup.loss(eqx.combine(params, setup.frozen), batch, key=jax.random.fold_in(setup.key, state.step))

    loss, gradient = jax.value_and_grad(value)(state.params)
    # What line searches and rates by the loss ask for, on the present batch.
    extra = {"value": loss, "grad": gradient, "value_fn": value}
    updates, optimizer = setup.optimizer.update(gradient, state.optimizer, state.params, **extra)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if setup.ema is not None and ema is not None:
        ema = setup.ema.update(ema, params)
    finite = jnp.isfinite(loss) & _finite(updates)
    proposal = state._replace(params=params, optimizer=optimizer, ema=ema, step=state.step + 1)
    # A select reads and writes what the update reads and writes anyway, so XLA fuses it: the guard costs nothing.
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), proposal, state), loss, finite


@eqx.filter_jit(donate="all-except-first")
def advance(
    constants: tuple[Setup, PyTree, Int[Array, ""] | None, Int[Array, ""]], state: State
) -> tuple[State, Float[Array, " longest"], Bool[Array, ""]]:
    """Take steps until ``stop``, or until one is not finite.

    The bound is an argument, so that every call runs the same program whatever the number of steps.

    Args:
        constants: ``(setup, data, first, stop)``: the setup; resident rows when ``first`` is None, else the batches
            of the steps from ``first`` on; the number of steps after which to stop.
        state: donated.

    Returns:
        The new state, the losses of the steps taken (the rest of the buffer is zero), and whether all were finite.
    """
    setup, data, first, stop = constants
    start = state.step
    size = jax.tree.leaves(data)[0].shape[0]
    shuffle = jax.random.fold_in(setup.key, jnp.uint32(_SHUFFLE))

    def batch_of(step: Int[Array, ""]) -> PyTree:
        if first is None:
            return setup.split(take(data, setup.split(rows_of(step, size, setup.batch_size, key=shuffle))))
        return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, step - first, keepdims=False), data)

    @canonical_convolutions
    def body(carry: tuple[State, Array, Array]) -> tuple[State, Array, Array]:
        state, losses, _ = carry
        following, loss, finite = _step(setup, state, batch_of(state.step))
        return setup.whole(following), losses.at[state.step - start].set(loss), finite

    def going(carry: tuple[State, Array, Array]) -> Bool[Array, ""]:
        return (carry[0].step < stop) & carry[2]

    losses = jnp.zeros((LONGEST_CHUNK,), state.best_loss.dtype)
    return jax.lax.while_loop(going, body, (setup.whole(state), losses, jnp.array(True)))


@eqx.filter_jit(donate="all-except-first")
def validate(constants: tuple[Setup, PyTree], state: State) -> tuple[State, Float[Array, ""]]:
    """Mean loss over the validation rows, one batch after the other, and the best weights brought up to date.

    The averaged weights are judged where there is an average. The keys are the same at every call, so that two
    calls differ by the weights alone.

    Args:
        constants: ``(setup, rows)``.
        state: donated.

    Returns:
        The state and the mean over rows.
    """
    setup, rows = constants
    weights = state.params if state.ema is None else state.ema.average
    model = eqx.combine(weights, setup.frozen)
    key = jax.random.fold_in(setup.key, jnp.uint32(_VALIDATE))
    size = jax.tree.leaves(rows)[0].shape[0]
    full, rest = divmod(size, setup.batch_size)
    total = jnp.zeros((), state.best_loss.dtype)
    if full:

        @canonical_convolutions
        def of_batch(i: Int[Array, ""]) -> Float[Array, ""]:
            batch = jax.tree.map(
                lambda x: jax.lax.dynamic_slice_in_dim(x, i * setup.batch_size, setup.batch_size), rows
            )
            return setup.loss(model, setup.split(batch), key=jax.random.fold_in(key, i))

        total += setup.batch_size * jnp.sum(jax.lax.map(of_batch, jnp.arange(full)))
    if rest:
        batch = jax.tree.map(lambda x: x[full * setup.batch_size :], rows)
        total += rest * setup.loss(model, batch, key=jax.random.fold_in(key, full))
    mean = total / size
    better = mean < state.best_loss
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), weights, state.best)
    state = state._replace(
        best=best,
        best_loss=jnp.where(better, mean, state.best_loss),
        best_step=jnp.where(better, state.step, state.best_step),
    )
    return setup.whole(state), mean
