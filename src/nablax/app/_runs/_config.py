"""Every choice that `learn` makes, made from the data and written down with its reason."""

import dataclasses
import json
from typing import Any

from .._errors import UserError

# Validations without a new best after which training stops, whatever the number of rows. Every validation has the same
# rows and the same noise, so from one to the next the loss moves by its trend and some 0.0005 to 0.005 of jitter. In 18
# trainings (6 tables of 32 to 569 rows, 3 seeds) 10 validations gave up none of what training to the end reached, and
# 8 gave some up in one.
_PATIENCE = 10


@dataclasses.dataclass(frozen=True)
class Choices:
    """What the person at the keyboard asked for; None leaves the choice to the data.

    Attributes:
        network: "mlp" or "transformer".
        width: units of a hidden layer.
        depth: hidden layers or blocks.
        steps: updates.
        batch_size: rows in an update.
        learning_rate: peak of the schedule.
        weight_decay: of AdamW.
        ema: decay of the average of the weights.
        condition_dropout: share of rows trained without their condition.
        guidance_scale: how far samples lean towards their condition; 1 draws the learned distribution.
        patience: validations without improvement after which training stops; 0 for never.
        held_out: share of the rows kept for the report; 0 learns from them too, and leaves none to report on.
        validation: share of the remaining rows kept for early stopping.
    """

    network: str | None = None
    width: int | None = None
    depth: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    ema: float | None = None
    condition_dropout: float | None = None
    guidance_scale: float | None = None
    patience: int | None = None
    held_out: float | None = None
    validation: float | None = None


# Of what the weights of a table are added to. Another one's would open, and mean something else.
GENERATION = 3


