"""Odd files, each with its right answer: read as meant with at most one line of notice, or refused in one line."""

import csv
import datetime
import gzip
import io
import json
import re

import numpy as np
import polars as pl
import pytest

from nablax.app._data import _quotes
from nablax.app._data._codec import Codec, fit_codec
from nablax.app._data._plain_text import TextOptions
from nablax.app._data._sources import read, table
from nablax.app._errors import UserError
from nablax.app._kinds._span_text import spans

N = 120
RANDOM = np.random.default_rng(0)
SIZES = [f"{value:.1f}" for value in RANDOM.normal(170, 9, N)]


def column(cells, name="x"):
    """A file of this column beside one of plain numbers."""
    lines = [f"{name},size", *(f"{cell},{size}" for cell, size in zip(cells, SIZES, strict=True))]
    return "\n".join(lines) + "\n"


def semicolons(cells):
    return column([f"{cell};" for cell in cells]).replace(";,", ";").replace("x,size", "x;size")


def some(cells, odd, every=20):
    """Every twentieth cell is an odd one."""
    return [odd if k % every == 7 else cell for k, cell in enumerate(cells)]


def days(form):
    first = datetime.date(2019, 1, 1)
    return [
        (first + datetime.timedelta(days=int(k))).strftime(form) for k in np.random.default_rng(1).integers(0, 900, N)
    ]


def opened(path, content, options=None):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = read(path, text=TextOptions(**(options or {})))
    return source, fit_codec(source)


WHOLE = [str(k) for k in RANDOM.integers(1000, 9999, N)]
REAL = [f"{v:.3f}" for v in RANDOM.normal(size=N)]
THOUSANDS = [f"{int(k):,}" for k in RANDOM.integers(1, 900_000, N)]
REAL_SIZES = [f"{v:.1f}" for v in RANDOM.uniform(1, 90, N)]
LETTERS = ["950", "0", *(f"{k % 90 + 1}.{1 + k % 8}{'k' if k % 4 else 'M'}" for k in range(N - 2))]
MEANT = ["950", "0", *(str((10 * (k % 90 + 1) + 1 + k % 8) * (100 if k % 4 else 100_000)) for k in range(N - 2))]

