"""The house holds: imports strictly downward, concrete classes final, one address for every name."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import pytest

import nablax

SOURCE = Path(nablax.__file__).parent
FLOORS = (
    ("_core",),
    ("spaces",),
    ("calculus",),
    ("fields",),
    ("estimate", "regulate"),
    ("follow",),
    ("diagnose",),
    ("transport", "physics", "shapes", "control", "distribute"),
    ("papers",),
    ("app",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def imported_rooms(source: str, package: tuple[str, ...]):
    """Rooms of this package that a module imports, those inside functions included."""
    for node in ast.walk(ast.parse(source)):
        names: list[tuple[str, ...]] = []
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = base + tuple((node.module or "").split(".")) if node.module else base
            names = [(*module, alias.name) for alias in node.names]
        for name in names:
            if name[0] == "nablax" and len(name) > 1:
                yield name[1]


def violations(source: str, package: tuple[str, ...]):
    here = package[1] if len(package) > 1 else None
    for room in imported_rooms(source, package):
        if room not in FLOOR:
            if room != "__version__":
                yield f"{'.'.join(package)} imports nablax.{room}, which is no room"
        elif here is not None and room != here and FLOOR[room] >= FLOOR[here]:
            yield f"{'.'.join(package)} imports nablax.{room}, which is not below it"


def modules():
    return sorted(SOURCE.rglob("*.py"))


def package_of(path: Path) -> tuple[str, ...]:
    return ("nablax", *path.relative_to(SOURCE).parent.parts)


def test_every_room_has_a_floor():
    rooms = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert rooms <= set(FLOOR)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_strictly_downward(path):
    assert list(violations(path.read_text(), package_of(path))) == []


@pytest.mark.parametrize(
    "line",
    [
        "from ..follow import flow",
        "def f():\n    from ..transport import Linear",
        "import nablax.app",
        "from nablax import papers",
        "from .. import diagnose",
    ],
)
def test_the_rule_catches_an_upward_import(line):
    assert list(violations(line, ("nablax", "fields")))
    assert not list(violations("from ..calculus import jvp\nfrom ._mlp import MLP", ("nablax", "fields")))


def test_sideways_imports_are_caught():
    assert list(violations("from ..regulate import pcgrad", ("nablax", "estimate")))


def rooms():
    return [
        importlib.import_module(f"nablax.{module.name}")
        for module in pkgutil.iter_modules([str(SOURCE)])
        if module.ispkg and not module.name.startswith("_")
    ]


def test_every_public_name_has_one_address():
    seen: dict[int, str] = {}
    for room in rooms():
        assert sorted(room.__all__) == list(room.__all__), f"{room.__name__}.__all__ is not sorted"
        for name in room.__all__:
            if name.startswith("__"):
                continue
            value = getattr(room, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                address = f"{room.__name__}.{name}"
                assert id(value) not in seen, f"{address} is also {seen[id(value)]}"
                seen[id(value)] = address


def test_every_public_name_is_documented():
    for room in rooms():
        for name in room.__all__:
            value = getattr(room, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                assert (value.__doc__ or "").strip(), f"{room.__name__}.{name} has no docstring"


def test_concrete_classes_are_final():
    """A module that can be instantiated has no subclass; only `Abstract*` classes do."""
    for room in rooms():
        for info in pkgutil.iter_modules(room.__path__):
            module = importlib.import_module(f"{room.__name__}.{info.name}")
            for value in vars(module).values():
                if not (inspect.isclass(value) and issubclass(value, eqx.Module) and value is not eqx.Module):
                    continue
                for base in value.__mro__[1:]:
                    if base.__module__.startswith("nablax"):
                        assert base.__name__.lstrip("_").startswith("Abstract"), f"{value} extends {base}"


def test_the_library_needs_no_extra():
    """Importing every room but the app loads no package of the extras."""
    code = (
        "import sys, nablax.spaces, nablax.calculus, nablax.fields, nablax.regulate, nablax.follow, nablax.diagnose, nablax.transport,"
        " nablax.papers, nablax.app\n"
        "extras = {'polars', 'sklearn', 'typer', 'rich', 'jinja2', 'matplotlib', 'PIL', 'orbax', 'safetensors'}\n"
        "print(sorted(extras & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
