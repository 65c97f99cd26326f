"""What every room stands on: types, error helpers, pages, and the number with its standard error. Private."""

from ._drawing import short, svg_text
from ._errors import fault, require
from ._estimate import Estimate
from ._page import markup, render
from ._types import Field, Key

__all__ = ["Estimate", "Field", "Key", "fault", "markup", "render", "require", "short", "svg_text"]
