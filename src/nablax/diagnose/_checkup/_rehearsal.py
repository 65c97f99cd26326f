"""The next steps, rehearsed on this batch: does its loss fall, and at which other rate would it fall further?"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from ..._core import AbstractRecord, Finding, table
from ..._pages import Card, Series, figure, markup, plot
from ._fed import fed
from ._layers import root_mean_squares
from ._optimizer_state import emitted
from ._part import Part, Setting
from ._shared import Shared, Walk

# Steps that are rehearsed, and how many of the last losses are averaged, since at the edge of stability they swing.
STEPS, SETTLED = 16, 4
# The rate in use, one a factor below and one above; from there on the better way, so many trials at most.
FACTOR, FIRST, TRIALS = 4.0, 3, 8


class Rehearsal(AbstractRecord):
    r"""What becomes of the batch's loss while the optimiser steps on one half of its rows; nothing of it is kept.

    Momentum, metric, decay and clipping act as they will, whether or not their rule is known. That half of the rows is
    not stepped on keeps what is learned by heart from counting in full; where the rows of the batch are not known, the
    steps are on all of it.

    Attributes:
        losses: of the batch, before the first step and after each of the last four; unit of the loss.
        own: of the half that is stepped on, before each step and after the last.
        multiples: of the rate that were tried: 1, 1/4, 4, and, where the run is likely to fail, further the way that is
            better; NaN where none was.
        ends: the loss that each ends at, a mean over the last ones.
        gradient: afterwards, root mean square over elements by parameter, loss over params.
    """

    losses: Float[Array, " looks"]
    own: Float[Array, " steps"]
    multiples: Float[Array, " trials"]
    ends: Float[Array, " trials"]
    gradient: Float[Array, " parameters"]

    def change(self, trial: int = 0) -> float:
        """Change of the loss by a trial as a share of it; infinite where it is no number."""
        start, end = float(self.losses[0]), float(self.ends[trial])
        return (end - start) / max(abs(start), 1e-30) if math.isfinite(end) else math.inf

    @property
    def best(self) -> float:
        """Of the multiples tried that whose loss ends lowest."""
        ends = np.where(np.isfinite(self.ends), self.ends, np.inf)
        return float(self.multiples[int(np.argmin(ends))]) if np.isfinite(ends).any() else 1.0

    @property
    def gain(self) -> float:
        """By how much lower the loss ends at the best multiple, as a share of the loss; no less than zero."""
        ends = np.asarray(self.ends, float)
        if not np.isfinite(ends).any():
            return 0.0
        return self.change() - (float(np.min(ends[np.isfinite(ends)])) - float(self.losses[0])) / max(
            abs(float(self.losses[0])), 1e-30
        )

    def rows(self) -> list[tuple[str, Any, str]]:
        """Lines of the table."""
        return [
            ("loss now", self.losses[0], "loss"),
            (f"after {len(self.own) - 1} steps, mean of the last {len(self.losses) - 1}", self.ends[0], "loss"),
            ("at a quarter of the rate", self.ends[1], "loss"),
            ("at four times the rate", self.ends[2], "loss"),
            ("lowest among the rates tried at", self.best, "× rate"),
        ]

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, with unit.
        """
        return table("The next steps, rehearsed", self.rows())


Value = Callable[[Array], Float[Array, ""]]


class _Search(NamedTuple):
    """Of the loop over rates: the next one, what the first one gave, and how each ended."""

    trials: Array
    multiple: Array
    going: Array
    losses: Float[Array, " looks"]
    own: Float[Array, " steps"]
    gradient: Float[Array, " parameters"]
    multiples: Float[Array, " rates"]
    ends: Float[Array, " rates"]


def measure(shared: Shared) -> Rehearsal | None:
    """Of a check-up, where the optimiser makes the step: the rate in use, one below and one above."""
    walk, dtype = shared.walk, shared.point.vector.dtype
    if walk is None:
        return None
    halves = _halves(shared)
    shapes = jax.eval_shape(lambda: _rehearsed(shared, walk, *halves, jnp.ones((), dtype)))
    none = jnp.full((TRIALS,), jnp.nan, dtype)
    losses, own, gradient = (jnp.zeros(shape.shape, shape.dtype) for shape in shapes)
    begin = _Search(jnp.asarray(0), jnp.ones((), dtype), jnp.asarray(True), losses, own, gradient, none, none)
    return _searched(shared, walk, halves, begin, FIRST)


def further(shared: Shared, part: Rehearsal) -> Rehearsal:
    """The same with more rates tried, the way that is better; a program of its own, since few runs need it."""
    walk = shared.walk
    assert walk is not None
    down, _ = _way(part.ends, part.losses[0])
    multiple = jnp.where(down, part.multiples[1] / FACTOR, part.multiples[2] * FACTOR)
    begin = _Search(
        trials=jnp.asarray(FIRST),
        multiple=multiple.astype(part.multiples.dtype),
        going=jnp.asarray(True),
        losses=part.losses,
        own=part.own,
        gradient=part.gradient,
        multiples=part.multiples,
        ends=part.ends,
    )
    return _searched(shared, walk, _halves(shared), begin, TRIALS)


def undecided(part: Rehearsal) -> bool:
    """Whether a rate beyond the first three may do better still."""
    down, up = _way(jnp.asarray(part.ends), jnp.asarray(part.losses[0]))
    return bool(np.isnan(part.multiples[FIRST])) and bool(down | up)


