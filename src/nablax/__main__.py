"""``nablax``, and ``python -m nablax``: the command line, and what comes of Ctrl-C."""

import os
import shlex
import signal
import sys
from types import FrameType
from typing import NoReturn

_CODE = 130  # what shells give for an interrupt


class Interrupted(BaseException):
    """Ctrl-C. Not a ``KeyboardInterrupt``, which command-line libraries turn into words of their own."""


def main() -> None:
    """Run the command line; Ctrl-C at any instant ends it with one line that says how to go on."""
    try:
        signal.signal(signal.SIGINT, _interrupted)
        from .app import main as run

        run()
    except Interrupted:
        _leave()


def _interrupted(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _at_once)  # whoever asks twice does not want to wait
    raise Interrupted


def _at_once(number: int, frame: FrameType | None) -> None:
    _leave()


def _leave() -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    arguments = sys.argv[1:]
    went_on = shlex.join(["nablax", *arguments])
    learning = arguments[:1] == ["learn"]
    print(f"\ninterrupted; {'go on' if learning else 'start again'} with: {went_on}", file=sys.stderr, flush=True)
    # At once: the interpreter would first take down threads that are still computing, which can crash it.
    os._exit(_CODE)


if __name__ == "__main__":
    main()
