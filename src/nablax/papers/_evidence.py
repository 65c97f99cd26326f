"""What came of checking each paper, kept beside the code that it came of."""

import dataclasses
import importlib.metadata
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax

from .._core import Key, fault
from ._catalogue import available
from ._code import changes, digests
from ._records import Check, check_from

_FOLDER = Path(__file__).with_name("_recorded")
_LIBRARIES = ("jax", "jaxlib", "numpy", "equinox", "optax", "diffrax", "lineax", "optimistix")


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What was recorded of one paper.

    Attributes:
        checks: its claims, without their figures.
        key: data of the key that they were checked with; empty for a record that is older than such notes.
        keys: how many keys, that one and others folded into it.
        full: whether at the paper's own scale.
        versions: of the libraries, by name; empty for such a record.
        code: digests of the files of ``nablax`` that ran, and of those that they import from, by path within the
            package; empty for such a record.

    Example:
        >>> from nablax import papers
        >>> papers.recorded()["rectified-flow"].full
        False
    """

    checks: tuple[Check, ...]
    key: tuple[int, ...]
    keys: int
    full: bool
    versions: dict[str, str]
    code: dict[str, str]

    def changes(self) -> list[str]:
        """What has changed in the code since, in words, file by file; empty where nothing has.

        Comments, docstrings and layout do not count, and neither do the versions of libraries: the project pins those
        that its own checks run with, and a user's differ.
        """
        return changes(self.code) if self.code else ["recorded without the code that ran"]

    def other_versions(self) -> dict[str, tuple[str, str]]:
        """Libraries that are installed in another version than was recorded: name → (recorded, installed)."""
        here = _versions()
        return {name: (then, here[name]) for name, then in self.versions.items() if here.get(name, then) != then}


def record(
    slug: str, checks: Sequence[Check], ran: Iterable[str], *, before: dict[str, str], key: Key, keys: int, full: bool
) -> None:
    """Keep what came of one paper in place of what was kept of it; a file is written whole or not at all.

    Args:
        slug: the paper's short name.
        checks: its claims.
        ran: files of the package that ran, as `code_that_runs` gives them.
        before: `digests` of all files, from before anything ran.
        key: that they were checked with.
        keys: how many, that one and others folded into it.
        full: whether at the paper's own scale.

    Raises:
        ValueError: a file is another than before, so that what ran is not what it says now.
    """
    code = digests(ran)
    if edited := [file for file, digest in code.items() if before.get(file) != digest]:
        raise fault(expected="code that stays while it runs", got=f"another {edited[0]}", fix="Run it again.")
    text = {
        "key": jax.random.key_data(key).tolist(),
        "keys": keys,
        "full": full,
        "versions": _versions(),
        "code": code,
        "checks": [check.kept() for check in checks],
    }
    _FOLDER.mkdir(exist_ok=True)
    partial = _FOLDER / f"{slug}.{os.getpid()}.partial"
    partial.write_text(_json(text) + "\n", encoding="utf-8")
    partial.replace(_FOLDER / f"{slug}.json")


def recorded() -> dict[str, Evidence]:
    """Read what came of the papers when they were last recorded, so that a listing need not run anything.

    Returns:
        An `Evidence` for each paper that was ever recorded, by slug.

    Example:
        >>> from nablax import papers
        >>> len(papers.recorded()["ridge-rider"].checks)
        1
    """
    return {path.stem: _read(path) for path in sorted(_FOLDER.glob("[!.]*.json"))}


def stale() -> dict[str, list[str]]:
    """List the papers whose evidence is not of the code that stands, and say what changed.

    Returns:
        What `Evidence.changes` says, by slug, for those of whom it says anything, in the order of `available`;
        "never recorded" for a paper that has no evidence.

    Example:
        >>> from nablax import papers
        >>> set(papers.stale()) <= {paper.slug for paper in papers.available()}
        True

    Cost:
        Each file that a record names is parsed once in a process, about a second in all.
    """
    known = recorded()
    said = {
        paper.slug: known[paper.slug].changes() if paper.slug in known else ["never recorded"] for paper in available()
    }
    return {slug: changes for slug, changes in said.items() if changes}


def _read(path: Path) -> Evidence:
    try:
        text = json.loads(path.read_text(encoding="utf-8"))
        checks = tuple(check_from(check) for check in text["checks"])
        # Records from before there were several say nothing of their number.
        keys = text.get("keys", 1)
        return Evidence(checks, tuple(text["key"]), keys, text["full"], text["versions"], text["code"])
    except (ValueError, KeyError, TypeError) as error:
        fix = f"nablax papers run {path.stem} --record writes it anew; delete it first."
        raise fault(expected=f"evidence in {path}", got=f"{type(error).__name__}: {error}", fix=fix) from error


def _json(text: dict[str, object]) -> str:
    """A line for each entry, and for each list of numbers, so that changes can be read and files stay small."""
    lines = json.dumps(text, indent=1, ensure_ascii=False)
    return re.sub(r"\[\n\s+([-+.\deE,\s]+?)\n\s+\]", lambda found: f"[{' '.join(found[1].split())}]", lines)


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


__all__ = ["Evidence", "record", "recorded", "stale"]
