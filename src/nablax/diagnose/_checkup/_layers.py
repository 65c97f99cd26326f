"""Dead units, vanishing and exploding layers, and numbers that are none, by the name of the parameter."""

from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._core import AbstractRecord, Finding, check_floats, fault, peak
from ..._pages import Card, Cell, Table, figure
from ._part import Part, Setting, listed, percent
from ._shared import Shared

# Root-mean-square gradient of a parameter against the median over parameters.
VANISHING = 1e-4
# Of a vector, such roundings of the median are none: a bias before a normalisation that takes it out again.
ROUNDINGS = 32
EXPLODING = 1e3
# By such a part a parameter without gradient is changed, exactly in bfloat16 too.
NUDGE = 1 / 128
# Step against weight, of matrices and larger.
LARGE_STEP = 0.3


class Relative(NamedTuple):
    """A parameter, and a size of it over another."""

    name: str
    ratio: float


class Silent(NamedTuple):
    """Slices of a parameter without gradient.

    Attributes:
        name: of the parameter.
        axis: along which they lie; -1 for the whole parameter.
        number: how many.
        of: so many there are.
    """

    name: str
    axis: int
    number: int
    of: int


class LayerHealth(AbstractRecord):
    """Sizes of weights, gradients and steps, parameter by parameter.

    Attributes:
        weight: root mean square over elements, unit of the parameters.
        gradient: likewise, loss over params.
        update: likewise, unit of the parameters; NaN without an update.
        bad_weight: how many elements of the parameter are not finite.
        bad_gradient: of its gradient.
        bad_update: of its update.
        dead: for each axis of the parameter, which of its slices get a gradient of exactly zero, from the batch as
            from every row looked at; None where the rows' gradients are not known.
        unfelt: whether the loss of the batch stays the same to the bit where each parameter without any gradient is
            changed by a part in 128, as behind dead units and unlike behind ``stop_gradient``; None if not known.
        names: path of each parameter in the tree.
        shapes: of each parameter.
    """

    weight: Float[Array, " parameters"]
    gradient: Float[Array, " parameters"]
    update: Float[Array, " parameters"]
    bad_weight: Int[Array, " parameters"]
    bad_gradient: Int[Array, " parameters"]
    bad_update: Int[Array, " parameters"]
    dead: tuple[tuple[Bool[Array, "..."], ...], ...] | None
    unfelt: Bool[Array, ""] | None
    names: tuple[str, ...] = eqx.field(static=True)
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    def not_finite(self) -> list[str]:
        """Parameters with NaN or infinite elements, in themselves, their gradient or their update."""
        found = []
        parts = (("", self.bad_weight), ("gradient of ", self.bad_gradient), ("update of ", self.bad_update))
        for what, counts in parts:
            named = [
                f"{what}{name} ({count} of {int(np.prod(shape))})"
                for name, shape, count in zip(self.names, self.shapes, np.asarray(counts))
                if count
            ]
            found += named
        return found

    def _relative(self, middle: Literal["lower", "higher"]) -> np.ndarray:
        """Gradients over their median; zero gradients apart. Of an even number the lower or the higher middle one."""
        sizes = np.asarray(self.gradient, np.float64)
        alive = sizes[np.isfinite(sizes) & (sizes > 0)]
        return sizes / np.quantile(alive, 0.5, method=middle) if len(alive) else np.full_like(sizes, np.nan)

    def vanishing(self) -> list[Relative]:
        """Parameters whose gradient is below 1e-4 of the median parameter's, with that ratio.

        Vectors whose gradient is zero to rounding are left out: a bias before a normalisation moves nothing.
        """
        rounding = ROUNDINGS * float(jnp.finfo(self.gradient.dtype).eps)
        return [
            Relative(name, float(ratio))
            for name, shape, ratio in zip(self.names, self.shapes, self._relative("higher"))
            if (rounding if len(shape) < 2 else 0) < ratio < VANISHING
        ]

    def exploding(self) -> list[Relative]:
        """Parameters whose gradient is above 1e3 times the median parameter's, with that ratio."""
        return [Relative(n, float(r)) for n, r in zip(self.names, self._relative("lower")) if r > EXPLODING]

    def large_steps(self) -> list[Relative]:
        """Matrices that the update changes by more than 0.3 of their size, with that ratio."""
        found = []
        for name, shape, weight, update in zip(
            self.names, self.shapes, np.asarray(self.weight), np.asarray(self.update)
        ):
            if len(shape) >= 2 and weight > 0 and update > LARGE_STEP * weight:
                found.append(Relative(name, float(update / weight)))
        return found

    def without_gradient(self) -> list[Silent]:
        """Slices without gradient, by parameter and axis.

        A dead unit shows as an element of its bias, a row or column of its incoming and of its outgoing weights;
        an input that is always zero as a slice of the first weights alone.
        """
        found: list[Silent] = []
        for name, shape, axes in zip(self.names, self.shapes, self.dead or ()):
            masks = [np.asarray(mask) for mask in axes]
            if not masks:
                continue
            if all(mask.all() for mask in masks):
                found.append(Silent(name, -1, int(np.prod(shape)), int(np.prod(shape))))
                continue
            for axis, mask in enumerate(masks):
                if mask.any():
                    found.append(Silent(name, axis, int(mask.sum()), len(mask)))
        return found

    def dead_share(self) -> float:
        """Largest share of dead units in a layer, by the elements of its vectors; 0 where none is known to be."""
        shares = [0.0]
        for shape, axes in zip(self.shapes, self.dead or ()):
            # A slice of a matrix may as well be an input that is always zero. A layer that is dead as a whole, or
            # frozen, is another matter.
            if len(shape) == 1 and not np.all(axes[0]):
                shares.append(float(np.mean(axes[0])))
        return max(shares)

    def dead_cells(self) -> dict[str, str]:
        """What of each parameter is without gradient, in a few words by its name."""
        words: dict[str, list[str]] = {name: [] for name in self.names}
        for dead in self.without_gradient():
            words[dead.name].append("all" if dead.axis < 0 else f"{dead.number}/{dead.of} on axis {dead.axis}")
        return {name: ", ".join(parts) for name, parts in words.items()}

    def table(self) -> str:
        """Lay the numbers out as plain text.

        Returns:
            One line per parameter.
        """
        head = ("parameter", "shape", "weight", "gradient", "update", "update/weight", "zero gradient")
        dead = self.dead_cells()
        lines = [head]
        for i, (name, shape) in enumerate(zip(self.names, self.shapes)):
            weight, gradient, update = (float(x[i]) for x in (self.weight, self.gradient, self.update))
            share = f"{update / weight:.2g}" if weight > 0 else ""
            sizes = (f"{weight:.3g}", f"{gradient:.3g}", f"{update:.3g}", share)
            lines.append((name, "×".join(map(str, shape)), *sizes, dead[name]))
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
        title = "Parameters (root mean square per element)"
        return "\n".join([title, "-" * max(map(len, [title, *text])), *text])


