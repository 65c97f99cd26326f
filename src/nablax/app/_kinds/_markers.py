"""Words that stand for a missing cell."""

import polars as pl

# In a column of numbers or dates anything of this kind is a hole; ``?`` and dashes are what forms and old files leave.
OF_NUMBERS = (
    *("", "NA", "N/A", "n/a", "na", "#N/A", "#NA", "<NA>", "NaN", "nan", "NAN", "-nan", "-NaN", "NaT"),
    *("NULL", "Null", "null", "None", "none", "NONE", "nil", "?", "-", "--", "–", "—", ".", "..", "*"),
)
# In a column of words "None", "-" and "." are as likely to be an answer.
OF_WORDS = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NaT", "NULL", "null", "?")


def is_marker(cells: pl.Series, markers: tuple[str, ...]) -> pl.Series:
    """Which cells of text stand for a missing one: null, one of the markers, or one with blanks around it."""
    return cells.is_null() | cells.is_in(list(markers)) | cells.str.strip_chars().is_in(list(markers))
