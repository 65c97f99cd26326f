"""Dead units, vanishing and exploding layers, and numbers that are none, by the name of the parameter."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._core import check_floats, fault

# Root-mean-square gradient of a parameter against the median over parameters.
VANISHING = 1e-4
EXPLODING = 1e3
# Step against weight, of matrices and larger.
LARGE_STEP = 0.3


class LayerHealth(eqx.Module):
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

    def vanishing(self) -> list[tuple[str, float]]:
        """Parameters whose gradient is below 1e-4 of the median parameter's, with that ratio."""
        return [(n, float(r)) for n, r in zip(self.names, self._relative("higher")) if 0 < r < VANISHING]

    def exploding(self) -> list[tuple[str, float]]:
        """Parameters whose gradient is above 1e3 times the median parameter's, with that ratio."""
        return [(n, float(r)) for n, r in zip(self.names, self._relative("lower")) if r > EXPLODING]

    def large_steps(self) -> list[tuple[str, float]]:
        """Matrices that the update changes by more than 0.3 of their size, with that ratio."""
        found = []
        for name, shape, weight, update in zip(
            self.names, self.shapes, np.asarray(self.weight), np.asarray(self.update)
        ):
            if len(shape) >= 2 and weight > 0 and update > LARGE_STEP * weight:
                found.append((name, float(update / weight)))
        return found

    def without_gradient(self) -> list[tuple[str, int, int, int]]:
        """Slices without gradient: name, axis (-1 for the whole parameter), how many, of how many.

        A dead unit shows as an element of its bias, a row or column of its incoming and of its outgoing weights;
        an input that is always zero as a slice of the first weights alone.
        """
        found: list[tuple[str, int, int, int]] = []
        for name, shape, axes in zip(self.names, self.shapes, self.dead or ()):
            masks = [np.asarray(mask) for mask in axes]
            if not masks:
                continue
            if all(mask.all() for mask in masks):
                found.append((name, -1, int(np.prod(shape)), int(np.prod(shape))))
                continue
            for axis, mask in enumerate(masks):
                if mask.any():
                    found.append((name, axis, int(mask.sum()), len(mask)))
        return found

    def dead_cells(self) -> dict[str, str]:
        """What of each parameter is without gradient, in a few words by its name."""
        words: dict[str, list[str]] = {name: [] for name in self.names}
        for name, axis, count, of in self.without_gradient():
            words[name].append("all" if axis < 0 else f"{count}/{of} on axis {axis}")
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
    params: PyTree, gradient: PyTree, *, update: PyTree | None = None, alive: PyTree | None = None
) -> LayerHealth:
    """Measure weights, gradients and steps by parameter, and count what is dead or not finite.

    Args:
        params: any pytree; inexact leaves are looked at.
        gradient: shaped like them.
        update: shaped like them, or None.
        alive: booleans shaped like them: whether an element's gradient was other than zero in any row looked at; None
            if that is not known.

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
    largest = jnp.max(jnp.abs(stacked), axis=1)
    safe = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return safe * jnp.sqrt(jnp.mean((stacked / safe[:, None]) ** 2, axis=1)), jnp.sum(~jnp.isfinite(stacked), axis=1)
