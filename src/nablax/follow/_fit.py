"""The training loop."""

import inspect
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
    AbstractRecord,
    Key,
    check_callable,
    check_count,
    check_instance,
    check_key,
    check_optimizer,
    described,
    fault,
    is_key,
    with_arrays,
)
from ..fields import EMA
from ._checkpoint import Checkpoints, Saved
from ._devices import (
    local,
    place,
    spread,
)
from ._fingerprint import data_digest, programs
from ._loop import Kept, Schedule, run
from ._progress import History, Progress, Record
from ._rows import check_alike, check_rows
from ._source import HostSource, Prefetch, Resident
from ._step import Extra, Loss
from ._train import Setup, State, measurements
from ._watched import lowered, watching


class Fit(AbstractRecord):
    """The outcome of training.

    Attributes:
        model: the weights to use: those with the lowest validation loss; without validation the final average
            if there is one, else the final weights.
        last: the final weights, not averaged. After a divergence: the last ones that were finite.
        state: the model's state (running statistics) that goes with ``model``; None where there is none.
        last_state: the one that goes with ``last``.
        history: losses and metrics, step by step.
        step: number of steps done.
        best_step: number of steps after which ``model`` was taken.
        result: "completed", "stopped early" (no better validation for ``patience`` validations), "stopped by the watch"
            or "diverged" (the loss or the update of the next step is not finite).
    """

    model: PyTree
    last: PyTree
    state: PyTree | None
    last_state: PyTree | None
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
    state: PyTree | None = None,
    value_and_grad: Callable[..., Any] = jax.value_and_grad,
    extra: Extra | None = None,
    has_aux: bool = False,
    validation: PyTree | None = None,
    validate_every: int | None = None,
    patience: int | None = None,
    ema: EMA | None = None,
    checkpoint: Path | str | None = None,
    checkpoint_every: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    notice: Callable[[str], None] | None = None,
    watch: Callable[[int, PyTree, PyTree, PyTree], Any] | None = None,
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
            with ``jax.random.fold_in(key, k)``; one without randomness leaves ``key`` out.
        model: any pytree; its floating arrays are trained.
        data: pytree of arrays with the same leading axis (rows), kept on the device, drawn without replacement
            anew in each epoch; the rows left over when ``batch_size`` does not divide their number differ from
            epoch to epoch. Or a callable ``(first_step, count) -> pytree of arrays [count, batch_size, ...]``
            that depends on the step numbers only; it runs in a thread ahead of the device.
        optimizer: any Optax transformation, line searches and L-BFGS included, and any of this library's; the extra
            arguments that `nablax.follow.train_step` lists are passed to it. Not those that keep weights of their own
            beside the model (``optax.lookahead``).
        steps: number of updates.
        batch_size: rows in a batch; a multiple of the number of devices.
        key: of all randomness.
        state: what the model carries from step to step beside its weights, such as the `equinox.nn.State` of
            `equinox.nn.BatchNorm`; the loss is then ``loss(model, state, batch, *, key) -> (scalar, state)``.
        value_and_grad: what takes the gradient, as in `nablax.follow.train_step`: an estimator, or
            `nablax.regulate.multi_value_and_grad` for a loss that returns K losses, of which the history keeps all,
            while the best weights are those with the lowest mean.
        extra: ``extra(model, batch, grads) -> dict`` of more extra arguments for the optimiser.
        has_aux: whether the loss returns ``(scalar, metrics)``, with ``state`` ``(scalar, (state, metrics))``, metrics
            being real numbers in a dict by name; they land in the history.
        validation: rows like those of ``data``, on which the loss is measured with always the same keys, for the
            averaged weights where there is an average, in inference mode (no dropout, running statistics).
        validate_every: steps between validations; by default a fiftieth of ``steps``, or what it was where a
            checkpoint is gone on from. The final state is always validated.
        patience: number of validations without a new best after which training stops; never by default.
        ema: average the weights so; by default not.
        checkpoint: folder in which the training state is kept; when it holds one already, training goes on
            from there and ends bit-identical to a run never interrupted. Another loss, optimiser (its rate and
            schedule included), model to begin with, data, batch size or key is refused: loss and optimiser by the
            programs that they trace to with all constants in them, these and the model as far as JAX, Equinox, Optax
            and this library have kept their versions, on the same kind of device; model and data by shapes and values,
            of which 64 MiB an array are looked at; a callable by its batch of step 0. Needs the extra ``app``.
        checkpoint_every: steps between checkpoints; by default one is written about every ten seconds. When they
            are written does not influence the result.
        progress: called with a `Progress` at most ten times a second; an exception that it raises stops training,
            after a checkpoint where one is asked for.
        notice: called with one line of text when a checkpoint could not be used; by default a warning is given.
        watch: ``watch(number, model, opt_state, batch)``, called before a step is made, every ``watch.every`` steps
            (200 where it does not say), beginning with the first; `nablax.diagnose.watch` makes such ones. It returns
            None to go on; ``"stop"``; or a factor above 0, at most 1, by which updates are multiplied from here on.
            ``opt_state`` holds the optimiser's state as ``inner`` and that factor as ``factor``.

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
    _check_loss(loss, stateful=state is not None)
    check_key(key)
    steps, batch_size = check_count(steps, what="steps"), check_count(batch_size, what="batch_size")
    counts = {"validate_every": validate_every, "patience": patience, "checkpoint_every": checkpoint_every}
    counts = {name: None if count is None else check_count(count, what=name) for name, count in counts.items()}
    validate_every, patience, checkpoint_every = counts.values()
    looking = watching(watch)
    _check_choices(model, validation, patience, ema, value_and_grad, extra)
    for name, function in (("progress", progress), ("notice", notice)):
        if function is not None:
            check_callable(function, what=name, fix=f"Pass {name}=print, for one.")
    if checkpoint is not None:
        check_instance(checkpoint, (str, Path), what="checkpoint", fix="Pass the folder's path.")
    params, frozen = eqx.partition(model, eqx.is_inexact_array)
    if not jax.tree.leaves(params):
        raise fault(expected="a model with floating arrays", got=described(model), fix="There is nothing to train.")
    if not callable(data):
        check_rows("data", data, batch_size)
    if validation is not None:
        check_rows("validation", validation, 1)
    sharding = spread(batch_size)
    every = validate_every or max(1, steps // 50)
    setup = Setup(
        loss,
        check_optimizer(optimizer) if looking is None else lowered(check_optimizer(optimizer)),
        ema,
        frozen,
        key,
        batch_size,
        sharding,
        value_and_grad=value_and_grad,
        extra=extra,
        has_aux=has_aux,
        stateful=state is not None,
    )

    source: Resident | Prefetch
    if callable(data):
        source = Prefetch(data, steps, batch_size, sharding)
    else:
        source = Resident(data, steps, batch_size, sharding)
    if validation is not None:
        check_alike(validation, source.batch)
    setup, start = _started(setup, params, state, source.batch, validated=validation is not None)
    rows = None if validation is None else place(validation, sharding)
    now = place(start, sharding)
    record, result, kept = Record(steps, setup.measured), "", None
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
        # Beside the programs, for another version or device may draw other first weights from the same key.
        traced = {**programs(setup, now, source.batch), "start": data_digest((params, state))}
        kept = Kept(checkpoints, {**settings, "programs": traced})
        if saved is not None:
            if saved.step > steps:
                raise fault(expected=f"steps >= {saved.step}, the number done", got=steps, fix="Use another folder.")
            checkpoints.check(saved.settings, settings)
            now = place(_resumed(saved, now, record), sharding)
            checkpoints.check_programs(saved.settings.get("programs", {}), traced)
            # A run that completed fewer steps goes on; the other ends are final.
            result = "" if saved.result == "completed" and saved.step < steps else saved.result
    if not result:
        now, result = run(setup, now, record, source, rows, Schedule(steps, every, patience), kept, progress, looking)
    return _outcome(local(now), frozen, record, result)


def _check_loss(loss: Any, *, stateful: bool) -> None:
    """Refuse what is no function of a model and a batch, or of a model, its state and a batch."""
    fix = "loss(model, state, batch, *, key) -> (scalar, state)" if stateful else "loss(model, batch, *, key) -> scalar"
    check_callable(loss, what="loss", fix=f"Pass {fix}.")
    signatures = []
    # What wraps a function may take other arguments than the function.
    for follow in (True, False):
        try:
            signatures.append(inspect.signature(loss, follow_wrapped=follow))
        except (TypeError, ValueError):  # not everything that is called has one
            return
    for signature in signatures:
        try:
            signature.bind(*[None] * (3 if stateful else 2), **dict.fromkeys({"key"} & signature.parameters.keys()))
        except TypeError:
            continue
        return
    given = "three arguments, the key apart, as there is a state" if stateful else "two arguments, the key apart"
    raise fault(expected=f"a loss of {given}", got=f"one of {signatures[0]}", fix=f"Pass {fix}.")


def _check_choices(model: PyTree, validation: PyTree, patience: Any, ema: Any, value_and_grad: Any, extra: Any) -> None:
    """Refuse arguments that make no sense, or none together."""
    if patience is not None and validation is None:
        raise fault(expected="validation rows with patience", got="none", fix="Pass validation=... as well.")
    if ema is not None and not isinstance(ema, EMA):
        raise fault(expected="ema, an EMA", got=repr(ema), fix="Pass ema=nablax.fields.EMA(0.999), or None.")
    check_callable(value_and_grad, what="value_and_grad", fix="Pass jax.value_and_grad, or what is called like it.")
    if extra is not None:
        check_callable(extra, what="extra", fix="Pass extra(model, batch, grads) -> dict.")
    if isinstance(model, optax.LookaheadParams):
        raise fault(
            expected="the model itself", got="optax.LookaheadParams", fix="Pass model.fast; ema= averages the weights."
        )


def _measured(setup: Setup, state: State, batch: PyTree) -> PyTree:
    """Shapes of what a step measures, from those of its arguments alone."""

    def measure(state: State, batch: PyTree) -> PyTree:
        value, aux, _ = setup.differentiated(state, batch)(state.params)
        return measurements(value, {} if aux is None else aux[1])

    return jax.eval_shape(measure, state, batch)


def _resumed(saved: Saved, state: State, record: Record) -> State:
    """The state that a checkpoint holds, and the record brought to its step."""
    fix = "The model, the optimiser, ema, metrics or validation has changed: go back, or use another folder."
    record.restore(saved.arrays, fix=fix)
    return with_arrays(saved.arrays, state, source="a checkpoint", fix=fix)


def _started(setup: Setup, params: PyTree, state: PyTree, batch: PyTree, *, validated: bool) -> tuple[Setup, State]:
    """The setup, which now knows what a step measures, and the state before the first step."""
    start = State(
        params=params,
        model_state=state,
        optimizer=setup.optimizer.init(params),
        ema=None if setup.ema is None else setup.ema.init(params),
        best=(params, state) if validated else None,
        best_loss=jnp.array(jnp.inf),
        best_step=jnp.array(0, jnp.int32),
        step=jnp.array(0, jnp.int32),
    )
    setup = eqx.tree_at(lambda s: s.measured, setup, _measured(setup, start, batch))
    return setup, start._replace(best_loss=start.best_loss.astype(setup.measured[0].dtype))


def _outcome(state: State, frozen: PyTree, record: Record, result: str) -> Fit:
    step, best_step = int(state.step), int(state.best_step)
    best = state.best
    if best is None or best_step == 0:
        # Nothing was validated, or nothing finite came of it.
        best, best_step = (state.params if state.ema is None else state.ema.average, state.model_state), step
    # Copies, so that the record shares no buffer with itself.
    weights, model_state = jax.tree.map(jnp.copy, best)
    model, last = (eqx.combine(params, frozen) for params in (weights, state.params))
    return Fit(model, last, model_state, state.model_state, record.history(), step, best_step, result)
