"""A table's model for notebooks: learn, draw, score, complete, and the report beneath the cell."""

import dataclasses
import html
import numbers
import tempfile
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from .._core import check_count, fault, require
from ._open_run import open_run

if TYPE_CHECKING:
    from ._runs._run import Model

_HEIGHT = 900  # pixels of a report beneath a cell
_CHOSEN = {int: (numbers.Integral, "a whole number"), float: (numbers.Real, "a number"), str: (str, "text")}


@dataclasses.dataclass(frozen=True)
class Page:
    """A report: a notebook shows it, elsewhere its path leads to it.

    Attributes:
        path: of the HTML file, which opens offline.
    """

    path: Path

    def _repr_html_(self) -> str:
        inside = html.escape(self.path.read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{inside}" width="100%" height="{_HEIGHT}" style="border: 0"></iframe>'


class Table:
    r"""The learned distribution of a table's rows, $p(\text{row})$, and the run folder that holds it.

    ``Table.learn`` and ``nablax learn`` make the same folders, and ``Table.open`` opens those of either. Tables go in
    and come out in the library of the caller, Polars or pandas.

    Attributes:
        folder: of the run.
        model: what `nablax.app.open_run` gives: the learned field, and the way from rows to its points and back.

    Example:
        >>> from nablax.app import Table
        >>> def twins(frame, count):
        ...     table = Table.learn(frame, out="runs/people")
        ...     return table.sample(count), table.score(frame), table.report()

    References:
        Lipman et al. (2023), Flow Matching for Generative Modeling, https://arxiv.org/abs/2210.02747.
    """

    def __init__(self, model: "Model", *, pandas: bool = False) -> None:
        self.model = model
        self._pandas = pandas
        self._types: dict[str, Any] = {}  # of the columns of the table of pandas that was learnt

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.model.run.path

    @classmethod
    def open(cls, folder: Path | str, *, pandas: bool = False) -> Self:
        """Open a run folder; no code in it is executed.

        Args:
            folder: of a trained run.
            pandas: whether samples are to be tables of pandas. Default: of Polars.

        Returns:
            The table.

        Raises:
            UserError: no run folder, not trained yet, or learnt from images.
        """
        model = open_run(folder)
        model.table("Table")
        return cls(model, pandas=pandas)

    @classmethod
    def learn(
        cls,
        frame: Any,
        *,
        condition: Sequence[str] = (),
        out: Path | str | None = None,
        seed: int = 0,
        kinds: Mapping[str, str] | None = None,
        keep_relations: bool = False,
        report: Literal["none", "standard", "full"] = "standard",
        quiet: bool = False,
        **choices: Any,
    ) -> Self:
        """Learn a table, or go on where an interrupted call stopped.

        Args:
            frame: a DataFrame of Polars or pandas (its index is left aside), or the path of a file.
            condition: names of columns that rows will be asked by. Any can be, whether they are named here or not: that
                they are there is checked.
            out: run folder. Default: a new temporary one, which the system may delete; move it to keep it.
            seed: of all randomness.
            kinds: column to kind, where that is not to be chosen from the data, as ``--kind`` has them.
            keep_relations: have samples obey the exact relations between columns that are found: a column that follows
                from others is worked out from them and not modelled. Default: they are reported.
            report: "standard" takes at most half as long as training, or twelve CPU seconds, "full" leaves nothing out.
            quiet: print nothing.
            **choices: any of the numbers that ``nablax learn`` has flags for: ``steps``, ``width``, ``patience``, ….

        Returns:
            The table.

        Raises:
            UserError: the data cannot be learnt from, the folder holds another run, or another process works on it.
            ValueError: no such choice, an argument of another type, or what is given is no table.

        Cost:
            That of ``nablax learn``: for some hundreds of rows and up to ten columns about half a minute of processor
            time of training, most of it compiling, and half as much again for a standard report.
        """
        require("polars", extra="app")
        from rich.console import Console

        from ._frames import is_pandas, types_of
        from ._key import learning_seed
        from ._progress_bar import progress_bar, stage_bar
        from ._report._evaluate import evaluate
        from ._runs._learn import configure, learn, notices_of
        from ._runs._place import at_work
        from ._runs._run import load

        say = _silent if quiet else print
        if report not in ("none", "standard", "full"):
            raise fault(expected="report none, standard or full", got=repr(report), fix='Pass report="full", for one.')
        condition, asked = _names(condition, "condition"), _choices(choices)
        seed = learning_seed(seed)
        folder = Path(tempfile.mkdtemp(prefix="nablax-")) if out is None else Path(out)
        with _source(frame, folder) as source:
            config, opened = configure(
                str(source),
                condition=condition,
                seed=seed,
                kinds=kinds,
                choices=asked,
                keep_relations=keep_relations,
                reported=report != "none",
            )
        config = dataclasses.replace(config, name=folder.name)
        for line in (*opened.notices, *notices_of(config, keep_relations=keep_relations)):
            say(line)
        console = Console(highlight=False)
        with at_work(folder, config):
            with progress_bar(console, "learning", visible=not quiet) as progress:
                run = learn(config, opened, folder, notice=say, progress=progress)
            if report != "none" and not run.finished:
                with stage_bar(console, "report", visible=not quiet) as stage:
                    evaluate(run, opened, notice=say, stage=stage, full=report == "full")
        table = cls(load(folder), pandas=is_pandas(frame))
        table._types = types_of(frame)
        return table

    def sample(
        self, count: int = 100, *, condition: Mapping[str, Any] | None = None, guide: str | None = None, seed: int = 0
    ) -> Any:
        """Draw new rows.

        Args:
            count: how many.
            condition: column to value.
            guide: comparisons joined by "and" that the rows are steered to satisfy, such as "age > 40 and sex == f" or
                "`body mass` > 5 and day < 2021-06-01".
            seed: the same seed gives the same rows.

        Returns:
            A DataFrame with the columns that were learned, and right after `learn` with the types of its table.

        Raises:
            UserError: an unknown column or value, or a guide that cannot be satisfied.
            ValueError: conditions that are no mapping.
        """
        from ._ask._sample import sample
        from ._frames import to_pandas

        count = check_count(count, what="count")
        if condition is not None and not isinstance(condition, Mapping):
            fix = 'Pass condition={"colour": "red"}, for one.'
            raise fault(expected="condition as columns to values", got=repr(condition), fix=fix)
        asked = {name: str(value) for name, value in (condition or {}).items()}
        drawn = sample(self.model, count, seed=seed, condition=asked, guide=guide)
        for line in drawn.notices:
            print(line)
        return to_pandas(drawn.frame, self._types) if self._pandas else drawn.frame

    def score(self, frame: Any, *, given: Sequence[str] = (), bits: bool = False, draws: int = 4, seed: int = 0) -> Any:
        """Log-likelihood of rows, its standard error, and their outlier rank (1 is the least likely).

        Args:
            frame: a DataFrame with the columns that were learned.
            given: columns to condition on: the others' likelihood given these.
            bits: bits per column in place of nats per row.
            draws: of the noise that fills whole numbers and categories, for each row.
            seed: of those draws.

        Returns:
            The table, its cells and types as they came, with three more columns.

        Raises:
            UserError: the table does not fit the model, or has no rows.
            ValueError: names that are no list, or what is given is no table.
        """
        from ._ask._score import scored_frame
        from ._frames import like, to_polars

        given = _names(given, "given")
        scored = scored_frame(self.model, to_polars(frame), bits=bits, draws=draws, seed=seed, given=given)
        for line in scored.notices:
            print(line)
        return like(scored.frame, frame)

    def complete(self, frame: Any, *, draws: int | None = None, interval: float | None = None, seed: int = 0) -> Any:
        """Fill missing cells by draws from their distribution given the others.

        Args:
            frame: a DataFrame with holes.
            draws: give so many draws of every row, one below the other; by default their mean or most frequent, once.
            interval: such as 0.8: further columns ``..._low`` and ``..._high`` that hold so much of the draws.
            seed: the same seed gives the same completions.

        Returns:
            The table without holes.

        Raises:
            UserError: the table does not fit the model, or there is nothing to fill.
        """
        from ._ask._complete import complete
        from ._frames import like, to_polars

        completed = complete(self.model, to_polars(frame), draws=draws, interval=interval, seed=seed)
        for line in completed.notices:
            print(line)
        return like(completed.frame, frame)

    def report(self, *, full: bool = False) -> Page:
        """The report, shown beneath the cell of a notebook; it is made first where there is none.

        Args:
            full: make it anew with nothing left out, as ``nablax check`` does.

        Returns:
            The page.

        Raises:
            UserError: it has to be made, and the data are gone or have changed.
        """
        path = self.folder / "report.html"
        if full or not path.exists():
            from ._report._evaluate import check

            check(self.folder, None, notice=_silent)
        return Page(path)

    def __repr__(self) -> str:
        config = self.model.config
        return f"Table({config.rows:,} rows × {self.model.codec.cells} modelled columns, in {self.folder})"


@contextmanager
def _source(frame: Any, folder: Path) -> Iterator[Path]:
    """The file that a run is learnt from: the one named, or the table written into the run folder.

    What was written goes again where it cannot be learnt from.
    """
    if isinstance(frame, str | Path):
        yield Path(frame)
        return
    from ._frames import to_polars
    from ._runs._place import keep_data

    rows, before = to_polars(frame), folder.exists()
    place = keep_data(rows, folder)
    try:
        yield place
    except BaseException:
        if not before:
            place.unlink()
            folder.rmdir()
        raise


def _choices(given: Mapping[str, Any]) -> Any:
    from ._runs._config import Choices

    known = [field.name for field in dataclasses.fields(Choices)]
    if unknown := sorted(given.keys() - known):
        raise fault(expected=f"choices among {', '.join(known)}", got=", ".join(unknown), fix="Use those names.")
    for field in dataclasses.fields(Choices):
        value, wanted = given.get(field.name), typing.get_args(field.type)[0]
        if value is not None and (isinstance(value, bool) or not isinstance(value, _CHOSEN[wanted][0])):
            expected = f"{field.name} as {_CHOSEN[wanted][1]}"
            raise fault(expected=expected, got=repr(value), fix="None leaves the choice to the data.")
    return Choices(**given)


def _names(given: Sequence[str], what: str) -> tuple[str, ...]:
    if isinstance(given, str):
        raise fault(expected=f"{what} as a list of names", got=repr(given), fix=f"Pass {what}=[{given!r}].")
    return tuple(given)


def _silent(text: str) -> None:
    """Say nothing."""


__all__ = ["Page", "Table"]
