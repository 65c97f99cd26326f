"""The command line: arguments in, one of the room's functions called, plain words out."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ._cache import kept_programs
from ._compiling import quick_compiling
from ._errors import UserError
from ._quoting import names, pairs

if TYPE_CHECKING:
    import polars as pl

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Nablax: learn the field that generates your data; draw, score, complete and check.",
    epilog="Compiled programs are kept in the user's cache folder. NABLAX_CACHE names another; with NABLAX_CACHE=off "
    "they are compiled at every call.",
)
papers_app = typer.Typer(invoke_without_command=True, help="What is implemented, and whether its claim holds.")
app.add_typer(papers_app, name="papers")
console = Console(highlight=False)
aside = Console(highlight=False, stderr=True)


class Report(StrEnum):
    """How much of a report ``learn`` makes."""

    none = "none"
    standard = "standard"
    full = "full"


RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write.", show_default="print")]
Encoding = Annotated[
    str | None, typer.Option(help="Of a file of text, such as latin-1.", show_default="UTF-8, or the training file's")
]


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a claim does not hold, 2 a fault in what was given.

    Args:
        arguments: in place of ``sys.argv``.
    """
    try:
        app(arguments, standalone_mode=True)
    except UserError as error:
        print(f"nablax: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def notice(text: str, *, to: Console = console) -> None:
    """Print one line for the person."""
    to.print(text, soft_wrap=True, markup=False)


@app.command()
@quick_compiling()
@kept_programs()
def learn(
    source: Annotated[str, typer.Argument(help="CSV, Parquet, .npy, .npz, a folder of images, a named set, or - .")],
    condition: Annotated[
        list[str] | None,
        typer.Option("--condition", "-c", help="Of images, their label. Any columns of a table can be given later."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder.", show_default="runs/NAME")] = None,
    steps: Annotated[int | None, typer.Option(help="Updates.", show_default="from the data")] = None,
    seed: Annotated[int, typer.Option(help="Of all randomness.")] = 0,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="COLUMN=KIND, where the data's choice is wrong: number, grid, category, time, identifier or omit."
        ),
    ] = None,
    network: Annotated[str | None, typer.Option(help="mlp or transformer.")] = None,
    width: Annotated[int | None, typer.Option(help="Units of a hidden layer.")] = None,
    depth: Annotated[int | None, typer.Option(help="Blocks.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows in an update.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak of the schedule.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of AdamW.")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of the average of the weights; 0 for none.")] = None,
    condition_dropout: Annotated[float | None, typer.Option(help="Share of rows trained unconditionally.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Samples' default; above 1 leans to the label.")] = None,
    patience: Annotated[int | None, typer.Option(help="Validations without a new best; 0 never stops early.")] = None,
    held_out: Annotated[float | None, typer.Option(help="Share of rows for the report; 0 learns from all.")] = None,
    validation: Annotated[float | None, typer.Option(help="Share of the rest for early stopping.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Crop and scale images to this side.")] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(min=1, help="Steps.", show_default="ten seconds' worth")
    ] = None,
    memory_limit: Annotated[
        float | None, typer.Option(min=0, help="MiB of data above which rows stay on disk.", show_default="1024")
    ] = None,
    decimal: Annotated[str | None, typer.Option(help="point or comma.", show_default="from the data")] = None,
    dates: Annotated[
        str | None, typer.Option(help="day-first, month-first or year-first.", show_default="from the data")
    ] = None,
    missing_values: Annotated[
        str | None,
        typer.Option(help="The words for a missing cell, joined by commas.", show_default="NA, NaN, null, ?, …"),
    ] = None,
    header: Annotated[
        bool | None, typer.Option("--header/--no-header", help="Whether the first line names the columns.")
    ] = None,
    encoding: Encoding = None,
    keep_relations: Annotated[
        bool, typer.Option("--keep-relations", help="Have samples obey the exact relations between columns.")
    ] = False,
    report: Annotated[
        Report, typer.Option(help="standard takes half as long as training, or 12 s; full leaves nothing out.")
    ] = Report.standard,
    coordinator: Annotated[str | None, typer.Option(help="HOST:PORT of process 0, on several hosts.")] = None,
    processes: Annotated[int | None, typer.Option(help="How many processes, on several hosts.")] = None,
    process: Annotated[int | None, typer.Option(help="Which of them this one is, from 0.")] = None,
) -> None:
    """Learn the field that generates the data, and write a run folder with samples, scores and a report."""
    from ._data._plain_text import TextOptions
    from ._interrupt import gently
    from ._key import learning_seed
    from ._progress_bar import progress_bar, stage_bar
    from ._runs._config import Choices
    from ._runs._learn import configure, learn, notices_of
    from ._runs._place import at_work

    first = _join(coordinator, processes, process)
    say = notice if first else _silent
    choices = Choices(
        network=network,
        width=width,
        depth=depth,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        ema=ema,
        condition_dropout=condition_dropout,
        guidance_scale=guidance_scale,
        patience=patience,
        held_out=held_out,
        validation=validation,
    )
    config, opened = configure(
        source,
        condition=names(condition or []),
        seed=learning_seed(seed),
        choices=choices,
        kinds=pairs(kind or [], "--kind"),
        image_size=image_size,
        memory_limit=None if memory_limit is None else int(memory_limit * 2**20),
        text=TextOptions(decimal=decimal, dates=dates, missing=missing_values, encoding=encoding, header=header),
        keep_relations=keep_relations,
        reported=report is not Report.none,
    )
    folder = out or Path("runs") / config.name
    for line in (*opened.notices, *notices_of(config, keep_relations=keep_relations)):
        say(line)
    with at_work(folder, config, alone=first):
        with progress_bar(console, "learning", visible=first) as progress, gently(progress, say) as told:
            done = learn(config, opened, folder, notice=say, progress=told, checkpoint_every=checkpoint_every)
        if not first:
            return
        if done.finished:
            say(f"{folder} is finished already; nothing to do. Its report: {folder / 'report.html'}")
            return
        if report is Report.none:
            rows = "" if config.choices["held_out"] else " ROWS"  # a file of them: none were held out
            say(f"trained: {folder}; 'nablax check {shlex.quote(str(folder))}{rows}' writes its report")
            return
        from ._report._evaluate import evaluate

        with stage_bar(console, "report") as stage:
            evaluate(done, opened, notice=say, stage=stage, full=report is Report.full)
    say(f"report: {folder / 'report.html'}")


@app.command()
@kept_programs()
def sample(
    folder: RunFolder,
    count: Annotated[int, typer.Option("-n", "--count", help="Rows.")] = 100,
    condition: Annotated[list[str] | None, typer.Option("--condition", "-c", help="COLUMN=VALUE; repeat.")] = None,
    guide: Annotated[
        str | None,
        typer.Option(help='Such as "petal_length > 5 and day < 2021-06-01"; `a b` > 1 for a name with a blank.'),
    ] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="Above 1 leans towards the condition.", show_default="the run's")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same rows.")] = 0,
    output: Output = None,
) -> None:
    """Draw new rows, conditioned and steered."""
    from ._ask._sample import sample
    from ._runs._run import load

    model = load(folder)
    _spare(output, {"the data that the run was learnt from": model.config.source})
    drawn = sample(
        model,
        count,
        seed=seed,
        condition=pairs(condition or [], "--condition"),
        guide=guide,
        scale=guidance_scale,
    )
    _deliver(model.codec.spell(drawn.frame), output, drawn.notices)


