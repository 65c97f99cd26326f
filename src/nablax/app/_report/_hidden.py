"""Cells of held-out rows that are hidden from the model: how often they lie where its draws say."""

from dataclasses import dataclass

import numpy as np

from .._ask._complete import completions
from .._kinds._types import numbers
from .._runs._run import Model

DRAWS = 20  # of each row: coverage is exact however few they are
_HIDDEN = 0.2  # share of a row's cells
_TIMES = 4  # programs of the samples' size that are run again
MIDDLE = 0.8  # of the draws


@dataclass(frozen=True)
class Coverage:
    """How many hidden numbers lie in the middle four fifths of what the model draws for them.

    Attributes:
        share: of the cells; 0.8 is right, less is too sure, more is not sure enough.
        standard_error: of it, rows being independent and their cells not; no less than that of four fifths of
            independent cells, for few cells may all be covered.
        cells: that were hidden.
    """

    share: float
    standard_error: float
    cells: int


def hidden_cells(model: Model, base: np.ndarray, size: int, seed: int) -> Coverage | None:
    r"""Hide a fifth of the cells of rows that were not trained on, and draw them given the others.

    Draws and truth are ranked together, ties at random: of M draws,
    $u = (\text{below} + V (\text{ties} + 1)) / (M + 1)$ is uniform where the draws are right, atoms or not, and covered
    is $|u - 0.5| \le 0.4$.

    Args:
        model: the opened run of a table.
        base: encoded rows; those with a cell unknown to the model are left aside.
        size: rows that one program draws, a multiple of ``DRAWS``: that of samples, so that no other is compiled.
        seed: of what is hidden, and of the draws.

    Returns:
        The coverage; None where there are no numbers, or no row is left.

    Cost:
        Four times the samples.

    References:
        Czado, Gneiting and Held, "Predictive Model Assessment for Count Data", 2009, for the randomised transform.
    """
    codec = model.table("report")
    base = base[~np.isnan(base[..., 0]).any(axis=1)]
    if not codec.valued or not len(base):
        return None
    generator = np.random.default_rng([seed, 5])
    levels = np.array([kind.levels for kind in codec.modelled])
    covered, hidden = np.zeros((2, len(base), len(codec.valued)))
    for turn in range(_TIMES):
        rows = np.arange(turn * (size // DRAWS), (turn + 1) * (size // DRAWS)) % len(base)
        there = base[rows, :, 0] < levels
        gone = there & (generator.random(there.shape) < _HIDDEN)
        drawn = completions(model, np.where(gone[..., None], np.nan, base[rows]), DRAWS, seed + turn)
        truth = codec.decode_base(base[rows])
        for number, place in enumerate(codec.valued):
            name = codec.modelled[place].name
            real = numbers(truth[name])[:, None]
            made = np.stack([numbers(table[name]) for table in drawn], axis=1)
            slack = 1e-9 * np.maximum(np.abs(real), 1.0)
            below, ties = (made < real - slack).sum(axis=1), (np.abs(made - real) <= slack).sum(axis=1)
            rank = (below + generator.random(len(rows)) * (ties + 1)) / (DRAWS + 1)
            np.add.at(covered[:, number], rows, gone[:, place] & (np.abs(rank - 0.5) <= 0.5 * MIDDLE))
            np.add.at(hidden[:, number], rows, gone[:, place])
    count = hidden.sum()
    if not count:
        return None
    share = covered.sum() / count
    apart, asked = np.sum(covered - share * hidden, axis=1), np.sum(hidden.any(axis=1))
    error = np.sqrt(np.sum(apart**2) * asked / max(asked - 1, 1)) / count
    least = np.sqrt(MIDDLE * (1.0 - MIDDLE) * np.sum(hidden**2)) / count
    return Coverage(float(share), float(max(error, least)), int(count))


__all__ = ["DRAWS", "MIDDLE", "Coverage", "hidden_cells"]
