"""Paths in the plane, as several papers draw them."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

Paths = Float[np.ndarray, "paths times 2"]
_DRAWN = 400


def draw_paths(axes: Any, paths: Paths, colour: str, label: str) -> None:
    """Draw paths as thin lines, each with a dot at its end; long ones are thinned to a few hundred points."""
    places = np.unique(np.linspace(0, paths.shape[1] - 1, _DRAWN).astype(int))
    x, y = np.moveaxis(paths[:, places], 2, 0)
    axes.plot(x.T, y.T, color=colour, lw=0.9, alpha=0.8)
    axes.plot(x[:, -1], y[:, -1], "o", color=colour, ms=3.5, label=label)


def draw_clouds(axes: Any, clouds: Mapping[str, np.ndarray], flows: Mapping[str, Paths]) -> None:
    """Draw sets of points as dots, and paths over them, without axes."""
    for colour, (name, cloud) in zip(("C2", "C0", "C1"), clouds.items()):
        axes.plot(*cloud.T, ".", color=colour, ms=2.5, alpha=0.5, label=name, rasterized=True)
    for colour, (name, paths) in zip(("C1", "C0"), flows.items()):
        draw_paths(axes, paths, colour, name)
    axes.set_axis_off()
    finish(axes, aspect="equal")


def draw_landscape(axes: Any, height: Any, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Shade a function of two numbers, dark where it is low, and set the axes to the window."""
    points = np.stack(np.meshgrid(np.linspace(*x, 160), np.linspace(*y, 160)), axis=-1)
    values = np.asarray(jax.jit(jax.vmap(jax.vmap(height)))(points.astype(np.float32)))
    axes.imshow(values, extent=(*x, *y), origin="lower", cmap="Greys_r", alpha=0.55, aspect="auto")
    axes.set(xlim=x, ylim=y)


def finish(axes: Any, **settings: Any) -> None:
    """Set the axes' properties and put the legend below, where it hides no path; its dots can be seen in any case."""
    axes.set(**settings)
    legend = axes.figure.legend(loc="outside lower center", ncols=4, handletextpad=0.3, columnspacing=1.2)
    for handle in legend.legend_handles:
        handle.set_markersize(5)


__all__ = ["Paths", "draw_clouds", "draw_landscape", "draw_paths", "finish"]
