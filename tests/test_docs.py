"""The site: what its pages are made of. The site itself is built by `make docs`, which fails on any warning."""

import inspect
import re
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))
from _hooks import papers, reference  # noqa: E402
from _hooks.docstrings import Docstrings, to_markdown  # noqa: E402
from _hooks.formulas import draw_formulas, to_mathml  # noqa: E402
from _hooks.rooms import address, chambers, public, rooms  # noqa: E402
from _hooks.tables import label_cells  # noqa: E402

sys.path.pop(0)

RAW = re.compile(r":(?:math|func|class|meth|mod|attr|data|obj):`|\.\. math::")


def converted(text):
    known = {"upgrad": "nablax.regulate.upgrad", "nablax.follow.flow": "nablax.follow.flow"}
    return to_markdown(inspect.cleandoc(text), known.get)


def test_inline_formulas_are_delimited_even_when_broken_over_lines():
    assert converted("$p(x|y)$, and ``$HOME``, ``$x``") == "\\(p(x|y)\\), and ``$HOME``, ``$x``"
    assert converted("of :math:`JJ^{\\top}`, and :math:`a +\n    b` too") == "of \\(JJ^{\\top}\\), and \\(a +\nb\\) too"


@pytest.mark.parametrize(
    "block",
    [".. math::\n    a = b,\n    c = d", ".. math:: a = b,\n    c = d"],
    ids=["below the directive", "on its line"],
)
def test_displayed_formulas_keep_their_lines_and_the_text_around_them(block):
    lines = converted(f"Before:\n\n{block}\n\nAfter.").split("\n")
    start = lines.index("$$")
    assert lines[start : start + 4] == ["$$", "a = b,", "c = d", "$$"]
    assert lines[0] == "Before:" and lines[-1] == "After."
    assert lines[start - 1] == "" and lines[start + 4] == ""


def test_two_formulas_in_a_row_stay_two():
    text = converted(".. math::\n    a\n\n.. math::\n    b\n\nEnd.")
    assert text.count("$$") == 4 and text.index("a") < text.index("b") < text.index("End.")


def test_a_formula_of_an_indented_section_keeps_the_margin():
    text = converted("One.\n\nArgs:\n    x: so that\n        .. math:: a = b\n        holds")
    assert "\n        $$\n        a = b\n        $$\n" in text
    assert text.endswith("        holds")


def test_roles_and_names_become_references_and_other_text_stays():
    assert converted(":func:`nablax.follow.flow` and `upgrad`") == (
        "[`nablax.follow.flow`][nablax.follow.flow] and [`upgrad`][nablax.regulate.upgrad]"
    )
    assert converted("``upgrad`` and `other` and :class:`Other`") == "``upgrad`` and `other` and `Other`"
    assert converted("[`upgrad`][nablax.regulate.upgrad]") == "[`upgrad`][nablax.regulate.upgrad]"


def test_examples_are_a_section_and_stay_as_they_are():
    text = converted(
        "One.\n\nExample:\n    >>> f('`upgrad`')  # :math:`x`\n    1\n\n    >>> g()\n\nCost:\n    `upgrad`."
    )
    head, _, rest = text.partition("Examples: Example\n")
    assert head == "One.\n\n"
    code, _, cost = rest.partition("**Cost:**")
    assert code == "    >>> f('`upgrad`')  # :math:`x`\n    1\n\n    >>> g()\n\n"
    assert cost == "\n\n[`upgrad`][nablax.regulate.upgrad]."


def test_sections_of_the_house_lose_their_margin_and_end_where_they_end():
    text = converted("Cost: two passes.\n\nReferences:\n    - One, 2020,\n      (here)\n    - Two\n\nThe end.")
    assert text == "**Cost:**\n\ntwo passes.\n\n**References:**\n\n- One, 2020,\n  (here)\n- Two\n\nThe end."


