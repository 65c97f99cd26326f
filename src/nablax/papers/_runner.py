"""Find the papers, run their checks, and keep the outcome."""

import dataclasses
import importlib
import json
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from .._core import Key, fault
from ._records import Check, Outcome, Paper

_RESULTS = Path(__file__).with_name("results.json")


def _modules() -> dict[str, ModuleType]:
    """Modules of the rooms' folders that hold a paper, by slug, in the order of their rows."""
    here = importlib.import_module(__package__ or "nablax.papers")
    found = pkgutil.walk_packages(here.__path__, f"{here.__name__}.")
    names = [module.name for module in found if not module.ispkg and not module.name.rpartition(".")[2].startswith("_")]
    modules = [importlib.import_module(name) for name in names]
    return {module.PAPER.slug: module for module in sorted(modules, key=lambda module: module.PAPER.row)}


def available() -> list[Paper]:
    """List the papers whose claims run, in the order of their rows.

    Returns:
        One `Paper` for each module of this room.

    Example:
        >>> from nablax import papers
        >>> "rectified-flow" in [paper.slug for paper in papers.available()]
        True

    Cost:
        None of any model.
    """
    return [module.PAPER for module in _modules().values()]


def run(slug: str, *, key: Key, full: bool = False) -> list[Check]:
    """Run the checks of one paper.

    Args:
        slug: the paper's short name, as `available` gives it.
        key: of all randomness.
        full: the paper's own protocol, or as near as the machine allows (minutes to hours); by default a scale that
            takes seconds.

    Returns:
        One `Check` for each claim.

    Raises:
        ValueError: no paper has this slug.

    Example:
        >>> import jax
        >>> from nablax import papers
        >>> checks = papers.run("multisample-couplings", key=jax.random.key(0))  # doctest: +SKIP

    Cost:
        The paper's; see its module.
    """
    modules = _modules()
    if slug not in modules:
        raise fault(expected=f"one of {', '.join(modules)}", got=repr(slug), mend="papers.available() lists them.")
    return modules[slug].checks(key, full=full)


def run_all(
    slugs: Sequence[str] | None = None,
    *,
    key: Key,
    full: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Outcome:
    """Run several papers; one that stops with an error does not keep the others from running.

    Args:
        slugs: short names; by default every paper.
        key: of all randomness; the same for each paper, so that a paper's result does not depend on its company.
        full: as in `run`.
        progress: called with the slug before each paper.

    Returns:
        An `Outcome`; ``table()`` prints it and ``ok`` says whether every claim came out as listed.

    Raises:
        ValueError: no paper has one of the slugs; nothing has been run then.

    Example:
        >>> import jax
        >>> from nablax import papers
        >>> papers.run_all([], key=jax.random.key(0)).summary()
        '0 papers, 0 claims: 0 hold, 0 listed as not reproducing'

    Cost:
        The sum of the papers'.
    """
    modules = _modules()
    wanted = list(modules) if slugs is None else list(slugs)
    if unknown := [slug for slug in wanted if slug not in modules]:
        raise fault(expected=f"some of {', '.join(modules)}", got=unknown, mend="papers.available() lists them.")
    checks: dict[str, list[Check]] = {}
    errors: dict[str, str] = {}
    for slug in wanted:
        if progress is not None:
            progress(slug)
        try:
            checks[slug] = modules[slug].checks(key, full=full)
        except Exception as error:  # reported, counted and fails the run; the other papers still speak
            errors[slug] = f"{type(error).__name__}: {error}"
    return Outcome(tuple(modules[slug].PAPER for slug in wanted), checks, errors)


def record(outcome: Outcome, path: Path | None = None) -> None:
    """Write an outcome to the file that `recorded` reads, in place of what it said of the same papers.

    Args:
        outcome: of `run_all`.
        path: the file; by default the one that ships with the package.
    """
    path = _RESULTS if path is None else path
    known = recorded(path) | outcome.checks
    text = {slug: [dataclasses.asdict(check) for check in known[slug]] for slug in sorted(known)}
    path.write_text(json.dumps(text, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def recorded(path: Path | None = None) -> dict[str, list[Check]]:
    """Read what came of the last recorded run, so that a listing need not run anything.

    Args:
        path: the file; by default the one that ships with the package.

    Returns:
        Checks by slug; empty where nothing was recorded.

    Example:
        >>> from nablax import papers
        >>> isinstance(papers.recorded(), dict)
        True
    """
    path = _RESULTS if path is None else path
    if not path.exists():
        return {}
    text = json.loads(path.read_text(encoding="utf-8"))
    return {slug: [Check(**check) for check in checks] for slug, checks in text.items()}
