"""Docstrings into what the site shows: formulas, cross-references, examples, and signatures of records."""

import dataclasses
import re
import textwrap
from collections.abc import Callable
from typing import Any

import griffe

from _hooks.rooms import address, public, rooms

# A directive, what stands on its line, and the deeper lines below it.
_BLOCK = re.compile(r"^(?P<indent> *)\.\. math::(?P<latex>.*\n(?:(?:(?P=indent) +\S.*)?\n)*)", flags=re.MULTILINE)
# In two notations: a role, or one dollar on each side.
_FORMULA = re.compile(r":math:`(?P<role>[^`]+)`|(?<![\\$])\$(?=[^\s$])(?P<dollars>[^$`]*[^\s$`])\$(?!\$)")
_ROLE = re.compile(r":(?:func|class|meth|mod|attr|data|obj):`~?(?P<name>[^`]+)`")
# One backtick on each side: a name. Two are literal text.
_NAME = re.compile(r"(?<![`\[])`(?P<name>[A-Za-z_][\w.]*)(?:\(\))?`(?![`\]])")
# Sections of this house that the parser of docstrings does not know.
_SECTION = re.compile(r"^(?P<title>Cost|References):[ ]*(?P<body>.*\n(?:(?: .*)?\n)*)", flags=re.MULTILINE)
_EXAMPLE = re.compile(r"(^Examples?:\n(?:(?: .*)?\n)*)", flags=re.MULTILINE)


def to_markdown(text: str, resolve: Callable[[str], str | None]) -> str:
    r"""Rewrite a docstring's reStructuredText as Markdown; examples stay as they are, below a title of their section.

    Args:
        text: the docstring, its margin removed.
        resolve: where a name is documented, or None.

    Returns:
        Formulas between ``$$`` or ``\(`` and ``\)``, and names as cross-references.
    """

    def reference(match: re.Match[str]) -> str:
        found = resolve(match["name"])
        return f"[`{match['name']}`][{found}]" if found else f"`{match['name']}`"

    def block(match: re.Match[str]) -> str:
        lines = ["", "$$", *(row.strip() for row in match["latex"].split("\n") if row.strip()), "$$", ""]
        return "\n".join(match["indent"] + line if line else "" for line in lines) + "\n"

    def section(match: re.Match[str]) -> str:
        return f"**{match['title']}:**\n\n{textwrap.dedent(match['body']).strip()}\n\n"

    def prose(part: str) -> str:
        part = _SECTION.sub(section, part)
        part = _FORMULA.sub(
            lambda match: rf"\({(match['role'] or match['dollars']).strip()}\)", _BLOCK.sub(block, part)
        )
        return _NAME.sub(reference, _ROLE.sub(reference, part))

    # With a group in the pattern, every second part is an example.
    parts = _EXAMPLE.split(text + "\n")
    parts[::2] = [prose(part) for part in parts[::2]]
    parts[1::2] = [part.replace(":", ": Example", 1).replace("Example:", "Examples:", 1) for part in parts[1::2]]
    return "".join(parts).rstrip("\n")


class Docstrings(griffe.Extension):
    """Rewrites every docstring as it is loaded, and gives records the signature that calling them has."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one docstring."""
        room = obj.path.split(".")[1] if "." in obj.path else ""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value, lambda name: address(name, room))

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Give each public dataclass, module or named tuple its ``__init__``; the source spells none."""
        for entry in (entry for room in rooms() for entry in public(room)):
            module, _, name = f"{entry.thing.__module__}.{entry.name}".partition(".")
            if module != pkg.name or not isinstance(entry.thing, type) or "__init__" in pkg[name].members:
                continue
            if fields := _fields(entry.thing):
                pkg[name].set_member("__init__", _init(pkg[name], fields))


def _fields(record: type) -> dict[str, str | None]:
    """Names of a record's fields with their defaults as text, None where there is none."""
    if dataclasses.is_dataclass(record):
        return {field.name: _default(field) for field in dataclasses.fields(record) if field.init}
    names: tuple[str, ...] = getattr(record, "_fields", ())
    defaults: dict[str, Any] = getattr(record, "_field_defaults", {})
    return {name: repr(defaults[name]) if name in defaults else None for name in names}


def _default(field: dataclasses.Field) -> str | None:
    if field.default_factory is not dataclasses.MISSING:
        return f"{getattr(field.default_factory, '__name__', 'factory')}()"
    if field.default is dataclasses.MISSING:
        return None
    return getattr(field.default, "__name__", None) or repr(field.default)


def _init(record: griffe.Class, fields: dict[str, str | None]) -> griffe.Function:
    annotated = record.all_members
    parameters = [griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)]
    for name, default in fields.items():
        annotation = annotated[name].annotation if name in annotated else None
        kind = griffe.ParameterKind.positional_or_keyword
        parameters.append(griffe.Parameter(name, annotation=annotation, kind=kind, default=default))
    return griffe.Function("__init__", parameters=griffe.Parameters(*parameters))
