"""Check-ups every so many steps of a training loop, kept together."""

import inspect
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import optax
from jaxtyping import Array, PyTree

from ..._core import Finding, Key, check_callable, check_count, check_key, check_optimizer, fault, gravest_first
from ...follow import lowered
from ._checkup import checkup
from ._log import Log, log_to
from ._noise_scale import NoiseScale
from ._record import Checkup
from ._trends import trends
from ._watch_page import watch_page

# What every check-up is given by the watch itself.
_GIVEN = ("loss", "params", "batch", "opt_state", "update", "key", "optimizer")
OnFault = Callable[[int, Checkup], Any]


class FaultFound(RuntimeError):
    """A watch has found a fault, and was told to raise.

    Attributes:
        number: of the step that was about to be made.
        record: the check-up.
        finding: the fault, of this check-up or of all so far together.
    """

    def __init__(self, number: int, record: Checkup, finding: Finding) -> None:
        super().__init__(f"step {number}: {finding.text}")
        self.number, self.record, self.finding = number, record, finding


class Watch:
    """Collects check-ups; made by :func:`watch`.

    Attributes:
        records: ``(step, check-up)`` pairs, oldest first. The optimiser's ``rates`` in them are None, so that a run
            keeps no copies of the size of the parameters.
        every: steps from one check-up to the next.
    """

    def __init__(
        self,
        loss: Callable[..., Array],
        every: int,
        key: Key,
        on_fault: str | OnFault | None,
        options: dict[str, Any],
    ) -> None:
        self.records: list[tuple[int, Checkup]] = []
        self.every = every
        self._loss, self._key, self._on_fault, self._options = loss, key, on_fault, options
        # One optimiser for all looks, so that the check-up is compiled once.
        optimizer = options["optimizer"]
        self._lowered = None if optimizer is None else lowered(optimizer)
        self._count = 0
        self._logs: list[Log] = []

    def step(
        self,
        params: PyTree,
        batch: PyTree,
        opt_state: PyTree = None,
        *,
        update: PyTree = None,
        number: int | None = None,
    ) -> Checkup | None:
        """Say that a step is about to be made; every so many of them it is checked.

        Args:
            params: before the step.
            batch: of the step.
            opt_state: before the step.
            update: of the step, if not what the optimiser makes of this batch's gradient.
            number: of the step; None to count the calls from 0.

        Returns:
            The check-up, or None on the steps between.

        Raises:
            FaultFound: this check-up, or all so far together, have found a fault, for ``on_fault="raise"``.
        """
        number = self._count if number is None else number
        self._count = number + 1
        if number % self.every:
            return None
        record = self._look(number, params, batch, opt_state, update, self._options)
        self._tell(number, record)
        return record

    def __call__(self, number: int, params: PyTree, opt_state: PyTree, batch: PyTree) -> Any:
        """Look at a step that `nablax.follow.fit` is about to make, as its ``watch``; what ``on_fault`` returns."""
        # The state is that of the optimiser with the factor that `fit` may lower.
        options = self._options if self._lowered is None else self._options | {"optimizer": self._lowered}
        return self._tell(number, self._look(number, params, batch, opt_state, None, options))

    def log(self, writer: Any) -> "Watch":
        """Hand each check-up's numbers on, those that there are already and those to come.

        Args:
            writer: a path, of a CSV file with a line for each check-up, whose lines of earlier steps stay where a run
                is resumed; a ``SummaryWriter`` of TensorBoard or what has its ``add_scalar(name, value, step)``; a run
                of Weights & Biases or what has its ``log(numbers, step=...)``; or ``writer(step, numbers)``. Names are
                those of a check-up's ``metrics``.

        Returns:
            The watch itself.

        Raises:
            ValueError: the writer is none of these.
        """
        log = log_to(writer)
        for number, record in self.records:
            log(number, record.metrics())
        self._logs.append(log)
        return self

    def _tell(self, number: int, record: Checkup) -> Any:
        if self._on_fault is None or (found := self.findings[0]).level != "fault":
            return None
        if callable(self._on_fault):
            return self._on_fault(number, record)
        if self._on_fault == "raise":
            raise FaultFound(number, record, found)
        warnings.warn(f"step {number}: {found.text}", stacklevel=3)
        return None

    def _look(
        self, number: int, params: PyTree, batch: PyTree, opt_state: PyTree, update: PyTree, options: dict[str, Any]
    ) -> Checkup:
        key = jax.random.fold_in(self._key, number)
        record = checkup(self._loss, params, batch, opt_state=opt_state, update=update, key=key, **options)
        # All numbers but one are few: the rates are as many as the parameters.
        self.records.append((number, eqx.tree_at(lambda r: r.sharpness.rule.rates, record, None)))
        for log in self._logs:
            log(number, record.metrics())
        return record

    @property
    def findings(self) -> list[Finding]:
        """Of the last check-up, and of what all of them say together; the gravest first."""
        if not self.records:
            return []
        steps, records = zip(*self.records)
        return gravest_first([*trends(steps, records), *records[-1].findings])

    def table(self) -> str:
        """Lay the check-ups out as plain text.

        Returns:
            One line per check-up, and what the last one and all of them together say.
        """
        head = (
            "step",
            "loss",
            "ratio",
            "headroom",
            "noise scale",
            "predicted",
            "actual",
            "top share",
            "gravest finding",
        )
        lines = [head]
        for number, r in self.records:
            noise = "" if r.noise is None else _noise(r.noise)
            made = (
                ("", "")
                if r.step is None
                else (f"{float(r.step.predicted.value):+.2e}", f"{float(r.step.actual.value):+.2e}")
            )
            first = r.findings[0]
            gravest = "" if first.level == "note" else f"{first.level}: {first.topic}"
            edge = (f"{float(r.sharpness.ratio.value):.3g}", f"{float(r.sharpness.headroom.value):.3g}")
            share = f"{float(r.subspace.gradient_share[-1]):.2f}"
            lines.append((str(number), f"{float(r.loss):.4g}", *edge, noise, *made, share, gravest))
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        text = ["  ".join(cell.rjust(w) for cell, w in zip(line[:-1], widths)) + "  " + line[-1] for line in lines]
        last = [finding.text for finding in self.findings]
        return "\n".join([*text, *last])

    def to_html(self, path: str | Path | None = None) -> str:
        """Write curves over the run, and the last check-up's advice, as one page that opens offline.

        Args:
            path: where to write it; None to write nothing.

        Returns:
            The page.

        Raises:
            ImportError: matplotlib or Jinja2 is not installed; the message names the extra.
        """
        steps, records = [number for number, _ in self.records], [record for _, record in self.records]
        text = watch_page(steps, records, self.findings)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text


