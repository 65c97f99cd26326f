"""The training loop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from .._core import (
    Key,
    check_callable,
    check_count,
    check_key,
    check_loss,
    check_optimizer,
    described,
    fault,
    is_key,
    with_arrays,
)
from ..fields import EMA
from ._checkpoint import Checkpoints
from ._devices import (
    local,
    place,
    spread,
)
from ._fingerprint import data_digest, programs
from ._loop import Kept, Schedule, run
from ._progress import History, Progress, Record
from ._source import HostSource, Prefetch, Resident
from ._train import Loss, Setup, State


class Fit(eqx.Module):
    """The outcome of training.

    Attributes:
        model: the weights to use: those with the lowest validation loss; without validation the final average
            if there is one, else the final weights.
        last: the final weights, not averaged. After a divergence: the last ones that were finite.
        history: losses, step by step.
        step: number of steps done.
        best_step: number of steps after which ``model`` was taken.
        result: "completed", "stopped early" (no better validation for ``patience`` validations) or "diverged"
            (the loss or the update of the next step is not finite).
    """

    model: PyTree
    last: PyTree
    history: History
    step: int
    best_step: int
    result: str


def fit(
    loss: Loss,
    model: PyTree,
    data: PyTree | HostSource,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    batch_size: int,
    key: Key,
    validation: PyTree | None = None,
    validate_every: int | None = None,
    patience: int | None = None,
    ema: EMA | None = None,
    checkpoint: Path | str | None = None,
    checkpoint_every: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    notice: Callable[[str], None] | None = None,
) -> Fit:
    r"""Minimise the mean of a loss over data by stochastic gradients.

    $$
    \theta_{k+1} = \theta_k + \mathrm{optimizer}\big(\nabla_\theta\, \ell(\theta_k, B_k, \xi_k)\big)
    $$

    with the batch $B_k$ and the noise $\xi_k$ of step $k$ determined by ``key`` and $k$ alone. Many steps run in
    one compiled loop on the device; no Python and no host round trip per step. All devices are used: the rows of
    a batch are spread over them, the weights are on each. Several processes joined by ``jax.distributed`` run the
    same call.

    On a CPU the loop's convolutions, backward ones above all, are brought to the layout that XLA is fast at; in any
    other they take 10 to 80 times as long in a loop as in a step that is called from Python.

    Args:
        loss: ``loss(model, batch, *, key) -> scalar``, the mean over the rows of the batch. Step $k$ calls it
            with ``jax.random.fold_in(key, k)``.
        model: any pytree; its floating arrays are trained.
        data: pytree of arrays with the same leading axis (rows), kept on the device, drawn without replacement
            anew in each epoch; the rows left over when ``batch_size`` does not divide their number differ from
            epoch to epoch. Or a callable ``(first_step, count) -> pytree of arrays [count, batch_size, ...]``
            that depends on the step numbers only; it runs in a thread ahead of the device.
        optimizer: any Optax transformation, line searches and L-BFGS included: ``value``, ``grad`` and ``value_fn``,
            the loss of the present batch as a function of the weights, are passed as extra arguments. Not those
            that keep weights of their own beside the model (``optax.lookahead``).
        steps: number of updates.
        batch_size: rows in a batch; a multiple of the number of devices.
        key: of all randomness.
        validation: rows like those of ``data``, on which the loss is measured with always the same keys, for the
            averaged weights where there is an average.
        validate_every: steps between validations; by default a fiftieth of ``steps``, or what it was where a
            checkpoint is gone on from. The final state is always validated.
        patience: number of validations without a new best after which training stops; never by default.
        ema: average the weights so; by default not.
        checkpoint: folder in which the training state is kept; when it holds one already, training goes on
            from there and ends bit-identical to a run never interrupted. Another loss, optimiser (its rate and
            schedule included), data, batch size or key is refused: loss and optimiser by the programs that they
            trace to with all constants in them, as far as JAX, Equinox, Optax and this library have kept their
            versions; data by shapes and values, of which 64 MiB an array are looked at; a callable by its batch of
            step 0. Needs the extra ``app``.
        checkpoint_every: steps between checkpoints; by default one is written about every ten seconds. When they
            are written does not influence the result.
        progress: called with a `Progress` at most ten times a second.
        notice: called with one line of text when a checkpoint could not be used; by default a warning is given.

    Returns:
        A `Fit` record.

    Raises:
        ValueError: an argument makes no sense, or the checkpoint belongs to another model, loss, optimiser or data.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from nablax.follow import fit
        >>> x = jnp.linspace(-1.0, 1.0, 64)
        >>> def loss(model, batch, *, key):
        ...     return jnp.mean((model["slope"] * batch["x"] - batch["y"]) ** 2)
        >>> line = fit(
        ...     loss, {"slope": jnp.array(0.0)}, {"x": x, "y": 3.0 * x},
        ...     optimizer=optax.adam(0.1), steps=300, batch_size=16, key=jax.random.key(0),
        ... )
        >>> line.result, round(float(line.model["slope"]), 2)
        ('completed', 3.0)

    Cost: per step one value and gradient of the loss and one update; per validation one loss for each row. Memory:
        weights, optimiser state, one copy each for the average and the best, and the data.
    """
    check_callable(loss, what="loss", fix="Pass loss(model, batch, *, key) -> scalar.")
    check_key(key)
    steps, batch_size = check_count(steps, what="steps"), check_count(batch_size, what="batch_size")
    counts = {"validate_every": validate_every, "patience": patience, "checkpoint_every": checkpoint_every}
    counts = {name: None if count is None else check_count(count, what=name) for name, count in counts.items()}
    validate_every, patience, checkpoint_every = counts.values()
    if patience is not None and validation is None:
        raise fault(expected="validation rows with patience", got="none", fix="Pass validation=... as well.")
    if ema is not None and not isinstance(ema, EMA):
        raise fault(expected="ema, an EMA", got=repr(ema), fix="Pass ema=nablax.fields.EMA(0.999), or None.")
    if isinstance(model, optax.LookaheadParams):
        raise fault(
            expected="the model itself", got="optax.LookaheadParams", fix="Pass model.fast; ema= averages the weights."
        )
    extended = check_optimizer(optimizer)
    params, frozen = eqx.partition(model, eqx.is_inexact_array)
    if not jax.tree.leaves(params):
        raise fault(expected="a model with floating arrays", got=described(model), fix="There is nothing to train.")
    if not callable(data):
        _check_rows("data", data, batch_size)
    if validation is not None:
        _check_rows("validation", validation, 1)
    sharding = spread(batch_size)
    every = validate_every or max(1, steps // 50)
    setup = Setup(loss, extended, ema, frozen, key, batch_size, sharding)

    source: Resident | Prefetch
    if callable(data):
        source = Prefetch(data, steps, batch_size, sharding)
    else:
        source = Resident(data, steps, batch_size, sharding)
    dtype = _loss_dtype(setup, params, source.batch)
    rows = None if validation is None else place(validation, sharding)
    state = State(
        params=params,
        optimizer=extended.init(params),
        ema=None if ema is None else ema.init(params),
        best=None if validation is None else params,
        best_loss=jnp.array(jnp.inf, dtype),
        best_step=jnp.array(0, jnp.int32),
        step=jnp.array(0, jnp.int32),
    )
    state = place(state, sharding)
    record, result, kept = Record(steps, dtype), "", None
    if checkpoint is not None:
        checkpoints = Checkpoints(checkpoint, checkpoint_every, notice)
        saved = checkpoints.newest()
        if validate_every is None and saved is not None:
            # More steps than before are validated as the first were.
            every = saved.settings.get("validate_every") or every
        settings = {
            "batch_size": batch_size,
            "key": np.asarray(jax.random.key_data(key) if is_key(key) else key).tolist(),
            "decay": None if ema is None else float(ema.decay),
            "data": data_digest(source.first if isinstance(source, Prefetch) else data),
            "validation": None if validation is None else data_digest(validation),
            "validate_every": None if validation is None else every,
        }
        traced = programs(setup, state, source.batch)
        kept = Kept(checkpoints, {**settings, "programs": traced})
        if saved is not None:
            if saved.step > steps:
                raise fault(expected=f"steps >= {saved.step}, the number done", got=steps, fix="Use another folder.")
            checkpoints.check(saved.settings, settings)
            record.restore(saved.arrays)
            fix = "The model, the optimiser, ema or validation has changed: go back, or use another folder."
            state = place(with_arrays(saved.arrays, state, source="a checkpoint", fix=fix), sharding)
            checkpoints.check_programs(saved.settings.get("programs", {}), traced)
            # A run that completed fewer steps goes on; the other ends are final.
            result = "" if saved.result == "completed" and saved.step < steps else saved.result
    if not result:
        state, result = run(setup, state, record, source, rows, Schedule(steps, every, patience), kept, progress)
    return _outcome(local(state), frozen, record, result)


def _numeric(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, jnp.bool_)


def _check_rows(name: str, rows: PyTree, fewest: int) -> None:
    leaves = jax.tree.leaves(rows)
    for leaf in leaves:
        numbers = isinstance(leaf, jax.Array | np.ndarray) and (is_key(leaf) or _numeric(leaf.dtype))
        if not numbers or np.ndim(leaf) == 0:
            raise fault(
                expected=f"{name}: arrays of numbers with a leading axis of rows",
                got=described(leaf)
                if isinstance(leaf, jax.Array | np.ndarray)
                else f"a {type(leaf).__name__} among them",
                fix="Make one array of the rows by numpy.asarray or numpy.stack, and numbers of words.",
            )
    counts = [leaf.shape[0] for leaf in leaves]
    if not counts:
        raise fault(
            expected=f"{name}: arrays of numbers with a leading axis of rows", got=described(rows), fix="Pass some."
        )
    if len(set(counts)) > 1:
        raise fault(
            expected=f"{name}: arrays with as many rows each", got=described(rows), fix="Cut them to one length."
        )
    if counts[0] < fewest:
        fix = "Pass more rows or a smaller batch_size." if name == "data" else "Pass some rows."
        raise fault(expected=f"{name}: at least {fewest} rows", got=counts[0], fix=fix)


def _loss_dtype(setup: Setup, params: PyTree, batch: PyTree) -> np.dtype:
    """Dtype of the loss, from its shapes alone."""

    def value(params: PyTree, batch: PyTree) -> PyTree:
        return check_loss(setup.loss(eqx.combine(params, setup.frozen), batch, key=setup.key))

    return jax.eval_shape(value, params, batch).dtype


def _outcome(state: State, frozen: PyTree, record: Record, result: str) -> Fit:
    step, best_step = int(state.step), int(state.best_step)
    best = state.best
    if best_step == 0:
        # Nothing was validated, or nothing finite came of it.
        best, best_step = (state.params if state.ema is None else state.ema.average), step
    # Copies, so that the record shares no buffer with itself.
    model = eqx.combine(jax.tree.map(jnp.copy, best), frozen)
    last = eqx.combine(state.params, frozen)
    return Fit(model, last, record.history(), step, best_step, result)
