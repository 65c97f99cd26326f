"""Which files of this package ran, what they take from others, and a digest of what each says.

A claim depends on the files whose code ran while it was checked. Not all of what they need runs then: constants,
classes and decorated functions were made when their files were imported. So the files that those which ran import from
count too, and so on. A name is followed through the rooms' ``__init__``, which are not counted themselves, or every new
method of a room would touch every claim; a name that is led elsewhere is noticed all the same, since it leads to a file
that was not recorded. What is not seen: data, other packages, and a file that changes others while it is imported
without being imported by them.
"""

import ast
import functools
import hashlib
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

import equinox as eqx
import jax

SOURCE = Path(__file__).parent.parent
# How an outcome looks is no part of what came out.
_LOOKS = "papers/_shown.py"


@contextmanager
def code_that_runs() -> Iterator[set[str]]:
    """Collect the package's files in which a function starts inside the block, in any thread.

    Caches of JAX, Equinox and this package are cleared first: what was traced for an earlier claim would not run again.
    On Python 3.11 threads that neither Python's ``threading`` nor this one started are not seen, such as those of a
    host callback; what such a function is made of is imported by a file that ran.

    Yields:
        Paths below `SOURCE`, filled when the block ends.
    """
    eqx.clear_caches()
    jax.clear_caches()
    for module in list(sys.modules.values()):
        if _ours(getattr(module, "__file__", None) or ""):
            for value in vars(module).values():
                if callable(clear := getattr(value, "cache_clear", None)):
                    clear()
    names: set[str] = set()
    found: set[str] = set()
    with _watched(names):
        yield found
    found |= {_file(Path(name)) for name in names - {__file__} if _ours(name)}


@contextmanager
def _watched(names: set[str]) -> Iterator[None]:
    """Put the file name of every code object that starts into the set."""
    if sys.version_info >= (3, 12):
        monitoring = sys.monitoring
        tool = next(number for number in range(6) if monitoring.get_tool(number) is None)

        def started(code: CodeType, offset: int) -> object:
            names.add(code.co_filename)
            return monitoring.DISABLE  # once for each code object is enough, and costs next to nothing

        monitoring.use_tool_id(tool, __name__)
        monitoring.register_callback(tool, monitoring.events.PY_START, started)
        monitoring.restart_events()
        monitoring.set_events(tool, monitoring.events.PY_START)
        try:
            yield
        finally:
            monitoring.set_events(tool, 0)
            monitoring.register_callback(tool, monitoring.events.PY_START, None)
            monitoring.free_tool_id(tool)
    else:

        def called(frame: FrameType, event: str, _: object) -> None:
            if event == "call":
                names.add(frame.f_code.co_filename)

        before = sys.getprofile(), threading.getprofile()
        threading.setprofile(called)
        sys.setprofile(called)
        try:
            yield
        finally:
            sys.setprofile(before[0])
            threading.setprofile(before[1])


def digests(ran: Iterable[str]) -> dict[str, str]:
    """Hash what the files that ran say, and those that they import from, and so on.

    What is hashed is the syntax tree without docstrings, so that comments, layout and prose change nothing.

    Args:
        ran: paths below `SOURCE`.

    Returns:
        Sixteen hexadecimal digits by path, the same on every version of Python.
    """
    return {file: _read(SOURCE / file).digest for file in sorted(_with_imports(ran))}


def digests_of_all() -> dict[str, str]:
    """Hash what every file of the package says."""
    return {_file(path): _read(path).digest for path in sorted(SOURCE.rglob("*.py"))}


def changes(code: dict[str, str]) -> list[str]:
    """What differs from the digests that were taken, in words, file by file.

    Args:
        code: as `digests` gave it.

    Returns:
        A line for each file that is gone, says something else, or has come in by an import that leads elsewhere now.
    """
    there = {file for file in code if (SOURCE / file).is_file()}
    said = dict.fromkeys(code.keys() - there, "is gone")
    said |= {file: "changed" for file in there if _read(SOURCE / file).digest != code[file]}
    said |= dict.fromkeys(_with_imports(there) - there, "is imported now")
    return [f"{file} {words}" for file, words in sorted(said.items())]


def _ours(name: str) -> bool:
    return Path(name).is_relative_to(SOURCE)


def _file(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def _with_imports(files: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    ahead = list(files)
    while ahead:
        if (file := ahead.pop()) not in seen and file != _LOOKS:
            seen.add(file)
            ahead += map(_file, _read(SOURCE / file).imports)
    return seen


class _Text(NamedTuple):
    """What is kept of a file: the digest, and the files that the names it imports come from."""

    digest: str
    imports: frozenset[Path]


@functools.cache
def _read(path: Path) -> _Text:
    tree = ast.parse(path.read_bytes())
    return _Text(_digest(tree), frozenset(_imports(tree, path)))


def _digest(tree: ast.Module) -> str:
    written: list[str] = []

    def write(node: object) -> None:
        if isinstance(node, ast.JoinedStr):
            # Python 3.12 ends some of them with an empty piece.
            write([piece for piece in node.values if not (isinstance(piece, ast.Constant) and piece.value == "")])
        elif isinstance(node, ast.AST):
            written.append(type(node).__name__)
            for name, value in ast.iter_fields(node):
                # Versions of Python differ in which fields they have, all of them absent or empty in older code.
                if value is not None and value != []:
                    written.append(name)
                    write(value)
            written.append(")")
        elif isinstance(node, list):
            written.append("[")
            for one in node:
                if not _is_prose(one):
                    write(one)
            written.append("]")
        else:
            written.append(repr(node))

    write(tree)
    return hashlib.sha256("\n".join(written).encode()).hexdigest()[:16]


def _is_prose(node: object) -> bool:
    """Whether a statement is a text and nothing else, as docstrings are."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _imports(tree: ast.Module, path: Path) -> Iterator[Path]:
    """Files that the names imported by a file come from, those imported inside its functions included."""
    packages: dict[str, Path] = {}
    nodes = list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level:
            for alias in node.names:
                origin = _origin(_base(node, path), alias.name)
                if origin.is_dir():
                    packages[alias.asname or alias.name] = origin
                else:
                    yield origin
    for node in nodes:
        # `regulate.pcgrad`, where the room itself was imported.
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in packages:
            yield _origin(packages[node.value.id], node.attr)


def _base(node: ast.ImportFrom, path: Path) -> Path:
    """Folder or file, without its ending, that a relative import names."""
    return path.parents[node.level - 1].joinpath(*(node.module or "").split("."))


def _origin(base: Path, name: str) -> Path:
    """The file that defines a name which is imported from a module; a folder where the name is a package."""
    for module in (base, base / name):
        if (file := module.with_suffix(".py")).is_file():
            return file
    if (base / name / "__init__.py").is_file():
        return base / name
    listing = base / "__init__.py"
    # What a package's listing does not import it defines itself.
    return _origin(*_listed(listing)[name]) if name in _listed(listing) else listing


@functools.cache
def _listed(listing: Path) -> dict[str, tuple[Path, str]]:
    """Names that a package's ``__init__`` imports: where from, and what they are called there."""
    imports = [node for node in ast.parse(listing.read_bytes()).body if isinstance(node, ast.ImportFrom) and node.level]
    return {alias.asname or alias.name: (_base(node, listing), alias.name) for node in imports for alias in node.names}


__all__ = ["changes", "code_that_runs", "digests", "digests_of_all"]