def _noise(part: NoiseScale) -> str:
    if part.resolved:
        return f"{float(part.preconditioned.value):.3g}"
    return "–" if math.isnan(part.at_least) else f"≥ {part.at_least:.3g}"


def watch(
    loss: Callable[..., Array],
    *,
    every: int = 200,
    key: Key,
    optimizer: optax.GradientTransformation | None = None,
    on_fault: str | OnFault | None = None,
    **options: Any,
) -> Watch:
    """Watch a training loop by a check-up every so many steps.

    `nablax.follow.fit` takes a watch as its ``watch``, and stops or lowers the rate as ``on_fault`` says.

    Args:
        loss: ``loss(params, batch) -> scalar``.
        every: steps from one check-up to the next, 200 by default. A check-up costs about 60 steps.
        key: for random probes; each check-up folds in its step number.
        optimizer: the Optax optimiser.
        on_fault: what to do where a check-up, or all so far together (nothing learned since the first), find a fault:
            ``"warn"``, ``"raise"`` a `FaultFound` before the step is made, or call ``on_fault(number, record)``, which
            in `nablax.follow.fit` may return ``"stop"``, or a factor to lower the rate by. Where ``record.safe`` the
            step is not at fault but the run. Nothing by default.
        **options: the other arguments of :func:`checkup`.

    Returns:
        A `Watch`: call its ``step`` once a training step, and ``table`` or ``to_html`` when you like.

    Raises:
        ValueError: ``every`` is below 1, ``on_fault`` is nothing that can be done, or an option is none of
            :func:`checkup`'s.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from nablax.diagnose import watch
        >>> loss, optimizer = (lambda p, x: jnp.mean((x @ p - 1.0) ** 2)), optax.sgd(0.1)
        >>> x, p = jax.random.normal(jax.random.key(0), (32, 3)), jnp.zeros(3)
        >>> watching, state = watch(loss, every=2, key=jax.random.key(1), optimizer=optimizer), optimizer.init(p)
        >>> for _ in range(3):
        ...     record = watching.step(p, x, state)
        ...     updates, state = optimizer.update(jax.grad(loss)(p, x), state)
        ...     p = optax.apply_updates(p, updates)
        >>> [number for number, _ in watching.records]
        [0, 2]

    Cost:
        That of :func:`checkup` every so many calls; nothing in between.
    """
    check_callable(loss, what="loss", fix="Pass loss(params, batch) -> scalar.", takes=2)
    check_key(key)
    check_count(every, what="every")
    if optimizer is not None:
        check_optimizer(optimizer)
    if not (on_fault in (None, "warn", "raise") or callable(on_fault)):
        raise fault(
            expected='on_fault="warn", "raise" or a function of step number and check-up',
            got=repr(on_fault),
            fix="Leave it out to be told nothing.",
        )
    known = [name for name in inspect.signature(checkup).parameters if name not in _GIVEN]
    if unknown := sorted(options.keys() - set(known)):
        raise fault(
            expected=f"options of checkup, {', '.join(known)}", got=", ".join(unknown), fix="Mind the spelling."
        )
    return Watch(loss, every, key, on_fault, {"optimizer": optimizer, **options})