def _way(ends: Float[Array, " trials"], start: Float[Array, ""]) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
    """Whether lower rates do better, or higher ones; downwards, too, where the loss falls nowhere yet."""
    tried = jnp.where(jnp.isnan(ends), jnp.inf, ends)
    down = (tried[1] <= jnp.minimum(tried[0], tried[2])) | ~(jnp.min(tried) <= start)
    return down, ~down & (tried[2] < tried[0])


def _searched(shared: Shared, walk: Walk, halves: tuple[PyTree, Value | None], begin: _Search, most: int) -> Rehearsal:
    def trial(at: _Search) -> _Search:
        losses, own, gradient = _rehearsed(shared, walk, *halves, at.multiple)
        first = at.trials == 0
        multiples = at.multiples.at[at.trials].set(at.multiple)
        found = jnp.mean(losses[1:]).astype(at.ends.dtype)
        ends = at.ends.at[at.trials].set(jnp.where(jnp.isfinite(found), found, jnp.inf))
        start = jnp.where(first, losses, at.losses)[0]
        lowest = jnp.min(at.ends, initial=jnp.inf, where=~jnp.isnan(at.ends))
        down, up = _way(ends, start)
        nowhere = ~(jnp.minimum(lowest, ends[at.trials]) <= start)
        beyond = jnp.where(down, multiples[1], multiples[2]) * jnp.where(down, 1 / FACTOR, FACTOR) ** (at.trials - 1)
        following = jnp.where(first, 1 / FACTOR, jnp.where(at.trials == 1, FACTOR, beyond))
        return _Search(
            trials=at.trials + 1,
            multiple=following.astype(at.multiple.dtype),
            going=(at.trials < 2) | jnp.where(at.trials == 2, down | up, (found <= lowest) | (down & nowhere)),
            losses=jnp.where(first, losses, at.losses),
            own=jnp.where(first, own, at.own),
            gradient=jnp.where(first, gradient, at.gradient),
            multiples=multiples,
            ends=ends,
        )

    # One loop, the first round of which is the rate in use, so that the walk is compiled once.
    found = jax.lax.while_loop(lambda at: at.going & (at.trials < most), trial, begin)
    return Rehearsal(found.losses, found.own, found.multiples, found.ends, found.gradient)


def _halves(shared: Shared) -> tuple[PyTree, Value | None]:
    """The rows to step on, and the loss of those to watch; the whole batch and None where rows are not known."""
    if shared.rows is None or shared.total is None:
        return shared.batch, None
    size = shared.total // 2

    def half(begin: int) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[begin::2][:size] if eqx.is_array(leaf) else leaf, shared.batch)

    return half(0), shared.point.loss(shared.asked.loss, half(1))


def _rehearsed(
    shared: Shared, walk: Walk, stepped: PyTree, watched: Value | None, multiple: Float[Array, ""]
) -> tuple[Float[Array, " looks"], Float[Array, " steps"], Float[Array, " parameters"]]:
    """Losses of the batch at both ends, of the half that is stepped on all along, and the last gradient's sizes."""
    point = shared.point
    moving, still = eqx.partition(walk.state, eqx.is_array)
    given = fed(point, shared.asked.loss, shared.together, stepped)

    def seen(index: Array, vector: Array, loss: Array) -> Array:
        if watched is None:
            return loss
        # Where nobody looks, the other half's forward pass is saved.
        due = (index == 0) | (index > STEPS - SETTLED)
        other = jax.lax.cond(due, watched, lambda _: jnp.full_like(loss, jnp.nan), vector)
        return (loss + other) / 2

    def step(carry: tuple[Array, Any], index: Array) -> tuple[tuple[Array, Any], tuple[Array, Array, Array]]:
        vector, state = carry
        here, tree = given(vector), point.tree(vector)
        update, after = emitted(walk.transform, here.gradient, eqx.combine(state, still), tree, **here.extra)
        # Through the parameters' own type, in whose rounding short steps are lost.
        moved = jax.tree.map(lambda p, u: (p + multiple * u).astype(p.dtype), tree, update)
        looked = seen(index, vector, here.loss), here.loss, here.slope
        return (point.like(moved, "parameters"), eqx.filter(after, eqx.is_array)), looked

    # One step more than is looked at, so that gradient and loss are compiled once.
    def collected(carry: tuple, index: Array) -> tuple[tuple, tuple[Array, Array]]:
        inner, _ = carry
        inner, (whole, own, slope) = step(inner, index)
        return (inner, slope), (whole, own)

    begin = ((point.vector, moving), jnp.zeros_like(point.vector))
    (_, slope), (losses, own) = jax.lax.scan(collected, begin, jnp.arange(STEPS + 1))
    looks = jnp.concatenate([losses[:1], losses[-SETTLED:]])
    return looks, own, root_mean_squares(point.tree(slope))


def judge(part: Rehearsal, setting: Setting) -> list[Finding]:
    """Nothing by itself: what it says of the rate is said there."""
    return []


def card(part: Rehearsal, setting: Setting) -> Card:
    """The loss along the rehearsal."""
    title = "The next steps, rehearsed"
    own, start = np.asarray(part.own, float), float(part.losses[0])
    if not np.isfinite(own).all():
        return Card(title, "–", "loss at the end", "The loss leaves the numbers on the way.")
    picture = plot(
        [Series("loss", np.arange(len(own)), own, "both")],
        x_label="step",
        y_label="loss of the rows stepped on",
        horizontal=[(float(own[0]), "where it starts")],
    )
    said = "This optimiser steps on one half of the batch's rows; the number is of the whole batch."
    return Card(title, figure(part.ends[0]), f"loss at the end, from {figure(start)}", said, markup(picture))


PART = Part("rehearsal", measure, judge, card)
