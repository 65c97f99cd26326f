"""Evidence is kept as soon as a paper has finished, comes back as it was, and is stale when its code is another."""

import dataclasses
import importlib
import json

import jax
import pytest

from nablax import papers
from nablax.papers import Check, Contrast, Paper, _evidence, _runner
from nablax.papers._records import check_from

KEY = jax.random.key(3)
CLAIM = """
    from nablax.papers import Check
    from .._method import method

    def checks(key, *, full=False):
        return [Check("it doubles", "", str(method(2)), "", method(2) == 4, "", figure=print)]
"""
FILES = {
    "__init__.py": "",
    "_method.py": "FACTOR = 2\n\ndef method(x):\n    return FACTOR * x\n",
    "transport/__init__.py": "",
    "transport/first.py": CLAIM,
    "transport/second.py": CLAIM,
}
FIRST = Paper("first", "First", 2020, "https://example.org", ("transport",), 1, "text")
SECOND = dataclasses.replace(FIRST, slug="second", row=2)


@pytest.fixture
def planted(plant, tmp_path, monkeypatch):
    """Two papers of a small package, whose evidence is kept in a folder of its own."""
    source = plant(FILES)
    monkeypatch.setattr(_evidence, "_FOLDER", tmp_path / "recorded")

    def module(paper):
        return importlib.import_module(f"{source.name}.transport.{paper.slug}")

    monkeypatch.setattr(_runner, "module", module)
    for user in (_runner, _evidence):
        monkeypatch.setattr(user, "available", lambda: [FIRST, SECOND])
    return source


def test_evidence_holds_the_outcome_the_key_the_versions_and_the_code(planted):
    assert papers.recorded() == {}
    assert papers.stale() == {"first": ["never recorded"], "second": ["never recorded"]}
    outcome = papers.run_all(["first"], key=KEY, record=True)
    assert outcome.checks["first"][0].figure is print
    evidence = papers.recorded()["first"]
    assert list(evidence.checks) == outcome.checks["first"]  # figures are no part of what is compared
    assert evidence.checks[0].figure is None and evidence.checks[0].measured == "4"
    assert evidence.key == (0, 3) and not evidence.full
    assert set(evidence.code) == {"_method.py", "transport/first.py"}
    assert evidence.versions["jax"] == jax.__version__
    assert set(evidence.versions) == {
        *("jax", "jaxlib", "numpy", "equinox", "optax", "diffrax", "lineax", "optimistix")
    }
    assert papers.stale() == {"second": ["never recorded"]}
    papers.run_all(["first"], key=KEY, full=True, record=True)
    assert papers.recorded()["first"].full


def test_a_changed_constant_makes_evidence_stale_and_a_comment_does_not(planted, rewrite):
    papers.run_all(key=KEY, record=True)
    assert papers.stale() == {}
    rewrite(planted / "_method.py", "FACTOR = 2", "FACTOR = 2  # twice")
    assert papers.stale() == {}
    rewrite(planted / "_method.py", "FACTOR = 2", "FACTOR = 3")
    assert papers.stale() == {"first": ["_method.py changed"], "second": ["_method.py changed"]}
    rewrite(planted / "_method.py", "FACTOR = 3", "FACTOR = 2")
    rewrite(planted / "transport/first.py", "it doubles", "it doubles it")
    assert list(papers.stale()) == ["first"]


def test_other_versions_are_told_and_are_not_stale(planted, rewrite):
    papers.run_all(["first"], key=KEY, record=True)
    path = _evidence._FOLDER / "first.json"
    assert papers.recorded()["first"].other_versions() == {}
    rewrite(path, f'"jax": "{jax.__version__}"', '"jax": "0.1.2"')
    assert papers.recorded()["first"].other_versions() == {"jax": ("0.1.2", jax.__version__)}
    assert "first" not in papers.stale()


def test_evidence_without_code_is_stale(planted):
    papers.run_all(["first"], key=KEY, record=True)
    path = _evidence._FOLDER / "first.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"code": {}}))
    assert papers.stale()["first"] == ["recorded without the code that ran"]


