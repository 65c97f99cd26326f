"""A check-up as numbers by name, for logs that compare runs."""

import dataclasses
import json
import math
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..._core import Estimate, Finding

# Numbers of the whole record that are worked out when asked for.
_VERDICT = ("risk", "safe", "suggested_learning_rate")


def metrics(record: Any) -> dict[str, float]:
    """Every single number of a check-up by its path, ``"sharpness/ratio"``; an estimate's error by ``"..._error"``.

    Names depend on what was measured alone, never on what was found. Truths are 1 and 0, and NaN is what is not known.
    """
    found: dict[str, float] = {}
    _collect(record, "", found)
    for name in _VERDICT:
        value = getattr(record, name)
        found[name] = math.nan if value is None else float(value)
    findings: list[Finding] = record.findings
    for level in ("fault", "warning", "note"):
        found[f"findings/{level}s"] = float(sum(finding.level == level for finding in findings))
    return found


def as_json(record: Any) -> str:
    """Numbers, findings and notes of a check-up as JSON; what is NaN or infinite is null."""
    numbers = {name: value if math.isfinite(value) else None for name, value in metrics(record).items()}
    findings = [{"level": f.level, "topic": f.topic, "text": f.text} for f in record.findings]
    whole = {"metrics": numbers, "findings": findings, "notes": list(record.notes)}
    return json.dumps(whole, ensure_ascii=False, indent=1)


def _collect(value: Any, path: str, found: dict[str, float]) -> None:
    if isinstance(value, Estimate):
        _collect(value.value, path, found)
        _collect(value.standard_error, f"{path}_error", found)
    elif isinstance(value, eqx.Module) and type(value).__module__.startswith("nablax."):  # no tree of the user's
        for field in dataclasses.fields(value):
            _collect(getattr(value, field.name), f"{path}/{field.name}" if path else field.name, found)
    elif _is_number(value):
        found[path] = float(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, (jax.Array, np.ndarray)):
        return value.ndim == 0 and value.dtype.kind in "biuf"
    return isinstance(value, (bool, int, float, np.number, np.bool_))
