"""Pages of the papers, made from the recorded outcomes: one a room, and one a paper."""

import html
import importlib
import inspect
import re
from pathlib import Path

import nablax.papers as library

_PICTURES = Path(__file__).parents[1] / "assets" / "papers"
# A sign and a word; the words are read where colours and signs are not.
_HOLDS, _PARTLY, _FAILS, _DIFFERS, _UNKNOWN = (
    "✓ holds",
    "◐ in part",
    "✗ not reproduced",
    "⚠ differs from the list",
    "· not recorded",
)
# Why a claim does not hold, the plainest first.
_WORDS = ("contradicts", "no effect here", "effect too small to see", "protocol out of reach", "")


def evidence() -> list[tuple[library.Paper, list[library.Check]]]:
    """Read every paper with its recorded checks. What the pages know of the records' format comes in here."""
    recorded = library.recorded()
    return [
        (paper, list(recorded[paper.slug].checks) if paper.slug in recorded else []) for paper in library.available()
    ]


def pages() -> dict[str, str]:
    """Write every page.

    Returns:
        Markdown by path below ``docs``.
    """
    known = evidence()
    written = {"papers/index.md": _overview(known), "papers/not_reproduced.md": _not_reproduced(known)}
    for room in _rooms(known):
        inside = [(paper, checks) for paper, checks in known if paper.rooms[0] == room]
        written[f"papers/{room}.md"] = _room(room, inside)
        written |= {f"papers/{room}/{paper.slug}.md": _paper(paper, checks) for paper, checks in inside}
    return written


def navigation() -> list:
    """Lay the rooms' pages out for the sidebar; the papers' own pages are reached from them."""
    rooms = [{room: f"papers/{room}.md"} for room in _rooms(evidence())]
    return ["papers/index.md", *rooms, {"what did not reproduce": "papers/not_reproduced.md"}]


def outcome(checks: list[library.Check]) -> str:
    """Sum the checks of a paper up in a sign and a word or two."""
    if not checks:
        return _UNKNOWN
    if any(check.surprise for check in checks):
        return _DIFFERS
    held = sum(check.holds for check in checks)
    return _HOLDS if held == len(checks) else _PARTLY if held else _FAILS


def summary(paper: library.Paper) -> str:
    """Say what the method does: the first line of the module that checks the paper."""
    module = importlib.import_module(f"nablax.papers.{paper.rooms[0]}.{paper.slug.replace('-', '_')}")
    return (inspect.getdoc(module) or "").partition("\n")[0]


def _rooms(known: list[tuple[library.Paper, list[library.Check]]]) -> list[str]:
    return sorted({paper.rooms[0] for paper, _ in known})


def _overview(known: list[tuple[library.Paper, list[library.Check]]]) -> str:
    signs = (_HOLDS, _PARTLY, _FAILS, _DIFFERS, _UNKNOWN)
    counts = {room: [outcome(checks) for paper, checks in known if paper.rooms[0] == room] for room in _rooms(known)}
    shown = [sign for sign in signs if any(sign in found for found in counts.values())]
    lines = [
        "# Papers",
        "",
        "What each paper claims, what came of it here, and what the strongest baseline did under the same criterion. "
        "These pages are made from the last recorded run; `nablax papers run --all` checks every claim anew.",
        "",
        "| room | papers | " + " | ".join(_signed(sign, "<br>") for sign in shown) + " |",
        "| --- |" + " ---: |" * (len(shown) + 1),
    ]
    for room, found in counts.items():
        cells = [str(found.count(sign) or "") for sign in shown]
        lines.append(f"| [`{room}`]({room}.md) | {len(found)} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "A claim is a contrast: it holds where the method meets a criterion written down beforehand and the baseline "
        "does not. *In part*: some of the paper's claims do, others do not. *Not reproduced*: none does. What did not "
        "reproduce stays in the list, with what was tried: [all of it](not_reproduced.md). "
        "[How a claim is put](../concepts/claim.md).",
        *_after_the_abstract(known),
    ]
    return "\n".join(lines) + "\n"


def _after_the_abstract(known: list[tuple[library.Paper, list[library.Check]]]) -> list[str]:
    """How many claims rest on an abstract alone, and of which papers."""
    alone = [(paper, checks) for paper, checks in known if paper.read == "abstract"]
    if not alone:
        return []
    claims, whole = (sum(len(checks) for _, checks in some) for some in (alone, known))
    return [
        "",
        "## After the abstract alone",
        "",
        f"{claims} of {whole} claims, of {len(alone)} of {len(known)} papers, were put after the abstract alone: "
        "neither the text nor code that follows it was at hand. What the method does beyond the abstract is ours "
        "there, and so are its defaults; the docstrings say where. They are:",
        "",
        *(f"- {_linked(paper)} ({paper.year})" for paper, _ in alone),
    ]


