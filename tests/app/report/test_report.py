"""The report is one whole file that fetches nothing, says what is missing, and is the same each time."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from nablax.app._report import _pictures as _report_pictures
from nablax.app._report._baselines import likelihood
from nablax.app._report._evidence import (
    Choice,
    Command,
    ConservativityCurve,
    Evidence,
    PathEnergy,
    SolverCurve,
    Training,
)
from nablax.app._report._memorised import memorised
from nablax.app._report._pictures import column_difference
from nablax.app._report._privacy import Membership, by_samples, membership
from nablax.app._report._report import headline, write_report
from nablax.app._report._two_sample import two_sample
from nablax.app._runs._rows import Rows, repeats


class _Page(HTMLParser):
    """Collects what matters and checks that tags close in order."""

    VOID = ("meta", "img", "br", "hr", "link", "input")

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.sources, self.text = [], [], [], []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.sources += [found[name] for name in ("src", "href", "xlink:href") if name in found]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def _read(path):
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page, " ".join(" ".join(page.text).split())


def _table(generator, count):
    x = generator.normal(size=count)
    columns = {"x": x, "y <&>": x + generator.normal(size=count), "whole": generator.integers(0, 4, count)}
    kind = np.array(["a", "b", None], dtype=object)[generator.integers(0, 3, count)]
    columns["x"] = np.where(generator.random(count) < 0.1, np.nan, x)
    return columns | {"kind": kind, "constant": np.full(count, 2.0)}


@pytest.fixture(scope="module")
def evidence():
    generator = np.random.default_rng(0)
    train, held_out, samples = generator.normal(size=(3, 120, 2))
    step = np.arange(100)
    return Evidence(
        name="a <b> table",
        rows=240,
        columns=5,
        model="flow",
        when="today",
        data=_table(generator, 120),
        samples=_table(generator, 150),
        held_out_rows=120,
        training=Training(step, 1 / (1 + step), step[::10], 1 / (1 + step[::10]), 90),
        likelihoods=[likelihood("this model", np.full(9, -2.0)), likelihood("Gaussian mixture", np.full(9, -2.5))],
        two_sample=two_sample(held_out, samples, groups={"x": [0], "y <&>": [1]}, permutations=99),
        left_by_samples=Membership(0.52, 0.03, (120, 120)),
        training_seconds=12.0,
        report_seconds=4.0,
        memorised=memorised(train, held_out, samples),
        solver_curve=SolverCurve(np.array([8, 16, 32]), np.array([0.1, 0.01, 0.001]), 32, 0.001),
        conservativity=ConservativityCurve(
            np.linspace(0, 1, 3), np.full(3, 0.1), np.array([0.01, np.nan, 0.01]), 0.2, 0.1
        ),
        path_energy=PathEnergy(2.0, 0.1, 0.03, 0.01),
        clipped_fraction=0.0,
        round_trip_error=1e-4,
        choices=[Choice("width", 64, "small <script>")],
        notices=["Column 'constant' never changes."],
        commands=[Command("nablax sample runs/table -n 5", "Draw")],
    )


def test_one_file_that_fetches_nothing(tmp_path, evidence):
    path = tmp_path / "report.html"
    judged = write_report(path, evidence)
    page, text = _read(path)
    source = path.read_text(encoding="utf-8")
    assert all(found.startswith(("data:image/png;base64,", "#")) for found in page.sources)
    assert "<script" not in source and "@import" not in source and not re.search(r"url\((?!#)", source)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", source)
    assert len(page.ids) == len(set(page.ids))
    assert all(f'id="{name}"' in source for name in re.findall(r"url\(#([^)]*)\)", source))
    assert " ".join(judged.paragraph.split()) in text.replace(". .", ".")
    assert "a <b> table" in text and "small <script>" in text  # escaped in the source
    order = [
        "Data beside samples",
        "Training",
        "Held-out likelihood",
        "told from real rows?",
        "repeat its training rows?",
        "What somebody learns of",
        "How it was made",
        "Words",
        "The field behind the model",
        "Error against effort",
        "The field itself",
        "How to go on",
    ]
    places = [text.index(heading) for heading in order]
    assert places == sorted(places)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_an_area_of_one_half_is_no_leak_and_its_error_covers():
    generator = np.random.default_rng(3)
    scores = [membership(*generator.normal(size=(2, 60))) for _ in range(400)]
    off = np.array([(found.auc - 0.5) / found.standard_error for found in scores])
    assert 0.9 < off.std() < 1.1 and abs(off.mean()) < 0.2
    # P(x > y) for normals a distance apart is a closed form: Φ(1 / √2) = 0.7602.
    apart = membership(generator.normal(1.0, size=40_000), generator.normal(size=40_000))
    assert apart.auc == pytest.approx(0.7602, abs=4 * apart.standard_error)
    assert membership(np.array([1.0, 1.0]), np.array([1.0, 1.0])).auc == 0.5


def test_samples_that_are_training_rows_tell_of_them():
    generator = np.random.default_rng(4)
    train, held_out, fresh = generator.normal(size=(3, 300, 4))
    assert by_samples(train, held_out, train[:150], seed=0).auc > 0.7
    clean = by_samples(train, held_out, fresh, seed=0)
    assert abs(clean.auc - 0.5) < 3 * clean.standard_error


def test_what_a_reader_of_tables_needs_is_not_behind_the_fold(tmp_path, evidence):
    write_report(tmp_path / "report.html", evidence)
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    before, _, after = source.partition("<details")
    inside, _, beyond = after.partition("</details>")
    assert "antisymmetric" in inside and "antisymmetric" not in before + beyond
    assert "Which columns give the samples away" in before and "0.520 ± 0.030" in before
    assert "Training took 12 seconds of processor time and measuring for this report 4." in beyond


def test_same_evidence_same_bytes(tmp_path, evidence):
    for name in ("one", "two"):
        write_report(tmp_path / name, evidence)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_what_is_missing_is_said(tmp_path, evidence):
    generator = np.random.default_rng(1)
    bare = Evidence(
        name="images",
        rows=10,
        columns=48,
        model="flow",
        when="today",
        data=generator.integers(0, 256, size=(10, 4, 4, 3)),
        samples=generator.integers(0, 256, size=(60, 4, 4, 3)),
        why_missing={"memorised": "too few rows"},
    )
    judged = write_report(tmp_path / "report.html", bare)
    page, text = _read(tmp_path / "report.html")
    assert judged.level == "unknown"
    assert text.count("Not computed: it was not part of this run.") == 5  # with what is behind the fold
    assert "Not computed: too few rows." in text
    assert len(page.sources) == 2
    one_column = replace(bare, data={"x": np.arange(9.0)}, samples={"x": np.full(3, np.nan)})
    write_report(tmp_path / "report.html", one_column)
    _read(tmp_path / "report.html")


def test_images_are_shown_as_they_are():
    import io

    from PIL import Image

    from nablax._pages import image_grid

    images = np.arange(3 * 2 * 2, dtype=float).reshape(3, 2, 2)
    picture = np.asarray(Image.open(io.BytesIO(image_grid(images, limits=(0, 11), columns=2))))
    scale = picture.shape[1] // 5  # two tiles of two pixels and a gap of one
    small = picture[scale // 2 :: scale, scale // 2 :: scale]
    assert small.shape == (5, 5, 4)
    np.testing.assert_array_equal(small[:2, :2, 0], np.round(images[0] / 11 * 255))
    np.testing.assert_array_equal(small[3:, :2, 0], np.round(images[2] / 11 * 255))
    assert small[2, 0, 3] == 0 and small[4, 4, 3] == 0 and small[0, 0, 3] == 255


def test_a_failure_leaves_the_old_report(tmp_path, evidence, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_report(path, evidence)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_many_columns_show_those_that_differ(evidence):
    generator = np.random.default_rng(2)
    data, samples = ({f"c{i}": generator.normal(size=80) for i in range(40)} for _ in range(2))
    samples["c39"] = samples["c39"] + 3.0
    drawn = _report_pictures._table_pictures(data, samples)
    assert len(drawn["marginals"]) == 24 and drawn["columns_left_out"] == 16
    assert "c39" in [name for name, _, _ in drawn["marginals"]]


def test_dollars_in_a_column_name_are_no_formula():
    random = np.random.default_rng(0)
    data = {name: random.normal(size=50) for name in (r"$\frac$", "in $", "b")}
    drawn = _report_pictures._table_pictures(data, data)
    for picture in (drawn["pairs"], drawn["correlations"][0][1]):
        assert r"$\frac$" in picture and "in $" in picture


def test_few_validation_rows_are_gone_through_several_times():
    assert [repeats(rows) for rows in (0, 15, 144, 800, 5000)] == [8, 8, 8, 6, 1]
    rows = Rows(np.arange(6.0)[:, None], np.zeros((6, 0)), *map(np.array, ([0, 1], [2, 3, 4], [5])), resident=True)
    # In whole batches: the last one is filled up from the first row on.
    assert rows.validating(10)["base"].ravel().tolist() == [2.0, 3.0, 4.0] * 10
    assert rows.validating(8)["base"].ravel().tolist() == [2.0, 3.0, 4.0] * 8


def test_column_difference():
    assert column_difference(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 1.0
    assert column_difference(np.array([1.0, 2.0, np.nan]), np.array([1.0, 2.0])) == 0.0
    kinds = [np.array(cells, dtype=object) for cells in (["a", "a", "b", None], ["a", "b", "b", "b"])]
    assert column_difference(*kinds) == pytest.approx(0.5)


def test_headline_numbers(evidence):
    numbers = headline(evidence)
    assert next(iter(numbers)) == "verdict"
    assert numbers["held-out, this model"] == "-2.000 ± 0.000 nats per row"
    assert headline(replace(evidence, likelihoods=[], two_sample=None, memorised=None))["round-trip error"]
