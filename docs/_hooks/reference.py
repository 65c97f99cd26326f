"""Pages of the reference, made from what each room exports: a page a chamber, or a page a room without chambers."""

import re

from _hooks.docstrings import to_markdown
from _hooks.rooms import Public, address, chambers, described, public, rooms

_TITLES = {"functions": "Functions", "records": "Records", "types": "Types", "states": "States"}


def pages() -> dict[str, str]:
    """Write every page.

    Returns:
        Markdown by path below ``docs``.
    """
    written = {"reference/index.md": _overview()}
    for room in rooms():
        if not any(chambers(room)):
            written[_path(room)] = _page(room, "")
            continue
        written[_path(room)] = _contents(room)
        written |= {_path(room, chamber): _page(room, chamber) for chamber in chambers(room) if chamber}
    return written


def navigation() -> list:
    """Lay the pages out for the sidebar: rooms, and the chambers below them."""
    entries: list = ["reference/index.md"]
    for room in rooms():
        inner = [chamber for chamber in chambers(room) if chamber]
        below = [_path(room), *({chamber: _path(room, chamber)} for chamber in inner)]
        entries.append({room: below if inner else _path(room)})
    return entries


def _path(room: str, chamber: str = "") -> str:
    if not any(chambers(room)):
        return f"reference/{room}.md"
    return f"reference/{room}/{chamber or 'index'}.md"


def _overview() -> str:
    lines = ["# Reference", "", "| room | |", "| --- | --- |"]
    for room in rooms():
        lines.append(f"| [`{room}`]({_path(room).removeprefix('reference/')}) | {_cell(described(room), room)} |")
    return "\n".join(lines) + "\n"


def _contents(room: str) -> str:
    """The page of a room with chambers: what each holds, then what is the room's own."""
    parts = [f"# {room} {{#nablax.{room}}}", _prose(described(room), room)]
    for chamber in filter(None, chambers(room)):
        title = f"## [{chamber.replace('_', ' ')}]({chamber}.md)"
        parts += [title, _prose(described(room, chamber), room), _table(_entries(room, chamber))]
    return "\n\n".join(parts) + "\n" + _bodies(_entries(room, ""))


def _page(room: str, chamber: str) -> str:
    entries = _entries(room, chamber)
    title = f"{room}: {chamber.replace('_', ' ')}" if chamber else room
    anchor = f"nablax.{room}" + (f"._{chamber}" if chamber else "")
    parts = [f"# {title} {{#{anchor}}}", _prose(described(room, chamber), room), _table(entries)]
    return "\n\n".join(parts) + "\n" + _bodies(entries)


def _entries(room: str, chamber: str) -> list[Public]:
    return [entry for entry in public(room) if entry.chamber == chamber]


def _table(entries: list[Public]) -> str:
    rows = [f"| [`{entry.name}`][{entry.address}] | {_cell(entry.summary, entry.room)} |" for entry in entries]
    return "\n".join(["| | |", "| --- | --- |", *rows])


def _bodies(entries: list[Public]) -> str:
    lines: list[str] = []
    for kind, title in _TITLES.items():
        if chosen := [entry for entry in entries if entry.kind == kind]:
            lines += ["", f"## {title}", *(f"\n::: {entry.address}" for entry in chosen)]
    return "\n".join(lines) + "\n"


def _prose(text: str, room: str) -> str:
    return to_markdown(text.replace("``", "`"), lambda name: address(name, room))


def _cell(text: str, room: str) -> str:
    """The first sentence of a text, in a table: bars would end the cell."""
    first = _prose(text.partition("\n")[0], room)
    first = re.sub(r"\\\(.*?\\\)", _without_bars, first)
    return first.replace("|", r"\|")


def _without_bars(formula: re.Match[str]) -> str:
    return formula[0].replace(r"\|", r"\Vert ").replace("|", r"\vert ")
