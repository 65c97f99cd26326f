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
_BARE = re.compile(r"\\(mathbb|mathbf|mathcal|mathrm) +([A-Za-z0-9])")  # a letter's face, no braces about the letter
_NAMES = {"argmin": "arg\u2009min", "argmax": "arg\u2009max", r"\lVert": "‖", r"\rVert": "‖"}
_WITH_LIMITS = ("min", "max", "sup", "inf", "mean", "argmin", "argmax")
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
    spelled = _BARE.sub(r"\\\1{\2}", spelled)
    tree = ElementTree.fromstring(convert(spelled, display="block" if display else "inline"))
    for element in tree.iter():
        element.text = _NAMES.get(element.text or "", element.text)
        if element.text and "\\" in element.text:
            raise ValueError(f"expected what can be drawn, got {element.text} in {latex!r}: spell it otherwise")
        if element.text and element.text in _FENCES:
            # A fence is not told from a relation by where it stands, and would be set as loosely as one.
            element.tag = f"{{{_SPACE}}}mo"
            element.attrib |= {"lspace": "0", "rspace": "0", "stretchy": str("minsize" in element.attrib).lower()}
        elif element.tag.endswith(("}mo", "}mi")) and len(element.text or "") > 1 and element.text[0].isalpha():
            # Names of functions stand off from what surrounds them.
            element.tag = f"{{{_SPACE}}}mo"
            element.attrib |= {"lspace": "0.12em", "rspace": "0.12em"}
        elif element.text in _MARKS:
            element.attrib |= {"lspace": "0", "rspace": "0"}
        if element.get("mathvariant") == "bold" and (element.text or "").isdecimal():
            # Browsers know a bold digit by its character only.
            element.text = "".join(chr(ord("𝟎") + int(digit)) for digit in element.text)
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
        The same with ``math`` elements; those of a display may be broken at wide spaces.
    """

    def drawn(match: re.Match[str]) -> str:
        latex = html.unescape(match["latex"])
        if match["open"] == "(":
            return to_mathml(latex, display=False)
        parts = "".join(f"<span>{to_mathml(part, display=True)}</span>" for part in _parts(latex))
        return f'<div class="formula">{parts}</div>'

    return _MARKED.sub(drawn, page)


def _parts(latex: str) -> list[str]:
    """Split a formula where it may be broken over lines: at wide spaces outside of braces."""
    parts = [""]
    for piece in latex.split(r"\qquad"):
        whole = parts[-1].count("{") == parts[-1].count("}")
        parts = [*parts, piece] if whole else [*parts[:-1], rf"{parts[-1]}\qquad{piece}"]
    return [part for part in parts if part.strip()]
