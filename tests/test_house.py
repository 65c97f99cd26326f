"""The house holds: imports strictly downward and never in a circle, concrete classes final, one address for every name."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import equinox as eqx
import pytest

import nablax

SOURCE = Path(nablax.__file__).parent
FLOORS = (
    ("_core",),
    ("_pages",),
    ("spaces",),
    ("calculus",),
    ("fields",),
    ("estimate", "regulate"),
    ("optimize",),
    ("follow",),
    ("diagnose",),
    ("transport", "physics", "shapes", "control", "distribute"),
    ("papers",),
    ("app",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
Module = tuple[str, ...]


def module_of(path: Path, source: Path = SOURCE) -> Module:
    """Dotted name as a tuple; a folder's ``__init__`` is the folder."""
    parts = ("nablax", *path.relative_to(source).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def files(source: Path = SOURCE) -> dict[Module, str]:
    return {module_of(path, source): path.read_text() for path in sorted(source.rglob("*.py"))}


FILES = files()
FOLDERS = {module_of(path) for path in SOURCE.rglob("__init__.py")}


_BY_NAME = ("import_module", "__import__")
# Those that import what is named while they run: the rooms, an extra's package, a paper's own file.
IMPORT_BY_NAME = {("nablax",), ("nablax", "_core", "_errors"), ("nablax", "papers", "_catalogue")}


def imports(source: str, module: Module, known=FILES, folders=FOLDERS):
    """Every name of this package that a module takes from another, wherever and however, as (from, name).

    By a statement; by an attribute of a module that it imported, such as ``nablax.app.main``; by ``import_module``.
    """
    package = module if module in folders else module[:-1]
    bound: dict[str, Module] = {}
    nodes = list(ast.walk(ast.parse(source)))
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = tuple(alias.name.split("."))
                if name[0] == "nablax":
                    bound[alias.asname or "nablax"] = name if alias.asname else ("nablax",)
                    yield name, None
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            origin = base + tuple((node.module or "").split(".")) if node.module else base
            if origin[:1] == ("nablax",):
                for alias in node.names:
                    if (*origin, alias.name) in known:
                        bound[alias.asname or alias.name] = (*origin, alias.name)
                    yield origin, alias.name
        elif isinstance(node, ast.Call) and _called(node) in _BY_NAME:
            name = named_module(node, package)
            if name[:1] == ("nablax",):
                yield name, None
    for node in nodes:
        parts = _chain(node)
        if len(parts) > 1 and parts[0] in bound:
            full = (*bound[parts[0]], *parts[1:])
            # What comes after a name that is no module is an attribute of an object.
            end = next((n for n in range(len(bound[parts[0]]), len(full)) if full[: n + 1] not in known), len(full) - 1)
            yield full[:end], full[end]


def named_module(call: ast.Call, package: Module) -> Module:
    """What ``import_module`` or ``__import__`` is given, "?" where that is known only when it runs."""
    words = [argument.value if isinstance(argument, ast.Constant) else "?" for argument in call.args]
    words += [word.value.value for word in call.keywords if isinstance(word.value, ast.Constant)]
    path = str(words[0]) if words else "?"
    if not path.startswith("."):
        return tuple(path.split("."))
    base = tuple(words[1].split(".")) if len(words) > 1 and words[1] != "?" else package
    dots = len(path) - len(path.lstrip("."))
    return (*base[: len(base) - dots + 1], *path.lstrip(".").split("."))


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _chain(node: ast.AST) -> Module:
    """``a.b.c`` as its parts; empty for anything else."""
    if isinstance(node, ast.Name):
        return (node.id,)
    before = _chain(node.value) if isinstance(node, ast.Attribute) else ()
    return (*before, node.attr) if before else ()


def targets(source: str, module: Module, known=FILES, folders=FOLDERS):
    """The files that a module imports: the one that a name comes from, or the one that it is."""
    for origin, name in imports(source, module, known, folders):
        itself = () if name is None else (*origin, name)
        yield itself if itself in known else origin


def violations(source: str, module: Module):
    """Imports that do not go down, and private names of other rooms."""
    here = module[1] if len(module) > 1 and module[1] in FLOOR else None
    for node in ast.walk(ast.parse(source)) if module not in IMPORT_BY_NAME else ():
        if isinstance(node, ast.Call) and _called(node) in _BY_NAME and named_module(node, module) == ("?",):
            yield f"{'.'.join(module)} imports what cannot be read off it"
    for origin, name in imports(source, module):
        full = origin if name is None else (*origin, name)
        room = full[1] if len(full) > 1 else None
        if room is None or room == "__version__":
            continue
        if room not in FLOOR:
            yield f"{'.'.join(module)} imports nablax.{room}, which is no room"
        elif here is not None and room != here:
            if FLOOR[room] >= FLOOR[here]:
                yield f"{'.'.join(module)} imports nablax.{room}, which is not below it"
            if any(part.startswith("_") for part in full[2:]):
                yield f"{'.'.join(module)} imports {'.'.join(full)}, which is private to another room"


def circle(graph):
    """A circle of the graph, or None."""
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return " -> ".join(".".join(node) for node in error.args[1])


def file_graph(known=FILES, folders=FOLDERS):
    """File → files it imports. A package's ``__init__`` is one of them, for what is imported through it."""
    return {
        module: {t for t in targets(text, module, known, folders) if t in known and t != module}
        for module, text in known.items()
    }


def chamber_graph(room: str, known=FILES, folders=FOLDERS):
    """Chamber → chambers of the same room that its files import, and the room's ``__init__``, which imports them."""
    chambers = {folder for folder in folders if len(folder) == 3}

    def chamber(module: Module) -> Module | None:
        return module[:3] if module[:3] in chambers else module if module == ("nablax", room) else None

    graph = {}
    for module, imported in file_graph(known, folders).items():
        if module[1:2] == (room,) and (here := chamber(module)):
            there = {chamber(t) for t in imported if t[1:2] == (room,)}
            graph.setdefault(here, set()).update(there - {here, None})
    return graph


def test_every_room_has_a_floor():
    rooms = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert rooms <= set(FLOOR)


@pytest.mark.parametrize("module", FILES, ids=".".join)
def test_imports_go_strictly_downward(module):
    assert list(violations(FILES[module], module)) == []


def test_files_form_no_circle():
    graph = file_graph()
    assert len(graph) > 220  # a walk that does not go into the chambers would see a few dozen
    assert circle(graph) is None


# Every room with chambers, so that none that gets them later is left out.
CHAMBERED = sorted({folder[1] for folder in FOLDERS if len(folder) == 3})


@pytest.mark.parametrize("room", CHAMBERED)
def test_chambers_form_no_circle(room):
    graph = chamber_graph(room)
    assert len(graph) >= 4
    assert circle(graph) is None


@pytest.mark.parametrize("room", CHAMBERED)
def test_a_room_says_in_a_line_what_each_of_its_chambers_is(room):
    said = ast.get_docstring(ast.parse(FILES["nablax", room]))
    for folder in FOLDERS:
        if folder[1:2] == (room,) and len(folder) == 3 and folder[2].startswith("_"):
            assert f"- ``{folder[2]}``: " in said, f"{room} does not say what {folder[2]} is"


def test_a_chamber_is_a_folder_that_says_what_it_is():
    for folder in FOLDERS:
        assert ast.get_docstring(ast.parse(FILES[folder])), f"{'.'.join(folder)} does not say what it is"


@pytest.mark.parametrize(
    "line",
    [
        "from ...follow import flow",
        "def f():\n    from ...transport import Linear",
        "import nablax.app",
        "from nablax import papers",
        "from ... import diagnose",
        "from ...calculus._lanczos import lanczos",
        "from ...calculus import _lanczos",
        "import nablax\nnablax.app.main",
        "import nablax.spaces\ndef f():\n    return nablax.app._cli.run()",
        "import nablax as house\nhouse.transport.Linear()",
        "from ... import calculus\ncalculus._lanczos.lanczos",
        "from ... import calculus as c\nc._lanczos",
        "import importlib\nimportlib.import_module('nablax.app')",
        "from importlib import import_module\nimport_module('.app', 'nablax')",
        "from importlib import import_module\nimport_module('nablax.calculus._lanczos').lanczos",
        "import importlib\nimportlib.import_module('...app', __package__)",
        "import importlib\nimportlib.import_module(name='nablax.app')",
        "__import__('nablax.app')",
        "import importlib\nimportlib.import_module(f'nablax.{room}')",
    ],
)
def test_the_rule_catches_an_upward_or_a_private_import(line):
    assert list(violations(line, ("nablax", "fields", "_chamber", "_mlp")))
    sound = (
        "from ...calculus import jvp\nfrom ..._core import fault\nfrom .._mlp import MLP\nfrom ... import calculus\n"
        "import importlib\nimport nablax.spaces\ncalculus.jvp.__name__, calculus.jvp._private, nablax.spaces.Sphere\n"
        "importlib.import_module('jax.numpy'), importlib.import_module('nablax.spaces')"
    )
    assert not list(violations(sound, ("nablax", "fields", "_chamber", "_mlp")))


def test_sideways_imports_are_caught():
    assert list(violations("from ..regulate import pcgrad", ("nablax", "estimate", "_x")))


def planted(folder, texts):
    """Files and folders of a package of one room with two chambers, and these texts by path."""
    for name in ("", "room", "room/_a", "room/_b"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "__init__.py").write_text('"""Says."""')
    for name, text in texts.items():
        (folder / "room" / name).write_text(text)
    return files(folder), {module_of(path, folder) for path in folder.rglob("__init__.py")}


def test_circles_are_caught_through_type_checking_and_function_bodies(tmp_path):
    known, folders = planted(
        tmp_path,
        {
            "_a/_one.py": "def f():\n    from .._b._two import g",
            "_b/_two.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .._a import _one",
        },
    )
    assert circle(file_graph(known, folders)) and circle(chamber_graph("room", known, folders))
    (tmp_path / "room/_b/_two.py").write_text("")
    assert circle(file_graph(files(tmp_path), folders)) is None
    # Chambers may run in a circle where files do not.
    (tmp_path / "room/_b/_three.py").write_text("from .._a import _four")
    (tmp_path / "room/_a/_four.py").write_text("")
    assert circle(file_graph(files(tmp_path), folders)) is None
    assert circle(chamber_graph("room", files(tmp_path), folders))


def test_circles_through_an_init_are_caught(tmp_path):
    # A file takes from its room what the room's own listing makes of the file.
    known, folders = planted(
        tmp_path,
        {"__init__.py": "from ._table import Table\ndef run(): ...", "_table.py": "def f():\n    from . import run"},
    )
    assert circle(file_graph(known, folders))
    (tmp_path / "room/_table.py").write_text("")
    assert circle(file_graph(files(tmp_path), folders)) is None


@pytest.mark.parametrize(
    "back", ["from .._b import g", "from ... import room\nroom._b.g", "import nablax\nnablax.room._b.g"]
)
def test_a_chamber_that_lists_its_names_counts(tmp_path, back):
    known, folders = planted(
        tmp_path, {"_b/__init__.py": "from ._two import g", "_b/_two.py": "", "_a/_one.py": back, "_a/_four.py": ""}
    )
    assert circle(file_graph(known, folders)) is None and circle(chamber_graph("room", known, folders)) is None
    (tmp_path / "room/_b/_three.py").write_text("from .._a import _four")
    known = files(tmp_path)
    assert circle(file_graph(known, folders)) is None and circle(chamber_graph("room", known, folders))


def test_a_chamber_that_takes_from_its_room_is_in_a_circle(tmp_path):
    known, folders = planted(
        tmp_path, {"__init__.py": "from ._b._two import g", "_b/_two.py": "", "_a/_one.py": "from .. import g"}
    )
    assert circle(chamber_graph("room", known, folders)) is None
    (tmp_path / "room/__init__.py").write_text("from ._b._two import g\nfrom ._a._four import h")
    (tmp_path / "room/_a/_four.py").write_text("")
    assert circle(chamber_graph("room", files(tmp_path), folders))


def rooms():
    return [
        importlib.import_module(f"nablax.{module.name}")
        for module in pkgutil.iter_modules([str(SOURCE)])
        if module.ispkg and not module.name.startswith("_")
    ]


def test_every_room_is_there_when_the_package_is_imported():
    for room in rooms():
        assert room.__name__.removeprefix("nablax.") in nablax.__all__
    code = "import nablax\nfor room in nablax.__all__: getattr(nablax, room)\nassert set(nablax.__all__) <= set(dir(nablax))"
    subprocess.run([sys.executable, "-c", code], check=True)


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
    seen = 0
    for name in sorted(FILES):
        for value in vars(importlib.import_module(".".join(name))).values() if name[-1] != "__main__" else ():
            if not (inspect.isclass(value) and issubclass(value, eqx.Module) and value is not eqx.Module):
                continue
            seen += value.__module__ == ".".join(name)
            for base in value.__mro__[1:]:
                if base.__module__.startswith("nablax"):
                    assert base.__name__.lstrip("_").startswith("Abstract"), f"{value} extends {base}"
    assert seen > 60  # a walk that does not go into the chambers would see a handful


def test_the_library_needs_no_extra():
    """Importing every room but the app loads no package of the extras."""
    names = ", ".join(f"nablax.{room}" for room in nablax.__all__ if not room.startswith("__"))
    code = (
        f"import sys, {names}\n"
        "extras = {'polars', 'sklearn', 'typer', 'rich', 'jinja2', 'matplotlib', 'PIL', 'safetensors'}\n"
        "print(sorted(extras & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
