"""What the parts of a check-up are measured from, looked at once for all of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._core import (
    Key,
    UpdateRule,
    check_like,
    check_optimizer,
    fault,
    forward,
    given_rule,
    unknown_rule,
)
from ._aggregated import Aggregated, aggregate, quiet, rule_behind
from ._along import Along, Moved, Point, curvatures_on_parts, directional, row_count, slopes_along
from ._curvature import TRACE_PROBES, Curvature, curvature, hessian, top_direction, trace_probe
from ._decay import decay_curvature
from ._fed import Fed, fed
from ._losses import side_by_side
from ._optimizer_state import aggregators_of, behind, emitted, gathers, own_stack
from ._row_gradients import RowGradients, row_gradients
from ._schedule import growth
from ._update_rule import update_rule

# Directions drawn at random are each asked about one of so many parts of the rows.
RANDOM_PARTS = 4

# Notes of how something was measured, and of what was not.
FORWARD = (
    "measured by reverse mode alone: the loss holds a rule of jax.custom_vjp, which has no forward mode; curvature is "
    "that of the rule, right where the rule is the derivative"
)
GATHERED = (
    "the step: gradients are accumulated, and the parameters move at the last of them only; it is the next such step, "
    "where the gradients still to come are like this one"
)
NO_STEP = "not measured: the step: no update, and no optimizer that would make one"
NO_WALK = "not measured: the next steps: the optimiser's state changes its shape or type from step to step"
NO_ROWS = "not measured: gradient noise, standard errors over rows and dead units: "
OTHER_STATE = (
    "Pass the state that this optimiser made for these parameters, "
    "optimizer.init(equinox.filter(params, equinox.is_inexact_array)), or its state after some steps."
)


class Asked(NamedTuple):
    """The functions that a check-up was given."""

    loss: Callable
    example_losses: Callable | None
    losses: Any
    logits: Callable | None
    field: Callable | None
    optimizer: optax.GradientTransformation | None


class Given(NamedTuple):
    """The numbers that it was given."""

    params: PyTree
    batch: PyTree
    opt_state: PyTree
    update: PyTree
    learning_rate: Array | None
    momentum: Array | None
    key: Key


class Effort(NamedTuple):
    """Rows looked at, products with the Hessian, eigenvalues."""

    rows: int
    products: int
    eigenvalues: int


class Rows(NamedTuple):
    """Single rows.

    Attributes:
        gradients: of each.
        losses: of all that were looked at, as a function of the parameters.
        before: their losses where the parameters are.
        along: derivatives of them along the first eigenvector and the step.
        slopes: of them along the mean gradient, that in rates, and its image.
        image: the Hessian times the mean gradient.
    """

    gradients: RowGradients
    losses: Moved
    before: Float[Array, " rows"]
    along: dict[str, Along]
    slopes: dict[str, Float[Array, " rows"]]
    image: Float[Array, " dim"]


class Walk(NamedTuple):
    """What makes the steps: an optimiser, and its state before the next one."""

    transform: optax.GradientTransformationExtraArgs
    state: PyTree


class Shared(NamedTuple):
    """What more than one part needs.

    Attributes:
        asked: the functions.
        batch: as given.
        total: its rows; None without.
        point: the parameters.
        value: the loss as a function of them.
        loss: there.
        gradient: there.
        rule: of the optimiser.
        rates: of that rule.
        update: the step; None without.
        fresh: whether the optimiser's moments are as before its first step.
        unaided: whether no moments bear on the step.
        growth: how many times as long its schedule makes the step within 200 steps; NaN where not known.
        finite: whether all numbers of the batch are.
        walk: what makes it and the steps to come; None where they are made by other means.
        together: losses whose gradients an aggregator combines; None where the optimiser is given one gradient.
        weights: by which it does at this step; None where there are none.
        decay: what decay adds to the diagonal of rate times Hessian; zeros without.
        curvature: in the optimiser's coordinates.
        along: derivatives of the loss along the step; None without.
        probed: curvatures along the trace's probes,
        signed: and along the signed sums of rows; each on a part of the rows, where they are known.
        rows: None where there are none to tell apart.
        field_key: for the field's probes.
        notes: how something was measured, and what was not.
    """

    asked: Asked
    batch: PyTree
    total: int | None
    point: Point
    value: Callable[[Array], Float[Array, ""]]
    loss: Float[Array, ""]
    gradient: Float[Array, " dim"]
    rule: UpdateRule
    rates: Float[Array, " dim"]
    update: Float[Array, " dim"] | None
    fresh: Bool[Array, ""]
    unaided: Bool[Array, ""]
    growth: Float[Array, ""]
    finite: Bool[Array, ""]
    walk: Walk | None
    together: Callable[..., Array] | None
    weights: Float[Array, " losses"] | None
    decay: Float[Array, " dim"]
    curvature: Curvature
    along: Along | None
    probed: Float[Array, " probes"]
    signed: Float[Array, " groups"]
    rows: Rows | None
    field_key: Key
    notes: tuple[str, ...]


def look(asked: Asked, given: Given, effort: Effort) -> Shared:
    """Look at loss, step and rows: each function is traced along all directions that the parts ask for at once."""
    point, total, notes = Point.of(given.params), row_count(given.batch), []
    spectrum_key, trace_key, noise_key, field_key = jax.random.split(given.key, 4)
    moving = point.tree(point.vector)
    mover, aggregated, together = _mover(asked, given, moving), None, None
    unknown = "no optimizer and no learning_rate were given"
    if mover is not None and (own := own_stack(mover.state)):
        mover, unknown = None, own
    if mover is not None and aggregators_of(mover.state):
        together = _to_combine(asked, point, given.batch)
        aggregated = aggregate(asked.loss, together, point, given.batch, mover.transform, mover.state)
        asked = asked._replace(loss=aggregated.loss)
        notes.append(aggregated.note)
    value = point.loss(asked.loss, given.batch)
    here = fed(point, asked.loss, together, given.batch)(point.vector)
    loss, gradient = here.loss, here.slope
    if jax.eval_shape(lambda v: forward(value, v, v), point.vector) is None:
        notes.append(FORWARD)
    stepped = _stepped(given, point, mover, here, aggregated, unknown)
    rule, tree, decay = stepped.rule, stepped.update, stepped.decay.astype(point.vector.dtype)
    notes += stepped.notes
    walk, (fresh, unaided) = stepped.walk, _beginning(stepped.walk, given, moving)
    rates = _felt(point.like(rule.rates, "rates"), gradient)
    update = None if tree is None else point.like(tree, "an update")
    if update is None:
        notes.append(NO_STEP)
    if effort.rows == 0:
        notes.append(f"{NO_ROWS}rows=0")
    elif total is None or min(total, effort.rows) < 4:
        notes.append(f"{NO_ROWS}fewer than four rows, or the arrays of the batch share no leading axis")
    product = hessian(value, point.vector)
    found = curvature(product, rates, count=effort.eigenvalues, steps=effort.products, key=spectrum_key, added=decay)
    rows, signed, single = None, jnp.zeros(0), None
    if total is not None and min(total, effort.rows) >= 4:
        single = row_gradients(asked.loss, asked.example_losses, point, given.batch, rates, effort.rows, noise_key)
    # Where the Hessian is at hand it says what curvature there is along a direction: the loss need not be traced again.
    asked_about = ([] if update is None else [update]) + ([] if single is None else [single[0].mean])
    images = jax.lax.map(product, jnp.stack(asked_about)) if asked_about else jnp.zeros((0, point.vector.size))
    along = None
    if update is not None:
        along = Along((gradient @ update)[None], (images[0] @ update)[None])
    probe = trace_probe(found, rates, trace_key)
    if single is not None:
        gradients, losses = single
        mean, image = gradients.mean, images[-1]

        def direction(index: Int[Array, ""]) -> Float[Array, " dim"]:
            others = gradients.signed
            return jax.lax.cond(index < TRACE_PROBES, probe, lambda i: others[i - TRACE_PROBES], index)

        count = TRACE_PROBES + len(gradients.signed)
        bent = curvatures_on_parts(
            _of_rows(asked, point), loss, point.vector, direction, count, given.batch, RANDOM_PARTS
        )
        probed, signed = bent[:TRACE_PROBES], bent[TRACE_PROBES:]
        each = {"top": top_direction(found, rates)[None]} | ({} if update is None else {"update": update[None]})
        before, by_row = directional(losses, point.vector, each)
        slopes = slopes_along(
            losses, point.vector, {"mean": mean, "weighted": rates * mean, "image": image / gradients.unit}
        )
        rows = Rows(gradients, losses, before, by_row, slopes, image)
    else:
        probes = jax.lax.map(probe, jnp.arange(TRACE_PROBES))
        probed = directional(value, point.vector, {"probes": probes})[1]["probes"].curvatures
    return Shared(
        asked=asked,
        batch=given.batch,
        total=total,
        point=point,
        value=value,
        loss=loss,
        gradient=gradient,
        rule=rule,
        rates=rates,
        update=update,
        fresh=fresh,
        unaided=unaided,
        growth=jnp.full((), jnp.nan) if walk is None else growth(*walk, tree, here, moving),
        finite=_all_finite(given.batch),
        walk=walk,
        together=together,
        weights=None if aggregated is None else aggregated.weights,
        decay=decay,
        curvature=found,
        along=along,
        probed=probed,
        signed=signed,
        rows=rows,
        field_key=field_key,
        notes=tuple(notes),
    )


def _of_rows(asked: Asked, point: Point) -> Callable[[PyTree], Callable[[Array], Float[Array, ""]]]:
    """The loss of some rows of the batch."""
    losses = asked.example_losses
    if losses is None:
        return lambda rows: point.loss(asked.loss, rows)

    def of(rows: PyTree) -> Callable[[Array], Float[Array, ""]]:
        each = point.losses(losses, rows)
        return lambda vector: jnp.mean(each(vector))

    return of


def _kinds(state: PyTree) -> tuple[Any, list[Any]]:
    """Structure, shapes and types of the arrays in a state, which a loop over steps has to keep."""
    leaves, tree = jax.tree.flatten(eqx.filter(state, eqx.is_array))
    return tree, [(leaf.shape, leaf.dtype) for leaf in leaves]


def _beginning(walk: Walk | None, given: Given, moving: PyTree) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
    """Whether there are moments and all are as before the first step; and whether none bear on the step."""
    if walk is None:
        moments = [(leaf, jnp.zeros_like(leaf)) for leaf in _arrays(given.opt_state)]
    else:
        # Constants may stand beside moments, as Muon's coefficients do.
        moments = list(zip(_arrays(walk.state), _arrays(walk.transform.init(moving))))
    untouched, no = jnp.all(jnp.array([jnp.all(now == start) for now, start in moments], bool)), jnp.asarray(False)
    return untouched if moments else no, untouched if given.update is None else no


def _all_finite(batch: PyTree) -> Bool[Array, ""]:
    numbers = [leaf for leaf in jax.tree.leaves(batch) if eqx.is_inexact_array(leaf)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in numbers], bool))


def _arrays(state: PyTree) -> list[Array]:
    return [leaf for leaf in jax.tree.leaves(state) if eqx.is_inexact_array(leaf) and leaf.ndim > 0]


def _felt(rates: Float[Array, " dim"], gradient: Float[Array, " dim"]) -> Float[Array, " dim"]:
    """Rates without those of elements that have had no gradient yet: a metric of nothing but ε says nothing of them."""
    felt = gradient != 0
    largest = jnp.max(rates, initial=0, where=felt)
    return jnp.where(~felt & (rates > largest) & jnp.any(felt), 0, rates)


class Stepped(NamedTuple):
    """How the optimiser moves, the step that it makes, and what there is to say of it."""

    rule: UpdateRule
    update: PyTree
    decay: Float[Array, " dim"]
    walk: Walk | None
    notes: list[str]


def _mover(asked: Asked, given: Given, moving: PyTree) -> Walk | None:
    """The optimiser with its state before the step; None without one."""
    if asked.optimizer is None:
        return None
    transform, state = check_optimizer(asked.optimizer), given.opt_state
    start = jax.eval_shape(transform.init, moving)
    if state is None:
        state = transform.init(moving)
    check_like(state, start, what="opt_state", fix=OTHER_STATE)
    return Walk(quiet(transform) if aggregators_of(state) else transform, state)


def _to_combine(asked: Asked, point: Point, batch: PyTree) -> Callable[..., Array]:
    """The losses whose gradients the aggregator is given."""
    if asked.losses is None:
        raise fault(
            expected="losses= for an optimizer that begins with an aggregator",
            got="one loss",
            fix="Pass those whose gradients the training loop gives it; or what comes after the aggregator as "
            "optimizer, its state as opt_state, and the step as update.",
        )
    if asked.example_losses is not None:
        raise fault(
            expected="no example_losses for an optimizer that begins with an aggregator",
            got="example_losses beside losses",
            fix="Leave it out: rows are those of losses=. Where a row's losses depend on the others pass rows=0.",
        )
    return side_by_side(asked.losses, point, batch)[1]


def _stepped(
    given: Given, point: Point, mover: Walk | None, here: Fed, aggregated: Aggregated | None, unknown: str
) -> Stepped:
    """``unknown`` says why nothing is known of what makes it, where nothing is."""
    moving, update = point.tree(point.vector), given.update
    no_decay, gradient = jnp.zeros_like(point.vector), point.tree(here.slope)
    if mover is not None:
        transform, state = mover
        if aggregated is None:
            made, after = emitted(transform, here.gradient, state, moving, **here.extra)
            rule = update_rule(transform, state, moving, gradient, **here.extra)
        else:
            made, after = aggregated.update, aggregated.after
            rule = rule_behind(transform, state, moving, gradient, aggregated, **here.extra)
        decay = no_decay
        if not rule.reason:
            decay = decay_curvature(behind(transform), state, moving, gradient, rule, **here.extra)
        if update is not None:
            return Stepped(rule, update, decay, None, [])
        steady = _kinds(state) == _kinds(after)
        notes = ([GATHERED] if gathers(state) else []) + ([] if steady else [NO_WALK])
        return Stepped(rule, made, decay, mover if steady else None, notes)
    if given.learning_rate is not None:
        rule = given_rule(moving, given.learning_rate, given.momentum)
        walk = None
        if update is None and given.momentum is None:
            update = jax.tree.map(lambda g, r: -r * g, gradient, rule.rates)
            descent = check_optimizer(optax.sgd(given.learning_rate))
            walk = Walk(descent, descent.init(moving))
        return Stepped(rule, update, no_decay, walk, [])
    return Stepped(unknown_rule(moving, unknown), update, no_decay, None, [])
