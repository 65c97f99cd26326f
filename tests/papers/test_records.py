"""The records say what came out, and the run fails exactly when an outcome is not the one listed."""

import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import nablax.papers
from nablax import papers
from nablax.papers import Check, Outcome, Paper, _runner

PAPER = Paper("a-paper", "A Paper", 2020, "https://example.org", ("transport",), 1, "text")
KEY = jax.random.key(0)


def check(holds, expected=True, **changes):
    return Check("it falls", "0.1 in table 1", "0.12 ± 0.01", "below 0.2", holds, "plain: 0.5", expected, **changes)


def outcome(*checks, errors=None):
    return Outcome((PAPER,), {"a-paper": list(checks)}, errors or {})


@pytest.mark.parametrize(
    ("holds", "expected", "verdict", "ok"),
    [
        (True, True, "holds", True),
        (False, True, "FAILS, listed as holding", False),
        (False, False, "does not reproduce, as listed", True),
        (True, False, "HOLDS, listed as not reproducing", False),
    ],
)
def test_the_run_fails_when_the_outcome_is_not_the_listed_one(holds, expected, verdict, ok):
    one = check(holds, expected)
    assert one.verdict == verdict
    assert one.surprise is not ok
    assert outcome(one).ok is ok
    assert outcome(check(True), one).ok is ok


def test_an_error_fails_the_run():
    assert not Outcome((PAPER,), {}, {"a-paper": "ValueError: no"}).ok
    assert "stopped with an error: ValueError: no" in Outcome((PAPER,), {}, {"a-paper": "ValueError: no"}).table()


def test_the_table_shows_the_evidence_and_ends_with_one_line_of_counts():
    text = outcome(check(True), check(False, False, tried="three rates"), check(False), check(True, False)).table()
    for part in ("A Paper", "0.1 in table 1", "0.12 ± 0.01", "below 0.2", "plain: 0.5", "three rates"):
        assert part in text
    assert text.splitlines()[-1] == (
        "1 paper, 4 claims: 1 hold, 1 listed as not reproducing, 1 FAIL, 1 HOLD though listed as not reproducing"
    )
    assert max(map(len, text.splitlines())) <= 120
    assert outcome(check(True)).summary() == "1 paper, 1 claim: 1 hold, 0 listed as not reproducing"


def test_every_module_holds_a_paper_by_its_name():
    found = papers.available()
    assert [paper.row for paper in found] == sorted(paper.row for paper in found)
    assert len({paper.slug for paper in found}) == len(found)
    # Counted by looking at the files: a search that misses a folder would otherwise miss its papers in silence.
    room = Path(nablax.papers.__file__).parent
    files = [path.relative_to(room) for path in room.rglob("*.py") if not path.name.startswith("_")]
    assert len(files) == len(found)
    for path in files:
        paper = importlib.import_module(f"nablax.papers.{path.parent.name}.{path.stem}").PAPER
        assert paper.slug == path.stem.replace("_", "-")
        assert paper.link.startswith("https://")
        assert paper.rooms[0] == path.parent.name
        # What is read from the file's text is what the module says when it is imported.
        assert paper in found
        assert paper.read in ("text", "code", "abstract")


def test_papers_are_listed_without_importing_them():
    code = "import sys; from nablax import papers; papers.available(); papers.stale(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "nablax.papers._catalogue" in done.stdout.split()
    assert not [name for name in done.stdout.split() if name.startswith("nablax.papers.transport")]


def test_unknown_slugs_are_refused_before_anything_runs():
    with pytest.raises(ValueError, match="rectified-flow"):
        papers.run("rectified-flaw", key=KEY)
    started = []
    with pytest.raises(ValueError, match="rectified-flaw"):
        papers.run_all(["rectified-flow", "rectified-flaw"], key=KEY, progress=started.append)
    assert started == []


class FakeModule:
    def __init__(self, slug, checks):
        self.PAPER = dataclasses.replace(PAPER, slug=slug)
        self.checks = checks


def test_one_paper_that_stops_does_not_keep_the_others_from_running(monkeypatch):
    def broken(key, *, full=False):
        raise FloatingPointError("nan")

    def sound(key, *, full=False):
        return [check(True), check(full)]

    modules = {"broken": FakeModule("broken", broken), "sound": FakeModule("sound", sound)}
    monkeypatch.setattr(_runner, "available", lambda: [fake.PAPER for fake in modules.values()])
    monkeypatch.setattr(_runner, "module", lambda paper: modules[paper.slug])
    started = []
    quick = papers.run_all(key=KEY, progress=started.append)
    assert started == ["broken", "sound"]
    assert quick.errors == {"broken": "FloatingPointError: nan"}
    assert [c.holds for c in quick.checks["sound"]] == [True, False]
    assert "1 stopped with an error" in quick.summary() and not quick.ok
    assert papers.run_all(["sound"], key=KEY, full=True).ok
    assert len(papers.run("sound", key=KEY)) == 2
    with pytest.raises(FloatingPointError):
        papers.run("broken", key=KEY)


def test_a_method_after_the_abstract_alone_says_so():
    """In each file of the library that names the paper, beside its address."""
    library = {
        path: path.read_text(encoding="utf-8")
        for path in Path(nablax.papers.__file__).parents[1].rglob("*.py")
        if not {"papers", "app"} & set(path.parts)
    }
    alone = [paper for paper in papers.available() if paper.read == "abstract"]
    naming = [path for paper in alone for path, text in library.items() if paper.link in text]
    assert len(naming) > 20
    silent = [path.name for path in set(naming) if "abstract" not in library[path]]
    assert not silent


def test_what_is_recorded_is_decided_over_three_keys_at_least():
    assert {slug for slug, evidence in papers.recorded().items() if evidence.keys < 3} == set()
