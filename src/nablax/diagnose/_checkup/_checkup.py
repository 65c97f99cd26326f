"""One call inside a training loop: is the next step safe, and what is to be changed?"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key, canonical_convolutions, check_key
from . import _rehearsal
from ._arguments import check_batch, check_chance, check_counts, check_functions, check_mover
from ._compiling import quick_jit
from ._losses import Losses, named
from ._record import PARTS, Checkup
from ._rehearsal import Rehearsal
from ._shared import Asked, Effort, Given, look
from ._verdict import DEFAULT, Thresholds, likely_to_fail


def checkup(
    loss: Callable[[PyTree, PyTree], Float[Array, ""]],
    params: PyTree,
    batch: PyTree,
    *,
    optimizer: optax.GradientTransformation | None = None,
    opt_state: PyTree = None,
    update: PyTree = None,
    key: Key,
    example_losses: Callable[[PyTree, PyTree], Float[Array, " rows"]] | None = None,
    losses: Losses | None = None,
    logits: Callable[[PyTree, PyTree], Float[Array, "... classes"]] | None = None,
    field: Callable[[PyTree, PyTree], PyTree] | None = None,
    learning_rate: float | Array | None = None,
    momentum: float | Array | None = None,
    batch_size: int | None = None,
    chance: float | Array | None = None,
    thresholds: Thresholds = DEFAULT,
    rows: int = 128,
    steps: int = 8,
    count: int = 5,
) -> Checkup:
    r"""Check a training step before it is made; nothing is changed.

    The top eigenvalue of the preconditioned Hessian against this optimiser's own threshold; the step against its
    quadratic model; gradient noise scales; how much of gradient and step lie in the top of the spectrum; conflicts
    between losses; rotation; dead, vanishing, exploding and non-finite parameters. Each part can be had alone:
    :func:`sharpness`, :func:`step_quality`, :func:`noise_scale`, :func:`subspace`, :func:`conflicts`, :func:`rotation`,
    :func:`layer_health`.

    One compiled call, compiled once for as long as the functions given are the same objects (define them outside of
    the loop) and the shapes stay. On a CPU its convolutions get the layout that XLA is fast at within loops.

    Args:
        loss: ``loss(params, batch) -> scalar``, deterministic: close over a fixed key if it draws.
        params: any pytree (Equinox, Flax, Haiku, dicts); inexact array leaves move.
        batch: any pytree. Where all its arrays share a leading axis these are rows.
        optimizer: the Optax optimiser. Rates and momentum are read from its response (:func:`update_rule`).
        opt_state: its state before the step; None for that of a first step.
        update: what is added to the parameters, if not what the optimiser makes of this batch's gradient.
        key: for random probes.
        example_losses: ``(params, batch) -> [rows]`` whose mean the loss is. Default: the loss of batches of one
            row. Either is right only where no row's loss depends on the others (no batch normalisation, no contrast
            between rows); where it does pass ``rows=0``.
        losses: several losses to compare, ``{name: loss(params, batch)}``, a sequence, or a vector-valued function. An
            aggregator at the optimiser's head combines them; their sum by its weights stands in place of ``loss``.
        logits: ``(params, batch) -> [..., classes]`` of a cross-entropy.
        field: ``(params, batch) -> direction``, what a game's players follow.
        learning_rate: where there is no Optax optimiser: that of gradient descent.
        momentum: of heavy ball, with ``learning_rate``.
        batch_size: rows of a training step, where ``batch`` holds more of them in order to measure.
        chance: the loss of a model that knows nothing, in the loss's unit; by default, with ``logits``, the logarithm
            of the number of classes, and otherwise not known.
        thresholds: from where on something is said; by default those that the bank of runs gave.
        rows: take gradients of at most so many single rows, from all over the batch, 128 by default; 0 for none.
        steps: Hessian products for the spectrum, 8 by default.
        count: eigenvalues, 5 by default.

    Returns:
        A `Checkup`, on the host.

    Raises:
        ValueError: an argument makes no sense: a loss that is not one real number, parameters without floats, another
            optimiser's state, ``optimizer`` and ``learning_rate`` together, a rate that is not positive, fewer than one
            eigenvalue or product, ``losses`` that are none, an aggregator without them. It says what to do.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from nablax.diagnose import checkup
        >>> loss = lambda p, x: jnp.mean((x @ p - 1.0) ** 2)
        >>> x = jax.random.normal(jax.random.key(0), (64, 3))
        >>> record = checkup(loss, jnp.zeros(3), x, optimizer=optax.sgd(5.0), key=jax.random.key(1))
        >>> record.findings[0].topic
        'learning rate'

    Cost:
        About 60 training steps: ``steps`` Hessian products (two forward-and-backward passes each), the gradients of
        ``rows`` single rows, 8 forward passes along the step, about a dozen second derivatives along a direction, most
        of them of a quarter of the rows, and a rehearsal of 32 steps on half of the batch; up to seven other rates are
        rehearsed, by a program of its own, where the run is likely to fail.
        Each of several losses adds two gradients, a field eight of its JVPs.
    """
    check_functions(loss, example_losses=example_losses, logits=logits, field=field)
    check_key(key)
    check_counts(rows, steps, count, batch_size)
    check_batch(batch)
    check_mover(optimizer, learning_rate, momentum)
    check_chance(chance)
    rate = None if learning_rate is None else jnp.asarray(learning_rate)
    beta = None if momentum is None else jnp.asarray(momentum)
    known = None if chance is None else jnp.asarray(chance)
    asked = Asked(loss, example_losses, None if losses is None else named(losses), logits, field, optimizer)
    given = Given(params, batch, opt_state, update, rate, beta, key)
    record = jax.device_get(_measure(asked, given, Effort(rows, steps, count), batch_size, known, thresholds))
    if not _needs_a_rate(record):
        return record
    # Other rates are worth their cost where one is advised.
    rehearsal = jax.device_get(_further(asked, given, rows, record.rehearsal))
    return eqx.tree_at(lambda r: r.rehearsal, record, rehearsal)


def _needs_a_rate(record: Checkup) -> bool:
    """Whether another rate may be advised, and none was tried."""
    if record._broken() or record.rehearsal is None or not _rehearsal.undecided(record.rehearsal):
        return False
    return bool(likely_to_fail(record.signs, record.thresholds)) or record.signs.heart > 0


@quick_jit
@canonical_convolutions
def _further(asked: Asked, given: Given, rows: int, rehearsal: Rehearsal) -> Rehearsal:
    # Of what is looked at only the walk is compiled: the rest has no use here.
    return _rehearsal.further(look(asked, given, Effort(rows, 1, 1)), rehearsal)


@quick_jit
@canonical_convolutions
def _measure(
    asked: Asked,
    given: Given,
    effort: Effort,
    batch_size: int | None,
    chance: Array | None,
    thresholds: Thresholds,
) -> Checkup:
    shared = look(asked, given, effort)
    if chance is None and asked.logits is not None:
        classes = eqx.filter_eval_shape(asked.logits, given.params, given.batch).shape[-1]
        chance = jnp.asarray(math.log(classes)) if classes > 1 else None
    return Checkup(
        **{part.name: part.measure(shared) for part in PARTS},
        loss=shared.loss,
        chance=chance,
        fresh=shared.fresh,
        unaided=shared.unaided,
        growth=shared.growth,
        finite=shared.finite,
        thresholds=thresholds,
        batch_size=shared.total if batch_size is None else batch_size,
        notes=shared.notes,
    )
