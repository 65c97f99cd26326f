"""Figures as text for pages."""

import io
import re
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
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = "<svg" + buffer.getvalue().partition("<svg")[2]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    for size in ("width", "height"):
        text = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", text, count=1)
    # Two figures on one page must not share names.
    mark = f"f{zlib.crc32(text.encode()):08x}"
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{mark}-", text)


def short(name: str, length: int) -> str:
    """A user's word as matplotlib is to draw it: cut to a length, the cut shown, and a dollar a dollar."""
    text = name if len(name) <= length else name[: length - 1] + "…"
    return text.replace("$", r"\$")