def layer_health(
    params: PyTree,
    gradient: PyTree,
    *,
    update: PyTree | None = None,
    alive: PyTree | None = None,
    unfelt: Bool[Array, ""] | None = None,
) -> LayerHealth:
    """Measure weights, gradients and steps by parameter, and count what is dead or not finite.

    Args:
        params: any pytree; inexact leaves are looked at.
        gradient: shaped like them.
        update: shaped like them, or None.
        alive: booleans shaped like them: whether an element's gradient was other than zero in any row looked at; None
            if that is not known.
        unfelt: whether the loss stays as it is where parameters without gradient are changed; None if not known.

    Returns:
        A `LayerHealth`.

    Raises:
        ValueError: a gradient or update whose inexact leaves are not shaped like those of the parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.diagnose import layer_health
        >>> record = layer_health({"w": jnp.ones(2)}, {"w": jnp.array([1.0, jnp.nan])})
        >>> record.not_finite()
        ['gradient of w (1 of 2)']

    Cost:
        A few passes over the parameters, none through the model.
    """
    moving = eqx.filter(params, eqx.is_inexact_array)
    paths, tree = jax.tree_util.tree_flatten_with_path(moving)
    names = tuple(jax.tree_util.keystr(path, simple=True, separator=".") or "params" for path, _ in paths)
    leaves = [leaf for _, leaf in paths]
    check_floats(moving, what="parameters", fix="Pass arrays of floats; whole numbers do not move.")
    gradients = _matched(gradient, "a gradient", leaves)
    updates = leaves if update is None else _matched(update, "an update", leaves)
    measured = [_measured(parts) for parts in zip(leaves, gradients, updates, strict=True)]
    sizes, bad = jnp.stack([size for size, _ in measured]), jnp.stack([count for _, count in measured])
    if update is None:
        sizes, bad = sizes.at[:, 2].set(jnp.nan), bad.at[:, 2].set(0)
    dead = None
    if alive is not None:
        dead = tuple(
            tuple(~jnp.any(mask, axis=tuple(a for a in range(mask.ndim) if a != axis)) for axis in range(mask.ndim))
            for mask in jax.tree.leaves(alive)
        )
    return LayerHealth(
        weight=sizes[:, 0],
        gradient=sizes[:, 1],
        update=sizes[:, 2],
        bad_weight=bad[:, 0],
        bad_gradient=bad[:, 1],
        bad_update=bad[:, 2],
        dead=dead,
        unfelt=unfelt,
        names=names,
        shapes=tuple(leaf.shape for leaf in leaves),
    )


