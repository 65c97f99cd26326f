"""Parametrised callables ``field(t, y, args)``: networks to be trained."""

from ._ema import EMA
from ._from_torch import from_torch
from ._frozen import Frozen
from ._mlp import MLP
from ._transformer import Transformer

__all__ = ["EMA", "Frozen", "MLP", "Transformer", "from_torch"]  # noqa: RUF022 (in plain order)
