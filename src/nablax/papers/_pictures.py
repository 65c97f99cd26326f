"""Pictures of claims, one small SVG file for each check that has something to show."""

import re
from collections.abc import Sequence
from pathlib import Path

from .._core import require
from .._pages import DATA, SAMPLES, THIRD, canvas, standing_alone
from ._records import Check

# "C0" is the method, "C1" the baseline, "C2" what both are held against.
_COLOURS = (DATA, SAMPLES, THIRD)
_LONG = re.compile(r"-?\d+\.\d{3,}")


def draw(slug: str, checks: Sequence[Check], folder: Path) -> list[Path]:
    """Draw those checks of a paper that have a figure.

    Args:
        slug: the paper's short name.
        checks: as `run` gives them; those of a record have no figures.
        folder: where to write; made where it is absent.

    Returns:
        The files, ``SLUG-N.svg`` for the N-th check, counted from 1; without the date and with fixed names inside, so
        that the same figures give the same files.

    Raises:
        ImportError: matplotlib is absent; the message names the extra.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from nablax import papers
        >>> check = papers.Check("it falls", "", "", "", True, "", figure=lambda axes: axes.plot([2, 1]))
        >>> [path.name for path in papers.draw("a-paper", [check], Path(tempfile.mkdtemp()))]
        ['a-paper-1.svg']
    """
    matplotlib = require("matplotlib", extra="app")
    colours = matplotlib.cycler(color=_COLOURS)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, check in enumerate(checks, 1):
        if check.figure is not None:
            # The resolution is that of clouds, which are dots and no shapes.
            style = {"axes.prop_cycle": colours, "savefig.dpi": 110}
            with canvas(height=3.4) as (figure, text), matplotlib.rc_context(style):
                figure.set_layout_engine("constrained")
                check.figure(figure.subplots())
                picture = standing_alone(text())
            # A hundredth of a point cannot be seen, and six digits are most of a long path's bytes.
            picture = re.sub(r' (?:d|x|y)="[^"]*"', lambda shape: _LONG.sub(_shorter, shape[0]), picture)
            path = folder / f"{slug}-{number}.svg"
            path.write_text(picture, encoding="utf-8")
            written.append(path)
    return written


def _shorter(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}"


__all__ = ["draw"]
