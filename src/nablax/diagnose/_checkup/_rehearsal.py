"""The next steps, rehearsed on this batch: does the loss fall, and at which other rate would it?"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import AbstractRecord, Finding, table
from ..._pages import Card, Series, figure, markup, plot
from ._layers import root_mean_squares
from ._optimizer_state import emitted
from ._part import Part, Setting
from ._shared import Shared, Walk

# Steps that are rehearsed, and how many of the last losses are averaged, since at the edge of stability they swing.
STEPS, SETTLED = 16, 4
# Other rates are tried a factor apart, so many at most.
FACTOR, TRIALS = 4.0, 6
# A loss that falls by less than this share in the rehearsal has other rates tried, too.
SLOW = 0.1


class Rehearsal(AbstractRecord):
    r"""What the optimiser makes of this batch if it is given it again and again; nothing of it is kept.

    Momentum, metric, decay and clipping act as they will, whether or not their rule is known; the noise of batches
    to come does not.

    Attributes:
        losses: before each step and after the last, unit of the loss.
        multiples: of the rate that were tried, the one in use first; NaN where none was. Lower ones are tried where the
            loss does not fall, higher ones where it hardly falls.
        ends: the loss that each ends at, a mean over the last ones.
        gradient: afterwards, root mean square over elements by parameter, loss over params.
    """

    losses: Float[Array, " steps"]
    multiples: Float[Array, " trials"]
    ends: Float[Array, " trials"]
    gradient: Float[Array, " parameters"]

    @property
    def rise(self) -> float:
        """Change of the loss over the rehearsal as a share of it; infinite where it is no number."""
        start, end = float(self.losses[0]), float(self.ends[0])
        if not math.isfinite(end):
            return math.inf
        return (end - start) / max(abs(start), 1e-30)

    @property
    def best(self) -> float:
        """Of the multiples tried that whose loss ends lowest."""
        ends = np.where(np.isfinite(self.ends), self.ends, np.inf)
        return float(self.multiples[int(np.argmin(ends))]) if np.isfinite(ends).any() else 1.0

    @property
    def gain(self) -> float:
        """By how much lower the loss ends at the best multiple, as a share of the loss; no less than zero."""
        start, end, lowest = float(self.losses[0]), float(self.ends[0]), np.nanmin(np.asarray(self.ends, float))
        if not math.isfinite(end):
            return math.inf if math.isfinite(lowest) else 0.0
        return max(0.0, end - float(lowest)) / max(abs(start), 1e-30)

    def rows(self) -> list[tuple[str, Any, str]]:
        """Lines of the table."""
        return [
            (f"loss after {len(self.losses) - 1} such steps", self.losses[-1], "loss"),
            ("loss there, mean of the last", self.ends[0], "loss"),
            ("lowest among the rates tried at", self.best, "× rate"),
        ]

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, with unit.
        """
        return table("The next steps on this batch", self.rows())


class _Search(NamedTuple):
    """Of the loop over rates: the next one, what the first one gave, and how each ended."""

    count: Array
    multiple: Array
    going: Array
    losses: Float[Array, " steps"]
    gradient: Float[Array, " parameters"]
    multiples: Float[Array, " trials"]
    ends: Float[Array, " trials"]


def measure(shared: Shared) -> Rehearsal | None:
    """Of a check-up, where the optimiser makes the step."""
    walk, start = shared.walk, shared.loss
    if walk is None:
        return None
    dtype = shared.point.vector.dtype

    def trial(at: _Search) -> _Search:
        losses, gradient = _rehearsed(shared, walk, at.multiple)
        end, first = jnp.mean(losses[-SETTLED:]).astype(dtype), at.count == 0
        before = at.ends[jnp.maximum(at.count - 1, 0)]
        falls, hardly = end <= start, ~(end < start - SLOW * jnp.abs(start))
        downwards = at.multiple < 1
        # Upwards as long as it helps; downwards until the loss falls, and on as long as that helps.
        on = jnp.where(downwards, ~falls | ~(before <= end), end < before)
        factor = jnp.where(jnp.where(first, falls, ~downwards), FACTOR, 1 / FACTOR)
        return _Search(
            count=at.count + 1,
            multiple=(at.multiple * factor).astype(dtype),
            going=jnp.where(first, hardly, on),
            losses=jnp.where(first, losses, at.losses),
            gradient=jnp.where(first, gradient, at.gradient),
            multiples=at.multiples.at[at.count].set(at.multiple),
            ends=at.ends.at[at.count].set(end),
        )

    shapes = jax.eval_shape(lambda: _rehearsed(shared, walk, jnp.ones((), dtype)))
    none = jnp.full((TRIALS + 1,), jnp.nan, dtype)
    zeros = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
    begin = _Search(jnp.asarray(0), jnp.ones((), dtype), jnp.asarray(True), *zeros, none, none)
    # One loop, the first round of which is the rate in use, so that the walk is compiled once.
    found = jax.lax.while_loop(lambda at: at.going & (at.count <= TRIALS), trial, begin)
    return Rehearsal(found.losses, found.multiples, found.ends, found.gradient)


def _rehearsed(
    shared: Shared, walk: Walk, multiple: Float[Array, ""]
) -> tuple[Float[Array, " steps"], Float[Array, " parameters"]]:
    """Losses along the walk, and sizes of the gradient at its end."""
    point, value = shared.point, shared.value
    moving, still = eqx.partition(walk.state, eqx.is_array)

    def step(carry: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], Array]:
        vector, state = carry
        loss, slope = jax.value_and_grad(value)(vector)
        gradient, tree = point.tree(slope), point.tree(vector)
        extra = {"value": loss, "grad": gradient, "value_fn": lambda tree: value(point.like(tree, "parameters"))}
        update, after = emitted(walk.transform, gradient, eqx.combine(state, still), tree, **extra)
        # Through the parameters' own type, in whose rounding short steps are lost.
        moved = jax.tree.map(lambda p, u: (p + multiple * u).astype(p.dtype), tree, update)
        return (point.like(moved, "parameters"), eqx.filter(after, eqx.is_array)), loss

    (vector, _), losses = jax.lax.scan(step, (point.vector, moving), None, length=STEPS)
    last, slope = jax.value_and_grad(value)(vector)
    return jnp.append(losses, last), root_mean_squares(point.tree(slope))


def judge(part: Rehearsal, setting: Setting) -> list[Finding]:
    """Nothing by itself: what it says of the rate is said there."""
    return []


def card(part: Rehearsal, setting: Setting) -> Card:
    """The loss along the rehearsal."""
    title = "The next steps on this batch"
    losses = np.asarray(part.losses, float)
    if not np.isfinite(losses).all():
        return Card(title, "–", "loss at the end", "The loss leaves the numbers on the way.")
    picture = plot(
        [Series("loss", np.arange(len(losses)), losses, "both")],
        x_label="step on this batch",
        y_label="loss",
        horizontal=[(float(losses[0]), "where it starts")],
    )
    said = "This batch again and again by this optimiser; of batches to come it knows nothing."
    return Card(title, figure(part.ends[0]), f"loss at the end, from {figure(losses[0])}", said, markup(picture))


PART = Part("rehearsal", measure, judge, card)
