"""Pictures of samples, densities and fields in the plane, in the style of the reports."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import Field, check_callable, check_like, fault, require
from .._pages import DATA, SAMPLES, axis_limits, canvas, draw_pairs, pairs_size, scatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Limits = tuple[tuple[float, float], tuple[float, float]]

_SHARES = (0.5, 0.9)  # of the probability, inside the lines of a density
_MOST = 8  # columns of a table of pairs that can still be read


def plot_samples(
    samples: Float[Array, "rows columns"] | np.ndarray,
    *,
    against: Float[Array, "others columns"] | np.ndarray | None = None,
    axes: "Axes | None" = None,
) -> "Figure":
    """Scatter samples, and the data that they should look like; beyond two columns every pair of them.

    Args:
        samples: [rows, columns], in orange; two to eight columns. The picture is cut at the range of the data and
            the middle 99 % of the samples.
        against: data [rows, columns], in blue; none by default.
        axes: of matplotlib, to draw on, for two columns; by default a new figure.

    Returns:
        The figure: ``figure.savefig("samples.png")`` writes it, ``figure.axes`` are its axes.

    Raises:
        ValueError: not a table of two to eight columns, one that is not finite, columns that differ, or ``axes`` for
            more than two.
        ImportError: matplotlib is not installed; the message names the extra.

    Example:
        >>> import numpy as np
        >>> from nablax.app import plot_samples
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> figure = plot_samples(rows, against=2 * rows)
        >>> figure.axes[0].get_xlabel()
        'x0'

    Cost: drawing; no model is called.
    """
    samples = _table(samples, "samples")
    data = np.empty((0, samples.shape[1])) if against is None else _table(against, "against")
    count = samples.shape[1]
    if data.shape[1] != count:
        raise fault(expected=f"as many columns in against, {count}", got=data.shape[1], fix="Draw the same columns.")
    if count == 2:
        with _drawing(axes) as (figure, axis):
            scatter(axis, data, samples)
            axis.set(xlim=axis_limits(data[:, 0], samples[:, 0]), ylim=axis_limits(data[:, 1], samples[:, 1]))
            if len(data):
                axis.legend(handles=_handles(), loc="best")
        return figure
    if axes is not None:
        raise fault(expected="two columns on axes that are given", got=count, fix="Leave axes out.")
    require("matplotlib", extra="app")
    names = [f"x{index}" for index in range(count)]
    with canvas(*pairs_size(count)) as (figure, _):
        draw_pairs(figure, dict(zip(names, data.T)), dict(zip(names, samples.T)))
        if len(data):
            figure.legend(handles=_handles(), loc="upper right")
        figure.draw_without_rendering()
    return figure


def plot_density(
    log_prob: Callable[[Float[Array, "points 2"]], Float[Array, " points"]],
    limits: Limits,
    *,
    axes: "Axes | None" = None,
    points: int = 80,
) -> "Figure":
    r"""Shade a density of the plane, with the lines inside which it is highest and holds 50 and 90 % of the picture.

    Args:
        log_prob: log-densities [points] in nats of points [points, 2], such as
            ``lambda ys: learned.log_prob(ys).value`` of a `nablax.transport.Transport`, or `FlowDensity.score_samples`.
        limits: ``((left, right), (bottom, top))``; the shares are of what lies between.
        axes: of matplotlib, to draw on; by default a new figure.
        points: to a side of the grid. Default 80.

    Returns:
        The figure.

    Raises:
        ValueError: ``log_prob`` returns anything but one number for each point, or a NaN; limits that are no limits.
        ImportError: matplotlib is not installed; the message names the extra.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.app import plot_density
        >>> figure = plot_density(lambda ys: -jnp.sum(ys**2, axis=1) / 2, ((-3, 3), (-3, 3)), points=20)
        >>> [float(end) for end in figure.axes[0].get_xlim()]
        [-3.0, 3.0]

    Cost: one call of ``log_prob`` on ``points``² rows.
    """
    check_callable(log_prob, what="log_prob", fix="Pass points → log-densities.")
    across, up = _grid(limits, points)
    heights = np.asarray(log_prob(_points(across, up)))
    if heights.shape != (points**2,):
        fix = "Return one log-density for each point; of a LogProb record that is its value."
        raise fault(expected=f"log-densities of shape [{points**2}]", got=f"shape {list(heights.shape)}", fix=fix)
    if np.isnan(heights).any() or not np.isfinite(heights.max()):
        got = "NaN" if np.isnan(heights).any() else f"{heights.max()} as the largest"
        raise fault(expected="log-densities, somewhere finite", got=got, fix="Choose other limits.")
    # The shape alone is drawn, and its largest value may be beyond the range of its dtype.
    density = np.exp(heights - heights.max()).reshape(points, points)
    falling = np.sort(density, axis=None)[::-1]
    inside = np.cumsum(falling) / falling.sum()
    levels = [float(falling[np.searchsorted(inside, share)]) for share in _SHARES]
    with _drawing(axes) as (figure, axis):
        from matplotlib.colors import LinearSegmentedColormap

        shades = LinearSegmentedColormap.from_list("density", [DATA + "00", DATA])
        look = {"cmap": shades, "aspect": "auto", "interpolation": "bilinear"}
        axis.imshow(density, extent=(*limits[0], *limits[1]), origin="lower", **look)
        if levels[1] < levels[0]:
            lines = axis.contour(across, up, density, levels[::-1], colors=SAMPLES, linewidths=1.0)
            axis.clabel(lines, fmt={level: f"{share:.0%}" for level, share in zip(levels, _SHARES)}, fontsize=7.5)
        axis.set(xlim=limits[0], ylim=limits[1])
    return figure


def plot_field(
    field: Field,
    t: float,
    limits: Limits,
    *,
    args: PyTree = None,
    axes: "Axes | None" = None,
    points: int = 20,
) -> "Figure":
    """Draw a field of the plane at one time as arrows, coloured by their length.

    Args:
        field: ``field(t, y, args) -> dy`` of one point [2].
        t: the time.
        limits: ``((left, right), (bottom, top))``.
        args: of the field, such as a condition; the same for every point.
        axes: of matplotlib, to draw on; by default a new figure.
        points: arrows to a side. Default 20.

    Returns:
        The figure, with a second axes for the scale of the colours.

    Raises:
        ValueError: a field whose value is not shaped like the point, or is not finite; limits that are no limits.
        ImportError: matplotlib is not installed; the message names the extra.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.app import plot_field
        >>> figure = plot_field(lambda t, y, args: jnp.array([-y[1], y[0]]), 0.0, ((-1, 1), (-1, 1)))
        >>> figure.axes[1].get_ylabel()
        'speed'

    Cost: one call of the field on ``points``² points at once.
    """
    check_callable(field, what="field", fix="Pass field(t, y, args) -> dy of one point.")
    across, up = _grid(limits, points)
    ys, time = _points(across, up), jnp.asarray(t, jnp.float32)
    out = jax.eval_shape(field, time, ys[0], args)
    check_like(out, ys[0], what="a field whose value", fix="Return dy of the plane: an array of shape (2,).")
    arrows = np.asarray(jax.vmap(field, in_axes=(None, 0, None))(time, ys, args))
    if not np.isfinite(arrows).all():
        raise fault(expected="a field that is finite", got="NaN or infinity", fix="Choose another time or limits.")
    with _drawing(axes) as (figure, axis):
        speed = np.linalg.norm(arrows, axis=1)
        drawn = axis.quiver(*np.asarray(ys).T, *arrows.T, speed, angles="xy", cmap="viridis", pivot="mid")
        figure.colorbar(drawn, ax=axis, label="speed")
        axis.set(xlim=limits[0], ylim=limits[1])
    return figure


def _table(rows: Any, what: str) -> np.ndarray:
    rows = np.asarray(rows)
    if rows.ndim != 2 or not 2 <= rows.shape[1] <= _MOST or not np.issubdtype(rows.dtype, np.number):
        got = f"{rows.dtype} of shape {list(rows.shape)}"
        wanted = f"{what} [rows, columns] of numbers, 2 to {_MOST} columns"
        raise fault(expected=wanted, got=got, fix="Choose columns.")
    if odd := int(np.sum(~np.isfinite(rows).all(axis=1))):
        raise fault(expected=f"finite {what}", got=f"{odd} rows that are not", fix="Leave them out.")
    return rows


def _grid(limits: Limits, points: int) -> tuple[np.ndarray, np.ndarray]:
    ends = np.asarray(limits, float)
    if ends.shape != (2, 2) or not np.isfinite(ends).all() or not (ends[:, 0] < ends[:, 1]).all():
        raise fault(expected="limits ((left, right), (bottom, top))", got=limits, fix="Such as ((-3, 3), (-3, 3)).")
    # Centres of the cells that share out the picture.
    across, up = (low + (high - low) * (np.arange(points) + 0.5) / points for low, high in ends)
    return across, up


def _points(across: np.ndarray, up: np.ndarray) -> Array:
    return jnp.asarray(np.stack([each.ravel() for each in np.meshgrid(across, up)], axis=1), jnp.float32)


def _handles() -> list[Any]:
    from matplotlib.lines import Line2D

    inks = (("data", DATA), ("samples", SAMPLES))
    return [Line2D([], [], color=ink, marker="o", markersize=4, ls="", label=name) for name, ink in inks]


@contextmanager
def _drawing(axes: "Axes | None") -> Iterator[tuple[Any, Any]]:
    """The axes given, or those of a new figure in the style of the reports."""
    require("matplotlib", extra="app")
    if axes is not None:
        yield axes.figure, axes
        return
    with canvas(4.6, 4.0) as (figure, _):
        figure.set_layout_engine("constrained")
        axis = figure.subplots()
        axis.set(xlabel="x0", ylabel="x1")
        yield figure, axis
        figure.draw_without_rendering()  # ticks are made now, while the style holds


__all__ = ["plot_density", "plot_field", "plot_samples"]
