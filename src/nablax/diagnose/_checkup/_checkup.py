"""One call inside a training loop: is the next step safe, and what is to be changed?"""

from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import (
    Key,
    canonical_convolutions,
    check_callable,
    check_count,
    check_key,
    check_like,
    check_optimizer,
    check_rate,
    check_shape,
    described,
    fault,
    forward,
)
from ...calculus import softmax_radius
from ._advice import Finding, findings
from ._along import Point, directional, row_count
from ._conflicts import (
    Conflicts,
    Losses,
    compare,
    named,
)
from ._layers import LayerHealth, layer_health
from ._noise_scale import Curved, NoiseScale, scales
from ._optimizer_state import emitted, gathers
from ._page import page
from ._recurrence import given_rule, unknown_rule
from ._rotation import Rotation, turning
from ._row_gradients import row_gradients
from ._sharpness import (
    Sharpness,
    curvature,
    edge,
    hessian,
    top_direction,
    trace_probes,
)
from ._step import (
    MULTIPLES,
    RowChanges,
    StepQuality,
    against_model,
)
from ._subspace import Subspace, shares
from ._update_rule import update_rule

PROBES = 4
# Notes of how something was measured, and of what was not.
FORWARD = (
    "measured by reverse mode alone: the loss holds a rule of jax.custom_vjp, which has no forward mode; curvature is "
    "that of the rule, right where the rule is the derivative"
)
GATHERED = (
    "the step: gradients are accumulated, and the parameters move at the last of them only; it is the next such step, "
    "where the gradients still to come are like this one"
)
OTHER_STATE = (
    "Pass the state that this optimiser made for these parameters, "
    "optimizer.init(equinox.filter(params, equinox.is_inexact_array)), or its state after some steps."
)


