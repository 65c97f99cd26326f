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

# Steps that are rehearsed, and how many of the last losses are averaged, since at the edge of stability they swing. On
# the bank of runs thirty-two steps at the rate in use tell more than sixteen at each of three rates, for less.
STEPS, SETTLED = 32, 4
# Where another rate is asked for: one a factor below, one above, from there on the better way; so many trials at most.
FACTOR, TRIALS = 4.0, 8


class Rehearsal(AbstractRecord):
    r"""What becomes of the batch's loss while the optimiser steps on one half of its rows; nothing of it is kept.

    Momentum, metric, decay and clipping act as they will, whether or not their rule is known. That half of the rows is
    not stepped on keeps what is learned by heart from counting in full; where the rows of the batch are not known, the
    steps are on all of it.

    Attributes:
        losses: of the batch, before the first step and after each of the last four; unit of the loss.
        own: of the half that is stepped on, before each step and after the last.
        multiples: of the rate that were tried: 1, and, where the run is likely to fail, 1/4, 4, and further the way
            that is better; NaN where none was.
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
            *(
                (f"at {multiple:g} times the rate", end, "loss")
                for multiple, end in zip(np.asarray(self.multiples)[1:], self.ends[1:])
                if np.isfinite(multiple)
            ),
        ]

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per number, with unit.
        """
        return table("The next steps, rehearsed", self.rows())


Value = Callable[[Array], Float[Array, ""]]


class _Search(NamedTuple):
    """Of the loop over other rates: which is next, what was tried, and how each ended."""

    trials: Array
    multiple: Array
    going: Array
    multiples: Float[Array, " trials"]
    ends: Float[Array, " trials"]


def measure(shared: Shared) -> Rehearsal | None:
    """Of a check-up, where the optimiser makes the step: at the rate in use."""
    walk, dtype = shared.walk, shared.point.vector.dtype
    if walk is None:
        return None
    losses, own, gradient = _rehearsed(shared, walk, *_halves(shared), jnp.ones((), dtype))
    none = jnp.full((TRIALS,), jnp.nan, dtype)
    return Rehearsal(losses, own, none.at[0].set(1), none.at[0].set(_end(losses, dtype)), gradient)


def further(shared: Shared, part: Rehearsal) -> Rehearsal:
    """The same with other rates tried; a program of its own, since few runs need it."""
    walk, halves = shared.walk, _halves(shared)
    assert walk is not None
    start = part.losses[0]

    def trial(at: _Search) -> _Search:
        losses, _, _ = _rehearsed(shared, walk, *halves, at.multiple)
        lowest = jnp.min(at.ends, initial=jnp.inf, where=~jnp.isnan(at.ends))
        end = _end(losses, at.ends.dtype)
        multiples, ends = at.multiples.at[at.trials].set(at.multiple), at.ends.at[at.trials].set(end)
        down, up = _way(ends, start)
        nowhere = ~(jnp.minimum(lowest, end) <= start)
        beyond = jnp.where(down, multiples[1], multiples[2]) * jnp.where(down, 1 / FACTOR, FACTOR) ** (at.trials - 1)
        return _Search(
            trials=at.trials + 1,
            multiple=jnp.where(at.trials == 1, FACTOR, beyond).astype(at.multiple.dtype),
            going=(at.trials < 2) | jnp.where(at.trials == 2, down | up, (end <= lowest) | (down & nowhere)),
            multiples=multiples,
            ends=ends,
        )

    multiples, ends = jnp.asarray(part.multiples), jnp.asarray(part.ends)
    lower = jnp.asarray(1 / FACTOR, multiples.dtype)
    begin = _Search(jnp.asarray(1), lower, jnp.asarray(True), multiples, ends)
    found = jax.lax.while_loop(lambda at: at.going & (at.trials < TRIALS), trial, begin)
    return Rehearsal(part.losses, part.own, found.multiples, found.ends, part.gradient)


def undecided(part: Rehearsal) -> bool:
    """Whether no other rate was tried yet."""
    return bool(np.isnan(part.multiples[1]))


def _end(losses: Float[Array, " looks"], dtype: Any) -> Float[Array, ""]:
    """The loss that a trial ends at; infinite where it leaves the numbers."""
    found = jnp.mean(losses[1:]).astype(dtype)
    return jnp.where(jnp.isfinite(found), found, jnp.inf)


def _way(ends: Float[Array, " trials"], start: Float[Array, ""]) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
    """Whether lower rates do better, or higher ones; downwards, too, where the loss falls nowhere yet."""
    tried = jnp.where(jnp.isnan(ends), jnp.inf, ends)
    down = (tried[1] <= jnp.minimum(tried[0], tried[2])) | ~(jnp.min(tried) <= start)
    return down, ~down & (tried[2] < tried[0])


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
