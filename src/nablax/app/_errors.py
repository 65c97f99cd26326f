"""The error meant for the person at the keyboard."""


class UserError(Exception):
    """A fault in what the user gave: one clear line, exit code 2, nothing overwritten.

    Example:
        >>> str(UserError("table.csv", "the file is empty"))
        'table.csv: the file is empty'
    """

    def __init__(self, *parts: object) -> None:
        # One line whatever the cause wrote: libraries put advice for programmers on further lines.
        super().__init__(": ".join(" ".join(str(part).split()) for part in parts))
