"""Tables of four columns and more: on a phone each row is written below the last, cell under cell with its heading."""

import html
import re

_TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
_ROW = re.compile(r"<tr>.*?</tr>", re.DOTALL)
_FEWEST = 4


def label_cells(page: str) -> str:
    """Give every cell of a wide table the heading of its column, which the style sheet writes before it."""
    return _TABLE.sub(lambda table: _labelled(table[0]), page)


def _labelled(table: str) -> str:
    heads = [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<th\b[^>]*>(.*?)</th>", table, re.DOTALL)]
    if len(heads) < _FEWEST:
        return table

    def row(match: re.Match[str]) -> str:
        names = iter(heads)

        def cell(match: re.Match[str]) -> str:
            # Texts of headings are escaped already; quotes are not.
            return f'<td data-head="{html.escape(html.unescape(next(names, "")))}"{match[1]}>'

        return re.sub(r"<td\b([^>]*)>", cell, match[0])

    return _ROW.sub(row, table).replace("<table>", "<table data-wide>", 1)


__all__ = ["label_cells"]
