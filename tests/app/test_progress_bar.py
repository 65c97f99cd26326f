"""What a person sees while a model is trained, part by part."""

import io

from rich.console import Console

from nablax.app._progress_bar import progress_bar
from nablax.follow import Progress


def at(step: int, steps: int) -> Progress:
    return Progress(step, steps, 1.0, None, float("nan"), float("nan"))


def shown(states, *, terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False)
    with progress_bar(console, "learning") as progress:
        for state in states:
            progress(state)
    return console.file.getvalue()


def test_each_part_has_its_lines_where_there_is_no_terminal():
    """A log or a notebook; the first part stops early or at its end, and the second is not silent for that."""
    for end in (20, 12):
        first, second = range(1, end + 1), range(1, 41)
        lines = shown([*(at(n, 20) for n in first), *(at(n, 40) for n in second)], terminal=False).splitlines()
        assert all(line.startswith(("learning: step", "learning, part 2: step")) for line in lines)
        of_second = [line for line in lines if "part 2" in line]
        assert [line.split(" of ")[0] for line in of_second] == [
            f"learning, part 2: step {n}" for n in (1, *range(4, 41, 4))
        ]
        assert lines[0].startswith("learning: step 1 of 20") and len(lines) == len(of_second) + 1 + end // 2


def test_a_run_that_goes_on_is_one_part():
    assert "part" not in shown([at(300, 400), at(400, 400)], terminal=False)
    # A later part that goes on beyond where the first one ended.
    assert "learning, part 2: step 30 of 40" in shown([at(12, 20), at(30, 40)], terminal=False)


def test_a_terminal_shows_a_bar_before_the_first_step():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with progress_bar(console, "learning") as progress:
        assert "compiling" in console.file.getvalue()  # which takes longer than many a training
        progress(at(1, 20))
    assert "1/20" in console.file.getvalue()
    text = shown([at(20, 20), at(3, 40)], terminal=True)
    assert "learning, part 2" in text and "3/40" in text


def test_of_a_finished_run_no_bar_is_left():
    text = shown([], terminal=True)
    erase = "\x1b[2K"
    assert "compiling" in text and "learning" not in text[text.rindex(erase) :]