def test_what_has_finished_is_kept_when_the_run_is_killed(planted):
    papers.run_all(["second"], key=KEY, record=True)
    before = (_evidence._FOLDER / "second.json").read_text()

    def killed(key, *, full=False):
        raise KeyboardInterrupt

    _runner.module(SECOND).checks = killed
    with pytest.raises(KeyboardInterrupt):
        papers.run_all(key=KEY, record=True)
    assert list(papers.recorded()) == ["first", "second"]
    assert (_evidence._FOLDER / "second.json").read_text() == before


def test_a_record_is_written_whole_or_not_at_all(planted, monkeypatch):
    papers.run_all(["first"], key=KEY, record=True)
    before = papers.recorded()

    def killed(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        papers.run_all(["first"], key=jax.random.key(4), record=True)
    assert papers.recorded() == before


def test_a_paper_that_stops_with_an_error_leaves_its_evidence(planted):
    papers.run_all(key=KEY, record=True)

    def broken(key, *, full=False):
        raise FloatingPointError("nan")

    _runner.module(FIRST).checks = broken
    outcome = papers.run_all(key=jax.random.key(4), record=True)
    assert outcome.errors == {"first": "FloatingPointError: nan"}
    assert papers.recorded()["first"].key == (0, 3) and papers.recorded()["second"].key == (0, 4)


def test_nothing_is_recorded_unless_it_is_asked_for_and_unknown_slugs_record_nothing(planted):
    papers.run_all(key=KEY)
    with pytest.raises(ValueError, match="third"):
        papers.run_all(["first", "third"], key=KEY, record=True)
    assert papers.recorded() == {}


def test_a_check_is_kept_whole_but_for_its_figure():
    check = Check("a", "b", "c", "d", True, "e", False, "f", print, (), "g", "contradicts")
    assert check_from(check.kept()) == check
    assert set(check.kept()) == {field.name for field in dataclasses.fields(Check)} - {"figure", "contrasts"}


def test_a_contrast_is_kept_as_numbers_and_its_words_are_rendered_anew(planted):
    contrast = Contrast(
        "error", {"new": [1 / 3, 0.5], "plain": [2.0, 3.0]}, "lower", threshold=0.0, seconds={"new": 1.0}
    )
    check = Check("a", "b", contrasts=contrast, moved_from="c", why="protocol out of reach", expected=False)
    kept = json.loads(json.dumps(check.kept()))
    assert check_from(kept) == check and check_from(kept).rows() == check.rows()
    assert not kept.keys() & {"measured", "baseline", "criterion", "holds", "figure"}
    assert kept["contrasts"] == [
        {
            "metric": "error",
            "values": {"new": [0.3333333, 0.5], "plain": [2.0, 3.0]},
            "direction": "lower",
            "threshold": 0.0,
            "seconds": {"new": 1.0},
        }
    ]


def test_what_ships_as_recorded_belongs_to_papers_that_exist():
    assert set(papers.recorded()) == {paper.slug for paper in papers.available()}


def test_code_that_is_edited_while_it_runs_is_not_recorded(planted, rewrite):
    checks = _runner.module(FIRST).checks

    def edited(key, *, full=False):
        found = checks(key, full=full)
        rewrite(planted / "_method.py", "FACTOR = 2", "FACTOR = 3")
        return found

    _runner.module(FIRST).checks = edited
    outcome = papers.run_all(["first"], key=KEY, record=True)
    assert "expected code that stays while it runs, got another _method.py" in outcome.errors["first"]
    assert papers.recorded() == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": []}', "<<<<<<< ours"])
def test_a_broken_record_is_named(planted, text):
    papers.run_all(["first"], key=KEY, record=True)
    (_evidence._FOLDER / "._other.json").write_text("no record")
    assert list(papers.recorded()) == ["first"]
    (_evidence._FOLDER / "second.json").write_text(text)
    with pytest.raises(ValueError, match=r"evidence in .*second\.json.*--record"):
        papers.recorded()
