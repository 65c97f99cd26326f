"""Pictures whose labels can be read: none touch, years are whole, dates are dates, any script is shown."""

import re
import warnings

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from nablax._pages import marginal, pair_plot, short
from nablax._pages._data_figures import draw_pairs, pairs_size
from nablax._pages._style import canvas
from nablax._pages._ticks import compact

RANDOM = np.random.default_rng(0)
COLUMNS = {
    "years": RANDOM.integers(2007, 2010, 300).astype(float),
    "money": RANDOM.lognormal(14, 1, 300),
    "small": 1e-5 * RANDOM.normal(size=300),
    "huge": 1e12 * RANDOM.normal(size=300),
    "narrow": 1_000_000 + RANDOM.integers(0, 12, 300).astype(float),
    "share": RANDOM.random(300),
    "one": np.full(300, 0.0),
}


def _labels(svg):
    return [text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


def _touching(axis, renderer):
    boxes = [
        label.get_window_extent(renderer)
        for label in axis.get_ticklabels()
        if label.get_visible()
        and label.get_text()
        and axis.get_view_interval()[0] <= label.get_position()[0] <= axis.get_view_interval()[1]
    ]
    boxes.sort(key=lambda box: box.x0)
    return [a for a, b in zip(boxes, boxes[1:]) if a.x1 > b.x0]


def test_no_two_labels_touch():
    with canvas(*pairs_size(len(COLUMNS))) as (figure, _):
        draw_pairs(figure, COLUMNS, COLUMNS)
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        for axis in figure.axes:
            assert not _touching(axis.xaxis, renderer), axis.get_xlabel()


@pytest.mark.parametrize("name", COLUMNS)
def test_every_column_has_two_labels_that_differ(name):
    labels = _labels(marginal(COLUMNS[name], COLUMNS[name]))
    assert len(labels) == len(set(labels)) and (len(labels) >= 2 or name == "one")
    assert max(map(len, labels)) <= 9


def test_a_whole_axis_has_whole_ticks_and_dates_are_dates():
    assert set(_labels(marginal(COLUMNS["years"], COLUMNS["years"]))) <= {"2006", "2007", "2008", "2009", "2010"}
    days = np.arange(18_000.0, 18_900.0, 7)
    labels = _labels(marginal(days, days, dates=True))
    assert "2020" in labels and all(re.fullmatch(r"20\d\d|[A-Z][a-z]{2}", label) for label in labels)
    names = _labels(pair_plot({"day": days, "x": days}, {"day": days, "x": days}, ["day"]))
    assert "2020" in names and "18.5k" in names


@pytest.mark.parametrize(
    ("ticks", "said"),
    [
        ([2006.0, 2008.0], ["2006", "2008"]),
        ([0.0, 25_000.0, 50_000.0], ["0", "25k", "50k"]),
        ([0.0, 2.5e6, 5e6], ["0", "2.5M", "5.0M"]),
        ([0.0, 0.25, 0.5], ["0", "0.25", "0.50"]),
        ([1_000_000.0, 1_000_005.0], ["1000000", "1000005"]),
        ([-2e-5, 0.0, 2e-5], ["-2e-5", "0", "2e-5"]),
        ([0.0], ["0"]),
    ],
)
def test_numbers_in_few_characters(ticks, said):
    assert [compact(tick, ticks) for tick in ticks] == said


def test_categories_whose_names_do_not_fit_beneath_lie_on_their_sides():
    names = [f"a category of long name {k}" for k in range(8)]
    labels = _labels(marginal(*(np.array(names * 5, dtype=object) for _ in range(2))))
    assert labels == ["a category of l…"] * 8 or (len(labels) == 8 and all(len(label) == 16 for label in labels))
    assert _labels(marginal(*(np.array(["yes", "no", "no"], dtype=object) for _ in range(2)))) == ["no", "yes"]


def test_any_script_is_text_of_the_page():
    cells = np.array(["北京市", "上海", "قاهرة", "Zürich"] * 10, dtype=object)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = marginal(cells, cells)
        pairs = pair_plot(
            {"价格": COLUMNS["share"], "b": COLUMNS["share"]}, {"价格": COLUMNS["share"], "b": COLUMNS["share"]}
        )
    assert {"北京市", "上海", "قاهرة", "Zürich"} <= set(_labels(svg)) and "价格" in _labels(pairs)
    assert "var(--font)" in svg
    # A Chinese sign is as wide as two letters.
    assert short("一二三四五六", 8) == "一二三…" and short("abcdefgh", 8) == "abcdefgh"
