"""LaTeX into MathML, which browsers draw by themselves: no script, no network."""

import html
import re
from xml.etree import ElementTree

from latex2mathml.converter import convert

_SPACE = "http://www.w3.org/1998/Math/MathML"
_MARKED = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<open>[(\[])(?P<latex>.*?)\\[)\]]</(?P=tag)>', flags=re.DOTALL
)
# Commands that the converter knows only in part.
_SPELLED = {r"\arg\min": r"\operatorname{arg min}", r"\arg\max": r"\operatorname{arg max}"}
_NAMES = {"argmin": "arg\u2009min", "argmax": "arg\u2009max", r"\lVert": "‖", r"\rVert": "‖"}
_WITH_LIMITS = ("min", "max", "sup", "inf", "mean", "arg\u2009min", "arg\u2009max")
_FENCES = "‖|⟨⟩"
_MARKS = ("⊤", "*", "⋆", "′")


def to_mathml(latex: str, *, display: bool) -> str:
    """Convert one formula.

    Args:
        latex: without delimiters.
        display: whether it stands on a line of its own.

    Returns:
        A ``math`` element.

    Raises:
        ValueError: a command of the formula is unknown, and would have been shown as it is spelled.
    """
    spelled = latex.strip()
    for command, other in _SPELLED.items():
        spelled = spelled.replace(command, other)
    tree = ElementTree.fromstring(convert(spelled, display="block" if display else "inline"))
    for element in tree.iter():
        element.text = _NAMES.get(element.text or "", element.text)
        if element.text and "\\" in element.text:
            raise ValueError(f"expected what can be drawn, got {element.text} in {latex!r}: spell it otherwise")
        if element.text and element.text in _FENCES:
            # A fence is not told from a relation by where it stands, and would be set as loosely as one.
            element.tag = f"{{{_SPACE}}}mo"
            element.attrib |= {"lspace": "0", "rspace": "0", "stretchy": str("minsize" in element.attrib).lower()}
        elif element.tag.endswith("}mo") and element.text and element.text[0].isalpha():
            element.attrib |= {"lspace": "0.1em", "rspace": "0.1em"}
        elif element.text in _MARKS:
            element.attrib |= {"lspace": "0", "rspace": "0"}
        # Limits of an operator stand below it where there is room.
        if display and element.tag.endswith("}msub") and element[0].text in _WITH_LIMITS:
            element.tag = f"{{{_SPACE}}}munder"
    ElementTree.register_namespace("", _SPACE)
    return ElementTree.tostring(tree, encoding="unicode")


def draw_formulas(page: str) -> str:
    """Replace every formula that the Markdown extension has marked.

    Args:
        page: HTML.

    Returns:
        The same with ``math`` elements; wide ones scroll by themselves.
    """

    def drawn(match: re.Match[str]) -> str:
        display = match["open"] == "["
        formula = to_mathml(html.unescape(match["latex"]), display=display)
        return f'<div class="formula">{formula}</div>' if display else formula

    return _MARKED.sub(drawn, page)
