"""What a person sees while a model is trained, part by part."""

import io

import pytest
from rich.console import Console

from nablax.app._progress_bar import progress_bar
from nablax.follow import Progress


def at(step: int, steps: int) -> Progress:
    return Progress(step, steps, 1.0, None, float("nan"), float("nan"))


def shown(states, *, terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False)
    with progress_bar(console, "learning") as progress:
        for part, state in states:
            progress(part, state)
    return console.file.getvalue()


@pytest.mark.parametrize("steps", [40, 20], ids=["more steps", "as many steps"])
def test_each_part_has_its_name_and_its_lines_where_there_is_no_terminal(steps):
    """A log or a notebook; the first part stops early or at its end, and the second is not silent for that."""
    for end in (20, 12):
        first, second = (("states", at(n, 20)) for n in range(1, end + 1)), range(1, steps + 1)
        lines = shown([*first, *(("values", at(n, steps)) for n in second)], terminal=False).splitlines()
        of_second = [line for line in lines if line.startswith("learning the values: step")]
        tenths = [1, *range(steps // 10, steps + 1, steps // 10)]
        assert [line.split(" of ")[0] for line in of_second] == [f"learning the values: step {n}" for n in tenths]
        of_first = [line for line in lines if line.startswith("learning the states: step")]
        assert of_first[0].startswith("learning the states: step 1 of 20") and len(of_first) == 1 + end // 2
        assert lines == of_first + of_second


def test_a_run_that_goes_on_in_its_second_part_says_so():
    assert "learning the values: step 30 of 40" in shown([("values", at(30, 40))], terminal=False)


def test_a_terminal_shows_a_bar_before_the_first_step():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with progress_bar(console, "learning") as progress:
        assert "compiling" in console.file.getvalue()  # which takes longer than many a training
        progress("states", at(1, 20))
    assert "1/20" in console.file.getvalue()
    text = shown([("states", at(20, 20)), ("values", at(3, 40))], terminal=True)
    assert "learning the values" in text and "3/40" in text


def test_of_a_finished_run_no_bar_is_left():
    text = shown([], terminal=True)
    erase = "\x1b[2K"
    assert "compiling" in text and "learning" not in text[text.rindex(erase) :]
