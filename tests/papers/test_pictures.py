"""Figures are drawn when they are asked for, never otherwise, as files that stand alone."""

import dataclasses
import re
import xml.etree.ElementTree

import jax
import numpy as np
import pytest

from nablax import papers
from nablax.papers import Check, Paper, _runner
from nablax.papers._problems._paths import draw_landscape, draw_paths

KEY = jax.random.key(0)
PAPER = Paper("a-paper", "A Paper", 2020, "https://example.org", ("transport",), 1, "text")


def check(figure=None):
    return Check("it falls", "", "", "", True, "", figure=figure)


def curve(axes):
    axes.plot([0, 1], [1, 0], label="it")
    axes.legend()


def test_a_file_for_each_check_that_has_a_figure(tmp_path):
    written = papers.draw("a-paper", [check(curve), check(), check(curve)], tmp_path / "made")
    assert [path.name for path in written] == ["a-paper-1.svg", "a-paper-3.svg"]
    assert sorted((tmp_path / "made").iterdir()) == written
    text = written[0].read_text()
    root = xml.etree.ElementTree.fromstring(text)
    assert root.tag.endswith("svg") and root.get("viewBox")
    # Nothing that only a page around it could say.
    assert "var(" not in text and ">it<" in text
    assert root[0].tag.endswith("rect") and root[0].get("fill") == "#FFFFFF"


def test_the_same_figure_gives_the_same_file(tmp_path):
    (one,) = papers.draw("a-paper", [check(curve)], tmp_path / "one")
    (other,) = papers.draw("a-paper", [check(curve)], tmp_path / "other")
    assert one.read_bytes() == other.read_bytes()


class FakeModule:
    def __init__(self):
        self.drawn = 0

    def checks(self, key, *, full=False):
        def figure(axes):
            self.drawn += 1
            curve(axes)

        return [check(figure)]


def test_figures_are_drawn_when_asked_and_never_otherwise(tmp_path, monkeypatch):
    fake = FakeModule()
    monkeypatch.setattr(_runner, "available", lambda: [PAPER])
    monkeypatch.setattr(_runner, "module", lambda paper: fake)
    outcome = papers.run_all(key=KEY)
    assert outcome.table() and repr(outcome) and outcome == papers.run_all(key=KEY)
    assert fake.drawn == 0
    papers.run_all(key=KEY, figures=tmp_path / "made")
    assert fake.drawn == 1
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["a-paper-1.svg"]


def test_a_missing_matplotlib_is_said_before_anything_runs(tmp_path, monkeypatch):
    started = []
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"nablax\[app\]"):
        papers.run_all(["ridge-rider"], key=KEY, figures=tmp_path, progress=started.append)
    assert started == []


def test_a_figure_is_no_part_of_what_is_compared():
    assert check(curve) == check() and hash(check(curve)) == hash(check())
    assert "figure" not in repr(check(curve))
    assert dataclasses.replace(check(curve), measured="1").figure is curve


def test_long_numbers_of_shapes_are_cut_and_those_of_words_are_not(tmp_path):
    def figure(axes):
        axes.plot([i / 7 for i in range(300)], [(i * i) % 11 / 7 for i in range(300)])
        axes.set(title="π is 3.14159")

    (path,) = papers.draw("a-paper", [check(figure)], tmp_path)
    text = path.read_text()
    assert "π is 3.14159" in text
    assert not re.search(r' d="[^"]*\d\.\d{3}', text) and text.count("\nL ") > 250


@pytest.fixture
def axes():
    from matplotlib.figure import Figure

    return Figure().subplots()


def test_paths_are_thinned_and_end_in_a_dot(axes):
    times = np.arange(10_001.0)
    draw_paths(axes, np.stack([np.stack([times, -times], axis=1), np.stack([-times, times], axis=1)]), "C0", "paths")
    *lines, dots = axes.lines
    assert [tuple(line.get_xydata()[-1]) for line in lines] == [(10_000, -10_000), (-10_000, 10_000)]
    assert all(len(line.get_xydata()) == 400 and tuple(line.get_xydata()[0]) == (0, 0) for line in lines)
    assert dots.get_xydata().tolist() == [[10_000, -10_000], [-10_000, 10_000]]


def test_a_landscape_lies_under_the_paths_as_it_is(axes):
    draw_landscape(axes, lambda x: 10 * x[0] + x[1], (0.0, 2.0), (-1.0, 1.0))
    (image,) = axes.images
    heights = image.get_array()
    assert [heights[0, 0], heights[0, -1], heights[-1, 0], heights[-1, -1]] == [-1, 19, 1, 21]
    assert image.origin == "lower" and image.get_extent() == [0, 2, -1, 1]
    assert axes.get_xlim() == (0, 2) and axes.get_ylim() == (-1, 1)