def test_cells_of_wide_tables_bear_the_headings_of_their_columns():
    heads = ["", "<code>a</code>", 'the "size" &amp; more', "d"]
    head = "".join(f'<th style="text-align: left;">{text}</th>' for text in heads)
    row = "".join(f"<td>{number}</td>" for number in range(4))
    page = f"<p>x</p><table>\n<tr>{head}</tr>\n<tr>{row}</tr>\n<tr>{row}</tr></table>"
    labels = re.findall(r'<td data-head="(.*?)">(\d)</td>', label_cells(page))
    assert labels == 2 * [("", "0"), ("a", "1"), ("the &quot;size&quot; &amp; more", "2"), ("d", "3")]
    narrow = "<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>"
    assert label_cells(narrow) == narrow


def test_formulas_become_elements_that_browsers_draw():
    page = '<p>if <span class="arithmatex">\\(a &lt; \\lVert b\\rVert\\)</span></p>'
    drawn = draw_formulas(page)
    assert "arithmatex" not in drawn and drawn.startswith("<p>if <math") and drawn.endswith("</math></p>")
    assert re.sub("<.*?>", "", drawn) == "if a&lt;‖b‖"
    display = draw_formulas('<div class="arithmatex">\\[a = \\frac{b \\qquad c}{d},\\qquad e\\]</div>')
    assert display.count("<math") == 2  # broken at the wide space that is in no braces


def test_limits_stand_below_operators_where_there_is_room():
    assert "munder" in to_mathml(r"\arg\min_x f", display=True) and "arg\u2009min" in to_mathml(
        r"\arg\min_x", display=True
    )
    assert "munder" not in to_mathml(r"\min_x f", display=False)
    assert "munder" not in to_mathml(r"\lambda_x", display=True)


@pytest.mark.parametrize(
    "latex, shown", [(r"\mathbf 1", "𝟏"), (r"\mathcal M", "ℳ"), (r"\mathcal{N}", "𝒩"), (r"\mathbb E", "𝔼")]
)
def test_faces_of_letters_are_characters_of_their_own(latex, shown):
    assert re.sub("<.*?>", "", to_mathml(latex, display=False)) == shown
    assert re.sub("<.*?>", "", to_mathml(rf"\theta_{{S}} + s\,{latex}x", display=True)).endswith(shown + "x")


def test_a_formula_that_would_be_shown_as_it_is_spelled_is_refused():
    with pytest.raises(ValueError, match=r"\\nosuchcommand"):
        to_mathml(r"a \nosuchcommand b", display=False)


@pytest.fixture(scope="module")
def package():
    import griffe

    extensions = griffe.load_extensions(Docstrings())
    return griffe.load("nablax", search_paths=[ROOT / "src"], extensions=extensions)


def entries():
    return [entry for room in rooms() for entry in public(room)]


def shown(package):
    """Every docstring that the reference shows: of the public names and of their public methods."""
    for entry in entries():
        found = package[entry.address.removeprefix("nablax.")]
        found = found.final_target if found.is_alias else found
        yield entry.address, found
        for name, member in found.members.items():
            if not name.startswith("_") and not member.is_alias and found.is_class:
                yield f"{entry.address}.{name}", member


def test_no_markup_of_another_language_is_left(package):
    texts = {name: item.docstring.value for name, item in shown(package) if item.docstring is not None}
    assert len(texts) >= len(entries())
    assert not [
        name for name, text in texts.items() if re.search(r"^(Example|Cost|References):", text, flags=re.MULTILINE)
    ]
    texts |= reference.pages() | papers.pages()
    assert not [name for name, text in texts.items() if RAW.search(text)]


def test_every_formula_of_the_reference_can_be_drawn(package):
    texts = [item.docstring.value for _, item in shown(package) if item.docstring is not None]
    formulas = [latex for text in texts for latex in re.findall(r"\\\((.+?)\\\)", text, flags=re.DOTALL)]
    blocks = [latex for text in texts for latex in re.findall(r"\$\$(.+?)\$\$", text, flags=re.DOTALL)]
    assert len(formulas) > 200 and len(blocks) > 80
    for latex in formulas + blocks:
        to_mathml(latex, display=False)


def test_references_lead_to_what_the_reference_holds(package):
    held = {name for name, _ in shown(package)}
    texts = [item.docstring.value for _, item in shown(package) if item.docstring is not None]
    targets = {target for text in texts for target in re.findall(r"\]\[(nablax\.[\w.]+)\]", text)}
    assert len(targets) > 50
    assert targets <= held


