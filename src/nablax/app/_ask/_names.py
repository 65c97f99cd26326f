"""Names for the columns that an answer adds to a table."""

from collections.abc import Sequence


def free_name(name: str, taken: Sequence[str]) -> str:
    """The name itself, or numbered where a column has it: no name of a column has a meaning.

    Example:
        >>> free_name("row", ["x"]), free_name("row", ["row", "row_2"])
        ('row', 'row_3')
    """
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free
