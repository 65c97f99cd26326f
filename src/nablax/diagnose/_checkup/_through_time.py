"""Does the loss still feel the beginning of a sequence, and does its end not drown in it?"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import AbstractRecord, Finding, table
from ..._pages import Card, Series, figure, markup, plot
from ._layers import root_mean_squares
from ._part import Part, Setting
from ._shared import Shared

# Positions from which on a trend can be told, and the rank correlation with position from which there is one.
POSITIONS, TREND = 8, 0.9
# Decades that are as good as nothing at all.
NOTHING = 30.0


class ThroughTime(AbstractRecord):
    """Sensitivity of the loss to each position of the batch's sequences.

    Attributes:
        profiles: of each array of floats ``[rows, positions, ...]``: root mean square over rows and features of the
            loss's gradient with respect to a position, loss over the array's unit.
        names: path of each array in the batch.
    """

    profiles: tuple[Float[Array, " positions"], ...]
    names: tuple[str, ...] = eqx.field(static=True)

    @property
    def decades(self) -> float:
        """Powers of ten by which the first position counts for more than the last; 0 where there is no steady trend."""
        steepest = 0.0
        for profile in self.profiles:
            found = _decades(np.asarray(profile, float))
            steepest = found if abs(found) > abs(steepest) else steepest
        return steepest

    def rows(self) -> list[tuple[str, Any, str]]:
        """Lines of the table."""
        lines = []
        for name, profile in zip(self.names, self.profiles):
            lines += [(f"{name}: first position", profile[0], "loss / unit"), (f"{name}: last", profile[-1], "")]
        return lines

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            Two lines per array.
        """
        return table("Sensitivity along sequences", self.rows())


def _decades(profile: np.ndarray) -> float:
    if len(profile) < POSITIONS or not np.isfinite(profile).all() or profile.max() <= 0:
        return 0.0
    ranks = np.argsort(np.argsort(profile, kind="stable"), kind="stable")
    if abs(np.corrcoef(ranks, np.arange(len(profile)))[0, 1]) < TREND:
        return 0.0
    first, last = (max(float(end), profile.max() * 10**-NOTHING) for end in (profile[0], profile[-1]))
    return float(np.log10(first / last))


def measure(shared: Shared) -> ThroughTime | None:
    """Of a check-up, where the batch has sequences of numbers."""
    paths, tree = jax.tree_util.tree_flatten_with_path(shared.batch)
    chosen = [i for i, (_, leaf) in enumerate(paths) if eqx.is_inexact_array(leaf) and _sequences(leaf)]
    if not chosen:
        return None
    leaves = [leaf for _, leaf in paths]

    def of_sequences(given: list[Array]) -> Float[Array, ""]:
        whole = list(leaves)
        for i, leaf in zip(chosen, given):
            whole[i] = leaf
        params = shared.point.whole(shared.point.tree(shared.point.vector))
        return shared.asked.loss(params, jax.tree.unflatten(tree, whole))

    slopes = jax.grad(of_sequences)([leaves[i] for i in chosen])
    profiles = tuple(root_mean_squares(list(jnp.moveaxis(slope, 1, 0))) for slope in slopes)
    names = tuple(jax.tree_util.keystr(paths[i][0], simple=True, separator=".") or "batch" for i in chosen)
    return ThroughTime(profiles, names)


def _sequences(leaf: Array) -> bool:
    return leaf.ndim >= 3 and leaf.shape[1] >= POSITIONS and not jnp.iscomplexobj(leaf)


def judge(part: ThroughTime, setting: Setting) -> list[Finding]:
    """Whether the beginning is lost, or drowns the end."""
    found = []
    decades = part.decades
    if level := setting.levels.get("forgotten"):
        said = "nothing of it" if decades <= -NOTHING else f"1e{decades:.0f} of what it feels of the last position"
        text = (
            f"Vanishing through time: of the first position of a sequence the loss feels {said}. Gated or orthogonal "
            "recurrent weights, shorter sequences, or a shortcut to the past."
        )
        found.append(Finding(level, "through time", text))
    if level := setting.levels.get("drowned"):
        text = (
            f"Exploding through time: the loss feels the first position of a sequence 1e{decades:.0f} times as much as "
            "the last. Clip the gradient (optax.clip_by_global_norm before the optimiser), and make the recurrent "
            "weights smaller."
        )
        found.append(Finding(level, "through time", text))
    return found


def card(part: ThroughTime, setting: Setting) -> Card | None:
    """The profiles, where there is a trend."""
    if part.decades == 0:
        return None
    lines = [
        Series(name, np.arange(len(profile)), np.maximum(np.asarray(profile, float), 1e-300), "both")
        for name, profile in zip(part.names, part.profiles)
    ]
    picture = plot(lines, x_label="position", y_label="sensitivity of the loss", log_y=True)
    small = "decades between the first and the last position"
    return Card("Along sequences", figure(part.decades), small, "", markup(picture))


PART = Part("through_time", measure, judge, card)
