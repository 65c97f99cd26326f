"""What the README and the guides print runs as it is printed: each page's blocks in order, in one fresh Python."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(?:^<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.M | re.S)
# Command lines are done on these pages; on the others they are read only, for the same verbs take minutes.
DONE = ("docs/guides/data.md",)
# Runs each block in one namespace. A block keeps the page's line numbers, so that a traceback shows the page itself.
DRIVER = """
import ast, subprocess, sys
page, names = sys.argv[1], {"__name__": "__main__"}
for number, line, code in ast.literal_eval(sys.stdin.read()):
    print(f"block {number} (line {line})", file=sys.stderr, flush=True)
    if isinstance(code, str):
        exec(compile("\\n" * line + code, page, "exec"), names)
    else:
        for words in code:
            subprocess.run([sys.executable, "-m", *words], check=True)
"""


class Block(NamedTuple):
    number: int
    line: int
    language: str
    code: str
    reason: str | None


def blocks(text: str) -> list[Block]:
    """Fenced blocks of a page, counted from 1, each with the line of its fence."""
    found = []
    for number, match in enumerate(BLOCK.finditer(text), 1):
        line = text[: match.start("language")].count("\n") + 1
        found.append(Block(number, line, match["language"], match["code"], match["reason"]))
    return found


def commands(text: str) -> list[list[str]]:
    """Command lines of a console block, in words; what follows a # is a remark."""
    return [shlex.split(line[1:], comments=True) for line in text.splitlines() if line.startswith("$")]


def run(page: str, wanted: list[Block], folder: Path) -> subprocess.CompletedProcess:
    """Run blocks of one page in order, in a Python of their own."""
    paths = [str(Path(path).resolve()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return subprocess.run(
        [sys.executable, "-c", DRIVER, page],
        input=repr([(b.number, b.line, b.code if b.language == "python" else commands(b.code)) for b in wanted]),
        cwd=folder,
        env={**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )


PAGES = {
    str(path.relative_to(ROOT)): blocks(path.read_text(encoding="utf-8"))
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}


def of(language: str) -> list[str]:
    return [page for page, found in PAGES.items() if any(b.language == language for b in found)]


@pytest.mark.parametrize("page", of("python"))
def test_the_blocks_of_a_page_run_in_order(page, tmp_path):
    languages = ("python", "console") if page in DONE else ("python",)
    wanted = [b for b in PAGES[page] if b.language in languages and b.reason is None]
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = run(str(ROOT / page), wanted, tmp_path)
    assert done.returncode == 0, f"{page}, {done.stderr}"


def test_every_fence_is_of_a_language_that_is_looked_at():
    """A block written as ```py or ~~~python, or indented, would never run."""
    for page, found in PAGES.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        assert {b.language for b in found} <= {"python", "console", "text"}, page
        assert len(re.findall(r"^\s*(?:```|~~~)", text, re.M)) == 2 * len(found), page
    assert len(of("python")) >= 9


def test_few_blocks_are_not_run_and_each_says_why():
    marked = [f"{page}, block {b.number}: {b.reason}" for page, found in PAGES.items() for b in found if b.reason]
    print("\n".join(marked) or "every block runs")
    assert len(marked) <= 3
    assert all(re.search(r"\b(GPU|PyTorch|Flax|minutes|hours?)\b", reason) for reason in marked)


def understood(words: list[str]) -> None:
    """Read the words after ``nablax`` as the command line does, without doing what they say."""
    typer = pytest.importorskip("typer")
    from nablax.app._cli import app

    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    assert not (hasattr(command, "commands") and words), f"no verb {words[0]!r}"
    if "--help" not in words:
        command.make_context(command.name, words)


@pytest.mark.parametrize("page", of("console"))
def test_the_command_lines_of_a_page_are_understood(page):
    """Verbs, options and choices are there; that they do what they say is for the examples and the gate."""
    for block in PAGES[page]:
        for words in commands(block.code) if block.language == "console" else ():
            if Path(words[0]).name == "nablax":
                understood(words[1:])
            else:
                assert words[0] in ("git", "make", "pip", "source"), f"{page}, block {block.number}: {words}"


def test_a_command_line_that_does_not_exist_is_noticed():
    for line in (
        "nablax lern iris.csv",
        "nablax learn",
        "nablax learn iris.csv --stepz 3",
        "nablax score runs/a b --draws x",
    ):
        with pytest.raises(Exception, match=r"no verb|Missing|No such option|valid integer"):
            understood(shlex.split(line)[1:])
    understood(["learn", "iris.csv", "--steps", "3"])
    understood(["papers", "run", "rectified-flow"])


def test_the_blocks_share_a_page_and_nothing_else(tmp_path):
    text = "```python\nx = 1\n```\nwords\n```python\nassert x == 1\nopen('here', 'w')\n```\n"
    assert run("page.md", blocks(text), tmp_path).returncode == 0
    assert (tmp_path / "here").exists()
    assert run("other.md", blocks("```python\nx\n```\n"), tmp_path).returncode == 1


def test_command_lines_are_done_between_the_blocks_of_python(tmp_path):
    text = "```console\n$ nablax learn absent.csv --out runs/a  # a remark\n```\n```python\nx = 1\n```\n"
    done = run("page.md", blocks(text), tmp_path)
    assert done.returncode == 1 and "absent.csv" in done.stderr and "block 2" not in done.stderr


def test_a_fault_is_told_with_its_page_block_and_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Words.\n\n```python\nx = 1\n```\n\n```python\n\nx / 0\n```\n")
    done = run(str(page), blocks(page.read_text()), tmp_path)
    assert done.returncode == 1
    assert "block 2 (line 7)" in done.stderr and f'"{page}", line 9' in done.stderr
    assert "x / 0" in done.stderr and "ZeroDivisionError" in done.stderr


def test_a_mark_is_for_the_block_below_it():
    first, second, third = blocks(
        "<!-- not run: needs a GPU -->\n```python\nx\n```\n<!-- not run: torch -->\n\n```python\ny\n```\n```console\n$ z\n```\n"
    )
    assert (first.reason, second.reason, third.language) == ("needs a GPU", None, "console")
