"""Figures as text for pages."""

import io
import re
import unicodedata
import warnings
import zlib
from typing import Any


def svg_text(figure: Any) -> str:
    """Write a matplotlib figure as SVG that can stand in a page beside others.

    Args:
        figure: a ``matplotlib.figure.Figure``.

    Returns:
        One ``<svg>`` element without date, creator and size: the page sets the size. The same figure gives the same
        text where ``svg.hashsalt`` is set.
    """
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Text stays text, in whatever fonts the reader has: that ours lack a sign is no matter.
        warnings.filterwarnings("ignore", message=r"(?s)Glyph \d+ .* missing from", category=UserWarning)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = "<svg" + buffer.getvalue().partition("<svg")[2]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    for size in ("width", "height"):
        text = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", text, count=1)
    # Two figures on one page must not share names.
    mark = f"f{zlib.crc32(text.encode()):08x}"
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{mark}-", text)


def short(name: str, length: int) -> str:
    """A user's word as matplotlib is to draw it: cut to a length, the cut shown, and a dollar a dollar.

    Args:
        name: the word.
        length: in widths of a Latin letter; a Chinese, Japanese or Korean sign is two wide.
    """
    text = name
    if width(name) > length:
        while text and width(text) > length - 1:
            text = text[:-1]
        text += "…"
    return text.replace("$", r"\$")


def width(text: str) -> int:
    """How wide a text is, in letters."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)