@app.command()
@kept_programs()
def score(
    folder: RunFolder,
    data: Annotated[str, typer.Argument(help="Rows to score.")],
    bits: Annotated[bool, typer.Option("--bits", help="Bits per dimension in place of nats.")] = False,
    draws: Annotated[int, typer.Option(min=1, help="Of the dequantisation noise, for each row.")] = 4,
    seed: Annotated[int, typer.Option(help="Of those draws.")] = 0,
    given: Annotated[
        list[str] | None, typer.Option(help="Columns to condition on: the others' likelihood given these.")
    ] = None,
    encoding: Encoding = None,
    output: Output = None,
) -> None:
    """Log-likelihood of each row, its standard error, and its outlier rank (1 is the least likely)."""
    from ._ask._score import scored_frame
    from ._runs._run import load

    model = load(folder)
    _spare(output, {"the rows to score": data, "the data that the run was learnt from": model.config.source})
    rows = model.read(data, encoding)
    scored = scored_frame(model, rows, bits=bits, draws=draws, seed=seed, given=names(given or []))
    _deliver(scored.frame, output, scored.notices)


@app.command()
@kept_programs()
def complete(
    folder: RunFolder,
    data: Annotated[str, typer.Argument(help="Rows with missing cells.")],
    draws: Annotated[
        int | None, typer.Option(min=1, help="Write so many draws of every row.", show_default="their centre, once")
    ] = None,
    interval: Annotated[
        float | None, typer.Option(help="Such as 0.8: columns ..._low and ..._high that hold so much of the draws.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same completions.")] = 0,
    encoding: Encoding = None,
    output: Output = None,
) -> None:
    """Fill missing cells by draws from their distribution given the others."""
    from ._ask._complete import complete
    from ._runs._run import load

    model = load(folder)
    _spare(output, {"the rows to complete": data, "the data that the run was learnt from": model.config.source})
    completed = complete(model, model.read(data, encoding), draws=draws, interval=interval, seed=seed)
    _deliver(completed.frame, output, completed.notices)


