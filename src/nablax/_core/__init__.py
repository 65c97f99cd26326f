"""What every room stands on: types, error helpers, and the number with its standard error. Private."""

from ._drawing import svg_text
from ._errors import fault, require
from ._estimate import Estimate
from ._types import Field, Key

__all__ = ["Estimate", "Field", "Key", "fault", "require", "svg_text"]
