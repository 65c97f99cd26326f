"""The compiled half of the training loop: many steps in one loop, and one pass over the validation rows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core import (
    Key,
    canonical_convolutions,
    check_like,
    check_pair,
    described,
    fault,
    keyed,
    rows_of,
    take,
    wide_dtype,
)
from ..fields import EMA
from ._step import Extra, Loss, differentiated, train_step

# What one call measures is kept on the device in a buffer of this length, so a call runs at most so many steps.
LONGEST_CHUNK = 4096
# Key numbers that no step reaches: `fold_in(key, k)` belongs to step k.
_SHUFFLE = 0xFFFFFFFF
_VALIDATE = 0xFFFFFFFE
_BOTH = "Return both, the value first."


class State(NamedTuple):
    """All that training changes; a checkpoint holds this and the history.

    Attributes:
        params: inexact arrays of the model.
        model_state: what the loss carries from step to step beside the weights, or None.
        optimizer: the optimiser's state.
        ema: running average of ``params`` with its number of updates, or None.
        best: the weights with the lowest validation loss and the model's state then, or None without validation.
        best_loss: that loss; infinite before the first validation.
        best_step: the number of steps after which it was measured.
        step: number of steps done.
    """

    params: PyTree
    model_state: PyTree | None
    optimizer: PyTree
    ema: PyTree | None
    best: tuple[PyTree, PyTree] | None
    best_loss: Float[Array, ""]
    best_step: Int[Array, ""]
    step: Int[Array, ""]


class Setup(eqx.Module):
    """All that training does not change.

    Attributes:
        loss: of the model, its state where there is one, a batch and a key.
        optimizer: as it was given.
        ema: how the weights are averaged, or None.
        frozen: what of the model is not trained.
        key: of all randomness.
        batch_size: rows in a batch.
        sharding: of the weights, or None on one device.
        value_and_grad: what takes the gradient.
        extra: gives more extra arguments for the optimiser, or None.
        has_aux: whether the loss returns metrics.
        stateful: whether the model has a state.
        measured: shapes and dtypes of what a step measures: ``(loss, metrics)``.
    """

    loss: Loss
    optimizer: optax.GradientTransformationExtraArgs
    ema: EMA | None
    frozen: PyTree
    key: Key
    batch_size: int
    sharding: NamedSharding | None
    value_and_grad: Callable[..., Any] = jax.value_and_grad
    extra: Extra | None = None
    has_aux: bool = False
    stateful: bool = False
    measured: PyTree = (jax.ShapeDtypeStruct((), jnp.float32), {})

    def objective(self, model: PyTree, given: tuple[PyTree, PyTree], *, key: Key) -> Any:
        """The loss of ``(state, batch)``, with ``(state, metrics)`` as auxiliary value where there are any."""
        state, batch = given
        before = (model, state) if self.stateful else (model,)
        found = keyed(self.loss, *before, batch, key=key, what="the loss")
        if not (self.has_aux or self.stateful):
            return found
        shape = "(state, metrics)" if self.has_aux and self.stateful else "state" if self.stateful else "metrics"
        pair = check_pair(found, expected=f"a loss that returns (value, {shape})", fix=_BOTH)
        if not self.stateful:
            return pair[0], (None, pair[1])
        after, metrics = pair[1], dict[str, Any]()
        if self.has_aux:
            after, metrics = check_pair(pair[1], expected="(state, metrics) beside the value", fix=_BOTH)
        check_like(
            after, state, what="a state that", fix="Return the state that the loss was given, brought up to date."
        )
        return pair[0], (after, metrics)

    def differentiated(self, state: "State", batch: PyTree) -> Callable[[PyTree], tuple[Array, PyTree, PyTree]]:
        """Value, auxiliary value and gradient at one step, as a function of the weights."""
        return differentiated(
            self.objective,
            self.frozen,
            (state.model_state, batch),
            jax.random.fold_in(self.key, state.step),
            value_and_grad=self.value_and_grad,
            has_aux=self.has_aux or self.stateful,
        ).value_and_grad

    def step(self) -> Callable[..., tuple[PyTree, ...]]:
        """One step as `train_step` makes it, on ``(state, batch)``."""
        extra = self.extra
        return train_step(
            self.objective,
            self.optimizer,
            value_and_grad=self.value_and_grad,
            extra=None if extra is None else lambda model, given, grads: extra(model, given[1], grads),
            has_aux=self.has_aux or self.stateful,
        )

    def split(self, tree: PyTree, axis: int = 0) -> PyTree:
        """Spread one axis of every array over the devices; nothing to do on a single one."""
        if self.sharding is None:
            return tree
        spec = PartitionSpec(*([None] * axis), *self.sharding.mesh.axis_names)
        return jax.lax.with_sharding_constraint(tree, NamedSharding(self.sharding.mesh, spec))

    def whole(self, tree: PyTree) -> PyTree:
        """Keep a full copy of every array on each device."""
        return tree if self.sharding is None else jax.lax.with_sharding_constraint(tree, self.sharding)


def measurements(value: Array, metrics: Any) -> tuple[Array, dict[str, Array]]:
    """What a step or a validation measures, as the history keeps it."""
    fix = "Return (loss, {'accuracy': accuracy}), for one."
    if not isinstance(metrics, dict) or not all(isinstance(name, str) for name in metrics):
        raise fault(expected="metrics in a dict by name", got=described(metrics), fix=fix)
    for name, metric in metrics.items():
        if not eqx.is_array_like(metric) or jnp.shape(metric) != () or not jnp.isrealobj(metric):
            raise fault(expected=f"the metric {name}: one real number", got=described(metric), fix="Take its mean.")
    # Half precision has too few digits for a mean over many rows, and for what is counted.
    dtype = wide_dtype(value)
    return jnp.asarray(value, dtype), {name: jnp.asarray(metric, dtype) for name, metric in metrics.items()}


def _still_finite(new: PyTree, old: PyTree) -> Bool[Array, ""]:
    """Whether no number that was finite has ceased to be; a mask of infinities among the weights stays what it was."""
    pairs = zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True)
    return jnp.stack([jnp.all(jnp.isfinite(a) | ~jnp.isfinite(b)) for a, b in pairs]).all()


def _step(setup: Setup, state: State, batch: PyTree) -> tuple[State, PyTree, Bool[Array, ""]]:
    """One step of the optimiser; the state stays as it was where the loss or the weights cease to be finite."""
    model, optimizer, loss, *aux = setup.step()(
        eqx.combine(state.params, setup.frozen),
        state.optimizer,
        (state.model_state, batch),
        key=jax.random.fold_in(setup.key, state.step),
    )
    params = eqx.filter(model, eqx.is_inexact_array)
    ((model_state, metrics),) = aux or [(None, {})]
    ema = state.ema
    if setup.ema is not None and ema is not None:
        ema = setup.ema.update(ema, params)
    finite = jnp.all(jnp.isfinite(loss)) & _still_finite(params, state.params)
    proposal = state._replace(params=params, model_state=model_state, optimizer=optimizer, ema=ema, step=state.step + 1)
    # A select reads and writes what the update reads and writes anyway, so XLA fuses it: the guard costs nothing.
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), proposal, state)
    return kept, measurements(loss, metrics), finite


def _batch(setup: Setup, data: PyTree, first: Int[Array, ""] | None, step: Int[Array, ""]) -> PyTree:
    """The rows of a step, from resident ones where ``first`` is None, else from the batches of the steps from there."""
    if first is not None:
        return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, step - first, keepdims=False), data)
    size = jax.tree.leaves(data)[0].shape[0]
    shuffle = jax.random.fold_in(setup.key, jnp.uint32(_SHUFFLE))
    return setup.split(take(data, setup.split(rows_of(step, size, setup.batch_size, key=shuffle))))


@eqx.filter_jit
def batch_at(constants: tuple[Setup, PyTree, Int[Array, ""] | None], step: Int[Array, ""]) -> PyTree:
    """The batch that a step takes, of ``(setup, data, first)`` as for `advance`."""
    return _batch(*constants, step)


@eqx.filter_jit(donate="all-except-first")
def advance(
    constants: tuple[Setup, PyTree, Int[Array, ""] | None, Int[Array, ""]], state: State
) -> tuple[State, PyTree, Bool[Array, ""]]:
    """Take steps until ``stop``, or until one is not finite.

    The bound is an argument, so that every call runs the same program whatever the number of steps.

    Args:
        constants: ``(setup, data, first, stop)``: the setup; resident rows when ``first`` is None, else the batches
            of the steps from ``first`` on; the number of steps after which to stop.
        state: donated.

    Returns:
        The new state, what the steps taken measured (the rest of the buffers is zero), and whether all were finite.
    """
    setup, data, first, stop = constants
    start = state.step

    @canonical_convolutions
    def body(carry: tuple[State, PyTree, Array]) -> tuple[State, PyTree, Array]:
        state, rows, _ = carry
        following, row, finite = _step(setup, state, _batch(setup, data, first, state.step))
        rows = jax.tree.map(lambda buffer, number: buffer.at[state.step - start].set(number), rows, row)
        return setup.whole(following), rows, finite

    def going(carry: tuple[State, PyTree, Array]) -> Bool[Array, ""]:
        return (carry[0].step < stop) & carry[2]

    rows = jax.tree.map(lambda like: jnp.zeros((LONGEST_CHUNK, *like.shape), like.dtype), setup.measured)
    return jax.lax.while_loop(going, body, (setup.whole(state), rows, jnp.array(True)))


@eqx.filter_jit(donate="all-except-first")
def validate(constants: tuple[Setup, PyTree], state: State) -> tuple[State, PyTree]:
    """Mean loss and metrics over the validation rows, one batch after the other; the best weights brought up to date.

    The averaged weights are judged where there is an average, in inference mode: no dropout, running statistics. The
    keys are the same at every call, so that two calls differ by the weights alone.

    Args:
        constants: ``(setup, rows)``.
        state: donated.

    Returns:
        The state and the means over rows, as ``(loss, metrics)``.
    """
    setup, rows = constants
    weights = state.params if state.ema is None else state.ema.average
    model = eqx.nn.inference_mode(eqx.combine(weights, setup.frozen))
    key = jax.random.fold_in(setup.key, jnp.uint32(_VALIDATE))
    size = jax.tree.leaves(rows)[0].shape[0]
    full, rest = divmod(size, setup.batch_size)

    def of(batch: PyTree, key: Key) -> PyTree:
        # A copy, for a state is spent by being used.
        found = setup.objective(model, (jax.tree.map(lambda leaf: leaf, state.model_state), batch), key=key)
        value, aux = found if setup.has_aux or setup.stateful else (found, (None, {}))
        return measurements(value, aux[1])

    total = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), setup.measured)
    if full:

        @canonical_convolutions
        def of_batch(i: Int[Array, ""]) -> PyTree:
            batch = jax.tree.map(
                lambda x: jax.lax.dynamic_slice_in_dim(x, i * setup.batch_size, setup.batch_size), rows
            )
            return of(setup.split(batch), jax.random.fold_in(key, i))

        sums = jax.tree.map(lambda x: jnp.sum(x, axis=0), jax.lax.map(of_batch, jnp.arange(full)))
        total = jax.tree.map(lambda t, x: t + setup.batch_size * x, total, sums)
    if rest:
        batch = jax.tree.map(lambda x: x[full * setup.batch_size :], rows)
        total = jax.tree.map(lambda t, x: t + rest * x, total, of(batch, jax.random.fold_in(key, full)))
    means = jax.tree.map(lambda t: t / size, total)
    mean = jnp.mean(means[0])
    better = mean < state.best_loss
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), (weights, state.model_state), state.best)
    state = state._replace(
        best=best,
        best_loss=jnp.where(better, mean, state.best_loss),
        best_step=jnp.where(better, state.step, state.best_step),
    )
    return setup.whole(state), means