class Checkup(eqx.Module):
    """What one check-up found; each part is a record of its own.

    Attributes:
        sharpness: top eigenvalue against this optimiser's threshold.
        step: the actual update against its quadratic model; None without an update.
        noise: gradient noise scales; None where the batch has no rows to tell apart.
        subspace: top of the spectrum, and the share of gradient and update there.
        conflicts: of several losses; None unless they were given.
        rotation: of the update field; None unless one was given.
        layers: weights, gradients and steps by parameter.
        loss: on the batch.
        batch_size: rows of a training step; None where not known.
        notes: what was not measured, and why, and what was measured in another way.
    """

    sharpness: Sharpness
    step: StepQuality | None
    noise: NoiseScale | None
    subspace: Subspace
    conflicts: Conflicts | None
    rotation: Rotation | None
    layers: LayerHealth
    loss: Float[Array, ""]
    batch_size: int | None = eqx.field(static=True)
    notes: tuple[str, ...] = eqx.field(static=True)

    @property
    def findings(self) -> list[Finding]:
        """What is wrong or worth knowing, the gravest first: level ("fault", "warning", "note"), topic and text."""
        return findings(
            sharpness=self.sharpness,
            step=self.step,
            noise=self.noise,
            conflicts=self.conflicts,
            rotation=self.rotation,
            layers=self.layers,
            loss=self.loss,
            batch_size=self.batch_size,
        )

    @property
    def advice(self) -> list[str]:
        """The findings in plain words, the gravest first; never empty."""
        return [finding.text for finding in self.findings]

    def table(self) -> str:
        """Lay everything out as plain text.

        Returns:
            Advice, then the tables of the parts.
        """
        parts = [self.sharpness, self.step, self.noise, self.subspace, self.conflicts, self.rotation, self.layers]
        words = "\n".join(f"[{finding.level}] {finding.text}" for finding in self.findings)
        tables = [part.table() for part in parts if part is not None]
        return "\n\n".join([words, *tables, *self.notes])

    def to_html(self, path: str | Path | None = None) -> str:
        """Write everything as one page that opens offline.

        Args:
            path: where to write it; None to write nothing.

        Returns:
            The page.

        Raises:
            ImportError: matplotlib or Jinja2 is not installed; the message names the extra.
        """
        text = page(
            self.findings,
            sharpness=self.sharpness,
            step=self.step,
            noise=self.noise,
            subspace=self.subspace,
            conflicts=self.conflicts,
            layers=self.layers,
            loss=self.loss,
            batch_size=self.batch_size,
            notes=self.notes,
            numbers=self.table(),
        )
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text


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
    rows: int = 128,
    steps: int = 12,
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
        losses: several losses to compare, ``{name: loss(params, batch)}``, a sequence, or a vector-valued function.
        logits: ``(params, batch) -> [..., classes]`` of a cross-entropy.
        field: ``(params, batch) -> direction``, what a game's players follow.
        learning_rate: where there is no Optax optimiser: that of gradient descent.
        momentum: of heavy ball, with ``learning_rate``.
        batch_size: rows of a training step, where ``batch`` holds more of them in order to measure.
        rows: take gradients of at most so many single rows, from all over the batch, 128 by default; 0 for none.
        steps: Hessian products for the spectrum, 12 by default.
        count: eigenvalues, 5 by default.

    Returns:
        A `Checkup`, on the host.

    Raises:
        ValueError: an argument makes no sense: a loss that is not one real number, parameters without floats, another
            optimiser's state, ``optimizer`` and ``learning_rate`` together, a rate that is not positive, fewer than one
            eigenvalue or product, losses to compare that are none. It says what was expected and what to do.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from nablax.diagnose import checkup
        >>> loss = lambda p, x: jnp.mean((x @ p - 1.0) ** 2)
        >>> x = jax.random.normal(jax.random.key(0), (64, 3))
        >>> record = checkup(loss, jnp.zeros(3), x, optimizer=optax.sgd(5.0), key=jax.random.key(1))
        >>> record.findings[0].topic
        'learning rate'

    Cost:
        About 60 forward-and-backward passes of the batch at most: ``steps`` Hessian products (two such passes each),
        the gradients of ``rows`` single rows, 8 forward passes along the step, and about a dozen Jacobian products.
        Each of several losses adds two gradients, a field eight of its JVPs.
    """
    check_callable(loss, what="loss", fix="Pass loss(params, batch) -> scalar.")
    check_key(key)
    for name, number, least in (("rows", rows, 0), ("steps", steps, 1), ("count", count, 1)):
        check_count(number, what=name, least=least)
    if batch_size is not None:
        check_count(batch_size, what="batch_size")
    if any(jnp.ndim(leaf) and jnp.shape(leaf)[0] == 0 for leaf in jax.tree.leaves(eqx.filter(batch, eqx.is_array))):
        raise fault(expected="a batch with rows", got=described(batch), fix="Leave empty batches out.")
    if optimizer is not None and learning_rate is not None:
        raise fault(
            expected="an optimizer or a learning_rate", got="both", fix="The optimiser's own rate is read from it."
        )
    if momentum is not None and learning_rate is None:
        raise fault(expected="a learning_rate with momentum", got="None", fix="Pass both, or the optimizer.")
    if optimizer is not None:
        check_optimizer(optimizer)
    if learning_rate is not None:
        check_rate(learning_rate)
    if momentum is not None:
        check_shape(momentum, (), what="momentum", fix="Pass momentum=0.9, for one.")
        if not 0 <= float(momentum) < 1:
            raise fault(expected="momentum in [0, 1)", got=momentum, fix="At 1 and beyond no run settles.")
    rate = None if learning_rate is None else jnp.asarray(learning_rate)
    beta = None if momentum is None else jnp.asarray(momentum)
    functions = (loss, example_losses, None if losses is None else named(losses), logits, field, optimizer)
    state = (params, batch, opt_state, update, rate, beta, key)
    return jax.device_get(_measure(functions, state, batch_size, rows, steps, count))


@eqx.filter_jit
@canonical_convolutions
def _measure(functions: tuple, state: tuple, batch_size: int | None, rows: int, steps: int, count: int) -> Checkup:
    loss, example_losses, losses, logits, field, optimizer = functions
    params, batch, opt_state, update, learning_rate, momentum, key = state
    point = Point.of(params)
    spectrum_key, trace_key, noise_key, field_key = jax.random.split(key, 4)
    notes: list[str] = []
    value = point.loss(loss, batch)
    at, gradient = jax.value_and_grad(value)(point.vector)
    moving, gradient_tree = point.tree(point.vector), point.tree(gradient)

    if jax.eval_shape(lambda v: forward(value, v, v), point.vector) is None:
        notes.append(FORWARD)
    if optimizer is not None:
        transform = check_optimizer(optimizer)
        start = jax.eval_shape(transform.init, moving)
        if opt_state is None:
            opt_state = transform.init(moving)
        check_like(opt_state, start, what="opt_state", fix=OTHER_STATE)
        of_tree = lambda tree: loss(eqx.combine(tree, point.still), batch)  # noqa: E731
        extra = {"value": at, "grad": gradient_tree, "value_fn": of_tree}
        rule = update_rule(optimizer, opt_state, moving, gradient_tree, **extra)
        if update is None:
            update, _ = emitted(transform, gradient_tree, opt_state, moving, **extra)
            if gathers(opt_state):
                notes.append(GATHERED)
    elif learning_rate is not None:
        rule = given_rule(moving, learning_rate, momentum)
        if update is None and momentum is None:
            update = jax.tree.map(lambda g, r: -r * g, gradient_tree, rule.rates)
    else:
        rule = unknown_rule(moving, "no optimizer and no learning_rate were given")
    rates = point.like(rule.rates, "rates")
    product = hessian(value, point.vector)
    found = curvature(product, rates, count=count, steps=steps, key=spectrum_key)
    # Everything that is asked along a direction is asked in one go, of the loss and of its rows.
    whole = {"probes": trace_probes(rates, trace_key)}
    each = {"top": top_direction(found, rates)[None]}
    u = None if update is None else point.like(update, "an update")
    if u is None:
        notes.append("not measured: the step: no update, and no optimizer that would make one")
    else:
        whole["update"] = each["update"] = u[None]
    gradients, total = None, row_count(batch)
    if rows == 0:
        notes.append("not measured: gradient noise, standard errors over rows and dead units: rows=0")
    elif total is None or min(total, rows) < 4:
        notes.append(
            "not measured: gradient noise, standard errors over rows and dead units: fewer than four rows, or the "
            "arrays of the batch share no leading axis"
        )
    else:
        gradients, row_losses = row_gradients(loss, example_losses, point, batch, rates, rows, noise_key)
        mean, image = gradients.mean, product(gradients.mean)
        whole["signed"] = gradients.signed
        each |= {"mean": mean[None], "weighted": (rates * mean)[None], "image": image[None] / gradients.unit}
    _, along = directional(value, point.vector, whole)
    noise = step = top_rows = row_changes = None
    if gradients is not None and total is not None:
        before, by_row = directional(row_losses, point.vector, each)
        top_rows = by_row["top"][1][0]
        curved = Curved(along["signed"][1], mean @ image, by_row["image"][0][0])
        noise = scales(gradients, before, by_row["mean"][0][0], by_row["weighted"][0][0], curved, total)
        if u is not None:
            slopes, curvatures = by_row["update"]
            row_changes = RowChanges(slopes[0], curvatures[0], row_losses(point.vector + u) - before)
    if u is not None:
        radius = None if logits is None else softmax_radius(point.take(logits, batch))(point.vector, u)
        step = against_model(value, at, along["update"], row_changes, radius, point, u, MULTIPLES, total)
    alive = None
    if gradients is not None:
        # What no row that was looked at moves, another may: the gradient of the whole batch says so.
        some = gradients.alive | (gradient != 0)
        alive = jax.tree.map(lambda leaf: leaf > 0, point.tree(some.astype(rates.dtype)))
    return Checkup(
        sharpness=edge(rule, found, along["probes"][1], top_rows, total),
        step=step,
        noise=noise,
        subspace=shares(found, rates, gradient, u),
        conflicts=None if losses is None else compare(losses, point, batch, u),
        rotation=None if field is None else turning(field, point, (batch,), field_key, PROBES),
        layers=layer_health(moving, gradient_tree, update=None if u is None else point.tree(u), alive=alive),
        loss=at,
        batch_size=total if batch_size is None else batch_size,
        notes=tuple(notes),
    )
