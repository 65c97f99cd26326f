"""Callable in, callable out: Jacobian products, divergences, antisymmetry, Laplacian.

Each function takes a field ``field(t, y, args) -> dy`` (the Laplacian: a scalar function) and returns a
function of one sample; ``y`` may be any pytree. What is estimated by random probes comes back as an
:class:`Estimate`, a value with its standard error.
"""

from .._core import Estimate
from ._antisymmetry import Antisymmetry, antisymmetry
from ._divergence import divergence, value_and_divergence
from ._laplacian import laplacian
from ._products import jvp, vjp
from ._stochastic_divergence import stochastic_divergence, value_and_stochastic_divergence

__all__ = [
    "Antisymmetry",
    "Estimate",
    "antisymmetry",
    "divergence",
    "jvp",
    "laplacian",
    "stochastic_divergence",
    "value_and_divergence",
    "value_and_stochastic_divergence",
    "vjp",
]
