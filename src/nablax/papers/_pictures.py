"""Pictures of claims, one small SVG file for each check that has something to show."""

from collections.abc import Sequence
from pathlib import Path

from .._core import require
from .._pages import canvas
from ._records import Check

# The style's inks are variables that a page sets; a file that stands alone says what they are, and what is behind them.
_INKS = {"var(--ink)": "#1F2933", "var(--muted)": "#52606D", "var(--rule)": "#CBD2D9", "var(--font)": "sans-serif"}


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
    require("matplotlib", extra="app")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, check in enumerate(checks, 1):
        if check.figure is not None:
            with canvas(height=3.2) as (figure, text):
                figure.set_layout_engine("constrained")
                check.figure(figure.subplots())
                picture = text()
            for variable, ink in _INKS.items():
                picture = picture.replace(variable, ink)
            head, _, body = picture.partition(">")
            path = folder / f"{slug}-{number}.svg"
            path.write_text(f'{head}><rect width="100%" height="100%" fill="#FFFFFF"/>{body}', encoding="utf-8")
            written.append(path)
    return written


__all__ = ["draw"]
