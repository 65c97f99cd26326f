"""Ctrl-C while training: the step is finished and the state is kept before anything stops."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec

P = ParamSpec("P")


@contextmanager
def gently(progress: Callable[P, None], notice: Callable[[str], None]) -> Iterator[Callable[P, None]]:
    """Let Ctrl-C wait for the next call of a progress callback.

    In the midst of a compiled loop it would lose what was computed since the last checkpoint; an exception that comes
    from the callback finds the state whole (`follow.fit` keeps it then). A second Ctrl-C does not wait.

    Args:
        progress: the callback.
        notice: told that the wish was heard.

    Yields:
        The callback to use instead. It raises ``KeyboardInterrupt``; when that has left the block, the handler that
        was there before has its turn.
    """
    before: Any = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield progress
        return
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)
        notice("stopping after this step; Ctrl-C again stops at once")

    def told(*state: P.args, **named: P.kwargs) -> None:
        progress(*state, **named)
        if asked:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, ask)
    try:
        yield told
    except KeyboardInterrupt:
        if not asked:
            raise
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        before(signal.SIGINT, None)


__all__ = ["gently"]