def test_records_are_called_as_they_are_in_python(package):
    for name in ("transport.Normal", "transport.Transport", "diagnose.Symmetry", "papers.Paper", "regulate.GuardState"):
        room, _, record = name.partition(".")
        (thing,) = [entry.thing for entry in public(room) if entry.name == record]
        expected = inspect.signature(thing).parameters.values()
        target = package[name].final_target
        parameters = [parameter for parameter in target.parameters if parameter.name != "self"]
        assert [parameter.name for parameter in parameters] == [parameter.name for parameter in expected]
        required = [parameter.name for parameter in parameters if parameter.required]
        assert required == [parameter.name for parameter in expected if parameter.default is parameter.empty]
        assert all(parameter.annotation is not None for parameter in parameters)


def test_every_public_name_is_on_exactly_one_page():
    written = [line[4:] for text in reference.pages().values() for line in text.split("\n") if line.startswith("::: ")]
    assert Counter(written) == Counter(entry.address for entry in entries())


def test_names_stand_in_their_chamber_and_functions_before_records_before_states():
    pages = reference.pages()
    assert "::: nablax.regulate.upgrad\n" in pages["reference/regulate/aggregators.md"]
    assert "::: nablax.diagnose.continuity\n" in pages["reference/diagnose/field.md"]
    assert "::: nablax.transport.flow_matching\n" in pages["reference/transport/index.md"]  # the room's own
    assert "::: nablax.calculus.divergence\n" in pages["reference/calculus.md"]  # a room without chambers
    page = pages["reference/regulate/aggregators.md"]
    assert page.index("## Functions") < page.index("nablax.regulate.guard\n") < page.index("## Records")
    assert page.index("## Records") < page.index("::: nablax.regulate.Weights") < page.index("## States")
    assert page.index("## States") < page.index("::: nablax.regulate.GuardState")
    pages = reference.pages()
    assert pages["reference/transport/paths.md"].index("## Types") < pages["reference/transport/paths.md"].index(
        "::: nablax.transport.View"
    )
    for room in rooms():
        for chamber in filter(None, chambers(room)):
            assert re.search(r"^# .+\n\n\S.+[.?]\n", pages[f"reference/{room}/{chamber}.md"]), "a sentence"


def test_bars_of_formulas_do_not_end_the_cells_of_tables():
    import markdown

    cell = reference._cell("of $p(x|y)$, $\\|x\\|$ and a|b\n\nMore.", "regulate")
    arithmatex = {"pymdownx.arithmatex": {"generic": True}}
    page = markdown.markdown(
        f"| | |\n| --- | --- |\n| x | {cell} |", extensions=["tables", *arithmatex], extension_configs=arithmatex
    )
    assert re.findall(r"<td>(.*?)</td>", re.sub(r"</?m.*?>", "", draw_formulas(page))) == [
        "x",
        "of p(x|y), ‖x‖ and a|b",
    ]


def test_addresses_are_those_of_public_names_only():
    assert address("upgrad", "regulate") == address("regulate.upgrad", "diagnose") == "nablax.regulate.upgrad"
    assert address("nablax.follow.flow", "diagnose") == "nablax.follow.flow"
    assert address("Transport.sample", "transport") == "nablax.transport.Transport.sample"
    assert (
        address("upgrad", "diagnose")
        is address("Transport.nothing", "transport")
        is address("params", "fields")
        is None
    )


def test_every_paper_has_a_page_with_its_claims_and_a_line_in_its_room():
    pages = papers.pages()
    known = papers.evidence()
    assert len([path for path in pages if path.count("/") == 2]) == len(known) > 40
    for paper, checks in known:
        room = pages[f"papers/{paper.rooms[0]}.md"]
        (line,) = [line for line in room.split("\n") if f"({paper.rooms[0]}/{paper.slug}.md)" in line]
        assert papers.outcome(checks).split(" ", 1)[1] in line
        assert papers.summary(paper)
        page = pages[f"papers/{paper.rooms[0]}/{paper.slug}.md"]
        assert f"nablax papers run {paper.slug}\n" in page and paper.link in page
        assert page.count("\n## ") == len(checks)
        assert page.count("| **measured** |") == page.count("| **baseline** |") == len(checks)
        assert page.count("| **tried** |") == sum(bool(check.tried) for check in checks)


