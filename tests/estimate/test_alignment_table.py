"""The guide's table of gradients says what the code gives, and leaves none of the room out."""

import re
import sys
from pathlib import Path

import pytest

from nablax import estimate

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))
from _hooks import alignment  # noqa: E402

sys.path.pop(0)

BLOCK = alignment.GUIDE.read_text(encoding="utf-8").split(alignment.BEGIN)[1].split(alignment.END)[0]
TABLES = BLOCK.split("<details")[0]


def rows(text):
    """Cells by the row's name, of each table."""
    tables = [part.splitlines() for part in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]
    return [{line.split(" | ")[0].strip("| "): line.split(" | ")[1:5] for line in table[2:]} for table in tables]


def number(cell):
    value, _, error = cell.partition(" ± ")
    return float(value), float(error or 0)


def test_every_public_name_has_a_row_or_a_reason():
    shown = set(re.findall(r"`(\w+)`", TABLES))
    absent = {name for names in alignment.ABSENT.values() for name in names.split()}
    assert not shown & absent
    assert shown | absent == set(estimate.__all__)


def test_rows_are_those_that_the_command_writes():
    for make, found in zip(alignment.SETTINGS, rows(TABLES), strict=True):
        setting = make()
        assert list(found) == ["backpropagation", *setting.estimators]
        assert f"Exact gradient: {setting.title}." in TABLES


def test_numbers_are_those_that_the_command_writes():
    """One setting, measured again by the same keys."""
    at = alignment.SETTINGS.index(alignment.categorical)
    again = rows(alignment.measured(alignment.categorical()).table() + "\n")[0]
    for name, cells in rows(TABLES)[at].items():
        for said, found in zip(cells, again[name]):
            (value, error), (other, _) = number(said), number(found)
            assert value == pytest.approx(other, abs=0.3 * error + 1e-3), (name, said, found)


def test_what_is_unbiased_comes_out_unbiased():
    """Slopes of one and biases of none, within four errors, of all rows that claim it."""
    unbiased = (
        "forward_gradient",
        "spsa",
        "gaussian",
        "average",
        "seed_replay",
        "RandomisedLinear",
        "score_function",
        "rank one",
    )
    found = {
        name: cells for table in rows(TABLES) for name, cells in table.items() if any(one in name for one in unbiased)
    }
    assert len(found) == 12
    for name, (_, slope, bias, _) in found.items():
        for cell, truth in ((slope, 1.0), (bias, 0.0)):
            value, error = number(cell)
            assert abs(value - truth) < 4 * error, (name, cell)