@dataclasses.dataclass(frozen=True)
class Config:
    """The whole configuration of a run: with the data it determines the result.

    Attributes:
        version: of nablax.
        source: as given on the command line, made absolute when it is a file.
        name: of the data.
        kind: "table" or "images".
        rows: of the data.
        fingerprint: of the data.
        condition: names of the conditioning columns.
        codec: how rows become arrays, as JSON.
        seed: of all randomness.
        choices: every choice, by name (see `Choices`).
        reasons: why each was made.
        image_size: side to which images were cropped and scaled; None for their own.
        text: how a file of text was to be read (see `TextOptions`), what was not said left out.
        generation: of the model of tables (see `GENERATION`).
    """

    version: str
    source: str
    name: str
    kind: str
    rows: int
    fingerprint: str
    condition: tuple[str, ...]
    codec: dict[str, Any]
    seed: int
    choices: dict[str, Any]
    reasons: dict[str, str]
    image_size: int | None = None
    text: dict[str, Any] = dataclasses.field(default_factory=dict)
    generation: int = 1

    def to_json(self) -> str:
        """The configuration as indented JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str) -> "Config":
        """Undo ``to_json``."""
        fields = json.loads(text)
        return Config(**{**fields, "condition": tuple(fields["condition"])})

    def differences(self, other: "Config") -> list[str]:
        """Names of what differs between two configurations, apart from wording and the way the file was named."""
        mine, yours = dataclasses.asdict(self), dataclasses.asdict(other)
        for side in (mine, yours):
            for ignored in ("reasons", "source", "name", "version"):
                side.pop(ignored)
            side.update({f"choices.{name}": value for name, value in side.pop("choices").items()})
            # Relations that are not kept change nothing in what is learnt.
            kept = [relation for relation in side["codec"].pop("relations", ()) if relation["kept"]]
            side["relations kept (--keep-relations)"] = json.dumps(kept, sort_keys=True)
            side["codec"] = json.dumps(side["codec"], sort_keys=True)
            side["condition"] = list(side["condition"])
        return sorted(name for name in mine.keys() | yours.keys() if mine.get(name) != yours.get(name))


def choose(asked: Choices, *, kind: str, rows: int, dim: int, condition_dim: int) -> tuple[dict, dict]:
    """Fill in what was not asked for, from the size of the data.

    Args:
        asked: what was.
        kind: "table" or "images".
        rows: rows of the data.
        dim: coordinates of an encoded row.
        condition_dim: length of the condition vector.

    Returns:
        Choices by name, and the reason for each.

    Raises:
        UserError: a number is out of its range.
    """
    chosen: dict[str, Any] = {}
    reasons: dict[str, str] = {}

    def settle(name: str, value: Any, reason: str) -> Any:
        given = getattr(asked, name)
        chosen[name] = value if given is None else given
        reasons[name] = reason if given is None else "asked for"
        return chosen[name]

    kept, stopped_by = shares(asked, rows)
    held_out = settle("held_out", kept, "a fifth of the rows, at most 10 000")
    validation = settle("validation", stopped_by, "a tenth of the rest, at most 10 000")
    _require(chosen, {"held_out": (0.0, 0.9), "validation": (0.01, 0.9)})
    reported, validated = part_sizes(rows, held_out, validation)
    training = rows - reported - validated
    few = rows < 10_000
    large = kind == "images" and dim > 256
    why = "for images this large, attention between patches" if large else "fully connected; cheap exact likelihoods"
    network = settle("network", "transformer" if large else "mlp", why)
    width = 128 if dim <= 32 and few else 192 if few else 256 if dim <= 256 else 512
    if kind == "table":
        width = 128 if dim <= 32 else 192 if dim <= 64 else 256
    width = 64 if network == "transformer" else width
    settle("width", width, f"for {dim} dimensions and {rows} rows")
    settle("depth", 3 if dim <= 32 else 4, f"residual blocks, for {dim} dimensions")
    batch = 64 if network == "transformer" else 256 if few or kind == "table" else 512
    half = max(16, training // 2 // 16 * 16)  # so that 2, 4, 8 or 16 devices can share it
    settle("batch_size", min(batch, half, max(training, 1)), f"for {training} training rows")
    steps = 4000 if dim <= 32 and few else 6000 if few else 8000
    if kind == "table":
        # Of penguins, houses and quakes, at two seeds each, 4000 made held-out rows no likelier.
        steps = 2000 if rows < 1_000 else 4000 if rows < 5_000 else 6000 if rows < 20_000 else 8000
    settle("steps", steps, f"for {rows} rows in {dim} dimensions; early stopping may end sooner")
    settle(
        "learning_rate",
        3e-3 if kind == "table" else 1e-3,
        "AdamW's peak, after a warm-up and before a cosine decay",
    )
    settle("weight_decay", 0.01, "AdamW's usual")
    settle("ema", 0.999, "averages the last thousand steps")
    settle("condition_dropout", 0.1 if condition_dim else 0.0, "for classifier-free guidance")
    images = kind == "images" and condition_dim
    why = "clearer images of the label asked for; 1 draws the learned distribution" if images else "as learned"
    settle("guidance_scale", 1.25 if images else 1.0, why)
    settle("patience", _PATIENCE, "validations without a new best")
    _check(chosen, training, kind)
    return chosen, reasons


def shares(asked: Choices, rows: int) -> tuple[float, float]:
    """Share of the rows held out for the report, and share of the others kept for early stopping."""
    held_out = 0.2 if rows < 50_000 else 10_000 / rows
    validation = 0.1 if rows < 100_000 else 10_000 / rows
    return (
        held_out if asked.held_out is None else asked.held_out,
        validation if asked.validation is None else asked.validation,
    )


def part_sizes(rows: int, held_out: float, validation: float) -> tuple[int, int]:
    """Rows held out for the report, and rows kept for early stopping: at least two each, or none held out if asked."""
    reported = max(2, round(rows * held_out)) if held_out else 0
    return reported, max(2, round((rows - reported) * validation))


def _check(chosen: dict[str, Any], training: int, kind: str) -> None:
    if training < 2:
        raise UserError("--held-out and --validation leave no rows to train on; lower them")
    ranges = {
        "width": (1, 16_384),
        "depth": (1, 64),
        "steps": (1, 10**9),
        "batch_size": (1, training),
        "learning_rate": (1e-9, 10.0),
        "weight_decay": (0.0, 10.0),
        "ema": (0.0, 0.999999),
        "condition_dropout": (0.0, 0.9),
        "guidance_scale": (0.0, 20.0),
        "patience": (0, 10**6),
    }
    _require(chosen, ranges)
    if chosen["network"] not in ("mlp", "transformer"):
        raise UserError(f"--network should be mlp or transformer, not {chosen['network']!r}")
    if chosen["network"] == "transformer" and kind != "images":
        raise UserError("--network transformer is for images")


def _require(chosen: dict[str, Any], ranges: dict[str, tuple[float, float]]) -> None:
    for name, (low, high) in ranges.items():
        if not low <= chosen[name] <= high:
            raise UserError(f"--{name.replace('_', '-')} should lie between {low:g} and {high:g}, not {chosen[name]:g}")


__all__ = ["Choices", "Config", "choose", "part_sizes", "shares"]