def _not_reproduced(known: list[tuple[library.Paper, list[library.Check]]]) -> str:
    missed = [(paper, check) for paper, checks in known for check in checks if not check.holds]
    moved = [(paper, check) for paper, checks in known for check in checks if check.moved_from]
    by_word: dict[str, list[tuple[library.Paper, library.Check]]] = {word: [] for word in _WORDS}
    for paper, check in missed:
        by_word[check.reason].append((paper, check))
    counts = ", ".join(f"{len(found)} {word or 'no word yet'}" for word, found in by_word.items() if found)
    total = sum(len(checks) for _, checks in known)
    lines = [
        "# What did not reproduce, and why",
        "",
        f"{len(missed)} of {total} claims did not reproduce here: {counts}. The word "
        "is given by the numbers, but for a protocol out of reach; [what each means](../concepts/claim.md). It is said "
        "of the set-up that was run, at its scale, which the claim's own page describes.",
    ]
    for word, found in by_word.items():
        if found:
            lines += [
                "",
                f"## {(word or 'no word yet').capitalize()}",
                "",
                "| claim | found | tried |",
                "| --- | --- | --- |",
            ]
        for paper, check in found:
            row = dict(check.rows())
            cells = " | ".join(_plain(row.get(name, "")) for name in ("difference", "tried"))
            lines.append(f"| {_linked(paper)}<br>{_plain(check.statement)} | {cells} |")
    if moved:
        lines += [
            "",
            "## Criteria that were moved",
            "",
            f"Of {len(moved)} of the {total} claims the criterion, the baselines or the set-up were changed after "
            f"numbers had been seen; {sum(check.holds for _, check in moved)} of these hold. A claim that was moved to "
            "where it holds says less than one that held where it was put: what stood first is shown beside it, and "
            "on the claim's page.",
            "",
            "| claim | criterion | it was first |",
            "| --- | --- | --- |",
        ]
        for paper, check in moved:
            cells = f"{_plain(check.criterion)} | {_plain(check.moved_from)}"
            lines.append(f"| {_linked(paper)}<br>{_plain(check.statement)} | {cells} |")
    return "\n".join(lines) + "\n"


def _linked(paper: library.Paper) -> str:
    return f"[{_plain(paper.title)}]({paper.rooms[0]}/{paper.slug}.md)"


def _room(room: str, inside: list[tuple[library.Paper, list[library.Check]]]) -> str:
    lines = [f"# Papers: {room}", "", "| outcome | paper | read |", "| --- | --- | --- |"]
    for paper, checks in inside:
        held = f"<br>{sum(check.holds for check in checks)} of {len(checks)}" if checks else ""
        line = f"[{_plain(paper.title)}]({room}/{paper.slug}.md) ({paper.year})<br>{_plain(summary(paper))}"
        lines.append(f"| {_signed(outcome(checks))}{held} | {line} | {paper.read} |")
    lines += ["", f"The methods themselves: [`{room}`][nablax.{room}]."]
    return "\n".join(lines) + "\n"


def _paper(paper: library.Paper, checks: list[library.Check]) -> str:
    where = ", ".join(f"[`{room}`][nablax.{room}]" for room in paper.rooms)
    parts = [
        f"# {_plain(paper.title)}",
        f"{_plain(summary(paper))}",
        f"[{paper.link}]({paper.link}) ({paper.year}) · read: {paper.read} · lives in {where} · "
        f"[all papers of {paper.rooms[0]}](../{paper.rooms[0]}.md)",
        f"```console\n$ nablax papers run {paper.slug}\n```",
        *(f"![Picture {number} of this check](../../assets/papers/{name})" for number, name in _pictures(paper)),
    ]
    for check in checks:
        rows = [*check.rows(), ("outcome", check.verdict)]
        cells = "\n".join(f"| **{name}** | {_plain(text)} |" for name, text in rows)
        sign = _signed("✓" if check.holds else "✗")
        parts += [f"## {sign} {_plain(check.statement)}", f"| | |\n| --- | --- |\n{cells}"]
        parts += [_numbers(lines) for lines in check.tables()]
    if not checks:
        parts.append("No outcome is recorded yet.")
    return "\n\n".join(parts) + "\n"


def _numbers(lines: list[tuple[str, ...]]) -> str:
    """A table of a contrast's numbers, a line a method."""
    head, *body = ("| " + " | ".join(map(_plain, line)) + " |" for line in lines)
    return "\n".join([head, "| --- |" + " ---: |" * (len(lines[0]) - 1), *body])


def _pictures(paper: library.Paper) -> list[tuple[int, str]]:
    """Pictures of a paper that were drawn, in order."""
    named = [(re.fullmatch(rf"{paper.slug}-(\d+)\.(?:svg|png)", path.name), path) for path in _PICTURES.glob("*")]
    return sorted((int(match[1]), path.name) for match, path in named if match)


def _signed(said: str, between: str = " ") -> str:
    """A sign in its colour, and the words that follow it."""
    sign, _, words = said.partition(" ")
    kind = {"✓": "good", "✗": "bad"}.get(sign, "mixed")
    return f'<span class="{kind}">{sign}</span>' + (between + words if words else "")


def _plain(text: str) -> str:
    """Text of a record as Markdown that shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]|#$])", r"\\\1", html.escape(text, quote=False)).replace("\n", " ")
