"""``nablax``, and ``python -m nablax``: the command line, and what comes of Ctrl-C."""

import os
import shlex
import signal
import sys
from types import FrameType

_CODE = 130  # what shells give for an interrupt


def main() -> None:
    """Run the command line; Ctrl-C at any instant ends it with one line that says how to go on."""
    signal.signal(signal.SIGINT, _leave)
    from .app import main as run

    try:
        run()
    finally:  # what there was to do is done: the interpreter, which takes handlers down first, may end in peace
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _leave(number: int, frame: FrameType | None) -> None:
    """Say how to go on, and end at once.

    An exception would come out of whatever runs at the moment, where an import, a callback or a thread may swallow it
    or crash. There is nothing to clear up: every file is whole or absent, as for a process that is killed.
    """
    arguments = sys.argv[1:]
    learning = arguments[:1] == ["learn"]
    cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # a bar hides it
    command = shlex.join(["nablax", *arguments])
    line = f"{cursor}\ninterrupted; {'go on' if learning else 'start again'} with: {command}\n"
    os.write(2, line.encode(errors="replace"))  # a stream might be in the midst of writing
    os._exit(_CODE)


if __name__ == "__main__":
    main()
