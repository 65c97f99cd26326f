"""The listing says what is stale and how to renew it, and a run takes one way of naming papers."""

import pytest

from nablax import papers
from nablax.app._errors import UserError
from nablax.app._papers import listing, run_claims
from nablax.papers import Check, Evidence, Outcome, Paper

ONE = Paper("one", "First title", 2020, "https://example.org", ("transport", "diagnose"), 1, "abstract")
TWO = Paper("two", "Second", 2021, "https://example.org", ("regulate",), 2, "code")
HELD = Check("it falls", "", "", "", True, "")


@pytest.fixture
def shelf(monkeypatch):
    """Two papers; what is recorded and stale of them is the test's to say, and a run is only noted."""
    said = {"recorded": {}, "stale": {}, "runs": []}

    def run_all(slugs, **options):
        options.pop("key")
        for slug in slugs:
            options["progress"](slug)
        said["runs"].append((slugs, {name: value for name, value in options.items() if name != "progress"}))
        return Outcome((ONE,), {"one": [HELD]}, {})

    monkeypatch.setattr(papers, "available", lambda: [ONE, TWO])
    monkeypatch.setattr(papers, "recorded", lambda: said["recorded"])
    monkeypatch.setattr(papers, "stale", lambda: said["stale"])
    monkeypatch.setattr(papers, "run_all", run_all)
    return said


def evidence(versions=(), full=False):
    return Evidence((HELD, HELD), (0, 0), 1, full, dict(versions), {})


def run(*slugs, **options):
    chosen = {
        "everything": False,
        "stale": False,
        "full": False,
        "seed": 0,
        "keys": None,
        "record": False,
        "figures": None,
    }
    lines = []
    held = run_claims(slugs, **(chosen | options), notice=lines.append)
    return held, "\n".join(lines)


def test_stale_evidence_is_marked_and_the_command_that_renews_it_is_told(shelf):
    shelf["recorded"] = {"one": evidence(), "two": evidence(full=True)}
    shelf["stale"] = {"two": ["regulate/_x.py changed"]}
    lines = [line.split() for line in listing().splitlines()]
    assert lines[1:6] == [
        [],
        ["regulate"],
        ["*", "two", "2", "of", "2", "at", "full", "scale", "code", "Second", "(2021)"],
        [],
        ["transport"],
    ]
    assert lines[6] == ["one", "2", "of", "2", "abstract", "First", "title", "(2020)"]
    text = listing()
    assert "* stale, 1 of 2" in text and "nablax papers run --stale --record" in text
    assert "other versions" not in text


def test_nothing_is_said_of_staleness_where_nothing_is_stale(shelf):
    shelf["recorded"] = {"one": evidence(), "two": evidence()}
    assert "stale" not in listing() and "*" not in listing()


def test_a_paper_without_evidence_is_told(shelf):
    shelf["stale"] = {"one": ["never recorded"], "two": ["never recorded"]}
    assert listing().count("not recorded") == 2


def test_other_versions_are_told_without_a_mark(shelf):
    shelf["recorded"] = {"one": evidence({"jax": "0.0.1"}), "two": evidence()}
    assert "jax 0.0.1 (here " in listing() and "*" not in listing()


def test_each_way_of_naming_papers(shelf):
    shelf["stale"] = {"two": ["x changed"]}
    assert run("two", "two")[0]
    run(everything=True, record=True)
    run(stale=True, full=True)
    assert [slugs for slugs, _ in shelf["runs"]] == [["two"], ["one", "two"], ["two"]]
    assert [options["record"] for _, options in shelf["runs"]] == [False, True, False]
    assert [options["full"] for _, options in shelf["runs"]] == [False, False, True]


def test_progress_and_the_counts_are_told(shelf):
    _, said = run(everything=True)
    assert "running one (1 of 2)" in said and "running two (2 of 2, 0 min so far, about 0 to go)" in said
    assert said.splitlines()[-1].startswith("1 paper, 1 claim: 1 hold")


@pytest.mark.parametrize(
    ("slugs", "options"),
    [
        ((), {}),
        (("one",), {"everything": True}),
        ((), {"everything": True, "stale": True}),
        (("one",), {"stale": True}),
    ],
)
def test_more_ways_than_one_or_none_are_refused(shelf, slugs, options):
    with pytest.raises(UserError, match="one of the three"):
        run(*slugs, **options)
    assert shelf["runs"] == []


def test_unknown_slugs_and_a_folder_that_cannot_be_made_are_refused_before_anything_runs(shelf, tmp_path):
    with pytest.raises(UserError, match="no paper 'three'"):
        run("one", "three", record=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write pictures"):
        run("one", figures=tmp_path / "file" / "made")
    assert shelf["runs"] == []
    run("one", figures=tmp_path / "made")
    assert shelf["runs"][0][1]["figures"] == tmp_path / "made"