def test_the_overview_counts_the_claims_after_an_abstract_alone(monkeypatch):
    import dataclasses

    from nablax.papers import available

    first, second = (dataclasses.replace(paper, read=read) for paper, read in zip(available(), ("abstract", "text")))
    monkeypatch.setattr(papers, "evidence", lambda: [(first, [SimpleNamespace()] * 2), (second, [SimpleNamespace()])])
    lines = papers._after_the_abstract(papers.evidence())
    assert any(line.startswith("2 of 3 claims, of 1 of 2 papers, ") for line in lines)
    assert [line for line in lines if line.startswith("- ")] == [f"- {papers._linked(first)} ({first.year})"]
    assert papers._after_the_abstract([(second, [])]) == []


def test_what_did_not_reproduce_is_a_page_with_the_word_the_numbers_and_the_criteria_that_moved(monkeypatch):
    from nablax.papers import Check, Contrast, available

    missed = Contrast("error, %", {"new": [3.0, 3.1, 3.2], "plain": [1.0, 1.1, 0.9]}, "lower")
    held = Contrast("error, %", {"new": [1.0, 1.1, 0.9], "plain": [3.0, 3.1, 3.2]}, "lower", seconds={"new": 0.5})
    checks = [
        Check("It falls.", "table 1", contrasts=missed, expected=False, tried="two rates"),
        Check("It falls elsewhere.", "table 1", contrasts=held, moved_from="by a half"),
    ]
    paper = available()[0]
    monkeypatch.setattr(papers, "evidence", lambda: [(paper, checks)])
    pages = papers.pages()
    before, after = pages["papers/not_reproduced.md"].split("## Criteria that were moved")
    assert "## Contradicts" in before and "It falls. | worse than plain by 2.10" in before and "| two rates |" in before
    assert "It falls elsewhere." not in before and "1 of 2 claims did not reproduce here: 1 contradicts." in before
    assert "## No effect here" not in before
    assert "It falls elsewhere." in after and "| by a half |" in after and "It falls. |" not in after
    assert "Of 1 of the 2 claims the criterion" in after and "seen; 1 of these hold." in after
    page = pages[f"papers/{paper.rooms[0]}/{paper.slug}.md"]
    for line in (
        "| **difference** | better than plain by 2.10",
        "| **why** | contradicts |",
        "| **moved from** | by a half |",
    ):
        assert line in page
    assert "| method | error, % | std. error | s a run |" in page and "| new | 1 | 0.058 | 0.5 |" in page
    assert page.count("| **criterion** |") == 2


def test_outcomes_are_summed_up_in_a_sign_and_a_word():
    from nablax.papers import Check

    def check(holds, expected=True):
        return Check("s", "in words", "1", "below 2", holds, "3", expected=expected)

    assert papers.outcome([check(True), check(True)]) == "✓ holds"
    assert papers.outcome([check(True), check(False, expected=False)]) == "◐ in part"
    assert papers.outcome([check(False, expected=False)]) == "✗ not reproduced"
    assert papers.outcome([check(True), check(False)]) == "⚠ differs from the list"
    assert papers.outcome([]) == "· not recorded"


def test_text_of_records_is_shown_as_it_is():
    import markdown

    text = "a | b <c> *d* _e_ `f` $g$ [h](i) #1"
    table = f"| | |\n| --- | --- |\n| x | {papers._plain(text)} |"
    page = markdown.markdown(table, extensions=["tables", "pymdownx.arithmatex"])
    assert "<td>a | b &lt;c&gt; *d* _e_ `f` $g$ [h](i) #1</td>" in page


def test_pictures_are_found_by_slug_and_number(tmp_path, monkeypatch):
    for name in ("bloop-2.svg", "bloop-10.png", "bloop-1.svg", "bloop-x.svg", "other-1.svg", "bloop-1.txt"):
        (tmp_path / name).touch()
    monkeypatch.setattr(papers, "_PICTURES", tmp_path)
    (paper,) = [paper for paper, _ in papers.evidence() if paper.slug == "bloop"]
    assert papers._pictures(paper) == [(1, "bloop-1.svg"), (2, "bloop-2.svg"), (10, "bloop-10.png")]
    assert papers.pages()["papers/regulate/bloop.md"].count("](../../assets/papers/bloop-") == 3


