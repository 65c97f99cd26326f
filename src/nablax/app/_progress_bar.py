"""Progress for the person: a bar on a terminal, a line now and then elsewhere."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..follow import Progress as State

_LINES = 10  # without a terminal, one line each tenth of the way


@contextmanager
def progress_bar(console: Console, title: str, *, visible: bool = True) -> Iterator[Callable[[str, State], None]]:
    """Show training's progress with its rate and the time left.

    Args:
        console: where.
        title: what is going on.
        visible: show nothing otherwise.

    Yields:
        The callback: what is being trained, such as "values", and what `follow.fit` says of it.
    """
    if not visible:
        yield lambda part, state: None
        return
    shown: tuple[str, int] | None = None
    if not console.is_terminal:

        def line(part: str, state: State) -> None:
            nonlocal shown
            tenth = state.step * _LINES // state.steps
            if (part, tenth) != shown or state.step == state.steps:
                shown = part, tenth
                said = f"{title} the {part}: step {state.step} of {state.steps}  {_numbers(state)}"
                console.print(said, soft_wrap=True)

        yield line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, numbers="compiling")

        def show(part: str, state: State) -> None:
            nonlocal shown
            shown, words = (part, state.step), f"{title} the {part}"
            bar.update(task, description=words, completed=state.step, total=state.steps, numbers=_numbers(state))

        yield show
        if shown is None:  # a finished run, of which nothing is learnt
            bar.remove_task(task)


@contextmanager
def stage_bar(console: Console, title: str, *, visible: bool = True) -> Iterator[Callable[[str, float], None]]:
    """Show what is being done of something whose parts are known, but not how long each takes.

    Args:
        console: where.
        title: what it is all for.
        visible: show nothing otherwise.

    Yields:
        The callback: what is being done now, and the share that was done before it.
    """
    if not visible:
        yield lambda now, share: None
        return
    if not console.is_terminal:

        def line(now: str, share: float) -> None:
            if now:
                console.print(f"{title}: {now}", soft_wrap=True)

        yield line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:.0f} %"),
        TextColumn("{task.fields[now]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=1.0, now="")
        yield lambda now, share: bar.update(task, completed=share, now=now)


def _numbers(state: State) -> str:
    parts = [f"loss {state.loss:.4f}"]
    if state.validation is not None:
        parts.append(f"validation {state.validation:.4f}")
    if math.isfinite(state.steps_per_second):
        parts.append(f"{state.steps_per_second:.0f} steps/s")
    if math.isfinite(state.seconds_left):
        minutes, seconds = divmod(round(state.seconds_left), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    return "  ".join(parts)


__all__ = ["progress_bar", "stage_bar"]