def _matched(tree: PyTree, what: str, leaves: list[Array]) -> list[Array]:
    found = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    shapes, expected = [leaf.shape for leaf in found], [leaf.shape for leaf in leaves]
    if shapes != expected:
        raise fault(
            expected=f"{what} with the inexact leaves of the parameters, {expected}",
            got=str(shapes),
            fix="Build it from the same parameters.",
        )
    return found


def _measured(parts: tuple[Array, ...]) -> tuple[Float[Array, " parts"], Int[Array, " parts"]]:
    """Root mean square, and the count of elements that are not finite, of arrays of one shape."""
    stacked = jnp.stack([part.reshape(-1) for part in parts])
    if stacked.shape[1] == 0:
        return jnp.zeros(len(parts), stacked.dtype), jnp.zeros(len(parts), int)
    # The largest is taken out first, since squares of small gradients leave float32 soon.
    largest = peak(stacked, axis=1)
    return largest[:, 0] * jnp.sqrt(jnp.mean((stacked / largest) ** 2, axis=1)), jnp.sum(~jnp.isfinite(stacked), axis=1)


def root_mean_squares(tree: PyTree) -> Float[Array, " parameters"]:
    """Root mean square over elements of each leaf."""
    return jnp.stack([_measured((leaf,))[0][0] for leaf in jax.tree.leaves(tree)])


def measure(shared: Shared) -> LayerHealth:
    """Of a check-up."""
    tree, alive = shared.point.tree, None
    if shared.rows is not None:
        # What no row that was looked at moves, another may: the gradient of the whole batch says so.
        some = shared.rows.gradients.alive | (shared.gradient != 0)
        alive = jax.tree.map(lambda leaf: leaf > 0, tree(some.astype(shared.rates.dtype)))
    update = None if shared.update is None else tree(shared.update)
    vector, gradient = tree(shared.point.vector), tree(shared.gradient)
    return layer_health(vector, gradient, update=update, alive=alive, unfelt=_unfelt(shared, vector, gradient))


def _unfelt(shared: Shared, params: PyTree, gradient: PyTree) -> Bool[Array, ""]:
    """Whether changing all parameters without gradient changes nothing; of a loss of 0 that says nothing."""

    def changed(leaf: Array, slope: Array) -> Array:
        return jnp.where(jnp.any(slope != 0), leaf, leaf * (1 + NUDGE)).astype(leaf.dtype)

    # The same function traced once more: a loss got together with its gradient may be rounded otherwise.
    point = shared.point
    other = point.like(jax.tree.map(changed, params, gradient), "parameters")
    here, there = jax.lax.map(shared.value, jnp.stack([point.vector, other]))
    return (here == there) & (here != 0) & jnp.any(other != point.vector)  # parameters of 0 stay what they are


