"""Data sets that need no file: the bundled digits and five shapes in the plane."""

import numpy as np
import polars as pl

from .._errors import UserError

NAMED = ("digits", "moons", "8gaussians", "checkerboard", "s-curve", "pinwheel")
DEFAULT_ROWS = 10_000


def digits() -> pl.DataFrame:
    """Scikit-learn's handwritten digits: 1797 images of 8×8 integers from 0 to 16, with their label.

    Returns:
        Columns ``image`` (array of 8×8×1 bytes) and ``label``.

    References:
        Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits" (1998), bundled with scikit-learn.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    images = data.images.astype(np.uint8)[..., None]
    return pl.DataFrame({"image": images, "label": data.target.astype(np.int64)})


def _moons(n: int, random: np.random.Generator) -> np.ndarray:
    """Two interleaved half circles of radius one, noise 0.1."""
    upper = random.random(n) < 0.5
    angle = np.pi * random.random(n)
    across = np.where(upper, np.cos(angle), 1.0 - np.cos(angle))
    along = np.where(upper, np.sin(angle), 0.5 - np.sin(angle))
    return np.stack([across, along], axis=1) + 0.1 * random.standard_normal((n, 2))


def _eight_gaussians(n: int, random: np.random.Generator) -> np.ndarray:
    """Eight Gaussians of standard deviation 0.2 on a circle of radius 2."""
    angle = random.integers(0, 8, n) * np.pi / 4.0
    return 2.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.2 * random.standard_normal((n, 2))


def _checkerboard(n: int, random: np.random.Generator) -> np.ndarray:
    """The dark squares of a 4×4 board on [-2, 2]², uniform: log-density -log 8 there."""
    column = random.integers(0, 4, n)
    row = 2 * random.integers(0, 2, n) + column % 2
    return np.stack([column, row], axis=1) - 2.0 + random.random((n, 2))


def _s_curve(n: int, random: np.random.Generator) -> np.ndarray:
    """The letter S, two three-quarter turns joined, noise 0.1."""
    angle = 3.0 * np.pi * (random.random(n) - 0.5)
    curve = np.stack([np.sin(angle), np.sign(angle) * (np.cos(angle) - 1.0)], axis=1)
    return curve + 0.1 * random.standard_normal((n, 2))


def _pinwheel(n: int, random: np.random.Generator) -> np.ndarray:
    """Five Gaussian blades, each twisted by an angle that grows with the radius."""
    radial = 1.0 + 0.3 * random.standard_normal(n)
    tangential = 0.1 * random.standard_normal(n)
    angle = 2.0 * np.pi * random.integers(0, 5, n) / 5.0 + 0.25 * np.exp(radial)
    cosine, sine = np.cos(angle), np.sin(angle)
    return 2.0 * np.stack([cosine * radial - sine * tangential, sine * radial + cosine * tangential], axis=1)


_PLANE = {
    "moons": _moons,
    "8gaussians": _eight_gaussians,
    "checkerboard": _checkerboard,
    "s-curve": _s_curve,
    "pinwheel": _pinwheel,
}


def named(name: str, *, n: int = DEFAULT_ROWS, seed: int = 0) -> pl.DataFrame:
    """Make the data set of that name; a pure function of its arguments.

    Args:
        name: one of ``NAMED``.
        n: rows to draw (digits has its own 1797 and ignores it).
        seed: seed of the draw.

    Returns:
        Columns ``x`` and ``y`` for the shapes in the plane, ``image`` and ``label`` for digits.

    Raises:
        UserError: the name is not known.

    Example:
        >>> named("checkerboard", n=3).shape
        (3, 2)
    """
    if name == "digits":
        return digits()
    if name not in _PLANE:
        raise UserError(name, f"no named set of that name; the known ones are {', '.join(NAMED)}")
    points = _PLANE[name](n, np.random.default_rng(seed))
    return pl.DataFrame({"x": points[:, 0], "y": points[:, 1]})