@app.command()
@kept_programs()
def check(
    folder: RunFolder,
    data: Annotated[str | None, typer.Argument(help="Rows to check against.", show_default="those held out")] = None,
    encoding: Encoding = None,
) -> None:
    """The field's health, printed and written to the report."""
    from ._progress_bar import stage_bar
    from ._report._evaluate import check
    from ._runs._lock import held
    from ._runs._place import roomy
    from ._runs._run import load

    load(folder)  # before anything is written there
    with held(folder), roomy(folder), stage_bar(console, "report") as stage:
        check(folder, data, encoding=encoding, notice=notice, stage=stage)


@papers_app.callback()
def papers(context: typer.Context) -> None:
    """What is implemented, and whether its claim holds."""
    if context.invoked_subcommand is None:
        from ._papers import listing

        notice(listing(console.width if console.is_terminal else None))


@papers_app.command("run")
def run_papers(
    slugs: Annotated[list[str] | None, typer.Argument(metavar="SLUG...", help="Which papers.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    stale: Annotated[bool, typer.Option("--stale", help="Those whose code changed since they were recorded.")] = False,
    full: Annotated[bool, typer.Option("--full", help="The paper's own protocol; minutes, not seconds.")] = False,
    seed: Annotated[int, typer.Option(help="Of all randomness.")] = 0,
    keys: Annotated[
        int | None, typer.Option(min=1, help="Keys to run each at.", show_default="1, and 3 with --record")
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Keep what comes of each, with digests of the code that ran.")
    ] = False,
    figures: Annotated[Path | None, typer.Option(help="Folder for pictures of claims that have one.")] = None,
) -> None:
    """Check the papers' own claims; ends with one line of counts, and fails when a listed claim does not hold."""
    from ._papers import run_claims

    held = run_claims(
        slugs or [],
        everything=everything,
        stale=stale,
        full=full,
        seed=seed,
        keys=keys,
        record=record,
        figures=figures,
        notice=notice,
    )
    if not held:
        raise typer.Exit(1)


def _spare(output: Path | None, inputs: Mapping[str, str]) -> None:
    """Refuse to write over what is read."""
    for what, place in inputs.items():
        if output is not None and output.exists() and Path(place).exists() and output.samefile(place):
            raise UserError(f"-o {output} would write over {what}: name another file")


def _deliver(frame: "pl.DataFrame", output: Path | None, notices: Sequence[str] = ()) -> None:
    from ._ask._write import write_frame

    for line in notices:
        notice(line, to=aside if output is None else console)  # a table that is printed may be on its way to a file
    if output is None:
        printed = frame.drop([n for n, d in frame.schema.items() if d.is_nested()]).write_csv()
        try:
            sys.stdout.write(printed)
            sys.stdout.flush()
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise  # whoever reads has had enough
            # What is left of it would be written again at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise UserError(f"the standard output cannot be written: {error.strerror}") from None
    else:
        write_frame(frame, output)
        notice(f"wrote {len(frame)} rows to {output}")


def _join(coordinator: str | None, processes: int | None, process: int | None) -> bool:
    """Join the other processes, if any; tell whether this one is the first."""
    given = [value is not None for value in (coordinator, processes, process)]
    if any(given) and not all(given):
        raise UserError("--coordinator, --processes and --process go together")
    if not all(given):
        return True
    import jax

    jax.distributed.initialize(coordinator, processes, process)
    return process == 0


def _silent(text: str) -> None:
    """Say nothing: another process speaks."""


__all__ = ["app", "run"]