def judge(part: LayerHealth, setting: Setting) -> list[Finding]:
    """Which parameters explode, vanish, are dead or change too much."""
    found, raised = [], setting.levels
    looked = "" if setting.rows is None else f" from any of the {setting.rows} rows looked at"
    dead = part.without_gradient()
    whole = [one.name for one in dead if one.axis < 0]
    if level := raised.get("dead") or raised.get("mute"):
        share = max(setting.signs.cut, setting.signs.mute)
        text = (
            f"Dead: {percent(share)} of what is to move gets no gradient{looked} ({listed(whole)}), nor "
            "after some steps. No rate mends that: fresh weights, smaller steps from the start, leaky activations."
        )
        found.append(Finding(level, "dead", text))
    elif whole:
        text = f"No gradient reaches {listed(whole)}{looked}: frozen, unused, behind dead units or before weights of 0."
        found.append(Finding("note", "layers", text))
    if level := raised.get("exploding"):
        text = (
            f"Exploding: changing a matrix by 1 % would change the loss by {setting.signs.elasticity:.2g} % of itself"
            f"{_apart(part.exploding(), 'times')}. Make the weights between there and the loss smaller, or normalise."
        )
        found.append(Finding(level, "exploding", text))
    if level := raised.get("vanishing"):
        text = (
            f"Vanishing: changing any matrix by 1 % changes the loss by no more than {setting.signs.elasticity:.1g} % "
            "of itself, so that hardly anything but biases learns. Start from larger weights (He, Glorot) or normalise."
        )
        found.append(Finding(level, "vanishing", text))
    elif vanishing := part.vanishing():
        text = f"The gradient is far below the median parameter's{_apart(vanishing, 'times')}."
        found.append(Finding("note", "layers", text))
    if level := raised.get("saturated"):
        text = (
            f"Saturated: the loss is {setting.signs.chance:.3g} times that of a model that knows nothing, so that the "
            "outputs are sure and wrong. Make the last weights smaller, or clip the gradient until the loss is down."
        )
        found.append(Finding(level, "saturated", text))
    if large := part.large_steps():
        text = "One step changes " + listed([f"{n} by {percent(r)}" for n, r in large]) + " of its size."
        found.append(Finding("note", "layers", text))
    # A vector's elements are units; a slice of a matrix may as well be an input that is always zero.
    shapes = dict(zip(part.names, part.shapes))
    of_vectors = [one for one in dead if one.axis >= 0 and len(shapes[one.name]) == 1]
    of_matrices = [one for one in dead if one.axis >= 0 and len(shapes[one.name]) > 1]
    if units := [f"{one.name}: {one.number} of {one.of}" for one in of_vectors]:
        text = f"Dead units (no gradient{looked}): {listed(units)}."
        if level := raised.get("dead units"):
            text += " Smaller steps, leaky activations or fresh weights."
        found.append(Finding(level or "note", "layers", text))
    if slices := [f"{one.name}: {one.number} of {one.of} on axis {one.axis}" for one in of_matrices]:
        text = (
            f"Rows or columns without gradient{looked}: {listed(slices)} (dead units, or inputs that are always zero)."
        )
        found.append(Finding("note", "layers", text))
    return found


def _apart(those: list[Relative], unit: str) -> str:
    """Parameters and by how much they are apart from the median one; empty where there are none."""
    return f" ({listed([f'{n} {r:.2g} {unit} the median' for n, r in those])})" if those else ""


def card(part: LayerHealth, setting: Setting) -> Card:
    """Every parameter."""
    dead, rows = part.dead_cells(), []
    for i, (name, shape) in enumerate(zip(part.names, part.shapes)):
        weight, gradient, update = (float(x[i]) for x in (part.weight, part.gradient, part.update))
        bad = bool(part.bad_weight[i] or part.bad_gradient[i] or part.bad_update[i])
        share = figure(100 * update / weight, " %") if weight > 0 else "–"
        texts = ["×".join(map(str, shape)), figure(weight), figure(gradient), figure(update), share, dead[name]]
        rows.append([Cell(f"{name} (not finite)" if bad else name, bad), *map(Cell, texts)])
    head = ("parameter", "shape", "weight", "gradient", "update", "update/weight", "zero gradient")
    return Card("Parameters", said="Root mean square per element.", table=Table(head, rows), wide=True)


PART = Part("layers", measure, judge, card)