# name, cells, flags, kind, a value by its cell, a word of the notice (None: nothing is said)
READ = [
    ("decimal comma, quoted", [f'"{c.replace(".", ",")}"' for c in REAL], {}, "number", REAL, "decimal commas"),
    ("thousands", [f'"{c}"' for c in THOUSANDS], {}, "number|grid", [c.replace(",", "") for c in THOUSANDS], "thousands"),
    ("thousands apart", [c.replace(",", " ") for c in THOUSANDS], {}, "number|grid", [c.replace(",", "") for c in THOUSANDS], "thousands"),
    ("dollars", [f'"${c}"' for c in THOUSANDS], {}, "number|grid", [c.replace(",", "") for c in THOUSANDS], "'$'"),
    ("euros after", [f"{c} €" for c in WHOLE], {}, "number|grid", WHOLE, "'€'"),
    ("per cent", [f"{k % 100}%" for k in range(N)], {}, "grid", [str(k % 100) for k in range(N)], "'%'"),
    ("minus in front of a currency", [f"-${c}" for c in WHOLE], {}, "number|grid", [f"-{c}" for c in WHOLE], "'$'"),
    ("the sign for minus", [f"−{c}" for c in WHOLE], {}, "number|grid", [f"-{c}" for c in WHOLE], None),
    ("plus signs", [f"+{c}" for c in WHOLE], {}, "number|grid", WHOLE, None),
    ("plus signs and minus", [f"{k % 97 - 40.5:+}" for k in range(N)], {}, "grid", [str(k % 97 - 40.5) for k in range(N)], None),
    ("minus behind a currency", [f"$-{c}" if k % 2 else f"${c}" for k, c in enumerate(WHOLE)], {}, "number|grid", [("-" if k % 2 else "") + c for k, c in enumerate(WHOLE)], "'$'"),
    ("digits of another script", [c.translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")) for c in (str(k % 40) for k in range(N))], {}, "category", None, None),
    ("wide digits", ["".join(chr(0xFF10 + int(d)) for d in str(k % 40)) for k in range(N)], {}, "category", None, None),
    ("powers of ten", [f"{float(c):.3e}" for c in REAL], {}, "number", [f"{float(c):.3e}" for c in REAL], None),
    ("blanks around", [f" {c} " for c in WHOLE], {}, "number|grid", WHOLE, None),
    ("brackets for minus", [f"({c})" if k % 3 else c for k, c in enumerate(WHOLE)], {}, "number|grid", [f"-{c}" if k % 3 else c for k, c in enumerate(WHOLE)], "brackets for minus"),
    ("brackets around a currency", [f'"(${c})"' if k % 3 else f'"${c}"' for k, c in enumerate(THOUSANDS)], {}, "number|grid", [("-" if k % 3 else "") + c.replace(",", "") for k, c in enumerate(THOUSANDS)], "brackets for minus"),
    ("brackets behind a currency", [f"$ ({c})" if k % 3 else f"$ {c}" for k, c in enumerate(REAL_SIZES)], {}, "number|grid", [f"-{c}" if k % 3 else c for k, c in enumerate(REAL_SIZES)], "brackets for minus"),
    ("a unit", [f"{c} kg" for c in REAL_SIZES], {}, "number|grid", REAL_SIZES, "'kg' beside"),
    ("a unit without a blank", [f"{c}mm" for c in WHOLE], {}, "number|grid", WHOLE, "'mm' beside"),
    ("a unit with a square", [f"{c} m²" for c in WHOLE], {}, "number|grid", WHOLE, "'m²' beside"),
    ("a unit of two", [f"{c} mg/dL" for c in REAL], {}, "number", REAL, "'mg/dL' beside"),
    ("degrees below zero", [f"{c}°C" for c in REAL], {}, "number", REAL, "'°C' beside"),
    ("a unit and decimal commas", [f'"{c.replace(".", ",")} kg"' for c in REAL_SIZES], {}, "number|grid", REAL_SIZES, "decimal commas"),
    ("a unit and thousands", [f'"{c} kWh"' for c in THOUSANDS], {}, "number|grid", [c.replace(",", "") for c in THOUSANDS], "'kWh' beside"),
    ("a unit in front", [f"Rs {c}" for c in WHOLE], {}, "number|grid", WHOLE, "'Rs' beside"),
    ("a unit, some missing", some([f"{c} kg" for c in WHOLE], "-"), {}, "number|grid", some(WHOLE, None), "'kg' beside"),
    ("thousands and millions", LETTERS, {}, "number|grid", MEANT, "'k' and 'M' for powers"),
    ("millions of dollars", [f"${k % 70}.{k % 9}M" for k in range(7, N + 7)], {}, "number|grid", [str((10 * (k % 70) + k % 9) * 100_000) for k in range(7, N + 7)], "'M' for powers"),
    ("letters with decimals that are padded", [f"{k % 37}.{k % 7}0k" for k in range(N)], {}, "number|grid", [str((100 * (k % 37) + 10 * (k % 7)) * 10) for k in range(N)], "'k' for powers"),
    ("a word in front of a number", [f"u{k % 90}" for k in range(N)], {}, "category|identifier", None, "own value"),
    ("codes that end alike", [f"{k % 90:03}x" for k in range(N)], {}, "category|identifier", None, "own value"),
    ("two units", [f"{c} {'kg' if k % 2 else 'g'}" for k, c in enumerate(WHOLE)], {}, "identifier", None, "different words"),
    ("two currencies", [f"{'$€£'[k % 3]}{k % 30}" for k in range(N)], {}, "category", None, "different marks beside them ('$', '£' and '€'): read as words"),
    ("a few of another currency", some([f"${k % 40}" for k in range(N)], "€7"), {}, "category", None, "('$' and '€')"),
    ("a currency by its letters", [f"{'USD' if k % 2 else 'EUR'} {k % 40}" for k in range(N)], {}, "category", None, "('EUR' and 'USD')"),
    ("per cent beside fractions", [f"{k % 40 + 1}%" if k % 2 else f"0.{k % 40 + 10}" for k in range(N)], {}, "category", None, "('%' and none)"),
    ("per cent in a few", some([str(k % 40 + 1) for k in range(N)], "7%"), {}, "category", None, "('%' and none)"),
    ("per cent and a currency", [f"{k % 40}%" if k % 2 else f"${k % 40}" for k in range(N)], {}, "category", None, "('$' and '%')"),
    ("per cent and per mille", [f"{k % 40}{'%' if k % 2 else '‰'}" for k in range(N)], {}, "category", None, "('%' and '‰')"),
    ("a few of another unit", some([f"{c} kg" for c in WHOLE], "500 g"), {}, "identifier", None, "different words"),
    ("comma told", [f'"{1 + k % 9},{100 + k}"' for k in range(N)], {"decimal": "comma"}, "number|grid", [f"{1 + k % 9}.{100 + k}" for k in range(N)], "decimal commas"),
    *(
        (f"missing {word!r}", some(REAL, word), {}, "number", some(REAL, None), said)
        for word, said in (
            *(("None", "None"), ("#N/A", None), ("<NA>", None), ("NAN", "NAN"), ("Null", "Null"), ("-nan", "-nan")),
            *(("-", "'-'"), (".", "'.'"), (" ", None), ("", None), ("NaT", None), ("?", None), ("—", "—")),
        )
    ),
    ("the wrong mark told", REAL, {"decimal": "comma"}, "number", REAL, "decimal points"),
    ("a sentinel told", some(REAL, "-999"), {"missing": "-999"}, "number", some(REAL, None), None),
    ("days with points", days("%d.%m.%Y"), {}, "time", days("%Y-%m-%d"), "day-first"),
    ("months first", days("%m/%d/%Y"), {}, "time", days("%Y-%m-%d"), "month-first"),
    ("days with slashes", days("%d/%m/%Y"), {}, "time", days("%Y-%m-%d"), "day-first"),
    ("bare days", days("%-d.%-m.%Y"), {}, "time", days("%Y-%m-%d"), "day-first"),
    ("short years", days("%d.%m.%y"), {}, "time", days("%Y-%m-%d"), "day-first"),
    ("YYYYMMDD", days("%Y%m%d"), {}, "time", days("%Y-%m-%d"), "%Y%m%d"),
    ("months in words", days("%d %b %Y"), {}, "time", days("%Y-%m-%d"), "%b"),
    ("months in words, short years", days("%-d-%b-%y"), {}, "time", days("%Y-%m-%d"), "%b"),
    ("months", days("%Y-%m"), {}, "time", days("%Y-%m-01"), "%Y-%m"),
    ("seasons", [f"20{k % 9:02}-{k % 9 + 1:02}" for k in range(N)], {}, "category", None, "spans of two years, such as 2000-01"),
    ("a comma before the fraction", [f'"2021-03-01 10:{k % 60:02}:07,{k * 7 % 1000:03}"' for k in range(N)], {}, "time", None, None),
    ("a comma before some fractions", [f'"10:{k % 60:02}:07,{k % 10}"' if k % 2 else f"10:{k % 60:02}:08" for k in range(N)], {}, "time", None, None),
    ("NaT among dates", some(days("%Y-%m-%d"), "NaT"), {}, "time", some(days("%Y-%m-%d"), None), None),
    ("moments", [f"{d} 15:53:19" for d in days("%Y-%m-%d")], {}, "time", None, None),
    ("moments in UTC", [f"{d}T15:53:19Z" for d in days("%Y-%m-%d")], {}, "time", None, None),
    ("moments with an offset", [f"{d}T15:53:19+02:00" for d in days("%Y-%m-%d")], {}, "time", None, "in UTC"),
    ("fractions of a second, some whole", [f"2021-03-01 10:00:{k % 60:02}{'.5' if k % 2 else ''}" for k in range(N)], {}, "time", None, None),
    ("tenths of a second", [f"10:{k % 60:02}:07.{k % 10}" for k in range(N)], {}, "time", None, None),
    ("hundredths, zeros cut off", [f"10:{k % 60:02}:07" + (f".{k % 7}{k % 3}".rstrip("0").rstrip(".")) for k in range(N)], {}, "time", None, None),
    ("times of day", [f"{k % 24:02}:{k % 60:02}" for k in range(N)], {}, "time", None, None),
    ("hours beyond a day", [f"{k % 70}:{k % 60:02}:{7 * k % 60:02}" for k in range(N)], {}, "duration", None, "durations, such as 0:00:00"),
    ("durations as pandas writes them", [f"{k % 4 - 1} days {'+' if k % 4 < 1 else ''}{k % 24:02}:{k % 60:02}:00" for k in range(N)], {}, "duration", None, "durations, such as -1 days +00:00:00"),
    ("durations as Python writes them", [f'"{datetime.timedelta(hours=k % 70 - 9, seconds=k % 60)}"' for k in range(N)], {}, "duration", None, "durations, such as -1 day, 15:00:00"),
    ("durations, some missing", some([f"{20 + k % 30}:00:0{k % 10}.{k % 3}5" for k in range(N)], "-"), {}, "duration", None, "durations"),
    ("scores", [f"{20 + k % 30}:{20 + 7 * k % 30}" for k in range(N)], {}, "category", None, "hours and minutes, or scores, such as 20:20: read as words (--kind x=duration for the other)"),
    ("day or month told", [f"{1 + k % 12}/{1 + k % 7}/2020" for k in range(N)], {"dates": "day-first"}, "time", [f"2020-{1 + k % 7:02}-{1 + k % 12:02}" for k in range(N)], "day-first"),
    ("truth", ["True" if k % 3 else "False" for k in range(N)], {}, "category", None, None),
    ("codes with zeros", [f"{k % 20:05}" for k in range(N)], {}, "category", None, "leading zeros"),
    ("a category with a blank", [" Male" if k % 2 else "Female" for k in range(N)], {}, "category", None, None),
    ("words that look missing", ["None" if k % 2 else "-" for k in range(N)], {}, "category", None, None),
    ("Namibia", [("NA", "DE", "FR", "ZA", "US", "CH")[k % 6] for k in range(N)], {}, "category", None, "'NA' is one"),
    ("ids", [str(k + 1) for k in range(N)], {}, "identifier", None, "counts the rows"),
    ("ids in disorder", [str(k) for k in RANDOM.permutation(N)], {}, "identifier", None, "counts the rows"),
    ("names", [f"u{k}" for k in range(N)], {}, "identifier", None, "own value"),
    ("numbers past 2^53", [str(2**60 + k * 7) for k in range(N)], {}, "identifier", None, "18 digits"),
    ("numbers past 10^16", [str(10**17 + k * 7) for k in range(N)], {}, "identifier", None, "larger than floats"),
    ("a constant", ["02"] * N, {}, "constant", None, "the same in each row (02)"),
    ("nothing", [""] * N, {}, "constant", None, "empty in each row"),
    ("zeros and ones", [str(k % 2) for k in range(N)], {}, "category", None, None),
    ("tiny numbers", [f"{1 + k}e-200" for k in range(N)], {}, "number", None, None),
    ("numbers of all that a float holds", [f"{(-1) ** k * (1 + k % 16) * 1e307:.1e}" for k in range(N)], {}, "number", None, None),
    ("huge numbers", [f"{1 + k}e150" for k in range(N)], {}, "number", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("cells", "flags", "word", "means", "said"), [r[1:] for r in READ], ids=[r[0] for r in READ])
def test_a_column_is_read_as_it_is_meant(tmp_path, cells, flags, word, means, said):
    source, codec = opened(tmp_path / "a.csv", column(cells), flags)
    kind = codec.column("x")
    assert kind.word in word.split("|"), kind
    notices = [line for line in (*source.notices, *codec.notices) if "'x'" in line]
    assert len(notices) == (said is not None) + (kind.reason != "" and said in ("18 digits", "different words")), (
        notices
    )
    assert said is None or said in notices[0]
    # The cells are kept as they stand in the file.
    bare = [cell.strip('"') if cell.startswith('"') else cell for cell in cells]
    assert source.frame["x"].fill_null("").to_list() == bare
    if means is not None:
        parsed, lost = kind.parse(source.frame["x"])
        assert not lost.any()
        wanted = pl.Series(means)
        wanted = wanted.str.to_date() if parsed.dtype == pl.Date else wanted.cast(pl.Float64)
        assert parsed.cast(wanted.dtype).equals(wanted)
    assert Codec.from_json(codec.to_json()) == codec
    json.loads(codec.to_json())
    base, _ = codec.encode(source.frame)
    assert not codec.impossible(base).any() and np.isfinite(base[..., 0]).all()
    if kind.modelled:
        _spelled_again(codec, kind, source.frame)


def _spelled_again(codec, kind, frame):
    """What is decoded is spelled as the cells were, but for numbers off a grid, whose last digits are drawn."""
    base, _ = codec.encode(frame)
    state, value = base[..., 0].astype(int), base[..., 1].astype(float)
    j = codec.modelled.index(kind)
    if kind.valued and kind.scale.grid:
        value[:, j] = kind.scale.to_coordinate(kind.scale.from_index(value[:, j]))
    back = codec.spell(codec.decode_cells(state, np.nan_to_num(value)))["x"]
    missing = kind.spelling.absent(frame["x"])
    assert (back.is_null().to_numpy() == missing).all()
    for cell, again in zip(frame["x"].filter(~pl.Series(missing)), back.filter(~pl.Series(missing)), strict=True):
        if kind.word in ("number", "grid") and cell != cell.strip():
            assert float(again) == pytest.approx(float(cell.replace("−", "-")), rel=1e-5)
        elif kind.word in ("number", "grid") and "e" in cell:
            assert float(again) == float(cell)  # 12e3 may come back as 1.2e4
        elif "+02" in cell:
            assert datetime.datetime.fromisoformat(again) == datetime.datetime.fromisoformat(cell)
        else:
            assert again == cell


# name, content, flags, words of the one line
REFUSED = [
    ("a stray word", column([*WHOLE[:-1], "x"]), {}, "line 121 has 'x'"),
    ("a stray word, told where", column([*REAL[:50], "x", *REAL[51:]]), {}, "1 of 120 cells: line 52 has 'x'"),
    ("a stray number among dates", column(some(days("%Y-%m-%d"), "12")), {}, "dates or times but for 6 of 120 cells: line 9"),
    ("a stray word among durations", column(some([f"{k % 70}:00:07" for k in range(N)], "long")), {}, "durations but for 6 of 120 cells: line 9 has 'long'"),
    ("a date that is none", column(some(days("%Y-%m-%d"), "2020-02-31", 60)), {}, "2020-02-31"),
    ("day or month", column([f"{1 + k % 12}/{1 + k % 7}/2020" for k in range(N)]), {}, "--dates day-first"),
    ("a flag that has no such value", column(REAL), {"decimal": ";"}, "--decimal should be point or comma"),
    ("an order that is none", column(REAL), {"dates": "sideways"}, "--dates should be day-first, month-first"),
    ("an infinite cell", column([*REAL[:-1], "inf"]), {}, "inf"),
    ("a huge sentinel", column([*REAL[:-1], "1.7976931348623157e308"]), {}, "beside which its other numbers cannot be told apart"),
    ("one column too few", column(REAL) + "1\n", {}, "line 122 has 1 cell, the first line has 2"),
    ("one column too many", column(REAL) + "1,2,3\n", {}, "line 122 has 3 cells, the first line has 2"),
    ("no columns that can be learnt", "a,b\n" + "1,2\n" * 30, {}, "no column remains to be modelled"),
    ("a codec of bytes", column(REAL), {"encoding": "base64"}, "--encoding 'base64' is not known"),
    ("letters turned", column(REAL), {"encoding": "rot13"}, "--encoding 'rot13' is not known"),
    ("an unknown encoding", column(REAL), {"encoding": "klingon"}, "--encoding 'klingon' is not known"),
    ("another encoding", column(["é"] * N).encode("latin-1"), {}, "not UTF-8; save it as UTF-8, or name its --encoding"),
    ("a wrong encoding", column(["é"] * N).encode("latin-1"), {"encoding": "ascii"}, "the text is not ascii"),
    ("a cut gzip", gzip.compress(column(REAL).encode())[:-30], {}, "cannot be unpacked by gzip"),
    ("Parquet named csv", b"PAR1" + bytes(100), {}, "the file is Parquet; name it .parquet"),
    ("a zip", b"PK\x03\x04" + bytes(100), {}, "packed by zip"),
    ("two names alike", "a,a\n" + "1,2\n" * 30, {}, "the column name 'a' occurs more than once"),
    ("an empty file", "", {}, "the file is empty"),
    ("a unit but for some", column(some([f"{c} kg" for c in WHOLE], "heavy")), {}, "numbers but for 6 of 120 cells: line 9 has 'heavy'"),
    ("a byte of nothing", column([*REAL[:-1], "\0"]), {}, "line 121 holds a NUL byte"),
    ("UTF-16 that does not say so", column(REAL).encode("utf-16-le"), {}, "--encoding utf-16-le"),
    ("a separator told and nothing else", "sep=;\n", {}, "the file is empty"),
    ("a stray word below a separator told", "sep=,\n" + column([*WHOLE[:-1], "x"]), {}, "line 122 has 'x'"),
    ("one cell too few below a separator told", "sep=,\n" + column(REAL) + "1\n", {}, "line 123 has 1 cell"),
    ("a header", "a,b\n", {}, "a header and no rows"),
    ("quotes with backslashes", column([*REAL[:-2], '"say \\"hi"', REAL[0]]), {}, 'line 120 has a cell in quotes with a quote inside that is not doubled'),
    ("a quote that is not doubled", column(some(REAL, '"a"b"')), {}, 'line 9 has a cell in quotes'),
    ("letters behind a quote", "sep=,\n" + column(some(REAL, '"a"b')), {}, 'line 10 has a cell in quotes'),
    ("a quote in a quoted name", column(REAL, '"a"b'), {}, 'line 1 has a cell in quotes'),
    ("a quote that never ends", column([*REAL[:-3], '"a', *REAL[:2]]), {}, 'lines 119 to 121 have a cell in quotes'),
    ("a blank behind quotes", column(some(REAL, '"a" ')), {}, 'line 9 has a blank behind the last quote of a cell'),
    ("a blank behind the quotes of names", '"x" ,"size" \n' + "\n".join(f"{v},{w}" for v, w in zip(REAL, SIZES)), {}, 'line 1 has a blank behind'),
    ("JSON lines", "".join(f'{{"x": {v}, "size": {w}}}\n' for v, w in zip(REAL, SIZES)), {}, "the file is JSON"),
    ("JSON", json.dumps([{"x": v, "size": w} for v, w in zip(REAL, SIZES)]), {}, "the file is JSON"),
    ("JSON with line feeds", json.dumps({"x": REAL, "size": SIZES}, indent=1), {}, "the file is JSON"),
    ("blanks between cells", "age sex\n" + "".join(f"{k % 80} {'mf'[k % 2]}\n" for k in range(N)), {}, "blanks seem to part its cells"),
    ("blanks that align cells", "  x    size\n" + "".join(f"{v:>8} {w:>8}\n" for v, w in zip(REAL, SIZES)), {}, "blanks seem to part its cells"),
    ("blanks and numbered rows, as of R", '"x" "size"\n' + "".join(f'"{k}" {v} {w}\n' for k, (v, w) in enumerate(zip(REAL, SIZES))), {}, "blanks seem to part its cells"),
    ("a quote that ends in another row", column(some(REAL, '"a')), {}, 'lines 9 to 29 have a cell in quotes'),
]  # fmt: skip


@pytest.mark.parametrize(("content", "flags", "words"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, content, flags, words):
    with pytest.raises(UserError) as caught:
        opened(tmp_path / "a.csv", content, flags)
    assert words in str(caught.value) and "\n" not in str(caught.value)


PLAIN = column(REAL)
# name, file name, content, flags, columns
SHAPES = [
    ("gzip", "a.csv.gz", gzip.compress(PLAIN.encode()), {}, ["x", "size"]),
    ("gzip named csv", "a.csv", gzip.compress(PLAIN.encode()), {}, ["x", "size"]),
    ("carriage returns", "a.csv", PLAIN.replace("\n", "\r"), {}, ["x", "size"]),
    ("both line ends", "a.csv", PLAIN.replace("\n", "\r\n"), {}, ["x", "size"]),
    ("no last line end", "a.csv", PLAIN.rstrip("\n"), {}, ["x", "size"]),
    ("byte order mark", "a.csv", b"\xef\xbb\xbf" + PLAIN.encode(), {}, ["x", "size"]),
    ("utf-16", "a.csv", PLAIN.encode("utf-16"), {}, ["x", "size"]),
    ("utf-32", "a.csv", PLAIN.encode("utf-32"), {}, ["x", "size"]),
    ("latin-1", "a.csv", PLAIN.replace("size", "größe").encode("latin-1"), {"encoding": "latin-1"}, ["x", "größe"]),
    ("semicolons", "a.csv", PLAIN.replace(",", ";"), {}, ["x", "size"]),
    ("a separator told", "a.csv", "sep=;\n" + PLAIN.replace(",", ";"), {}, ["x", "size"]),
    ("a separator told, as Excel saves", "a.csv", b"\xef\xbb\xbf" + ("sep=;\n" + PLAIN.replace(",", ";")).replace("\n", "\r\n").encode(), {}, ["x", "size"]),
    ("a separator told, that of commas in cells", "a.csv", "sep=;\n" + PLAIN.replace(",", ";").replace(".", ",").replace("x;size", "x,y;size"), {}, ["x,y", "size"]),
    ("utf-16 told", "a.csv", PLAIN.encode("utf-16-le"), {"encoding": "utf-16-le"}, ["x", "size"]),
    ("semicolons and decimal commas", "a.csv", PLAIN.replace(",", ";").replace(".", ","), {}, ["x", "size"]),
    ("a separator in a quoted name", "a.csv", PLAIN.replace("x,size", '"x;y;z",size'), {}, ["x;y;z", "size"]),
    ("a line end in a quoted name", "a.csv", PLAIN.replace("x,size", '"x\ny",size'), {}, ["x\ny", "size"]),
    ("the index of pandas", "a.csv", "".join(f"{'' if k == 0 else k - 1},{line}\n" for k, line in enumerate(PLAIN.splitlines())), {}, ["unnamed", "x", "size"]),
    ("two without a name", "a.csv", PLAIN.replace("x,size", ",").replace("\n", ",1\n"), {}, ["unnamed_1", "unnamed_2", "1"]),
    ("years as names", "a.csv", PLAIN.replace("x,size", "2019,2020"), {}, ["2019", "2020"]),
    ("years as a row", "a.csv", PLAIN.replace("x,size", "2019,2020"), {"header": False}, ["x0", "x1"]),
    ("no names", "a.csv", PLAIN.split("\n", 1)[1], {}, ["x0", "x1"]),
    ("numbers for names, told", "a.csv", PLAIN.replace("x,size", "0.5,7"), {"header": True}, ["0.5", "7"]),
    ("odd names", "a.csv", PLAIN.replace("x,size", 'k=1," k "'), {}, ["k=1", " k "]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "flags", "columns"), [s[1:] for s in SHAPES], ids=[s[0] for s in SHAPES])
def test_a_file_is_opened_however_it_was_saved(tmp_path, name, content, flags, columns):
    source, codec = opened(tmp_path / name, content, flags)
    assert list(source.columns) == columns and source.name == "a"
    assert source.rows == N + (flags.get("header") is False)
    assert [kind.word for kind in codec.columns][1] in ("grid", "number")
    assert len(source.notices) <= max(1, sum("unnamed" in name for name in columns))
    if columns[0] == "unnamed":
        assert "column 1 has no name" in source.notices[0] and codec.column("unnamed").word == "identifier"


@pytest.mark.parametrize("form", ['{}" pipe', 'say \\"hi {}', '{}"', '\\"{}', ' "x" {}', '{}""'])
@pytest.mark.parametrize("every", [1, 2, N // 2])
def test_a_quote_within_a_cell_is_a_letter_and_no_row_is_lost(tmp_path, form, every):
    """As Python's own reader has it, whatever stands around."""
    lines = [f'{k}"s,{form.format(k) if k % every == 0 else k},"c, ""{k}\n"' for k in range(N)]
    text = 'a"s,note"s,c\n' + "\n".join(lines) + "\n"
    (tmp_path / "a.csv").write_text(text)
    names, *rows = csv.reader(io.StringIO(text, newline=""))
    source = read(tmp_path / "a.csv")
    assert list(source.columns) == names and source.frame.rows() == [tuple(row) for row in rows]
    assert source.place(5) == "line 13" and len(rows) == N


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
def test_quotes_are_looked_at_across_the_parts_of_a_file(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(_quotes, "_CHUNK", chunk)
    path = tmp_path / "a.csv"
    for text, plain in [
        ('\ufeff"a","b""c"\r\n"",","\r\n"""x""",1\n', True),
        ("a,b\n1,2\n", True),
        ('a,b\n1,2"', False),
        ('a,b\n"1"2,3\n', False),
        ('a,b\n1,"2\n', False),
        ('a;b\n"1";"2"', False),
    ]:
        path.write_bytes(text.encode())
        assert _quotes._is_plain(path, ord(",")) is plain, text


def test_marks_that_some_cells_lack_and_marks_that_differ(tmp_path):
    for cells, meant in (
        (some([f"{k % 40 + 1}%" for k in range(N)], "0"), some([k % 40 + 1 for k in range(N)], 0)),
        (some([f"${c}" for c in WHOLE], "1234"), some([int(c) for c in WHOLE], 1234)),
    ):
        source, codec = opened(tmp_path / "a.csv", column(cells))
        assert codec.column("x").parse(source.frame["x"])[0].to_list() == meant
        # Nor is a cell of another table one number with them.
        new = pl.Series("x", ["7", cells[1].replace("1", "2"), "€7", "$7", "7%"])
        own = "%" if "%" in cells[1] else "$"
        assert codec.column("x").parse(new)[1].tolist() == [False, False, True, own != "$", own != "%"]
    source, _ = opened(tmp_path / "a.csv", column([f"{'$€'[k % 2]}{c}" for k, c in enumerate(WHOLE)]))
    with pytest.raises(UserError, match=r"different marks beside them \('\$' and '€'\), which is no number"):
        fit_codec(source, kinds={"x": "number"})


def test_a_drawn_day_is_written_as_the_month_that_begins_nearest(tmp_path):
    _, codec = opened(tmp_path / "a.csv", column(days("%Y-%m")))
    drawn = pl.Series([datetime.date(2020, 1, 1), datetime.date(2020, 1, 12), datetime.date(2020, 1, 28)])
    assert codec.column("x").spell(drawn).to_list() == ["2020-01", "2020-01", "2020-02"]


def test_zstandard(tmp_path):
    plain, packed = tmp_path / "a.csv", tmp_path / "a.csv.zst"
    plain.write_text(column(REAL) + '"1,5",2\n')
    pl.scan_csv(plain, has_header=False, separator="\x1f", quote_char=None, infer_schema=False).sink_csv(
        packed, include_header=False, separator="\x1f", quote_style="never", compression="zstd"
    )
    assert packed.read_bytes()[:4] == b"\x28\xb5\x2f\xfd"
    assert read(packed).frame.equals(read(plain).frame)


def test_standard_input(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text(PLAIN)
    with (tmp_path / "a.csv").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert read("-").frame.equals(read(tmp_path / "a.csv").frame)


NAMES = ["image", "label", "condition", "row", "outlier_rank", "log_likelihood_nats", "x_spread", "missing", "inf"]


def test_no_name_of_a_column_has_a_meaning(tmp_path):
    rows = RANDOM.normal(size=(N, len(NAMES)))
    lines = [",".join(NAMES), *(",".join(f"{v:.4f}" for v in row) for row in rows)]
    source, codec = opened(tmp_path / "a.csv", "\n".join(lines) + "\n")
    assert source.kind == "table" and [kind.name for kind in codec.modelled] == NAMES
    assert not source.notices and not codec.notices


def test_a_duration_is_measured_in_days(tmp_path):
    spans = [datetime.timedelta(minutes=int(15 * k)) for k in RANDOM.integers(1, 400, N)]
    frame = pl.DataFrame({"took": pl.Series(spans, dtype=pl.Duration("us")), "size": RANDOM.normal(size=N)})
    frame.write_parquet(tmp_path / "a.parquet")
    source = read(tmp_path / "a.parquet")
    codec = fit_codec(source)
    kind = codec.column("took")
    assert kind.word == "duration" and kind.scale.step == pytest.approx(15 / 1440)
    state, value = np.moveaxis(codec.encode(frame)[0], 2, 0).astype(float)
    value[:, 0] = kind.scale.to_coordinate(kind.scale.from_index(value[:, 0]))
    assert codec.decode_cells(state.astype(int), value)["took"].equals(frame["took"])
    assert Codec.from_json(codec.to_json()) == codec


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("body weight", [f"{k % 40 + 50} kg" for k in range(N)]),
        ("home town", [f"{['New', 'Old'][k % 2]} {['York', 'Ham', 'Town'][k % 3]}" for k in range(N)]),
        ("started at", [f"{day} 10:00" for day in days("%Y-%m-%d")]),
    ],
)
def test_one_column_of_two_words_is_one(tmp_path, name, cells):
    source, codec = opened(tmp_path / "a.csv", "\n".join([name, *cells]) + "\n")
    assert source.columns == (name,) and len(codec.modelled) == 1


@pytest.mark.parametrize(
    ("written", "hours"),
    [
        (["36:15:00", "0:30:00", "-2:00:00"], [36.25, 0.5, -2]),
        (["2 days 01:30:00", "0 days 00:00:36", "-1 days +23:00:00"], [49.5, 0.01, -1]),
        (["1 day, 1:00:00", "0:00:36", "-1 day, 23:00:00", "3 days, 0:00:00"], [25, 0.01, -1, 72]),
        (["30:00:01.8", "01:00:00.72", "00:00:00"], [30.0005, 1.0002, 0]),
    ],
)
def test_text_of_durations_is_read_and_comes_back(tmp_path, written, hours):
    cells = [written[k % len(written)] for k in range(N)]
    source, codec = opened(tmp_path / "a.csv", column([f'"{cell}"' for cell in cells]))
    frame, kind = source.frame, codec.column("x")
    assert kind.word == "duration" and kind.measured_in == "day"
    typed = kind.parse(frame["x"])[0]
    assert (typed.dt.total_microseconds() / 3.6e9).to_list()[: len(hours)] == pytest.approx(hours, abs=1e-9)
    assert kind.spell(typed).to_list() == cells
    state, value = kind.encode(typed)
    assert kind.spell(kind.decode(state, kind.standard(value))).to_list() == cells


def test_hours_and_minutes_are_a_duration_where_asked_and_nothing_else_is(tmp_path):
    cells = [f"{20 + k % 30}:{20 + 7 * k % 30}" for k in range(N)]
    source, _ = opened(tmp_path / "a.csv", column(cells))
    kind = fit_codec(source, kinds={"x": "duration"}).column("x")
    assert kind.word == "duration" and kind.value_of(cells[1]) == pytest.approx((21 + 27 / 60) / 24)
    source, _ = opened(tmp_path / "b.csv", column([f"{cell}:00" for cell in cells]))
    with pytest.raises(UserError, match="column 'x' holds durations, which are no number"):
        fit_codec(source, kinds={"x": "number"})
    source, _ = opened(tmp_path / "c.csv", column(days("%Y-%m-%d")))
    with pytest.raises(UserError, match="column 'x' holds dates or times, which are no duration"):
        fit_codec(source, kinds={"x": "duration"})


def test_durations_of_more_than_a_counter_holds_are_none():
    cells = pl.Series(["9999999:59:59", "99999999:00:00", "999999 days", "1000000 days"])
    assert spans(cells).is_null().to_list() == [False, True, False, True]


def test_identifiers_are_numbered_on_and_constants_repeated(tmp_path):
    lines = ["id,always,code,x", *(f"{k + 1},0.50,u{k},{v}" for k, v in enumerate(REAL))]
    _, codec = opened(tmp_path / "a.csv", "\n".join(lines) + "\n")
    drawn = codec.spell(codec.decode(np.zeros((3, codec.dim))))
    assert drawn["id"].to_list() == ["121", "122", "123"]
    assert drawn["always"].to_list() == ["0.50"] * 3 and drawn["code"].to_list() == [None] * 3
    assert dict(codec.dropped).keys() == {"id", "always", "code"}
    assert [kind.name for kind in codec.modelled] == ["x"]


def test_samples_have_the_columns_own_decimals(tmp_path):
    prices = [f"{v:.2f}" for v in np.exp(RANDOM.normal(3, 2, N))]
    _, codec = opened(tmp_path / "a.csv", column(prices))
    drawn = codec.spell(codec.decode(RANDOM.normal(size=(500, codec.dim))))
    assert drawn["x"].str.contains(r"^\d+\.\d{2}$").all() and drawn["size"].str.contains(r"^\d+\.\d$").all()
    # The same of cells that came typed.
    frame = pl.DataFrame({"x": [float(p) for p in prices], "size": [float(s) for s in SIZES]})
    frame.write_parquet(tmp_path / "a.parquet")
    codec = fit_codec(read(tmp_path / "a.parquet"))
    drawn = codec.decode(RANDOM.normal(size=(500, codec.dim)))
    assert drawn["x"].cast(pl.String).str.contains(r"^\d+\.\d{1,2}$").all()


def test_a_score_of_text_reads_the_cells_that_the_model_was_not_learnt_from(tmp_path):
    _, codec = opened(tmp_path / "a.csv", column(some(REAL, "NA")))
    other = pl.DataFrame({"x": [" 0.5", "None", "x", "1e300", "0.25"], "size": ["170", "171", "172", "173", None]})
    base, _ = codec.encode(other)
    np.testing.assert_array_equal(codec.impossible(base), [False, False, True, True, True])
    assert base[1, 0, 0] == codec.column("x").states - 1


def test_words_that_came_typed_are_all_meant(tmp_path):
    words = [("NA", "-", "None", "", "x")[k % 5] for k in range(N)]
    frame = pl.DataFrame({"x": some(words, None), "size": RANDOM.normal(size=N)})
    frame.write_parquet(tmp_path / "a.parquet")
    codec = fit_codec(read(tmp_path / "a.parquet"))
    kind = codec.column("x")
    assert kind.categories == ("", "-", "NA", "None", "x") and kind.missing
    base, _ = codec.encode(frame)
    assert (base[:, 0, 0] == kind.states - 1).sum() == frame["x"].null_count()


def test_dates_that_came_as_numbers_are_said(tmp_path):
    frame = pl.DataFrame({"day": [int(day) for day in days("%Y%m%d")], "size": RANDOM.normal(size=N)})
    frame.write_parquet(tmp_path / "a.parquet")
    (line,) = fit_codec(read(tmp_path / "a.parquet")).notices
    assert "'day' looks like dates written YYYYMMDD" in line
    other = frame.with_columns(day=pl.col("day") // 100 * 100 + 77)
    assert fit_codec(table(other)).notices == ()


@pytest.mark.parametrize(
    "form",
    ["{:.3e}", "{:.2E}", "{:.0e}", "{:.4g}", "short", "bare", "comma"],
)
def test_numbers_with_powers_of_ten_are_written_in_the_columns_own_way(tmp_path, form):
    numbers = np.random.default_rng(5).lognormal(sigma=7, size=N)
    if form == "short":  # no sign and no zero before the exponent, no zero behind the number
        cells = [re.sub(r"\.?0*e\+?(-?)0*(\d)", r"e\1\2", f"{v:.3e}") for v in numbers]
    elif form == "bare":
        cells = [f"{v:.0e}".replace("e+0", "e").replace("e-0", "e-") for v in numbers]
    elif form == "comma":
        cells = [f"{v:.2e}".replace(".", ",") for v in numbers]
    else:
        cells = [form.format(v) for v in numbers]
    _, codec = opened(tmp_path / "a.csv", column([f'"{c}"' if "," in c else c for c in cells]), {})
    kind = codec.column("x")
    parsed, lost = kind.parse(pl.Series("x", cells))
    assert not lost.any()
    # As the model knows them: in single precision of the column's own unit, so that a last digit would show.
    near = parsed * (1.0 + 3e-8)
    assert kind.spelling.write(near).to_list() == cells