def test_the_site_fetches_nothing_from_elsewhere_and_lists_what_is_made(monkeypatch):
    from mkdocs.config import load_config

    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    config = load_config(str(ROOT / "mkdocs.yml"))
    config = config.plugins.run_event("config", config)
    scripts = [str(script) for script in (*config.extra["polyfills"], *config.extra_javascript, *config.extra_css)]
    assert "assets/iframe-worker.js" in scripts and "assets/site.css" in scripts
    assert not [script for script in scripts if "//" in script]
    assert config.use_directory_urls is False  # the site opens from files
    listed = re.findall(r"'((?:reference|papers)/[\w/]+\.md)'", str(config.nav))
    made = [*reference.pages(), *(path for path in papers.pages() if path.count("/") == 1)]
    assert sorted(listed) == sorted(made)


def declared(css, selector):
    """What style sheets declare for a selector, of all rules the last word."""
    found = {}
    for selectors, body in re.findall(r"([^{}]+)\{([^{}]*)\}", re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)):
        if selector in [one.strip() for one in re.split(r",(?![^(]*\))", selectors)]:
            pairs = (declaration.partition(":") for declaration in body.split(";") if ":" in declaration)
            found |= {name.strip(): value.strip() for name, _, value in pairs}
    return found


def test_a_table_wider_than_its_column_scrolls_and_is_never_cut_off():
    """The theme puts a scroller round every table without a class; before its script has run the table is its own."""
    import material

    (theme,) = Path(material.__file__).parent.rglob("assets/stylesheets/main.*.min.css")
    ours = (ROOT / "docs/assets/site.css").read_text()
    sheets = theme.read_text() + ours  # in the order in which pages link them
    assert declared(sheets, ".md-typeset__scrollwrap")["overflow-x"] == "auto"
    table = declared(sheets, ".md-typeset table:not([class])")
    assert table["overflow"] == "auto" and table["max-width"] == "100%"
    for selectors in re.findall(r"([^{}]+)\{[^{}]*overflow(?:-x)?: *hidden", ours):
        assert "table" not in selectors
    # A table that bears a class would have no scroller.
    pages = reference.pages() | papers.pages()
    pages |= {str(path): path.read_text() for path in (*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"))}
    assert not [path for path, text in pages.items() if re.search(r"<table[^>]*\sclass", text)]
    assert "class" not in label_cells(
        "<table><tr>" + 9 * "<th>a</th>" + "</tr><tr>" + 9 * "<td>1</td>" + "</tr></table>"
    )


def test_the_widest_tables_stand_close_enough_for_the_column_of_text():
    """Between its edges a table of ten columns has 720 pixels of a laptop's, a rem being twenty (measured in Chromium)."""
    ours = (ROOT / "docs/assets/site.css").read_text()
    selector = ".md-typeset table:not([class]):has(th:nth-child(7))"
    em = 20 * float(declared(ours, selector)["font-size"].removesuffix("rem"))
    beside = 2 * em * float(declared(ours, f"{selector} :is(th, td)")["padding"].split()[1].removesuffix("em"))
    widest = []
    for path in ROOT.glob("docs/guides/*.md"):
        for table in re.findall(r"(?:^\|.*\|\n)+", path.read_text(), flags=re.MULTILINE):
            rows = [row.strip("|\n").replace("\\*", "*").split(" | ") for row in table.splitlines(keepends=True)]
            if len(rows[0]) < 7:
                continue
            # What is not broken: words, and the name in code that a row begins with.
            pieces = [
                [max(re.findall(r"^ *`[^`]*`|[^\s–-]+[–-]?", cell) or [""], key=len) for cell in row] for row in rows
            ]
            widest.append(sum(max(map(len, column)) * 0.6 * em + beside for column in zip(*pieces)))
    assert len(widest) >= 9 and max(widest) < 720
