"""Hidden cells: coverage is four fifths where draws are right, for atoms and grids too, and told where they are not."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from nablax.app._data._codec import fit_codec
from nablax.app._data._sources import table
from nablax.app._report import _hidden
from nablax.app._report._hidden import DRAWS, Coverage, hidden_cells
from nablax.app._report._judge_model import hidden

SIZE = 2000


def judged(found):
    return hidden(SimpleNamespace(hidden=found))


def rows(count, seed):
    """A normal number, one that is 0 half of the time, and a word."""
    generator = np.random.default_rng(seed)
    zero = generator.random(count) < 0.5
    return pl.DataFrame(
        {
            "normal": generator.normal(size=count),
            "heaped": np.where(zero, 0.0, np.exp(generator.normal(size=count))),
            "word": generator.choice(["a", "b"], count),
        }
    )


def coverage(monkeypatch, width=1.0, held_out=400):
    """Of a model that draws hidden cells from the truth, the normal one with this width."""
    codec = fit_codec(table(rows(2000, 0)))

    def drawn(model, base, draws, seed):
        gone, known = np.isnan(base[..., 0]), codec.decode_base(np.nan_to_num(base))
        tables = []
        for k in range(draws):
            fresh = rows(len(base), 1000 * (seed + 1) + k).with_columns(pl.col("normal") * width)
            pick = [
                pl.when(pl.Series(gone[:, j])).then(fresh[n]).otherwise(known[n]) for j, n in enumerate(known.columns)
            ]
            tables.append(pl.select(p.alias(n) for p, n in zip(pick, known.columns)))
        return tables

    monkeypatch.setattr(_hidden, "completions", drawn)
    base, _ = codec.encode(rows(held_out, 1))
    return hidden_cells(SimpleNamespace(table=lambda command: codec), np.asarray(base), SIZE, 0)


@pytest.mark.parametrize(("held_out", "level"), [(4, "good"), (400, "warning")])
def test_cells_that_are_all_covered_have_an_error_and_few_of_them_are_no_warning(monkeypatch, held_out, level):
    codec = fit_codec(table(rows(2000, 0)))
    base = np.asarray(codec.encode(rows(held_out, 1))[0])
    truth, asked = codec.decode_base(base), np.zeros((held_out, 2))

    def drawn(model, given, draws, seed):
        """Below the truth and above it, by turns."""
        at = np.arange(len(given) * (seed % 4), len(given) * (seed % 4 + 1)) % held_out
        np.add.at(asked, at, np.isnan(given[:, :2, 0]))
        numbers = pl.col("normal", "heaped")
        return [truth[at].with_columns(numbers + (1.0 if k % 2 else -1.0)) for k in range(draws)]

    monkeypatch.setattr(_hidden, "completions", drawn)
    found = hidden_cells(SimpleNamespace(table=lambda command: codec), base, SIZE, 0)
    assert found.share == 1.0 and found.cells == asked.sum()
    # Of independent cells of which four fifths are covered, each as often as it was hidden.
    assert found.standard_error == pytest.approx(np.sqrt(0.16 * np.sum(asked**2)) / asked.sum())
    (finding,) = judged(found)
    assert finding.level == level


def test_draws_from_the_truth_cover_four_fifths_within_the_error_that_is_said(monkeypatch):
    found = coverage(monkeypatch)
    assert found.cells == pytest.approx(4 * SIZE / DRAWS * 2 * 0.2, rel=0.2)
    assert found.share == pytest.approx(0.8, abs=3 * found.standard_error) and 0.01 < found.standard_error < 0.05
    (good,) = judged(found)
    assert good.level == "good" and f"{found.share:.0%}" in good.text


@pytest.mark.parametrize(("width", "words"), [(0.25, "too sure"), (8.0, "less sure than it could be")])
def test_draws_too_narrow_or_too_wide_are_told(monkeypatch, width, words):
    found = coverage(monkeypatch, width)
    assert abs(found.share - 0.8) > 0.08  # one of two numbers is right
    (finding,) = judged(Coverage(0.8 + 2 * (found.share - 0.8), found.standard_error, found.cells))
    assert finding.level == "warning" and words in finding.text and finding.fix


def test_what_may_be_chance_or_does_not_matter_is_no_warning():
    for share, error in ((0.68, 0.05), (0.72, 0.001), (0.95, 0.06)):
        assert [finding.level for finding in judged(Coverage(share, error, 100))] == ["good"]


def test_rows_with_unknown_cells_are_left_aside_and_none_left_is_none(monkeypatch):
    codec = fit_codec(table(rows(2000, 0)))
    base = np.asarray(codec.encode(rows(4, 1))[0]).copy()
    base[:, 2, 0] = np.nan
    assert hidden_cells(SimpleNamespace(table=lambda command: codec), base, SIZE, 0) is None
    assert coverage(monkeypatch, held_out=3).cells > 0  # few rows are taken several times
