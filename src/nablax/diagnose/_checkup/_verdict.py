"""Which signs raise which level, and how likely the run is to fail."""

from typing import Any, NamedTuple

import numpy as np

from ..._core import Level


class Rule(NamedTuple):
    name: str
    level: Level
    holds: Any


RULES: tuple[Rule, ...] = ()


def levels(signs: Any) -> dict[str, Level]:
    return {rule.name: rule.level for rule in RULES if bool(rule.holds(signs))}
