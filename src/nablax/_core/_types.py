"""Types that the rooms share."""

from collections.abc import Callable
from typing import Any

from jaxtyping import PRNGKeyArray, PyTree

# `field(t, y, args) -> dy`: Diffrax's vector field, called by position.
Field = Callable[[Any, PyTree, PyTree], PyTree]

Key = PRNGKeyArray
